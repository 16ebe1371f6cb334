"""``m2m-verifier lint``: finds what takes the guard of an API away. It reads manifests, no cluster.

``manifests`` reads the files. One module for each controller finds its guards, its routes and its own traps;
``guards`` and ``routes`` hold the rules that are the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from verifier.tools.lint import envoy_gateway, f5, gateway_api, guards, ingress_nginx, istio, manifests, routes, traefik
from verifier.tools.lint.guards import Guard, Route
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Finding, Manifests

__all__ = ["Finding", "Known", "check", "lint_files", "main"]

_CONTROLLERS = (ingress_nginx, traefik, gateway_api, envoy_gateway, istio, f5)


def lint_files(paths: Sequence[Path], known: Known | None = None) -> list[Finding]:
    """Every trap in the objects of all files together, in the order of files and lines."""
    return _read(paths, known)[2]


def main(paths: Sequence[Path], known: Known | None, out: TextIO) -> int:
    """Print the findings. The exit status: 0 without one, else 1."""
    asking, ways, findings = _read(paths, known)
    summary = f"{len(paths)} file(s), {len(ways)} route(s), {len(asking)} guard(s)"
    print(*findings, f"{summary}: {len(findings) or 'no'} finding(s)", sep="\n", file=out)
    return 1 if findings else 0


def check(objects: Manifests, known: Known) -> tuple[list[Guard], list[Route], list[Finding]]:
    """What the rules of all controllers find in the objects."""
    found = [one for controller in _CONTROLLERS for one in controller.read(objects, known)]
    asking = [one for one in found if isinstance(one, Guard)]
    ways = [one for one in found if isinstance(one, Route)]
    findings = [one for one in found if isinstance(one, Finding)]
    findings += (finding for guard in asking for finding in guards.findings(guard, known))
    return asking, ways, [*findings, *routes.findings(ways, known)]


def _read(paths: Sequence[Path], known: Known | None) -> tuple[list[Guard], list[Route], list[Finding]]:
    objects, unreadable = manifests.read(paths)
    asking, ways, findings = check(objects, known or Known())
    order = {str(path): number for number, path in enumerate(paths)}
    by_place = sorted([*unreadable, *findings], key=lambda finding: (order[finding.file], finding.line))
    return asking, ways, by_place

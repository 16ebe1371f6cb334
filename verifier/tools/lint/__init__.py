"""``m2m-verifier lint``: finds what takes the guard of an ingress-nginx Ingress away. It reads manifests, no cluster.

``manifests`` reads the files; each other module holds the rules of one kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from verifier.tools.lint import ingress_nginx, manifests, routes, snippets
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Finding, Ingress

__all__ = ["Finding", "Known", "lint_files", "main"]


def lint_files(paths: Sequence[Path], known: Known | None = None) -> list[Finding]:
    """Every trap in the Ingresses of all files together: one file's path may bypass another's guard."""
    return _read(paths, known)[1]


def main(paths: Sequence[Path], known: Known | None, out: TextIO) -> int:
    """Print the findings. The exit status: 0 without one, else 1."""
    ingresses, findings = _read(paths, known)
    guarded = sum(ingress.guarded for ingress in ingresses)
    summary = f"{len(paths)} file(s), {len(ingresses)} Ingress(es), {guarded} guarded by the verifier"
    print(*findings, f"{summary}: {len(findings) or 'no'} finding(s)", sep="\n", file=out)
    return 1 if findings else 0


def _read(paths: Sequence[Path], known: Known | None) -> tuple[list[Ingress], list[Finding]]:
    known = known or Known()
    ingresses, findings = manifests.read(paths)
    # A canary shares the location, and so the guard, of the Ingress beside it.
    effective = [ingress for ingress in ingresses if ingress.annotation("canary") != "true"]
    for rules in (ingress_nginx, snippets, routes):
        findings += rules.findings(effective, known)
    return ingresses, findings

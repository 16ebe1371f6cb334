"""``m2m-verifier lint``: finds what takes the guard of an ingress-nginx Ingress away. It reads manifests, no cluster.

``manifests`` reads the files; each other module holds the rules of one kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from verifier.tools.lint import ingress_nginx, manifests, routes, snippets
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Finding, Ingress

__all__ = ["Finding", "Known", "lint_files", "main"]


def lint_files(paths: Sequence[Path], known: Known | None = None) -> list[Finding]:
    """Every trap in the Ingresses of all files together: one file's path may bypass another's guard."""
    ingresses, findings = manifests.read(paths)
    return findings + list(_findings(ingresses, known or Known()))


def main(paths: Sequence[Path], known: Known | None, out: TextIO) -> int:
    """Print the findings. The exit status: 0 without one, else 1."""
    ingresses, findings = manifests.read(paths)
    findings += _findings(ingresses, known or Known())
    for finding in findings:
        print(finding, file=out)
    guarded = sum(ingress.guarded for ingress in ingresses)
    print(
        f"{len(paths)} file(s), {len(ingresses)} Ingress(es), {guarded} guarded by the verifier: "
        f"{len(findings) or 'no'} finding(s)",
        file=out,
    )
    return 1 if findings else 0


def _findings(ingresses: Sequence[Ingress], known: Known) -> Iterator[Finding]:
    effective = [ingress for ingress in ingresses if not ingress.canary]
    for ingress in effective:
        yield from ingress_nginx.findings(ingress, known)
    yield from snippets.findings(effective, known)
    yield from routes.findings(effective, known)

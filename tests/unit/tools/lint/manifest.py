"""Ingresses as files have them, for the tests of lint."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from verifier.tools.lint import Finding, Known, lint_files

N = "nginx.ingress.kubernetes.io/"
ALL_HEADERS = "X-M2M-Client-ID, X-M2M-Scope, X-M2M-Role, X-M2M-Issuer"
VERIFY = "http://m2m-verifier.auth.svc.cluster.local:8000/verify/api"
METADATA = "/.well-known/oauth-protected-resource"

Manifest = dict[str, Any]


def ingress(
    name: str = "api", host: str | None = "api.example.com", paths: tuple[str, ...] = ("/",), service: str = "api",
    tls: bool = True, certified: str | None = None, **annotations: str | None,
) -> Manifest:  # fmt: skip
    """A guarded Ingress without a trap; an annotation is named with underscores, and None leaves it out."""
    values = {"auth_url": VERIFY, "auth_response_headers": ALL_HEADERS, "limit_rps": "20", **annotations}
    backend = {"service": {"name": service, "port": {"number": 80}}}
    http = {"paths": [{"path": p, "pathType": "Prefix", "backend": backend} for p in paths]}
    spec: Manifest = {"rules": [{"host": host, "http": http} if host else {"http": http}]}
    if tls:
        names = [name for name in [certified or host] if name]
        spec["tls"] = [{"hosts": names, "secretName": f"{name}-tls"}]
    written = {N + key.replace("_", "-"): value for key, value in values.items() if value is not None}
    metadata = {"name": name, "namespace": "shop", "annotations": written}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def unguarded(name: str = "open", **options: Any) -> Manifest:
    """An Ingress that has nothing to do with the verifier."""
    return ingress(name, auth_url=None, auth_response_headers=None, limit_rps=None, **options)


def rules(findings: list[Finding]) -> list[str]:
    """Which rules reported something, in order."""
    return [finding.rule for finding in findings]


def lint(*manifests: Manifest | str, known: Known | None = None) -> list[Finding]:
    """What lint finds in manifests, or texts, as one file, which is gone then."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ingress.yaml")
        path.write_text("---\n".join(one if isinstance(one, str) else yaml.safe_dump(one) for one in manifests))
        return lint_files([path], known)

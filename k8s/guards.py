"""The components that guard an API: `python -m k8s.guards` writes what `m2m-verifier guard` prints for policy `api`."""

from __future__ import annotations

import re
from pathlib import Path

from verifier.tools.guard import Guard

COMPONENTS = Path(__file__).parent / "components"
PROXIES = (
    "traefik",
    "traefik-ingress-nginx",
    "envoy-gateway",
    "istio",
    "gateway-api",
    "nginx-gateway-fabric",
    "nginx-ingress-controller",
)
"""Those with Kubernetes objects, each the name of a component. Cilium's are those of gateway-api."""


def text(proxy: str) -> str:
    """The file guard.yaml of one component. What belongs into the proxy's own configuration becomes a comment."""
    documents = Guard("api").block(proxy).split("---\n")
    objects = [each if re.search("^kind:", each, re.MULTILINE) else _comment(each) for each in documents]
    command = f"m2m-verifier guard --proxy {proxy} --policy api"
    return f"# Made by `make manifests` from `{command}`; the params replace namespaces, hosts and Services.\n" + (
        "---\n".join(objects)
    )


def _comment(document: str) -> str:
    return re.sub("^(?!#)", "# ", document, flags=re.MULTILINE).removesuffix("# ")


if __name__ == "__main__":
    for name in PROXIES:
        (COMPONENTS / name / "guard.yaml").write_text(text(name), encoding="utf-8")

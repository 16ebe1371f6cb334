"""Traefik's ingress-nginx provider reads the Ingress that `guard` prints from a Kubernetes API server.

No kubelet runs: Services of type ExternalName lead to the verifier and the API of this test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml

from tests.cluster.server import TOKEN, ApiServer
from tests.proxies import renderers
from tests.proxies.stage import Proxy, Stage, wrong
from tests.proxies.table import TABLE
from tests.proxies.where import AUTH, BIN, Where
from verifier.tools.guard import Guard

PROXY = "traefik-ingress-nginx"
TRAEFIK = BIN / "traefik"
pytestmark = pytest.mark.skipif(not TRAEFIK.exists(), reason="`make proxies` installs Traefik")


def service(name: str, namespace: str, port: int, address: str) -> dict[str, Any]:
    """A Service that leads to an address of this machine."""
    ports = [{"port": port, "targetPort": int(address.rpartition(":")[2])}]
    spec = {"type": "ExternalName", "externalName": "localhost", "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


@pytest.fixture(scope="module")
def running(api_server: ApiServer, parts: Stage) -> Iterator[Any]:
    """Starts Traefik with a block."""
    metadata, spec = {"name": "nginx"}, {"controller": "k8s.io/ingress-nginx"}
    api_server.apply(
        {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": metadata, "spec": spec},
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ("auth", "default")),
        service("m2m-verifier", "auth", 8000, parts.serve.address),
        service("api", "default", 8080, parts.api.address),
    )

    def render(block: str, where: Where) -> list[str]:
        static, *ingresses = yaml.safe_load_all(block.replace(AUTH, where.verifier))
        for ingress in ingresses:
            ingress["metadata"].setdefault("namespace", "default")
            ingress["spec"].pop("tls")  # no TLS here, and any Host
            ingress["spec"]["rules"][0].pop("host")
        api_server.apply(*ingresses)
        static["entryPoints"]["websecure"]["address"] = f"127.0.0.1:{where.port}"
        static["global"] = {"checkNewVersion": False, "sendAnonymousUsage": False}
        static["providers"] = {"kubernetesIngressNGINX": {
            "endpoint": api_server.url, "token": TOKEN, "certAuthFilePath": str(api_server.ca),
            "httpEntryPoint": "websecure",
        }}  # fmt: skip
        return [str(TRAEFIK), "--configFile=" + where.write("static.yaml", yaml.safe_dump(static))]

    renderers.RENDER[PROXY] = render
    yield lambda block: parts.running(PROXY, block)
    del renderers.RENDER[PROXY]


def mistakes(proxy: Proxy) -> dict[str, str]:
    """The rows that are wrong; Traefik answers and rewrites by itself what it does with forwardAuth."""
    proxy = replace(proxy, name="traefik")
    found = {row.name: wrong(row, proxy, proxy.send(row)) for row in TABLE}
    return {name: why for name, why in found.items() if why}


def test_traefik_gives_the_same_decisions_and_the_api_the_verified_identity(running: Any, parts: Stage) -> None:
    with running(parts.guard(PROXY)) as proxy:
        assert mistakes(proxy) == {}


def test_traefik_without_any_one_of_the_guarding_lines_is_noticed(running: Any, parts: Stage) -> None:
    block = parts.guard(PROXY)
    lines = block.splitlines()
    numbers = Guard("api", ("X-User-ID", "X-Tenant-ID")).guarding(PROXY)

    assert len(numbers) == 3
    for number in numbers:
        with running("\n".join(lines[:number] + lines[number + 1 :])) as proxy:
            assert mistakes(proxy) != {}, lines[number]


def test_with_rewrite_target_traefik_names_the_rewritten_path(running: Any, parts: Stage) -> None:
    """Rules see what the API gets, not what the client sent: the block says that there must be no rewrite."""
    annotation = "  annotations:\n    nginx.ingress.kubernetes.io/rewrite-target: /db/\n"
    block = parts.guard(PROXY).replace("  annotations:\n", annotation, 1)
    [other] = [row for row in TABLE if row.name == "a path without a rule"]
    with running(block) as proxy:
        answer = proxy.send(other)

    assert answer is not None
    assert (answer.status, answer.json["target"]) == (200, "/db/other")

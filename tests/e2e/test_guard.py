"""What `m2m-verifier guard` prints, run by a real nginx: a client's own identity headers never reach the API."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.e2e.stage import Serve, configuration, entry, exchange, free_port, request
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import IDENTITY_HEADERS, Gateway, Location, Nginx
from verifier.demo.serving import Background

CONFIGURATION = {
    "policies": {"api": {"rules": [{"path": "/db/**", "methods": ["GET"]}]}},
    "headers": {"X-User-ID": "sub", "X-Tenant-ID": "tenant"},
}
HEADERS = (*IDENTITY_HEADERS, "X-User-ID", "X-Tenant-ID")
FORGED = [f"{spelt}: forged" for name in HEADERS for spelt in (name, name.lower(), name.upper(), name)]


class PlainNginx(Gateway):
    """An nginx.conf around the printed block, which is in `server_snippet`."""

    def render(self) -> str:
        """The whole nginx.conf."""
        return f"{super().render().partition('  access_log')[0]}\n  access_log off;\n{self.server_snippet}\n}}\n"


@dataclass
class Guarded:
    """nginx's port, and the issuer of tokens."""

    port: int
    issuer: Issuer

    def reached_api(self, *lines: str, **claims: object) -> dict[str, list[str]]:
        """The identity headers that the API received with an allowed request."""
        token = self.issuer.mint({**self.issuer.machine_claims("etl", ("read",)), **claims})
        answer = exchange(self.port, request("/db/x", *lines, token=token))
        assert answer.status == 200
        return {name: answer.seen(name) for name in HEADERS}


def printed(proxy: str, config: Path) -> str:
    command = [sys.executable, "-P", "-m", "verifier", "guard", "--proxy", proxy, "--policy", "api"]
    done = subprocess.run([*command, "--config", str(config)], capture_output=True, text=True, check=True)
    return done.stdout


def plain_nginx(block: str, folder: Path, serve: Serve, api: Background) -> Gateway:
    port = free_port()
    for shown, used in (
        ("unix:/run/m2m-verifier/verifier.sock", serve.address),
        ("127.0.0.1:9000", api.address),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
    ):
        assert block.count(shown) == 1
        block = block.replace(shown, used)
    return PlainNginx(folder / "nginx", port, [], server_snippet=block)


def ingress_nginx(block: str, folder: Path, serve: Serve, api: Background) -> Gateway:
    """The configuration that ingress-nginx makes of the printed annotations."""
    annotations = next(yaml.safe_load_all(block))["metadata"]["annotations"]
    listed = annotations["nginx.ingress.kubernetes.io/auth-response-headers"].split(", ")
    path = annotations["nginx.ingress.kubernetes.io/auth-url"].partition(":8000")[2]
    return Gateway(folder / "nginx", free_port(), [serve.address], {"api": api.address}, [Location("/", path)], listed)


MAKE = {"nginx": plain_nginx, "ingress-nginx": ingress_nginx}


@pytest.fixture(scope="module", params=MAKE)
def guarded(
    request: pytest.FixtureRequest, lab: Issuer, api: Background, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp(request.param)
    with Serve(configuration(entry(lab), **CONFIGURATION), folder) as serve:
        gateway = MAKE[request.param](printed(request.param, serve.config), folder, serve, api)
        with Nginx(gateway):
            yield Guarded(gateway.port, lab)


def test_a_forged_header_is_replaced_by_the_verifiers(guarded: Guarded) -> None:
    reached = guarded.reached_api(*FORGED, tenant="acme")

    assert reached == {
        "X-M2M-Client-ID": ["etl"], "X-M2M-Scope": [f"{guarded.issuer.prefix}read"], "X-M2M-Role": [],
        "X-M2M-Issuer": ["lab"], "X-User-ID": ["etl"], "X-Tenant-ID": ["acme"],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["X-M2M-Role", "X-Tenant-ID"])
def test_a_forged_header_is_removed_where_the_verifiers_is_empty(guarded: Guarded, name: str) -> None:
    assert guarded.reached_api(f"{name}: forged")[name] == []


@pytest.mark.parametrize("name", HEADERS)
def test_a_forged_header_with_underscores_does_not_reach_the_api(guarded: Guarded, name: str) -> None:
    token = guarded.issuer.mint(guarded.issuer.machine_claims("etl", ("read",)))
    answer = exchange(guarded.port, request("/db/x", f"{name.replace('-', '_')}: forged", token=token))

    assert (answer.status, b"forged" in answer.body) == (200, False)


@pytest.mark.parametrize(
    ("target", "method", "line"),
    [
        ("/db/x", "DELETE", "X-Original-Method: GET"),
        ("/other", "GET", "X-Original-URL: http://api.example/db/x"),
    ],
)
def test_the_decision_is_about_the_real_request(guarded: Guarded, target: str, method: str, line: str) -> None:
    token = guarded.issuer.mint(guarded.issuer.machine_claims("etl", ("read",)))

    assert exchange(guarded.port, request(target, line, method=method, token=token), method).status == 403


def test_without_a_token_nothing_is_allowed(guarded: Guarded) -> None:
    assert exchange(guarded.port, request("/db/x")).status == 401

"""What `m2m-verifier guard` prints, run by a real nginx: a client's own identity headers never reach the API.

tests/ops/test_docs.py compares the blocks of docs/ingress.md with it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.stage import Answer, Serve, configuration, entry, eventually, exchange, free_port, request
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import Gateway, Location, Nginx
from verifier.demo.processes import Child
from verifier.demo.serving import Background
from verifier.identity import IDENTITY_HEADERS
from verifier.policy.resources import WELL_KNOWN

RULES = [{"path": "/db/**", "methods": ["GET"]}, {"path": "/db/**", "methods": ["POST"], "scope": ["write"]}]
RESOURCE = {"url": "https://api.example/", "authorization_servers": ["https://id.example"]}
CONFIGURATION = {
    "policies": {"api": {"rules": RULES, "resource": RESOURCE}},
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
    """nginx's port, the issuer of tokens, and the verifier's Unix socket."""

    port: int
    issuer: Issuer
    uds: Path

    def ask(
        self, *lines: str, target: str = "/db/x", method: str = "GET", scopes: tuple[str, ...] = ("read",),
        body: str = "", **claims: object,
    ) -> Answer:  # fmt: skip
        """The answer to a request with a token and a body."""
        token = self.issuer.mint({**self.issuer.machine_claims("etl", scopes), **claims})
        head = request(target, *lines, f"Content-Length: {len(body)}", method=method, token=token)
        return exchange(self.port, head + body.encode(), method)

    def connections(self) -> set[str]:
        """The verifier's ends of open connections, by inode."""
        sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        return {fields[6] for fields in sockets if fields[5:] and fields[5] == "03" and fields[-1] == str(self.uds)}


def printed(proxy: str, config: Path) -> str:
    command = [sys.executable, "-P", "-m", "verifier", "guard", "--proxy", proxy, "--policy", "api"]
    done = subprocess.run([*command, "--config", str(config)], capture_output=True, text=True, check=True)
    return done.stdout


def plain_nginx(folder: Path, serve: Serve, api: Background, running: ExitStack) -> Gateway:
    """The printed block with the addresses of this test, in front of a verifier on a Unix socket."""
    uds, port = folder / "verifier.sock", free_port()
    block = printed("nginx", serve.config)
    for shown, used in (
        ("/run/m2m-verifier/verifier.sock", str(uds)),
        ("127.0.0.1:9000", api.address),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        ("proxy_pass http://api;", "proxy_pass http://api; client_max_body_size 4m;"),
    ):
        assert block.count(shown) == 1
        block = block.replace(shown, used)
    command = [sys.executable, "-P", "-m", "verifier", "serve", "--config", str(serve.config), "--uds", str(uds)]
    verifier = Child([*command, "--host", "127.0.0.1", "--metrics-port", str(free_port())], folder / "verifier.log")
    running.callback(verifier.stop, signal.SIGTERM, 10)
    direct = running.enter_context(httpx.Client(transport=httpx.HTTPTransport(uds=str(uds))))
    eventually(lambda: uds.exists() and direct.get("http://m2m/ready").is_success, "the verifier is ready")
    return PlainNginx(folder / "nginx", port, [], server_snippet=block)


def ingress_nginx(folder: Path, serve: Serve, api: Background, _: ExitStack) -> Gateway:
    """The configuration that ingress-nginx makes of the printed annotations."""
    annotations = next(yaml.safe_load_all(printed("ingress-nginx", serve.config)))["metadata"]["annotations"]
    listed = annotations["nginx.ingress.kubernetes.io/auth-response-headers"].split(", ")
    path = annotations["nginx.ingress.kubernetes.io/auth-url"].partition(":8000")[2]
    return Gateway(folder / "nginx", free_port(), [serve.address], {"api": api.address}, [Location("/", path)], listed)


MAKE = {"nginx": plain_nginx, "ingress-nginx": ingress_nginx}
plain = pytest.mark.parametrize("guarded", ["nginx"], indirect=True)


@pytest.fixture(scope="module", params=MAKE)
def guarded(
    request: pytest.FixtureRequest, lab: Issuer, api: Background, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as running, Serve(configuration(entry(lab), **CONFIGURATION), folder) as serve:
        gateway = MAKE[request.param](folder, serve, api, running)
        with Nginx(gateway):
            yield Guarded(gateway.port, lab, folder / "verifier.sock")


def test_a_forged_header_is_replaced_by_the_verifiers_or_removed(guarded: Guarded) -> None:
    answer, without_tenant = guarded.ask(*FORGED, tenant="acme"), guarded.ask(*FORGED)

    assert (answer.status, {name: answer.seen(name) for name in HEADERS}) == (200, {
        "X-M2M-Client-ID": ["etl"], "X-M2M-Scope": [f"{guarded.issuer.prefix}read"], "X-M2M-Role": [],
        "X-M2M-Issuer": ["lab"], "X-User-ID": ["etl"], "X-Tenant-ID": ["acme"],
    })  # fmt: skip
    assert (without_tenant.status, without_tenant.seen("X-Tenant-ID")) == (200, [])


def test_a_forged_header_with_underscores_does_not_reach_the_api(guarded: Guarded) -> None:
    answer = guarded.ask(*(f"{name.replace('-', '_')}: forged" for name in HEADERS))

    assert (answer.status, b"forged" in answer.body) == (200, False)


@pytest.mark.parametrize(
    ("target", "method", "line"),
    [
        ("/db/x", "DELETE", "X-Original-Method: GET"),
        ("/other", "GET", "X-Original-URL: http://api.example/db/x"),
    ],
)
def test_the_decision_is_about_the_real_request(guarded: Guarded, target: str, method: str, line: str) -> None:
    assert guarded.ask(line, target=target, method=method).status == 403


def test_without_a_token_nothing_is_allowed(guarded: Guarded) -> None:
    assert exchange(guarded.port, request("/db/x")).status == 401


@plain
def test_plain_nginx_passes_on_the_reason_of_a_refusal_and_the_challenge_of_a_401(guarded: Guarded) -> None:
    unauthorized, forbidden = exchange(guarded.port, request("/db/x")), guarded.ask(method="POST")

    assert unauthorized.headers["x-m2m-reason"] == "missing_token"
    assert unauthorized.headers["www-authenticate"].startswith('Bearer realm="api"')
    assert (forbidden.status, forbidden.headers["x-m2m-reason"]) == (403, "insufficient_scope")


@plain
def test_the_api_gets_the_body_and_the_connection_to_the_verifier_stays_open(guarded: Guarded) -> None:
    guarded.ask()
    before = guarded.connections()
    answer = guarded.ask(method="POST", scopes=("write",), body="a body")

    assert (answer.status, answer.json["body"]) == (200, "a body")
    assert guarded.connections() == before != set()


@plain
def test_a_body_may_be_as_large_as_the_location_of_the_api_allows(guarded: Guarded) -> None:
    answer = guarded.ask(method="POST", scopes=("write",), body="x" * 2_000_000)

    assert answer.status == 200
    assert len(answer.json["body"]) == 2_000_000


@plain
def test_the_protected_resource_document_is_open_and_the_subrequest_is_not(guarded: Guarded) -> None:
    document = exchange(guarded.port, request(WELL_KNOWN))

    assert (document.status, document.json["resource"]) == (200, RESOURCE["url"])
    assert exchange(guarded.port, request("/_m2m")).status == 404

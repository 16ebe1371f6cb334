"""The nginx block of docs/ingress.md, run as it is printed there."""

import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pages import DOCS

from tests.e2e.stage import eventually
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import Gateway, Nginx
from verifier.demo.processes import Child
from verifier.demo.serving import Background, bind, free_port, port_of


class Block(Gateway):
    """An nginx.conf around the page's block, with the addresses of this test."""

    def render(self) -> str:
        (block,) = DOCS["ingress"].blocks("nginx")
        for printed, used in (
            ("unix:/run/m2m-verifier/verifier.sock", f"unix:{self.verifiers[0]}"),
            ("127.0.0.1:9000", self.backends["api"]),
            ("127.0.0.1:8080", f"127.0.0.1:{self.port}"),
        ):
            assert printed in block
            block = block.replace(printed, used)
        head = super().render().partition("  access_log")[0]
        return f"{head}\n  access_log off;\n{block}\n}}\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with every header as it arrived, and the body."""
    body = (await receive()).get("body", b"")
    received = {"headers": [[n.decode(), v.decode()] for n, v in scope["headers"]], "body": body.decode()}
    data = json.dumps(received).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(data))]})
    await send({"type": "http.response.body", "body": data})


@dataclass
class Guarded:
    """Plain nginx with the page's block, a verifier on a Unix socket, an API."""

    api: httpx.Client
    issuer: Issuer
    client_id: str
    uds: Path

    def connections(self) -> set[str]:
        """The verifier's ends of open connections, by inode."""
        sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        return {fields[6] for fields in sockets if fields[5:] and fields[5] == "03" and fields[-1] == str(self.uds)}

    def ask(self, method: str = "GET", scopes: tuple[str, ...] = ("read",), **more: Any) -> httpx.Response:
        token = self.issuer.mint(self.issuer.machine_claims(self.client_id, scopes))
        headers = [("Authorization", f"Bearer {token}"), *more.pop("headers", ())]
        return self.api.request(method, "/db/orders", headers=headers, **more)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("plain")
    listener = bind()
    issuer = Issuer(f"http://127.0.0.1:{port_of(listener)}")
    client_id, _ = issuer.add_client("read", "write")
    rules = [{"path": "/db/**", "methods": ["GET"]}, {"path": "/db/**", "methods": ["POST"], "scope": ["write"]}]
    resource = {"url": "https://api.example/", "authorization_servers": [issuer.url]}
    configuration = {
        "issuers": [{"name": "demo", "profile": "cognito", "issuer": issuer.url, "jwks_url": issuer.jwks_url}],
        "scope_prefix": issuer.prefix,
        "policies": {"api": {"rules": rules, "resource": resource}},
    }
    (folder / "m2m.yaml").write_text(yaml.safe_dump(configuration))
    uds = folder / "verifier.sock"
    command = [sys.executable, "-P", "-m", "verifier", "serve", "--config", str(folder / "m2m.yaml"), "--uds", str(uds)]
    command += ["--host", "127.0.0.1", "--metrics-port", str(free_port())]
    with Background(issuer.app, listener), Background(echo) as api:
        verifier = Child(command, folder / "verifier.log")
        try:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(uds))) as direct:
                eventually(lambda: uds.exists() and direct.get("http://m2m/ready").status_code == 200, "it is ready")
            gateway = Block(folder / "nginx", free_port(), [str(uds)], {"api": api.address})
            with Nginx(gateway), httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False) as client:
                yield Guarded(client, issuer, client_id, uds)
        finally:
            verifier.stop(signal.SIGTERM, 10)


def test_a_good_token_passes_and_the_api_sees_the_caller_and_no_forged_identity(guarded: Guarded) -> None:
    names = ("X-M2M-Role", "X-M2M-Client-ID", "x-m2m-scope", "X-M2M-Issuer", "X_M2M_Role", "X-M2M-Role")
    answer = guarded.ask(headers=[(name, "root") for name in names])
    identity = {name: value for name, value in answer.json()["headers"] if name.startswith("x-m2m-")}
    scope = f"{guarded.issuer.prefix}read"
    assert identity == {"x-m2m-client-id": guarded.client_id, "x-m2m-scope": scope, "x-m2m-issuer": "demo"}
    assert (answer.status_code, "root" in answer.text) == (200, False)


def test_a_refusal_carries_the_reason_and_a_401_its_challenge(guarded: Guarded) -> None:
    unauthorized = guarded.api.get("/db/orders")
    assert (unauthorized.status_code, unauthorized.headers["X-M2M-Reason"]) == (401, "missing_token")
    assert unauthorized.headers["WWW-Authenticate"].startswith('Bearer realm="api"')
    forbidden = guarded.ask("POST", json={})
    assert (forbidden.status_code, forbidden.headers["X-M2M-Reason"]) == (403, "insufficient_scope")


def test_forged_headers_do_not_change_the_request_that_is_judged(guarded: Guarded) -> None:
    forged = [("X-Original-Method", "GET"), ("X-Original-URL", "https://api.example/db/x")]
    assert guarded.ask("DELETE", headers=forged).status_code == 403


def test_the_api_gets_the_body_and_the_connection_to_the_verifier_stays_open(guarded: Guarded) -> None:
    guarded.ask()
    before = guarded.connections()
    assert len(before) >= 1
    answer = guarded.ask("POST", ("write",), content=b"a body")
    assert (answer.status_code, answer.json()["body"]) == (200, "a body")
    assert guarded.connections() == before


def test_the_protected_resource_document_is_open_and_the_subrequest_is_not(guarded: Guarded) -> None:
    answer = guarded.api.get("/.well-known/oauth-protected-resource", headers={"Host": "api.example"})
    assert answer.json()["resource"] == "https://api.example/"
    assert guarded.api.get("/_m2m").status_code == 404

"""What `m2m-verifier guard` prints for plain nginx, run by a real one that asks over a Unix socket.

tests/proxies runs one table of requests and forgeries through the blocks of all proxies.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.stage import Answer, configuration, entry, eventually, exchange, free_port, request
from verifier.demo.issuer import Issuer
from verifier.demo.nginx import Gateway, Nginx
from verifier.demo.processes import Child
from verifier.demo.serving import Background
from verifier.identity import IDENTITY_HEADERS

RULES = [{"path": "/db/**", "methods": ["GET"]}, {"path": "/db/**", "methods": ["POST"], "scope": ["write"]}]
CONFIGURATION = {"policies": {"api": {"rules": RULES}}, "headers": {"X-User-ID": "sub", "X-Tenant-ID": "tenant"}}
HEADERS = (*IDENTITY_HEADERS, "X-User-ID", "X-Tenant-ID")


class PlainNginx(Gateway):
    """An nginx.conf around the printed block, which is in `server_snippet`."""

    def render(self) -> str:
        """The whole nginx.conf."""
        return f"{super().render().partition('  access_log')[0]}\n  access_log off;\n{self.server_snippet}\n}}\n"


def block(config: Path, *changes: tuple[str, str]) -> str:
    """The printed block for the policy `api`, with the addresses of a test."""
    command = [sys.executable, "-P", "-m", "verifier", "guard", "--proxy", "nginx", "--policy", "api"]
    text = subprocess.check_output([*command, "--config", str(config)], text=True)
    for shown, used in changes:
        assert text.count(shown) == 1
        text = text.replace(shown, used)
    return text


@dataclass
class Guarded:
    """nginx's port, the issuer of tokens, and the verifier's Unix socket."""

    port: int
    issuer: Issuer
    uds: Path

    def ask(self, *lines: str, scope: str = "read", body: str = "", method: str = "GET", **claims: object) -> Answer:
        """The answer to a request with a token and a body."""
        token = self.issuer.mint({**self.issuer.machine_claims("etl", [scope]), **claims})
        head = request("/db/x", *lines, f"Content-Length: {len(body)}", method=method, token=token)
        return exchange(self.port, head + body.encode(), method)

    def connections(self) -> set[str]:
        """The verifier's ends of open connections, by inode."""
        sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        return {fields[6] for fields in sockets if fields[5:] and fields[5] == "03" and fields[-1] == str(self.uds)}


@pytest.fixture(scope="module")
def guarded(lab: Issuer, api: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guard")
    uds, port = folder / "verifier.sock", free_port()
    config = folder / "verifier.json"
    config.write_text(json.dumps(configuration(entry(lab), **CONFIGURATION)))
    text = block(
        config,
        ("/run/m2m-verifier/verifier.sock", str(uds)),
        ("127.0.0.1:9000", api.address),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
        ("proxy_pass http://api;", "proxy_pass http://api; client_max_body_size 4m;"),
    )
    command = [sys.executable, "-P", "-m", "verifier", "serve", "--config", str(config), "--uds", str(uds)]
    verifier = Child([*command, "--host", "127.0.0.1", "--metrics-port", str(free_port())], folder / "verifier.log")
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(uds))) as direct:
            eventually(lambda: uds.exists() and direct.get("http://m2m/ready").is_success, "the verifier is ready")
        with Nginx(PlainNginx(folder / "nginx", port, [], server_snippet=text)):
            yield Guarded(port, lab, uds)
    finally:
        verifier.stop(signal.SIGTERM, 10)


def test_a_forged_header_is_replaced_by_the_verifiers_or_removed(guarded: Guarded) -> None:
    spellings = [(name, name.lower(), name.upper(), name, name.replace("-", "_")) for name in HEADERS]
    forged = [f"{spelt}: forged" for name in spellings for spelt in name]
    answer, without_tenant = guarded.ask(*forged, tenant="acme"), guarded.ask(*forged)

    assert (answer.status, {name: answer.seen(name) for name in HEADERS}) == (200, {
        "X-M2M-Client-ID": ["etl"], "X-M2M-Scope": [f"{guarded.issuer.prefix}read"], "X-M2M-Role": [],
        "X-M2M-Issuer": ["lab"], "X-User-ID": ["etl"], "X-Tenant-ID": ["acme"],
    })  # fmt: skip
    assert (without_tenant.status, without_tenant.seen("X-Tenant-ID")) == (200, [])
    assert b"forged" not in answer.body + without_tenant.body


def test_nginx_passes_on_the_reason_of_a_refusal_and_the_challenge_of_a_401(guarded: Guarded) -> None:
    unauthorized = exchange(guarded.port, request("/db/x"))
    forbidden = guarded.ask("X-Original-Method: GET", method="POST")

    assert (unauthorized.status, unauthorized.headers["x-m2m-reason"]) == (401, "missing_token")
    assert unauthorized.headers["www-authenticate"].startswith('Bearer realm="api"')
    assert (forbidden.status, forbidden.headers["x-m2m-reason"]) == (403, "insufficient_scope")


def test_a_body_may_be_as_large_as_the_api_allows_and_the_connection_to_the_verifier_stays_open(
    guarded: Guarded,
) -> None:
    guarded.ask()
    before = guarded.connections()
    answer = guarded.ask(method="POST", scope="write", body="x" * 2_000_000)

    assert (answer.status, answer.json["body"] == "x" * 2_000_000) == (200, True)
    assert guarded.connections() == before != set()

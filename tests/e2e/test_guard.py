"""What `m2m-verifier guard` prints for plain nginx, run by a real one that asks over a Unix socket.

tests/proxies runs one table of requests and forgeries through the blocks of all proxies, and the canary asks through
this one (test_canary.py).
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

RULES = [{"path": "/db/**", "methods": ["GET"]}, {"path": "/db/**", "methods": ["POST"], "scope": ["write"]}]


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

    def post(self, scope: str, body: str = "") -> Answer:
        """The answer to a POST that says it is a GET, with a token."""
        token = self.issuer.mint(self.issuer.machine_claims("etl", [scope]))
        lines = "X-Original-Method: GET", f"Content-Length: {len(body)}"
        return exchange(self.port, request("/db/x", *lines, method="POST", token=token) + body.encode())

    def connections(self) -> set[str]:
        """The verifier's ends of open connections, by inode."""
        sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        return {fields[6] for fields in sockets if fields[5:] and fields[5] == "03" and fields[-1] == str(self.uds)}


@pytest.fixture(scope="module")
def guarded(lab: Issuer, api: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guard")
    uds, port = folder / "verifier.sock", free_port()
    config = folder / "verifier.json"
    config.write_text(json.dumps(configuration(entry(lab), policies={"api": {"rules": RULES}})))
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


def test_nginx_passes_on_the_reason_of_a_refusal_and_the_challenge_of_a_401(guarded: Guarded) -> None:
    unauthorized = exchange(guarded.port, request("/db/x"))
    forbidden = guarded.post("read")

    assert (unauthorized.status, unauthorized.headers["x-m2m-reason"]) == (401, "missing_token")
    assert unauthorized.headers["www-authenticate"].startswith('Bearer realm="api"')
    assert (forbidden.status, forbidden.headers["x-m2m-reason"]) == (403, "insufficient_scope")


def test_a_body_may_be_as_large_as_the_api_allows_and_the_connection_to_the_verifier_stays_open(
    guarded: Guarded,
) -> None:
    guarded.post("write")
    before = guarded.connections()
    answer = guarded.post("write", "x" * 2_000_000)

    assert (answer.status, answer.json["body"] == "x" * 2_000_000) == (200, True)
    assert guarded.connections() == before != set()

"""The memory of a worker: with a full cache, and with every bounded structure filled by hostile clients."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certifi
import pytest
import trustme
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.e2e.stage import Serve, configuration, entry, eventually, request, resident, statuses
from tests.minting import SigningKey
from verifier.demo.issuer import Issuer, b64url
from verifier.demo.serving import bind, port_of

WORKER = 80 * 1024  # KiB that a worker may take with the default cache
LIMIT = 128 * 1024  # KiB: the limit of the manifests
TOKENS = 10_000


@dataclass
class TlsIssuer:
    """An issuer over https: certificates and buffers of the client count too."""

    url: str
    key: SigningKey
    certificates: Path
    shape: Issuer
    """What claims look like."""

    def mint(self, client: str, scopes: Sequence[str], **claims: Any) -> str:
        return self.key.sign(self.shape.machine_claims(client, scopes) | claims)


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[TlsIssuer]:
    key, authority = SigningKey.generate("ES256", "ec-1"), trustme.CA()
    own, all_ = tmp_path / "own.pem", tmp_path / "all.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(own)
    all_.write_bytes(Path(certifi.where()).read_bytes() + authority.cert_pem.bytes())

    async def jwks(_: Request) -> JSONResponse:
        return JSONResponse({"keys": [key.jwk()]})

    listener = bind()
    app = Starlette(routes=[Route("/pool/.well-known/jwks.json", jwks)])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ssl_certfile=own))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    origin = f"https://127.0.0.1:{port_of(listener)}"
    yield TlsIssuer(f"{origin}/pool", key, all_, Issuer(origin, pool="pool"))
    server.should_exit = True
    thread.join()
    listener.close()


def settings_for(issuer: TlsIssuer) -> dict[str, Any]:
    lab = entry(issuer.shape, algorithms=["ES256"])
    return configuration(lab, audit="all", headers={"X-User-ID": "sub"})


def test_a_worker_stays_under_80_mib_after_10_000_distinct_tokens(issuer: TlsIssuer, tmp_path: Path) -> None:
    tokens = [issuer.mint(f"client-{number % 500:026}", ["read", "write"], jti=str(number)) for number in range(TOKENS)]
    environment = {"SSL_CERT_FILE": str(issuer.certificates)}
    with Serve(settings_for(issuer), tmp_path, environment=environment) as serve:
        start = resident(serve.process.pid)
        assert set(statuses(serve.port, (request("/verify", token=token) for token in tokens))) == {200}
        eventually(lambda: len(serve.output) >= TOKENS, "audit lines are written")
        assert serve.total("token_cache_entries") == TOKENS
        size = resident(serve.process.pid)
    print(f"resident after {TOKENS} tokens: {size / 1024:.1f} MiB (at the start {start / 1024:.1f})")
    assert size < WORKER


@contextlib.contextmanager
def hostile(serve: Serve, count: int, data: bytes) -> Iterator[None]:
    """Connections that send this as far as it is taken, read nothing and stay open."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", serve.port)))
            client.setblocking(False)
            with contextlib.suppress(OSError):
                client.send(data)
        yield


def test_a_worker_stays_under_128_mib_with_every_bounded_structure_full(issuer: TlsIssuer, tmp_path: Path) -> None:
    scopes = [f"resource-{number:02}.write" for number in range(50)]
    random.seed(1)
    long_url = "X-Original-URL: http://h/" + "\N{EURO SIGN}".encode().decode("latin-1") * 1500
    known = [
        issuer.mint(f"{number % 1000:0500}", random.sample(scopes, 25), jti=str(number)) for number in range(TOKENS)
    ]
    body = issuer.mint("etl", [], padding="x" * 11_000)
    forged = [body[:-86] + b64url(os.urandom(64)) for _ in range(1200)]
    queries = [f"scope={number:04}{'s' * 495}" for number in range(1000)]  # remembered
    queries += [f"scope={number:04}{'s' * 4000}" for number in range(500)]  # too long for that, but not refused
    unknown = request(
        "/verify", token=issuer.key.sign(issuer.shape.machine_claims("etl", []), header={"kid": "unknown"})
    )
    environment = {"SSL_CERT_FILE": str(issuer.certificates)}
    with Serve(settings_for(issuer), tmp_path, environment=environment, read_output=False) as serve:
        pid = serve.process.pid
        sizes = {"start": resident(pid)}
        steps: dict[str, Iterable[bytes]] = {
            "tokens": (request("/verify", long_url, token=token) for token in known),
            "refused tokens": (request("/verify", long_url, token=token) for token in forged),
            "auth URLs": (request(f"/verify?{query}", token=known[-1]) for query in queries),
            "long URLs": [request("/verify", long_url + "x" * 50_000)] * 500,
        }
        for step, asked in steps.items():
            statuses(serve.port, asked, together=1 if step == "auth URLs" else 50)
            sizes[step] = resident(pid)
        half, many = b"GET /verify HTTP/1.1\r\nX: " + b"x" * 60_000, request("/verify") * 2000
        with hostile(serve, 300, half), hostile(serve, 300, unknown + half), hostile(serve, 300, many):
            assert serve.ask(known[-1]).status_code == 200
            sizes["connections"] = resident(pid)
        assert serve.total("audit_lines_dropped_total") > 0
        sizes["largest"] = resident(pid, "VmHWM")
        print({step: f"{size / 1024:.1f} MiB" for step, size in sizes.items()})
    assert sizes["largest"] < LIMIT


@pytest.fixture(scope="module")
def shared(lab: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with Serve(configuration(entry(lab)), tmp_path_factory.mktemp("memory")) as running:
        yield running


HEAD = b"GET /verify HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("begin", "repeated", "size"),
    [
        pytest.param(b"GET /", b"x" * 65_536, 60_000_000, id="a request line of 60 MB"),
        pytest.param(HEAD, b"X-Header: value\r\n" * 4096, 120_000_000, id="120 MB of header lines"),
        pytest.param(HEAD + b"Content-Length: 99999999999\r\n\r\n", b"x" * 65_536, 60_000_000, id="a body"),
        pytest.param(b"", b"\r\n" * 32_768, 60_000_000, id="empty lines"),
    ],
)
def test_one_connection_cannot_fill_the_memory(shared: Serve, begin: bytes, repeated: bytes, size: int) -> None:
    before = resident(shared.process.pid)
    with socket.create_connection(("127.0.0.1", shared.port)) as client, contextlib.suppress(OSError):
        client.sendall(begin)
        for _ in range(size // len(repeated)):
            client.sendall(repeated)
    assert shared.ask().status_code == 401
    assert resident(shared.process.pid, "VmHWM") - before < 8 * 1024

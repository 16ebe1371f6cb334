"""The memory of a worker: with a full cache, and with every bounded structure filled by hostile clients."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import certifi
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.e2e.stage import EcKey, Serve, Wire, configuration, eventually, request, resident
from verifier.demo.issuer import Issuer
from verifier.demo.serving import bind, port_of

WORKER = 80 * 1024  # KiB that a worker may take with the default cache
LIMIT = 128 * 1024  # KiB: the limit of the manifests
TOKENS = 10_000


@dataclass
class TlsIssuer:
    """An issuer over https: certificates and buffers of the client count too."""

    url: str
    key: EcKey
    certificates: Path


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[TlsIssuer]:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's issuer")])
    now = datetime.datetime.now(datetime.UTC)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(loopback, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    own = certificate.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "own.pem").write_bytes(own)
    (tmp_path / "key.pem").write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (tmp_path / "all.pem").write_bytes(Path(certifi.where()).read_bytes() + own)

    key = EcKey()

    async def jwks(_: Request) -> JSONResponse:
        return JSONResponse({"keys": [key.jwk()]})

    listener = bind()
    config = uvicorn.Config(
        Starlette(routes=[Route("/pool/.well-known/jwks.json", jwks)]),
        log_config=None,
        lifespan="off",
        ssl_certfile=tmp_path / "own.pem",
        ssl_keyfile=tmp_path / "key.pem",
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield TlsIssuer(f"https://127.0.0.1:{port_of(listener)}/pool", key, tmp_path / "all.pem")
    server.should_exit = True
    thread.join()
    listener.close()


def settings_for(issuer: TlsIssuer, **more: Any) -> dict[str, Any]:
    entry = {
        "name": "lab",
        "profile": "cognito",
        "issuer": issuer.url,
        "jwks_url": f"{issuer.url}/.well-known/jwks.json",
        "algorithms": ["ES256"],
    }
    return configuration(entry, audit="all", headers={"X-User-ID": "sub"}, **more)


def claims_for(issuer: TlsIssuer, client: str, scopes: Sequence[str]) -> dict[str, Any]:
    return Issuer(issuer.url.removesuffix("/pool"), pool="pool").machine_claims(client, scopes)


def ask_all(serve: Serve, tokens: Iterable[str], path: str = "/verify") -> set[int]:
    """Ask once with each token. The statuses."""
    statuses = set()
    with Wire(serve.port) as wire:
        for batch in itertools.batched(tokens, 50) if sys.version_info >= (3, 12) else batched(tokens, 50):
            wire.send(b"".join(request(path, token=token) for token in batch))
            for _ in batch:
                answer = wire.read()
                assert answer is not None
                statuses.add(answer.status)
    return statuses


def test_a_worker_stays_under_80_mib_after_10_000_distinct_tokens(issuer: TlsIssuer, tmp_path: Path) -> None:
    tokens = [
        issuer.key.mint(claims_for(issuer, f"client-{number % 500:026}", ["read", "write"])) for number in range(TOKENS)
    ]
    environment = {"SSL_CERT_FILE": str(issuer.certificates)}
    with Serve(settings_for(issuer), tmp_path, environment=environment) as serve:
        start = resident(serve.process.pid)
        assert ask_all(serve, tokens) == {200}
        eventually(lambda: len(serve.output) >= TOKENS, "audit lines are written")
        assert serve.total("token_cache_entries") == TOKENS
        size = resident(serve.process.pid)
    print(f"resident after {TOKENS} tokens: {size / 1024:.1f} MiB (at the start {start / 1024:.1f})")
    assert size < WORKER

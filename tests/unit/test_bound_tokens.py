"""Proofs, and rules without a token, from the configuration to the answer, through the application."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.unit.support import NOW, Clock, FakeFetch, SigningKey, ask_app, b64
from verifier.app import Application, create_app
from verifier.config import Config

Ask = Callable[..., Awaitable[tuple[int, str]]]
Mint = Callable[..., bytes]

URL = "https://api.example/mcp/x"
DER = b"a certificate"
X5T = b64(hashlib.sha256(DER).digest())
PEM = quote(f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(DER).decode()}\n-----END CERTIFICATE-----\n")


@pytest.fixture
def app(make_config: Callable[..., Config], lab: dict[str, Any], fetch: FakeFetch, clock: Clock) -> Application:
    lab["issuers"][0]["client_certificate_header"] = "SSL-Client-Cert"
    lab["policies"] = {"open": {"rules": [{"path": "/**", "token": "none"}]}}
    return create_app(make_config(lab), fetch=fetch, clock=clock)


@pytest.fixture
def ask(app: Application) -> Ask:
    async def ask(authorization: bytes, *headers: tuple[str, bytes], policy: str = "default") -> tuple[int, str]:
        given = [("x-original-method", b"GET"), ("x-original-url", URL.encode()), ("authorization", authorization)]
        await app.service.runtime.keys["lab"].refresh()
        status, found = await ask_app(app, f"/verify/{policy}", (*given, *headers))
        return status, found.get("x-m2m-reason", "ok" if found["x-m2m-client-id"] else "nobody")

    return ask


async def test_a_certificate_bound_token_passes_with_its_certificate_each_time(ask: Ask, mint: Mint) -> None:
    token = b"Bearer " + mint(cnf={"x5t#S256": X5T})

    for _ in range(2):
        assert await ask(token, ("ssl-client-cert", PEM.encode())) == (200, "ok")
        assert await ask(token) == (401, "bad_proof")
        assert await ask(token, *[("ssl-client-cert", PEM.encode())] * 2) == (401, "bad_proof")


async def test_where_no_token_is_needed_no_proof_is_unless_a_header_names_another_method(ask: Ask, mint: Mint) -> None:
    token = b"DPoP " + mint(cnf={"jkt": b64(bytes(32))})

    assert await ask(token, policy="open") == (200, "nobody")
    assert await ask(token, ("x-method-override", b""), policy="open") == (401, "bad_proof")


async def test_a_reload_forgets_no_proof(app: Application, ask: Ask, mint: Mint, ec_signer: SigningKey) -> None:
    token = mint(cnf={"jkt": ec_signer.jkt})
    proof = ("dpop", ec_signer.proof(token, URL, iat=NOW))
    assert await ask(b"DPoP " + token, proof) == (200, "ok")
    await app.service.take(app.service.runtime.config)

    assert await ask(b"DPoP " + token, proof) == (401, "bad_proof")
    await app.service.runtime.stop()

"""Tokens that are bound to their sender, from the configuration to the answer, through the application."""

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
MakeConfig = Callable[..., Config]

URL = "https://api.example/mcp/x"
POLICIES: dict[str, Any] = {
    "default": {},
    "watched": {"mode": "report"},
    "strict": {"scope": ["admin"]},
    "mcp": {"resource": {"url": "https://api.example/mcp", "authorization_servers": ["https://issuer.example"]}},
    "open": {"rules": [{"path": "/**", "token": "none"}]},
}
DER = b"a certificate"
X5T = b64(hashlib.sha256(DER).digest())
PEM = quote(f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(DER).decode()}\n-----END CERTIFICATE-----\n")


@pytest.fixture
def config(make_config: MakeConfig, lab: dict[str, Any]) -> Config:
    lab["issuers"][0]["client_certificate_header"] = "SSL-Client-Cert"
    return make_config({**lab, "policies": POLICIES, "revoked": {"tokens": ["gone"]}, "nginx_cache_ttl": 60})


@pytest.fixture
def app(config: Config, fetch: FakeFetch, clock: Clock) -> Application:
    return create_app(config, fetch=fetch, clock=clock)


@pytest.fixture
def ask(app: Application) -> Ask:
    async def ask(
        authorization: bytes, *headers: tuple[str, bytes], policy: str = "default", url: str = URL
    ) -> tuple[int, str]:
        given = [("x-original-method", b"GET"), ("x-original-url", url.encode()), ("authorization", authorization)]
        await app.service.runtime.keys["lab"].refresh()
        status, found = await ask_app(app, f"/verify/{policy}", (*given, *headers))
        assert found["cache-control"] == "no-store"
        return status, found.get("x-m2m-reason", "ok" if found["x-m2m-client-id"] else "nobody")

    return ask


async def test_a_key_bound_token_passes_with_a_new_proof_each_time_cached_or_not(
    ask: Ask, mint: Mint, ec_signer: SigningKey
) -> None:
    token = mint(cnf={"jkt": ec_signer.jkt})

    for _ in range(2):
        proof = ec_signer.proof(token, URL, iat=NOW)
        assert await ask(b"DPoP " + token, ("dpop", proof)) == (200, "ok")
        assert await ask(b"DPoP " + token, ("dpop", proof)) == (401, "bad_proof")
        assert await ask(b"Bearer " + token, ("dpop", ec_signer.proof(token, URL, iat=NOW))) == (401, "bad_proof")
        assert await ask(b"DPoP " + token) == (401, "bad_proof")


async def test_a_certificate_bound_token_passes_with_its_certificate_each_time(ask: Ask, mint: Mint) -> None:
    token = b"Bearer " + mint(cnf={"x5t#S256": X5T})

    for _ in range(2):
        assert await ask(token, ("ssl-client-cert", PEM.encode())) == (200, "ok")
        assert await ask(token) == (401, "bad_proof")
        assert await ask(token, *[("ssl-client-cert", PEM.encode())] * 2) == (401, "bad_proof")


async def test_in_report_mode_a_refused_proof_identifies_nobody(ask: Ask, mint: Mint, ec_signer: SigningKey) -> None:
    token = mint(cnf={"jkt": ec_signer.jkt})
    proof = ("dpop", ec_signer.proof(token, URL, iat=NOW))

    assert await ask(b"DPoP " + token, policy="watched") == (200, "nobody")
    assert await ask(b"DPoP " + token, proof, policy="watched") == (200, "ok")
    assert await ask(b"DPoP " + token, proof, policy="watched") == (200, "nobody")


async def test_the_resources_url_counts_where_a_policy_has_one(ask: Ask, mint: Mint, ec_signer: SigningKey) -> None:
    token = mint(cnf={"jkt": ec_signer.jkt})

    for policy, outcome in (("mcp", (200, "ok")), ("default", (401, "bad_proof"))):
        proof = ("dpop", ec_signer.proof(token, URL, iat=NOW))
        assert await ask(b"DPoP " + token, proof, policy=policy, url="http://10.0.0.7/mcp/x?y") == outcome


async def test_a_proof_is_checked_before_revocation_and_counts_as_used_whatever_is_decided(
    ask: Ask, mint: Mint, ec_signer: SigningKey
) -> None:
    for jti, policy, reason in (("gone", "default", (401, "revoked")), ("x", "strict", (403, "insufficient_scope"))):
        token = mint(cnf={"jkt": ec_signer.jkt}, jti=jti)
        proof = ("dpop", ec_signer.proof(token, URL, iat=NOW))

        assert await ask(b"DPoP " + token, policy=policy) == (401, "bad_proof")
        assert await ask(b"DPoP " + token, proof, policy=policy) == reason
        assert await ask(b"DPoP " + token, proof, policy=policy) == (401, "bad_proof")


async def test_where_no_token_is_needed_no_proof_is(ask: Ask, mint: Mint) -> None:
    token = mint(cnf={"jkt": "x"})

    assert await ask(b"DPoP " + token, policy="open") == (200, "nobody")


async def test_a_reload_forgets_no_proof(
    app: Application, ask: Ask, mint: Mint, ec_signer: SigningKey, config: Config
) -> None:
    token = mint(cnf={"jkt": ec_signer.jkt})
    proof = ("dpop", ec_signer.proof(token, URL, iat=NOW))
    assert await ask(b"DPoP " + token, proof) == (200, "ok")
    await app.service.take(config)

    assert await ask(b"DPoP " + token, proof) == (401, "bad_proof")
    await app.service.runtime.stop()

"""The whole application over ASGI: paths, readiness, issuers that fail, reloads. Network and time are passed in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.keys.servers import answer_with, make_certificate, server
from tests.unit.support import JWKS_URL, FakeFetch, SigningKey, claims, jwks, loop_clock, settle
from verifier.app import Application, Runtime, create_app
from verifier.config import Config
from verifier.keys.fetch import FetchError
from verifier.observe.metrics import Metrics

Mint = Callable[..., bytes]
Serve = Callable[..., contextlib.AbstractAsyncContextManager["Client"]]
OTHER_URL = "https://other.example/keys"
OTHER = {"name": "other", "issuer": "https://other.example", "jwks_url": OTHER_URL, "audience": "any"}
MCP = "https://api.example/mcp"
WITH_RESOURCE = {"mcp": {"resource": {"url": MCP, "authorization_servers": ["https://issuer.example"]}}}
DOCUMENT = "/.well-known/oauth-protected-resource/mcp"


class Client(httpx.AsyncClient):
    """Asks the application as nginx does."""

    def __init__(self, app: Application, configured: Callable[..., Config]) -> None:
        super().__init__(transport=httpx.ASGITransport(app=app), base_url="http://verifier")
        self.service = app.service
        self._configured = configured

    async def verify(self, token: bytes | None = None, path: str = "/verify") -> httpx.Response:
        headers = {"X-Original-Method": "GET", "X-Original-URL": "https://api.example/db/a"}
        if token is not None:
            headers["Authorization"] = "Bearer " + token.decode()
        return await self.get(path, headers=headers)

    async def reason(self, token: bytes | None = None) -> str:
        return str((await self.verify(token)).headers.get("X-M2M-Reason", "ok"))

    async def reload(self, *further: dict[str, Any], **changes: Any) -> None:
        """Put a changed configuration into force."""
        await self.service.take(self._configured(*further, **changes))

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples with these labels."""
        samples = [sample for family in self.service.collect() for sample in family.samples]
        named = [sample for sample in samples if sample.name == "m2m_verifier_" + name]
        return sum(sample.value for sample in named if labels.items() <= sample.labels.items())


@pytest.fixture
def serve(make_config: Callable[..., Config], lab: dict[str, Any], fetch: FakeFetch) -> Serve:
    """Serves the application for one issuer and further ones, with changes to the rest of its configuration."""

    def configured(*further: dict[str, Any], **changes: Any) -> Config:
        return make_config({"issuers": [*lab["issuers"], *further], **changes})

    @contextlib.asynccontextmanager
    async def serving(*further: dict[str, Any], **changes: Any) -> AsyncIterator[Client]:
        app = create_app(configured(*further, **changes), fetch=fetch, clock=loop_clock)
        async with app.router.lifespan_context(app), Client(app, configured) as client:
            await settle()
            yield client

    return serving


# --- the paths ---


async def test_health_needs_no_token(serve: Serve) -> None:
    async with serve() as client:
        answer = await client.get("/health")

    assert (answer.status_code, answer.json()) == (200, {"status": "healthy", "service": "m2m-verifier"})


async def test_a_valid_token_is_allowed_and_no_token_challenged(serve: Serve, mint: Mint) -> None:
    async with serve() as client:
        allowed, challenged = await client.verify(mint()), await client.verify()

    assert allowed.status_code == 200
    assert (allowed.headers["X-M2M-Client-ID"], allowed.headers["X-M2M-Issuer"]) == ("etl", "lab")
    assert (challenged.status_code, challenged.headers["WWW-Authenticate"]) == (401, 'Bearer realm="default"')


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/", "/verifyx", "/Verify", "/health/x", "/health/", "/ready/", "/docs", "/forward",
     "/forward-authx", "/ext-authz", "/ext-authzx/api",
     "/.well-known/oauth-protected-resource/x/"],
)  # fmt: skip
async def test_any_other_path_is_a_404_and_no_redirect(serve: Serve, path: str) -> None:
    async with serve() as client:
        answer = await client.get(path, headers={"Host": "evil.example"})

    assert (answer.status_code, answer.headers["Cache-Control"]) == (404, "no-store")
    assert "evil.example" not in str(answer.headers) + answer.text


async def test_a_method_that_a_path_does_not_have_is_a_405_that_no_proxy_may_cache(serve: Serve) -> None:
    async with serve() as client:
        answer = await client.post("/health")

    assert (answer.status_code, answer.headers["Cache-Control"]) == (405, "no-store")
    assert "GET" in answer.headers["Allow"]


async def test_a_policy_with_a_resource_serves_its_document(serve: Serve) -> None:
    async with serve(policies=WITH_RESOURCE) as client:
        challenge = (await client.verify(path="/verify/mcp")).headers["WWW-Authenticate"]
        answer = await client.get(DOCUMENT)
        missing = await client.get("/.well-known/oauth-protected-resource")

    assert 'resource_metadata="https://api.example/.well-known/oauth-protected-resource/mcp"' in challenge
    assert answer.json()["resource"] == MCP
    assert missing.status_code == 404


async def test_the_document_is_for_caches_and_for_browsers(serve: Serve) -> None:
    """A browser asks with OPTIONS first, because its GET has the header MCP-Protocol-Version."""
    async with serve(policies=WITH_RESOURCE) as client:
        answers = [await client.request(method, DOCUMENT) for method in ("GET", "HEAD", "OPTIONS", "POST")]

    assert [(answer.status_code, bool(answer.content)) for answer in answers] == [
        (200, True), (200, False), (204, False), (405, True),
    ]  # fmt: skip
    for answer in answers[:3]:
        assert answer.headers["Cache-Control"] == "public, max-age=300"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answers[2].headers["Access-Control-Allow-Headers"] == "*"


# --- readiness ---


@pytest.mark.parametrize(("other_has_keys", "seconds", "status"), [(True, 0, 200), (False, 29, 503), (False, 30, 200)])
async def test_ready_once_every_issuer_has_keys_or_after_30_seconds_one(
    serve: Serve, fetch: FakeFetch, other_signer: SigningKey, other_has_keys: bool, seconds: float, status: int
) -> None:
    if other_has_keys:
        fetch.answers[OTHER_URL] = jwks(other_signer)
    async with serve(OTHER) as client:
        await asyncio.sleep(seconds)
        answer = await client.get("/ready")

    assert answer.status_code == status
    assert answer.json()["issuers"] == {"lab": True, "other": other_has_keys}


async def test_once_ready_it_stays_so_without_keys(serve: Serve, fetch: FakeFetch, other_signer: SigningKey) -> None:
    fetch.answers[OTHER_URL] = jwks(other_signer)
    async with serve(OTHER) as client:
        assert (await client.get("/ready")).status_code == 200
        fetch.answers[JWKS_URL] = fetch.answers[OTHER_URL] = jwks()
        await asyncio.sleep(301)
        answer = await client.get("/ready")

    assert answer.status_code == 200
    assert answer.json()["issuers"] == {"lab": False, "other": False}


async def test_never_ready_without_any_keys(serve: Serve, fetch: FakeFetch) -> None:
    fetch.answers.clear()
    async with serve() as client:
        await asyncio.sleep(3600)

        assert (await client.get("/ready")).status_code == 503


async def test_an_issuer_with_a_key_file_is_ready_at_once(
    serve: Serve, offline: dict[str, Any], fetch: FakeFetch, mint: Mint
) -> None:
    async with serve(**offline) as client:
        assert (await client.get("/ready")).status_code == 200
        assert (await client.verify(mint())).status_code == 200
    assert fetch.asked == []


# --- issuers that fail ---


async def test_a_hanging_issuer_delays_no_other(serve: Serve, fetch: FakeFetch, mint: Mint) -> None:
    async with serve(OTHER) as client:
        fetch.hang()
        waiting = asyncio.create_task(client.verify(mint(iss="https://other.example")))
        await settle()
        before = loop_clock()
        answer = await client.verify(mint())
        assert (answer.status_code, loop_clock() - before) == (200, 0)
        assert (await waiting).status_code == 503


# --- metrics and logs ---


async def test_each_decision_and_its_keys_and_cache_are_in_the_metrics(serve: Serve, mint: Mint) -> None:
    async with serve() as client:
        for token in (mint(), mint(), mint(), None):
            await client.verify(token)

        assert client.metric("decisions_total", issuer="lab", policy="default", reason="ok", status="200") == 3
        assert client.metric("decisions_total", issuer="", policy="default", reason="missing_token") == 1
        assert client.metric("token_cache_requests_total", result="hit") == 2
        assert client.metric("token_cache_requests_total", result="miss") == 1
        assert client.metric("token_cache_entries") == 1
        assert client.metric("jwks_keys", issuer="lab") == 1
        assert client.metric("jwks_refreshes_total", issuer="lab", result="success") == 1
        assert client.metric("token_verification_duration_seconds_count", issuer="lab") == 1


# --- reloads ---


async def test_a_changed_configuration_is_in_force_even_for_a_cached_token(serve: Serve, mint: Mint) -> None:
    async with serve() as client:
        assert await client.reason(mint()) == "ok"
        await client.reload(revoked={"clients": ["etl"]})

        assert await client.reason(mint()) == "revoked"


async def test_a_reload_keeps_the_keys_that_it_has_and_their_refresh(
    serve: Serve, fetch: FakeFetch, mint: Mint
) -> None:
    async with serve() as client:
        good, fetch.answers[JWKS_URL] = fetch.answers[JWKS_URL], FetchError("down")
        await client.reload(leeway=1)

        assert client.service.runtime.config.leeway == 1
        assert await client.reason(mint()) == "ok"
        assert len(fetch.asked) == 1
        fetch.answers[JWKS_URL] = good
        await asyncio.sleep(301)
        assert len(fetch.asked) == 2


@pytest.mark.parametrize("keys", ["discovered", "given"])
def test_keys_are_fetched_with_the_issuers_own_authority_and_token(
    make_config: Callable[..., Config], signer: SigningKey, tmp_path: Path, keys: str
) -> None:
    """As a Kubernetes API server requires it."""
    (tmp_path / "token").write_text("s3cret")
    certificate = make_certificate(tmp_path, "ca")

    async def fetch() -> tuple[int, list[bytes]]:
        async def answer(writer: asyncio.StreamWriter) -> None:
            document = {"issuer": root, "jwks_uri": url} | json.loads(jwks(signer))
            await answer_with(body=json.dumps(document).encode())(writer)

        async with server(answer, certificate) as (url, requests):
            root = url.removesuffix("/keys")
            issuer = {"name": "lab", "issuer": root, "audience": "api"}
            issuer |= {"ca_file": "ca.pem", "bearer_token_file": "token"}
            if keys == "given":
                issuer |= {"issuer": "kubernetes/serviceaccount", "jwks_url": url}
            runtime = Runtime(make_config({"issuers": [issuer]}), Metrics(), fetch=None, clock=time.time)
            await runtime.keys["lab"].refresh()
            return len(runtime.keys["lab"]), requests

    found, requests = asyncio.run(fetch())
    assert found == 1
    assert len(requests) == (2 if keys == "discovered" else 1)
    assert all(b"authorization: bearer s3cret\r\n" in request.lower() for request in requests)


@pytest.mark.parametrize("key", ["ca_file", "bearer_token_file"])
async def test_a_reload_fetches_again_where_keys_are_fetched_in_another_way(
    serve: Serve, lab: dict[str, Any], fetch: FakeFetch, key: str
) -> None:
    async with serve() as client:
        await client.reload(issuers=[{**lab["issuers"][0], key: "file"}])

        assert len(fetch.asked) == 2


async def test_a_new_issuers_keys_are_there_when_it_is_in_force(
    serve: Serve, fetch: FakeFetch, other_signer: SigningKey
) -> None:
    fetch.answers[OTHER_URL] = jwks(other_signer)
    async with serve() as client:
        await client.reload(OTHER)

        assert await client.reason(other_signer.sign(claims(iss="https://other.example")).encode()) == "ok"


async def test_a_new_issuer_that_hangs_delays_a_reload_by_two_seconds(serve: Serve, fetch: FakeFetch) -> None:
    async with serve() as client:
        fetch.hang()
        before = loop_clock()
        await client.reload(OTHER)

        assert len(client.service.runtime.config.issuers) == 2
        assert loop_clock() - before == 2


async def test_an_issuer_that_was_removed_is_not_asked_any_more(
    serve: Serve, fetch: FakeFetch, other_signer: SigningKey
) -> None:
    fetch.answers[OTHER_URL] = jwks(other_signer)
    async with serve(OTHER) as client:
        await client.reload()
        await asyncio.sleep(3600)

        assert fetch.asked.count(OTHER_URL) == 1
        assert fetch.asked.count(JWKS_URL) > 1
        token = other_signer.sign(claims(iss="https://other.example")).encode()
        assert await client.reason(token) == "unknown_issuer"
        assert client.metric("jwks_keys", issuer="other") == 0


async def test_a_configuration_does_not_overtake_a_later_one(serve: Serve, fetch: FakeFetch) -> None:
    async with serve() as client:
        fetch.hang()
        await asyncio.gather(client.reload(OTHER, leeway=1), client.reload(leeway=2))

        assert client.service.runtime.config.leeway == 2


async def test_counters_do_not_fall_when_the_configuration_changes(serve: Serve, mint: Mint) -> None:
    async with serve() as client:
        for _ in range(3):
            await client.verify(mint())
        await client.reload(leeway=1)

        assert client.metric("decisions_total", reason="ok") == 3
        assert client.metric("token_cache_requests_total", result="hit") == 2
        assert client.metric("jwks_refreshes_total", issuer="lab", result="success") == 1


async def test_the_audit_mode_changes_with_the_configuration(serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    async with serve() as client:
        await client.reload(audit="off")
        await client.verify()

    assert "missing_token" not in capfd.readouterr().out


async def test_stopping_leaves_nothing_running(serve: Serve, fetch: FakeFetch) -> None:
    fetch.hang()
    async with serve(OTHER):
        assert fetch.running == 2
    await settle()

    assert (fetch.running, len(asyncio.all_tasks())) == (0, 1)

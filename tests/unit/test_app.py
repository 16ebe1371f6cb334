"""The running whole, over ASGI: readiness, reloads, keys that come and go; the network and the time are passed in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.exposition import generate_latest

from tests.unit.support import JWKS_URL, FakeFetch, SigningKey, claims, jwks, loop_clock, settle
from verifier.app import Service, create_app
from verifier.config import Config, ConfigError
from verifier.keys.fetch import FetchError

Mint = Callable[..., bytes]
MakeConfig = Callable[..., Config]
OTHER_URL = "https://other.example/keys"


class Client:
    """Who asks the application, as nginx would."""

    def __init__(self, http: httpx.AsyncClient, service: Service) -> None:
        self.http = http
        self.service = service

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def verify(self, token: bytes | None = None, path: str = "/verify", url: str = "/db/a") -> httpx.Response:
        headers = {"X-Original-Method": "GET", "X-Original-URL": f"https://api.example{url}"}
        if token is not None:
            headers["Authorization"] = "Bearer " + token.decode()
        return await self.http.get(path, headers=headers)

    def metric(self, line: str) -> float:
        """The value of the series written so in the exposition, 0 where there is none."""
        text = generate_latest(self.service.metrics.registry).decode()
        return next((float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(line + " ")), 0.0)


@contextlib.asynccontextmanager
async def serving(
    config: Config, fetch: FakeFetch, reload: Callable[[], Config | None] | None = None
) -> AsyncIterator[Client]:
    app = create_app(config, fetch=fetch, clock=loop_clock, reload=reload)
    async with app.router.lifespan_context(app):
        await settle()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://verifier") as http:
            yield Client(http, app.state.service)


@pytest.fixture
def config(make_config: MakeConfig, lab: dict[str, Any]) -> Config:
    return make_config(lab)


@pytest.fixture
def two(make_config: MakeConfig, lab: dict[str, Any]) -> Config:
    """Two issuers: ``lab`` and ``other``."""
    other = {"name": "other", "issuer": "https://other.example", "jwks_url": OTHER_URL, "audience": "any"}
    return make_config({"issuers": [*lab["issuers"], other]})


# --- the paths ---


async def test_health_says_so_without_a_token(config: Config, fetch: FakeFetch) -> None:
    async with serving(config, fetch) as client:
        answer = await client.get("/health")

    assert (answer.status_code, answer.json()) == (200, {"status": "healthy", "service": "m2m-verifier"})


async def test_a_valid_token_is_allowed(config: Config, fetch: FakeFetch, mint: Mint) -> None:
    async with serving(config, fetch) as client:
        answer = await client.verify(mint())

    assert answer.status_code == 200
    assert (answer.headers["X-M2M-Client-ID"], answer.headers["X-M2M-Issuer"]) == ("etl", "lab")


async def test_without_a_token_the_answer_is_a_challenge(config: Config, fetch: FakeFetch) -> None:
    async with serving(config, fetch) as client:
        answer = await client.verify()

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="default"')


@pytest.mark.parametrize("path", ["/metrics", "/", "/verifyx", "/Verify", "/health/x", "/docs", "/forward"])
async def test_there_is_nothing_at_any_other_path(config: Config, fetch: FakeFetch, path: str) -> None:
    """Least of all metrics, which have a port of their own."""
    async with serving(config, fetch) as client:
        assert (await client.get(path)).status_code == 404


async def test_a_policy_with_a_resource_serves_its_document(
    make_config: MakeConfig, lab: dict[str, Any], fetch: FakeFetch
) -> None:
    resource = {"url": "https://api.example/mcp", "authorization_servers": ["https://issuer.example"]}
    config = make_config({**lab, "policies": {"mcp": {"resource": resource}}})
    async with serving(config, fetch) as client:
        challenge = (await client.verify(path="/verify/mcp")).headers["WWW-Authenticate"]
        answer = await client.get("/.well-known/oauth-protected-resource/mcp")
        missing = await client.get("/.well-known/oauth-protected-resource")

    assert 'resource_metadata="https://api.example/.well-known/oauth-protected-resource/mcp"' in challenge
    assert answer.json()["resource"] == "https://api.example/mcp"
    assert missing.status_code == 404


# --- readiness ---


async def test_ready_once_every_issuer_has_keys(two: Config, fetch: FakeFetch, other_signer: SigningKey) -> None:
    fetch.answers[OTHER_URL] = jwks(other_signer)
    async with serving(two, fetch) as client:
        answer = await client.get("/ready")

    assert answer.status_code == 200
    assert answer.json()["issuers"] == {"lab": True, "other": True}


async def test_not_ready_while_one_issuer_has_no_keys(two: Config, fetch: FakeFetch) -> None:
    async with serving(two, fetch) as client:
        await asyncio.sleep(29)
        answer = await client.get("/ready")

    assert answer.status_code == 503
    assert answer.json()["issuers"] == {"lab": True, "other": False}


async def test_ready_after_30_seconds_with_one_issuer(two: Config, fetch: FakeFetch) -> None:
    async with serving(two, fetch) as client:
        await asyncio.sleep(30)
        answer = await client.get("/ready")

    assert answer.status_code == 200
    assert answer.json()["issuers"] == {"lab": True, "other": False}


async def test_never_ready_without_any_keys(config: Config) -> None:
    async with serving(config, FakeFetch()) as client:
        await asyncio.sleep(3600)

        assert (await client.get("/ready")).status_code == 503


async def test_an_issuer_with_a_key_file_is_ready_at_once(
    make_config: MakeConfig, tmp_path: Path, signer: SigningKey, mint: Mint
) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(signer))
    issuer = {"name": "lab", "issuer": "https://issuer.example", "audience": "api", "jwks_file": "keys.json"}
    fetch = FakeFetch()
    async with serving(make_config({"issuers": [issuer]}), fetch) as client:
        assert (await client.get("/ready")).status_code == 200
        assert (await client.verify(mint())).status_code == 200
    assert fetch.asked == []


# --- issuers that are down ---


async def test_an_issuer_that_is_down_at_the_start_is_a_503_and_recovers(
    config: Config, fetch: FakeFetch, mint: Mint
) -> None:
    good, fetch.answers[JWKS_URL] = fetch.answers[JWKS_URL], FetchError("down")
    async with serving(config, fetch) as client:
        first = await client.verify(mint())
        fetch.answers[JWKS_URL] = good
        await asyncio.sleep(60)
        second = await client.verify(mint())

    assert (first.status_code, first.headers["X-M2M-Reason"]) == (503, "keys_unavailable")
    assert int(first.headers["Retry-After"]) > 0
    assert second.status_code == 200


async def test_an_issuer_that_goes_down_later_loses_nothing(config: Config, fetch: FakeFetch, mint: Mint) -> None:
    async with serving(config, fetch) as client:
        fetch.answers[JWKS_URL] = FetchError("down")
        await asyncio.sleep(3000)

        assert (await client.verify(mint())).status_code == 200


async def test_a_hanging_issuer_delays_no_other(two: Config, fetch: FakeFetch, mint: Mint) -> None:
    class Hanging(FakeFetch):
        async def __call__(self, url: str) -> Any:
            if url == OTHER_URL:
                await asyncio.Event().wait()
            return await super().__call__(url)

    async with serving(two, Hanging(fetch.answers)) as client:
        waiting = asyncio.create_task(client.verify(mint(iss="https://other.example")))
        await settle()
        before = loop_clock()
        answer = await client.verify(mint())
        assert (answer.status_code, loop_clock() - before) == (200, 0)
        assert (await waiting).status_code == 503


async def test_a_token_is_forgotten_when_its_key_leaves(
    config: Config, fetch: FakeFetch, signer: SigningKey, other_signer: SigningKey, mint: Mint
) -> None:
    async with serving(config, fetch) as client:
        await client.verify(mint())
        fetch.answers[JWKS_URL] = jwks(other_signer)
        await asyncio.sleep(301)
        answer = await client.verify(mint())

    assert answer.headers["X-M2M-Reason"] == "unknown_key"


async def test_a_token_is_refused_when_another_key_takes_its_kid(
    config: Config, fetch: FakeFetch, signer: SigningKey, other_signer: SigningKey, mint: Mint
) -> None:
    async with serving(config, fetch) as client:
        await client.verify(mint())
        fetch.answers[JWKS_URL] = jwks(other_signer.jwk(kid=signer.kid))
        await asyncio.sleep(301)
        answer = await client.verify(mint())

    assert answer.headers["X-M2M-Reason"] == "bad_signature"


# --- metrics and logs ---


async def test_a_decision_is_counted_once(config: Config, fetch: FakeFetch, mint: Mint) -> None:
    async with serving(config, fetch) as client:
        await client.verify(mint())
        await client.verify()

        name = "m2m_verifier_decisions_total"
        assert client.metric(name + '{issuer="lab",policy="default",reason="ok",status="200"}') == 1
        assert client.metric(name + '{issuer="",policy="default",reason="missing_token",status="401"}') == 1


async def test_the_state_of_cache_and_keys_is_told(config: Config, fetch: FakeFetch, mint: Mint) -> None:
    async with serving(config, fetch) as client:
        for _ in range(3):
            await client.verify(mint())

        assert client.metric('m2m_verifier_token_cache_requests_total{result="hit"}') == 2
        assert client.metric('m2m_verifier_token_cache_requests_total{result="miss"}') == 1
        assert client.metric("m2m_verifier_token_cache_entries") == 1
        assert client.metric('m2m_verifier_jwks_keys{issuer="lab"}') == 1
        assert client.metric('m2m_verifier_jwks_refreshes_total{issuer="lab",result="success"}') == 1
        assert client.metric('m2m_verifier_token_verification_duration_seconds_count{issuer="lab"}') == 1


async def test_no_log_at_any_level_holds_a_token(
    config: Config, fetch: FakeFetch, signer: SigningKey, mint: Mint, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = [mint(), mint(exp=1), mint(sub="ann"), signer.sign(claims(), header={"kid": "gone"}).encode()]
    with caplog.at_level(logging.DEBUG):
        async with serving(config, fetch) as client:
            for token in tokens:
                await client.verify(token)
                await client.verify(token + b"x")

    assert not any(part in caplog.text for token in tokens for part in token.decode().split(".")[1:])


async def test_each_decision_is_audited_on_stdout(
    config: Config, fetch: FakeFetch, mint: Mint, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving(config, fetch) as client:
        await client.verify(mint())
        await client.verify()
    lines = capfd.readouterr().out.splitlines()

    assert ['"reason": "ok"' in line for line in lines] == [True, False]


# --- reloads ---


class Disk:
    """What the application is told when it looks for a change."""

    def __init__(self) -> None:
        self.news: list[Config | Exception | None] = []

    def __call__(self) -> Config | None:
        found = self.news.pop(0) if self.news else None
        if isinstance(found, Exception):
            raise found
        return found


LAST = "m2m_verifier_config_last_reload_successful"
RELOADS = "m2m_verifier_config_reloads_total"


async def test_a_changed_configuration_is_in_force_within_5_seconds(
    make_config: MakeConfig, lab: dict[str, Any], config: Config, fetch: FakeFetch, mint: Mint
) -> None:
    """Even for a token that is cached."""
    disk = Disk()
    async with serving(config, fetch, disk) as client:
        before = await client.verify(mint())
        disk.news.append(make_config({**lab, "revoked": {"clients": ["etl"]}}))
        await asyncio.sleep(5)
        after = await client.verify(mint())

        assert (before.status_code, after.headers.get("X-M2M-Reason")) == (200, "revoked")
        assert (client.metric(RELOADS + '{result="success"}'), client.metric(LAST)) == (1, 1)


async def test_a_refused_configuration_is_one_line_of_the_log(
    config: Config, fetch: FakeFetch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk()
    async with serving(config, fetch, disk):
        disk.news.append(ConfigError(["c.yaml:3: leeway: is missing", "c.yaml:9: cache: unknown key"]))
        await asyncio.sleep(2)

    assert caplog.messages == [
        "the changed configuration is refused, the old one stays in force: "
        "c.yaml:3: leeway: is missing; c.yaml:9: cache: unknown key"
    ]


async def test_a_reload_keeps_the_keys_that_it_has(
    make_config: MakeConfig, lab: dict[str, Any], config: Config, fetch: FakeFetch, mint: Mint
) -> None:
    disk = Disk()
    async with serving(config, fetch, disk) as client:
        disk.news.append(make_config({**lab, "leeway": 1}))
        fetch.answers[JWKS_URL] = FetchError("down")
        await asyncio.sleep(5)

        assert client.service.runtime.config.leeway == 1
        assert (await client.verify(mint())).status_code == 200
        assert len(fetch.asked) == 1


async def test_keys_that_were_kept_are_still_refreshed_after_a_reload(
    make_config: MakeConfig, lab: dict[str, Any], config: Config, fetch: FakeFetch
) -> None:
    disk = Disk()
    async with serving(config, fetch, disk):
        disk.news.append(make_config({**lab, "leeway": 1}))
        await asyncio.sleep(302)

    assert len(fetch.asked) == 2


async def test_a_new_issuers_keys_are_there_when_it_is_in_force(
    config: Config, two: Config, fetch: FakeFetch, other_signer: SigningKey
) -> None:
    fetch.answers[OTHER_URL] = jwks(other_signer)
    disk = Disk()
    token = other_signer.sign(claims(iss="https://other.example")).encode()
    async with serving(config, fetch, disk) as client:
        disk.news.append(two)
        await asyncio.sleep(5)

        assert (await client.verify(token)).status_code == 200


async def test_a_new_issuer_that_hangs_does_not_hold_up_a_reload(config: Config, two: Config, fetch: FakeFetch) -> None:
    disk = Disk()
    async with serving(config, fetch, disk) as client:
        fetch.hang()
        disk.news.append(two)
        await asyncio.sleep(5)

        assert client.service.runtime.config is two


async def test_an_issuer_that_is_gone_is_not_asked_any_more(
    config: Config, two: Config, fetch: FakeFetch, other_signer: SigningKey
) -> None:
    fetch.answers[OTHER_URL] = jwks(other_signer)
    disk = Disk()
    async with serving(two, fetch, disk) as client:
        disk.news.append(config)
        await asyncio.sleep(3600)

        assert fetch.asked.count(OTHER_URL) == 1
        assert fetch.asked.count(JWKS_URL) > 1
        token = other_signer.sign(claims(iss="https://other.example")).encode()
        assert (await client.verify(token)).headers["X-M2M-Reason"] == "unknown_issuer"


@pytest.mark.parametrize("error", [ConfigError(["m2m.yaml:1: leeway: is wrong"]), RuntimeError("a defect")], ids=repr)
async def test_a_broken_configuration_is_refused_and_seen(
    config: Config, fetch: FakeFetch, mint: Mint, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk()
    disk.news.append(error)
    with caplog.at_level(logging.ERROR):
        async with serving(config, fetch, disk) as client:
            await asyncio.sleep(5)

            assert (await client.verify(mint())).status_code == 200
            assert (client.metric(RELOADS + '{result="failure"}'), client.metric(LAST)) == (1, 0)
    assert str(error) in caplog.text


async def test_after_a_broken_configuration_a_good_one_is_taken(
    make_config: MakeConfig, lab: dict[str, Any], config: Config, fetch: FakeFetch
) -> None:
    disk = Disk()
    disk.news += [ConfigError(["wrong"]), make_config({**lab, "leeway": 1})]
    async with serving(config, fetch, disk) as client:
        await asyncio.sleep(5)

        assert (client.service.runtime.config.leeway, client.metric(LAST)) == (1, 1)


async def test_counters_do_not_fall_when_the_configuration_changes(
    make_config: MakeConfig, lab: dict[str, Any], config: Config, fetch: FakeFetch, mint: Mint
) -> None:
    disk = Disk()
    async with serving(config, fetch, disk) as client:
        for _ in range(3):
            await client.verify(mint())
        disk.news.append(make_config({**lab, "leeway": 1}))
        await asyncio.sleep(5)

        assert client.metric('m2m_verifier_token_cache_requests_total{result="hit"}') == 2
        assert client.metric('m2m_verifier_jwks_refreshes_total{issuer="lab",result="success"}') == 1


async def test_the_audit_mode_changes_with_the_configuration(
    make_config: MakeConfig, lab: dict[str, Any], config: Config, fetch: FakeFetch, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = Disk()
    async with serving(config, fetch, disk) as client:
        disk.news.append(make_config({**lab, "audit": "off"}))
        await asyncio.sleep(5)
        await client.verify()

    assert "missing_token" not in capfd.readouterr().out


async def test_stopping_leaves_nothing_running(two: Config, fetch: FakeFetch) -> None:
    fetch.hang()
    async with serving(two, fetch, Disk()):
        assert fetch.running == 2
    await settle()

    assert (fetch.running, len(asyncio.all_tasks())) == (0, 1)


async def test_an_empty_policy_name_is_no_policy(config: Config, fetch: FakeFetch) -> None:
    async with serving(config, fetch) as client:
        assert (await client.get("/verify/")).headers["X-M2M-Reason"] == "unknown_policy"

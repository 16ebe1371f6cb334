"""Key sets: which key a token finds, when keys are fetched, and when they are let go."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from tests.unit.support import ISSUER, JWKS_URL, NOW, FakeFetch, SigningKey, jwks, loop_clock, settle
from verifier.keys.fetch import Fetched, FetchError
from verifier.keys.sets import RemoteKeys, StaticKeys, discovered_from, located_at

# --- which key a token finds ---


def test_a_kid_finds_its_key(signer: SigningKey, other_signer: SigningKey) -> None:
    keys = StaticKeys([signer.public(), other_signer.public()])

    assert keys.find("other", "RS256").kid == "other"  # type: ignore[union-attr]


def test_an_unknown_kid_finds_nothing(signer: SigningKey) -> None:
    assert StaticKeys([signer.public()]).find("unknown", "RS256") is None


def test_two_keys_with_one_kid_are_told_apart_by_algorithm(signer: SigningKey, ec_signer: SigningKey) -> None:
    keys = StaticKeys([signer.public(), ec_signer.public(kid=signer.kid)])

    assert keys.find(signer.kid, "ES256").fits("ES256")  # type: ignore[union-attr]


def test_without_kid_the_only_key_that_fits_is_found(signer: SigningKey, ec_signer: SigningKey) -> None:
    keys = StaticKeys([signer.public(), ec_signer.public()])

    assert keys.find(None, "ES256").kid == ec_signer.kid  # type: ignore[union-attr]


def test_without_kid_two_keys_that_fit_find_nothing(signer: SigningKey, other_signer: SigningKey) -> None:
    assert StaticKeys([signer.public(), other_signer.public()]).find(None, "RS256") is None


# --- remote keys: when they are fetched ---


def remote(fetch: FakeFetch) -> RemoteKeys:
    return RemoteKeys("lab", fetch, located_at(JWKS_URL), loop_clock)


@contextlib.asynccontextmanager
async def running(fetch: FakeFetch) -> AsyncIterator[RemoteKeys]:
    """Remote keys whose first fetch has ended, or hangs."""
    keys = remote(fetch)
    task = asyncio.create_task(keys.run())
    await settle()
    try:
        yield keys
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_keys_are_fetched_at_the_start(fetch: FakeFetch, signer: SigningKey) -> None:
    async with running(fetch) as keys:
        assert keys.find(signer.kid, "RS256") is not None
        assert (keys.last_success, keys.refreshes) == (NOW, {"success": 1, "failure": 0})


async def test_before_the_first_fetch_there_are_no_keys(fetch: FakeFetch) -> None:
    keys = remote(fetch)

    assert (len(keys), keys.last_success, keys.tried.is_set()) == (0, None, False)


@pytest.mark.parametrize(
    ("max_age", "least", "most"),
    [(None, 240, 300), (600, 480, 600), (0, 48, 60), (59, 48, 60), (86_400, 2880, 3600)],
    ids=["not said", "within bounds", "0", "below", "above"],
)
async def test_keys_are_refreshed_as_cache_control_says_within_bounds_with_jitter(
    signer: SigningKey, max_age: int | None, least: float, most: float
) -> None:
    fetch = FakeFetch({JWKS_URL: Fetched(jwks(signer), max_age)})
    async with running(fetch):
        await asyncio.sleep(least - 0.01)
        assert len(fetch.asked) == 1
        await asyncio.sleep(most - least + 0.02)
        assert len(fetch.asked) == 2


async def test_failing_fetches_back_off_to_a_minute() -> None:
    fetch, asked = FakeFetch(), []
    fetch.answers[JWKS_URL] = lambda _: asked.append(loop_clock()) or FetchError("status 500")
    async with running(fetch):
        await asyncio.sleep(600)
    waits = [later - earlier for earlier, later in pairwise(asked)]

    bounds = [1, 2, 4, 8, 16, 32, *[60] * len(waits)]
    assert len(waits) >= 10
    assert all(0.8 * bound <= wait <= bound + 1e-3 for wait, bound in zip(waits, bounds))


async def test_after_a_success_the_back_off_begins_anew(signer: SigningKey) -> None:
    fetch, failed = FakeFetch(), []
    async with running(fetch):
        await asyncio.sleep(200)  # backed off to a minute
        fetch.answers[JWKS_URL] = jwks(signer)
        await asyncio.sleep(61)
        fetch.answers[JWKS_URL] = lambda _: failed.append(loop_clock()) or FetchError("status 500")
        await asyncio.sleep(400)

    assert failed[1] - failed[0] <= 1.001


async def test_a_background_that_failed_for_days_still_fetches(fetch: FakeFetch) -> None:
    async with running(fetch):
        fetch.answers[JWKS_URL] = FetchError("status 500")
        await asyncio.sleep(48 * 3600)
        before = len(fetch.asked)
        await asyncio.sleep(61)

    assert len(fetch.asked) > before


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(FetchError("status 500"), id="status"),
        pytest.param(b"<html>", id="HTML"),
        pytest.param(b'{"keys": []}', id="no key"),
        pytest.param(RuntimeError("a defect"), id="a defect of ours"),
    ],
)
async def test_a_failed_fetch_leaves_the_old_keys_in_force(fetch: FakeFetch, signer: SigningKey, answer: Any) -> None:
    async with running(fetch) as keys:
        fetch.answers[JWKS_URL] = answer
        await asyncio.sleep(310)

        assert keys.refreshes["failure"] >= 1
        assert keys.find(signer.kid, "RS256") is not None
        assert keys.last_success == NOW


@pytest.mark.parametrize(
    ("named", "told"),
    [
        pytest.param("https://keys.example/set", "https://keys.example/set: status 500", id="plain"),
        pytest.param("https://keys.example/set?key=s3cret#s3cret", "https://keys.example/set: status 500", id="query"),
        pytest.param(
            "https://keys.example/\u2028\u0085", r"https://keys.example/\u2028\x85: status 500", id="a line's end"
        ),
        pytest.param("https://keys.example/" + "x" * 9999, f"https://keys.example/{'x' * 179}: status 500", id="long"),
    ],
)
async def test_a_failed_fetch_tells_in_one_line_where_the_keys_should_be(
    caplog: pytest.LogCaptureFixture, named: str, told: str
) -> None:
    metadata = json.dumps({"issuer": ISSUER, "jwks_uri": named}).encode()
    fetch = FakeFetch({f"{ISSUER}/.well-known/openid-configuration": metadata, named: FetchError("status 500")})
    await RemoteKeys("lab", fetch, discovered_from(ISSUER), loop_clock).refresh_for_unknown_kid()

    assert caplog.messages == [f"issuer lab: its keys could not be fetched: {told}"]


async def test_stale_keys_stay_for_24_hours(fetch: FakeFetch, signer: SigningKey) -> None:
    async with running(fetch) as keys:
        fetch.answers[JWKS_URL] = FetchError("status 500")
        await asyncio.sleep(24 * 3600)

        assert keys.find(signer.kid, "RS256") is not None


async def test_stale_keys_are_dropped_after_24_hours(fetch: FakeFetch, signer: SigningKey) -> None:
    async with running(fetch) as keys:
        key = keys.find(signer.kid, "RS256")
        fetch.answers[JWKS_URL] = FetchError("status 500")
        await asyncio.sleep(24 * 3600 + 61)

        assert len(keys) == 0
        assert key is not None
        assert key.retired


async def test_keys_come_back_after_they_were_dropped(fetch: FakeFetch, signer: SigningKey) -> None:
    async with running(fetch) as keys:
        good, fetch.answers[JWKS_URL] = fetch.answers[JWKS_URL], FetchError("status 500")
        await asyncio.sleep(25 * 3600)
        assert len(keys) == 0
        fetch.answers[JWKS_URL] = good
        await asyncio.sleep(61)

        assert keys.find(signer.kid, "RS256") is not None


async def test_a_hanging_fetch_at_the_start_is_not_doubled_by_waiting_requests(fetch: FakeFetch) -> None:
    fetch.hang()
    async with running(fetch) as keys:
        waiting = [asyncio.create_task(keys.refresh_for_unknown_kid()) for _ in range(50)]
        await settle()
        assert not any(task.done() for task in waiting)
        fetch.open.set()
        await asyncio.gather(*waiting)

        assert len(fetch.asked) == 1
        assert len(keys) == 1


async def test_a_waiter_gives_up_after_2_seconds_and_the_fetch_goes_on(fetch: FakeFetch) -> None:
    fetch.hang()
    keys = remote(fetch)
    before = loop_clock()
    await keys.refresh_for_unknown_kid()
    waited = loop_clock() - before
    fetch.open.set()
    await settle()

    assert waited == pytest.approx(2.0)
    assert len(keys) == 1


async def test_a_waiter_that_is_cancelled_does_not_cancel_the_fetch_of_others(fetch: FakeFetch) -> None:
    fetch.hang()
    keys = remote(fetch)
    impatient, patient = (asyncio.create_task(keys.refresh_for_unknown_kid()) for _ in range(2))
    await settle()
    impatient.cancel()
    await settle()
    fetch.open.set()
    await patient

    assert len(keys) == 1
    assert len(fetch.asked) == 1


async def test_cancelling_the_background_cancels_its_fetch(fetch: FakeFetch) -> None:
    fetch.hang()
    async with running(fetch):
        assert fetch.running == 1
    await settle()

    assert fetch.running == 0


# --- remote keys: an unknown kid ---


async def test_an_unknown_kid_triggers_a_fetch(fetch: FakeFetch, signer: SigningKey, other_signer: SigningKey) -> None:
    async with running(fetch) as keys:
        fetch.answers[JWKS_URL] = jwks(signer, other_signer)
        await keys.refresh_for_unknown_kid()

        assert keys.find(other_signer.kid, "RS256") is not None


async def test_the_fetch_at_the_start_does_not_use_up_the_cooldown(fetch: FakeFetch) -> None:
    async with running(fetch) as keys:
        await keys.refresh_for_unknown_kid()

        assert len(fetch.asked) == 2


async def test_the_background_fetch_does_not_use_up_the_cooldown(fetch: FakeFetch) -> None:
    async with running(fetch) as keys:
        await asyncio.sleep(301)
        assert len(fetch.asked) == 2
        await keys.refresh_for_unknown_kid()

        assert len(fetch.asked) == 3


async def test_a_flood_of_unknown_kids_fetches_once_in_10_seconds(fetch: FakeFetch) -> None:
    async with running(fetch) as keys:
        for _ in range(300):
            await keys.refresh_for_unknown_kid()
        assert len(fetch.asked) == 2
        await asyncio.sleep(9.9)
        await keys.refresh_for_unknown_kid()
        assert len(fetch.asked) == 2
        await asyncio.sleep(0.2)
        await keys.refresh_for_unknown_kid()
        assert len(fetch.asked) == 3


async def test_unknown_kids_at_one_time_share_one_fetch(fetch: FakeFetch) -> None:
    async with running(fetch) as keys:
        await asyncio.gather(*(keys.refresh_for_unknown_kid() for _ in range(300)))

        assert len(fetch.asked) == 2
        assert fetch.most_at_once == 1


async def test_a_failed_attempt_uses_up_the_cooldown_too(fetch: FakeFetch) -> None:
    async with running(fetch) as keys:
        fetch.answers[JWKS_URL] = FetchError("status 500")
        for _ in range(10):
            await keys.refresh_for_unknown_kid()

        assert len(fetch.asked) == 2


async def test_looking_for_an_unknown_kid_never_raises() -> None:
    keys = remote(FakeFetch({JWKS_URL: RuntimeError("a defect")}))
    await keys.refresh_for_unknown_kid()

    assert keys.refreshes["failure"] == 1


# --- remote keys: keys that come and go ---


async def test_a_key_that_leaves_the_set_retires(
    fetch: FakeFetch, signer: SigningKey, other_signer: SigningKey
) -> None:
    async with running(fetch) as keys:
        key = keys.find(signer.kid, "RS256")
        assert key is not None
        assert not key.retired
        fetch.answers[JWKS_URL] = jwks(other_signer)
        await keys.refresh_for_unknown_kid()

        assert key.retired
        assert keys.find(signer.kid, "RS256") is None


async def test_a_key_that_was_listed_twice_is_retired_as_a_whole(
    fetch: FakeFetch, signer: SigningKey, other_signer: SigningKey
) -> None:
    twice = {"keys": [{**json.loads(jwks(signer))["keys"][0], **more} for more in ({}, {"x5t": "another"})]}
    fetch.answers[JWKS_URL] = json.dumps(twice).encode()
    async with running(fetch) as keys:
        key = keys.find(signer.kid, "RS256")
        fetch.answers[JWKS_URL] = jwks(other_signer)
        await keys.refresh_for_unknown_kid()

        assert key is not None
        assert key.retired


async def test_a_key_that_is_listed_twice_is_one_key(fetch: FakeFetch, signer: SigningKey) -> None:
    fetch.answers[JWKS_URL] = json.dumps({"keys": 2 * json.loads(jwks(signer))["keys"]}).encode()
    async with running(fetch) as keys:
        assert len(keys) == 1
        assert keys.find(None, "RS256") is not None


async def test_a_key_that_stays_is_the_same_object(
    fetch: FakeFetch, signer: SigningKey, other_signer: SigningKey
) -> None:
    async with running(fetch) as keys:
        key = keys.find(signer.kid, "RS256")
        fetch.answers[JWKS_URL] = jwks(other_signer, signer)
        await keys.refresh_for_unknown_kid()

        assert keys.find(signer.kid, "RS256") is key
        assert key is not None
        assert not key.retired


async def test_a_key_that_reuses_its_kid_replaces_the_old_one(
    fetch: FakeFetch, signer: SigningKey, other_signer: SigningKey
) -> None:
    async with running(fetch) as keys:
        key = keys.find(signer.kid, "RS256")
        fetch.answers[JWKS_URL] = jwks(other_signer.jwk(kid=signer.kid))
        await keys.refresh_for_unknown_kid()

        assert key is not None
        assert key.retired
        assert keys.find(signer.kid, "RS256") is not key


# --- where the keys are ---

OPENID = ISSUER + "/.well-known/openid-configuration"
RFC_8414 = ISSUER + "/.well-known/oauth-authorization-server"


def metadata(**changes: Any) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": JWKS_URL} | changes).encode()


async def test_discovery_asks_openid_first() -> None:
    fetch = FakeFetch({OPENID: metadata()})

    assert await discovered_from(ISSUER)(fetch) == JWKS_URL
    assert fetch.asked == [OPENID]


async def test_discovery_falls_back_to_rfc_8414() -> None:
    fetch = FakeFetch({RFC_8414: metadata()})

    assert await discovered_from(ISSUER)(fetch) == JWKS_URL
    assert fetch.asked == [OPENID, RFC_8414]


async def test_rfc_8414_puts_the_well_known_part_before_the_issuers_path() -> None:
    url = "https://issuer.example/.well-known/oauth-authorization-server/realms/lab"
    fetch = FakeFetch({url: metadata(issuer=ISSUER + "/realms/lab")})

    assert await discovered_from(ISSUER + "/realms/lab")(fetch) == JWKS_URL


async def test_an_issuer_with_a_slash_at_its_end_is_discovered_without_doubling_it() -> None:
    fetch = FakeFetch({OPENID: metadata(issuer=ISSUER + "/")})

    assert await discovered_from(ISSUER + "/")(fetch) == JWKS_URL


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(metadata(issuer="https://other.example"), id="another issuer"),
        pytest.param(metadata(issuer=ISSUER + "/"), id="a slash more"),
        pytest.param(metadata(issuer=None), id="no issuer"),
        pytest.param(metadata(jwks_uri=None), id="no jwks_uri"),
        pytest.param(metadata(jwks_uri=["https://a.example"]), id="jwks_uri no string"),
        pytest.param(metadata(jwks_uri="http://issuer.example/keys"), id="keys over plain http"),
        pytest.param(metadata(jwks_uri="file:///etc/passwd"), id="keys in a file"),
        pytest.param(b"<html>", id="HTML"),
        pytest.param(b"[]", id="no object"),
    ],
)
async def test_a_discovery_document_that_cannot_be_trusted_is_refused(document: bytes) -> None:
    with pytest.raises(FetchError, match="discovery failed"):
        await discovered_from(ISSUER)(FakeFetch({OPENID: document, RFC_8414: document}))


async def test_keys_are_fetched_by_discovery(signer: SigningKey) -> None:
    fetch = FakeFetch({OPENID: metadata(), JWKS_URL: jwks(signer)})
    keys = RemoteKeys("lab", fetch, discovered_from(ISSUER), loop_clock)
    await keys.refresh_for_unknown_kid()

    assert keys.find(signer.kid, "RS256") is not None


async def test_a_failed_discovery_leaves_the_old_keys_in_force(signer: SigningKey) -> None:
    fetch = FakeFetch({OPENID: metadata(), JWKS_URL: jwks(signer)})
    keys = RemoteKeys("lab", fetch, discovered_from(ISSUER), loop_clock)
    await keys.refresh_for_unknown_kid()
    fetch.answers[OPENID] = metadata(issuer="https://other.example")
    await asyncio.sleep(11)
    await keys.refresh_for_unknown_kid()

    assert keys.refreshes == {"success": 1, "failure": 1}
    assert len(keys) == 1

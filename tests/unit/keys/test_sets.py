"""Key sets: which key a token finds, when keys are fetched, and when they are dropped."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest

from tests.unit.support import ISSUER, JWKS_URL, NOW, FakeFetch, SigningKey, jwks, loop_clock, settle
from verifier.keys.fetch import Fetched, FetchError
from verifier.keys.jwk import Key
from verifier.keys.sets import RemoteKeys, StaticKeys, discovered_from, located_at

DOWN = FetchError("status 500")

# --- which key a token finds ---


def kid_found(keys: StaticKeys, kid: str | None, algorithm: str = "RS256") -> str | None:
    key = keys.find(kid, algorithm)
    return None if key is None else key.kid


@pytest.mark.parametrize(
    ("kid", "algorithm", "found"),
    [
        pytest.param("other", "RS256", "other", id="by kid"),
        pytest.param("unknown", "RS256", None, id="unknown kid"),
        pytest.param("rsa", "ES256", "rsa", id="a known kid that does not fit, for the right reason"),
        pytest.param(None, "ES256", "ec", id="no kid, one key fits"),
        pytest.param(None, "RS256", None, id="no kid, two keys fit"),
    ],
)
def test_a_token_finds_its_key(
    signer: SigningKey, other_signer: SigningKey, ec_signer: SigningKey, kid: str | None, algorithm: str, found: str
) -> None:
    keys = StaticKeys([signer.public(), other_signer.public(), ec_signer.public()])

    assert kid_found(keys, kid, algorithm) == found


def test_two_keys_with_one_kid_are_distinguished_by_algorithm(signer: SigningKey, ec_signer: SigningKey) -> None:
    keys = StaticKeys([signer.public(), ec_signer.public(kid=signer.kid)])
    key = keys.find(signer.kid, "ES256")

    assert key is not None
    assert key.fits("ES256")


# --- remote keys: when they are fetched ---


class Remote(RemoteKeys):
    """Remote keys that record each fetch's success."""

    def __init__(self, fetch: FakeFetch, locate: Any = None, **options: Any) -> None:
        self.successes: list[bool] = []
        super().__init__("lab", fetch, locate or located_at(JWKS_URL), loop_clock, self.successes.append, **options)


@contextlib.asynccontextmanager
async def running(fetch: FakeFetch, **options: Any) -> AsyncIterator[Remote]:
    """Remote keys whose first fetch has ended, or hangs."""
    keys = Remote(fetch, **options)
    task = asyncio.create_task(keys.run())
    await settle()
    try:
        yield keys
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_before_the_first_fetch_there_are_no_keys(fetch: FakeFetch) -> None:
    keys = Remote(fetch)

    assert (len(keys), keys.last_success, keys.tried.is_set()) == (0, None, False)


async def test_keys_are_fetched_at_the_start(fetch: FakeFetch, signer: SigningKey) -> None:
    async with running(fetch) as keys:
        assert kid_found(keys, signer.kid) == signer.kid
        assert (keys.last_success, keys.successes) == (NOW, [True])


@pytest.mark.parametrize("answer", [None, DOWN], ids=["good", "failed"])
async def test_the_end_of_the_first_fetch_is_announced(fetch: FakeFetch, answer: FetchError | None) -> None:
    fetch.answers[JWKS_URL] = answer or fetch.answers[JWKS_URL]
    fetch.hang()
    async with running(fetch) as keys:
        assert not keys.tried.is_set()
        fetch.open.set()
        await settle()

        assert keys.tried.is_set()


@pytest.mark.parametrize(
    ("max_age", "least", "most"),
    [(None, 240, 300), (600, 480, 600), (0, 48, 60), (59, 48, 60), (86_400, 2880, 3600)],
    ids=["absent", "within bounds", "0", "below", "above"],
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


def failing(fetch: FakeFetch) -> list[float]:
    """Let each fetch fail; the list records when."""
    asked: list[float] = []

    def fail(_: str) -> FetchError:
        asked.append(loop_clock())
        return DOWN

    fetch.answers[JWKS_URL] = fail
    return asked


@pytest.mark.parametrize("edge", [0.8, 1.0])
async def test_failing_fetches_back_off_to_a_minute_with_jitter(fetch: FakeFetch, edge: float) -> None:
    asked = failing(fetch)

    def jitter(least: float, most: float) -> float:
        assert (least, most) == (0.8, 1.0)
        return edge

    async with running(fetch, jitter=jitter):
        await asyncio.sleep(600)
    waits = [later - earlier for earlier, later in pairwise(asked)]

    bounds = [1, 2, 4, 8, 16, 32, *[60] * len(waits)]
    assert len(waits) >= 10
    assert waits == pytest.approx([edge * bound for bound in bounds[: len(waits)]])


async def test_after_a_success_the_back_off_starts_again(fetch: FakeFetch) -> None:
    good = fetch.answers[JWKS_URL]
    failing(fetch)
    async with running(fetch, jitter=lambda _, most: most):
        await asyncio.sleep(200)  # backed off to a minute
        fetch.answers[JWKS_URL] = good
        await asyncio.sleep(61)
        failed = failing(fetch)
        await asyncio.sleep(400)

    assert failed[1] - failed[0] == pytest.approx(1)


async def test_keys_are_fetched_even_after_two_days_of_failures(fetch: FakeFetch) -> None:
    asked = failing(fetch)
    async with running(fetch):
        await asyncio.sleep(48 * 3600)
        before = len(asked)
        await asyncio.sleep(61)

    assert len(asked) > before


@pytest.mark.parametrize("answer", [DOWN, b"<html>", RuntimeError("a defect")], ids=["status", "HTML", "defect"])
async def test_a_failed_fetch_leaves_the_old_keys_in_force(fetch: FakeFetch, signer: SigningKey, answer: Any) -> None:
    async with running(fetch) as keys:
        fetch.answers[JWKS_URL] = answer
        await asyncio.sleep(310)

        assert keys.successes[1:3] == [False, False]
        assert kid_found(keys, signer.kid) == signer.kid
        assert keys.last_success == NOW


@pytest.mark.parametrize(
    ("url", "message"),
    [
        pytest.param("https://keys.example/set", "https://keys.example/set: status 500", id="plain"),
        pytest.param("https://keys.example/set?key=s3cret#s3cret", "https://keys.example/set: status 500", id="query"),
        pytest.param("https://keys.example/\u2028\u0085", r"https://keys.example/\u2028\x85: status 500", id="newline"),
        pytest.param("https://keys.example/" + "x" * 9999, f"https://keys.example/{'x' * 179}: status 500", id="long"),
    ],
)
async def test_a_failed_fetch_logs_one_line_with_the_url(
    caplog: pytest.LogCaptureFixture, url: str, message: str
) -> None:
    fetch = FakeFetch({OPENID: metadata(jwks_uri=url), url: DOWN})
    await Remote(fetch, discovered_from(ISSUER)).refresh()

    assert caplog.messages == [f"issuer lab: its keys could not be fetched: {message}"]


async def test_an_unexpected_exception_is_logged_without_its_text(
    fetch: FakeFetch, caplog: pytest.LogCaptureFixture
) -> None:
    fetch.answers[JWKS_URL] = RuntimeError("s3cret")
    await Remote(fetch).refresh()

    assert caplog.messages == [f"issuer lab: its keys could not be fetched: {JWKS_URL}: RuntimeError"]


async def test_stale_keys_stay_in_force_for_24_hours_and_are_then_dropped(fetch: FakeFetch, signer: SigningKey) -> None:
    async with running(fetch) as keys:
        key, good = keys.find(signer.kid, "RS256"), fetch.answers[JWKS_URL]
        assert key is not None
        failing(fetch)
        await asyncio.sleep(24 * 3600)
        assert keys.find(signer.kid, "RS256") is key
        await asyncio.sleep(61)
        assert len(keys) == 0
        assert key.retired
        fetch.answers[JWKS_URL] = good
        await asyncio.sleep(61)
        assert kid_found(keys, signer.kid) == signer.kid


async def test_requests_that_wait_during_the_first_fetch_cause_no_second_one(fetch: FakeFetch) -> None:
    fetch.hang()
    async with running(fetch) as keys:
        waiting = [asyncio.create_task(keys.refresh()) for _ in range(50)]
        await settle()
        assert not any(task.done() for task in waiting)
        fetch.open.set()
        await asyncio.gather(*waiting)

        assert len(fetch.asked) == 1
        assert len(keys) == 1


async def test_a_request_waits_for_2_seconds_and_the_fetch_goes_on(fetch: FakeFetch) -> None:
    fetch.hang()
    keys = Remote(fetch)
    await keys.refresh()

    assert loop_clock() == pytest.approx(NOW + 2.0)
    fetch.open.set()
    await settle()
    assert len(keys) == 1


async def test_a_cancelled_request_does_not_cancel_the_fetch_of_others(fetch: FakeFetch) -> None:
    fetch.hang()
    keys = Remote(fetch)
    impatient, patient = (asyncio.create_task(keys.refresh()) for _ in range(2))
    await settle()
    impatient.cancel()
    await settle()
    fetch.open.set()
    await patient

    assert len(keys) == 1
    assert len(fetch.asked) == 1


async def test_cancelling_the_background_task_cancels_its_fetch(fetch: FakeFetch) -> None:
    fetch.hang()
    async with running(fetch):
        assert fetch.running == 1
    await settle()

    assert fetch.running == 0


# --- remote keys: fetches that requests cause ---


@pytest.mark.parametrize("waited", [0, 301], ids=["start", "background"])
async def test_only_fetches_that_requests_cause_count_for_the_cooldown(fetch: FakeFetch, waited: float) -> None:
    async with running(fetch) as keys:
        await asyncio.sleep(waited)
        before = len(fetch.asked)
        assert keys.may_refresh()
        await keys.refresh()

        assert len(fetch.asked) == before + 1


@pytest.mark.parametrize("answer", [None, DOWN], ids=["good", "failed"])
async def test_a_flood_of_requests_fetches_once_in_10_seconds(fetch: FakeFetch, answer: FetchError | None) -> None:
    keys = Remote(fetch)
    fetch.answers[JWKS_URL] = answer or fetch.answers[JWKS_URL]
    for _ in range(300):
        await keys.refresh()
    assert len(fetch.asked) == 1
    await asyncio.sleep(9.9)
    assert not keys.may_refresh()
    await keys.refresh()
    assert len(fetch.asked) == 1
    await asyncio.sleep(0.2)
    await keys.refresh()
    assert len(fetch.asked) == 2


async def test_simultaneous_requests_share_one_fetch(fetch: FakeFetch) -> None:
    keys = Remote(fetch)
    await asyncio.gather(*(keys.refresh() for _ in range(300)))

    assert (len(fetch.asked), fetch.most_at_once) == (1, 1)


async def test_a_clock_that_is_set_back_does_not_prolong_the_cooldown(fetch: FakeFetch) -> None:
    now = NOW
    keys = RemoteKeys("lab", fetch, located_at(JWKS_URL), lambda: now)
    await keys.refresh()
    now -= 3600

    assert keys.may_refresh()


async def test_a_refresh_never_raises() -> None:
    keys = Remote(FakeFetch({JWKS_URL: RuntimeError("a defect")}))
    await keys.refresh()

    assert keys.successes == [False]


# --- remote keys: keys that come and go ---


def change(signer: SigningKey, **members: Any) -> dict[str, Any]:
    return signer.jwk() | members


@pytest.mark.parametrize(
    "published",
    [
        pytest.param(lambda signer, _: [signer], id="once"),
        pytest.param(lambda signer, _: [signer, signer], id="listed twice"),
        pytest.param(lambda signer, _: [signer, change(signer, x="another")], id="listed twice with another member"),
    ],
)
@pytest.mark.parametrize(
    "replacement",
    [
        pytest.param(lambda _, other: [other], id="another key"),
        pytest.param(lambda signer, other: [other.jwk(kid=signer.kid)], id="another key with its kid"),
    ],
)
async def test_a_key_that_leaves_the_set_retires(
    fetch: FakeFetch,
    signer: SigningKey,
    other_signer: SigningKey,
    published: Callable[..., list[Any]],
    replacement: Callable[..., list[Any]],
) -> None:
    fetch.answers[JWKS_URL] = jwks(*published(signer, other_signer))
    async with running(fetch) as keys:
        key = keys.find(signer.kid, "RS256")
        assert key is not None
        assert (len(keys), key.retired) == (1, False)
        fetch.answers[JWKS_URL] = jwks(*replacement(signer, other_signer))
        await keys.refresh()

        assert key.retired
        assert keys.find(signer.kid, "RS256") is not key


async def test_a_key_that_stays_is_the_same_object(
    fetch: FakeFetch, signer: SigningKey, other_signer: SigningKey
) -> None:
    async with running(fetch) as keys:
        key = keys.find(signer.kid, "RS256")
        fetch.answers[JWKS_URL] = jwks(other_signer, signer)
        await keys.refresh()

        assert keys.find(signer.kid, "RS256") is key
        assert isinstance(key, Key)
        assert not key.retired
        assert kid_found(keys, other_signer.kid) == other_signer.kid


# --- where the keys are ---

OPENID = ISSUER + "/.well-known/openid-configuration"
RFC_8414 = ISSUER + "/.well-known/oauth-authorization-server"


def metadata(**changes: Any) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": JWKS_URL} | changes).encode()


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        pytest.param(ISSUER, [OPENID], id="OpenID first"),
        pytest.param(ISSUER, [OPENID, RFC_8414], id="else RFC 8414"),
        pytest.param(ISSUER + "/", [OPENID], id="a final slash is not doubled"),
        pytest.param(
            ISSUER + "/realms/lab",
            [ISSUER + "/realms/lab/.well-known/openid-configuration", RFC_8414 + "/realms/lab"],
            id="RFC 8414 puts the well-known part before the path",
        ),
    ],
)
async def test_discovery_asks_for_the_documents_of_both_standards(issuer: str, urls: list[str]) -> None:
    fetch = FakeFetch({urls[-1]: metadata(issuer=issuer)})

    assert await discovered_from(issuer)(fetch) == JWKS_URL
    assert fetch.asked == urls


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(metadata(issuer="https://other.example"), id="another issuer"),
        pytest.param(metadata(issuer=ISSUER + "/"), id="a final slash more"),
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


async def test_a_failed_discovery_leaves_the_old_keys_in_force(signer: SigningKey) -> None:
    fetch = FakeFetch({OPENID: metadata(), JWKS_URL: jwks(signer)})
    keys = Remote(fetch, discovered_from(ISSUER))
    await keys.refresh()
    fetch.answers[OPENID] = metadata(issuer="https://other.example")
    await asyncio.sleep(11)
    await keys.refresh()

    assert keys.successes == [True, False]
    assert len(keys) == 1

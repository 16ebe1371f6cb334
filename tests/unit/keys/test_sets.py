"""Key sets: which key a token finds, when keys are fetched, and when they are dropped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest

from tests.unit.support import ISSUER, JWKS_URL, NOW, FakeFetch, SigningKey, b64, jwks, loop_clock, settle
from verifier.keys.fetch import Fetched, FetchError
from verifier.keys.jwk import Key, thumbprints
from verifier.keys.sets import KeySet, RemoteKeys, discover, keys_of_file

DOWN = FetchError("status 500")

# --- which key a token finds ---


def tried(keys: KeySet, kid: str | None, algorithm: str = "RS256", **header: str) -> list[str]:
    """The identities of the keys that are tried for a token."""
    return [key.identity for key in keys.candidates(kid, thumbprints(header), algorithm)]


def one(keys: KeySet, kid: str) -> Key:
    (key,) = keys.candidates(kid, (), "RS256")
    return key


@pytest.fixture
def published(signer: SigningKey, other_signer: SigningKey, ec_signer: SigningKey) -> dict[str, Key]:
    """Three keys under one kid, two of them with a certificate, and one of another type under its own."""
    return {
        "plain": signer.public(kid="a"),
        "sha1": signer.public(kid="a", x5t="one"),
        "sha256": other_signer.public(kid="a", **{"x5t#S256": "two"}),
        "ec": ec_signer.public(kid="b"),
    }


@pytest.mark.parametrize(
    ("kid", "algorithm", "header", "names"),
    [
        pytest.param("b", "ES256", {}, "ec", id="by kid"),
        pytest.param("a", "RS256", {}, "plain sha1 sha256", id="several keys under one kid"),
        pytest.param("c", "RS256", {}, "", id="unknown kid"),
        pytest.param("b", "RS256", {}, "ec", id="a known kid that does not fit, for the right reason"),
        pytest.param("a", "ES256", {}, "plain", id="of several that do not fit only one"),
        pytest.param(None, "ES256", {}, "ec", id="no kid, one key fits"),
        pytest.param(None, "RS256", {}, "plain sha1 sha256", id="no kid, several keys fit"),
        pytest.param(None, "ES512", {}, "", id="no kid, no key fits"),
        pytest.param("a", "RS256", {"x5t": "one"}, "sha1", id="x5t"),
        pytest.param(None, "RS256", {"x5t#S256": "two"}, "sha256", id="x5t#S256 without kid"),
        pytest.param("a", "ES256", {"x5t": "one"}, "sha1", id="x5t of a key that does not fit"),
        pytest.param("a", "RS256", {"x5t": "two"}, "plain sha1 sha256", id="x5t that no key has"),
        pytest.param("b", "ES256", {"x5t": "one"}, "ec", id="x5t of a key with another kid"),
        pytest.param("c", "RS256", {"x5t": "one"}, "", id="x5t with an unknown kid"),
    ],
)
def test_the_keys_that_a_token_may_be_signed_with_are_tried(
    published: dict[str, Key], kid: str | None, algorithm: str, header: dict[str, str], names: str
) -> None:
    keys = KeySet(published.values())

    assert tried(keys, kid, algorithm, **header) == [published[name].identity for name in names.split()]


@pytest.mark.parametrize("kid", ["rsa", None])
def test_at_most_four_keys_are_tried(signer: SigningKey, kid: str | None) -> None:
    assert len(tried(KeySet(signer.public(x5t=str(place)) for place in range(5)), kid)) == 4


def test_the_keys_of_a_file_may_be_shared_secrets_and_do_not_change() -> None:
    keys = keys_of_file("lab", jwks({"kty": "oct", "kid": "secret", "k": b64(b"k" * 32)}), NOW)

    assert (len(keys), keys.last_success, keys.may_refresh()) == (1, NOW, False)


# --- keys that cannot be used ---

WEAK = "it is an RSA key of 1024 bits, not of 2048 to 8192"


def test_an_unusable_key_of_a_file_is_logged_with_its_kid_and_cause(
    signer: SigningKey, weak_signer: SigningKey, caplog: pytest.LogCaptureFixture
) -> None:
    keys = keys_of_file("lab", jwks(weak_signer, signer), NOW)

    assert caplog.record_tuples == [
        ("verifier.keys.sets", logging.WARNING, f"issuer lab: the key with kid 'weak' cannot be used: {WEAK}")
    ]
    assert (keys.cause_of("weak"), keys.cause_of("rsa"), keys.cause_of(None)) == (WEAK, None, None)


async def test_an_unusable_key_is_logged_once_and_not_after_each_fetch(
    fetch: FakeFetch, keys: Remote, signer: SigningKey, weak_signer: SigningKey, caplog: pytest.LogCaptureFixture
) -> None:
    fetch.answers[JWKS_URL] = jwks(signer, weak_signer)
    await asyncio.sleep(3600)
    fetch.answers[JWKS_URL] = jwks(signer, weak_signer, weak_signer.jwk(kid=None, n=None))
    await asyncio.sleep(3600)
    assert keys.cause_of("weak") == WEAK
    fetch.answers[JWKS_URL] = jwks(signer)
    await keys.refresh()
    assert keys.cause_of("weak") is None

    assert len(fetch.asked) > 20
    assert caplog.messages == [
        f"issuer lab: the key with kid 'weak' cannot be used: {WEAK}",
        "issuer lab: the key without kid cannot be used: n is missing",
    ]


async def test_a_key_for_encryption_is_no_reason_for_a_warning(
    fetch: FakeFetch, signer: SigningKey, caplog: pytest.LogCaptureFixture
) -> None:
    fetch.answers[JWKS_URL] = jwks(signer, signer.jwk(kid="enc", use="enc"))
    caplog.set_level(logging.INFO)
    async with running(fetch) as keys:
        assert keys.cause_of("enc") == "it is not for signatures"

    assert [record.levelno for record in caplog.records if "enc" in record.getMessage()] == [logging.INFO]


# --- remote keys: when they are fetched ---


class Remote(RemoteKeys):
    """Remote keys that record each fetch's success."""

    def __init__(self, fetch: FakeFetch, key_set_url: str | None = JWKS_URL, **options: Any) -> None:
        self.successes: list[bool] = []
        super().__init__("lab", ISSUER, key_set_url, fetch, loop_clock, self.successes.append, **options)


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


@pytest.fixture
def keys(enter: Callable[..., Remote], fetch: FakeFetch) -> Remote:
    """Remote keys that were fetched once."""
    return enter(running(fetch))


@pytest.mark.parametrize("answer", [None, DOWN], ids=["good", "failed"])
async def test_keys_are_fetched_at_the_start_and_the_end_of_this_fetch_is_announced(
    fetch: FakeFetch, signer: SigningKey, answer: FetchError | None
) -> None:
    fetch.answers[JWKS_URL] = answer or fetch.answers[JWKS_URL]
    fetch.hang()
    async with running(fetch) as keys:
        assert (len(keys), keys.last_success, keys.tried.is_set()) == (0, None, False)
        fetch.open.set()
        await settle()

        assert keys.tried.is_set()
        assert (len(keys), keys.last_success, keys.successes) == ((0, None, [False]) if answer else (1, NOW, [True]))


@pytest.mark.parametrize(
    ("max_age", "seconds"),
    [(None, 300), (600, 600), (0, 60), (59, 60), (86_400, 3600)],
    ids=["absent", "within bounds", "0", "below", "above"],
)
@pytest.mark.parametrize("edge", [0.8, 1.0])
async def test_keys_are_refreshed_as_cache_control_says_within_bounds_with_jitter(
    signer: SigningKey, max_age: int | None, seconds: float, edge: float
) -> None:
    fetch = FakeFetch({JWKS_URL: Fetched(jwks(signer), max_age)})
    async with running(fetch, jitter=lambda *bounds: edge if bounds == (0.8, 1.0) else 0):
        await asyncio.sleep(edge * seconds - 0.01)
        assert len(fetch.asked) == 1
        await asyncio.sleep(0.02)
        assert len(fetch.asked) == 2


@pytest.mark.parametrize("edge", [0.8, 1.0])
async def test_failing_fetches_back_off_to_a_minute_with_jitter_and_never_end(fetch: FakeFetch, edge: float) -> None:
    fetch.answers[JWKS_URL] = DOWN
    async with running(fetch, jitter=lambda *bounds: edge if bounds == (0.8, 1.0) else 0):
        await asyncio.sleep(48 * 3600)
    waits = [later - earlier for earlier, later in pairwise(fetch.asked_at)]

    assert len(waits) >= 48 * 60
    assert waits == pytest.approx([edge * bound for bound in (1, 2, 4, 8, 16, 32, *[60] * (len(waits) - 6))])


async def test_after_a_success_the_back_off_starts_again(fetch: FakeFetch) -> None:
    good, fetch.answers[JWKS_URL] = fetch.answers[JWKS_URL], DOWN
    async with running(fetch, jitter=lambda _, most: most):
        await asyncio.sleep(200)  # backed off to a minute
        fetch.answers[JWKS_URL] = good
        await asyncio.sleep(61)
        fetch.answers[JWKS_URL] = DOWN
        before = len(fetch.asked)
        await asyncio.sleep(400)

    assert fetch.asked_at[before + 1] - fetch.asked_at[before] == pytest.approx(1)


@pytest.mark.parametrize("answer", [DOWN, b"<html>", RuntimeError("a defect")], ids=["status", "HTML", "defect"])
async def test_a_failed_fetch_leaves_the_old_keys_in_force(
    fetch: FakeFetch, keys: Remote, signer: SigningKey, answer: Any
) -> None:
    fetch.answers[JWKS_URL] = answer
    await asyncio.sleep(310)

    assert keys.successes[1:3] == [False, False]
    assert tried(keys, signer.kid)
    assert keys.last_success == NOW


@pytest.mark.parametrize(
    ("url", "answer", "message"),
    [
        pytest.param("/set", DOWN, "/set: status 500", id="plain"),
        pytest.param("/set?key=s3cret#s3cret", DOWN, "/set: status 500", id="query"),
        pytest.param("/\u2028\u0085", DOWN, r"/\u2028\x85: status 500", id="newline"),
        pytest.param("/" + "x" * 9999, DOWN, f"/{'x' * 179}: status 500", id="long"),
        pytest.param("/set", RuntimeError("s3cret"), "/set: RuntimeError", id="defect, without its text"),
    ],
)
async def test_a_failed_fetch_logs_one_line_with_the_url(
    caplog: pytest.LogCaptureFixture, url: str, answer: Exception, message: str
) -> None:
    url = f"https://keys.example{url}"
    await Remote(FakeFetch({OPENID: metadata(jwks_uri=url), url: answer}), None).refresh()

    assert caplog.messages == [f"issuer lab: its keys could not be fetched: https://keys.example{message}"]


async def test_stale_keys_stay_in_force_for_24_hours_and_are_then_dropped(
    fetch: FakeFetch, keys: Remote, signer: SigningKey
) -> None:
    key = one(keys, signer.kid)
    good, fetch.answers[JWKS_URL] = fetch.answers[JWKS_URL], DOWN
    await asyncio.sleep(24 * 3600)
    assert one(keys, signer.kid) is key
    await asyncio.sleep(61)
    assert (len(keys), key.retired) == (0, True)
    fetch.answers[JWKS_URL] = good
    await asyncio.sleep(61)
    assert tried(keys, signer.kid)


async def test_a_request_waits_for_2_seconds_and_the_fetch_goes_on(fetch: FakeFetch) -> None:
    fetch.hang()
    keys = Remote(fetch)
    await keys.refresh()

    assert loop_clock() - NOW == pytest.approx(2.0)
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

    assert (len(fetch.asked), len(keys)) == (1, 1)


async def test_the_end_of_the_background_task_cancels_its_fetch_and_no_other_is_scheduled(fetch: FakeFetch) -> None:
    fetch.hang()
    async with running(fetch) as keys:
        assert fetch.running == 1
    await settle()
    assert fetch.running == 0
    fetch.open.set()
    await keys.refresh()
    await asyncio.sleep(3600)

    assert len(fetch.asked) == 2


# --- remote keys: a set without usable keys ---


@pytest.mark.parametrize("emptied", [0, 1], ids=["empty", "unusable keys only"])
async def test_a_set_without_usable_keys_retires_all_and_is_fetched_again_within_10_seconds(
    fetch: FakeFetch, keys: Remote, signer: SigningKey, weak_signer: SigningKey, caplog: pytest.LogCaptureFixture,
    emptied: int,
) -> None:  # fmt: skip
    key = one(keys, signer.kid)
    good = fetch.answers[JWKS_URL]
    fetch.answers[JWKS_URL] = Fetched(jwks(*[weak_signer] * emptied), 86_400)
    await keys.refresh()  # by a request: the next background fetch would be minutes away
    assert (key.retired, len(keys), keys.successes) == (True, 0, [True, True])
    await asyncio.sleep(100)
    assert len(fetch.asked) >= 11
    fetch.answers[JWKS_URL] = good
    await asyncio.sleep(10)
    assert tried(keys, signer.kid)
    before = len(fetch.asked)
    await asyncio.sleep(200)
    assert len(fetch.asked) == before

    assert sum("holds no usable key" in message for message in caplog.messages) == 1


async def test_a_set_without_usable_keys_is_reported_at_first_and_after_an_outage(
    fetch: FakeFetch, caplog: pytest.LogCaptureFixture
) -> None:
    message = "issuer lab: its key set holds no usable key: its tokens get 503"
    fetch.answers[JWKS_URL] = Fetched(jwks(), 3600)
    async with running(fetch, jitter=lambda _, most: most):
        await asyncio.sleep(15)
        assert (len(fetch.asked), caplog.messages) == (2, [message])
        fetch.answers[JWKS_URL] = DOWN
        await asyncio.sleep(5.5)
        fetch.answers[JWKS_URL] = jwks()
        await asyncio.sleep(1)

    assert caplog.messages[1:] == [f"issuer lab: its keys could not be fetched: {JWKS_URL}: status 500", message]


# --- remote keys: fetches that requests cause ---


@pytest.mark.parametrize("waited", [0, 301], ids=["start", "background"])
async def test_only_fetches_that_requests_cause_count_for_the_cooldown(
    fetch: FakeFetch, keys: Remote, waited: float
) -> None:
    await asyncio.sleep(waited)
    before = len(fetch.asked)
    assert keys.may_refresh()
    await keys.refresh()

    assert len(fetch.asked) == before + 1


@pytest.mark.parametrize("answer", [None, DOWN, RuntimeError("a defect")], ids=["good", "failed", "defect"])
async def test_a_flood_of_requests_fetches_once_in_10_seconds(fetch: FakeFetch, answer: Exception | None) -> None:
    keys = Remote(fetch)
    fetch.answers[JWKS_URL] = answer or fetch.answers[JWKS_URL]
    await asyncio.gather(*(keys.refresh() for _ in range(300)))
    await keys.refresh()
    assert (len(fetch.asked), keys.successes) == (1, [answer is None])
    await asyncio.sleep(9.9)
    assert not keys.may_refresh()
    await keys.refresh()
    assert len(fetch.asked) == 1
    await asyncio.sleep(0.2)
    await keys.refresh()
    assert len(fetch.asked) == 2


async def test_a_clock_that_is_set_back_does_not_prolong_the_cooldown(fetch: FakeFetch) -> None:
    now = NOW
    keys = RemoteKeys("lab", ISSUER, JWKS_URL, fetch, lambda: now)
    await keys.refresh()
    now -= 3600

    assert keys.may_refresh()


# --- remote keys: keys that come and go ---


@pytest.mark.parametrize("copies", [[], [{}], [{"x": "another"}]], ids=["once", "twice", "twice with another member"])
@pytest.mark.parametrize("kid", ["other", "rsa"], ids=["another key", "another key with its kid"])
async def test_a_key_that_leaves_the_set_retires(
    fetch: FakeFetch, signer: SigningKey, other_signer: SigningKey, copies: list[dict[str, str]], kid: str
) -> None:
    fetch.answers[JWKS_URL] = jwks(signer, *(signer.jwk() | members for members in copies))
    async with running(fetch) as keys:
        key = one(keys, signer.kid)
        assert (len(keys), key.retired) == (1, False)
        fetch.answers[JWKS_URL] = jwks(other_signer.jwk(kid=kid))
        await keys.refresh()

        assert key.retired
        assert key.identity not in tried(keys, signer.kid)


async def test_a_key_that_stays_is_the_same_object_and_only_a_change_is_logged(
    fetch: FakeFetch, signer: SigningKey, other_signer: SigningKey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running(fetch) as keys:
        key = one(keys, signer.kid)
        fetch.answers[JWKS_URL] = jwks(other_signer, signer)
        await keys.refresh()
        await asyncio.sleep(3600)

        assert one(keys, signer.kid) is key
        assert not key.retired
        assert tried(keys, other_signer.kid)
    assert caplog.messages == [f"issuer lab: {count} keys in force, 0 retired" for count in (1, 2)]


# --- where the keys are ---

OPENID = ISSUER + "/.well-known/openid-configuration"
RFC_8414 = ISSUER + "/.well-known/oauth-authorization-server"


def metadata(**changes: Any) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": JWKS_URL} | changes).encode()


@pytest.mark.parametrize(
    ("path", "urls"),
    [
        pytest.param("", [OPENID], id="OpenID first"),
        pytest.param("", [OPENID, RFC_8414], id="else RFC 8414"),
        pytest.param("/", [OPENID], id="a final slash is not doubled"),
        pytest.param("/realms/a", [f"{ISSUER}/realms/a/.well-known/openid-configuration", f"{RFC_8414}/realms/a"],
                     id="RFC 8414 puts the well-known part before the path"),
    ],
)  # fmt: skip
async def test_discovery_asks_for_the_documents_of_both_standards(path: str, urls: list[str]) -> None:
    fetch = FakeFetch({urls[-1]: metadata(issuer=ISSUER + path)})

    assert await discover(fetch, ISSUER + path) == JWKS_URL
    assert fetch.asked == urls


OTHER = "it names the issuer '{}', the configuration '" + ISSUER + "'"
NOT_HTTPS = "it was fetched over https and names a jwks_uri that is not https"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (metadata(issuer="https://a.example"), OTHER.format("https://a.example")),
        (metadata(issuer=ISSUER + "/"), OTHER.format(ISSUER + "/") + ", which differs in the final slash"),
        (metadata(issuer=None), "it names no issuer"),
        (metadata(jwks_uri=None), "it names no jwks_uri"),
        (metadata(jwks_uri=["https://a.example"]), "it names no jwks_uri"),
        (metadata(jwks_uri="http://issuer.example/keys"), "must be https (http only on loopback)"),
        (metadata(jwks_uri="file:///etc/passwd"), "must be an absolute https URL"),
        (metadata(jwks_uri="http://127.0.0.1/keys"), NOT_HTTPS),
        (metadata(jwks_uri="HTTP://localhost/keys"), NOT_HTTPS),
        (b"<html>", "Expecting value: line 1 column 1 (char 0)"),
        (b"[]", "not an object"),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)  # fmt: skip
async def test_a_discovery_document_that_cannot_be_trusted_is_refused(document: bytes, message: str) -> None:
    with pytest.raises(FetchError) as caught:
        await discover(FakeFetch({OPENID: document, RFC_8414: document}), ISSUER)

    assert str(caught.value) == f"discovery failed: {OPENID}: {message}; {RFC_8414}: {message}"


@pytest.mark.parametrize("url", ["http://127.0.0.1/keys", "HTTP://localhost/keys"])
async def test_a_discovery_document_from_loopback_may_name_keys_over_http(url: str) -> None:
    local = "http://127.0.0.1:8000"
    fetch = FakeFetch({f"{local}/.well-known/openid-configuration": metadata(issuer=local, jwks_uri=url)})

    assert await discover(fetch, local) == url

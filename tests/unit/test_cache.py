"""Verified tokens, kept for a while."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from tests.unit.support import NOW, Clock, make_principal, make_token
from verifier.reasons import Reason, Rejected
from verifier.identity import VerifiedToken
from verifier.keys.jwk import Key
from verifier.tokens.cache import MAX_REFUSED, PART, CachedVerifier, digest_of


class Verifier:
    """Verifies any token but ``bad``, and counts."""

    def __init__(self, clock: Clock, exp: float = NOW + 3600) -> None:
        self.asked: list[bytes] = []
        self.clock = clock
        self.exp = exp
        self.principal = make_principal()

    async def verify(self, token: bytes) -> VerifiedToken:
        self.asked.append(token)
        if token == b"bad":
            raise Rejected(Reason.BAD_SIGNATURE, "no")
        return make_token(self.principal, exp=self.exp, checked_at=self.clock(), jti=token.decode())


def make_cache(clock: Clock, *, size: int = 10, ttl: float = 300, exp: float = NOW + 3600) -> CachedVerifier:
    return CachedVerifier(Verifier(clock, exp), size=size, ttl=ttl, clock=clock)


def test_an_unknown_token_is_a_miss(clock: Clock) -> None:
    cache = make_cache(clock)

    assert cache.get(digest_of(b"a")) is None
    assert (cache.hits, cache.misses) == (0, 1)


def test_a_token_that_begins_again_because_it_has_to_wait_is_one_miss(clock: Clock) -> None:
    class Waiting(Verifier):
        async def verify(self, token: bytes) -> VerifiedToken:
            await asyncio.sleep(0)
            return await super().verify(token)

    cache = CachedVerifier(Waiting(clock), size=10, ttl=300, clock=clock)
    for ends in (False, True):
        assert cache.get(digest_of(b"a")) is None
        verifying = cache.verify(b"a", digest_of(b"a"))
        verifying.send(None)
        if not ends:
            verifying.close()
    with pytest.raises(StopIteration):
        verifying.send(None)

    assert cache.misses == 1


async def test_a_verified_token_is_a_hit(clock: Clock) -> None:
    cache = make_cache(clock)
    verified = await cache.verify(b"a", digest_of(b"a"))

    assert cache.get(digest_of(b"a")) == verified
    assert (cache.hits, cache.misses, len(cache)) == (1, 0, 1)


async def test_a_token_that_differs_in_one_byte_is_a_miss(clock: Clock) -> None:
    cache = make_cache(clock)
    await cache.verify(b"a", digest_of(b"a"))

    assert cache.get(digest_of(b"b")) is None


@pytest.mark.parametrize("leeway_seconds", [0, 0.001, 5])
async def test_a_token_is_never_a_hit_from_exp_on(clock: Clock, leeway_seconds: float) -> None:
    cache = make_cache(clock, exp=NOW + 60)
    await cache.verify(b"a", digest_of(b"a"))
    clock.now = NOW + 60 + leeway_seconds

    assert cache.get(digest_of(b"a")) is None


async def test_a_token_is_a_hit_until_exp(clock: Clock) -> None:
    cache = make_cache(clock, exp=NOW + 60)
    await cache.verify(b"a", digest_of(b"a"))
    clock.now = NOW + 59.9

    assert cache.get(digest_of(b"a")) is not None


async def test_a_token_is_verified_anew_after_the_ttl(clock: Clock) -> None:
    cache = make_cache(clock, ttl=300)
    await cache.verify(b"a", digest_of(b"a"))
    clock.now = NOW + 299.9
    assert cache.get(digest_of(b"a")) is not None
    clock.now = NOW + 300

    assert cache.get(digest_of(b"a")) is None


async def test_a_token_whose_key_has_left_is_forgotten(clock: Clock) -> None:
    cache = make_cache(clock)
    verified = await cache.verify(b"a", digest_of(b"a"))
    verified.principal.key.retired = True

    assert cache.get(digest_of(b"a")) is None


async def test_a_token_that_does_not_verify_is_not_kept(clock: Clock) -> None:
    cache = make_cache(clock)
    with pytest.raises(Rejected):
        await cache.verify(b"bad", digest_of(b"bad"))

    assert len(cache) == 0
    assert cache.get(digest_of(b"bad")) is None


async def test_no_more_than_size_tokens_are_kept(clock: Clock) -> None:
    cache = make_cache(clock, size=3)
    for number in range(100):
        await cache.verify(b"%d" % number, digest_of(b"%d" % number))

    assert len(cache) == 3


async def test_a_large_cache_grows_in_small_parts(clock: Clock) -> None:
    cache = make_cache(clock, size=5 * PART)
    for number in range(6 * PART):
        await cache.verify(b"%d" % number, digest_of(b"%d" % number))

    assert max(map(len, cache._parts)) <= PART
    assert 4.8 * PART < len(cache) <= 5 * PART


async def test_the_token_unused_for_longest_makes_room(clock: Clock) -> None:
    cache = make_cache(clock, size=2)
    await cache.verify(b"old", digest_of(b"old"))
    await cache.verify(b"new", digest_of(b"new"))
    cache.get(digest_of(b"old"))
    await cache.verify(b"third", digest_of(b"third"))

    assert cache.get(digest_of(b"old")) is not None
    assert cache.get(digest_of(b"new")) is None


@pytest.mark.parametrize(("size", "ttl"), [(0, 300), (10, 0)], ids=["size 0", "ttl 0"])
async def test_zero_turns_it_off(clock: Clock, size: int, ttl: float) -> None:
    cache = make_cache(clock, size=size, ttl=ttl)
    await cache.verify(b"a", digest_of(b"a"))

    assert cache.get(digest_of(b"a")) is None
    assert len(cache) == 0


async def test_clearing_forgets_every_token(clock: Clock) -> None:
    cache = make_cache(clock, size=3000)
    for number in range(2500):
        await cache.verify(b"%d" % number, digest_of(b"%d" % number))
    await cache.clear()

    assert len(cache) == 0


@pytest.mark.parametrize("jti", ["", "é☃", "\ud800", "x" * 10_000], ids=["none", "Unicode", "half a character", "long"])
async def test_a_kept_token_is_as_it_was_verified(clock: Clock, jti: str) -> None:
    token = make_token(jti=jti, exp=2.0**53, checked_at=NOW)
    cache = make_cache(clock)
    cache._verifier = Giver(token)
    await cache.verify(b"a", digest_of(b"a"))

    assert cache.get(digest_of(b"a")) == token


class Giver:
    """Verifies every token as the same one."""

    def __init__(self, token: VerifiedToken) -> None:
        self.token = token

    async def verify(self, _: bytes) -> VerifiedToken:
        return self.token


async def test_a_full_cache_is_nothing_that_a_garbage_collection_has_to_look_at(clock: Clock) -> None:
    cache = make_cache(clock, size=5000)
    gc.collect()
    before = len(gc.get_objects())
    for number in range(5000):
        await cache.verify(b"%d" % number, digest_of(b"%d" % number))
    gc.collect()

    assert len(cache) == 5000
    assert len(gc.get_objects()) - before < 100


async def test_a_principal_is_kept_as_long_as_one_of_its_tokens(clock: Clock) -> None:
    cache = make_cache(clock, size=2)
    (part,) = cache._parts
    for token in (b"a", b"b", b"a"):
        await cache.verify(token, digest_of(token))
    assert list(part._principals.values()) == [cache._verifier.principal]  # type: ignore[attr-defined]

    cache._verifier = Giver(make_token())
    for token in (b"c", b"d"):
        await cache.verify(token, digest_of(token))
    assert list(part._principals.values()) == [cache._verifier.token.principal]
    await cache.clear()
    assert not part._principals


# --- what was refused ---


class Refuser:
    """Refuses every token, and counts."""

    def __init__(self, **changes: Any) -> None:
        self.asked: list[bytes] = []
        self._changes = changes

    async def verify(self, token: bytes) -> VerifiedToken:
        self.asked.append(token)
        raise Rejected(Reason.BAD_SIGNATURE, "why", **self._changes)


async def refused(cache: CachedVerifier, token: bytes = b"a") -> Rejected:
    with pytest.raises(Rejected) as caught:
        await cache.verify(token, digest_of(token))
    return caught.value


KEY = Key("kid", "identity", {})


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        pytest.param({}, 1, id="by its form"),
        pytest.param({"issuer": "lab", "key": KEY}, 1, id="by its signature"),
        pytest.param({"issuer": "lab"}, 3, id="by its claims, times or keys"),
    ],
)
async def test_a_refusal_is_remembered_where_nothing_can_change_it(
    clock: Clock, changes: dict[str, Any], times: int
) -> None:
    refuser = Refuser(**changes)
    cache = CachedVerifier(refuser, size=10, ttl=300, clock=clock)
    told = [await refused(cache) for _ in range(3)]

    assert len(refuser.asked) == times
    assert {(one.reason, one.description, one.issuer, one.key) for one in told} == {
        (Reason.BAD_SIGNATURE, "why", changes.get("issuer", ""), changes.get("key"))
    }


async def test_a_refusal_is_not_remembered_for_another_token(clock: Clock) -> None:
    refuser = Refuser()
    cache = CachedVerifier(refuser, size=10, ttl=300, clock=clock)
    for token in (b"a", b"b", b"a"):
        await refused(cache, token)

    assert refuser.asked == [b"a", b"b"]


async def test_a_signature_is_checked_anew_once_its_key_has_left(clock: Clock) -> None:
    key = Key("kid", "identity", {})
    refuser = Refuser(issuer="lab", key=key)
    cache = CachedVerifier(refuser, size=10, ttl=300, clock=clock)
    await refused(cache)
    key.retired = True
    await refused(cache)

    assert len(refuser.asked) == 2


async def test_refusals_are_few_and_take_no_place_from_tokens(clock: Clock) -> None:
    cache = make_cache(clock)
    verified = await cache.verify(b"a", digest_of(b"a"))
    cache._verifier = Refuser()
    for number in range(2 * MAX_REFUSED):
        await refused(cache, b"%d" % number)

    assert cache.get(digest_of(b"a")) == verified
    assert (len(cache), len(cache._refused)) == (1, MAX_REFUSED)


async def test_without_a_cache_no_refusal_is_remembered(clock: Clock) -> None:
    refuser = Refuser()
    cache = CachedVerifier(refuser, size=0, ttl=300, clock=clock)
    for _ in range(2):
        await refused(cache)

    assert len(refuser.asked) == 2

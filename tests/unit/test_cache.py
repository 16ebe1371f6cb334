"""Verified tokens, kept for a while."""

from __future__ import annotations

import pytest

from tests.unit.support import NOW, Clock, make_token
from verifier.cache import CachedVerifier
from verifier.decision import Reason, Rejected
from verifier.identity import VerifiedToken


class Verifier:
    """Verifies any token but ``bad``, and counts."""

    def __init__(self, clock: Clock, exp: float = NOW + 3600) -> None:
        self.asked: list[bytes] = []
        self.clock = clock
        self.exp = exp

    async def verify(self, token: bytes) -> VerifiedToken:
        self.asked.append(token)
        if token == b"bad":
            raise Rejected(Reason.BAD_SIGNATURE, "no")
        return make_token(exp=self.exp, checked_at=self.clock())


def make_cache(clock: Clock, *, size: int = 10, ttl: float = 300, exp: float = NOW + 3600) -> CachedVerifier:
    return CachedVerifier(Verifier(clock, exp), size=size, ttl=ttl, clock=clock)


def test_an_unknown_token_is_a_miss(clock: Clock) -> None:
    cache = make_cache(clock)

    assert cache.get(b"a") is None
    assert (cache.hits, cache.misses) == (0, 1)


async def test_a_verified_token_is_a_hit(clock: Clock) -> None:
    cache = make_cache(clock)
    verified = await cache.verify(b"a")

    assert cache.get(b"a") is verified
    assert (cache.hits, cache.misses, len(cache)) == (1, 0, 1)


async def test_a_token_that_differs_in_one_byte_is_a_miss(clock: Clock) -> None:
    cache = make_cache(clock)
    await cache.verify(b"a")

    assert cache.get(b"b") is None


@pytest.mark.parametrize("leeway_seconds", [0, 0.001, 5])
async def test_a_token_is_never_a_hit_from_exp_on(clock: Clock, leeway_seconds: float) -> None:
    cache = make_cache(clock, exp=NOW + 60)
    await cache.verify(b"a")
    clock.now = NOW + 60 + leeway_seconds

    assert cache.get(b"a") is None


async def test_a_token_is_a_hit_until_exp(clock: Clock) -> None:
    cache = make_cache(clock, exp=NOW + 60)
    await cache.verify(b"a")
    clock.now = NOW + 59.9

    assert cache.get(b"a") is not None


async def test_a_token_is_verified_anew_after_the_ttl(clock: Clock) -> None:
    cache = make_cache(clock, ttl=300)
    await cache.verify(b"a")
    clock.now = NOW + 299.9
    assert cache.get(b"a") is not None
    clock.now = NOW + 300

    assert cache.get(b"a") is None


async def test_a_token_whose_key_has_left_is_forgotten(clock: Clock) -> None:
    cache = make_cache(clock)
    verified = await cache.verify(b"a")
    verified.key.retired = True

    assert cache.get(b"a") is None


async def test_a_token_that_does_not_verify_is_not_kept(clock: Clock) -> None:
    cache = make_cache(clock)
    with pytest.raises(Rejected):
        await cache.verify(b"bad")

    assert len(cache) == 0
    assert cache.get(b"bad") is None


async def test_no_more_than_size_tokens_are_kept(clock: Clock) -> None:
    cache = make_cache(clock, size=3)
    for number in range(100):
        await cache.verify(b"%d" % number)

    assert len(cache) == 3


async def test_the_token_unused_for_longest_makes_room(clock: Clock) -> None:
    cache = make_cache(clock, size=2)
    await cache.verify(b"old")
    await cache.verify(b"new")
    cache.get(b"old")
    await cache.verify(b"third")

    assert cache.get(b"old") is not None
    assert cache.get(b"new") is None


@pytest.mark.parametrize(("size", "ttl"), [(0, 300), (10, 0)], ids=["size 0", "ttl 0"])
async def test_zero_turns_it_off(clock: Clock, size: int, ttl: float) -> None:
    cache = make_cache(clock, size=size, ttl=ttl)
    await cache.verify(b"a")

    assert cache.get(b"a") is None
    assert len(cache) == 0


async def test_clearing_forgets_every_token(clock: Clock) -> None:
    cache = make_cache(clock, size=3000)
    for number in range(2500):
        await cache.verify(b"%d" % number)
    await cache.clear()

    assert len(cache) == 0

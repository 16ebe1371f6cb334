"""Verified tokens, kept for a while, and a few refusals."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.support import ABSENT, NOW, Clock, SigningKey, claims, make_issuer, make_principal, make_token
from verifier.identity import Principal, VerifiedToken
from verifier.reasons import Reason, Rejected
from verifier.tokens.cache import ENTRY_BYTES, MAX_REFUSALS, REFUSAL_TTL, CachedVerifier, memory_of
from verifier.tokens.verify import TokenVerifier


class Verifier:
    """Verifies any token, or refuses all for one reason; it remembers what it was asked."""

    def __init__(self, clock: Clock) -> None:
        self.asked: list[bytes] = []
        self.exp = NOW + 3600
        self.principal = make_principal()
        self.refusal: Rejected | None = None
        self._clock = clock

    def verify(self, token: bytes) -> VerifiedToken:
        self.asked.append(token)
        if self.refusal is not None:
            raise self.refusal
        return make_token(self.principal, exp=self.exp, checked_at=self._clock(), jti=token.decode())


@pytest.fixture
def verifier(clock: Clock) -> Verifier:
    return Verifier(clock)


MAX_IDENTITY_BYTES = 8000
EMPTY = len(make_principal("").header_lines)


def make_cache(verifier: Any, clock: Clock, *, size: int = 10, ttl: float = 300, **timer: Any) -> CachedVerifier:
    return CachedVerifier(verifier, size=size, ttl=ttl, clock=clock, max_identity_bytes=MAX_IDENTITY_BYTES, **timer)


def refused(cache: CachedVerifier, token: bytes = b"bad") -> Rejected:
    with pytest.raises(Rejected) as caught:
        cache.verify(token)
    return caught.value


# --- verified tokens ---


def test_a_token_is_verified_once_and_found_from_then_on(verifier: Verifier, clock: Clock) -> None:
    cache = make_cache(verifier, clock)
    first, second = cache.verify(b"a"), cache.verify(b"a")

    assert (first[1], second[1], first[0] is second[0]) == (False, True, True)
    assert (verifier.asked, len(cache)) == ([b"a"], 1)


def test_a_token_that_differs_in_one_byte_is_another(verifier: Verifier, clock: Clock) -> None:
    cache = make_cache(verifier, clock)
    cache.verify(b"a")

    assert cache.verify(b"b")[0].jti == "b"


@pytest.mark.parametrize(
    ("seconds", "exp", "found"),
    [
        pytest.param(59.9, 60, True, id="before exp"),
        pytest.param(60, 60, False, id="at exp"),
        pytest.param(65, 60, False, id="after exp, within leeway"),
        pytest.param(299.9, 3600, True, id="before the ttl's end"),
        pytest.param(300, 3600, False, id="at the ttl's end"),
    ],
)
def test_a_token_is_found_until_exp_and_no_longer_than_ttl(
    verifier: Verifier, clock: Clock, seconds: float, exp: float, found: bool
) -> None:
    verifier.exp = NOW + exp
    cache = make_cache(verifier, clock, ttl=300)
    cache.verify(b"a")
    clock.now = NOW + seconds

    assert cache.verify(b"a")[1] is found


def test_a_token_that_was_verified_again_is_found_for_another_ttl(verifier: Verifier, clock: Clock) -> None:
    cache = make_cache(verifier, clock, ttl=300)
    for clock.now in (NOW, NOW + 300):
        cache.verify(b"a")
    clock.now = NOW + 599

    assert (cache.verify(b"a")[1], len(cache)) == (True, 1)


def test_a_token_whose_key_was_retired_is_verified_again(verifier: Verifier, clock: Clock) -> None:
    cache = make_cache(verifier, clock)
    cache.verify(b"a")[0].key.retired = True

    assert cache.verify(b"a")[1] is False
    assert len(verifier.asked) == 2


def test_no_more_than_size_tokens_are_kept(verifier: Verifier, clock: Clock) -> None:
    cache = make_cache(verifier, clock, size=3)
    for number in range(100):
        cache.verify(b"%d" % number)

    assert len(cache) == 3


def test_the_token_unused_for_longest_makes_room(verifier: Verifier, clock: Clock) -> None:
    cache = make_cache(verifier, clock, size=2)
    for token in (b"old", b"new", b"old", b"third"):
        cache.verify(token)

    assert [cache.verify(token)[1] for token in (b"old", b"third", b"new")] == [True, True, False]


@pytest.mark.parametrize(("size", "ttl"), [(0, 300), (10, 0)], ids=["size 0", "ttl 0"])
def test_zero_turns_it_off(verifier: Verifier, clock: Clock, size: int, ttl: float) -> None:
    cache = make_cache(verifier, clock, size=size, ttl=ttl)
    cache.verify(b"a")
    assert (cache.verify(b"a")[1], len(cache)) == (False, 0)
    verifier.refusal = Rejected(Reason.BAD_SIGNATURE, "why")
    for _ in range(2):
        refused(cache)

    assert verifier.asked == [b"a", b"a", b"bad", b"bad"]


def large_principal(scopes: int) -> Principal:
    return make_principal(" ".join(f"scope-{number:094}" for number in range(scopes)))


@pytest.mark.parametrize("scopes", [25, 40])
def test_large_tokens_take_the_place_of_several(verifier: Verifier, clock: Clock, scopes: int) -> None:
    cache = make_cache(verifier, clock, size=100)
    for number in range(100):
        verifier.principal = large_principal(scopes)
        cache.verify(b"%d" % number)

    memory = memory_of(make_token(verifier.principal))
    assert memory > ENTRY_BYTES
    assert len(cache) == 100 * ENTRY_BYTES // memory


def test_a_token_that_is_larger_than_the_whole_cache_is_not_kept(verifier: Verifier, clock: Clock) -> None:
    cache = make_cache(verifier, clock, size=1)
    verifier.principal = large_principal(50)

    assert [cache.verify(b"a")[1] for _ in range(2)] == [False, False]
    assert len(cache) == 0


@pytest.mark.parametrize(
    ("principal", "found"),
    [
        pytest.param(make_principal(), True, id="listed"),
        pytest.param(make_principal(listed=False), False, id="not on the issuer's list"),
        pytest.param(make_principal("s" * (MAX_IDENTITY_BYTES - EMPTY)), True, id="headers at the limit"),
        pytest.param(make_principal("s" * (MAX_IDENTITY_BYTES - EMPTY + 1)), False, id="headers too large"),
    ],
)
def test_a_token_that_no_policy_can_allow_is_not_kept(
    verifier: Verifier, clock: Clock, principal: Principal, found: bool
) -> None:
    cache = make_cache(verifier, clock, size=100)
    verifier.principal = principal

    assert [cache.verify(b"a")[1] for _ in range(2)] == [False, found]
    assert len(cache) == int(found)


FIFTY = [f"https://api.example/scope-{number:02}" for number in range(50)]
SHAPES: dict[str, Callable[[int], dict[str, Any]]] = {
    "ordinary": lambda _: {},
    "no jti": lambda number: {"jti": ABSENT, "number": number},
    "25 of 50 scopes": lambda number: {"scope": " ".join(random.Random(number).sample(FIFTY, 25))},
    "25 scopes of its own": lambda number: {"scope": " ".join(f"{number}-{one:030}" for one in range(25))},
    "long scopes": lambda number: {"scope": " ".join(f"{number}-{one:0200}" for one in range(10))},
    "short scopes": lambda number: {"scope": " ".join(f"{number:x}{one:x}" for one in range(500))},
    "long jti": lambda number: {"jti": f"{number}" + "x" * 3000},
    "wide jti": lambda number: {"jti": f"{number}" + "\N{SNOWMAN}" * 1500},
    "mapped claims": lambda number: {"tenant": f"{number}" + "x" * 2000, "groups": [f"{number}"] * 300},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_full_cache_takes_no_more_memory_than_its_bound(clock: Clock, shape: str) -> None:
    signer = SigningKey(b"k" * 32, "HS256", "file")
    size = 200
    tokens = [signer.sign(claims(client_id=f"{n}", sub=f"{n}", **SHAPES[shape](n))).encode() for n in range(2 * size)]
    issuer = make_issuer([signer.public()], algorithms=frozenset({"HS256"}), scope_prefix="https://api.example/")
    verifier = TokenVerifier(
        [issuer],
        clock=clock,
        leeway=10,
        role_of=lambda *_: "arn:aws:iam::123456789012:role/etl",
        mapped_headers={"X-Tenant": "tenant", "X-Groups": "groups"},
    )
    cache = make_cache(verifier, clock, size=size)
    cache.verify(tokens[0])
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for token in tokens:
            cache.verify(token)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 10 <= len(cache) <= size
    assert after - before <= size * ENTRY_BYTES


# --- refusals ---

REMEMBERED = {Reason.MALFORMED_TOKEN, Reason.UNSUPPORTED_ALGORITHM, Reason.UNKNOWN_ISSUER, Reason.BAD_SIGNATURE}


@pytest.mark.parametrize("reason", Reason)
def test_refusals_that_only_the_bytes_decide_are_remembered(verifier: Verifier, clock: Clock, reason: Reason) -> None:
    verifier.refusal = Rejected(reason, "why", issuer="lab")
    cache = make_cache(verifier, clock)
    refusals = [refused(cache) for _ in range(3)]

    assert {(no.reason, no.description, no.issuer) for no in refusals} == {(reason, "why", "lab")}
    assert len(verifier.asked) == (1 if reason in REMEMBERED else 3)
    assert len(cache) == 0


def test_a_refusal_that_newer_keys_may_change_is_not_remembered(verifier: Verifier, clock: Clock) -> None:
    async def refresh() -> None:
        pass

    verifier.refusal = Rejected(Reason.BAD_SIGNATURE, "why", refresh=refresh)
    cache = make_cache(verifier, clock)

    assert [refused(cache).refresh for _ in range(2)] == [refresh, refresh]
    assert len(verifier.asked) == 2


def test_a_refusal_is_remembered_for_its_own_token_and_time(verifier: Verifier, clock: Clock) -> None:
    timer = Clock(0)
    verifier.refusal = Rejected(Reason.BAD_SIGNATURE, "why")
    cache = make_cache(verifier, clock, timer=timer)
    for timer.now, token in ((0, b"a"), (0, b"b"), (REFUSAL_TTL - 1, b"a"), (REFUSAL_TTL, b"a")):
        refused(cache, token)

    assert verifier.asked == [b"a", b"b", b"a"]


def test_refusals_are_few_and_take_no_place_from_tokens(verifier: Verifier, clock: Clock) -> None:
    cache = make_cache(verifier, clock, size=1, timer=Clock(0))
    cache.verify(b"good")
    verifier.refusal = Rejected(Reason.BAD_SIGNATURE, "why")
    for number in range(MAX_REFUSALS + 1):
        refused(cache, b"%d" % number)
    verifier.asked.clear()

    refused(cache, b"%d" % MAX_REFUSALS)
    refused(cache, b"0")
    assert verifier.asked == [b"0"]
    assert cache.verify(b"good")[1] is True

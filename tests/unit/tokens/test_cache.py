"""Verified tokens, kept for a while, and a few refusals."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.unit.support import (
    ABSENT,
    NOW,
    Clock,
    SigningKey,
    claims,
    make_issuer,
    make_principal,
    make_token,
    make_verifier,
    memory_taken,
    rejected,
)
from verifier.identity import Principal, VerifiedToken
from verifier.reasons import Reason, Rejected
from verifier.tokens.cache import ENTRY_BYTES, MAX_REFUSALS, REFUSAL_TTL, CachedVerifier, memory_of

MAX_IDENTITY_BYTES = 8000
MakeCache = Callable[..., CachedVerifier]


@dataclass
class Verifier:
    """Verifies any token, or refuses all for one reason; it remembers what it was asked."""

    clock: Clock
    asked: list[bytes] = field(default_factory=list)
    exp: float = NOW + 3600
    principal: Principal = field(default_factory=make_principal)
    refusal: Rejected | None = None

    def verify(self, token: bytes) -> VerifiedToken:
        self.asked.append(token)
        if self.refusal is not None:
            raise self.refusal
        return make_token(self.principal, exp=self.exp, checked_at=self.clock(), jti=token.decode())


@pytest.fixture
def verifier(clock: Clock) -> Verifier:
    return Verifier(clock)


@pytest.fixture
def make_cache(verifier: Verifier, clock: Clock) -> MakeCache:
    def make(**changes: Any) -> CachedVerifier:
        given: dict[str, Any] = {"verifier": verifier, "size": 10, "ttl": 300, "clock": clock}
        return CachedVerifier(**(given | changes), max_identity_bytes=MAX_IDENTITY_BYTES)

    return make


@pytest.fixture
def cache(make_cache: MakeCache) -> CachedVerifier:
    return make_cache()


def found(cache: CachedVerifier, *tokens: bytes) -> list[bool]:
    """Verify each: whether it was found in the cache."""
    return [cache.verify(token)[1] for token in tokens]


# --- verified tokens ---


def test_each_token_is_verified_once_and_found_from_then_on(verifier: Verifier, cache: CachedVerifier) -> None:
    first, second, other = cache.verify(b"a"), cache.verify(b"a"), cache.verify(b"b")

    assert (first[1], second[1], other[1]) == (False, True, False)
    assert (first[0] is second[0], other[0].jti) == (True, "b")
    assert (verifier.asked, len(cache)) == ([b"a", b"b"], 2)


@pytest.mark.parametrize(
    ("seconds", "exp", "is_found"),
    [
        pytest.param(59.9, 60, True, id="before exp"),
        pytest.param(60, 60, False, id="at exp"),
        pytest.param(65, 60, False, id="after exp, within leeway"),
        pytest.param(299.9, 3600, True, id="before the ttl's end"),
        pytest.param(300, 3600, False, id="at the ttl's end"),
    ],
)
def test_a_token_is_found_until_exp_and_no_longer_than_ttl(
    verifier: Verifier, cache: CachedVerifier, clock: Clock, seconds: float, exp: float, is_found: bool
) -> None:
    verifier.exp = NOW + exp
    cache.verify(b"a")
    clock.now = NOW + seconds

    assert found(cache, b"a") == [is_found]


def test_a_token_that_was_verified_again_is_found_for_another_ttl(cache: CachedVerifier, clock: Clock) -> None:
    for clock.now in (NOW, NOW + 300):
        cache.verify(b"a")
    clock.now = NOW + 599

    assert (found(cache, b"a"), len(cache)) == ([True], 1)


def test_a_token_whose_key_was_retired_is_verified_again(verifier: Verifier, cache: CachedVerifier) -> None:
    cache.verify(b"a")[0].key.retired = True

    assert found(cache, b"a") == [False]
    assert len(verifier.asked) == 2


def test_no_more_than_size_tokens_are_kept_the_last_used_ones(make_cache: MakeCache) -> None:
    cache = make_cache(size=2)
    found(cache, b"old", b"new", b"old", b"third")

    assert len(cache) == 2
    assert found(cache, b"old", b"third", b"new") == [True, True, False]


@pytest.mark.parametrize("off", [{"size": 0}, {"ttl": 0}], ids=str)
def test_zero_turns_it_off(verifier: Verifier, make_cache: MakeCache, off: dict[str, int]) -> None:
    cache = make_cache(**off)
    assert (found(cache, b"a", b"a"), len(cache)) == ([False, False], 0)
    verifier.refusal = Rejected(Reason.BAD_SIGNATURE, "why")
    for _ in range(2):
        rejected(cache.verify, b"bad")

    assert verifier.asked == [b"a", b"a", b"bad", b"bad"]


def large_principal(scopes: int) -> Principal:
    return make_principal(" ".join(f"scope-{number:094}" for number in range(scopes)))


@pytest.mark.parametrize("scopes", [25, 40])
def test_large_tokens_take_the_place_of_several(verifier: Verifier, make_cache: MakeCache, scopes: int) -> None:
    cache = make_cache(size=100)
    verifier.principal = large_principal(scopes)
    found(cache, *(b"%d" % number for number in range(100)))

    memory = memory_of(make_token(verifier.principal))
    assert memory > ENTRY_BYTES
    assert len(cache) == 100 * ENTRY_BYTES // memory


EMPTY = len(make_principal("").header_lines)


@pytest.mark.parametrize(
    ("principal", "size", "is_kept"),
    [
        pytest.param(make_principal(), 100, True, id="listed"),
        pytest.param(make_principal(listed=False), 100, False, id="not on the issuer's list"),
        pytest.param(make_principal("s" * (MAX_IDENTITY_BYTES - EMPTY)), 100, True, id="headers at the limit"),
        pytest.param(make_principal("s" * (MAX_IDENTITY_BYTES - EMPTY + 1)), 100, False, id="headers too large"),
        pytest.param(large_principal(50), 1, False, id="larger than the whole cache"),
    ],
)
def test_a_token_that_no_policy_can_allow_or_that_does_not_fit_is_not_kept(
    verifier: Verifier, make_cache: MakeCache, principal: Principal, size: int, is_kept: bool
) -> None:
    cache = make_cache(size=size)
    verifier.principal = principal

    assert (found(cache, b"a", b"a"), len(cache)) == ([False, is_kept], int(is_kept))


FIFTY = [f"https://api.example/scope-{number:02}" for number in range(50)]
SHAPES: dict[str, Callable[[int], dict[str, Any]]] = {
    "ordinary": lambda _: {},
    "no jti": lambda number: {"jti": ABSENT, "number": number},
    "25 of 50 scopes": lambda number: {"scope": " ".join(random.Random(number).sample(FIFTY, 25))},
    "25 scopes of its own": lambda number: {"scope": " ".join(f"{number}-{one:030}" for one in range(25))},
    "long scopes": lambda number: {"scope": " ".join(f"{number}-{one:0200}" for one in range(10))},
    "short scopes": lambda number: {"scope": " ".join(f"{number:x}{one:x}" for one in range(500))},
    "long jti": lambda number: {"jti": f"{number}" + "x" * 3000},
    "bound": lambda number: {"jti": "x" * 2700, "cnf": {"jkt": f"{number:042}0", "x5t#S256": f"{number:042}4"}},
    "wide jti": lambda number: {"jti": f"{number}" + "\N{SNOWMAN}" * 1500},
    "mapped claims": lambda number: {"tenant": f"{number}" + "x" * 2000, "groups": [f"{number}"] * 300},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_full_cache_takes_no_more_memory_than_its_bound(make_cache: MakeCache, shape: str) -> None:
    signer = SigningKey(b"k" * 32, "HS256", "file")
    size = 200
    tokens = [signer.sign(claims(client_id=f"{n}", sub=f"{n}", **SHAPES[shape](n))).encode() for n in range(2 * size)]
    issuer = make_issuer([signer.public()], algorithms=frozenset({"HS256"}), scope_prefix="https://api.example/")
    verifier = make_verifier(
        issuer,
        role_of=lambda *_: "arn:aws:iam::123456789012:role/etl",
        mapped_headers={"X-Tenant": "tenant", "X-Groups": "groups"},
    )
    cache = make_cache(verifier=verifier, size=size)
    cache.verify(tokens[0])

    assert memory_taken(lambda: found(cache, *tokens)) <= size * ENTRY_BYTES
    assert 10 <= len(cache) <= size


# --- refusals ---

REMEMBERED = {Reason.MALFORMED_TOKEN, Reason.UNSUPPORTED_ALGORITHM, Reason.UNKNOWN_ISSUER, Reason.BAD_SIGNATURE}


@pytest.mark.parametrize("reason", Reason)
def test_refusals_that_only_the_bytes_decide_are_remembered(
    verifier: Verifier, cache: CachedVerifier, reason: Reason
) -> None:
    verifier.refusal = Rejected(reason, "why", issuer="lab")
    refusals = [rejected(cache.verify, b"bad") for _ in range(3)]

    assert {(no.reason, no.description, no.issuer) for no in refusals} == {(reason, "why", "lab")}
    assert len(verifier.asked) == (1 if reason in REMEMBERED else 3)
    assert len(cache) == 0


def test_a_refusal_that_newer_keys_may_change_is_not_remembered(verifier: Verifier, cache: CachedVerifier) -> None:
    async def refresh() -> None:
        pass

    verifier.refusal = Rejected(Reason.BAD_SIGNATURE, "why", refresh=refresh)

    assert [rejected(cache.verify, b"bad").refresh for _ in range(2)] == [refresh, refresh]
    assert len(verifier.asked) == 2


def test_a_refusal_is_remembered_for_its_own_token_and_time(verifier: Verifier, make_cache: MakeCache) -> None:
    timer = Clock(0)
    verifier.refusal = Rejected(Reason.BAD_SIGNATURE, "why")
    cache = make_cache(timer=timer)
    for timer.now, token in ((0, b"a"), (0, b"b"), (REFUSAL_TTL - 1, b"a"), (REFUSAL_TTL, b"a")):
        rejected(cache.verify, token)

    assert verifier.asked == [b"a", b"b", b"a"]


def test_refusals_are_few_and_take_no_place_from_tokens(verifier: Verifier, make_cache: MakeCache) -> None:
    cache = make_cache(size=1, timer=Clock(0))
    cache.verify(b"good")
    verifier.refusal = Rejected(Reason.BAD_SIGNATURE, "why")
    for number in range(MAX_REFUSALS + 1):
        rejected(cache.verify, b"%d" % number)
    verifier.asked.clear()

    rejected(cache.verify, b"%d" % MAX_REFUSALS)
    rejected(cache.verify, b"0")
    assert verifier.asked == [b"0"]
    assert found(cache, b"good") == [True]

"""What strangers send takes a bounded share of time and memory.

Times are the thread's own, and the inputs are far larger than nginx passes on: what takes linear time takes
milliseconds, what takes quadratic time takes minutes.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from verifier.decision import Decision
from verifier.identity import Principal
from verifier.observe.audit import Audit
from verifier.observe.batch import Observation
from verifier.policy.clients import ClientIds
from verifier.policy.paths import AmbiguousPathError, PathPattern, parse_url
from verifier.policy.policies import MAX_REMEMBERED, Policies, Policy
from verifier.proxies import nginx
from verifier.reasons import Reason, Rejected
from verifier.request import AuthRequest, bearer_token
from verifier.tokens.jws import parse_compact

from .tokens import Token, b64, raw_claims, raw_header
from .world import MAIN, World, key_sets

LARGE = 200_000  # bytes; nginx passes 8 KB in one header
SECONDS = 3.0  # of the thread's time: a hundred times what linear work takes here


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An application of its own: these tests fill it."""
    small = {**MAIN, "cache": {"size": 100}}
    with World(small, tmp_path_factory.mktemp("exhaustion")) as made:
        yield made


def seconds(work: Callable[[], object]) -> float:
    """The thread's own seconds for some work, whether it ends well or in a refusal."""
    start = time.thread_time()
    with contextlib.suppress(Rejected, AmbiguousPathError):
        work()
    return time.thread_time() - start


def filled(*pieces: bytes) -> Iterator[bytes]:
    """Each piece, repeated until it is large."""
    return (piece * (LARGE // len(piece)) for piece in pieces)


PATTERNS = (
    "/**",
    "/**/a",
    "/**/a/**",
    "/**/a/**/b/**/c",
    "/**/*/**/*/**/x",
    "/a/**/**/**/b",
    "/**/a/*/b/**/a/*/c",
    "/*/*/**/*/*",
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_rule_with_several_double_stars_takes_linear_time(pattern: str) -> None:
    compiled = PathPattern(pattern)
    paths = [path.decode() for path in filled(b"/a", b"/a/b", b"/", b"/a/x/b", b"/aaaaaaaa", b"/a/b/c/d")]
    paths += ["/" + "a" * LARGE, "/a" * (LARGE // 2) + "/x"]
    assert seconds(lambda: [compiled.matches(path) for path in paths]) < SECONDS


def test_a_large_url_is_read_in_linear_time() -> None:
    pieces = (
        b"/..",
        b"/.",
        b"/",
        b"//",
        b"/a/..",
        b"%",
        b"%2f",
        b"%25",
        b"/%2e",
        b";",
        b"/..;",
        b"/a;b",
        b"\xc3\xa9",
        b"%c3%a9",
    )
    urls = [b"https://h/" + filler for filler in filled(*pieces)] + [
        b"https://" + filler + b"/" for filler in filled(b"a", b"[", b":", b".")
    ]
    assert seconds(lambda: [seconds(lambda url=url: parse_url(url)) for url in urls]) < SECONDS


def test_a_large_authorization_header_is_read_in_linear_time() -> None:
    fillers = filled(b" ", b"a", b"a ", b",", b".", b"a.", b"=", b"\t", b"Bearer ")
    requests = [AuthRequest("default", b"", b"Bearer " + filler, "GET", b"") for filler in fillers]
    assert seconds(lambda: [seconds(lambda it=it: bearer_token(it)) for it in requests]) < SECONDS


def test_a_large_token_is_refused_before_it_is_parsed() -> None:
    tokens = [b"." * LARGE, b"a" * LARGE, b64(b"{" * LARGE) + b"..", b"e30." + b64(b"[" * LARGE) + b".AA"]
    assert seconds(lambda: [seconds(lambda it=it: parse_compact(it)) for it in tokens]) < SECONDS / 100


def test_a_large_query_is_read_in_linear_time() -> None:
    policies = Policies({"default": Policy("default")}, ClientIds(("one",)))
    queries = filled(b"&", b"=", b",", b"%", b"%2c", b"scope=" + b"a," * 50 + b"a&")
    assert seconds(lambda: [seconds(lambda it=it: policies.find("default", it)) for it in queries]) < SECONDS


def test_a_large_audit_line_is_written_in_linear_time(tmp_path: Path) -> None:
    texts = [
        filler.decode()
        for filler in filled(b"eyJ", b"eyJa.", b"ew", b"ewaaaaaaaaaaaa.a.", b".eyaaaaaaaaaaa.", b"e", b"ey.")
    ]
    with (tmp_path / "audit").open("wb") as file:
        audit = Audit("all", descriptor=file.fileno())
        for text in texts:
            request = AuthRequest("default", b"", None, text, b"https://h/" + text.encode(), frozenset(), text, text)
            audit.observe([Observation(0.0, request, Decision(Reason.MISSING_TOKEN), 0.0)])
        start = time.process_time()
        audit.start()
        audit.stop()
        assert time.process_time() - start < SECONDS
    assert (tmp_path / "audit").read_bytes().count(b"\n") == len(texts)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'], ids=["lists", "objects", "both"])
@pytest.mark.parametrize("place", ["header", "claims"])
def test_nesting_of_any_depth_ends_in_a_decision(world: World, place: str, opening: bytes) -> None:
    closing = opening.translate(bytes.maketrans(b"[{", b"]}"), b'"a:')[::-1]
    for depth in (1, 50, 200, 450, 900, 990, 1000, 1010, 1500, 11_000 // (len(opening) + len(closing))):
        extra = b'"x": ' + opening * depth + b"1" + closing * depth
        token = Token("ed", **{place: (raw_header if place == "header" else raw_claims)("ed", extra)})  # type: ignore[arg-type]
        assert world.ask(token).reason in ("ok", "malformed_token" if place == "header" else "invalid_claims")


def test_a_token_of_brackets_alone_is_refused_quickly(world: World) -> None:
    tokens = [b64(b"[" * 12_000) + b"..", b"e30." + b64(b"[" * 12_000) + b".", b64(b'{"a":' * 2_400) + b".."]
    assert seconds(lambda: [world.ask(token) for token in tokens * 10]) < SECONDS


def test_unknown_kids_cause_one_fetch_however_many_ask(tmp_path: Path) -> None:
    with World(MAIN, tmp_path) as fresh:
        before = len(fresh.fetched)
        for place in range(300):
            assert fresh.ask(Token("es", header={"kid": f"unknown-{place}"})).reason == "unknown_key"
        fetched = [url for url in fresh.fetched[before:] if url in key_sets()]  # an issuer that is down is tried again
        assert len(fetched) == 1


def test_what_strangers_send_adds_no_series(world: World) -> None:
    def send(place: int) -> None:
        world.ask(None, path=f"/verify/policy-{place}")
        world.ask(Token("es", header={"kid": f"kid-{place}"}))
        world.ask(Token("es", claims={"iss": f"https://{place}.example"}, signature=lambda _: b""))
        world.ask(Token("es", claims={"client_id": f"client-{place}"}, signature=lambda _: bytes(64)))
        world.ask(Token("es"), path="/verify/paths", url=b"https://h%d/p%d" % (place, place), method=b"M%d" % place)

    send(0)
    before = world.exposition().count(b"\n")
    for place in range(1, 100):
        send(place)
    assert world.exposition().count(b"\n") == before


def test_refused_tokens_are_not_kept(world: World) -> None:
    before = cached(world)
    for place in range(50):
        world.ask(Token("es", claims={"jti": str(place)}, signature=lambda _: bytes(64)))
        world.ask(Token("ed", claims={"jti": str(place), "aud": "api://other"}))
        world.ask(Token("ed", claims={"jti": str(place), "exp": 1}))
    assert cached(world) == before


def cached(world: World) -> int:
    """How many tokens are kept, as /metrics tells."""
    line = next(
        line for line in world.exposition().splitlines() if line.startswith(b"m2m_verifier_token_cache_entries ")
    )
    return int(float(line.split()[1]))


@pytest.fixture(scope="module")
def crowded(world: World) -> World:
    """After 1,300 clients, each with scopes and claims of its own."""
    for place in range(1300):
        client = f"crowd-{place}"
        token = Token("internal", claims={"client_id": client, "sub": client, "scope": client, "custom:tenant": client})
        assert world.ask(token).status == 200
    return world


def test_no_more_than_a_thousand_clients_have_series_of_their_own(crowded: World) -> None:
    series = [
        line for line in crowded.exposition().splitlines() if line.startswith(b"m2m_verifier_client_decisions_total{")
    ]
    clients = {line.split(b'client_id="')[1].split(b'"')[0] for line in series}
    assert len(clients) <= 1001
    assert b"other" in clients


def test_no_more_tokens_are_kept_than_the_cache_holds(crowded: World) -> None:
    assert cached(crowded) <= 100


def test_no_more_principals_are_kept_than_tokens(crowded: World) -> None:
    gc.collect()
    ours = [it for it in gc.get_objects() if isinstance(it, Principal) and it.client_id.startswith("crowd-")]
    assert len(ours) <= 100


def remembered(world: World) -> int:
    """How many narrowed policies are kept."""
    return len(world.config.policies._narrowed)


def test_the_memory_of_narrowed_policies_is_bounded(world: World) -> None:
    for place in range(3000):
        world.ask(None, query=b"scope=s%d" % place)
    assert remembered(world) <= MAX_REMEMBERED


def test_refused_auth_urls_are_not_remembered(world: World) -> None:
    before = remembered(world)
    for place in range(100):
        world.ask(None, query=b"colour=%d" % place)
        world.ask(None, path=f"/verify/nope-{place}")
    assert remembered(world) == before


def test_an_audit_that_nobody_reads_keeps_a_bounded_number_of_lines() -> None:
    dropped: list[int] = []
    audit = Audit("all", on_drop=dropped.append)
    for _ in range(30_000):
        audit.observe([Observation(0.0, nginx.parse("default", b"", [], ""), Decision(Reason.MISSING_TOKEN), 0.0)])
    assert sum(dropped) >= 10_000

"""An unauthenticated client takes a bounded share of time and memory.

No test measures time. The inputs are far larger than nginx passes on: linear work on them takes milliseconds, and
quadratic work takes minutes, which pytest's timeout ends.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.support import audit_lines, observation
from verifier.decision import Decision
from verifier.identity import Principal
from verifier.policy.clients import ClientIds
from verifier.policy.paths import AmbiguousPathError, PathPattern, parse_url
from verifier.policy.policies import MAX_REMEMBERED, Policies, Policy
from verifier.reasons import Reason, Rejected
from verifier.request import AuthRequest, credentials
from verifier.tokens.jws import parse_compact

from .running_app import MAIN, RunningApp, key_sets
from .tokens import Token, b64, ordinary_claims, ordinary_header, with_member

LARGE = 200_000  # bytes; nginx passes 8 KB in one header


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """An application of its own: these tests fill it."""
    small = {**MAIN, "cache": {"size": 100}}
    with RunningApp(small, tmp_path_factory.mktemp("exhaustion")) as made:
        yield made


def filled(*pieces: bytes) -> list[bytes]:
    """Each piece, repeated until it is large."""
    return [piece * (LARGE // len(piece)) for piece in pieces]


def refused(work: Callable[[], object]) -> bool:
    """Whether some work ends in a refusal."""
    with contextlib.suppress(Rejected, AmbiguousPathError):
        work()
        return False
    return True


PATTERNS = """
    /** /**/a /**/a/** /**/a/**/b/**/c /**/*/**/*/**/x /a/**/**/**/b /**/a/*/b/**/a/*/c /*/*/**/*/*
"""


@pytest.mark.parametrize("pattern", PATTERNS.split())
def test_a_rule_with_several_double_stars_takes_linear_time(pattern: str) -> None:
    compiled = PathPattern(pattern)
    paths = filled(b"/a", b"/a/b", b"/", b"/a/x/b", b"/aaaaaaaa", b"/a/b/c/d")
    paths += [b"/" + b"a" * LARGE, b"/a" * (LARGE // 2) + b"/x"]
    matching = [path for path in paths if compiled.matches(path.decode())]
    assert (matching == paths) == (pattern == "/**")


def test_a_large_url_is_read_in_linear_time() -> None:
    pieces = b"/.. /. / // /a/.. % %2f %25 /%2e ; /..; /a;b \xc3\xa9 %c3%a9".split()
    urls = [b"https://h/" + filler for filler in filled(*pieces)]
    urls += [b"https://" + filler + b"/" for filler in filled(b"a", b"[", b":", b".")]
    assert sum(refused(lambda url=url: parse_url(url)) for url in urls) >= 8  # type: ignore[misc]


def test_a_large_authorization_header_is_read_in_linear_time() -> None:
    fillers = filled(b" ", b"a", b"a ", b",", b".", b"a.", b"=", b"\t", b"Bearer ")
    requests = [AuthRequest("default", b"", b"Bearer " + filler, "GET", b"") for filler in fillers]
    assert sum(len(credentials(request).token) > LARGE // 2 for request in requests) == len(requests) - 2


def test_a_large_token_is_refused_for_its_size_before_it_is_parsed() -> None:
    for token in (b"." * LARGE, b"a" * LARGE, b64(b"{" * LARGE) + b"..", b"e30." + b64(b"[" * LARGE) + b".AA"):
        with pytest.raises(Rejected, match="longer than 16 KiB"):
            parse_compact(token)


def test_a_large_query_is_read_in_linear_time() -> None:
    policies = Policies({"default": Policy("default")}, ClientIds(("one",)))
    queries = filled(b"&", b"=", b",", b"%", b"%2c", b"scope=" + b"a," * 50 + b"a&")
    assert all(refused(lambda query=query: policies.find("default", query)) for query in queries)  # type: ignore[misc]


def test_a_large_audit_line_is_written_in_linear_time(tmp_path: Path) -> None:
    pieces = filled(b"eyJ", b"eyJa.", b"eyJa%2E", b"ew", b"ewaaaaaaaaaaaa.a.", b".eyaaaaaaaaaaa.", b"e", b"ey.")
    requests = [
        AuthRequest("default", b"", None, text, b"https://h/" + text.encode(), frozenset(), text, text)
        for text in (piece.decode() for piece in pieces)
    ]
    decision = Decision(Reason.MISSING_TOKEN)
    lines = audit_lines(tmp_path, [[observation(0.0, request, decision, 0.0)] for request in requests])
    assert len(lines) == len(pieces)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'], ids=["lists", "objects", "both"])
def test_nesting_of_any_depth_gets_a_decision(app: RunningApp, opening: bytes) -> None:
    closing = opening.translate(bytes.maketrans(b"[{", b"]}"), b'"a:')[::-1]
    for depth in (1, 50, 200, 450, 900, 990, 1000, 1010, 1500, 11_000 // (len(opening) + len(closing))):
        member = b'"x": ' + opening * depth + b"1" + closing * depth
        in_header = app.ask(Token("ed", header=with_member(ordinary_header("ed"), member)))
        in_claims = app.ask(Token("ed", claims=with_member(ordinary_claims("ed"), member)))
        assert in_header.reason in ("ok", "malformed_token")
        assert in_claims.reason in ("ok", "invalid_claims")
    brackets = b64(opening * (12_000 // len(opening)))
    assert [app.ask(token).status for token in (brackets + b"..", b"e30." + brackets + b".")] == [401, 401]


def test_unknown_kids_cause_one_fetch_however_many_ask(tmp_path: Path) -> None:
    with RunningApp(MAIN, tmp_path) as fresh:
        before = len(fresh.fetched)
        for place in range(300):
            assert fresh.ask(Token("es", header={"kid": f"unknown-{place}"})).reason == "unknown_key"
        fetched = [url for url in fresh.fetched[before:] if url in key_sets()]  # an issuer that is down is tried again
        assert len(fetched) == 1


def cached(app: RunningApp) -> float:
    """How many tokens are in the cache, as /metrics says."""
    return app.samples("m2m_verifier_token_cache_entries")[0][1]


def refused_requests(place: int) -> list[tuple[str, Token | None, dict[str, Any]]]:
    """Reasons and requests, unlike those of another place."""
    target = {"path": "/verify/paths", "url": b"https://h%d/p%d" % (place, place), "method": b"M%d" % place}
    unlisted = f"repo:unlisted/{place}:ref:refs/heads/main"
    return [
        ("unknown_policy", None, {"path": f"/verify/policy-{place}"}),
        ("no_matching_rule", Token("ed"), target),
        ("unknown_key", Token("es", header={"kid": f"kid-{place}"}), {}),
        ("unknown_issuer", Token("es", claims={"iss": f"https://{place}.example"}, signature=lambda _: b""), {}),
        ("bad_signature", Token("es", claims={"client_id": f"a-{place}"}, signature=lambda _: bytes(64)), {}),
        ("wrong_audience", Token("ed", claims={"jti": str(place), "aud": "api://other"}), {}),
        ("expired", Token("ed", claims={"jti": str(place), "exp": 1}), {}),
        ("client_not_allowed", Token("github", claims={"sub": unlisted}), {}),  # not on its issuer's list
    ]


def test_refused_requests_leave_no_series_and_no_cached_token(app: RunningApp) -> None:
    left = []
    for place in range(100):
        for reason, token, request in refused_requests(place):
            assert app.ask(token, **request).reason == reason
        left.append((app.exposition().count(b"\n"), cached(app)))
    assert left == left[:1] * 100
    assert b"repo:unlisted" not in app.exposition()


def test_no_more_principals_are_kept_than_tokens(app: RunningApp) -> None:
    for place in range(300):
        client = f"crowd-{place}"
        token = Token("internal", claims={"client_id": client, "sub": client, "scope": client, "custom:tenant": client})
        assert app.ask(token).status == 200
    gc.collect()
    kept = [it for it in gc.get_objects() if isinstance(it, Principal) and it.client_id.startswith("crowd-")]
    assert len(kept) == cached(app) <= 100


def narrowed() -> set[str]:
    """The scopes of all narrowed policies that are kept."""
    gc.collect()
    policies = [it for it in gc.get_objects() if isinstance(it, Policy) and it.name == "default"]
    return {scope for policy in policies for needs in policy.needs for scope in needs if scope.startswith("kept-")}


def test_the_memory_of_narrowed_policies_is_bounded(app: RunningApp) -> None:
    for place in range(2 * MAX_REMEMBERED):
        app.ask(None, query=b"scope=kept-%d" % place)
    assert 0 < len(narrowed()) <= MAX_REMEMBERED


def test_refused_auth_urls_are_not_remembered(app: RunningApp) -> None:
    before = narrowed()
    for place in range(100):
        app.ask(None, query=b"scope=kept-refused&colour=%d" % place)
        app.ask(None, path=f"/verify/nope-{place}", query=b"scope=kept-unknown")
    assert narrowed() == before

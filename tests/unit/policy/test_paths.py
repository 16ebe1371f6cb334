"""Paths as nginx normalises them, ambiguous paths, and the patterns of rules."""

from __future__ import annotations

import pickle
import re

import pytest

from tests.unit.support import show
from verifier.policy.paths import MAX_PATH, MAX_SEGMENTS, AmbiguousPathError, PathPattern, normalise, parse_url

# --- normalisation ---

PLAIN = {
    "/": "/", "": "/", "/db/users": "/db/users", "/db/users/": "/db/users/", "/db/a-b_c.d~e": "/db/a-b_c.d~e",
    "/!$&'()*+,=:@": "/!$&'()*+,=:@", "/a.b/..c/d..": "/a.b/..c/d..", "/.well-known/x": "/.well-known/x",
    "/...": "/...", "/%64b": "/db", "/%44B": "/DB", "/a%20b": "/a b", "/a%3Fb": "/a?b", "/a%23b": "/a#b",
    "/100%25": "/100%", "/100%25x": "/100%x", "/caf%C3%A9": "/café", "/café": "/café", "/%2a": "/*", "/a+b": "/a+b",
}  # fmt: skip


@pytest.mark.parametrize(("raw", "path"), PLAIN.items(), ids=[raw or "empty" for raw in PLAIN])
def test_an_ordinary_path_is_decoded_once_and_has_no_other_reading(raw: str, path: str) -> None:
    assert normalise(raw.encode())[:2] == (path, ())


RESOLVED = {
    "/a/./b": ("/a/b", {"/a/./b"}), "/a/../b": ("/b", {"/a/../b"}), "/a/b/..": ("/a/", {"/a/b/.."}),
    "/a/.": ("/a/", {"/a/."}), "/.": ("/", {"/."}), "/a/..": ("/", {"/a/.."}),
    "/a/%2e%2e/b": ("/b", {"/a/../b"}), "/a/.%2E/b": ("/b", {"/a/../b"}),
    "/a//b": ("/a/b", {"/a//b"}), "/a///": ("/a/", {"/a///"}),
    "/a;x=1/b": ("/a;x=1/b", {"/a/b"}), "/a%3Bx/b": ("/a;x/b", {"/a/b"}), "/a/;x/b": ("/a/;x/b", {"/a//b", "/a/b"}),
    "/a;x//b": ("/a;x/b", {"/a;x//b", "/a//b", "/a/b"}), "/a;x/b%3By": ("/a;x/b;y", {"/a/b", "/a/b;y"}),
    "/a;x/%3By": ("/a;x/;y", {"/a/", "/a/;y"}),
}  # fmt: skip


@pytest.mark.parametrize("raw", RESOLVED)
def test_dots_are_resolved_slashes_merged_and_other_readings_kept(raw: str) -> None:
    target = normalise(raw.encode())

    assert (target.path, set(target.other_readings)) == RESOLVED[raw]


RARE: dict[str, set[str]] = {
    "/db": set(), "/a%20b/%C3%A9%7B%25": set(), "/%64b": {"/%64b"}, "/%64b/%20": {"/%64b/ "}, "/%40me": {"/%40me"},
    "/./%64b": {"/./%64b", "/%64b"}, "/a/%2e%2e/%64b": {"/a/../%64b", "/%64b"},
    "/a;x/%62;y": {"/a;x/%62;y", "/a/%62"}, "/a%3Fb": {"/a"}, "/a%23b/c": {"/a"}, "/a;x%3Fb": {"/a;x"},
    "/%61%3Fb": {"/%61?b", "/%61", "/a"},
}  # fmt: skip


@pytest.mark.parametrize("raw", RARE)
def test_escapes_that_some_parsers_leave_or_decode_too_early_are_rare_readings(raw: str) -> None:
    assert set(normalise(raw.encode()).rare_readings) == RARE[raw]


AMBIGUOUS: dict[str, list[bytes]] = {
    "an encoded slash or backslash": [b"/a%2fb", b"/a%2Fb", b"/a%5cb"],
    "a backslash": [rb"/a\b"],
    "a raw space": [b"/a b"],
    "a percent sign that encodes nothing": [b"/a%", b"/a%4", b"/a%zz"],
    "a control character": [b"/a%00", b"/a%0ab", b"/a\x1fb", b"/a%7f", b"/a%C2%85"],
    "not UTF-8": [b"/a%FF", b"/a\xff", b"/%c0%af", b"/%ed%a0%80"],
    "encoded twice": [b"/a%2541", b"/%252e%252e/b", b"/%25%32%66"],
    "a dot segment with parameters": [b"/a/..;/b", b"/a/..;x=1/b", b"/a/.;/b", b"/a/%2e%2e;/b", b"/a/..%3b/b"],
    "above the root": [b"/..", b"/../a", b"/a/../../b", b"/%2e%2e/a"],
    "an empty segment together with a dot": [b"/a//../b", b"/a/..//b", b"//./a"],
    "begins with //": [b"//x/admin", b"//u@h:80/admin", b"///x/admin", b"/;x/y/admin"],
    "path parameters together with a dot": [b"/admin;x/../foo", b"/a/./b;x", b"/a%3bx/%2e%2e/b"],
    "encoded and raw dot segments": [b"/a/../b/%2e", b"/a/%2e/../b"],
    "longer than": [b"/".ljust(MAX_PATH + 1, b"a"), b"/a" * (MAX_SEGMENTS + 1), b"/a" + b"/" * MAX_SEGMENTS],
}  # fmt: skip


@pytest.mark.parametrize(("why", "raw"), [(why, raw) for why, group in AMBIGUOUS.items() for raw in group], ids=show)
def test_a_path_that_two_parsers_could_read_differently_is_refused(why: str, raw: bytes) -> None:
    with pytest.raises(AmbiguousPathError, match=why):
        normalise(raw)


@pytest.mark.parametrize("raw", [b"/".ljust(MAX_PATH, b"a"), b"/a" * MAX_SEGMENTS], ids=["bytes", "segments"])
def test_a_path_as_long_as_the_limits_is_read(raw: bytes) -> None:
    assert normalise(raw).path == raw.decode()


# --- the URL around it ---


URLS = [
    "https://api.example/db", "http://api.example:8443/db", "http://api.example:65535/db", "https://10.0.0.1/db",
    "https://[::1]:8443/db", "https://API.example/db", "https://api_1.example/db", "https://api.example/db?x=/admin",
    "https://api.example/db?x=%2f&y=..", "https:///db",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_the_path_of_a_url_ends_at_its_query(url: str) -> None:
    assert parse_url(url.encode()).path == "/db"
    assert parse_url(url.replace("/db", "/").encode()).path == "/"


@pytest.mark.parametrize(
    "url",
    [
        "https://h?/db", "https://h#/db", "https://u@h/db", "https://a\\b/db", "https://:80/db", "https:////h/db",
        "https://h:99999999/db", "https://h:65536/db", "https://h:x/db", "https://h", "https://h?x", "https://h h/db",
        "https://[::1/db", "ftp://h/db", "/db", "", "https://é/db", "https://h%2f/db", "https://h/db#x",
        "https://h/db?x#y", "https://h/#/../admin",
    ],
)  # fmt: skip
def test_a_bad_authority_or_a_raw_hash_is_refused(url: str) -> None:
    with pytest.raises(AmbiguousPathError):
        parse_url(url.encode())


# --- patterns ---

# pattern: paths that match, paths that do not
PATTERNS = {
    "/": (["/"], ["/a"]),
    "/db": (["/db"], ["/db/", "/dbx", "/DB"]),
    "/db/": (["/db/"], ["/db"]),
    "/db/*": (["/db/a"], ["/db/", "/db", "/db/a/b", "/db/a/"]),
    "/*/x": (["/a/x"], ["/x"]),
    "/*": (["/a"], ["/"]),
    "/db/**": (["/db", "/db/", "/db/a", "/db/a/b/c"], ["/dbx", "/"]),
    "/**": (["/", "/a/b"], []),
    "/**/x": (["/x", "/a/b/x"], ["/a/bx"]),
    "/a/**/z": (["/a/z", "/a/b/c/z"], ["/a/b/z/c"]),
    "/a/**/b/**/c": (["/a/b/c", "/a/x/b/y/b/c"], ["/a/x/c"]),
    "/a/**/*": (["/a/b"], ["/a"]),
    "/a/*/**": (["/a/b/c"], ["/a"]),
    "/**/**/x": (["/x", "/a/x"], ["/"]),
    "/a/**/**": (["/a", "/a/b"], ["/b"]),
    "/a.b": (["/a.b"], ["/axb"]),
    "/a (b)+[c]": (["/a (b)+[c]"], []),
    "/a b": (["/a b"], []),
    "/café": (["/café"], []),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_star_is_one_segment_and_two_are_any_number(pattern: str) -> None:
    matching, other = PATTERNS[pattern]
    matches = PathPattern(pattern).matches

    assert ([*filter(matches, matching)], [*filter(matches, other)]) == (matching, [])


@pytest.mark.parametrize(
    "pattern",
    ["", "db", "*", "/a*", "/*a", "/a/***", "/a/**b", "/a%20b", "/a\\b", "/a/../b", "/a/./b", "/a//b", "//a", "/a\nb"],
    ids=ascii,
)
def test_a_pattern_that_could_not_mean_what_it_says_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        PathPattern(pattern)


HINTS = {
    "write * for a segment": ["/db/{id}", "/db/x{id}/y", "/db/:id", "/:id", "/db/<int:id>"],
    "no regular expression": ["/db/[a-z]+", "/db/[0-9]", "/db/[^/]+", "/db/(a|b)", r"/db/\d+"],
    "query": ["/a?b=1", "/a/?"],
}


@pytest.mark.parametrize(("hint", "pattern"), [(hint, pattern) for hint, group in HINTS.items() for pattern in group])
def test_the_syntax_of_another_router_is_refused_with_a_hint(hint: str, pattern: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        PathPattern(pattern)


def test_a_pattern_survives_pickling() -> None:
    """Workers receive the configuration from another process."""
    copy = pickle.loads(pickle.dumps(PathPattern("/db/**")))

    assert (copy.text, copy.matches("/db/a")) == ("/db/**", True)


def test_many_double_stars_do_not_backtrack_exponentially() -> None:
    assert not PathPattern("/**/a" * 12 + "/z").matches("/a" * 4000)

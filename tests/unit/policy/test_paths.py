"""Paths as nginx normalises them, ambiguous paths, and the patterns of rules."""

from __future__ import annotations

import pickle
import re

import pytest

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


@pytest.mark.parametrize(
    ("raw", "path", "others"),
    [
        ("/a/./b", "/a/b", {"/a/./b"}),
        ("/a/../b", "/b", {"/a/../b"}),
        ("/a/b/..", "/a/", {"/a/b/.."}),
        ("/a/.", "/a/", {"/a/."}),
        ("/.", "/", {"/."}),
        ("/a/..", "/", {"/a/.."}),
        ("/a/%2e%2e/b", "/b", {"/a/../b"}),
        ("/a/.%2E/b", "/b", {"/a/../b"}),
        ("/a//b", "/a/b", {"/a//b"}),
        ("/a///", "/a/", {"/a///"}),
        ("/a;x=1/b", "/a;x=1/b", {"/a/b"}),
        ("/a%3Bx/b", "/a;x/b", {"/a/b"}),
        ("/a/;x/b", "/a/;x/b", {"/a//b", "/a/b"}),
        ("/a;x//b", "/a;x/b", {"/a;x//b", "/a//b", "/a/b"}),
        ("/a;x/b%3By", "/a;x/b;y", {"/a/b", "/a/b;y"}),
        ("/a;x/%3By", "/a;x/;y", {"/a/", "/a/;y"}),
    ],
)
def test_dots_are_resolved_slashes_merged_and_other_readings_kept(raw: str, path: str, others: set[str]) -> None:
    target = normalise(raw.encode())

    assert (target.path, set(target.other_readings)) == (path, others)


@pytest.mark.parametrize(
    ("raw", "readings"),
    [
        ("/db", set()),
        ("/a%20b/%C3%A9%7B%25", set()),
        ("/%64b", {"/%64b"}),
        ("/%64b/%20", {"/%64b/ "}),
        ("/%40me", {"/%40me"}),
        ("/./%64b", {"/./%64b", "/%64b"}),
        ("/a/%2e%2e/%64b", {"/a/../%64b", "/%64b"}),
        ("/a;x/%62;y", {"/a;x/%62;y", "/a/%62"}),
        ("/a%3Fb", {"/a"}),
        ("/a%23b/c", {"/a"}),
        ("/a;x%3Fb", {"/a;x"}),
        ("/%61%3Fb", {"/%61?b", "/%61", "/a"}),
    ],
)
def test_escapes_that_some_parsers_leave_or_decode_too_early_are_rare_readings(raw: str, readings: set[str]) -> None:
    assert set(normalise(raw.encode()).rare_readings) == readings


AMBIGUOUS = {
    "encoded slash": b"/a%2fb",
    "encoded slash, upper case": b"/a%2Fb",
    "backslash": b"/a\\b",
    "encoded backslash": b"/a%5cb",
    "NUL": b"/a%00",
    "line break": b"/a%0ab",
    "raw control": b"/a\x1fb",
    "DEL": b"/a%7f",
    "C1 control": b"/a%C2%85",
    "encoded twice": b"/a%2541",
    "encoded dots twice": b"/%252e%252e/b",
    "encoded twice, in pieces": b"/%25%32%66",
    "dots with parameters": b"/a/..;/b",
    "dots with a named parameter": b"/a/..;x=1/b",
    "one dot with parameters": b"/a/.;/b",
    "encoded dots with parameters": b"/a/%2e%2e;/b",
    "dots with encoded parameters": b"/a/..%3b/b",
    "above the root": b"/..",
    "above the root and down": b"/../a",
    "above the root later": b"/a/../../b",
    "above the root, encoded": b"/%2e%2e/a",
    "not UTF-8": b"/a%FF",
    "not UTF-8, raw": b"/a\xff",
    "an overlong slash": b"/%c0%af",
    "a surrogate": b"/%ed%a0%80",
    "percent at the end": b"/a%",
    "percent with one digit": b"/a%4",
    "percent without digits": b"/a%zz",
    "empty segment and dots": b"/a//../b",
    "empty segment and a dot": b"//./a",
    "dots and an empty segment": b"/a/..//b",
    "an authority": b"//x/admin",
    "an authority with user and port": b"//u@h:80/admin",
    "three slashes": b"///x/admin",
    "an authority once parameters are cut off": b"/;x/y/admin",
    "parameters before a dot segment": b"/admin;x/../foo",
    "parameters after a dot segment": b"/a/./b;x",
    "encoded parameters and dots": b"/a%3bx/%2e%2e/b",
    "a raw dot segment before an encoded one": b"/a/../b/%2e",
    "an encoded dot segment before a raw one": b"/a/%2e/../b",
    "a raw space": b"/a b",
    "more bytes than the limit": b"/".ljust(MAX_PATH + 1, b"a"),
    "more segments than the limit": b"/a" * (MAX_SEGMENTS + 1),
    "more empty segments than the limit": b"/a" + b"/" * MAX_SEGMENTS,
}


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_path_that_two_parsers_could_read_differently_is_refused(raw: bytes) -> None:
    with pytest.raises(AmbiguousPathError):
        normalise(raw)


@pytest.mark.parametrize("raw", [b"/".ljust(MAX_PATH, b"a"), b"/a" * MAX_SEGMENTS], ids=["bytes", "segments"])
def test_a_path_as_long_as_the_limits_is_read(raw: bytes) -> None:
    assert normalise(raw).path == raw.decode()


# --- the URL around it ---


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://api.example/db", "/db"),
        ("http://api.example:8443/db", "/db"),
        ("http://api.example:65535/db", "/db"),
        ("https://10.0.0.1/db", "/db"),
        ("https://[::1]:8443/db", "/db"),
        ("https://API.example/db", "/db"),
        ("https://api_1.example/db", "/db"),
        ("https://api.example/db?x=/admin", "/db"),
        ("https://api.example/db?x=%2f&y=..", "/db"),
        ("https://api.example/?x", "/"),
        ("https://api.example/", "/"),
        ("https:///db", "/db"),
    ],
)
def test_the_path_of_a_url_ends_at_its_query(url: str, path: str) -> None:
    assert parse_url(url.encode()).path == path


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


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("/db/{id}", "is written * here"),
        ("/db/x{id}/y", "is written * here"),
        ("/db/:id", "is written * here"),
        ("/:id", "is written * here"),
        ("/db/<int:id>", "is written * here"),
        ("/db/[a-z]+", "no regular expression"),
        ("/db/[0-9]", "no regular expression"),
        ("/db/[^/]+", "no regular expression"),
        ("/db/(a|b)", "no regular expression"),
        (r"/db/\d+", "no regular expression"),
        ("/a?b=1", "query"),
        ("/a/?", "query"),
    ],
)
def test_the_syntax_of_another_router_is_refused_with_a_hint(pattern: str, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        PathPattern(pattern)


def test_a_pattern_survives_pickling() -> None:
    """Workers receive the configuration from another process."""
    copy = pickle.loads(pickle.dumps(PathPattern("/db/**")))

    assert (copy.text, copy.matches("/db/a")) == ("/db/**", True)


def test_many_double_stars_do_not_backtrack_exponentially() -> None:
    assert not PathPattern("/**/a" * 12 + "/z").matches("/a" * 4000)

"""Paths as nginx normalises them, ambiguous paths, and the patterns of rules."""

from __future__ import annotations

import pickle

import pytest

from verifier.policy.paths import AmbiguousPathError, PathPattern, Target, normalise, parse_url

# --- normalisation ---

PLAIN = {
    "/": "/", "": "/", "/db/users": "/db/users", "/db/users/": "/db/users/", "/db/a-b_c.d~e": "/db/a-b_c.d~e",
    "/!$&'()*+,=:@": "/!$&'()*+,=:@", "/a.b/..c/d..": "/a.b/..c/d..", "/.well-known/x": "/.well-known/x",
    "/...": "/...", "/%64b": "/db", "/%44B": "/DB", "/a%20b": "/a b", "/a%3Fb": "/a?b", "/a%23b": "/a#b",
    "/100%25": "/100%", "/100%25x": "/100%x", "/caf%C3%A9": "/café", "/café": "/café", "/%2a": "/*", "/a+b": "/a+b",
}  # fmt: skip


@pytest.mark.parametrize(("raw", "path"), PLAIN.items(), ids=[raw or "empty" for raw in PLAIN])
def test_an_ordinary_path_is_decoded_once_and_has_one_reading(raw: str, path: str) -> None:
    assert normalise(raw.encode()) == Target(path)


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
        ("//a", "/a", {"//a"}),
        ("/a///", "/a/", {"/a///"}),
        ("/a;x=1/b", "/a;x=1/b", {"/a/b"}),
        ("/a%3Bx/b", "/a;x/b", {"/a/b"}),
        ("/a/;x/b", "/a/;x/b", {"/a/b"}),
    ],
)
def test_dots_are_resolved_slashes_merged_and_other_readings_kept(raw: str, path: str, others: set[str]) -> None:
    target = normalise(raw.encode())

    assert (target.path, set(target.other_readings)) == (path, others)


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
}


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_path_that_two_parsers_could_read_differently_is_refused(raw: bytes) -> None:
    with pytest.raises(AmbiguousPathError):
        normalise(raw)


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
    ],
)
def test_the_path_of_a_url_ends_at_its_query(url: str, path: str) -> None:
    assert parse_url(url.encode()).path == path


@pytest.mark.parametrize(
    "url",
    [
        "https://h?/db", "https://h#/db", "https://u@h/db", "https://a\\b/db", "https:///db", "https://h:99999999/db",
        "https://h:65536/db", "https://h:x/db", "https://h", "https://h?x", "https://h h/db", "https://[::1/db",
        "ftp://h/db", "/db", "", "https://é/db", "https://h%2f/db", "https://h/db#x", "https://h/db?x#y",
        "https://h/#/../admin",
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


def test_a_pattern_survives_pickling() -> None:
    """Workers receive the configuration from another process."""
    copy = pickle.loads(pickle.dumps(PathPattern("/db/**")))

    assert (copy.text, copy.matches("/db/a")) == ("/db/**", True)


def test_many_double_stars_do_not_backtrack_exponentially() -> None:
    assert not PathPattern("/**/a" * 12 + "/z").matches("/a" * 4000)

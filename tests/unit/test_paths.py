"""What a path really is, by nginx's own rules, and what is refused because two parsers could disagree."""

from __future__ import annotations

import pytest

from verifier.policy.paths import AmbiguousPathError, PathPattern, Target, is_url, normalise, parse_url

# --- normalisation ---

PLAIN = [
    ("/", "/"),
    ("", "/"),
    ("/db/users", "/db/users"),
    ("/db/users/", "/db/users/"),
    ("/db/a-b_c.d~e", "/db/a-b_c.d~e"),
    ("/!$&'()*+,=:@", "/!$&'()*+,=:@"),
    ("/a.b/..c/d..", "/a.b/..c/d.."),
    ("/.well-known/x", "/.well-known/x"),
    ("/...", "/..."),
    ("/%64b", "/db"),
    ("/%44B", "/DB"),
    ("/a%20b", "/a b"),
    ("/a%3Fb", "/a?b"),
    ("/a%23b", "/a#b"),
    ("/100%25", "/100%"),
    ("/100%25x", "/100%x"),
    ("/caf%C3%A9", "/café"),
    ("/café", "/café"),
    ("/%2a", "/*"),
    ("/a+b", "/a+b"),
]


@pytest.mark.parametrize(("raw", "path"), PLAIN, ids=[raw or "empty" for raw, _ in PLAIN])
def test_an_ordinary_path_is_decoded_once_and_has_one_reading(raw: str, path: str) -> None:
    assert normalise(raw.encode()) == Target(path)


RESOLVED = [
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
]


@pytest.mark.parametrize(("raw", "path", "others"), RESOLVED, ids=[raw for raw, _, _ in RESOLVED])
def test_dots_are_resolved_and_slashes_merged_and_the_other_reading_is_told(
    raw: str, path: str, others: set[str]
) -> None:
    target = normalise(raw.encode())

    assert target.path == path
    assert set(target.other_readings) == others


REFUSED = [
    pytest.param(b"/a%2fb", id="encoded slash"),
    pytest.param(b"/a%2Fb", id="encoded slash, upper case"),
    pytest.param(b"/a\\b", id="backslash"),
    pytest.param(b"/a%5cb", id="encoded backslash"),
    pytest.param(b"/a%00", id="NUL"),
    pytest.param(b"/a%0ab", id="line break"),
    pytest.param(b"/a\x1fb", id="raw control"),
    pytest.param(b"/a%7f", id="DEL"),
    pytest.param(b"/a%C2%85", id="C1 control"),
    pytest.param(b"/a%2541", id="encoded twice"),
    pytest.param(b"/%252e%252e/b", id="encoded dots twice"),
    pytest.param(b"/%25%32%66", id="encoded twice, in pieces"),
    pytest.param(b"/a/..;/b", id="dots with parameters"),
    pytest.param(b"/a/..;x=1/b", id="dots with a named parameter"),
    pytest.param(b"/a/.;/b", id="one dot with parameters"),
    pytest.param(b"/a/%2e%2e;/b", id="encoded dots with parameters"),
    pytest.param(b"/a/..%3b/b", id="dots with encoded parameters"),
    pytest.param(b"/..", id="above the root"),
    pytest.param(b"/../a", id="above the root and down"),
    pytest.param(b"/a/../../b", id="above the root later"),
    pytest.param(b"/%2e%2e/a", id="above the root, encoded"),
    pytest.param(b"/a%FF", id="not UTF-8"),
    pytest.param(b"/a\xff", id="not UTF-8, raw"),
    pytest.param(b"/%c0%af", id="an overlong slash"),
    pytest.param(b"/%ed%a0%80", id="a surrogate"),
    pytest.param(b"/a%", id="percent at the end"),
    pytest.param(b"/a%4", id="percent with one digit"),
    pytest.param(b"/a%zz", id="percent without digits"),
    pytest.param(b"/a//../b", id="empty segment and dots"),
    pytest.param(b"//./a", id="empty segment and a dot"),
    pytest.param(b"/a/..//b", id="dots and an empty segment"),
]


@pytest.mark.parametrize("raw", REFUSED)
def test_what_two_parsers_could_read_differently_is_refused(raw: bytes) -> None:
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
        "https://h?/db", "https://h#/db", "https://u@h/db", "https://a\\b/db", "https:///db", "https://h:99999999/db", "https://h:65536/db",
        "https://h:x/db", "https://h", "https://h?x", "https://h h/db", "https://[::1/db", "ftp://h/db", "/db", "",
        "https://é/db", "https://h%2f/db", "https://h/db#x", "https://h/db?x#y", "https://h/#/../admin",
    ],
)  # fmt: skip
def test_a_bad_authority_or_a_raw_hash_is_refused(url: str) -> None:
    with pytest.raises(AmbiguousPathError):
        parse_url(url.encode())


@pytest.mark.parametrize(("url", "absolute"), [("https://h/", True), ("http://", True), ("/db", False), ("", False)])
def test_a_url_is_absolute(url: str, absolute: bool) -> None:
    assert is_url(url.encode()) is absolute


# --- patterns ---

MATCHES = [
    ("/", "/", True),
    ("/", "/a", False),
    ("/db", "/db", True),
    ("/db", "/db/", False),
    ("/db", "/dbx", False),
    ("/db", "/DB", False),
    ("/db/", "/db/", True),
    ("/db/", "/db", False),
    ("/db/*", "/db/a", True),
    ("/db/*", "/db/", False),
    ("/db/*", "/db", False),
    ("/db/*", "/db/a/b", False),
    ("/db/*", "/db/a/", False),
    ("/*/x", "/a/x", True),
    ("/*/x", "/x", False),
    ("/*", "/", False),
    ("/db/**", "/db", True),
    ("/db/**", "/db/", True),
    ("/db/**", "/db/a", True),
    ("/db/**", "/db/a/b/c", True),
    ("/db/**", "/dbx", False),
    ("/db/**", "/", False),
    ("/**", "/", True),
    ("/**", "/a/b", True),
    ("/**/x", "/x", True),
    ("/**/x", "/a/b/x", True),
    ("/**/x", "/a/bx", False),
    ("/a/**/z", "/a/z", True),
    ("/a/**/z", "/a/b/c/z", True),
    ("/a/**/z", "/a/b/z/c", False),
    ("/a/**/b/**/c", "/a/b/c", True),
    ("/a/**/b/**/c", "/a/x/b/y/b/c", True),
    ("/a/**/b/**/c", "/a/x/c", False),
    ("/a/**/*", "/a/b", True),
    ("/a/**/*", "/a", False),
    ("/a/*/**", "/a/b/c", True),
    ("/a/*/**", "/a", False),
    ("/a.b", "/a.b", True),
    ("/a.b", "/axb", False),
    ("/a (b)+[c]", "/a (b)+[c]", True),
    ("/a b", "/a b", True),
    ("/café", "/café", True),
]


@pytest.mark.parametrize(("pattern", "path", "matches"), MATCHES, ids=[f"{p} {t}" for p, t, _ in MATCHES])
def test_a_star_is_one_segment_and_two_are_any_number(pattern: str, path: str, matches: bool) -> None:
    assert PathPattern(pattern).matches(path) is matches


@pytest.mark.parametrize(
    "pattern",
    ["", "db", "*", "/a*", "/*a", "/a/***", "/a/**b", "/a%20b", "/a\\b", "/a/../b", "/a/./b", "/a//b", "//a", "/a\nb"],
    ids=ascii,
)
def test_a_pattern_that_could_not_mean_what_it_says_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        PathPattern(pattern)


def test_a_pattern_survives_pickling() -> None:
    """The configuration is read by a process of its own."""
    import pickle

    copy = pickle.loads(pickle.dumps(PathPattern("/db/**")))

    assert copy.text == "/db/**"
    assert copy.matches("/db/a")


def test_many_double_stars_match_a_long_path_in_no_time() -> None:
    pattern = PathPattern("/**/a" * 12 + "/z")

    assert not pattern.matches("/a" * 4000)

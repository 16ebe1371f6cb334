"""The path says which dialect a request is in."""

from __future__ import annotations

import pytest

from verifier.proxies.routes import auth_request, plain_auth_request

# A method and a URL in each family of headers: whose it is shows which one was read.
PAIRS = [
    (b"host", b"host"),
    *[(b"x-original-method", b"ORIGINAL"), (b"x-original-url", b"http://original/")],
    *[(b"x-forwarded-" + name, value) for name, value in
      [(b"method", b"FORWARDED"), (b"proto", b"http"), (b"host", b"forwarded"), (b"uri", b"/")]],
]  # fmt: skip
PAIRS += [(b"method", b"FABRIC"), (b"path", b"/")]
NGINX = ("ORIGINAL", b"http://original/")
FORWARD_AUTH = ("FORWARDED", b"http://forwarded/")
FABRIC = ("FABRIC", b"https://host/")


@pytest.mark.parametrize(
    ("url", "policy", "query", "original"),
    [
        (b"/verify", "default", b"", NGINX), (b"/verify/api?scope=read", "api", b"scope=read", NGINX),
        (b"/verify?a?b=%2f", "default", b"a?b=%2f", NGINX), (b"/verify?" + b"a" * 1016, "default", b"a" * 1016, NGINX),
        (b"/verify/", "", b"", NGINX), (b"/verify/a/b", "a/b", b"", NGINX),
        (b"/forward-auth", "default", b"", FORWARD_AUTH), (b"/forward-auth/", "", b"", FORWARD_AUTH),
        (b"/forward-auth/a/b?client=x", "a/b", b"client=x", FORWARD_AUTH),
        (b"/gateway-fabric", "default", b"", FABRIC), (b"/gateway-fabric/", "", b"", FABRIC),
        (b"/gateway-fabric/api?issuer=x", "api", b"issuer=x", FABRIC),
        (b"/ext-authz/api/x?scope=a", "api", b"", ("GET", b"https://host/x?scope=a")),
        (b"/ext-authz/api/" + b"a" * 2000, "api", b"", ("GET", b"https://host/" + b"a" * 2000)),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_the_path_names_the_dialect_and_the_policy(
    url: bytes, policy: str, query: bytes, original: tuple[str, bytes]
) -> None:
    plain = plain_auth_request(b"GET", url, PAIRS, "")
    raw_path, _, raw_query = url.partition(b"?")

    assert plain is not None
    assert (plain.policy, plain.query, (plain.method, plain.url)) == (policy, query, original)
    assert auth_request("GET", raw_path.decode(), raw_path, raw_query, PAIRS, "") == plain


@pytest.mark.parametrize(
    "path", ["", "/", "/health", "/verifyx", "/VERIFY", "/x/verify", "/forward-authx", "/gateway", "/ext-authzx/api"]
)
def test_any_other_path_is_no_auth_path(path: str) -> None:
    assert auth_request("GET", path, path.encode(), b"", PAIRS, "") is None


@pytest.mark.parametrize(
    "url",
    [
        b"/verify/a%62", b"/verify#a", b"/verify/api?a#b", b"http://h/verify", b"/verify\xff", b"/health", b"*", b"",
        b"/verify?" + b"a" * 1017, b"/forward-auth/a%62", b"/ext-authz",
        b"http://h/ext-authz/api/x", b"/ext-authzx/api",
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_what_a_url_parser_has_to_read_is_not_plain(url: bytes) -> None:
    assert plain_auth_request(b"GET", url, PAIRS, "") is None


@pytest.mark.parametrize(
    ("url", "is_plain"), [(b"/verify", False), (b"/forward-auth", False), (b"/ext-authz/a/", True)]
)
def test_only_ext_authz_asks_with_other_methods(url: bytes, is_plain: bool) -> None:
    assert (plain_auth_request(b"POST", url, PAIRS, "") is not None) == is_plain


def test_an_encoded_prefix_of_ext_authz_is_no_auth_path() -> None:
    """Its path is never decoded; a prefix that is would leave open where the original path begins."""
    assert auth_request("GET", "/ext-authz/api/x", b"/ext%2Dauthz/api/x", b"", PAIRS, "") is None

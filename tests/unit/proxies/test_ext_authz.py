"""The request line of Envoy's auth request."""

from __future__ import annotations

import pytest

from verifier.proxies.ext_authz import parse


@pytest.mark.parametrize(
    ("target", "policy", "url"),
    [
        (b"api/a/../b?scope=%2f&x?y", "api", b"https://api.example/a/../b?scope=%2f&x?y"),
        (b"api/", "api", b"https://api.example/"),
        (b"api//x", "api", b"https://api.example//x"),
        (b"api/%2e%2E/a%2Fb;c", "api", b"https://api.example/%2e%2E/a%2Fb;c"),
        (b"api/http://other/x", "api", b"https://api.example/http://other/x"),
        (b"api/\xc3\xa9", "api", b"https://api.example/\xc3\xa9"),
        (b"a%2Fb/x", "a%2Fb", b"https://api.example/x"),
        (b"/x", "", b"https://api.example/x"),
        # Nothing, or no slash, where the original path should begin: it is not guessed.
        (b"api", "api", b""),
        (b"api?/x", "api", b""),
        (b"api*", "api*", b""),
        (b"apihttp:", "apihttp:", b""),
        (b"", "", b""),
    ],
)
def test_policy_and_path_are_taken_as_they_were_sent_and_the_query_narrows_nothing(
    target: bytes, policy: str, url: bytes
) -> None:
    request = parse("POST", b"/ext-authz/" + target, [(b"host", b"api.example")], "")

    assert (request.policy, request.url, request.query) == (policy, url, b"")


def test_without_headers_host_and_token_are_empty() -> None:
    request = parse("GET", b"/ext-authz/api/x", [], "")

    assert (request.url, request.authorization) == (b"https:///x", None)

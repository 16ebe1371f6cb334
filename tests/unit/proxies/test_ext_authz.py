"""The request line of Envoy's auth request, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from verifier.proxies.ext_authz import parse
from verifier.request import AuthRequest

ORDINARY = [(b"host", b"api.example"), (b"authorization", b"Bearer abc"), (b"x-request-id", b"id-1")]


def parsed(target: bytes, *further: tuple[bytes, bytes]) -> AuthRequest:
    return replace(parse("POST", target, [*ORDINARY, *further], "10.0.0.1"), headers=())


def test_an_auth_request_is_parsed_and_its_query_narrows_nothing() -> None:
    assert parsed(b"/ext-authz/api/a/../b?scope=%2f&x?y") == AuthRequest(
        "api", b"", b"Bearer abc", "POST", b"https://api.example/a/../b?scope=%2f&x?y",
        request_id="id-1", remote_addr="10.0.0.1", body_announced=False, method_override=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "policy", "url"),
    [
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
def test_policy_and_path_are_taken_as_they_were_sent(target: bytes, policy: str, url: bytes) -> None:
    request = parsed(b"/ext-authz/" + target)

    assert (request.policy, request.url) == (policy, url)


@pytest.mark.parametrize(
    "name",
    [b"x-original-url", b"x-original-method", b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host",
     b"x-forwarded-proto", b"x-forwarded-for", b"x-real-ip", b"x-envoy-original-path", b"x-m2m-role", b":path"],
)  # fmt: skip
def test_a_header_that_a_client_may_forge_changes_nothing(name: bytes) -> None:
    assert parsed(b"/ext-authz/api/x", (name, b"/forged")) == parsed(b"/ext-authz/api/x")


def test_without_headers_host_and_token_are_empty() -> None:
    request = parse("GET", b"/ext-authz/api/x", [], "")

    assert (request.url, request.authorization) == (b"https:///x", None)


@pytest.mark.parametrize("name", [b"host", b"authorization"])
def test_a_second_header_that_would_leave_open_which_counts_is_noticed(name: bytes) -> None:
    assert parsed(b"/ext-authz/api/x", (name, b"other")).repeated == {name.decode()}


@pytest.mark.parametrize(
    ("name", "value", "announced"),
    [(b"content-length", b"0", False), (b"content-length", b"5", True), (b"transfer-encoding", b"chunked", True)],
)
def test_only_a_length_of_zero_announces_no_body(name: bytes, value: bytes, announced: bool) -> None:
    assert parsed(b"/ext-authz/api/x", (name, value)).body_announced == announced

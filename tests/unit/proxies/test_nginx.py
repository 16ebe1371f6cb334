"""nginx's headers, and no others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from verifier.proxies.nginx import parse
from verifier.request import AuthRequest

ORDINARY = {
    "Authorization": "Bearer abc",
    "X-Original-Method": "POST",
    "X-Original-URL": "https://api.example/a/../b?x=%2f",
    "X-Request-ID": "id-1",
    "X-Real-IP": "192.0.2.1",
    "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}


def parsed(*headers: tuple[str, str]) -> AuthRequest:
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    request = parse("api", b"scope=read", pairs, "10.0.0.1")
    assert request.headers == pairs
    return replace(request, headers=())


def ordinary(*further: tuple[str, str]) -> AuthRequest:
    return parsed(*ORDINARY.items(), *further)


def test_a_subrequest_is_parsed() -> None:
    assert ordinary() == AuthRequest(
        "api", b"scope=read", b"Bearer abc", "POST", b"https://api.example/a/../b?x=%2f",
        request_id="id-1", remote_addr="192.0.2.1", body_announced=False, method_override=False,
        traceparent=b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )  # fmt: skip


def test_without_headers_everything_is_empty_and_the_peer_is_the_remote_address() -> None:
    assert parsed() == AuthRequest("api", b"scope=read", None, "", b"", remote_addr="10.0.0.1")


FORGED = [
    "X-Original-URI", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Host", "X-Forwarded-Proto", "X-M2M-Role",
    "X-M2M-Client-ID", "X-M2M-Policy", "Proxy-Authorization", "Host", "X-Forwarded-For", "Cookie", "Accept",
]  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_header_that_a_client_may_forge_changes_nothing_once_or_twice(name: str) -> None:
    assert ordinary((name, "Bearer /forged")) == ordinary((name, "a"), (name, "b")) == ordinary()


NOTICED: dict[str, tuple[list[str], Any]] = {
    "method_override": (["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"], True),
    "body_announced": (["Content-Length", "Transfer-Encoding"], True),
    "repeated": (["Authorization", "X-Original-URL", "X-Original-Method"], None),
}


@pytest.mark.parametrize("field", NOTICED)
def test_a_header_that_changes_the_meaning_is_noticed(field: str) -> None:
    names, value = NOTICED[field]
    for name in names:
        assert getattr(ordinary((name, "5")), field) == (value or {name.lower()})


def test_a_repeated_traceparent_names_no_trace_and_refuses_nothing() -> None:
    assert ordinary(("traceparent", ORDINARY["Traceparent"])) == replace(ordinary(), traceparent=b"")


def test_each_dpop_header_is_a_proof() -> None:
    assert ordinary(("DPoP", "a"), ("X-DPoP", "b"), ("dpop", "c")).proofs == (b"a", b"c")


def test_a_length_of_zero_is_not_what_nginx_sends_and_counts_as_a_body() -> None:
    assert ordinary(("Content-Length", "0")).body_announced


def test_bytes_beyond_ascii_are_read_without_an_error() -> None:
    request = parsed(("X-Original-Method", "GÉT"), ("X-Request-ID", "é"), ("X-Original-URL", "https://h/é"))

    assert (request.method, request.request_id, request.url) == ("GÉT", "é", b"https://h/\xe9")

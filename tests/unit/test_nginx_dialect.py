"""nginx's headers, and nobody else's."""

from __future__ import annotations

from typing import Any

import pytest

from verifier.proxies.nginx import parse
from verifier.request import AuthRequest


def scope(*headers: tuple[str, str], query: bytes = b"", client: Any = ("10.0.0.1", 1234)) -> dict[str, Any]:
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return {"headers": pairs, "query_string": query, "client": client}


ORDINARY = (
    ("Authorization", "Bearer abc"),
    ("X-Original-Method", "POST"),
    ("X-Original-URL", "https://api.example/a/../b?x=%2f"),
    ("X-Request-ID", "id-1"),
    ("X-Real-IP", "192.0.2.1"),
)


def test_a_subrequest_is_parsed() -> None:
    assert parse(scope(*ORDINARY, query=b"scope=read"), "api") == AuthRequest(
        policy="api",
        query=b"scope=read",
        authorization=b"Bearer abc",
        method="POST",
        url=b"https://api.example/a/../b?x=%2f",
        request_id="id-1",
        remote_addr="192.0.2.1",
    )


def test_without_headers_everything_is_empty() -> None:
    request = parse(scope(client=None), "default")

    assert (request.authorization, request.method, request.url, request.remote_addr) == (None, "", b"", "")


def test_without_x_real_ip_the_peer_counts() -> None:
    assert parse(scope(), "default").remote_addr == "10.0.0.1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Original-URI", "/forged"),
        ("X-Forwarded-Uri", "/forged"),
        ("X-Forwarded-Method", "TRACE"),
        ("X-Forwarded-Host", "forged.example"),
        ("X-Forwarded-Proto", "ftp"),
        ("X-M2M-Client-ID", "forged"),
        ("X-M2M-Role", "forged"),
        ("X-M2M-Policy", "forged"),
        ("Proxy-Authorization", "Bearer forged"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Host", "forged.example"),
    ],
)
def test_a_header_that_a_client_may_forge_changes_nothing(name: str, value: str) -> None:
    assert parse(scope(*ORDINARY, (name, value)), "api") == parse(scope(*ORDINARY), "api")


@pytest.mark.parametrize("name", ["Authorization", "X-Original-URL", "X-Original-Method"])
def test_a_second_header_of_those_that_decide_is_noticed(name: str) -> None:
    assert parse(scope(*ORDINARY, (name, "second")), "api").repeated == {name.lower()}


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Cookie", "X-Request-ID", "Accept"])
def test_a_second_header_of_any_other_is_not(name: str) -> None:
    assert parse(scope(*ORDINARY, (name, "a"), (name, "b")), "api").repeated == frozenset()


def test_bytes_beyond_ascii_are_read_without_an_error() -> None:
    request = parse(scope(("X-Original-Method", "GÉT"), ("X-Request-ID", "é"), ("X-Original-URL", "https://h/é")), "p")

    assert (request.method, request.request_id, request.url) == ("GÉT", "é", b"https://h/\xe9")


@pytest.mark.parametrize(("name", "value"), [("Content-Length", "5"), ("Transfer-Encoding", "chunked")])
def test_a_body_that_is_announced_is_noticed(name: str, value: str) -> None:
    assert parse(scope(*ORDINARY, (name, value)), "api").body_announced


def test_an_ordinary_subrequest_announces_no_body() -> None:
    assert not parse(scope(*ORDINARY), "api").body_announced

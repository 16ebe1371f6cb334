"""The headers of Traefik and Caddy, and no others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from verifier.proxies.forward_auth import parse
from verifier.request import AuthRequest

ORDINARY = {
    "Authorization": "Bearer abc",
    "X-Forwarded-Method": "POST",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "api.example",
    "X-Forwarded-Uri": "/a/../b?x=%2f",
    "X-Forwarded-For": "192.0.2.9, 192.0.2.1",
    "X-Request-ID": "id-1",
}


def parsed(**changes: str | None) -> AuthRequest:
    """An ordinary subrequest's, with ``changes``: None takes a header away."""
    headers = ORDINARY | {name.replace("_", "-"): value for name, value in changes.items()}
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items() if value is not None]
    return replace(parse("api", b"scope=read", pairs, "10.0.0.1"), headers=())


def with_second(name: str, value: str) -> AuthRequest:
    pairs = [(given.lower().encode(), own.encode()) for given, own in [*ORDINARY.items(), (name, value)]]
    return replace(parse("api", b"scope=read", pairs, "10.0.0.1"), headers=())


def test_a_subrequest_is_parsed_and_the_last_forwarded_address_is_the_proxys() -> None:
    assert parsed() == AuthRequest(
        "api", b"scope=read", b"Bearer abc", "POST", b"https://api.example/a/../b?x=%2f",
        request_id="id-1", remote_addr="192.0.2.1", body_announced=False, method_override=False,
    )  # fmt: skip


def test_without_headers_everything_is_empty_and_the_peer_is_the_remote_address() -> None:
    assert parse("api", b"", (), "10.0.0.1") == AuthRequest("api", b"", None, "", b"", remote_addr="10.0.0.1")


@pytest.mark.parametrize(
    "name",
    ["X-Original-URL", "X-Original-Method", "X-Original-URI", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Real-IP",
     "X-M2M-Role", "Forwarded", "Host", "Proxy-Authorization", "X-Forwarded_Uri"],
)  # fmt: skip
def test_a_header_that_a_client_may_forge_changes_nothing(name: str) -> None:
    assert with_second(name, "/forged") == parsed()


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({"X_Forwarded_Uri": None}, b""), ({"X_Forwarded_Uri": "*"}, b""), ({"X_Forwarded_Uri": "http://h/a"}, b""),
        ({"X_Forwarded_Uri": ""}, b""), ({"X_Forwarded_Proto": None}, b""), ({"X_Forwarded_Proto": "ftp"}, b""),
        ({"X_Forwarded_Proto": "https, http"}, b""), ({"X_Forwarded_Host": None}, b"https:///a/../b?x=%2f"),
        ({"X_Forwarded_Proto": "wss"}, b"https://api.example/a/../b?x=%2f"),
        ({"X_Forwarded_Proto": "ws"}, b"http://api.example/a/../b?x=%2f"),
    ],
)  # fmt: skip
def test_a_url_that_the_proxy_did_not_give_whole_is_not_guessed(changes: dict[str, Any], url: bytes) -> None:
    assert parsed(**changes).url == url


@pytest.mark.parametrize("name", [name for name in ORDINARY if name not in ("X-Forwarded-For", "X-Request-ID")])
def test_a_second_header_that_would_leave_open_which_counts_is_noticed(name: str) -> None:
    assert with_second(name, "x").repeated == {name.lower()}

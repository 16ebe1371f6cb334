"""The headers of NGINX Gateway Fabric, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from verifier.proxies.gateway_fabric import parse
from verifier.request import AuthRequest

ORDINARY = {
    "Host": "api.example", "Method": "POST", "Path": "/a/../b?x=%2f", "Authorization": "Bearer abc",
    "X-Request-ID": "id-1",
}  # fmt: skip


def parsed(*further: tuple[str, str], without: str = "") -> AuthRequest:
    given = [(name, value) for name, value in ORDINARY.items() if name != without]
    pairs = [(name.lower().encode(), value.encode()) for name, value in [*given, *further]]
    return replace(parse("api", b"scope=read", pairs, "10.0.0.1"), headers=())


def test_a_subrequest_is_parsed() -> None:
    assert parsed() == AuthRequest(
        "api", b"scope=read", b"Bearer abc", "POST", b"https://api.example/a/../b?x=%2f",
        request_id="id-1", remote_addr="10.0.0.1", body_announced=False, method_override=False,
    )  # fmt: skip


@pytest.mark.parametrize(("without", "method", "url"), [("Method", "", None), ("Path", "POST", b"")])
def test_what_the_proxy_did_not_give_is_not_guessed(without: str, method: str, url: bytes | None) -> None:
    request = parsed(without=without)

    assert (request.method, request.url) == (method, parsed().url if url is None else url)


@pytest.mark.parametrize("path", ["*", "http://h/a", ""])
def test_a_path_that_is_none_is_no_url(path: str) -> None:
    assert parsed(("Path", path), without="Path").url == b""


@pytest.mark.parametrize(
    "name", ["X-Original-URL", "X-Original-Method", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Real-IP", "X-M2M-Role"]
)
def test_a_header_that_a_client_may_forge_changes_nothing(name: str) -> None:
    assert parsed((name, "/forged")) == parsed()


@pytest.mark.parametrize("name", ["Host", "Method", "Path", "Authorization"])
def test_a_second_header_that_would_leave_open_which_counts_is_noticed(name: str) -> None:
    assert parsed((name, "x")).repeated == {name.lower()}

"""The URL that Traefik and Caddy name."""

from __future__ import annotations

import pytest

from tests.unit.proxies.test_fields import FORWARD_AUTH


@pytest.mark.parametrize(
    ("name", "value", "url"),
    [
        ("Uri", None, b""), ("Uri", "*", b""), ("Uri", "http://h/a", b""), ("Uri", "", b""),
        ("Proto", None, b""), ("Proto", "ftp", b""), ("Proto", "https, http", b""),
        ("Host", None, b"https:///a/../b?x=%2f"), ("Proto", "wss", b"https://api.example/a/../b?x=%2f"),
        ("Proto", "ws", b"http://api.example/a/../b?x=%2f"),
    ],
)  # fmt: skip
def test_a_url_that_the_proxy_did_not_give_whole_is_not_guessed(name: str, value: str | None, url: bytes) -> None:
    name = f"X-Forwarded-{name}"
    given = [] if value is None else [(name, value)]

    assert FORWARD_AUTH.read(*given, without=[name]).url == url

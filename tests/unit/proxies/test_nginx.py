"""nginx's headers."""

from __future__ import annotations

from tests.unit.proxies.test_fields import NGINX


def test_bytes_beyond_ascii_are_read_without_an_error() -> None:
    headers = {"X-Original-Method": "GÉT", "X-Request-ID": "é", "X-Original-URL": "https://h/é"}
    request = NGINX.read(*headers.items(), without=headers)

    assert (request.method, request.request_id, request.url) == ("GÉT", "é", b"https://h/\xe9")

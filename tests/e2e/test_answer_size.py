"""The size of whole answers, with all that the server adds: nginx's buffer has to hold them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.e2e.stage import PATIENCE, Serve, configuration, entry
from verifier.demo.issuer import Issuer

MAX_HEADER_BYTES = 3584


@pytest.fixture(scope="module")
def serve(lab: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    # The longest answers: they may be cached, for as long as a configuration can say.
    settings = configuration(entry(lab), max_header_bytes=MAX_HEADER_BYTES, nginx_cache_ttl=3600)
    with Serve(settings, tmp_path_factory.mktemp("size")) as running:
        yield running


def head_of_answer(serve: Serve, target: str, token: str) -> bytes:
    """Everything that the server sends before the body, on a connection that it closes."""
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", serve.port), PATIENCE) as connection:
        connection.sendall(request.encode())
        received = b""
        while data := connection.recv(65536):
            received += data
    head, end, _ = received.partition(b"\r\n\r\n")
    return head + end


@pytest.mark.parametrize("target", ["/verify", "/verif%79"], ids=["fast path", "Starlette"])
def test_the_largest_allowed_answer_fills_the_buffer_of_nginx_and_no_more(
    serve: Serve, lab: Issuer, target: str
) -> None:
    def head(scope_length: int) -> bytes:
        claims = lab.machine_claims("etl", [], lifetime=36_000) | {"scope": "s" * scope_length}
        return head_of_answer(serve, target, lab.mint(claims))

    room = MAX_HEADER_BYTES - len(head(0))
    largest, too_large = head(room), head(room + 1)

    assert largest.startswith(b"HTTP/1.1 200 ")
    assert b"max-age=3600" in largest
    assert len(largest) == MAX_HEADER_BYTES
    assert too_large.startswith(b"HTTP/1.1 403 ")
    assert b"headers_too_large" in too_large

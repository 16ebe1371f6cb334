"""A bounded https GET, against real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.unit.support import JumpingLoop
from verifier.keys.fetch import SIZE_LIMIT, TIME_LIMIT, Fetched, FetchError, HttpFetch, require_secure

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(script: Script) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that reads a request and runs ``script``; its URL, and the requests that it received."""
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            await script(writer)
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/keys", requests


def answer_with(head: str = "", body: bytes = b"{}", status: str = "200 OK") -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        fields = f"content-length: {len(body)}\r\n{head}connection: close\r\n\r\n"
        writer.write(f"HTTP/1.1 {status}\r\n{fields}".encode() + body)

    return script


async def never_answer(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def send_slowly(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
    for _ in range(100):
        await asyncio.sleep(TIME_LIMIT / 4)
        writer.write(b" ")
        await writer.drain()


async def send_endlessly(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


async def send_nonsense(writer: asyncio.StreamWriter) -> None:
    writer.write(b"nonsense\r\n\r\n")


async def _fetch(script: Script) -> tuple[Fetched, list[bytes]]:
    async with server(script) as (url, requests), HttpFetch() as fetch:
        return await fetch(url), requests


def fetch_from(script: Script) -> tuple[Fetched, list[bytes]]:
    with asyncio.Runner(loop_factory=lambda: JumpingLoop(grace=0.05)) as runner:
        return runner.run(_fetch(script))


@pytest.mark.parametrize("body", [b'{"keys": []}', b" " * SIZE_LIMIT], ids=["small", "512 KiB"])
def test_a_document_is_fetched_whole(body: bytes) -> None:
    assert fetch_from(answer_with(body=body))[0].body == body


@pytest.mark.parametrize(
    ("head", "seconds"),
    [
        ("", None),
        ("cache-control: max-age=600\r\n", 600),
        ("cache-control: public, Max-Age=60\r\n", 60),
        ('cache-control: max-age="5"\r\n', 5),
        ("cache-control: no-cache\r\n", None),
        ("cache-control: s-maxage=9\r\n", None),
    ],
)
def test_the_servers_max_age_is_read(head: str, seconds: int | None) -> None:
    assert fetch_from(answer_with(head))[0].max_age == seconds


def test_no_compressed_document_is_requested() -> None:
    assert b"accept-encoding: identity\r\n" in fetch_from(answer_with())[1][0].lower()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        *(
            pytest.param(answer_with("location: /elsewhere\r\n", status=status), f"status {status[:3]}", id=status)
            for status in (
                "301 Moved", "302 Found", "307 Temporary Redirect", "404 Not Found", "500 Oops", "206 Partial Content",
            )
        ),
        pytest.param(answer_with(body=b"", status="204 No Content"), "status 204", id="204 No Content"),
        pytest.param(answer_with("content-encoding: gzip\r\n"), "compressed", id="compressed"),
        pytest.param(answer_with(body=b" " * (SIZE_LIMIT + 1)), "more than 512 KiB", id="a byte over 512 KiB"),
        pytest.param(send_endlessly, "more than 512 KiB", id="endless"),
        pytest.param(never_answer, "no answer within 5 s", id="no answer"),
        pytest.param(send_slowly, "no answer within 5 s", id="more than 5 s altogether"),
        pytest.param(send_nonsense, "ProtocolError", id="no HTTP"),
    ],
)  # fmt: skip
def test_every_other_answer_is_a_failure(script: Script, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        fetch_from(script)


def test_a_refused_connection_is_a_failure() -> None:
    async def closed_port() -> None:
        async with server(answer_with()) as (url, _):
            pass
        async with HttpFetch() as fetch:
            await fetch(url)

    with pytest.raises(FetchError, match="Connect"):
        asyncio.run(closed_port())


def test_a_url_that_is_not_secure_is_not_requested() -> None:
    with pytest.raises(FetchError, match="must be https"):
        asyncio.run(HttpFetch()("http://issuer.example/keys"))


@pytest.mark.parametrize(
    "url",
    ["https://issuer.example/keys", "https://10.0.0.1", "http://localhost:1/", "http://127.0.0.2/", "http://[::1]:8/"],
)
def test_https_and_http_on_loopback_are_secure(url: str) -> None:
    require_secure(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/", "http://10.0.0.1/", "http://localhost.evil.example/", "http://0.0.0.0/", "ftp://a/",
        "file:///etc/passwd", "issuer.example", "https://", "", "https://user:pass@issuer.example/",
        "https://user@issuer.example/",
    ],
)  # fmt: skip
def test_every_other_url_is_not_secure(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        require_secure(url)

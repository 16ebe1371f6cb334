"""A bounded https GET, against real sockets on loopback."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.unit.support import JumpingLoop
from verifier.keys.fetch import SIZE_LIMIT, TIME_LIMIT, Fetched, FetchError, HttpFetch, require_secure

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(script: Script) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that reads a request and plays ``script``; its URL, and the requests that it was sent."""
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


def said(head: str, body: bytes = b"{}", status: str = "200 OK") -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        fields = f"content-length: {len(body)}\r\n{head}connection: close\r\n\r\n"
        writer.write(f"HTTP/1.1 {status}\r\n{fields}".encode() + body)

    return script


async def _fetch(script: Script) -> tuple[Fetched, list[bytes]]:
    async with server(script) as (url, requests), HttpFetch() as fetch:
        return await fetch(url), requests


def fetch_from(script: Script) -> tuple[Fetched, list[bytes]]:
    with asyncio.Runner(loop_factory=lambda: JumpingLoop(grace=0.05)) as runner:
        return runner.run(_fetch(script))


def test_a_document_is_fetched_whole() -> None:
    assert fetch_from(said("", b'{"keys": []}'))[0].body == b'{"keys": []}'


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [("max-age=600", 600), ("public, Max-Age=60", 60), ('max-age="5"', 5), ("no-cache", None), ("s-maxage=9", None)],
)
def test_the_servers_max_age_is_read(cache_control: str, seconds: int | None) -> None:
    assert fetch_from(said(f"cache-control: {cache_control}\r\n"))[0].max_age == seconds


def test_without_cache_control_there_is_no_max_age() -> None:
    assert fetch_from(said(""))[0].max_age is None


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect"])
def test_a_redirect_is_not_followed(status: str) -> None:
    with pytest.raises(FetchError, match=rf"status {status[:3]}"):
        fetch_from(said("location: /elsewhere\r\n", status=status))


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "204 No Content", "206 Partial Content"])
def test_any_status_but_200_is_a_failure(status: str) -> None:
    with pytest.raises(FetchError, match=rf"status {status[:3]}"):
        fetch_from(said("", b"", status))


def test_a_document_of_512_kib_is_taken() -> None:
    assert len(fetch_from(said("", b" " * SIZE_LIMIT))[0].body) == 512 * 1024


def test_one_byte_more_is_refused() -> None:
    with pytest.raises(FetchError, match="more than 512 KiB"):
        fetch_from(said("", b" " * (SIZE_LIMIT + 1)))


def test_an_endless_document_is_left_after_512_kib() -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b" " * 65536)
            await writer.drain()

    with pytest.raises(FetchError, match="more than 512 KiB"):
        fetch_from(script)


def test_a_compressed_document_is_refused() -> None:
    with pytest.raises(FetchError, match="compressed"):
        fetch_from(said("content-encoding: gzip\r\n"))


def test_a_compressed_document_is_not_asked_for() -> None:
    assert b"accept-encoding: identity\r\n" in fetch_from(said(""))[1][0].lower()


def test_a_server_that_never_answers_is_left_after_5_seconds() -> None:
    async def script(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    with pytest.raises(FetchError, match="no answer within 5 s"):
        fetch_from(script)


def test_a_server_that_drips_is_left_after_5_seconds_in_all() -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
        for _ in range(100):
            await asyncio.sleep(TIME_LIMIT / 4)
            writer.write(b" ")
            await writer.drain()

    with pytest.raises(FetchError, match="no answer within 5 s"):
        fetch_from(script)


def test_a_refused_connection_is_a_failure() -> None:
    async def closed_port() -> None:
        async with server(said("")) as (url, _):
            pass
        async with HttpFetch() as fetch:
            await fetch(url)

    with pytest.raises(FetchError, match="Connect"):
        asyncio.run(closed_port())


def test_a_broken_answer_is_a_failure() -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(b"nonsense\r\n\r\n")

    with pytest.raises(FetchError, match="ProtocolError"):
        fetch_from(script)


def test_a_url_that_is_not_secure_is_not_asked() -> None:
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
def test_every_other_url_is_not(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        require_secure(url)

"""A server on loopback that runs a script for each request, with TLS where it has a certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import trustme

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(script: Script, certificate: Path | None = None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that reads a request and runs ``script``; its URL, and the requests that it received."""
    requests: list[bytes] = []
    tls = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            await script(writer)
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with listening:
        yield f"http{'s' if tls else ''}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/keys", requests


def answer_with(head: str = "", body: bytes = b"{}", status: str = "200 OK") -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        fields = f"content-length: {len(body)}\r\n{head}connection: close\r\n\r\n"
        writer.write(f"HTTP/1.1 {status}\r\n{fields}".encode() + body)

    return script


def make_certificate(folder: Path, name: str) -> Path:
    """A certificate for 127.0.0.1 with its key and its authority, in one file."""
    authority = trustme.CA()
    path = folder / f"{name}.pem"
    path.write_bytes(
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes() + authority.cert_pem.bytes()
    )
    return path

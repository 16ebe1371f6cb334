"""One bounded HTTP exchange: at most 5 s and 64 KiB, no redirect, a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx

from verifier import __version__
from verifier.keys.fetch import TIME_LIMIT, FetchError, client_for, read_body
from verifier.keys.proxy import proxy_for

SIZE_LIMIT = 64 * 1024  # bytes of body

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # a small answer must not become a large one
    "Connection": "close",  # so that each request may meet another replica of the proxy
    "User-Agent": f"m2m-verifier-canary/{__version__}",
}


class Answer(NamedTuple):
    """An answer of any status."""

    status: int
    headers: httpx.Headers
    body: bytes


async def client(url: str, ca_file: Path | None, environment: Mapping[str, str]) -> httpx.AsyncClient:
    """A client for requests to the origin of ``url``. Raises FetchError."""
    try:
        proxy = proxy_for(url, environment)
    except ValueError as error:
        raise FetchError(str(error)) from None
    # In a thread: reading the certificate authorities would delay the other checks.
    return await asyncio.to_thread(client_for, url, _HEADERS, proxy=proxy, ca_file=ca_file, environment=environment)


async def exchange(
    through: httpx.AsyncClient,
    url: str,
    headers: Sequence[tuple[str, str]] = (),
    form: Mapping[str, str] | None = None,
) -> Answer:
    """GET ``url``, or POST ``form`` to it. Raises FetchError."""
    method = "GET" if form is None else "POST"
    try:
        async with (
            asyncio.timeout(TIME_LIMIT),
            through.stream(method, url, headers=list(headers), data=form) as answer,
        ):
            return Answer(answer.status_code, answer.headers, await read_body(answer, SIZE_LIMIT))
    except TimeoutError:
        raise FetchError(f"no answer within {TIME_LIMIT:g} s") from None
    except httpx.ConnectError as error:
        raise FetchError(f"cannot connect: {error}") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        raise FetchError(type(error).__name__) from None  # its message could quote a header

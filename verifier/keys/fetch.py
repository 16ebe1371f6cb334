"""A bounded https GET for key sets and discovery documents."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

TIME_LIMIT = 5.0  # seconds for the whole exchange
SIZE_LIMIT = 512 * 1024  # bytes of body

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=\"?(\d{1,9})")


class FetchError(Exception):
    """The document could not be fetched. The message says why, and never quotes the document."""


class Fetched(NamedTuple):
    """A document, and for how many seconds it may be kept (None: the server does not say)."""

    body: bytes
    max_age: int | None


Fetch = Callable[[str], Awaitable[Fetched]]


def require_secure(url: str) -> None:
    """Raise ValueError unless ``url`` is https, or http on loopback: over plain http anybody could replace the keys."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("must be an absolute https URL")
    if parts.username or parts.password:
        raise ValueError("must not contain a user or password")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError("must be https (http only on loopback)")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class HttpFetch:
    """Fetches over one pooled client: no redirects, at most 512 KiB, at most 5 s altogether."""

    def __init__(self) -> None:
        # Created at the first fetch: issuers with a key file need no TLS context.
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, url: str) -> Fetched:
        """GET ``url``. Raises FetchError."""
        try:
            require_secure(url)
            async with asyncio.timeout(TIME_LIMIT):
                return await self._get(url)
        except TimeoutError:
            raise FetchError(f"no answer within {TIME_LIMIT:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
            raise FetchError(f"{type(error).__name__}: {error}") from error

    async def _get(self, url: str) -> Fetched:
        if self._client is None:
            # http is allowed only on loopback, which a proxy cannot reach.
            direct = httpx.AsyncHTTPTransport()
            self._client = httpx.AsyncClient(
                follow_redirects=False,
                timeout=TIME_LIMIT,
                mounts={"http://": direct},
                # Not compressed: a small answer must not become a large one.
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            )
        async with self._client.stream("GET", url) as response:
            if response.status_code != 200:
                raise FetchError(f"status {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FetchError("the answer is compressed, which was not requested")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > SIZE_LIMIT:
                    raise FetchError(f"more than {SIZE_LIMIT // 1024} KiB")
            cache_control = response.headers.get("cache-control", "").lower()
        found = _MAX_AGE.search(cache_control)
        return Fetched(bytes(body), int(found[1]) if found else None)

    async def close(self) -> None:
        """Close the pooled connections."""
        if self._client is not None:
            await self._client.aclose()

    async def __aenter__(self) -> HttpFetch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

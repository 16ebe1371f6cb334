"""A bounded https GET for key sets and discovery documents."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

from verifier import __version__
from verifier.keys.proxy import Proxy, proxy_for

log = logging.getLogger(__name__)

TIME_LIMIT = 5.0  # seconds for the whole exchange
SIZE_LIMIT = 512 * 1024  # bytes of body
TOKEN_LIMIT = 16 * 1024  # bytes of a bearer token

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=\"?(\d{1,9})")
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1
_HEADERS = {
    # Kubernetes' API server answers 406 where its key set's own type (RFC 7517 section 8.5.2) is not accepted.
    "Accept": "application/json, application/jwk-set+json",
    "Accept-Encoding": "identity",  # not compressed: a small answer must not become a large one
    "User-Agent": f"m2m-verifier/{__version__}",
}


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


def origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of a URL (RFC 6454 section 4), None for what is not one."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None


class HttpFetch:
    """Fetches one issuer's documents: no redirects, at most 512 KiB, at most 5 s altogether.

    ``ca_file`` replaces the certificate authorities of SSL_CERT_FILE or SSL_CERT_DIR, and those of certifi.
    ``bearer_token_file`` holds a token that is sent to the origins of ``trusted_urls`` only. Both files are read for
    each fetch, so that a renewed one counts. ``environment`` also names the proxy.
    """

    def __init__(
        self,
        *,
        ca_file: Path | None = None,
        bearer_token_file: Path | None = None,
        trusted_urls: tuple[str, ...] = (),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._ca_file = ca_file
        self._bearer_token_file = bearer_token_file
        self._trusted = frozenset(map(origin, trusted_urls)) - {None}
        self._environment = environment
        self._has_logged_proxy = False

    async def __call__(self, url: str) -> Fetched:
        """GET ``url``. Raises FetchError."""
        try:
            require_secure(url)
            proxy = proxy_for(url, self._environment)
        except ValueError as error:
            raise FetchError(str(error)) from None
        through = "" if proxy is None else f" (through {proxy})"
        try:
            async with asyncio.timeout(TIME_LIMIT):
                # In a thread: reading the certificate authorities takes longer than a request may wait.
                client = await asyncio.to_thread(self._client, url, proxy)
                async with client:
                    return await _get(client, url)
        except TimeoutError:
            raise FetchError(f"no answer within {TIME_LIMIT:g} s{through}") from None
        except FetchError as error:
            raise FetchError(f"{error}{through}") from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
            raise FetchError(f"{type(error).__name__}: {error}{through}") from error

    def _client(self, url: str, proxy: Proxy | None) -> httpx.AsyncClient:
        if proxy is not None and not self._has_logged_proxy:
            self._has_logged_proxy = True
            log.info("keys of %s are fetched through %s", ascii(urlsplit(url).netloc[:200])[1:-1], proxy)
        headers = _HEADERS | self._authorization(url)
        return client_for(url, headers, proxy=proxy, ca_file=self._ca_file, environment=self._environment)

    def _authorization(self, url: str) -> dict[str, str]:
        if self._bearer_token_file is None or origin(url) not in self._trusted:
            return {}
        try:
            with self._bearer_token_file.open("rb") as file:
                token = file.read(TOKEN_LIMIT).strip()
        except OSError as error:
            raise FetchError(f"bearer_token_file: {self._bearer_token_file}: {error.strerror}") from None
        if not _TOKEN.fullmatch(token):
            raise FetchError(f"bearer_token_file: {self._bearer_token_file}: holds no bearer token")
        return {"Authorization": f"Bearer {token.decode()}"}


def client_for(
    url: str, headers: Mapping[str, str], *, proxy: Proxy | None, ca_file: Path | None, environment: Mapping[str, str]
) -> httpx.AsyncClient:
    """A client for ``url`` that follows no redirect. Raises FetchError where certificate authorities cannot be read.

    It reads no variable itself: httpx would read NO_PROXY differently.
    """
    through = None
    if proxy is not None:
        over_tls = urlsplit(proxy.url).scheme == "https"
        through = httpx.Proxy(proxy.url, ssl_context=_authorities(environment) if over_tls else None)
    if urlsplit(url).scheme == "http":
        verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not used: no authority is read for it
    else:
        verify = _read_authorities("ca_file", ca_file) if ca_file is not None else _authorities(environment)
    return httpx.AsyncClient(
        verify=verify, proxy=through, trust_env=False, follow_redirects=False, timeout=TIME_LIMIT, headers=headers
    )


def _authorities(environment: Mapping[str, str]) -> ssl.SSLContext:
    """Those of the environment, else those of certifi."""
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if path := environment.get(variable):
            return _read_authorities(variable, Path(path))
    return httpx.create_ssl_context(trust_env=False)


def _read_authorities(name: str, path: Path) -> ssl.SSLContext:
    """A TLS context that trusts the certificates in a file or folder. ``name`` is for the error message."""
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise FetchError(f"{name}: {path}: holds no certificate that can be read") from None
    except OSError as error:
        raise FetchError(f"{name}: {path}: {error.strerror}") from None


async def _get(client: httpx.AsyncClient, url: str) -> Fetched:
    async with client.stream("GET", url) as response:
        if response.status_code != 200:
            raise FetchError(f"status {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise FetchError("the answer is compressed, which was not requested")
        body = await read_body(response, SIZE_LIMIT)
        cache_control = response.headers.get("cache-control", "").lower()
    found = _MAX_AGE.search(cache_control)
    return Fetched(body, int(found[1]) if found else None)


async def read_body(response: httpx.Response, limit: int) -> bytes:
    """The body as it was sent. Raises FetchError where it has more bytes than ``limit``."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            raise FetchError(f"more than {limit // 1024} KiB")
    return bytes(body)

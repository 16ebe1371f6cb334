"""Key sets: the keys of one issuer, from a file or fetched from the issuer."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol
from urllib.parse import urlsplit

from verifier.clock import Clock
from verifier.keys.fetch import Fetch, Fetched, FetchError, require_secure
from verifier.keys.jwk import Key, parse_key_set
from verifier.strict_json import parse_object

log = logging.getLogger(__name__)

MAX_STALE = 24 * 3600.0  # seconds that keys stay in force without a successful refresh
COOLDOWN = 10.0  # seconds between fetches that requests cause
REFRESH_DEFAULT, REFRESH_MIN, REFRESH_MAX = 300.0, 60.0, 3600.0  # seconds between background fetches
BACKOFF_MAX = 60.0  # seconds between failing background fetches
MAX_WAIT = 2.0  # seconds that a request waits for a fetch


class KeySet(Protocol):
    """The keys of one issuer."""

    last_success: float | None
    """The time of the last successful load, in seconds since the epoch; None before the first."""

    def __len__(self) -> int: ...

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The key of a token, without a fetch.

        A token without ``kid`` finds a key only where exactly one fits its algorithm.
        """

    def may_refresh(self) -> bool:
        """Whether a fetch is in progress, or may start now."""

    async def refresh(self) -> None:
        """Fetch newer keys, or join the fetch in progress; wait at most ``MAX_WAIT`` seconds. Never raises."""


class StaticKeys:
    """Keys that do not change: those of a file."""

    def __init__(self, keys: Iterable[Key], loaded_at: float | None = None) -> None:
        self.last_success = loaded_at
        self._replace(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def _replace(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)
        self._by_kid: dict[str | None, list[Key]] = {}
        for key in self._keys:
            self._by_kid.setdefault(key.kid, []).append(key)

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """See KeySet."""
        named = self._keys if kid is None else self._by_kid.get(kid, ())
        fitting = [key for key in named if key.fits(algorithm)]
        if kid is None:
            return fitting[0] if len(fitting) == 1 else None
        # A known kid whose key does not fit is returned all the same, so that the caller can give the right reason.
        return fitting[0] if fitting else next(iter(named), None)

    def may_refresh(self) -> bool:
        """Never: there is nothing newer."""
        return False

    async def refresh(self) -> None:
        """Do nothing: there is nothing newer."""


class RemoteKeys(StaticKeys):
    """Keys that the issuer publishes: one fetch at a time; a failed one leaves the old keys in force.

    ``locate`` gives the URL of the key set; it may fetch the issuer's discovery document. ``on_fetch`` is called with
    the success of each fetch. ``jitter`` draws the part of each wait that is used. The application runs ``run`` as a
    background task.
    """

    def __init__(
        self,
        issuer: str,
        fetch: Fetch,
        locate: Callable[[Fetch], Awaitable[str]],
        clock: Clock,
        on_fetch: Callable[[bool], None] = lambda _: None,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        super().__init__(())
        self.tried = asyncio.Event()
        """Set when the first fetch has succeeded or failed."""
        self._issuer = issuer
        self._fetch = fetch
        self._locate = locate
        self._on_fetch = on_fetch
        self._clock = clock
        self._jitter = jitter
        self._in_progress: asyncio.Task[float | None] | None = None
        self._last_requested = float("-inf")

    async def run(self) -> None:
        """Fetch now, and then repeatedly until cancelled."""
        failures = 0
        try:
            while True:
                lifetime = await asyncio.shield(self._share_fetch())
                if lifetime is None:
                    failures += 1
                    wait = min(2.0 ** min(failures - 1, 10), BACKOFF_MAX)  # a float holds no 2.0 ** 1024
                else:
                    failures = 0
                    wait = min(max(lifetime, REFRESH_MIN), REFRESH_MAX)
                # Many replicas must not fetch at the same moment.
                await asyncio.sleep(wait * self._jitter(0.8, 1.0))
        finally:
            if self._in_progress is not None:
                self._in_progress.cancel()

    def may_refresh(self) -> bool:
        """Whether a fetch is in progress, or no request has caused one in the last 10 s."""
        if self._in_progress is not None:
            return True
        passed = self._clock() - self._last_requested
        return not 0 <= passed < COOLDOWN  # a clock that is set back must not prolong it

    async def refresh(self) -> None:
        """See KeySet."""
        if not self.may_refresh():
            return
        if self._in_progress is None:
            self._last_requested = self._clock()
        # wait() does not cancel the fetch when one waiter reaches its limit: others still wait for it.
        await asyncio.wait((self._share_fetch(),), timeout=MAX_WAIT)

    def _share_fetch(self) -> asyncio.Task[float | None]:
        if self._in_progress is None:
            self._in_progress = asyncio.create_task(self._refresh())
            self._in_progress.add_done_callback(self._end_fetch)
        return self._in_progress

    def _end_fetch(self, _: asyncio.Task[float | None]) -> None:
        self._in_progress = None
        self.tried.set()

    async def _refresh(self) -> float | None:
        """Fetch once. For how many seconds the answer may be kept, None after a failure."""
        where = ""
        try:
            url = await self._locate(self._fetch)
            where = f"{_shown(url)}: "
            fetched = await self._fetch(url)
            # In a thread: parsing a hundred keys takes milliseconds.
            keys = await asyncio.to_thread(parse_key_set, fetched.body)
        except Exception as error:  # the old keys stay in force, and the next refresh follows
            self._on_fetch(False)
            cause = error if isinstance(error, (FetchError, ValueError)) else type(error).__name__
            log.warning("issuer %s: its keys could not be fetched: %s%s", self._issuer, where, cause)
            self._drop_if_stale()
            return None
        self._on_fetch(True)
        self.last_success = self._clock()
        self._take(keys)
        return REFRESH_DEFAULT if fetched.max_age is None else float(fetched.max_age)

    def _drop_if_stale(self) -> None:
        if self._keys and self.last_success is not None and self._clock() - self.last_success > MAX_STALE:
            log.error("issuer %s: its keys are older than %g h: no longer in force", self._issuer, MAX_STALE / 3600)
            self._take([])

    def _take(self, keys: list[Key]) -> None:
        known = {key.identity: key for key in self._keys}
        listed = {key.identity: key for key in keys}  # a key that is listed twice counts once
        kept = [known.pop(identity, key) for identity, key in listed.items()]
        for key in known.values():
            key.retired = True
        if known or len(kept) != len(self._keys):
            log.info("issuer %s: %d keys in force, %d retired", self._issuer, len(kept), len(known))
        self._replace(kept)


def _shown(url: str) -> str:
    """A URL for the log: without its query, which may hold a secret, escaped and of limited length."""
    parts = urlsplit(url)
    return ascii(f"{parts.scheme}://{parts.netloc}{parts.path}"[:200])[1:-1]


def located_at(url: str) -> Callable[[Fetch], Awaitable[str]]:
    """Locate a key set whose URL is configured."""

    async def locate(_: Fetch) -> str:
        return url

    return locate


def discovered_from(issuer: str) -> Callable[[Fetch], Awaitable[str]]:
    """Locate a key set by the issuer's metadata: OpenID Connect Discovery 1.0 section 4, else RFC 8414 section 3."""
    origin, slash, path = issuer.removeprefix("https://").removeprefix("http://").partition("/")
    scheme = issuer.split("://", 1)[0]
    documents = (
        issuer.rstrip("/") + "/.well-known/openid-configuration",
        f"{scheme}://{origin}/.well-known/oauth-authorization-server{slash}{path}".rstrip("/"),
    )

    async def locate(fetch: Fetch) -> str:
        problems = []
        for url in documents:
            try:
                return _key_set_url(await fetch(url), issuer)
            except (FetchError, ValueError) as error:
                problems.append(f"{url}: {error}")
        raise FetchError("discovery failed: " + "; ".join(problems))

    return locate


def _key_set_url(document: Fetched, issuer: str) -> str:
    metadata = parse_object(document.body)
    if metadata.get("issuer") != issuer:  # RFC 8414 section 3.3: an issuer must not name keys for another one
        raise ValueError("it names another issuer")
    url = metadata.get("jwks_uri")
    if not isinstance(url, str):
        raise ValueError("it names no jwks_uri")
    require_secure(url)
    return url

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
UNKNOWN_KID_COOLDOWN = 10.0  # seconds between fetches that unknown key ids cause
REFRESH_DEFAULT, REFRESH_MIN, REFRESH_MAX = 300.0, 60.0, 3600.0  # seconds between background fetches
BACKOFF_MAX = 60.0  # seconds between failing background fetches
MAX_WAIT = 2.0  # seconds that a request waits for a fetch under way


class KeySet(Protocol):
    """The keys of one issuer."""

    last_success: float | None
    """The time of the last successful load, in seconds since the epoch; None before the first."""

    def __len__(self) -> int: ...

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Look among the keys at hand.

        A token without ``kid`` finds a key only where exactly one fits its algorithm.
        """

    def may_refresh(self) -> bool:
        """Whether a fetch is under way, or may start now."""

    async def refresh(self) -> None:
        """Fetch newer keys, or wait for the fetch under way; at most ``MAX_WAIT`` seconds. Never raises."""


class StaticKeys:
    """Keys that do not change: from a file, or in tests."""

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
        """Do nothing."""


class RemoteKeys(StaticKeys):
    """Keys that the issuer publishes: refreshed in the background, one fetch in flight, old ones kept on failure.

    ``locate`` gives the URL of the key set; it may fetch the issuer's discovery document. ``on_fetch`` is called after
    each fetch with its success. ``run`` is the background
    task, which the application starts and cancels.
    """

    def __init__(
        self,
        issuer: str,
        fetch: Fetch,
        locate: Callable[[Fetch], Awaitable[str]],
        clock: Clock,
        on_fetch: Callable[[bool], None] = lambda _: None,
    ) -> None:
        super().__init__(())
        self.tried = asyncio.Event()
        """Set once the first fetch has ended, well or badly."""
        self._issuer = issuer
        self._fetch = fetch
        self._locate = locate
        self._on_fetch = on_fetch
        self._clock = clock
        self._flight: asyncio.Task[float | None] | None = None
        self._last_unknown_kid = float("-inf")

    async def run(self) -> None:
        """Fetch now and then again and again, until cancelled."""
        failures = 0
        try:
            while True:
                lifetime = await asyncio.shield(self._share_flight())
                if lifetime is None:
                    failures += 1
                    wait = min(2.0 ** min(failures - 1, 10), BACKOFF_MAX)  # a float holds no 2.0 ** 1024
                else:
                    failures = 0
                    wait = min(max(lifetime, REFRESH_MIN), REFRESH_MAX)
                # Jitter: many replicas must not ask as one.
                await asyncio.sleep(wait * random.uniform(0.8, 1.0))  # noqa: S311 - spreads load, hides nothing
        finally:
            if self._flight is not None:
                self._flight.cancel()

    def may_refresh(self) -> bool:
        """Whether a fetch is under way, or no unknown key id caused one in the last 10 s."""
        if self._flight is not None:
            return True
        passed = self._clock() - self._last_unknown_kid
        return not 0 <= passed < UNKNOWN_KID_COOLDOWN  # a clock that was set back must not prolong it

    async def refresh(self) -> None:
        """See KeySet."""
        if not self.may_refresh():
            return
        if self._flight is None:
            self._last_unknown_kid = self._clock()
        # wait() cancels nothing: each waiter gives up alone, the fetch goes on for the others.
        await asyncio.wait((self._share_flight(),), timeout=MAX_WAIT)

    def _share_flight(self) -> asyncio.Task[float | None]:
        if self._flight is None:
            self._flight = asyncio.create_task(self._refresh())
            self._flight.add_done_callback(self._end_flight)
        return self._flight

    def _end_flight(self, _: asyncio.Task[float | None]) -> None:
        self._flight = None
        self.tried.set()

    async def _refresh(self) -> float | None:
        """Fetch once. Seconds that the answer lets the keys be kept, or None after a failure."""
        where = ""
        try:
            url = await self._locate(self._fetch)
            where = f"{_shown(url)}: "
            fetched = await self._fetch(url)
            # Off the loop: a set of a hundred keys takes milliseconds.
            keys = await asyncio.to_thread(parse_key_set, fetched.body)
        except Exception as error:  # whatever broke: the old keys stay in force and the next refresh comes
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
        listed = {key.identity: key for key in keys}  # once each: one that is listed twice would be retired by half
        kept = [known.pop(identity, key) for identity, key in listed.items()]
        for key in known.values():
            key.retired = True
        if known or len(kept) != len(self._keys):
            log.info("issuer %s: %d keys in force, %d retired", self._issuer, len(kept), len(known))
        self._replace(kept)


def _shown(url: str) -> str:
    """For the log: without a query, which may hold a secret, and no longer than a line that a person reads."""
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
    if metadata.get("issuer") != issuer:  # RFC 8414 section 3.3: else one issuer could speak for another
        raise ValueError("it names another issuer")
    url = metadata.get("jwks_uri")
    if not isinstance(url, str):
        raise ValueError("it names no jwks_uri")
    require_secure(url)
    return url

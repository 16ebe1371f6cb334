"""Key sets: the keys of one issuer, from a file or fetched from the issuer."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from verifier.clock import Clock
from verifier.keys.fetch import Fetch, Fetched, FetchError, require_secure
from verifier.keys.jwk import (
    NOT_FOR_SIGNATURES,
    Key,
    ParsedKeys,
    Thumbprint,
    UnusableKey,
    parse_key_file,
    parse_key_set,
)
from verifier.strict_json import parse_object

log = logging.getLogger(__name__)

MAX_STALE = 24 * 3600.0  # seconds that keys stay in force without a successful refresh
COOLDOWN = 10.0  # seconds between fetches that requests cause
EMPTY_RETRY = 10.0  # seconds after which a set without usable keys is fetched again
REFRESH_DEFAULT, REFRESH_MIN, REFRESH_MAX = 300.0, 60.0, 3600.0  # seconds between background fetches
BACKOFF_MAX = 60.0  # seconds between failing background fetches
MAX_WAIT = 2.0  # seconds that a request waits for a fetch
MAX_CANDIDATES = 4  # keys tried for one token


class KeySet:
    """The keys of one issuer. Those of a file do not change, so nothing is fetched here."""

    def __init__(
        self, keys: Iterable[Key], unusable: Iterable[UnusableKey] = (), *, loaded_at: float | None = None
    ) -> None:
        self.last_success = loaded_at
        """The time of the last successful load, in seconds since the epoch; None before the first."""
        self._replace(tuple(keys), tuple(unusable))

    def __len__(self) -> int:
        return len(self._keys)

    def _replace(self, keys: tuple[Key, ...], unusable: tuple[UnusableKey, ...]) -> None:
        self._keys, self._unusable = keys, unusable
        self._by_kid: dict[str | None, list[Key]] = {}
        for key in self._keys:
            self._by_kid.setdefault(key.kid, []).append(key)

    def candidates(self, kid: str | None, thumbprints: tuple[Thumbprint, ...], algorithm: str) -> Sequence[Key]:
        """The keys to try for a token, at most ``MAX_CANDIDATES``: those with its ``kid``, or all where it has none.

        Where some of them have one of its thumbprints, only these. They fit ``algorithm``, unless no key that the token
        names does: then one of them is returned, for the right reason of the refusal.
        """
        named = self._keys if kid is None else self._by_kid.get(kid, ())
        certified = [key for key in named if not set(thumbprints).isdisjoint(key.thumbprints)] if thumbprints else []
        fitting = [key for key in certified or named if key.fits(algorithm)]
        if not fitting and (certified or kid is not None):
            return (certified or named)[:1]
        return fitting[:MAX_CANDIDATES]

    def cause_of(self, kid: str | None) -> str | None:
        """Why the published key with this ``kid`` cannot be used, None where there is no such key."""
        return next((key.cause for key in self._unusable if key.kid == kid), None)

    def may_refresh(self) -> bool:
        """Whether a fetch is in progress, or may start now."""
        return False

    async def refresh(self) -> None:
        """Fetch newer keys, or join the fetch in progress; wait at most ``MAX_WAIT`` seconds. Never raises."""


def keys_of_file(issuer: str, content: bytes, now: float) -> KeySet:
    """The keys of a file, which may hold shared secrets. Raises ValueError where none is usable."""
    parsed = parse_key_file(content)
    for key in parsed.unusable:
        _log_unusable(issuer, key)
    return KeySet(*parsed, loaded_at=now)


class RemoteKeys(KeySet):
    """Keys that the issuer publishes: one fetch at a time; a failed one leaves the old keys in force.

    A well-formed set is authoritative, even an empty one: keys that are not in it are retired.

    ``url`` is the issuer's own; its discovery document names the key set where ``key_set_url`` is None. ``on_fetch`` is
    called with the success of each fetch. ``jitter`` draws the part of each wait that is used. The application runs
    ``run`` as a background task.
    """

    def __init__(
        self,
        issuer: str,
        url: str,
        key_set_url: str | None,
        fetch: Fetch,
        clock: Clock,
        on_fetch: Callable[[bool], None] = lambda _: None,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        super().__init__(())
        self.tried = asyncio.Event()
        """Set when the first fetch has succeeded or failed."""
        self._issuer = issuer
        self._url = url
        self._key_set_url = key_set_url
        self._fetch = fetch
        self._on_fetch = on_fetch
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._in_progress: asyncio.Task[float] | None = None
        self._in_background = False
        self._next: asyncio.TimerHandle | None = None
        self._last_requested = float("-inf")

    async def run(self) -> None:
        """Fetch now, and repeatedly until cancelled: the end of each fetch, whatever caused it, schedules the next."""
        self._in_background = True
        try:
            self._share_fetch()
            await asyncio.get_running_loop().create_future()
        finally:
            self._in_background = False
            if self._next is not None:
                self._next.cancel()
            if self._in_progress is not None:
                self._in_progress.cancel()

    def may_refresh(self) -> bool:
        """Whether a fetch is in progress, or no request has caused one in the last 10 s."""
        if self._in_progress is not None:
            return True
        passed = self._clock() - self._last_requested
        return not 0 <= passed < COOLDOWN  # a clock that is set back must not prolong it

    async def refresh(self) -> None:
        """Fetch newer keys, or join the fetch in progress; see KeySet."""
        if not self.may_refresh():
            return
        if self._in_progress is None:
            self._last_requested = self._clock()
        # wait() does not cancel the fetch when one waiter reaches its limit: others still wait for it.
        await asyncio.wait((self._share_fetch(),), timeout=MAX_WAIT)

    def _share_fetch(self) -> asyncio.Task[float]:
        if self._in_progress is None:
            self._in_progress = asyncio.create_task(self._refresh())
            self._in_progress.add_done_callback(self._end_fetch)
        return self._in_progress

    def _end_fetch(self, fetch: asyncio.Task[float]) -> None:
        self._in_progress = None
        self.tried.set()
        if self._in_background and not fetch.cancelled():
            if self._next is not None:
                self._next.cancel()
            # Jitter: many replicas must not fetch at the same moment.
            wait = fetch.result() * self._jitter(0.8, 1.0)
            self._next = asyncio.get_running_loop().call_later(wait, self._share_fetch)

    async def _refresh(self) -> float:
        """Fetch once. The seconds until the next background fetch."""
        where = ""
        try:
            url = self._key_set_url or await discover(self._fetch, self._url)
            where = f"{shown_url(url)}: "
            fetched = await self._fetch(url)
            # In a thread: parsing a hundred keys takes milliseconds.
            parsed = await asyncio.to_thread(parse_key_set, fetched.body)
        except Exception as error:  # the old keys stay in force, and the next refresh follows
            self._on_fetch(False)
            cause = error if isinstance(error, (FetchError, ValueError)) else type(error).__name__
            log.warning("issuer %s: its keys could not be fetched: %s%s", self._issuer, where, cause)
            self._drop_if_stale()
            self._failures += 1
            return min(2.0 ** min(self._failures - 1, 10), BACKOFF_MAX)  # a float holds no 2.0 ** 1024
        self._on_fetch(True)
        self._report(parsed)
        self._failures = 0
        self.last_success = self._clock()
        self._take(parsed)
        if not parsed.usable:
            return EMPTY_RETRY
        return REFRESH_DEFAULT if fetched.max_age is None else min(max(fetched.max_age, REFRESH_MIN), REFRESH_MAX)

    def _drop_if_stale(self) -> None:
        if self._keys and self.last_success is not None and self._clock() - self.last_success > MAX_STALE:
            log.error("issuer %s: its keys are older than %g h: no longer in force", self._issuer, MAX_STALE / 3600)
            self._take(ParsedKeys(()))

    def _report(self, parsed: ParsedKeys) -> None:
        """Log what is wrong with a set, and was not wrong with the one that was fetched before."""
        for key in parsed.unusable:
            if key not in self._unusable:
                _log_unusable(self._issuer, key)
        if not parsed.usable and (self._keys or self._failures or self.last_success is None):
            log.warning("issuer %s: its key set holds no usable key: its tokens get 503", self._issuer)

    def _take(self, parsed: ParsedKeys) -> None:
        known = {key.identity: key for key in self._keys}
        kept = tuple(known.pop(key.identity, key) for key in parsed.usable)
        for key in known.values():
            key.retired = True
        if known or len(kept) != len(self._keys):
            log.info("issuer %s: %d keys in force, %d retired", self._issuer, len(kept), len(known))
        self._replace(kept, parsed.unusable)


def _log_unusable(issuer: str, key: UnusableKey) -> None:
    level = logging.INFO if key.cause == NOT_FOR_SIGNATURES else logging.WARNING
    name = "without kid" if key.kid is None else f"with kid {key.kid[:100]!a}"
    log.log(level, "issuer %s: the key %s cannot be used: %s", issuer, name, key.cause)


def shown_url(url: str) -> str:
    """A URL for a log or a terminal: without its query, which may hold a secret, escaped and of limited length."""
    parts = urlsplit(url)
    return ascii(f"{parts.scheme}://{parts.netloc}{parts.path}"[:200])[1:-1]


async def discover(fetch: Fetch, issuer: str) -> str:
    """The URL of an issuer's key set by its metadata: OpenID Connect Discovery 1.0 section 4, else RFC 8414 section 3.

    Raises FetchError.
    """
    scheme, _, rest = issuer.partition("://")
    origin, slash, path = rest.partition("/")
    problems = []
    for url in (
        issuer.rstrip("/") + "/.well-known/openid-configuration",
        f"{scheme}://{origin}/.well-known/oauth-authorization-server{slash}{path}".rstrip("/"),
    ):
        try:
            return _key_set_url(await fetch(url), issuer)
        except (FetchError, ValueError) as error:
            problems.append(f"{url}: {error}")
    raise FetchError("discovery failed: " + "; ".join(problems))


def _key_set_url(document: Fetched, issuer: str) -> str:
    metadata = parse_object(document.body)
    named, url = metadata.get("issuer"), metadata.get("jwks_uri")
    if not isinstance(named, str):
        raise ValueError("it names no issuer")
    if named != issuer:  # RFC 8414 section 3.3: an issuer must not name keys for another one
        slash = ", which differs in the final slash" if named.rstrip("/") == issuer.rstrip("/") else ""
        raise ValueError(f"it names the issuer {named[:200]!a}, the configuration {issuer!a}{slash}")
    if not isinstance(url, str):
        raise ValueError("it names no jwks_uri")
    require_secure(url)
    if urlsplit(issuer).scheme == "https" != urlsplit(url).scheme:
        raise ValueError("it was fetched over https and names a jwks_uri that is not https")
    return url

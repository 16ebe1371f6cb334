"""Key sets: the keys of ONE issuer, from a file or from the issuer itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.algorithms import Algorithm
from jwt.exceptions import PyJWTError

from verifier.fetch import Fetch, Fetched, FetchError, require_secure
from verifier.strict_json import parse_object

log = logging.getLogger(__name__)

MAX_STALE = 24 * 3600.0  # seconds that keys stay in force without a successful refresh
UNKNOWN_KID_COOLDOWN = 10.0  # seconds between fetches that unknown key ids cause
REFRESH_DEFAULT, REFRESH_MIN, REFRESH_MAX = 300.0, 60.0, 3600.0  # seconds between background fetches
BACKOFF_MAX = 60.0  # seconds between failing background fetches
MAX_WAIT = 2.0  # seconds that a request waits for a fetch under way
MAX_KEYS = 100

Clock = Callable[[], float]
"""Seconds since the epoch."""

# RFC 7518 section 3.1, RFC 8037 section 3.1. Public members alone: a set that leaks private ones still only verifies.
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_SYMMETRIC = {"HS256": 32, "HS384": 48, "HS512": 64}  # smallest key, in bytes: RFC 7518 section 3.2
_KEY_TYPES: Mapping[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("RSA", ""): (_RSA, ("n", "e")),
    ("EC", "P-256"): (("ES256",), ("crv", "x", "y")),
    ("EC", "P-384"): (("ES384",), ("crv", "x", "y")),
    ("EC", "P-521"): (("ES512",), ("crv", "x", "y")),
    ("OKP", "Ed25519"): (("EdDSA",), ("crv", "x")),
    ("OKP", "Ed448"): (("EdDSA",), ("crv", "x")),
    ("oct", ""): (tuple(_SYMMETRIC), ("k",)),
}

SYMMETRIC_ALGORITHMS = frozenset(_SYMMETRIC)


class Key:
    """One verification key and the algorithms it fits."""

    __slots__ = ("_verifiers", "identity", "kid", "retired")

    def __init__(self, kid: str | None, identity: str, verifiers: Mapping[str, tuple[Algorithm, Any]]) -> None:
        self.kid = kid
        self.identity = identity
        """A digest of the whole key: one that reuses another's ``kid`` is another key."""
        self.retired = False
        """True once the key has left its issuer's key set."""
        self._verifiers = verifiers

    def fits(self, algorithm: str) -> bool:
        """Whether the key may be used with ``algorithm`` (RFC 8725 section 3.1)."""
        return algorithm in self._verifiers

    def verify(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """Check a signature made with an algorithm that fits."""
        implementation, key = self._verifiers[algorithm]
        return implementation.verify(signing_input, key, signature)


def parse_key(jwk: Any, *, symmetric: bool = False) -> Key:
    """Make a Key of a JWK (RFC 7517). Raises ValueError, saying why it cannot verify; never quotes the key."""
    if not isinstance(jwk, dict):
        raise ValueError("not an object")
    kid, use, operations = jwk.get("kid"), jwk.get("use", "sig"), jwk.get("key_ops", ["verify"])
    if not (kid is None or isinstance(kid, str)):
        raise ValueError("kid is not a string")
    if use != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("not for signatures")
    kty, crv = jwk.get("kty"), jwk.get("crv", "")
    kind = (str(kty), str(crv) if kty in ("EC", "OKP") else "")
    if kind not in _KEY_TYPES or (kind == ("oct", "") and not symmetric):
        raise ValueError("of a kind that verifies nothing here")
    algorithms, members = _KEY_TYPES[kind]
    if jwk.get("alg") is not None:  # RFC 7517 section 4.4: the only algorithm it is for
        algorithms = tuple(name for name in algorithms if name == jwk["alg"])
    public = {"kty": kty, **{name: jwk.get(name) for name in members}}
    try:
        verifiers = {name: _verifier(public, name) for name in algorithms}
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        raise ValueError("malformed") from None
    if kty == "oct":
        verifiers = {name: pair for name, pair in verifiers.items() if len(pair[1]) >= _SYMMETRIC[name]}
    if not verifiers:
        raise ValueError("too short, or for an algorithm that does not fit it")
    canonical = json.dumps([kid, sorted(verifiers), public], sort_keys=True)
    return Key(kid, hashlib.sha256(canonical.encode()).hexdigest(), verifiers)


def _verifier(public: dict[str, Any], algorithm: str) -> tuple[Algorithm, Any]:
    made = PyJWK(public, algorithm)
    if isinstance(made.key, RSAPublicKey) and made.key.key_size < 2048:
        raise ValueError("shorter than RFC 7518 section 3.3 asks")
    return made.Algorithm, made.key


def parse_key_set(body: bytes, *, symmetric: bool = False) -> list[Key]:
    """Parse a JWK Set (RFC 7517 section 5): unusable keys are skipped. Raises ValueError if none is left."""
    listed = parse_object(body).get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"not a key set of at most {MAX_KEYS} keys")
    keys = []
    for place, jwk in enumerate(listed):
        try:
            keys.append(parse_key(jwk, symmetric=symmetric))
        except ValueError as error:
            log.debug("key %d of the set is skipped: %s", place, error)
    if not keys:
        raise ValueError("no key in it can verify a signature")
    return keys


class KeySet(Protocol):
    """The keys of one issuer."""

    last_success: float | None
    """When the keys were last had, in seconds since the epoch; None before that."""

    def __len__(self) -> int: ...

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Look among the keys at hand.

        A token without ``kid`` finds a key only where exactly one fits its algorithm.
        """

    async def refresh_for_unknown_kid(self) -> None:
        """Look for newer keys, within the limits of section 7 of the contract. Never raises."""


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
        # A known kid whose key does not fit is returned all the same: the caller tells the two apart.
        return fitting[0] if fitting else next(iter(named), None)

    async def refresh_for_unknown_kid(self) -> None:
        """There is nothing newer."""


class RemoteKeys(StaticKeys):
    """Keys that the issuer publishes: refreshed in the background, one fetch in flight, old ones kept on failure.

    ``locate`` gives the URL of the key set; it may ask the issuer's discovery document. ``run`` is the background
    task: whoever composes the application starts and cancels it.
    """

    def __init__(self, issuer: str, fetch: Fetch, locate: Callable[[Fetch], Awaitable[str]], clock: Clock) -> None:
        super().__init__(())
        self.refreshes = {"success": 0, "failure": 0}
        """Fetches so far, by result."""
        self.tried = asyncio.Event()
        """Set once the first fetch has ended, well or badly."""
        self._issuer = issuer
        self._fetch = fetch
        self._locate = locate
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
                    wait = min(2.0 ** (failures - 1), BACKOFF_MAX)
                else:
                    failures = 0
                    wait = min(max(lifetime, REFRESH_MIN), REFRESH_MAX)
                # Jitter: many replicas must not ask as one.
                await asyncio.sleep(wait * random.uniform(0.8, 1.0))  # noqa: S311 - spreads load, hides nothing
        finally:
            if self._flight is not None:
                self._flight.cancel()

    async def refresh_for_unknown_kid(self) -> None:
        """Join the fetch in flight, or start one unless another unknown kid did so in the last 10 s."""
        flight = self._flight
        if flight is None:
            now = self._clock()
            if now - self._last_unknown_kid < UNKNOWN_KID_COOLDOWN:
                return
            self._last_unknown_kid = now
            flight = self._share_flight()
        # wait() cancels nothing: each waiter gives up alone, the fetch goes on for the others.
        await asyncio.wait((flight,), timeout=MAX_WAIT)

    def _share_flight(self) -> asyncio.Task[float | None]:
        if self._flight is None:
            self._flight = asyncio.create_task(self._refresh())
            self._flight.add_done_callback(self._land)
        return self._flight

    def _land(self, _: asyncio.Task[float | None]) -> None:
        self._flight = None
        self.tried.set()

    async def _refresh(self) -> float | None:
        """Fetch once. Seconds that the answer lets the keys be kept, or None after a failure."""
        try:
            fetched = await self._fetch(await self._locate(self._fetch))
            # Off the loop: a set of a hundred keys takes milliseconds.
            keys = await asyncio.to_thread(parse_key_set, fetched.body)
        except Exception as error:  # whatever broke: the old keys stay in force and the next refresh comes
            self.refreshes["failure"] += 1
            told = error if isinstance(error, (FetchError, ValueError)) else type(error).__name__
            log.warning("issuer %s: its keys could not be fetched: %s", self._issuer, told)
            self._drop_if_stale()
            return None
        self.refreshes["success"] += 1
        self.last_success = self._clock()
        self._take(keys)
        return REFRESH_DEFAULT if fetched.max_age is None else float(fetched.max_age)

    def _drop_if_stale(self) -> None:
        if self._keys and self.last_success is not None and self._clock() - self.last_success > MAX_STALE:
            log.error("issuer %s: its keys are older than %g h: no longer in force", self._issuer, MAX_STALE / 3600)
            self._take([])

    def _take(self, keys: list[Key]) -> None:
        known = {key.identity: key for key in self._keys}
        kept = [known.pop(key.identity, key) for key in keys]
        for gone in known.values():
            gone.retired = True
        if known or len(kept) != len(self._keys):
            log.info("issuer %s: %d keys in force, %d retired", self._issuer, len(kept), len(known))
        self._replace(kept)


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

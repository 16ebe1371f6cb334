"""Verified tokens, kept for a while: claims, never decisions."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import NamedTuple

from verifier.decision import Reason, Rejected
from verifier.identity import VerifiedToken
from verifier.jwk import Key
from verifier.keys import Clock
from verifier.tokens import Verifier

MAX_REFUSED = 1024
PART = 10_000  # tokens; a table that outgrows its place is laid anew in one go, 24 ms for 170,000


def digest_of(token: bytes) -> bytes:
    """What a token is known by: its SHA-256. The token itself is not kept."""
    return hashlib.sha256(token).digest()


class Refused(NamedTuple):
    """A refusal as it can be raised again: the exception itself would keep the token alive in its traceback."""

    reason: Reason
    description: str
    issuer: str
    key: Key | None


class CachedVerifier:
    """In front of a Verifier. Only tokens that verify are kept, so strangers cannot fill it.

    ``size`` is a number of tokens, ``ttl`` in seconds; ``digest`` is ``digest_of`` a token. An entry is looked at when
    it is read and leaves when the LRU needs its place: nothing sweeps, and there is one object for each, so that a
    garbage collection among 100,000 of them stays short.

    A refusal that nothing but the token's bytes decided, or a signature and a key that is still in force, is remembered
    too, apart and for few: whoever sends the same garbage again and again costs no parsing and no signature check.
    """

    def __init__(self, verifier: Verifier, *, size: int, ttl: float, clock: Clock) -> None:
        self._verifier = verifier
        # Each in the order of use; cachetools' LRU takes several times as long on a hit.
        self._parts = tuple(OrderedDict[bytes, VerifiedToken]() for _ in range(max(1, size // PART)))
        self._refused: OrderedDict[bytes, Refused] = OrderedDict()
        self._part_size = size // len(self._parts) if ttl > 0 else 0
        self._ttl = ttl
        self._clock = clock
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def _part(self, digest: bytes) -> OrderedDict[bytes, VerifiedToken]:
        return self._parts[hash(digest) % len(self._parts)]

    def get(self, digest: bytes) -> VerifiedToken | None:
        """The verified token, if it is known, has not expired and its key is still in force."""
        part = self._part(digest)
        known = part.get(digest)
        if known is not None and not known.key.retired:
            now = self._clock()
            if now < known.exp and now - known.checked_at < self._ttl:
                self.hits += 1
                part.move_to_end(digest)
                return known
        self.misses += 1
        return None

    async def verify(self, token: bytes, digest: bytes) -> VerifiedToken:
        """Verify with the wrapped verifier and keep what verified. Raises Rejected."""
        if not self._part_size:
            return await self._verifier.verify(token)
        refused = self._refused.get(digest)
        if refused is not None and (refused.key is None or not refused.key.retired):
            raise Rejected(refused.reason, refused.description, issuer=refused.issuer, key=refused.key)
        try:
            verified = await self._verifier.verify(token)
        except Rejected as no:
            if no.key is not None or not no.issuer:
                self._refused[digest] = Refused(no.reason, no.description, no.issuer, no.key)
                if len(self._refused) > MAX_REFUSED:
                    self._refused.popitem(last=False)
            raise
        part = self._part(digest)
        part[digest] = verified
        part.move_to_end(digest)
        if len(part) > self._part_size:
            part.popitem(last=False)
        return verified

    async def clear(self) -> None:
        """Forget everything, a little at a time: to free 100,000 tokens at once would hold up requests."""
        for part in self._parts:
            while part:
                for _ in range(min(len(part), 1000)):
                    part.popitem()
                await asyncio.sleep(0)

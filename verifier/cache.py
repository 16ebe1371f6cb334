"""Verified tokens, kept for a while: claims, never decisions."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import NamedTuple

from verifier.identity import VerifiedToken
from verifier.keys import Clock
from verifier.tokens import Verifier


class _Entry(NamedTuple):
    token: VerifiedToken
    until: float
    """Seconds since the epoch."""


class CachedVerifier:
    """A Verifier in front of another. Only tokens that verify are kept, so strangers cannot fill it.

    ``size`` is a number of tokens, ``ttl`` in seconds. The key is the SHA-256 of the token: the token itself is not
    kept. An entry is looked at when it is read and leaves when the LRU needs its place: nothing sweeps.
    """

    def __init__(self, verifier: Verifier, *, size: int, ttl: float, clock: Clock) -> None:
        self._verifier = verifier
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # cachetools takes five times as long on a hit
        self._size = size if ttl > 0 else 0
        self._ttl = ttl
        self._clock = clock
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, token: bytes) -> VerifiedToken | None:
        """The verified token, if it is known, has not expired and its key is still in force."""
        digest = hashlib.sha256(token).digest()
        entry = self._entries.get(digest)
        if entry is None or self._clock() >= entry.until or entry.token.key.retired:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(digest)
        return entry.token

    async def verify(self, token: bytes) -> VerifiedToken:
        """Verify with the wrapped verifier and keep what verified. Raises Rejected."""
        verified = await self._verifier.verify(token)
        if self._size:
            until = min(verified.exp, self._clock() + self._ttl)
            digest = hashlib.sha256(token).digest()
            self._entries[digest] = _Entry(verified, until)
            self._entries.move_to_end(digest)
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)
        return verified

"""Verified tokens, kept for a while: claims, never decisions."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections import OrderedDict
from itertools import islice
from typing import NamedTuple

from verifier.decision import Reason, Rejected
from verifier.identity import Principal, VerifiedToken
from verifier.keys.jwk import Key
from verifier.keys.sets import Clock
from verifier.tokens.verify import Verifier

MAX_REFUSED = 1024
PART = 10_000  # tokens; a table that outgrows its place is laid anew in one go, 24 ms for 170,000

_FIXED = struct.Struct("Qdd")  # the principal's number, exp, checked_at; behind it comes the jti
_ANY = "surrogatepass"  # JSON can write half a character, and a jti may hold one


def digest_of(token: bytes) -> bytes:
    """What a token is known by: its SHA-256. The token itself is not kept."""
    return hashlib.sha256(token).digest()


class Refused(NamedTuple):
    """A refusal as it can be raised again: the exception itself would keep the token alive in its traceback."""

    reason: Reason
    description: str
    issuer: str
    key: Key | None


class _Part:
    """At most ``size`` tokens, in the order of their use.

    A full garbage collection looks at each object that may refer to another: 60 ms for 160,000 of them. So a token is
    none but bytes, with a number for what many tokens share.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._tokens: dict[bytes, bytes] = {}
        self._principals: dict[int, Principal] = {}  # by id()
        self._uses: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def get(self, digest: bytes) -> VerifiedToken | None:
        kept = self._tokens.get(digest)
        if kept is None:
            return None
        number, exp, checked_at = _FIXED.unpack_from(kept)
        return VerifiedToken(self._principals[number], exp, kept[_FIXED.size :].decode("utf-8", _ANY), checked_at)

    def use(self, digest: bytes) -> None:
        """Make it the last to leave."""
        self._tokens[digest] = self._tokens.pop(digest)

    def put(self, digest: bytes, token: VerifiedToken) -> None:
        self._drop(digest)
        number = id(token.principal)
        self._principals[number] = token.principal
        self._uses[number] = self._uses.get(number, 0) + 1
        self._tokens[digest] = _FIXED.pack(number, token.exp, token.checked_at) + token.jti.encode("utf-8", _ANY)
        if len(self._tokens) > self._size:
            # Several at once: to find the first of a dictionary passes every gap before it.
            for oldest in list(islice(self._tokens, 1 + self._size // 100)):
                self._drop(oldest)

    def _drop(self, digest: bytes) -> None:
        kept = self._tokens.pop(digest, None)
        if kept is None:
            return
        number = _FIXED.unpack_from(kept)[0]
        self._uses[number] -= 1
        if not self._uses[number]:
            del self._uses[number], self._principals[number]

    def clear(self) -> None:
        for table in (self._tokens, self._principals, self._uses):
            table.clear()


class CachedVerifier:
    """In front of a Verifier. Only tokens that verify are kept, so strangers cannot fill it.

    ``size`` is a number of tokens, ``ttl`` in seconds; ``digest`` is ``digest_of`` a token. An entry is looked at when
    it is read, and those unused for longest leave when their place is needed: nothing sweeps.

    A refusal that nothing but the token's bytes decided, or a signature and a key that is still in force, is remembered
    too, apart and for few: whoever sends the same garbage again and again costs no parsing and no signature check.
    """

    def __init__(self, verifier: Verifier, *, size: int, ttl: float, clock: Clock) -> None:
        self._verifier = verifier
        count = max(1, size // PART)
        self._parts = tuple(_Part(size // count) for _ in range(count))
        self._refused: OrderedDict[bytes, Refused] = OrderedDict()
        self._keeps = size > 0 and ttl > 0
        self._ttl = ttl
        self._clock = clock
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def _part(self, digest: bytes) -> _Part:
        return self._parts[hash(digest) % len(self._parts)]

    def get(self, digest: bytes) -> VerifiedToken | None:
        """The verified token, if it is known, has not expired and its key is still in force."""
        part = self._part(digest)
        known = part.get(digest)
        if known is not None and not known.principal.key.retired:
            now = self._clock()
            if now < known.exp and now - known.checked_at < self._ttl:
                self.hits += 1
                part.use(digest)
                return known
        self.misses += 1
        return None

    async def verify(self, token: bytes, digest: bytes) -> VerifiedToken:
        """Verify with the wrapped verifier and keep what verified. Raises Rejected."""
        refused = self._refused.get(digest)
        if refused is not None and (refused.key is None or not refused.key.retired):
            raise Rejected(refused.reason, refused.description, issuer=refused.issuer, key=refused.key)
        try:
            verified = await self._verifier.verify(token)
        except GeneratorExit:
            self.misses -= 1  # it would have to wait for keys, and begins again where it can
            raise
        except Rejected as no:
            if self._keeps and (no.key is not None or not no.issuer):
                self._refused[digest] = Refused(no.reason, no.description, no.issuer, no.key)
                if len(self._refused) > MAX_REFUSED:
                    self._refused.popitem(last=False)
            raise
        if self._keeps:
            self._part(digest).put(digest, verified)
        return verified

    async def clear(self) -> None:
        """Forget everything, a little at a time: to free 100,000 tokens at once would hold up requests."""
        for part in self._parts:
            part.clear()
            await asyncio.sleep(0)

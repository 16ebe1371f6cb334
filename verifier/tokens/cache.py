"""Verified tokens, kept for a while. Decisions are never kept."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from sys import getsizeof

from cachetools import LRUCache

from verifier.clock import Clock
from verifier.identity import VerifiedToken
from verifier.reasons import Reason, Rejected
from verifier.tokens.verify import TokenVerifier

ENTRY_BYTES = 4096
"""The memory that each of ``cache.size`` tokens may take on average; a larger token takes the place of several."""
OVERHEAD = 1280  # bytes of an entry and its principal beside their texts: objects, and places in four dictionaries
PER_TEXT = 56  # bytes of a string beside its characters
BINDING = 256  # bytes of a binding with both thumbprints

MAX_REFUSALS = 1024
REFUSAL_TTL = 10.0  # seconds; as long as an unknown key may wait for the next fetch

# Nothing but the token's bytes, or a signature, decides these: the same bytes are refused again without a check. One
# that newer keys may change is not remembered before they have been fetched.
_REMEMBERED = frozenset(
    {Reason.MALFORMED_TOKEN, Reason.UNSUPPORTED_ALGORITHM, Reason.UNKNOWN_ISSUER, Reason.BAD_SIGNATURE}
)


class CachedVerifier:
    """Keeps what a verifier verified: at most ``size`` tokens and ``size * ENTRY_BYTES`` bytes, the last used ones.

    ``ttl`` is in seconds; 0 for either turns it off. Tokens are found by their SHA-256 and are not stored themselves.
    Only verified tokens that a policy could allow are kept, so that other clients cannot fill it: their issuer lists
    the client, and they have at most ``max_identity_bytes`` of identity headers. A few refusals are kept apart, so that
    a client that repeats a bad token costs no second signature check.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        *,
        size: int,
        ttl: float,
        clock: Clock,
        max_identity_bytes: int,
        timer: Clock = time.monotonic,
    ) -> None:
        self._verifier = verifier
        self._max_identity_bytes = max_identity_bytes
        self._tokens: LRUCache[bytes, VerifiedToken] = LRUCache(size * ENTRY_BYTES if ttl > 0 else 0, memory_of)
        refusals = MAX_REFUSALS if self._tokens.maxsize else 0
        # Reason, description, issuer and end: the exception would keep the token alive in its traceback.
        self._refusals: LRUCache[bytes, tuple[Reason, str, str, float]] = LRUCache(refusals)
        self._timer = timer
        self._ttl = ttl
        self._clock = clock

    def __len__(self) -> int:
        return len(self._tokens)

    def verify(self, token: bytes) -> tuple[VerifiedToken, bool]:
        """The verified token, and whether it was found here. Raises Rejected."""
        digest = hashlib.sha256(token).digest()
        known = self._tokens.get(digest)
        if known is not None and not known.key.retired:
            now = self._clock()
            if now < known.exp and now - known.checked_at < self._ttl:
                return known, True
        refusal = self._refusals.get(digest)
        if refusal is not None and self._timer() < refusal[3]:
            reason, description, issuer, _ = refusal
            raise Rejected(reason, description, issuer=issuer)
        try:
            verified = self._verifier.verify(token)
        except Rejected as rejected:
            if rejected.reason in _REMEMBERED and rejected.refresh is None and self._refusals.maxsize:
                until = self._timer() + REFUSAL_TTL
                self._refusals[digest] = rejected.reason, rejected.description, rejected.issuer, until
            raise
        principal = verified.principal
        if principal.listed and len(principal.header_lines) <= self._max_identity_bytes:
            with suppress(ValueError):  # it is larger than the whole cache
                self._tokens[digest] = verified
        return verified, False


def memory_of(token: VerifiedToken) -> int:
    """The bytes that an entry is counted with: at least ``ENTRY_BYTES``, and as if nothing of it were shared."""
    principal = token.principal
    scope_bytes = len(principal.scope) * (2 if principal.scope_prefix else 1)  # with and without the prefix
    strings = len(principal.scopes) + principal.header_lines.count(b"\n")
    own = (BINDING if token.binding else 0) + getsizeof(token.jti) + getsizeof(principal.scopes) + strings * PER_TEXT
    own += getsizeof(token.resources) + sum(map(getsizeof, token.resources))
    return max(ENTRY_BYTES, OVERHEAD + own + 2 * len(principal.header_lines) + scope_bytes)

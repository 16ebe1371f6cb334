"""Who calls: values that are verified, frozen and safe to become response headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from verifier.keys.jwk import Key

# RFC 9110 section 5.5 allows more; nginx, Envoy and the APIs behind them agree on this much.
HEADER_SAFE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
VISIBLE = re.compile(r"[!-~]+")

IDENTITY_HEADERS = ("X-M2M-Client-ID", "X-M2M-Scope", "X-M2M-Role", "X-M2M-Issuer")

type_headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Principal:
    """A client with one set of scopes, signed for by one key: shared by all of its tokens that say the same."""

    key: Key
    """Once it leaves the issuer's key set, the tokens are verified anew."""
    issuer: str
    """The issuer's configured name."""
    client_id: str
    scope: str
    """As granted, space-separated."""
    scopes: frozenset[str]
    """As granted, and without the issuer's prefix where they carry it."""
    scope_prefix: str
    role: str
    listed: bool
    """Whether the issuer's own list of clients, where it has one, holds this client."""
    headers: type_headers
    """The identity headers of an answer, encoded once."""
    header_bytes: int
    """What ``headers`` take on the wire, in bytes."""


class VerifiedToken(NamedTuple):
    """A token whose signature and claims were checked."""

    principal: Principal
    exp: float
    """Seconds since the epoch."""
    jti: str
    checked_at: float
    """Seconds since the epoch."""


def encode_headers(pairs: list[tuple[str, str]]) -> type_headers:
    """Header pairs as ASGI wants them: lower-case names, ASCII bytes."""
    return tuple((name.lower().encode("ascii"), value.encode("ascii")) for name, value in pairs)


def wire_size(headers: type_headers) -> int:
    """Bytes that ``headers`` take in a response: each line has a colon, a space, CR and LF."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they go over the wire (RFC 9112 section 5)."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])

"""The verified caller: frozen values that are safe to become response headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

# RFC 9110 section 5.5 allows more; nginx, Envoy and the APIs behind them agree on this much.
HEADER_SAFE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
VISIBLE = re.compile(r"[!-~]+")

IDENTITY_HEADERS = ("X-M2M-Client-ID", "X-M2M-Scope", "X-M2M-Role", "X-M2M-Issuer")

Headers = tuple[tuple[bytes, bytes], ...]
"""Names and values, encoded."""


class SigningKey(Protocol):
    """The key that signed a token."""

    retired: bool
    """True once the key has left its issuer's key set: the token has to be verified again."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Principal:
    """A client with one set of scopes and mapped claims, shared by all of its tokens that carry the same."""

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
    header_lines: bytes
    """The identity headers of an answer, as they are sent."""


class Binding(NamedTuple):
    """What a token is bound to (``cnf``, RFC 7800): each thumbprint that is there needs its proof, in every request."""

    jkt: str | None
    """Of the key that signs DPoP proofs (RFC 9449 section 6.1)."""
    certificate: str | None
    """Of the client's TLS certificate, ``x5t#S256`` (RFC 8705 section 3.1)."""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token whose signature and claims were checked."""

    principal: Principal
    key: SigningKey
    exp: float
    """Seconds since the epoch."""
    jti: str
    checked_at: float
    """Seconds since the epoch."""
    binding: Binding | None = None
    """None: whoever presents the token may use it."""
    resources: frozenset[str] = frozenset()
    """The URLs in ``aud`` that are the ``resource`` of a policy (RFC 8707)."""


def encode_headers(pairs: list[tuple[str, str]]) -> Headers:
    """Header pairs as ASGI wants them: lower-case names, ASCII bytes."""
    return tuple((name.lower().encode("ascii"), value.encode("ascii")) for name, value in pairs)


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers in the form of RFC 9112 section 5."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


def split_headers(lines: bytes) -> Headers:
    """The inverse of ``header_lines``."""
    return tuple((name, value) for name, _, value in (line.partition(b": ") for line in lines.split(b"\r\n")[:-1]))

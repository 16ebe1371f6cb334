"""Rows of the hostile table, and the ways to bend a token that its rows are written with."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from verifier.reasons import Reason as R

from .tokens import (
    ABSENT,
    NOW,
    Token,
    b64,
    hmac,
    ordinary_claims,
    ordinary_header,
    part,
    public_bytes,
    raw_claims,
)
from .world import URL, Answer, World

Recipe = Token | bytes | Callable[[], bytes] | None
"""A token, or how to make it when it is first needed (keys take time); None: no Authorization header."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What nginx asks with, beside the token."""

    authorization: tuple[bytes, ...] = (b"Bearer %s",)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    path: str = "/verify"
    query: bytes = b""
    url: bytes | None = URL
    method: bytes | None = b"GET"

    def ask(self, world: World, token: bytes | None) -> Answer:
        """Send it."""
        return world.ask(token, **vars(self))


@dataclass(frozen=True)
class Case:
    """One request and the reason it must meet."""

    name: str
    reason: R
    token: Recipe
    request: Request = field(default_factory=Request)
    world: str = "main"

    def encode(self) -> bytes | None:
        """The token's bytes."""
        if isinstance(self.token, Token):
            return self.token.encode()
        return self.token() if callable(self.token) else self.token


def cases(reason: R, rows: Mapping[str, Recipe], world: str = "main", **request: Any) -> list[Case]:
    """Rows that share their reason and their request."""
    return [Case(name, reason, token, Request(**request), world) for name, token in rows.items()]


def header(**changes: Any) -> Token:
    """An ordinary token of the generic issuer with another header."""
    return Token(header=changes)


def claims(**changes: Any) -> Token:
    """The same with other claims."""
    return Token(claims=changes)


def unsigned(algorithm: Any, signature: bytes = b"") -> Token:
    """A token that asks to be believed without a signature."""
    return Token(header={"alg": algorithm, "kid": ABSENT}, signature=lambda _: signature)


def replaced(place: int, edit: Callable[[bytes], bytes], token: Token | None = None) -> Token:
    """An ordinary token with one of its three parts edited after it was signed."""

    def edit_part(encoded: bytes) -> bytes:
        parts = encoded.split(b".")
        parts[place] = edit(parts[place])
        return b".".join(parts)

    made = token or Token()
    return Token(made.issuer, made.header, made.claims, made.signer, made.algorithm, made.signature, edit_part)


def trailing_bit(encoded: bytes) -> bytes:
    """Another spelling of the same bytes: the last character's unused bits are set."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(encoded) % 4 in (2, 3)
    return encoded[:-1] + bytes([alphabet[alphabet.index(encoded[-1:]) + 1]])


def padded_to(remainder: int, part_of: str) -> Token:
    """A token whose header or claims take a whole number of bytes more than a multiple of three: base64 has a tail."""
    base = ordinary_header("generic") if part_of == "header" else ordinary_claims("generic")
    pad = "x" * ((remainder - len(json.dumps({**base, "pad": ""}))) % 3)
    return header(pad=pad) if part_of == "header" else claims(pad=pad)


def nested(brackets: int) -> bytes:
    """A member whose value is a list in a list in a list."""
    return b'"deep": ' + b"[" * brackets + b"]" * brackets


def json_serialization(*, flattened: bool) -> bytes:
    """RFC 7515 section 7.2 instead of the compact form."""
    protected, payload, signature = Token().encode().decode().split(".")
    one = {"protected": protected, "signature": signature}
    whole = {"payload": payload, **one} if flattened else {"payload": payload, "signatures": [one]}
    return json.dumps(whole, separators=(",", ":")).encode()


def jwe(**header: Any) -> bytes:
    """An encrypted token's five parts, filled with zeros."""
    return b".".join([part(header), *[b64(bytes(16))] * 4])


def der(signature: bytes) -> bytes:
    """An ES256 signature as ASN.1 instead of two numbers of 32 bytes (RFC 7518 section 3.4)."""
    raw = urlsafe_b64decode(signature + b"==")
    return b64(encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:])))


def hmac_with_public(issuer: str, encoding: Encoding, form: PublicFormat, **recipe: Any) -> Callable[[], bytes]:
    """RFC 8725 section 2.1: the public key used as if it were a shared secret."""
    recipe = {"header": {"alg": "HS256"}, **recipe}
    return lambda: Token(issuer, signature=hmac(public_bytes(issuer, encoding, form)), **recipe).encode()


def self_signed(**members: Any) -> Callable[[], bytes]:
    """Signed by the attacker's own key, which the header itself offers."""
    return lambda: Token(header={"kid": "attacker", **members}, signer="rogue").encode()


def cognito(**changes: Any) -> Token:
    """An ordinary Cognito token with other claims."""
    return Token("homelab", claims=changes)


def raw(extra: bytes) -> Token:
    """An ordinary token with a member of its claims written by hand."""
    return Token(claims=raw_claims("generic", extra))


def exp_written(number: str) -> Token:
    """An ordinary token whose exp is written as only a hand would."""
    return Token(claims=json.dumps(ordinary_claims("generic")).replace(f"{NOW + 3600}", number).encode())


def large(number: int) -> Token:
    """A token with so many scopes of 100 characters."""
    return claims(scope=" ".join(f"{place:0100d}" for place in range(number)))


TWO = (b"Bearer %s",) * 2

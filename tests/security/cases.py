"""Rows of the hostile table, and the ways to change a token that its rows are written with."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.minting import ABSENT
from verifier.reasons import Reason

from .running_app import Answer, Request, RunningApp
from .tokens import NOW, Token, b64, ordinary_claims, ordinary_header, part, with_member

Recipe = Token | bytes | Callable[[], bytes] | None
"""A token, or how to make it when it is first needed (keys take time); None: no Authorization header."""


@dataclass(frozen=True)
class Case:
    """One request and the reason that its answer must give."""

    name: str
    reason: Reason
    recipe: Recipe
    request: Request = field(default_factory=Request)
    app: str = "main"

    @cached_property
    def token(self) -> bytes | None:
        """The token's bytes."""
        if isinstance(self.recipe, Token):
            return self.recipe.encode()
        return self.recipe() if callable(self.recipe) else self.recipe

    def ask(self, app: RunningApp, *, asgi: bool = False, **changes: Any) -> Answer:
        """Send it, with ``changes`` to the request."""
        return app.ask(self.token, asgi=asgi, **{**vars(self.request), **changes})


def cases(reason: Reason, rows: Mapping[str, Recipe], app: str = "main", **request: Any) -> list[Case]:
    """Rows that share their reason and their request."""
    return [Case(name, reason, token, Request(**request), app) for name, token in rows.items()]


def claim(reason: Reason, name: str, *values: Any, issuer: str = "generic", **others: Any) -> list[Case]:
    """One row for each value of a claim; ``others`` are further claims."""
    tokens = [Token(issuer, claims={name: value, **others}) for value in values]
    prefix = "" if issuer == "generic" else f"{issuer}: "
    return cases(reason, {f"{prefix}{name} {written(value)}": token for value, token in zip(values, tokens)})


def parameter(reason: Reason, name: str, *values: Any) -> list[Case]:
    """One row for each value of a header parameter."""
    return cases(reason, {f"{name} {written(value)}": Token(header={name: value}) for value in values})


def written(value: Any) -> str:
    """A value in a row's name."""
    return "missing" if value is ABSENT else json.dumps(value)


def header(**changes: Any) -> Token:
    """An ordinary token of the generic issuer with another header."""
    return Token(header=changes)


def claims(**changes: Any) -> Token:
    """The same with other claims."""
    return Token(claims=changes)


def unsigned(algorithm: Any, signature: bytes = b"") -> Token:
    """A token that claims to need no signature."""
    return Token(header={"alg": algorithm, "kid": ABSENT}, signature=lambda _: signature)


def replaced(place: int, edit: Callable[[bytes], bytes], token: Token | None = None) -> Token:
    """An ordinary token with one of its three parts edited after it was signed."""

    def edit_part(encoded: bytes) -> bytes:
        parts = encoded.split(b".")
        parts[place] = edit(parts[place])
        return b".".join(parts)

    return replace(token or Token(), edit=edit_part)


def trailing_bit(encoded: bytes) -> bytes:
    """Another spelling of the same bytes: the last character's unused bits are set."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(encoded) % 4 in (2, 3)
    return encoded[:-1] + bytes([alphabet[alphabet.index(encoded[-1:]) + 1]])


def with_padding(encoded: bytes) -> bytes:
    """Base64 with the padding that RFC 7515 forbids."""
    assert len(encoded) % 4
    return encoded + b"=" * (-len(encoded) % 4)


def tail_of(remainder: int, part_of: str) -> Token:
    """A token whose header or claims take ``remainder`` bytes more than a multiple of three: base64 has a tail."""
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


def self_signed(**members: Any) -> Callable[[], bytes]:
    """Signed by the attacker's own key, which the header itself offers."""
    return lambda: Token(header={"kid": "attacker", **members}, signer="rogue").encode()


def raw_header(member: bytes) -> Token:
    """An ordinary token with a member of its header in any form."""
    return Token(header=with_member(ordinary_header("generic"), member))


def raw(member: bytes) -> Token:
    """An ordinary token with a member of its claims in any form."""
    return Token(claims=with_member(ordinary_claims("generic"), member))


def exp_written(number: str) -> Token:
    """An ordinary token whose exp is a number that no JSON library writes."""
    return Token(claims=json.dumps(ordinary_claims("generic")).replace(f"{NOW + 3600}", number).encode())


def large(number: int) -> Token:
    """A token with so many scopes of 100 characters."""
    return claims(scope=" ".join(f"{place:0100d}" for place in range(number)))

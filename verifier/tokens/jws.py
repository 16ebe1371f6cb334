"""The form of a token: strict parsing of a compact JWS (RFC 7515). Nothing here is verified."""

from __future__ import annotations

from binascii import a2b_base64
from functools import lru_cache
from typing import NamedTuple

from verifier.keys.jwk import Thumbprint, thumbprints
from verifier.reasons import Reason, Rejected
from verifier.strict_json import parse_object
from verifier.tokens.claims import Claims

MAX_TOKEN_BYTES = 16 * 1024

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# By the length modulo 4. Bits that no byte uses must be zero, else one token would have many spellings.
_LAST = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")
_PADDING = (b"", b"", b"==", b"=")
# To base64's alphabet; what base64 has and base64url has not becomes what neither has.
_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/...")


class Header(NamedTuple):
    """What a token's header says; kid is optional (RFC 7515 section 4.1.4), and so is typ (RFC 7519 section 5.1)."""

    algorithm: str
    kid: str | None
    typ: str | None
    """As ``media_type`` gives it, None where absent."""
    thumbprints: tuple[Thumbprint, ...] = ()
    """Of the certificate of its key (RFC 7515 sections 4.1.7 and 4.1.8)."""


class UnverifiedToken(NamedTuple):
    """The parts of a token. Only their form has been checked."""

    header: Header
    claims_part: bytes
    signing_input: bytes
    signature: bytes


def decode_part(part: bytes) -> bytes:
    """Decode canonical base64url without padding (RFC 7515 section 2, RFC 4648 section 3.5). Raises ValueError."""
    unused = len(part) % 4
    if unused and part[-1] not in _LAST[unused]:
        raise ValueError("not canonical base64url")
    return a2b_base64(part.translate(_TO_BASE64) + _PADDING[unused], strict_mode=True)


def parse_compact(token: bytes) -> UnverifiedToken:
    """Parse a compact JWS and its header (RFC 7515 sections 3.1 and 7.1). Raises Rejected."""
    if len(token) > MAX_TOKEN_BYTES:
        raise _malformed(f"the token is longer than {MAX_TOKEN_BYTES // 1024} KiB")
    # RFC 7515 section 3.1: three base64url parts without padding (section 2). The first and the last are checked when
    # they are decoded; an empty signature is left to the algorithm.
    parts = token.split(b".", 3)
    if len(parts) != 3 or parts[1].translate(None, _ALPHABET):
        raise _malformed("after Bearer there must be one token: three base64url parts with dots between them")
    header_part, claims_part, signature_part = parts
    header = _parse_header(header_part)
    try:
        signature = decode_part(signature_part)
    except ValueError as error:
        raise _malformed("the token's signature is not canonical base64url") from error
    return UnverifiedToken(header, claims_part, token[: -len(signature_part) - 1], signature)


@lru_cache(maxsize=64)  # all tokens that one key signs begin with the same header
def _parse_header(part: bytes) -> Header:
    """RFC 7515 section 4. Raises Rejected."""
    try:
        header = parse_object(decode_part(part))
    except ValueError as error:
        raise _malformed("the token's header is not canonical base64url of a JSON object") from error
    algorithm, kid, typ = header.get("alg"), header.get("kid"), header.get("typ", "")
    if not isinstance(algorithm, str) or not isinstance(typ, str) or not (kid is None or isinstance(kid, str)):
        raise _malformed("alg, kid or typ in the token's header is missing or not a string")
    if "crit" in header or header.get("b64", True) is not True:
        # RFC 7515 section 4.1.11: extensions that we do not know must fail the token; RFC 7797 section 6 asks for crit.
        raise _malformed("the token's header asks for an extension")
    if "enc" in header:
        raise _malformed("the token is encrypted")  # RFC 7516 section 9: enc marks a JWE
    return Header(algorithm, kid, media_type(typ) if "typ" in header else None, thumbprints(header))


def media_type(typ: str) -> str:
    """A ``typ`` in lower case and without ``application/``, which may be left out (RFC 7515 section 4.1.9)."""
    short = typ.lower().removeprefix("application/")
    return typ.lower() if "/" in short else short


def _malformed(description: str) -> Rejected:
    return Rejected(Reason.MALFORMED_TOKEN, description)


def unverified_claims(token: UnverifiedToken) -> Claims:
    """Parse the claims (RFC 7519 section 7.2). Raises Rejected."""
    try:
        return parse_object(decode_part(token.claims_part))
    except ValueError as error:
        raise Rejected(
            Reason.INVALID_CLAIMS, "the token's claims are not canonical base64url of a JSON object"
        ) from error

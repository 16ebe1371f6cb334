"""JSON Web Keys: which of them can verify signatures, and with which algorithms (RFC 7517, RFC 7518, RFC 8037)."""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from jwt import PyJWK
from jwt.algorithms import Algorithm
from jwt.exceptions import PyJWTError

from verifier.strict_json import parse_object

MAX_KEYS = 100
RSA_BITS = (2048, 8192)  # RFC 7518 section 3.3; a signature check with a longer key takes too long
MAX_EXPONENT_BITS = 32  # the cost of a check grows with the exponent

# RFC 7518 section 3.1, RFC 8037 section 3.1, RFC 9864 section 2.2. Only public members: private ones are ignored.
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_SYMMETRIC = {"HS256": 32, "HS384": 48, "HS512": 64}  # smallest key, in bytes: RFC 7518 section 3.2
_KEY_TYPES: Mapping[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("RSA", ""): (_RSA, ("n", "e")),
    ("EC", "P-256"): (("ES256",), ("x", "y")),
    ("EC", "P-384"): (("ES384",), ("x", "y")),
    ("EC", "P-521"): (("ES512",), ("x", "y")),
    ("OKP", "Ed25519"): (("EdDSA", "Ed25519"), ("x",)),
    ("OKP", "Ed448"): (("EdDSA",), ("x",)),
    ("oct", ""): (tuple(_SYMMETRIC), ("k",)),
}
# Length of each coordinate in bytes, leading zeros included: RFC 7518 section 6.2.1.2, RFC 8032 section 5.
_COORDINATE_BYTES = {"P-256": 32, "P-384": 48, "P-521": 66, "Ed25519": 32, "Ed448": 57}
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")

SYMMETRIC_ALGORITHMS = frozenset(_SYMMETRIC)
ASYMMETRIC_ALGORITHMS = tuple(
    dict.fromkeys(name for algorithms, _ in _KEY_TYPES.values() for name in algorithms if name not in _SYMMETRIC)
)
ED25519_NAMES = {"EdDSA": "Ed25519", "Ed25519": "EdDSA"}
"""With an Ed25519 key both names are one algorithm (RFC 9864)."""

NOT_FOR_SIGNATURES = "it is not for signatures"
"""The cause for keys that serve another purpose, which is no mistake of the issuer."""

Thumbprint = tuple[str, str]
"""The name and value of an ``x5t`` or ``x5t#S256``."""


@dataclass(slots=True, eq=False, repr=False)
class Key:
    """One verification key and the algorithms it fits."""

    kid: str | None
    identity: str
    """A digest of the whole key: another key with the same ``kid`` has another one."""
    verifiers: Mapping[str, tuple[Algorithm, Any]]
    """What checks a signature, by algorithm."""
    thumbprints: tuple[Thumbprint, ...] = ()
    retired: bool = False
    """True once the key has left its issuer's key set."""

    def fits(self, algorithm: str) -> bool:
        """Whether the key may be used with ``algorithm`` (RFC 8725 section 3.1)."""
        return algorithm in self.verifiers

    def verify(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """Check a signature; ``algorithm`` must be one that fits."""
        implementation, key = self.verifiers[algorithm]
        return implementation.verify(signing_input, key, signature)


class UnusableKey(NamedTuple):
    """A published key that cannot verify a signature here."""

    kid: str | None
    cause: str
    """ASCII without quotes or backslashes; it never quotes the key."""


class ParsedKeys(NamedTuple):
    """The keys of one set."""

    usable: tuple[Key, ...]
    unusable: tuple[UnusableKey, ...] = ()


def thumbprints(members: Mapping[str, Any]) -> tuple[Thumbprint, ...]:
    """The certificate thumbprints in a JWK (RFC 7517 section 4.8) or a token's header (RFC 7515 section 4.1.7)."""
    found = ((name, members.get(name)) for name in ("x5t", "x5t#S256"))
    return tuple((name, value) for name, value in found if isinstance(value, str))


def _kind_of(jwk: Mapping[str, Any], *, symmetric: bool = False) -> tuple[str, str]:
    """Type and curve of a key, as in ``_KEY_TYPES``. Raises ValueError on another."""
    kty = jwk.get("kty")
    kind = (str(kty), str(jwk.get("crv", "")) if kty in ("EC", "OKP") else "")
    if kind not in _KEY_TYPES or (kty == "oct" and not symmetric):
        raise ValueError("its type is not supported")
    return kind


def thumbprint_input(jwk: Mapping[str, Any]) -> bytes:
    """What is hashed to the thumbprint of an asymmetric key (RFC 7638 section 3). Raises ValueError on another."""
    kind = _kind_of(jwk)
    names = ("kty", *(("crv",) if kind[1] else ()), *_KEY_TYPES[kind][1])
    required = {name: jwk.get(name) for name in names}
    if not all(isinstance(value, str) for value in required.values()):
        raise ValueError("a member is missing or not a string")
    return json.dumps(required, sort_keys=True, separators=(",", ":")).encode()


def parse_key(jwk: Any, *, symmetric: bool = False) -> Key:
    """Make a Key from a JWK (RFC 7517). Raises ValueError with the cause, which never quotes the key."""
    if not isinstance(jwk, dict):
        raise ValueError("it is not an object")
    kid, use, operations = jwk.get("kid"), jwk.get("use", "sig"), jwk.get("key_ops", ["verify"])
    if not (kid is None or isinstance(kid, str)):
        raise ValueError("its kid is not a string")
    if use != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise ValueError(NOT_FOR_SIGNATURES)
    kind = _kind_of(jwk, symmetric=symmetric)
    algorithms, members = _KEY_TYPES[kind]
    if (alg := jwk.get("alg")) is not None:  # RFC 7517 section 4.4: the only algorithm it is for
        if alg not in algorithms:
            raise ValueError("its alg does not fit its type")
        algorithms = algorithms if alg in ED25519_NAMES else (alg,)
    octets = {name: _octets(name, jwk.get(name)) for name in members}
    algorithms = _fitting(kind, octets, algorithms)
    public = {"kty": kind[0], "crv": kind[1], **{name: jwk[name] for name in members}}
    try:
        made = {name: PyJWK(public, "EdDSA" if name == "Ed25519" else name) for name in algorithms}
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        raise ValueError("it is malformed") from None
    named = thumbprints(jwk)
    canonical = json.dumps([kid, sorted(made), public, named], sort_keys=True)
    verifiers = {name: (one.Algorithm, one.key) for name, one in made.items()}
    return Key(kid, hashlib.sha256(canonical.encode()).hexdigest(), verifiers, named)


def _octets(name: str, value: Any) -> bytes:
    if value is None:
        raise ValueError(f"{name} is missing")
    if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
        raise ValueError(f"{name} is not base64url")
    digits = value.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    try:
        return binascii.a2b_base64(digits + "=" * (-len(digits) % 4))
    except binascii.Error:
        raise ValueError(f"{name} is not base64url") from None


def _fitting(kind: tuple[str, str], octets: Mapping[str, bytes], algorithms: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``algorithms`` for which the key is long enough. Raises ValueError where its size is not accepted."""
    kty, crv = kind
    if kty == "RSA":
        bits = int.from_bytes(octets["n"]).bit_length()
        if not RSA_BITS[0] <= bits <= RSA_BITS[1]:
            raise ValueError("it is an RSA key of {} bits, not of {} to {}".format(bits, *RSA_BITS))
        if int.from_bytes(octets["e"]).bit_length() > MAX_EXPONENT_BITS:
            raise ValueError(f"its exponent has more than {MAX_EXPONENT_BITS} bits")
    elif kty == "oct":
        algorithms = tuple(name for name in algorithms if len(octets["k"]) >= _SYMMETRIC[name])
        if not algorithms:
            raise ValueError("it is too short")
    else:
        for name, value in octets.items():
            if len(value) != _COORDINATE_BYTES[crv]:
                raise ValueError(f"{name} has {len(value)} bytes, not {_COORDINATE_BYTES[crv]} as {crv} requires")
    return algorithms


def parse_key_set(body: bytes, *, symmetric: bool = False) -> ParsedKeys:
    """Parse a JWK Set (RFC 7517 section 5). It may hold no usable key. Raises ValueError where it is no key set."""
    listed = parse_object(body).get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"not a key set of at most {MAX_KEYS} keys")
    usable: dict[str, Key] = {}  # by identity: a key that is listed twice counts once
    unusable = []
    for jwk in listed:
        try:
            key = parse_key(jwk, symmetric=symmetric)
            usable[key.identity] = key
        except ValueError as error:
            kid = jwk.get("kid") if isinstance(jwk, dict) else None
            unusable.append(UnusableKey(kid if isinstance(kid, str) else None, str(error)))
    return ParsedKeys(tuple(usable.values()), tuple(unusable))


def parse_key_file(content: bytes) -> ParsedKeys:
    """Parse a file with a JWK Set, shared secrets included. Raises ValueError where no key is usable."""
    parsed = parse_key_set(content, symmetric=True)
    if not parsed.usable:
        causes = "".join(f": {key.cause}" for key in parsed.unusable[:1])
        raise ValueError(f"no key in it can verify a signature{causes}")
    return parsed

"""JSON Web Keys: which of them can verify signatures, and with which algorithms (RFC 7517, RFC 7518, RFC 8037)."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.algorithms import Algorithm
from jwt.exceptions import PyJWTError

from verifier.strict_json import parse_object

log = logging.getLogger(__name__)

MAX_KEYS = 100

# RFC 7518 section 3.1, RFC 8037 section 3.1. Only public members: private ones in a set are ignored.
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_SYMMETRIC = {"HS256": 32, "HS384": 48, "HS512": 64}  # smallest key, in bytes: RFC 7518 section 3.2
_KEY_TYPES: Mapping[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("RSA", ""): (_RSA, ("n", "e")),
    ("EC", "P-256"): (("ES256",), ("crv", "x", "y")),
    ("EC", "P-384"): (("ES384",), ("crv", "x", "y")),
    ("EC", "P-521"): (("ES512",), ("crv", "x", "y")),
    ("OKP", "Ed25519"): (("EdDSA",), ("crv", "x")),
    ("OKP", "Ed448"): (("EdDSA",), ("crv", "x")),
    ("oct", ""): (tuple(_SYMMETRIC), ("k",)),
}

SYMMETRIC_ALGORITHMS = frozenset(_SYMMETRIC)


class Key:
    """One verification key and the algorithms it fits."""

    __slots__ = ("_verifiers", "identity", "kid", "retired")

    def __init__(self, kid: str | None, identity: str, verifiers: Mapping[str, tuple[Algorithm, Any]]) -> None:
        self.kid = kid
        self.identity = identity
        """A digest of the whole key: another key with the same ``kid`` has another one."""
        self.retired = False
        """True once the key has left its issuer's key set."""
        self._verifiers = verifiers

    def fits(self, algorithm: str) -> bool:
        """Whether the key may be used with ``algorithm`` (RFC 8725 section 3.1)."""
        return algorithm in self._verifiers

    def verify(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """Check a signature; ``algorithm`` must be one that fits."""
        implementation, key = self._verifiers[algorithm]
        return implementation.verify(signing_input, key, signature)


def parse_key(jwk: Any, *, symmetric: bool = False) -> Key:
    """Make a Key from a JWK (RFC 7517). Raises ValueError with the reason, which never quotes the key."""
    if not isinstance(jwk, dict):
        raise ValueError("not an object")
    kid, use, operations = jwk.get("kid"), jwk.get("use", "sig"), jwk.get("key_ops", ["verify"])
    if not (kid is None or isinstance(kid, str)):
        raise ValueError("kid is not a string")
    if use != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("not for signatures")
    kty, crv = jwk.get("kty"), jwk.get("crv", "")
    kind = (str(kty), str(crv) if kty in ("EC", "OKP") else "")
    if kind not in _KEY_TYPES or (kind == ("oct", "") and not symmetric):
        raise ValueError("its type is not supported")
    algorithms, members = _KEY_TYPES[kind]
    if jwk.get("alg") is not None:  # RFC 7517 section 4.4: the only algorithm it is for
        algorithms = tuple(name for name in algorithms if name == jwk["alg"])
    public = {"kty": kty, **{name: jwk.get(name) for name in members}}
    try:
        verifiers = {name: _verifier(public, name) for name in algorithms}
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        raise ValueError("malformed") from None
    if kty == "oct":
        verifiers = {name: pair for name, pair in verifiers.items() if len(pair[1]) >= _SYMMETRIC[name]}
    if not verifiers:
        raise ValueError("too short, or for an algorithm that does not fit it")
    canonical = json.dumps([kid, sorted(verifiers), public], sort_keys=True)
    return Key(kid, hashlib.sha256(canonical.encode()).hexdigest(), verifiers)


def _verifier(public: dict[str, Any], algorithm: str) -> tuple[Algorithm, Any]:
    made = PyJWK(public, algorithm)
    if isinstance(made.key, RSAPublicKey) and made.key.key_size < 2048:
        raise ValueError("shorter than RFC 7518 section 3.3 requires")
    return made.Algorithm, made.key


def parse_key_set(body: bytes, *, symmetric: bool = False) -> list[Key]:
    """Parse a JWK Set (RFC 7517 section 5), skipping unusable keys. Raises ValueError if none is left."""
    listed = parse_object(body).get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"not a key set of at most {MAX_KEYS} keys")
    keys = []
    for place, jwk in enumerate(listed):
        try:
            keys.append(parse_key(jwk, symmetric=symmetric))
        except ValueError as error:
            log.debug("key %d of the set is skipped: %s", place, error)
    if not keys:
        raise ValueError("no key in it can verify a signature")
    return keys

"""The one minter of the tests: keys, what an issuer publishes of them, and tokens of any form."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.jwk import JWKRegistry
from jwt.algorithms import Algorithm, get_default_algorithms

from verifier.keys.jwk import Key, parse_key

Part = Mapping[str, Any] | bytes
"""A header or claims; bytes are taken as they are, a mapping becomes JSON."""

ABSENT: Any = object()
"""As the value of a header or claim: leave it out."""

_ALGORITHMS: Mapping[str, Algorithm] = get_default_algorithms()
_CURVES: Mapping[str, type[ec.EllipticCurve]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def b64(data: bytes) -> str:
    """Canonical base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encode_part(part: Part) -> str:
    """One part of a token."""
    return b64(part if isinstance(part, bytes) else json.dumps(part).encode())


def edited(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with other, further or (ABSENT) fewer members."""
    return {name: value for name, value in {**base, **changes}.items() if value is not ABSENT}


class SigningKey:
    """A private key, or a secret, that an issuer would hold."""

    def __init__(self, private: Any, algorithm: str, kid: str) -> None:
        self.private = private
        self.algorithm = algorithm
        self.kid = kid

    @classmethod
    def generate(cls, algorithm: str, kid: str, *, bits: int = 2048) -> SigningKey:
        """A new key for an asymmetric ``algorithm``; ``bits`` is the size of an RSA key."""
        if algorithm in _CURVES:
            return cls(ec.generate_private_key(_CURVES[algorithm]()), algorithm, kid)
        if algorithm == "EdDSA":
            return cls(ed25519.Ed25519PrivateKey.generate(), algorithm, kid)
        return cls(rsa.generate_private_key(65537, bits), algorithm, kid)

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """What the issuer publishes (of a secret: itself), with ``changes``; None leaves a member out."""
        public = self.private if isinstance(self.private, bytes) else self.private.public_key()
        made = dict(_ALGORITHMS[self.algorithm].to_jwk(public, as_dict=True))
        made.pop("key_ops", None)
        made |= {"kid": self.kid, "use": "sig", "alg": self.algorithm, **changes}
        return {name: value for name, value in made.items() if value is not None}

    def public(self, **changes: Any) -> Key:
        """The key as the verifier holds it."""
        return parse_key(self.jwk(**changes), symmetric=isinstance(self.private, bytes))

    def signature(self, data: bytes, algorithm: str = "") -> bytes:
        """A raw signature."""
        signed: bytes = _ALGORITHMS[algorithm or self.algorithm].sign(data, self.private)
        return signed

    def sign(self, claims: Part, *, header: Part | None = None, algorithm: str = "") -> str:
        """A compact JWS over ``claims``. ``header`` is laid over an ordinary one; None leaves a member out."""
        if not isinstance(header, bytes):
            members = {"alg": algorithm or self.algorithm, "typ": "JWT", "kid": self.kid, **(header or {})}
            header = {name: value for name, value in members.items() if value is not None}
        data = f"{encode_part(header)}.{encode_part(claims)}"
        return f"{data}.{b64(self.signature(data.encode(), algorithm))}"

    def proof(self, token: bytes, url: str, *, header: Mapping[str, Any] | None = None, **changes: Any) -> bytes:
        """A DPoP proof (RFC 9449) for a GET; ``iat`` is to be given."""
        ath = b64(hashlib.sha256(token).digest())
        claims = {"htm": "GET", "htu": url, "jti": secrets.token_hex(8), "ath": ath}
        public = self.jwk(kid=None, use=None, alg=None)
        ordinary = {"typ": "dpop+jwt", "kid": None, "jwk": public}
        return self.sign(edited(claims, changes), header={**ordinary, **(header or {})}).encode()

    @property
    def jkt(self) -> str:
        """Its thumbprint by a library (RFC 7638)."""
        return str(JWKRegistry.import_key(self.jwk()).thumbprint())

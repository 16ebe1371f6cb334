"""Valid and invalid tokens: each issuer's ordinary ones, and recipes that change one thing."""

from __future__ import annotations

import hmac as mac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests import minting
from tests.minting import edited

NOW = 1_750_000_000
PREFIX = "https://api.lab.informationcart.com/"
POOL = "us-east-1_Example"
COGNITO = f"https://cognito-idp.us-east-1.amazonaws.com/{POOL}"
SERVICE_ACCOUNT = "system:serviceaccount:batch:loader"
REPOSITORY = "repo:informationcart/app:ref:refs/heads/main"
SECRET = b"an internal secret of forty-eight random octets!"

# Algorithm and kid of each key. `twin` publishes another key under the same kid as `generic`; no issuer has `rogue`.
# RSA where it matters: it signs slowly.
SIGNERS = {
    "homelab": ("RS256", "homelab-1"),
    "generic": ("RS256", "key-1"),
    "twin": ("RS256", "key-1"),
    "okta": ("RS256", "okta-1"),
    "auth0": ("ES256", "auth0-1"),
    "entra": ("ES256", "entra-1"),
    "keycloak": ("ES256", "keycloak-1"),
    "rfc9068": ("ES256", "at-1"),
    "kubernetes": ("ES256", "cluster-1"),
    "github": ("ES256", "actions-1"),
    "internal": ("HS256", "internal-1"),
    "es": ("ES256", "es-1"),
    "es384": ("ES384", "es384-1"),
    "ps": ("PS256", "ps-1"),
    "ed": ("EdDSA", "ed-1"),
    "people": ("ES256", "people-1"),
    "dark": ("ES256", "dark-1"),
    "rogue": ("RS256", "key-1"),
}

_AGENT = {"client_id": "agent-1", "sub": "agent-1", "aud": "api://m2m", "scope": "read"}
_GENERIC = ("generic", "twin", "internal", "es", "es384", "ps", "ed", "people", "dark", "rfc9068")
# fmt: off
CLAIMS: Mapping[str, Mapping[str, Any]] = {
    **{name: {"iss": f"https://{name}.example.net", **_AGENT} for name in _GENERIC},
    "homelab": {"iss": COGNITO, "sub": "agent-1", "client_id": "agent-1", "token_use": "access",
                "scope": f"{PREFIX}read", "auth_time": NOW - 60, "version": 2},
    "okta": {"iss": "https://example.okta.com/oauth2/default", "cid": "agent-1", "sub": "agent-1", "scp": ["read"],
             "aud": "api://default", "ver": 1},
    "auth0": {"iss": "https://example.auth0.com/", "azp": "agent-1", "sub": "agent-1@clients",
              "gty": "client-credentials", "aud": "api://m2m", "scope": "read"},
    "entra": {"iss": "https://login.microsoftonline.com/8f1c/v2.0", "azp": "agent-1", "sub": "5b3f", "oid": "5b3f",
              "roles": ["read"], "aud": "api://m2m"},
    "keycloak": {"iss": "https://keycloak.example.net/realms/lab", "azp": "agent-1", "sub": "0c9d", "typ": "Bearer",
                 "preferred_username": "service-account-agent-1", "aud": ["api://m2m", "account"], "scope": "read"},
    "kubernetes": {"iss": "https://cluster.example.net", "sub": SERVICE_ACCOUNT, "aud": ["api://m2m"]},
    "github": {"iss": "https://token.actions.githubusercontent.com", "sub": REPOSITORY, "aud": "api://m2m"},
}
# fmt: on


@cache
def signing_key(name: str) -> minting.SigningKey:
    """The key of a signer, made at its first use."""
    algorithm, kid = SIGNERS[name]
    if algorithm == "HS256":
        return minting.SigningKey(SECRET, algorithm, kid)
    return minting.SigningKey.generate(algorithm, kid)


def public_jwk(name: str, **members: Any) -> dict[str, Any]:
    """What an issuer publishes of a key; an HS key's JWK holds the secret itself."""
    return signing_key(name).jwk(**({"use": None, "alg": None} | members))


def sign(name: str, data: bytes, algorithm: str = "") -> bytes:
    """A signature made with a signer's private key."""
    return signing_key(name).signature(data, algorithm)


def hmac(secret: bytes, algorithm: str = "sha256") -> Callable[[bytes], bytes]:
    """Signs with a secret of the attacker's choice; PyJWT itself refuses to use a public key so."""
    return lambda data: mac.digest(secret, data, algorithm)


def hmac_with_public(issuer: str, encoding: Encoding, form: PublicFormat) -> Callable[[bytes], bytes]:
    """RFC 8725 section 2.1: the public key used as if it were a shared secret."""
    return lambda data: hmac(signing_key(issuer).private.public_key().public_bytes(encoding, form))(data)


def b64(data: bytes) -> bytes:
    """Canonical base64url without padding."""
    return minting.b64(data).encode()


def part(value: minting.Part) -> bytes:
    """A header or claims as a token's part: bytes stay as they are, everything else becomes JSON."""
    return minting.encode_part(value).encode()


def ordinary_header(issuer: str) -> dict[str, Any]:
    """The header of an issuer's ordinary token."""
    algorithm, kid = SIGNERS[issuer]
    return {"alg": algorithm, "kid": kid, "typ": "at+jwt" if issuer == "rfc9068" else "JWT"}


def ordinary_claims(issuer: str) -> dict[str, Any]:
    """The claims of an issuer's ordinary token."""
    return {**CLAIMS[issuer], "iat": NOW - 60, "exp": NOW + 3600, "jti": f"jti-{issuer}"}


@dataclass(frozen=True)
class Token:
    """A recipe: an issuer's ordinary token with some changes, correctly signed unless it says otherwise.

    ``header`` and ``claims`` are changes to the ordinary ones, or the raw bytes of the part. ``signer`` names another
    key, ``algorithm`` another way to use it, ``signature`` makes the signature of the signing input, and ``edit``
    changes the finished token.
    """

    issuer: str = "generic"
    header: minting.Part = field(default_factory=dict)
    claims: minting.Part = field(default_factory=dict)
    signer: str = ""
    algorithm: str = ""
    signature: Callable[[bytes], bytes] | None = None
    edit: Callable[[bytes], bytes] = lambda token: token

    def encode(self) -> bytes:
        """The token."""
        header, claims = self.header, self.claims
        if not isinstance(header, bytes):
            header = edited(ordinary_header(self.issuer), header)
        if not isinstance(claims, bytes):
            claims = edited(ordinary_claims(self.issuer), claims)
        data = part(header) + b"." + part(claims)
        signer = self.signer or self.issuer
        signature = self.signature(data) if self.signature else sign(signer, data, self.algorithm)
        return self.edit(data + b"." + b64(signature))


def with_member(ordinary: Mapping[str, Any], member: bytes) -> bytes:
    """A header or claims as JSON, with one more member in any form."""
    return json.dumps(ordinary).encode()[:-1] + b", " + member + b"}"


def of_length(length: int) -> bytes:
    """A valid token of exactly so many bytes."""
    rest = length - len(Token(header={"pad": ""}, claims={"pad": ""}).encode())
    for in_header, in_claims in product(range(4), range(rest * 3 // 4 - 8, rest * 3 // 4 + 1)):
        token = Token(header={"pad": "x" * in_header}, claims={"pad": "x" * in_claims}).encode()
        if len(token) == length:
            return token
    raise AssertionError(f"no token has {length} bytes")

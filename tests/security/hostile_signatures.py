"""Hostile algorithms, keys and signatures, and some valid ones beside them."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.minting import ABSENT
from verifier.reasons import Reason as R

from .cases import cases, header, parameter, replaced
from .tokens import SECRET, Token, b64, hmac, hmac_with_public, ordinary_claims, ordinary_header, part, public_jwk, sign

PEM, DER, SSH = Encoding.PEM, Encoding.DER, Encoding.OpenSSH
SPKI, PKCS1, OPENSSH = PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1, PublicFormat.OpenSSH
MIXED = {"iss": "https://mixed.example.net"}
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def unsigned(algorithm: Any, signature: bytes = b"") -> Token:
    """A token that claims to need no signature."""
    return Token(header={"alg": algorithm, "kid": ABSENT}, signature=lambda _: signature)


def self_signed(**members: Any) -> Token:
    """Signed by the attacker's own key, which the header itself offers."""
    return Token(header={"kid": "attacker", **members}, signer="rogue")


def der(signature: bytes) -> bytes:
    """An ES256 signature as ASN.1 instead of two numbers of 32 bytes (RFC 7518 section 3.4)."""
    raw = urlsafe_b64decode(signature + b"==")
    return b64(encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:])))


def beyond_order(signature: bytes) -> bytes:
    """The same Ed25519 signature with another S: RFC 8032 section 5.1.7 forbids it."""
    return signature[:32] + (int.from_bytes(signature[32:], "little") + ED25519_ORDER).to_bytes(32, "little")


# fmt: off
ALGORITHM = [
    *cases(R.UNSUPPORTED_ALGORITHM, {
        **{f"alg {alg!r} without a signature": unsigned(alg) for alg in ("none", "None", "NONE", "nOnE", "", " none")},
        "alg none with a signature": Token(header={"alg": "none"}),
        "alg none with a zero byte as signature": unsigned("none", b"\0"),
        "alg RS512 signed with the right key": Token(header={"alg": "RS512"}, algorithm="RS512"),
        "alg HS512, listed by no issuer": Token("internal", {"alg": "HS512"}, signature=hmac(SECRET, "sha512")),
        "alg ES256 on another issuer's list": Token(header={"alg": "ES256", "kid": "es-1"}, signer="es"),
        "alg HS256 on another issuer's list": Token(header={"alg": "HS256"}, signature=hmac(SECRET)),
        "alg PS256 with the RS256 issuer's key": Token(header={"alg": "PS256"}, algorithm="PS256"),
        "alg RS256 with the PS256 issuer's key": Token("ps", header={"alg": "RS256"}, algorithm="RS256"),
        "alg ES256K": Token("es", header={"alg": "ES256K"}),
        **{
            f"HMAC with the {name}": Token(issuer, {"alg": "HS256"}, signature=hmac_with_public(issuer, encoding, form))
            for name, issuer, encoding, form in (
                ("public key as PEM", "generic", PEM, SPKI),
                ("public key as PKCS 1 PEM (CVE-2017-11424)", "generic", PEM, PKCS1),
                ("public key as DER", "generic", DER, SPKI),
                ("RSA public key as OpenSSH", "generic", SSH, OPENSSH),
                ("EC public key as OpenSSH (CVE-2024-33663)", "es", SSH, OPENSSH),
                ("Ed25519 public key as OpenSSH (CVE-2022-29217)", "ed", SSH, OPENSSH),
            )
        },
        "HMAC with the public key as JWK": Token(
            header={"alg": "HS256"}, signature=lambda data: hmac(json.dumps(public_jwk("generic")).encode())(data)),
        "HMAC with an empty key": Token(header={"alg": "HS256"}, signature=hmac(b"")),
        **{
            f"alg {alg} for a key {fitting}": Token(
                header={"alg": alg, "kid": kid}, claims=MIXED, signer=signer, algorithm=alg if alg != "ES384" else "")
            for alg, kid, signer, fitting in (
                ("PS256", "rsa-1", "rogue", "published for RS256"),
                ("ES384", "ec-1", "es384", "on P-256"),
                ("RS256", "ec-1", "rogue", "on a curve"),
                ("ES256", "rsa-1", "es", "of RSA"),
            )
        },
    }),
    *parameter(R.UNSUPPORTED_ALGORITHM, "alg", "rs256", "RS256 ", "RS256\0", "R\uff33256", "dir"),
]

KEY = [
    *parameter(R.OK, "kid", ABSENT, None),  # one key fits
    *parameter(R.UNKNOWN_KEY, "kid", "unknown", "", "KEY-1", "../../../../dev/null", "\ud800", "\x1b[2J"),
    *parameter(R.UNKNOWN_KEY, "kid", "https://evil.example/jwks.json", "x' UNION SELECT 'k' --"),
    *cases(R.UNKNOWN_KEY, {
        "kid of another issuer's key": Token(header={"kid": "okta-1"}, signer="okta"),
        "kid of a key published for encryption": Token(
            header={"kid": "encryption-1", "alg": "PS256"}, claims=MIXED, signer="ps"),
        "jku in the header": self_signed(jku="https://evil.example/jwks.json"),
        "x5u in the header": self_signed(x5u="https://evil.example/chain.pem"),
        "x5c in the header": self_signed(x5c=["MIIB"]),
        "jwk in the header (CVE-2018-0114)": lambda: self_signed(jwk=public_jwk("rogue", kid="attacker")).encode(),
        "jwk of HS256 in the header": self_signed(jwk={"kty": "oct", "k": "AAAA"}),
    }),
    *cases(R.OK, {
        "jku beside the right key is not followed": header(jku="https://evil.example/jwks.json"),
        "x5t beside the right key is ignored": header(x5t="AAAA"),
        "b64 true changes nothing": header(b64=True),
    }),
]

SIGNATURE = cases(R.BAD_SIGNATURE, {
    "signature empty (CVE-2020-28042)": Token(signature=lambda _: b""),
    "signature of another token": Token(signature=lambda _: sign("generic", b"x.y")),
    "signature a byte short": Token(signature=lambda data: sign("generic", data)[:-1]),
    "signature a byte long": Token(signature=lambda data: sign("generic", data) + b"\0"),
    "signature with a bit flipped": Token(
        signature=lambda data: (int.from_bytes(sign("generic", data)) ^ 1).to_bytes(256)),
    "signature of zeros": Token(signature=lambda _: bytes(256)),
    "RSA signature that is its own padding": Token(signature=lambda _: b"\0\1" + b"\xff" * 253 + b"\0"),
    "PKCS 1 signature with the SHA-512 prefix": Token(algorithm="RS512"),
    "PSS signature under alg RS256": Token(algorithm="PS256"),
    "PKCS 1 signature under alg PS256": Token("ps", algorithm="RS256"),
    "another issuer's key under the same kid": Token("generic", signer="twin"),
    "the other way round": Token("twin", signer="generic"),
    "unknown key under a known kid": Token(signer="rogue"),
    "unknown key offered as jwk under a known kid": lambda: Token(
        header={"jwk": public_jwk("rogue")}, signer="rogue").encode(),
    "claims of another token": replaced(1, lambda _: part({**ordinary_claims("generic"), "scope": "admin"})),
    "header of another token": replaced(0, lambda _: part({**ordinary_header("generic"), "x": 1})),
    "psychic ES256 signature (CVE-2022-21449)": Token("es", signature=lambda _: bytes(64)),
    "psychic ES256 signature as DER": Token("es", signature=lambda _: bytes.fromhex("3006020100020100")),
    "ES256 signature as DER": replaced(2, der, Token("es")),
    "ES256 signature with r and s exchanged": Token(
        "es", signature=lambda data: (made := sign("es", data))[32:] + made[:32]),
    "ES256 signature padded to 66 bytes": Token(
        "es", signature=lambda data: b"\0" + (made := sign("es", data))[:32] + b"\0" + made[32:]),
    "EdDSA signature of zeros": Token("ed", signature=lambda _: bytes(64)),
    "EdDSA signature with S beyond the order": Token("ed", signature=lambda data: beyond_order(sign("ed", data))),
    "HMAC cut to 16 bytes": Token("internal", signature=lambda data: hmac(SECRET)(data)[:16]),
    "HMAC with an empty secret": Token("internal", signature=hmac(b"")),
    "HMAC with the secret's base64": Token("internal", signature=hmac(b64(SECRET))),
    "HMAC with another issuer's public key as PEM": Token(
        "internal", signature=hmac_with_public("generic", PEM, SPKI)),
    "HMAC-SHA512 under alg HS256": Token("internal", signature=hmac(SECRET, "sha512")),
})
# fmt: on

TABLE = [*ALGORITHM, *KEY, *SIGNATURE]

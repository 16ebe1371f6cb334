"""Cognito-shaped tokens for every load, signed once and kept in files: one compact token a line.

RSA signing costs far more than verifying, so nothing is signed while something is measured.
"""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import os
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

REGION = "us-east-1"
USER_POOL_ID = "us-east-1_Benchmark"
ISSUER = f"https://cognito-idp.{REGION}.amazonaws.com/{USER_POOL_ID}"
SCOPE_PREFIX = "https://api.lab.informationcart.com/"
TOKEN_BYTES = 1024
CLIENTS = 1000
LIFETIME = 4 * 3600


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def client_id(number: int) -> str:
    """A stable client id in Cognito's form: 26 characters of a-z and 0-9."""
    digest = hashlib.sha256(f"client {number}".encode()).digest()
    return base64.b32encode(digest).decode().lower()[:26]


def claims(client: str, *, issued: int, expires: int, scopes: Sequence[str] = ("read", "write")) -> dict[str, Any]:
    """What Cognito puts into an access token of the client-credentials grant."""
    return {
        "sub": client,
        "token_use": "access",
        "scope": " ".join(SCOPE_PREFIX + scope for scope in scopes),
        "auth_time": issued,
        "iss": ISSUER,
        "exp": expires,
        "iat": issued,
        "version": 2,
        "jti": str(uuid.uuid4()),
        "client_id": client,
    }


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def padded(payload: dict[str, Any], header: dict[str, str], signature_bytes: int) -> str:
    """header.payload, with one more scope so long that the compact token has about TOKEN_BYTES characters."""
    head = b64url(_json(header))
    taken = len(head) + 2 + (signature_bytes * 8 + 5) // 6
    name = f" {SCOPE_PREFIX}reports."
    missing = (TOKEN_BYTES - taken) * 3 // 4 - len(_json(payload)) - len(name)
    payload = payload | {"scope": payload["scope"] + name + "a" * max(missing, 1)}
    return f"{head}.{b64url(_json(payload))}"


@dataclass(frozen=True)
class Signer:
    """A throw-away key; PEM, so that it can be handed to other processes."""

    alg: str
    kid: str
    pem: bytes

    @classmethod
    def generate(cls, alg: str) -> Signer:
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
        if alg == "RS256":
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(alg, base64.b64encode(os.urandom(32)).decode(), pem)  # Cognito's kids are 44 characters of base64

    @property
    def header(self) -> dict[str, str]:
        return {"kid": self.kid, "alg": self.alg}

    @property
    def signature_bytes(self) -> int:
        return 256 if self.alg == "RS256" else 64

    def jwk(self) -> dict[str, str]:
        public = serialization.load_pem_private_key(self.pem, None).public_key()
        common = {"kid": self.kid, "alg": self.alg, "use": "sig"}
        if isinstance(public, rsa.RSAPublicKey):
            rsa_numbers = public.public_numbers()
            return common | {"kty": "RSA", "n": _b64uint(rsa_numbers.n, 256), "e": _b64uint(rsa_numbers.e, 3)}
        assert isinstance(public, ec.EllipticCurvePublicKey)
        numbers = public.public_numbers()
        return common | {"kty": "EC", "crv": "P-256", "x": _b64uint(numbers.x, 32), "y": _b64uint(numbers.y, 32)}

    def public_pem(self) -> str:
        public = serialization.load_pem_private_key(self.pem, None).public_key()
        return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def _b64uint(number: int, size: int) -> str:
    return b64url(number.to_bytes(size, "big"))


def jwks(*signers: Signer) -> dict[str, Any]:
    return {"keys": [signer.jwk() for signer in signers]}


def sign_range(signer: Signer, expires: int, numbers: range, scopes: Sequence[str] = ("read", "write")) -> list[str]:
    """One token for each number, its client chosen in turn from CLIENTS."""
    key: Any = serialization.load_pem_private_key(signer.pem, None)
    issued = expires - LIFETIME
    tokens = []
    for number in numbers:
        payload = claims(client_id(number % CLIENTS), issued=issued, expires=expires, scopes=scopes)
        signed = padded(payload, signer.header, signer.signature_bytes)
        if signer.alg == "RS256":
            signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        else:
            r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        tokens.append(f"{signed}.{b64url(signature)}")
    return tokens


def sign_many(signer: Signer, count: int, *, expires: int) -> list[str]:
    """`count` tokens, all different, signed on every core."""
    step = 1000
    ranges = [range(start, min(start + step, count)) for start in range(0, count, step)]
    with multiprocessing.get_context("fork").Pool() as pool:
        return [token for part in pool.imap(partial(sign_range, signer, expires), ranges) for token in part]


def bad_signature(token: str) -> str:
    """The same token with one bit of its signature inverted: every check up to the signature still passes."""
    signed, signature = token.rsplit(".", 1)
    middle = len(signature) // 2
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    turned = alphabet[alphabet.index(signature[middle]) ^ 1]
    return f"{signed}.{signature[:middle]}{turned}{signature[middle + 1 :]}"


def junk(known_kid: str, rng: random.Random) -> Iterator[str]:
    """Endless values that are no token at all, in turn: what scanners and broken clients send."""
    known = b64url(_json({"kid": known_kid, "alg": "RS256"}))
    none = b64url(_json({"alg": "none"}))
    while True:
        yield b64url(rng.randbytes(768))  # no dots
        yield ".".join(b64url(rng.randbytes(255)) for _ in range(3))  # three parts, none of them JSON
        yield f"{known}.{b64url(rng.randbytes(438))}.{b64url(rng.randbytes(256))}"  # a good header before noise
        yield f"{none}.{b64url(_json(claims('nobody', issued=0, expires=2**31, scopes=())))}."  # unsigned
        yield ".".join(b64url(rng.randbytes(190)) for _ in range(4))  # four parts


def unknown_kid(rng: random.Random, *, expires: int) -> str:
    """A well-formed token that names a key nobody has; its signature is noise, for no one can check it."""
    header = {"kid": base64.b64encode(rng.randbytes(32)).decode(), "alg": "RS256"}
    payload = claims(client_id(rng.randrange(CLIENTS)), issued=expires - LIFETIME, expires=expires)
    return f"{padded(payload, header, 256)}.{b64url(rng.randbytes(256))}"


@dataclass(frozen=True)
class TokenSet:
    """Every file that a run needs, below one folder."""

    folder: Path
    rsa: Signer
    ec: Signer
    expires: int

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.txt"

    def first(self, name: str) -> str:
        with self.path(name).open() as lines:
            return lines.readline().strip()

    def jwks(self) -> dict[str, Any]:
        return jwks(self.rsa, self.ec)


def make_token_set(folder: Path, *, cold: int, distinct: int) -> TokenSet:
    """Mint everything, or take what an earlier run left if it is the same and lives for another two hours.

    `cold` tokens go into each load whose every token must be new to a cache; `distinct` (at least as many)
    are for the memory probe.
    """
    meta = folder / "meta.json"
    if meta.exists():
        known = json.loads(meta.read_text())
        if known["expires"] > time.time() + 7200 and (known["cold"], known["distinct"]) == (cold, distinct):
            signers = [Signer(s["alg"], s["kid"], s["pem"].encode()) for s in known["signers"]]
            return TokenSet(folder, signers[0], signers[1], known["expires"])
        meta.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    expires = int(time.time()) + LIFETIME
    tokens = TokenSet(folder, Signer.generate("RS256"), Signer.generate("ES256"), expires)
    rng = random.Random(7517)  # the number of the JWK RFC: any would do, a fixed one repeats

    good = sign_many(tokens.rsa, distinct, expires=expires)
    _write(tokens.path("distinct"), good)
    _write(tokens.path("cold"), good[:cold])
    # A set of its own, so that HOT traffic never makes a COLD token known.
    hot = sign_range(tokens.rsa, expires, range(100))
    _write(tokens.path("hot"), hot)
    _write(tokens.path("bad"), map(bad_signature, good[:cold]))
    _write(tokens.path("bad-hot"), map(bad_signature, hot))
    garbage = junk(tokens.rsa.kid, rng)
    _write(tokens.path("junk"), (next(garbage) for _ in range(cold)))
    _write(tokens.path("junk-hot"), (next(garbage) for _ in range(100)))
    _write(tokens.path("flood"), (unknown_kid(rng, expires=expires) for _ in range(cold)))
    _write(tokens.path("es256-cold"), sign_many(tokens.ec, cold, expires=expires))
    _write(tokens.path("es256-one"), sign_range(tokens.ec, expires, range(1)))
    _write(tokens.path("expired"), sign_range(tokens.rsa, int(time.time()) - 3600, range(1)))
    _write(tokens.path("no-scope"), sign_range(tokens.rsa, expires, range(1), scopes=("other",)))
    mixed = [line for name in ("bad", "junk", "flood") for line in tokens.path(name).read_text().splitlines()]
    rng.shuffle(mixed)
    _write(tokens.path("garbage"), mixed[:cold])

    keys = [{"alg": s.alg, "kid": s.kid, "pem": s.pem.decode()} for s in (tokens.rsa, tokens.ec)]
    meta.write_text(json.dumps({"expires": expires, "cold": cold, "distinct": distinct, "signers": keys}))
    return tokens


def _write(path: Path, lines: Any) -> None:
    with path.open("w") as file:
        file.writelines(f"{line}\n" for line in lines)

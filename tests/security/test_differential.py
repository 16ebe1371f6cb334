"""What we accept, PyJWT and joserfc accept too, with the same claims: tokens bent in every way a program can think of.

Seeded, so that a failure comes again: ``DIFFERENTIAL`` is the number of bent tokens in all, ``SEED`` another beginning.
"""

from __future__ import annotations

import json
import os
import random
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Callable
from typing import Any

import joserfc.jwt
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from verifier.identity import VerifiedToken
from verifier.keys import sets
from verifier.keys.jwk import parse_key
from verifier.reasons import Reason, Rejected
from verifier.tokens.profiles import PROFILES
from verifier.tokens.verify import IssuerRules, TokenVerifier

from .tokens import CLAIMS, NOW, SIGNERS, b64, ordinary_claims, ordinary_header, part, public_jwk, sign

BENT = int(os.environ.get("DIFFERENTIAL", "20000"))
SEED = int(os.environ.get("SEED", "1"))
LEEWAY = 10
AUDIENCE = "api://m2m"
# Issuers of PyJWT's and joserfc's own kind of token: generic claims, one algorithm each. RSA signs slowly.
SHARES = {"internal": 0.3, "es": 0.2, "ed": 0.2, "es384": 0.1, "generic": 0.1, "ps": 0.1}
SLOW = ("generic", "ps")

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Issuers:
    """Several issuers, seen by the verifier and by the two libraries."""

    def __init__(self) -> None:
        made = []
        for name in SHARES:
            rules = IssuerRules(
                name=name,
                urls=(CLAIMS[name]["iss"],),
                key_set_url=None,
                jwks_file=None,
                profile=PROFILES["generic"],
                algorithms=frozenset([SIGNERS[name].algorithm]),
                audience=frozenset([AUDIENCE]),
            )
            made.append(rules.with_keys(sets.KeySet([parse_key(public_jwk(name), symmetric=True)])))
        self._verifier = TokenVerifier(
            made, clock=lambda: NOW, leeway=LEEWAY, role_of=lambda *_: "", mapped_headers={"X-Tenant": "tenant"}
        )
        self._pyjwt = {name: jwt.PyJWK(public_jwk(name), SIGNERS[name].algorithm) for name in SHARES}
        self._joserfc = {name: KeySet.import_key_set({"keys": [public_jwk(name)]}) for name in SHARES}

    def verify(self, token: bytes) -> VerifiedToken | Reason:
        """What the verifier says."""
        try:
            return self._verifier.verify(token)
        except Rejected as no:
            return no.reason

    def by_pyjwt(self, name: str, token: bytes) -> dict[str, Any]:
        """The claims as PyJWT reads them. Its clock is the machine's, so the times are left to joserfc."""
        return jwt.decode(
            token,
            self._pyjwt[name],
            algorithms=[SIGNERS[name].algorithm],
            issuer=CLAIMS[name]["iss"],
            audience=AUDIENCE,
            options={"require": ["exp"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )

    def by_joserfc(self, name: str, token: bytes) -> dict[str, Any]:
        """The claims as joserfc reads them, at the verifier's time."""
        algorithm = SIGNERS[name].algorithm
        registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        decoded = joserfc.jwt.decode(token.decode("ascii"), self._joserfc[name], registry=registry)
        joserfc.jwt.JWTClaimsRegistry(
            now=NOW,
            leeway=LEEWAY,
            iss={"essential": True, "value": CLAIMS[name]["iss"]},
            aud={"essential": True, "value": AUDIENCE},
            exp={"essential": True},
        ).validate(decoded.claims)
        return decoded.claims


class Bender:
    """Makes ordinary tokens and bends them."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = random.Random(f"{seed} {name}")
        self.ways: list[tuple[str, Callable[[], bytes]]] = [
            ("flip a character", self.flip),
            ("flip a byte", self.flip_byte),
            ("flip several", self.flip_several),
            ("cut or lengthen", self.cut),
            ("swap parts", self.swap),
            ("base64 tricks", self.respell),
            ("edit without signing", self.edit_unsigned),
            ("bend the signature", self.bend_signature),
            ("edit the header and sign", lambda: self.sign(self.edit(self.header()), self.claims())),
            ("edit the claims and sign", lambda: self.sign(self.header(), self.edit(self.claims()))),
            ("edit the text and sign", self.edit_text),
        ]
        # Signing with RSA costs as much as a hundred flips: flips come more often there.
        signing = 1 if name in SLOW else 8
        self.weights = [signing if what.endswith("and sign") else 4 for what, _ in self.ways]
        self.pool = [self.sign(self.header(), {**self.claims(), "jti": str(place)}) for place in range(12)]
        others = [other for other in SHARES if other != name]
        self.foreign = [self.sign(ordinary_header(other), ordinary_claims(other), other) for other in others]

    def bent(self) -> tuple[str, bytes]:
        """A bent token, and how."""
        what, way = self.random.choices(self.ways, self.weights)[0]
        return what, way()

    def header(self) -> dict[str, Any]:
        """The issuer's ordinary header."""
        return ordinary_header(self.name)

    def claims(self) -> dict[str, Any]:
        """The issuer's ordinary claims."""
        return ordinary_claims(self.name)

    def sign(self, header: Any, claims: Any, name: str = "") -> bytes:
        """A token of these, truly signed."""
        data = part(header) + b"." + part(claims)
        return data + b"." + b64(sign(name or self.name, data))

    def one(self) -> bytes:
        """An ordinary token."""
        return self.random.choice(self.pool)

    def flip(self) -> bytes:
        """One character becomes another that a token may hold."""
        token = bytearray(self.one())
        token[self.random.randrange(len(token))] = self.random.choice(ALPHABET + b"..=")
        return bytes(token)

    def flip_byte(self) -> bytes:
        """One bit of one byte."""
        token = bytearray(self.one())
        token[self.random.randrange(len(token))] ^= 1 << self.random.randrange(8)
        return bytes(token)

    def flip_several(self) -> bytes:
        """Bytes of one part, decoded and encoded again."""
        parts = self.one().split(b".")
        place = self.random.randrange(3)
        raw = bytearray(decode(parts[place]))
        for _ in range(self.random.randint(1, 3)):
            raw[self.random.randrange(len(raw))] = self.random.randrange(256)
        parts[place] = b64(raw)
        return b".".join(parts)

    def cut(self) -> bytes:
        """Characters taken away or put in, at the end of a part or anywhere."""
        token = self.one()
        dots = [at for at, byte in enumerate(token) if byte == ord(".")]
        at = self.random.choice([*dots, len(token), self.random.randrange(len(token))])
        more = bytes(self.random.choices(ALPHABET, k=self.random.randint(0, 3)))
        return token[: max(at - self.random.randint(0, 3), 0)] + more + token[at:]

    def swap(self) -> bytes:
        """Parts of several tokens, this issuer's and others'."""
        sources = [self.random.choice([*self.pool, *self.foreign]).split(b".") for _ in range(3)]
        return b".".join(
            source[self.random.choice((place, place, place, 0, 1, 2))] for place, source in enumerate(sources)
        )

    def respell(self) -> bytes:
        """Other spellings of the same bytes, which a lax decoder reads alike."""
        parts = self.one().split(b".")
        place = self.random.randrange(3)
        old = parts[place]
        last = ALPHABET.index(old[-1])
        parts[place] = self.random.choice(
            [
                old + b"=" * self.random.randint(1, 3),
                old.replace(b"-", b"+").replace(b"_", b"/"),
                old[:-1] + ALPHABET[last ^ 1 :][:1],
                old[:-1] + ALPHABET[last ^ self.random.choice((1, 2, 3)) :][:1],
                old + self.random.choice([b"\n", b" ", b"\t", b"\0", b"%", b"A", b"AA", b"=A", b".", b"\xc2\xa0"]),
                self.random.choice([b" ", b"\n", b"=", b"."]) + old,
                old[: len(old) // 2] + self.random.choice([b"\n", b"=", b"\r\n", b"!"]) + old[len(old) // 2 :],
            ]
        )
        return b".".join(parts)

    def edit_unsigned(self) -> bytes:
        """Another header or other claims under the old signature."""
        header, claims, signature = self.one().split(b".")
        if self.random.random() < 0.5:
            return b".".join([part(self.edit(json.loads(decode(header)))), claims, signature])
        return b".".join([header, part(self.edit(json.loads(decode(claims)))), signature])

    def bend_signature(self) -> bytes:
        """The signature's number in another form, where its algorithm has one."""
        data, _, encoded = self.one().rpartition(b".")
        raw = decode(encoded)
        half = len(raw) // 2
        bent = self.random.choice(
            [
                raw + b"\0",
                b"\0" + raw,
                raw[:-1],
                raw[1:],
                raw[half:] + raw[:half],
                bytes(len(raw)),
                b"\0" + raw[:half] + b"\0" + raw[half:],
                encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:])),
                raw[:half] + bytes(half),
                raw,
            ]
        )
        return data + b"." + b64(bent)

    def edit(self, members: dict[str, Any]) -> dict[str, Any]:
        """One or two members changed, added or taken away.

        Not ``cty`` and the like: joserfc checks the types of header members that we never look at.
        """
        edited = dict(members)
        for _ in range(self.random.randint(1, 2)):
            name = self.random.choice(
                [*members, "nbf", "kid", "typ", "crit", "b64", "azp", "gty", "tenant", "zip", "x"]
            )
            if self.random.random() < 0.15:
                edited.pop(name, None)
            else:
                edited[name] = self.random.choice(VALUES)(self)
        if edited.get("kid", "") is None:  # null counts as absent here; joserfc refuses it
            del edited["kid"]
        return edited

    def edit_text(self) -> bytes:
        """JSON as a hand might write it: white space, duplicates, odd numbers, odd encodings."""
        place = self.random.randrange(2)
        raw = json.dumps(self.claims() if place else self.header()).encode()
        raw = self.random.choice(TEXTS)(raw, self)
        return self.sign(*((self.header(), raw) if place else (raw, self.claims())))


def decode(encoded: bytes) -> bytes:
    """Base64url without padding."""
    return urlsafe_b64decode(encoded + b"==")


VALUES: list[Callable[[Bender], Any]] = [
    lambda _: None,
    lambda _: True,
    lambda _: False,
    lambda _: 0,
    lambda _: -1,
    lambda _: "",
    lambda _: [],
    lambda _: {},
    lambda _: NOW,
    lambda _: NOW + 3600.5,
    lambda _: str(NOW + 60),
    lambda it: NOW + it.random.choice((-3600, -11, -10, -9, -1, 0, 1, 9, 10, 11, 3600)),
    lambda it: it.random.choice([2**31, 2**53, 2**53 + 1, 2**63, 2**64, 1e300, -(2**53), float("nan"), float("inf")]),
    lambda it: it.random.choice(
        [AUDIENCE, [AUDIENCE], [AUDIENCE, 1], [AUDIENCE, None], ["x", AUDIENCE], AUDIENCE + " "]
    ),
    lambda it: it.random.choice([CLAIMS[name]["iss"] for name in SHARES]),
    lambda it: it.random.choice([SIGNERS[name].kid for name in SHARES]),
    lambda it: it.random.choice([SIGNERS[name].algorithm for name in SHARES] + ["none", "None", "RS512", "HS512"]),
    lambda it: it.random.choice(
        ["agent-1", "agent-2", "a b", "a\r\nb", "\ud800", "é", "client-credentials", "JWT", "at+jwt"]
    ),
    lambda it: it.random.choice(["read", "read write", "read\twrite", ["read"], ["read write"], [1], " "]),
    lambda it: it.random.choice([["exp"], ["b64"], [], "b64", {"jkt": "x"}]),
]
TEXTS: list[Callable[[bytes, Bender], bytes]] = [
    lambda raw, _: b" " + raw + b"\n",
    lambda raw, _: raw.replace(b": ", b":").replace(b", ", b","),
    lambda raw, _: b"\xef\xbb\xbf" + raw,
    lambda raw, _: raw.decode().encode("utf-16"),
    lambda raw, _: raw.decode().encode("utf-16-le"),
    lambda raw, it: raw[:-1] + b', "' + it.random.choice([b"iss", b"exp", b"alg", b"x"]) + b'": 1}',
    lambda raw, _: raw[:-1] + b', "\\u0069ss": "x", "\\u0061lg": "none"}',
    lambda raw, it: (
        raw[:-1] + b', "x": ' + it.random.choice([b"NaN", b"Infinity", b"1e999", b"01", b"+1", b"1.", b"0x1"]) + b"}"
    ),
    lambda raw, it: (
        raw[:-1]
        + b', "x": '
        + it.random.choice([b"'a'", b'"\n"', b'"\\x"', b'"\xff"', b'"\\ud800"', b"9" * 5000])
        + b"}"
    ),
    lambda raw, _: raw + b"{}",
    lambda raw, _: raw[:-1],
    lambda raw, _: raw[:-1] + b",}",
    lambda raw, _: b"[" + raw + b"]",
    lambda raw, it: raw.replace(b"175000", it.random.choice([b"1.75000", b"0175000", b"-175000", b"175000000000"])),
    lambda raw, it: (
        raw[:-1] + b', "x": ' + b"[" * (depth := it.random.choice([1, 10, 100, 3000])) + b"]" * depth + b"}"
    ),
]


@pytest.fixture(scope="module")
def issuers() -> Issuers:
    return Issuers()


# RFC 9864 gives EdDSA with Ed25519 a name of its own, which issuers do not use yet.
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.timeout(0 if BENT > 100_000 else 120)
@pytest.mark.parametrize("name", SHARES)
def test_what_we_accept_two_libraries_accept_with_the_same_claims(
    issuers: Issuers, name: str, record_property: Callable[[str, object], None]
) -> None:
    bender, accepted, reasons = Bender(name, SEED), 0, Counter[Reason]()
    count = round(BENT * SHARES[name])
    for _ in range(count):
        what, token = bender.bent()
        verified = issuers.verify(token)
        if isinstance(verified, Reason):
            reasons[verified] += 1
            continue
        accepted += 1
        told = f"{what}: {token!r}"
        signer = verified.principal.issuer
        claims = issuers.by_joserfc(signer, token)
        assert issuers.by_pyjwt(signer, token) == claims, told
        assert (claims["exp"], claims.get("jti", "")) == (verified.exp, verified.jti), told
        assert claims.get("client_id", claims.get("azp")) == verified.principal.client_id, told
        assert claims["iss"] == CLAIMS[signer]["iss"], told
    record_property("bent", count)
    record_property("accepted", accepted)
    # Else the test would have nothing to compare, or nothing to refuse.
    assert accepted > count / 100
    assert {Reason.MALFORMED_TOKEN, Reason.BAD_SIGNATURE, Reason.INVALID_CLAIMS} <= reasons.keys()

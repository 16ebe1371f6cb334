"""What the verifier accepts, PyJWT and joserfc accept too, with the same claims: tokens mutated in many ways.

Seeded, so that a failure can be repeated: ``DIFFERENTIAL`` is the number of mutated tokens, ``SEED`` another start.
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

from verifier.reasons import Reason, Rejected

from .cases import ALPHABET
from .running_app import RunningApp
from .tokens import CLAIMS, NOW, SIGNERS, b64, ordinary_claims, ordinary_header, part, public_jwk, sign

TOKENS = int(os.environ.get("DIFFERENTIAL", "10000"))
SEED = int(os.environ.get("SEED", "1"))
LEEWAY = 10
AUDIENCE = "api://m2m"
# Issuers of PyJWT's and joserfc's own kind of token: generic claims, one algorithm each. RSA signs slowly.
SHARES = {"internal": 0.3, "es": 0.2, "ed": 0.2, "es384": 0.1, "generic": 0.1, "ps": 0.1}
SLOW = ("generic", "ps")


def by_pyjwt(name: str, token: bytes) -> dict[str, Any]:
    """The claims as PyJWT reads them. Its clock is the machine's, so the times are left to joserfc."""
    return jwt.decode(
        token,
        jwt.PyJWK(public_jwk(name), SIGNERS[name][0]),
        algorithms=[SIGNERS[name][0]],
        issuer=CLAIMS[name]["iss"],
        audience=AUDIENCE,
        options={"require": ["exp"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )


def by_joserfc(name: str, token: bytes) -> dict[str, Any]:
    """The claims as joserfc reads them, at the verifier's time."""
    registry = JWSRegistry(algorithms=[SIGNERS[name][0]], strict_check_header=False)
    keys = KeySet.import_key_set({"keys": [public_jwk(name)]})
    decoded = joserfc.jwt.decode(token.decode("ascii"), keys, registry=registry)
    joserfc.jwt.JWTClaimsRegistry(
        now=NOW,
        leeway=LEEWAY,
        iss={"essential": True, "value": CLAIMS[name]["iss"]},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
    ).validate(decoded.claims)
    return decoded.claims


class Mutator:
    """Makes ordinary tokens of an issuer and mutates them."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = random.Random(f"{seed} {name}")
        self.choice = self.random.choice
        self.header, self.claims = ordinary_header(name), ordinary_claims(name)
        unsigned = [self.character, self.bit, self.bytes_of_part, self.cut, self.swap, self.respell, self.edit_unsigned]
        signed = [self.edit_header, self.edit_claims, self.edit_text]
        self.ways: list[Callable[[], bytes]] = [*unsigned, self.mutate_signature, *signed]
        # Signing with RSA costs as much as a hundred other mutations, which come more often there.
        self.weights = [4] * (len(self.ways) - 3) + [1 if name in SLOW else 8] * 3
        self.pool = [self.sign(self.header, {**self.claims, "jti": str(place)}) for place in range(12)]
        others = [other for other in SHARES if other != name]
        self.foreign = [self.sign(ordinary_header(other), ordinary_claims(other), other) for other in others]

    def mutated(self) -> tuple[str, bytes]:
        """A mutated token, and how."""
        way = self.random.choices(self.ways, self.weights)[0]
        return way.__name__, way()

    def sign(self, header: Any, claims: Any, name: str = "") -> bytes:
        """A token of these with a valid signature."""
        data = part(header) + b"." + part(claims)
        return data + b"." + b64(sign(name or self.name, data))

    def one(self) -> bytearray:
        """An ordinary token."""
        return bytearray(self.choice(self.pool))

    def character(self) -> bytes:
        """One character becomes another that a token may hold."""
        token = self.one()
        token[self.random.randrange(len(token))] = self.choice(ALPHABET + b"..=")
        return bytes(token)

    def bit(self) -> bytes:
        """One bit of one byte."""
        token = self.one()
        token[self.random.randrange(len(token))] ^= 1 << self.random.randrange(8)
        return bytes(token)

    def edit_part(self, edit: Callable[[bytes], bytes]) -> bytes:
        """An ordinary token with one of its parts edited."""
        parts = bytes(self.one()).split(b".")
        place = self.random.randrange(3)
        parts[place] = edit(parts[place])
        return b".".join(parts)

    def bytes_of_part(self) -> bytes:
        """Bytes of one part, decoded and encoded again."""

        def edit(part: bytes) -> bytes:
            raw = bytearray(decode(part))
            for _ in range(self.random.randint(1, 3)):
                raw[self.random.randrange(len(raw))] = self.random.randrange(256)
            return b64(bytes(raw))

        return self.edit_part(edit)

    def cut(self) -> bytes:
        """Characters removed or inserted, at the end of a part or anywhere."""
        token = bytes(self.one())
        dots = [at for at, byte in enumerate(token) if byte == ord(".")]
        at = self.choice([*dots, len(token), self.random.randrange(len(token))])
        more = bytes(self.random.choices(ALPHABET, k=self.random.randint(0, 3)))
        return token[: max(at - self.random.randint(0, 3), 0)] + more + token[at:]

    def swap(self) -> bytes:
        """Parts of several tokens, this issuer's and others'."""
        sources = [self.choice([*self.pool, *self.foreign]).split(b".") for _ in range(3)]
        return b".".join(source[self.choice((place, place, place, 0, 1, 2))] for place, source in enumerate(sources))

    def respell(self) -> bytes:
        """Other spellings of the same bytes, which a lax decoder accepts."""
        return self.edit_part(lambda old: self.choice(self.spellings(old)))

    def spellings(self, old: bytes) -> list[bytes]:
        """Of one part."""
        more = [b"\n", b" ", b"\t", b"\0", b"%", b"A", b"AA", b"=A", b".", b"\xc2\xa0"]
        return [
            old + b"=" * self.random.randint(1, 3),
            old.replace(b"-", b"+").replace(b"_", b"/"),
            old[:-1] + ALPHABET[ALPHABET.index(old[-1]) ^ self.choice((1, 1, 2, 3)) :][:1],
            old + self.choice(more),
            self.choice([b" ", b"\n", b"=", b"."]) + old,
            old[: len(old) // 2] + self.choice([b"\n", b"=", b"\r\n", b"!"]) + old[len(old) // 2 :],
        ]

    def edit_unsigned(self) -> bytes:
        """Another header or other claims under the old signature."""
        header, claims, signature = bytes(self.one()).split(b".")
        if self.random.random() < 0.5:
            return b".".join([part(self.edit(self.header)), claims, signature])
        return b".".join([header, part(self.edit(self.claims)), signature])

    def mutate_signature(self) -> bytes:
        """The signature's number in another form, where its algorithm has one."""
        data, _, encoded = bytes(self.one()).rpartition(b".")
        raw = decode(encoded)
        r, s = raw[: len(raw) // 2], raw[len(raw) // 2 :]
        forms = [raw + b"\0", b"\0" + raw, raw[:-1], raw[1:], s + r, bytes(len(raw)), b"\0" + r + b"\0" + s]
        der = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
        return data + b"." + b64(self.choice([*forms, der, r + bytes(len(r)), raw]))

    def edit_header(self) -> bytes:
        """Another header, signed."""
        return self.sign(self.edit(self.header), self.claims)

    def edit_claims(self) -> bytes:
        """Other claims, signed."""
        return self.sign(self.header, self.edit(self.claims))

    def edit(self, members: dict[str, Any]) -> dict[str, Any]:
        """One or two members changed, added or removed.

        Not ``cty`` and others like it: joserfc checks the types of header members that the verifier does not use.
        """
        edited = dict(members)
        for _ in range(self.random.randint(1, 2)):
            name = self.choice([*members, "nbf", "kid", "typ", "crit", "b64", "azp", "gty", "level", "zip", "x"])
            if self.random.random() < 0.15:
                edited.pop(name, None)
            else:
                edited[name] = self.choice(self.choice(VALUES))
        if edited.get("kid", "") is None:  # null counts as absent here; joserfc refuses it
            del edited["kid"]
        return edited

    def edit_text(self) -> bytes:
        """JSON that no library writes, signed: white space, duplicates, odd numbers, odd encodings."""
        header, claims = json.dumps(self.header).encode(), json.dumps(self.claims).encode()
        if self.random.random() < 0.5:
            return self.sign(self.choice(TEXTS)(header, self.choice), claims)
        return self.sign(header, self.choice(TEXTS)(claims, self.choice))


def decode(encoded: bytes) -> bytes:
    """Base64url without padding."""
    return urlsafe_b64decode(encoded + b"==")


CONSTANTS: list[Any] = [None, True, False, 0, -1, "", [], {}, NOW, NOW + 3600.5, str(NOW + 60)]
# A value is chosen from one of these lists.
VALUES: list[list[Any]] = [
    *([constant] for constant in CONSTANTS),
    [NOW + seconds for seconds in (-3600, -11, -10, -9, -1, 0, 1, 9, 10, 11, 3600)],
    [2**31, 2**53, 2**53 + 1, 2**63, 2**64, 1e300, -(2**53), float("nan"), float("inf")],
    [AUDIENCE, [AUDIENCE], [AUDIENCE, 1], [AUDIENCE, None], ["x", AUDIENCE], AUDIENCE + " "],
    [CLAIMS[name]["iss"] for name in SHARES],
    [SIGNERS[name][1] for name in SHARES],
    [*(SIGNERS[name][0] for name in SHARES), "none", "None", "RS512", "HS512"],
    ["agent-1", "agent-2", "a b", "a\r\nb", "\ud800", "é", "client-credentials", "JWT", "at+jwt"],
    ["read", "read write", "read\twrite", ["read"], ["read write"], [1], " "],
    [["exp"], ["b64"], [], "b64", {"jkt": "x"}],
]
NUMBERS = [b"NaN", b"Infinity", b"1e999", b"01", b"+1", b"1.", b"0x1"]
STRINGS = [b"'a'", b'"\n"', b'"\\x"', b'"\xff"', b'"\\ud800"', b"9" * 5000]
TIMES = [b"1.75000", b"0175000", b"-175000", b"175000000000"]
NESTED = [b"[" * depth + b"]" * depth for depth in (1, 10, 100, 3000)]
TEXTS: list[Callable[[bytes, Callable[[list[Any]], Any]], bytes]] = [
    lambda raw, _: b" " + raw + b"\n",
    lambda raw, _: raw.replace(b": ", b":").replace(b", ", b","),
    lambda raw, _: b"\xef\xbb\xbf" + raw,
    lambda raw, choice: raw.decode().encode(choice(["utf-16", "utf-16-le"])),
    lambda raw, choice: raw[:-1] + b', "' + choice([b"iss", b"exp", b"alg", b"x"]) + b'": 1}',
    lambda raw, _: raw[:-1] + b', "\\u0069ss": "x", "\\u0061lg": "none"}',
    lambda raw, choice: raw[:-1] + b', "x": ' + choice(NUMBERS) + b"}",
    lambda raw, choice: raw[:-1] + b', "x": ' + choice(STRINGS) + b"}",
    lambda raw, choice: raw[:-1] + b', "x": ' + choice(NESTED) + b"}",
    lambda raw, choice: choice([raw + b"{}", raw[:-1], raw[:-1] + b",}", b"[" + raw + b"]"]),
    lambda raw, choice: raw.replace(b"175000", choice(TIMES)),
]


# RFC 9864 gives EdDSA with Ed25519 a name of its own, which issuers do not use yet.
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.timeout(0 if TOKENS > 100_000 else 120)
@pytest.mark.parametrize("name", SHARES)
def test_what_the_verifier_accepts_two_libraries_accept_with_the_same_claims(
    main: RunningApp, name: str, record_property: Callable[[str, object], None]
) -> None:
    verifier, mutator, accepted, reasons = main.service.runtime.cache, Mutator(name, SEED), 0, Counter[Reason]()
    count = round(TOKENS * SHARES[name])
    for _ in range(count):
        how, token = mutator.mutated()
        try:
            verified, _ = verifier.verify(token)
        except Rejected as rejected:
            reasons[rejected.reason] += 1
            continue
        accepted += 1
        message = f"{how}: {token!r}"
        signer = verified.principal.issuer
        claims = by_joserfc(signer, token)
        assert by_pyjwt(signer, token) == claims, message
        assert (claims["exp"], claims.get("jti", "")) == (verified.exp, verified.jti), message
        assert claims.get("client_id", claims.get("azp")) == verified.principal.client_id, message
        assert claims["iss"] == CLAIMS[signer]["iss"], message
    record_property("mutated", count)
    record_property("accepted", accepted)
    # Else the test would have nothing to compare, or nothing to refuse.
    assert accepted > count / 100
    assert {Reason.MALFORMED_TOKEN, Reason.BAD_SIGNATURE, Reason.INVALID_CLAIMS} <= reasons.keys()

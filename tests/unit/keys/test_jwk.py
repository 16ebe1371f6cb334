"""JSON Web Keys: which are taken, and what they verify."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed448

from tests.unit.support import Jwk, SigningKey, b64, jwks
from verifier.keys.jwk import Key, parse_key, parse_key_file, parse_key_set, thumbprints

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
    "HS256", "HS384", "HS512", "none",
)  # fmt: skip


def algorithms_of(key: Key) -> str:
    return " ".join(name for name in ALGORITHMS if key.fits(name))


@pytest.fixture(scope="session")
def p521_signer() -> SigningKey:
    return SigningKey.generate("ES512", "p521")


@pytest.fixture(scope="session")
def ed448_signer() -> SigningKey:
    return SigningKey(ed448.Ed448PrivateKey.generate(), "EdDSA", "ed448")


@pytest.mark.parametrize(
    ("signer_name", "alg", "fits"),
    [
        ("signer", None, "RS256 RS384 RS512 PS256 PS384 PS512"),
        ("signer", "PS256", "PS256"),
        ("ec_signer", None, "ES256"),
        ("p521_signer", None, "ES512"),
        ("ed_signer", None, "EdDSA Ed25519"),
        ("ed_signer", "EdDSA", "EdDSA Ed25519"),
        ("ed_signer", "Ed25519", "EdDSA Ed25519"),
        ("ed448_signer", None, "EdDSA"),
    ],
)
def test_a_key_verifies_with_the_algorithms_of_its_type_or_only_its_alg(
    request: pytest.FixtureRequest, signer_name: str, alg: str | None, fits: str
) -> None:
    signer: SigningKey = request.getfixturevalue(signer_name)
    key = signer.public(alg=alg)

    assert algorithms_of(key) == fits
    for name in fits.split():
        signature = signer.signature(b"data", "EdDSA" if name == "Ed25519" else name)
        assert key.verify(name, b"data", signature)
        assert not key.verify(name, b"datax", signature)


NOT_FOR_SIGNATURES, BAD_ALG, BAD_TYPE = "it is not for signatures", "its alg does not fit its type", "type is not supp"


@pytest.mark.parametrize(
    ("signer_name", "changes", "cause"),
    [
        pytest.param("signer", {"use": "enc"}, NOT_FOR_SIGNATURES, id="for encryption"),
        pytest.param("signer", {"key_ops": ["sign"]}, NOT_FOR_SIGNATURES, id="key_ops without verify"),
        pytest.param("signer", {"key_ops": "verify"}, NOT_FOR_SIGNATURES, id="key_ops no list"),
        pytest.param("signer", {"alg": "ES256"}, BAD_ALG, id="alg of another type"),
        pytest.param("signer", {"alg": "RSA-OAEP"}, BAD_ALG, id="alg for encryption"),
        pytest.param("signer", {"alg": "none"}, BAD_ALG, id="alg none"),
        pytest.param("signer", {"alg": ["RS256"]}, BAD_ALG, id="alg no string"),
        pytest.param("ed448_signer", {"alg": "Ed25519"}, BAD_ALG, id="alg of another curve"),
        pytest.param("signer", {"kty": "oct", "k": b64(b"k" * 64), "alg": "HS256"}, BAD_TYPE, id="a shared secret"),
        pytest.param("ec_signer", {"crv": "secp256k1"}, BAD_TYPE, id="an unknown curve"),
        pytest.param("signer", {"kty": ["RSA"]}, BAD_TYPE, id="kty no string"),
        pytest.param("signer", {"kty": None}, BAD_TYPE, id="no kty"),
        pytest.param("signer", {"kid": 7}, "its kid is not a string", id="kid no string"),
        pytest.param("signer", {"n": None}, "n is missing", id="no modulus"),
        pytest.param("signer", {"n": 5}, "n is not base64url", id="modulus no string"),
        pytest.param("signer", {"n": "!!"}, "n is not base64url", id="modulus no base64"),
        pytest.param("signer", {"n": "A"}, "n is not base64url", id="modulus cut off"),
        pytest.param("signer", {"e": b64(b"\2")}, "it is malformed", id="an even exponent"),
        pytest.param("signer", {"e": b64(b"\1\0\0\0\1")}, "its exponent has more than 32 bits", id="exponent"),
        pytest.param("weak_signer", {}, "RSA key of 1024 bits, not of 2048 to 8192", id="RSA-1024"),
        pytest.param("ec_signer", {"x": b64(b"\1" * 31)}, "x has 31 bytes, not 32 as P-256 requires", id="no zero"),
        pytest.param("ec_signer", {"y": b64(b"\1" * 33)}, "y has 33 bytes, not 32 as P-256 requires", id="too long"),
        pytest.param("ec_signer", {"x": b64(b"\1" * 32)}, "it is malformed", id="a point that is not on the curve"),
        pytest.param("p521_signer", {"x": b64(b"\1" * 65)}, "x has 65 bytes, not 66 as P-521", id="P-521 no zero"),
        pytest.param("ed_signer", {"x": b64(b"\1" * 31)}, "x has 31 bytes, not 32 as Ed25519", id="Ed25519 too short"),
        pytest.param("ed448_signer", {"x": b64(b"\1" * 56)}, "x has 56 bytes, not 57 as Ed448", id="Ed448 too short"),
    ],
)
def test_a_key_that_cannot_verify_is_refused_with_the_cause(
    request: pytest.FixtureRequest, signer_name: str, changes: Jwk, cause: str
) -> None:
    with pytest.raises(ValueError, match=cause):
        parse_key(request.getfixturevalue(signer_name).jwk(**changes))


@pytest.mark.parametrize(
    ("bits", "exponent", "accepted"),
    [
        (2047, 65537, False),
        (2048, 65537, True),
        (8192, 2**32 - 1, True),
        (8193, 65537, False),
        (2048, 2**32 + 1, False),
    ],
)
def test_rsa_keys_of_2048_to_8192_bits_with_a_short_exponent_are_accepted(
    bits: int, exponent: int, accepted: bool
) -> None:
    n, e = (b64(value.to_bytes((value.bit_length() + 7) // 8, "big")) for value in (2**bits - 1, exponent))
    with contextlib.nullcontext() if accepted else pytest.raises(ValueError, match="bits"):
        parse_key({"kty": "RSA", "n": n, "e": e})


def test_padded_members_are_accepted(ed_signer: SigningKey) -> None:
    padded = ed_signer.jwk()["x"] + "="

    assert ed_signer.public(x=padded).verify("EdDSA", b"data", ed_signer.signature(b"data"))


@pytest.mark.parametrize("jwk", [None, 5, "key", []], ids=repr)
def test_what_is_no_object_is_no_key(jwk: Any) -> None:
    with pytest.raises(ValueError, match="not an object"):
        parse_key(jwk)


@pytest.mark.parametrize(
    ("size", "fits"),
    [(32, "HS256"), (47, "HS256"), (48, "HS256 HS384"), (63, "HS256 HS384"), (64, "HS256 HS384 HS512")],
)
def test_a_shared_secret_from_a_file_fits_what_it_is_long_enough_for(size: int, fits: str) -> None:
    assert algorithms_of(parse_key({"kty": "oct", "k": b64(b"k" * size)}, symmetric=True)) == fits


@pytest.mark.parametrize(("alg", "size"), [(None, 31), ("HS256", 31), ("HS384", 47), ("HS512", 63)])
def test_a_shared_secret_that_is_too_short_is_refused_without_quoting_it(alg: str | None, size: int) -> None:
    secret = b64(b"k" * size)
    with pytest.raises(ValueError, match="too short") as caught:
        parse_key({"kty": "oct", "k": secret, "alg": alg}, symmetric=True)

    assert secret not in str(caught.value)


def test_a_key_is_identified_by_all_that_verifies(signer: SigningKey, other_signer: SigningKey) -> None:
    assert signer.public().identity != other_signer.public(kid=signer.kid).identity
    assert signer.public(x5c=["abc"]).identity == signer.public().identity
    assert signer.public(x5t="abc").identity != signer.public().identity


def test_certificate_thumbprints_are_read_and_malformed_ones_ignored() -> None:
    assert thumbprints({"x5t": "a", "x5t#S256": "b"}) == (("x5t", "a"), ("x5t#S256", "b"))
    assert thumbprints({"x5t": ["a"], "x5t#S256": None, "x5c": "c"}) == ()


def test_unusable_keys_of_a_set_are_listed_with_their_causes(signer: SigningKey, weak_signer: SigningKey) -> None:
    secret = {"kty": "oct", "k": b64(b"k" * 64), "kid": "secret"}
    parsed = parse_key_set(jwks(weak_signer, secret, signer, signer, signer.jwk(kid=7))[:-2] + b", 1]}")

    assert [key.kid for key in parsed.usable] == [signer.kid]
    assert parsed.unusable == (
        ("weak", "it is an RSA key of 1024 bits, not of 2048 to 8192"),
        ("secret", "its type is not supported"),
        (None, "its kid is not a string"),
        (None, "it is not an object"),
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b'{"keys":[],"keys":[]}'], ids=repr)
def test_what_is_no_key_set_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_key_set(body)


@pytest.mark.parametrize(
    ("content", "message"),
    [(jwks(), "no key in it can verify a signature$"), (b'{"keys": [1]}', "signature: it is not an object$")],
)
def test_a_file_must_hold_a_usable_key(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_key_file(content)


def test_a_set_has_at_most_a_hundred_keys_and_may_be_empty(ed_signer: SigningKey) -> None:
    kids = [ed_signer.jwk(kid=str(place)) for place in range(101)]
    assert [len(parse_key_set(jwks(*kids[1:end])).usable) for end in (1, 101)] == [0, 100]
    with pytest.raises(ValueError, match="at most 100"):
        parse_key_set(jwks(*kids))

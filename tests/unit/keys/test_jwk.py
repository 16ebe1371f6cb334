"""JSON Web Keys: which are taken, and what they verify."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448

from tests.unit.support import Jwk, SigningKey, b64, jwks
from verifier.keys.jwk import Key, parse_key, parse_key_set

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512",
    "none",
)  # fmt: skip


def algorithms_of(key: Key) -> str:
    return " ".join(name for name in ALGORITHMS if key.fits(name))


@pytest.fixture(scope="session")
def p521_signer() -> SigningKey:
    return SigningKey(ec.generate_private_key(ec.SECP521R1()), "ES512", "p521")


@pytest.fixture(scope="session")
def ed448_signer() -> SigningKey:
    return SigningKey(ed448.Ed448PrivateKey.generate(), "EdDSA", "ed448")


@pytest.fixture(params=["signer", "ec_signer", "p521_signer", "ed_signer", "ed448_signer"])
def any_signer(request: pytest.FixtureRequest) -> SigningKey:
    signer: SigningKey = request.getfixturevalue(request.param)
    return signer


def test_a_key_verifies_only_what_its_private_half_signed(any_signer: SigningKey) -> None:
    signing_input, _, signature = any_signer.sign({"a": 1}).rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    key = any_signer.public()

    assert key.verify(any_signer.algorithm, signing_input.encode(), raw)
    assert not key.verify(any_signer.algorithm, signing_input.encode() + b"x", raw)


@pytest.mark.parametrize(
    ("signer_name", "alg", "fits"),
    [
        ("signer", None, "RS256 RS384 RS512 PS256 PS384 PS512"),
        ("signer", "PS256", "PS256"),
        ("ec_signer", None, "ES256"),
        ("p521_signer", None, "ES512"),
        ("ed_signer", None, "EdDSA"),
        ("ed448_signer", None, "EdDSA"),
    ],
)
def test_a_key_fits_the_algorithms_of_its_type_or_only_its_alg(
    request: pytest.FixtureRequest, signer_name: str, alg: str | None, fits: str
) -> None:
    assert algorithms_of(request.getfixturevalue(signer_name).public(alg=alg)) == fits


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"use": "enc"}, id="for encryption"),
        pytest.param({"key_ops": ["sign"]}, id="key_ops without verify"),
        pytest.param({"key_ops": "verify"}, id="key_ops no list"),
        pytest.param({"alg": "ES256"}, id="alg of another type"),
        pytest.param({"alg": "RSA-OAEP"}, id="alg for encryption"),
        pytest.param({"alg": "none"}, id="alg none"),
        pytest.param({"alg": 5}, id="alg no string"),
        pytest.param({"kty": "oct", "k": b64(b"k" * 64), "alg": "HS256"}, id="a shared secret"),
        pytest.param({"kty": "EC", "crv": "secp256k1"}, id="an unknown curve"),
        pytest.param({"kty": ["RSA"]}, id="kty no string"),
        pytest.param({"kty": None}, id="no kty"),
        pytest.param({"kid": 7}, id="kid no string"),
        pytest.param({"n": None}, id="no modulus"),
        pytest.param({"n": 5}, id="modulus no string"),
        pytest.param({"n": "!!"}, id="modulus no base64"),
    ],
)
def test_a_key_that_cannot_verify_is_refused(signer: SigningKey, changes: Jwk) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_key(signer.jwk(**changes))


def test_rsa_below_2048_bits_is_refused(weak_signer: SigningKey) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_key(weak_signer.jwk())


def test_a_point_off_its_curve_is_refused(ec_signer: SigningKey) -> None:
    with pytest.raises(ValueError, match="malformed"):
        parse_key(ec_signer.jwk(x=b64(b"\x01" * 32)))


@pytest.mark.parametrize("jwk", [None, 5, "key", []], ids=repr)
def test_what_is_no_object_is_no_key(jwk: Any) -> None:
    with pytest.raises(ValueError, match="not an object"):
        parse_key(jwk)


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        (32, "HS256"), (47, "HS256"), (48, "HS256 HS384"), (63, "HS256 HS384"), (64, "HS256 HS384 HS512"),
    ],
)  # fmt: skip
def test_a_shared_secret_from_a_file_fits_what_it_is_long_enough_for(size: int, fits: str) -> None:
    assert algorithms_of(parse_key({"kty": "oct", "k": b64(b"k" * size)}, symmetric=True)) == fits


@pytest.mark.parametrize(("algorithm", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_shared_secret_one_byte_too_short_for_its_alg_is_refused_without_quoting_it(
    algorithm: str, size: int
) -> None:
    secret = b64(b"k" * (size - 1))
    with pytest.raises(ValueError, match="too short") as caught:
        parse_key({"kty": "oct", "k": secret, "alg": algorithm}, symmetric=True)

    assert secret not in str(caught.value)


def test_a_key_is_identified_by_all_that_verifies(signer: SigningKey, other_signer: SigningKey) -> None:
    assert signer.public().identity != other_signer.public(kid=signer.kid).identity
    assert signer.public(x5c=["abc"]).identity == signer.public().identity


def test_unusable_keys_of_a_set_are_skipped(signer: SigningKey, weak_signer: SigningKey, ec_signer: SigningKey) -> None:
    secret = {"kty": "oct", "k": b64(b"k" * 64), "kid": "secret"}
    keys = parse_key_set(jwks(weak_signer, signer.jwk(use="enc"), ec_signer.jwk(alg="ES384"), secret, signer))

    assert [key.kid for key in keys] == [signer.kid]


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [1, null]}', b'{"keys":[],"keys":[]}'],
    ids=repr,
)
def test_what_holds_no_key_is_no_key_set(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_key_set(body)


def test_a_set_of_more_than_a_hundred_keys_is_refused(ed_signer: SigningKey) -> None:
    assert len(parse_key_set(jwks(*[ed_signer] * 100))) == 100
    with pytest.raises(ValueError, match="at most 100"):
        parse_key_set(jwks(*[ed_signer] * 101))

"""JSON Web Keys: which are taken, and what they verify."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.unit.support import Jwk, SigningKey, b64, jwks
from verifier.keys.jwk import parse_key, parse_key_set


def test_a_key_verifies_what_its_private_half_signed(signer: SigningKey) -> None:
    signing_input, _, signature = signer.sign({"a": 1}).rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")

    assert signer.public().verify("RS256", signing_input.encode(), raw)
    assert not signer.public().verify("RS256", signing_input.encode() + b"x", raw)


@pytest.mark.parametrize(
    ("key", "fits", "fits_not"),
    [
        ("signer", {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, {"ES256", "EdDSA", "HS256", "none"}),
        ("ec_signer", {"ES256"}, {"ES384", "ES512", "RS256", "HS256"}),
        ("ed_signer", {"EdDSA"}, {"ES256", "RS256", "HS256"}),
    ],
    ids=["RSA", "P-256", "Ed25519"],
)
def test_a_key_fits_the_algorithms_of_its_kind(
    request: pytest.FixtureRequest, key: str, fits: set[str], fits_not: set[str]
) -> None:
    made = request.getfixturevalue(key).public(alg=None)

    assert {name for name in fits | fits_not if made.fits(name)} == fits


def test_a_key_with_an_alg_fits_that_one_alone(signer: SigningKey) -> None:
    key = signer.public(alg="PS256")

    assert [name for name in ("RS256", "PS256", "PS384") if key.fits(name)] == ["PS256"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"use": "enc"}, id="for encryption"),
        pytest.param({"key_ops": ["sign"]}, id="key_ops without verify"),
        pytest.param({"key_ops": "verify"}, id="key_ops no list"),
        pytest.param({"alg": "ES256"}, id="alg of another kind"),
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
    ("size", "fits"), [(32, ["HS256"]), (48, ["HS256", "HS384"]), (64, ["HS256", "HS384", "HS512"])]
)
def test_a_shared_secret_from_a_file_fits_what_it_is_long_enough_for(size: int, fits: list[str]) -> None:
    key = parse_key({"kty": "oct", "k": b64(b"k" * size)}, symmetric=True)

    assert [name for name in ("HS256", "HS384", "HS512", "RS256") if key.fits(name)] == fits


def test_a_shared_secret_of_31_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        parse_key({"kty": "oct", "k": b64(b"k" * 31)}, symmetric=True)


def test_an_error_about_a_key_does_not_quote_it() -> None:
    with pytest.raises(ValueError, match="too short") as caught:
        parse_key({"kty": "oct", "k": "c2VjcmV0"}, symmetric=True)

    assert "c2VjcmV0" not in str(caught.value)


def test_a_key_that_reuses_a_kid_is_another_key(signer: SigningKey, other_signer: SigningKey) -> None:
    assert signer.public().identity != other_signer.public(kid=signer.kid).identity


def test_members_that_verify_nothing_do_not_make_another_key(signer: SigningKey) -> None:
    assert signer.public(x5t="abc").identity == signer.public().identity


def test_unusable_keys_of_a_set_are_skipped(signer: SigningKey, weak_signer: SigningKey, ec_signer: SigningKey) -> None:
    secret = {"kty": "oct", "k": b64(b"k" * 64), "kid": "secret"}
    keys = parse_key_set(jwks(weak_signer, signer.jwk(use="enc"), ec_signer.jwk(alg="ES384"), secret, signer))

    assert [key.kid for key in keys] == [signer.kid]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [1, null]}',
        b'{"keys": [], "keys": []}',
    ],
    ids=repr,
)
def test_what_holds_no_key_is_no_key_set(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_key_set(body)


def test_a_set_of_more_than_a_hundred_keys_is_refused(ed_signer: SigningKey) -> None:
    assert len(parse_key_set(jwks(*[ed_signer] * 100))) == 100
    with pytest.raises(ValueError, match="at most 100"):
        parse_key_set(jwks(*[ed_signer] * 101))

"""A token's form: compact JWS, in the one way it can be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.support import SigningKey, b64, claims
from verifier.reasons import Reason, Rejected
from verifier.tokens.jws import MAX_TOKEN_BYTES, decode_part, take_apart, unverified_claims


def rejected(token: str | bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        unverified_claims(take_apart(token.encode() if isinstance(token, str) else token))
    return caught.value


def test_a_token_of_16_kib_is_taken_and_a_longer_one_is_not(signer: SigningKey) -> None:
    def padded(size: int) -> bytes:
        return signer.sign(claims(pad="x" * size)).encode()

    size = next(size for size in range(11_500, 12_288) if len(padded(size)) >= MAX_TOKEN_BYTES - 1)
    assert len(padded(size)) <= MAX_TOKEN_BYTES == 16 * 1024
    take_apart(padded(size))
    assert "longer than 16 KiB" in rejected(padded(size) + b"AA").description


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("abc", id="one part"),
        pytest.param("a.b", id="two parts"),
        pytest.param("eyJhIjoxfQ.e30.AA.AA", id="four parts"),
        pytest.param("a.b.c.d.e", id="five parts: a JWE"),
        pytest.param(".e30.AA", id="no header"),
        pytest.param("e30=.e30.AA", id="padding"),
        pytest.param("e+0.e30.AA", id="plain base64"),
        pytest.param("e30.e30.A", id="a length that base64 has not"),
        pytest.param("e30.e30.AB", id="bits that no byte uses"),
        pytest.param("W10.e30.AA", id="header an array"),
        pytest.param(b64(b'{"alg":"RS256","alg":"RS256"}') + ".e30.AA", id="alg twice"),
        pytest.param(b64(b"not json") + ".e30.AA", id="header no JSON"),
        pytest.param("é.e30.AA", id="not ASCII"),
        pytest.param("e30.e30.AA e30.e30.AA", id="two tokens"),
    ],
)
def test_what_is_no_compact_jws_is_malformed(token: str) -> None:
    assert rejected(token).reason is Reason.MALFORMED_TOKEN


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"crit": ["exp"]}, id="crit"),
        pytest.param({"crit": ["b64"], "b64": False}, id="b64 false"),
        pytest.param({"b64": False}, id="b64 false without crit"),
        pytest.param({"enc": "A256GCM"}, id="encrypted"),
        pytest.param({"alg": None}, id="alg null"),
        pytest.param({"alg": 5}, id="alg a number"),
        pytest.param({"kid": 5}, id="kid a number"),
        pytest.param({"typ": ["JWT"]}, id="typ a list"),
    ],
)
def test_a_header_that_asks_for_more_or_has_other_types_is_malformed(header: dict[str, Any]) -> None:
    part = b64(json.dumps({"alg": "RS256", "kid": "rsa"} | header).encode())

    assert rejected(f"{part}.e30.AAAA").reason is Reason.MALFORMED_TOKEN


def test_a_token_is_taken_apart_without_being_checked(signer: SigningKey) -> None:
    token = signer.sign(claims(), header={"typ": "at+jwt"}).encode()
    parts = take_apart(token)

    assert parts.header == ("RS256", "rsa", "at+jwt")
    assert parts.signing_input == token.rpartition(b".")[0]
    assert len(parts.signature) == 256


@pytest.mark.parametrize(("part", "data"), [(b"", b""), (b"AA", b"\0"), (b"AAA", b"\0\0"), (b"-_-_", b"\xfb\xff\xbf")])
def test_canonical_base64url_is_decoded(part: bytes, data: bytes) -> None:
    assert decode_part(part) == data


@pytest.mark.parametrize("part", [b"A", b"AB", b"AAB", b"AAAAA"])
def test_other_spellings_of_the_same_bytes_are_refused(part: bytes) -> None:
    with pytest.raises(ValueError, match="canonical"):
        decode_part(part)


def test_the_type_is_told_in_lower_case(signer: SigningKey) -> None:
    token = signer.sign(claims(), header={"typ": "AT+JWT"}).encode()

    assert take_apart(token).header.typ == "at+jwt"


def test_a_header_without_kid_and_typ_is_good() -> None:
    header = b64(b'{"alg":"RS256"}')

    assert take_apart(f"{header}.e30.".encode()).header == ("RS256", None, "")


def test_the_claims_are_parsed_without_being_checked(signer: SigningKey) -> None:
    token = signer.sign(claims(exp=1)).encode()

    assert unverified_claims(take_apart(token)) == claims(exp=1)

"""A token's form: compact JWS, in the one way it can be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.support import SigningKey, b64, claims
from verifier.reasons import Reason, Rejected
from verifier.tokens.jws import MAX_TOKEN_BYTES, decode_part, parse_compact, unverified_claims

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def rejected(token: str | bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        unverified_claims(parse_compact(token.encode() if isinstance(token, str) else token))
    return caught.value


def test_a_token_of_16_kib_is_parsed_and_a_longer_one_is_not() -> None:
    start = b64(b'{"alg":"RS256"}') + ".e30."
    token = start + "A" * (16 * 1024 - len(start))

    assert len(token) == MAX_TOKEN_BYTES
    parse_compact(token.encode())
    assert "longer than 16 KiB" in rejected(token + "A").description


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
        pytest.param("W10.e30.AA", id="header an array"),
        pytest.param(b64(b'{"alg":"RS256"}') + ".e30.AB", id="signature not canonical"),
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
def test_a_header_with_extensions_or_other_types_is_malformed(header: dict[str, Any]) -> None:
    part = b64(json.dumps({"alg": "RS256", "kid": "rsa"} | header).encode())

    assert rejected(f"{part}.e30.AAAA").reason is Reason.MALFORMED_TOKEN


def test_a_token_is_parsed_without_being_checked(signer: SigningKey) -> None:
    token = signer.sign(claims(exp=1), header={"typ": "application/AT+JWT"}).encode()
    parts = parse_compact(token)

    assert parts.header == ("RS256", "rsa", "at+jwt", ())
    assert parts.signing_input == token.rpartition(b".")[0]
    assert len(parts.signature) == 256
    assert unverified_claims(parts) == claims(exp=1)


@pytest.mark.parametrize("header", [b'{"alg":"RS256"}', b'{"alg":"RS256","kid":null}'], ids=repr)
def test_a_header_without_kid_and_typ_is_good(header: bytes) -> None:
    assert parse_compact(f"{b64(header)}.e30.".encode()).header == ("RS256", None, None, ())


def test_the_thumbprints_of_a_header_are_read() -> None:
    header = b64(b'{"alg":"RS256","x5t":"one","x5t#S256":"two"}')

    assert parse_compact(f"{header}.e30.".encode()).header.thumbprints == (("x5t", "one"), ("x5t#S256", "two"))


@pytest.mark.parametrize("part", ["W10", b64(b'{"a":1,"a":1}'), "A", "", "e31"], ids=repr)
def test_claims_that_are_no_canonical_object_are_invalid(part: str) -> None:
    assert rejected(b64(b'{"alg":"RS256"}') + f".{part}.AA").reason is Reason.INVALID_CLAIMS


@pytest.mark.parametrize(("part", "data"), [(b"", b""), (b"AA", b"\0"), (b"AAA", b"\0\0"), (b"-_-_", b"\xfb\xff\xbf")])
def test_canonical_base64url_is_decoded(part: bytes, data: bytes) -> None:
    assert decode_part(part) == data


@pytest.mark.parametrize("start", [b"A", b"AA", b"AAAAA"])
def test_of_the_last_characters_only_those_without_unused_bits_are_canonical(start: bytes) -> None:
    """Else ``AQ`` and ``AX`` would be one signature in two spellings."""
    unused_bits = {1: 0b1111, 2: 0b11}[len(start) % 4]
    for value, last in enumerate(ALPHABET):
        part = start + bytes([last])
        if value & unused_bits == 0:
            assert b64(decode_part(part)).encode() == part
        else:
            with pytest.raises(ValueError, match="canonical"):
                decode_part(part)


@pytest.mark.parametrize("part", [b"A", b"AAAAA", b"AA==", b"A+AA", b"A/AA", b"A AA", b"AA\n", b"A.AA"])
def test_other_lengths_and_characters_are_refused(part: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kind of error is the whole promise
        decode_part(part)

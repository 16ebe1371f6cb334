"""A token's form: compact JWS, in the one way it can be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.support import SigningKey, b64, claims, outcome, rejected
from verifier.reasons import Reason
from verifier.tokens.jws import MAX_TOKEN_BYTES, decode_part, parse_compact, unverified_claims

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


RS256 = b64(b'{"alg":"RS256"}')


def parse(token: str) -> Any:
    """The claims of a token."""
    return unverified_claims(parse_compact(token.encode()))


def test_a_token_of_16_kib_is_parsed_and_a_longer_one_is_not() -> None:
    start = RS256 + ".e30."
    token = start + "A" * (16 * 1024 - len(start))

    assert len(token) == MAX_TOKEN_BYTES
    parse_compact(token.encode())
    assert "longer than 16 KiB" in rejected(parse, token + "A").description


NOT_COMPACT = {
    "empty": "", "one part": "abc", "two parts": "a.b", "four parts": "eyJhIjoxfQ.e30.AA.AA", "a JWE": "a.b.c.d.e",
    "no header": ".e30.AA", "padding": "e30=.e30.AA", "plain base64": "e+0.e30.AA", "header an array": "W10.e30.AA",
    "signature not canonical": f"{RS256}.e30.AB", "claims with another character": f"{RS256}.e 30.AA",
    "alg twice": b64(b'{"alg":"RS256","alg":"RS256"}') + ".e30.AA", "header no JSON": b64(b"not json") + ".e30.AA",
    "not ASCII": "é.e30.AA", "two tokens": "e30.e30.AA e30.e30.AA",
}  # fmt: skip


@pytest.mark.parametrize("token", NOT_COMPACT.values(), ids=NOT_COMPACT)
def test_what_is_no_compact_jws_is_malformed(token: str) -> None:
    assert outcome(parse, token) is Reason.MALFORMED_TOKEN


BAD_HEADERS: list[dict[str, Any]] = [
    {"crit": ["exp"]}, {"crit": ["b64"], "b64": False}, {"b64": False}, {"enc": "A256GCM"}, {"alg": None}, {"alg": 5},
    {"kid": 5}, {"typ": ["JWT"]},
]  # fmt: skip


@pytest.mark.parametrize("header", BAD_HEADERS, ids=str)
def test_a_header_with_extensions_or_other_types_is_malformed(header: dict[str, Any]) -> None:
    part = b64(json.dumps({"alg": "RS256", "kid": "rsa"} | header).encode())

    assert outcome(parse, f"{part}.e30.AAAA") is Reason.MALFORMED_TOKEN


def test_a_token_is_parsed_without_being_checked(signer: SigningKey) -> None:
    token = signer.sign(claims(exp=1), header={"typ": "application/AT+JWT"}).encode()
    parts = parse_compact(token)

    assert parts.header == ("RS256", "rsa", "at+jwt", ())
    assert parts.signing_input == token.rpartition(b".")[0]
    assert len(parts.signature) == 256
    assert unverified_claims(parts) == claims(exp=1)


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        (b'{"alg":"RS256"}', ("RS256", None, None, ())),
        (b'{"alg":"RS256","kid":null}', ("RS256", None, None, ())),
        (b'{"alg":"RS256","x5t":"1","x5t#S256":"2"}', ("RS256", None, None, (("x5t", "1"), ("x5t#S256", "2")))),
    ],
)
def test_kid_typ_and_thumbprints_are_optional(header: bytes, parsed: tuple[Any, ...]) -> None:
    assert parse_compact(f"{b64(header)}.e30.".encode()).header == parsed


@pytest.mark.parametrize("part", ["W10", b64(b'{"a":1,"a":1}'), "A", "", "e31"], ids=repr)
def test_claims_that_are_no_canonical_object_are_invalid(part: str) -> None:
    assert outcome(parse, f"{RS256}.{part}.AA") is Reason.INVALID_CLAIMS


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

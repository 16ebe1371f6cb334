"""Hostile forms of a token, and some valid ones: the Authorization header, base64url, JSON, published attacks."""

from __future__ import annotations

import json
from typing import Any

from tests.minting import ABSENT
from verifier.reasons import Reason as R

from .cases import ALPHABET, Case, cases, claims, header, parameter, raw, replaced
from .tokens import CLAIMS, NOW, Token, b64, of_length, ordinary_claims, ordinary_header, part, with_member

THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def authorized(reason: R, rows: dict[str, list[bytes]]) -> list[Case]:
    """A valid token in other Authorization headers."""
    return [case for name, forms in rows.items() for case in cases(reason, {name: Token()}, authorization=forms)]


def trailing_bit(encoded: bytes) -> bytes:
    """Another spelling of the same bytes: the last character's unused bits are set."""
    assert len(encoded) % 4 in (2, 3)
    return encoded[:-1] + bytes([ALPHABET[ALPHABET.index(encoded[-1:]) + 1]])


def with_padding(encoded: bytes) -> bytes:
    """Base64 with the padding that RFC 7515 forbids."""
    assert len(encoded) % 4
    return encoded + b"=" * (-len(encoded) % 4)


def tail_of(remainder: int, part_of: str) -> Token:
    """A token whose header or claims take ``remainder`` bytes more than a multiple of three: base64 has a tail."""
    base = ordinary_header("generic") if part_of == "header" else ordinary_claims("generic")
    pad = "x" * ((remainder - len(json.dumps({**base, "pad": ""}))) % 3)
    return header(pad=pad) if part_of == "header" else claims(pad=pad)


def nested(brackets: int) -> bytes:
    """A member whose value is a list in a list in a list."""
    return b'"deep": ' + b"[" * brackets + b"]" * brackets


def broken_json(reason: R, place: str, ordinary: dict[str, Any]) -> list[Case]:
    """JSON texts that are refused in place of the header and of the claims."""
    text = json.dumps(ordinary).encode()
    members = {
        "duplicate key in an object within": b'"x": {"a": 1, "a": 2}',
        "invalid UTF-8": b'"x": "\xff"',
        "overlong UTF-8": b'"x": "\xc0\xaf"',
        "surrogate as UTF-8": b'"x": "\xed\xa0\x80"',
        "NaN": b'"x": NaN',
        "1e999": b'"x": 1e999',
        "number of 5000 digits": b'"x": ' + b"9" * 5000,
        "lists 5000 deep": nested(5000),
        "raw line break": b'"x": "a\nb"',
        "comment": b'"x": 1 /* , */',
        "comma at the end": b'"x": 1,',
        "single quotes": b"'x': 1",
    }
    texts = {
        **{name: with_member(ordinary, member) for name, member in members.items()},
        "nothing": b"",
        "no JSON": b"alg=RS256",
        "a list": b'["RS256"]',
        "a string": b'"RS256"',
        "null": b"null",
        "a BOM": b"\xef\xbb\xbf" + text,
        "UTF-16": text.decode().encode("utf-16"),
        "truncated JSON": text[:-1],
        "JSON with something after it": text + b"{}",
    }
    changes: dict[str, dict[str, Any]] = {name: {place: text} for name, text in texts.items()}
    return cases(reason, {f"{name} in the {place}": Token(**change) for name, change in changes.items()})


def json_serialization(*, flattened: bool) -> bytes:
    """RFC 7515 section 7.2 instead of the compact form."""
    protected, payload, signature = Token().encode().decode().split(".")
    one = {"protected": protected, "signature": signature}
    whole = {"payload": payload, **one} if flattened else {"payload": payload, "signatures": [one]}
    return json.dumps(whole, separators=(",", ":")).encode()


def jwe(**header: Any) -> bytes:
    """An encrypted token's five parts, filled with zeros."""
    return b".".join([part(header), *[b64(bytes(16))] * 4])


# fmt: off
ORDINARY = [
    *cases(R.OK, {f"ordinary token of {name}": Token(name) for name in CLAIMS if name != "dark"}),
    *authorized(R.OK, {
        "scheme in lower case": [b"bearer %s"],
        "scheme in mixed case": [b"bEaReR %s"],
        "two spaces after the scheme": [b"Bearer  %s"],
        "white space around the value": [b"\t Bearer %s \t"],
    }),
    *cases(R.OK, {"no original URL where no rule needs it": Token()}, url=None, method=None),
    *cases(R.OK, {"token of exactly 16 KiB": lambda: of_length(16384)}),
    *cases(R.KEYS_UNAVAILABLE, {"issuer whose keys cannot be fetched": Token("dark")}),
]

AUTHORIZATION = [
    *cases(R.MISSING_TOKEN, {"no Authorization header": None}),
    *authorized(R.BAD_PROOF, {"DPoP scheme with a token that is not bound": [b"DPoP %s"]}),
    *cases(R.BAD_PROOF, {"DPoP scheme without a proof": claims(cnf={"jkt": THUMBPRINT})}, authorization=(b"dpop %s",)),
    *cases(R.EXPIRED, {"DPoP scheme with an expired token": claims(exp=1)}, authorization=(b"DPoP %s",)),
    *authorized(R.MISSING_TOKEN, {
        "empty Authorization header": [b""],
        "Basic credentials": [b"Basic dXNlcjpwYXNz"],
        "scheme that begins with DPoP": [b"DPoPx %s"],
        "token without a scheme": [b"%s"],
        "scheme that begins with Bearer": [b"Bearerx %s"],
        "token directly after the scheme": [b"Bearer%s"],
        "scheme with a letter that looks the same": [b"\xd0\x92earer %s"],
    }),
    *authorized(R.MALFORMED_TOKEN, {
        "scheme without a token": [b"Bearer"],
        "two tokens with a space": [b"Bearer %s %s"],
        "two tokens with a comma": [b"Bearer %s,%s"],
        "two credentials in one header": [b"Bearer %s, Bearer %s"],
        "two equal headers": [b"Bearer %s", b"Bearer %s"],
        "two headers, the second Basic": [b"Bearer %s", b"Basic eDp5"],
        "two headers, the first Basic": [b"Basic eDp5", b"Bearer %s"],
        "tab before the token": [b"Bearer \t%s"],
        "line break in the token": [b"Bearer %s\n"],
        "quotes around the token": [b'Bearer "%s"'],
        "no-break space in the token": [b"Bearer \xa0%s"],
        "NUL in the token": [b"Bearer %s\x00"],
        "auth parameter instead of a token": [b'Bearer token="%s"'],
    }),
]

FORM = [
    *cases(R.MALFORMED_TOKEN, {
        "token of 16 KiB and a byte": lambda: of_length(16385),
        "one part": b"abc",
        "two parts": Token(edit=lambda token: token[: token.rindex(b".")]),
        "four parts": Token(edit=lambda token: token + b".AAAA"),
        "five parts, as a JWE has": Token(edit=lambda token: token + b".AAAA.AAAA"),
        "dots alone": b"..",
        "JSON serialization": lambda: json_serialization(flattened=False),
        "flattened JSON serialization": lambda: json_serialization(flattened=True),
        "padding on the header": replaced(0, with_padding, tail_of(1, "header")),
        # No base64url character at all, so the form is broken before the claims are read.
        "padding on the claims": replaced(1, with_padding, tail_of(1, "claims")),
        "padding on the signature": replaced(2, with_padding),
        "trailing bit in the header": replaced(0, trailing_bit, tail_of(1, "header")),
        "trailing bits of two bytes in the header": replaced(0, trailing_bit, tail_of(2, "header")),
        "trailing bit in the signature": replaced(2, trailing_bit),
        "plus and slash instead of dash and underscore": replaced(2, lambda _: b"+/" * 128),
        "base64 character that fits no byte": replaced(2, lambda part: part[: len(part) // 4 * 4] + b"A"),
        "line break within base64": replaced(2, lambda part: part[:8] + b"\n" + part[8:]),
        "percent-encoded dot": Token(edit=lambda token: token.replace(b".", b"%2E")),
        "duplicate alg": Token(header=b'{"alg": "none", "alg": "RS256", "kid": "key-1"}'),
        "duplicate alg, one with an escape": Token(header=b'{"alg": "RS256", "\\u0061lg": "none", "kid": "key-1"}'),
        "duplicate kid": Token(header=with_member(ordinary_header("generic"), b'"kid": "key-1"')),
        "crit with an unknown extension": header(crit=["exp"], exp=NOW),
        "b64 false with crit": header(b64=False, crit=["b64"]),
        "b64 false without crit": header(b64=False),
        "b64 false and the claims unencoded": replaced(1, lambda _: b"{}", header(b64=False, crit=["b64"])),
        "enc in the header of a JWS": header(enc="A256GCM"),
    }),
    *parameter(R.MALFORMED_TOKEN, "alg", ABSENT, None, 256, ["RS256"]),
    *parameter(R.MALFORMED_TOKEN, "kid", 1, ["key-1"], {"$ne": ""}),
    *parameter(R.MALFORMED_TOKEN, "typ", ["JWT"]),
    *parameter(R.MALFORMED_TOKEN, "crit", [], "b64", None),
]

JSON = [
    *broken_json(R.MALFORMED_TOKEN, "header", ordinary_header("generic")),
    *broken_json(R.INVALID_CLAIMS, "claims", ordinary_claims("generic")),
    *cases(R.INVALID_CLAIMS, {
        "a whole token as claims": lambda: Token(header={"cty": "JWT"}, claims=Token().encode()).encode(),
        "duplicate iss": raw(b'"iss": "https://evil.example"'),
        "duplicate scope": raw(b'"scope": "admin"'),
        "duplicate scope, one with an escape": raw(b'"sc\\u006fpe": "admin"'),
        "duplicate exp, equal": raw(b'"exp": %d' % (NOW + 3600)),
        "trailing bit in the claims": replaced(1, trailing_bit, tail_of(1, "claims")),
    }),
    *cases(R.OK, {
        "white space around the claims": Token(claims=b" \n" + json.dumps(ordinary_claims("generic")).encode() + b"\t"),
        "claims nested a little": raw(nested(20)),
        "unknown claims of every type": raw(b'"a": null, "b": [1, 2.5, -3e2], "c": {"d": "\\ud83d\\ude00"}'),
    }),
]

# Published tokens and attacks, kept as they were published.
PUBLISHED = [
    *cases(R.UNSUPPORTED_ALGORITHM, {
        "RFC 7519 section 6.1, unsecured":
            b"eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl"
            b"fQ.",
        "JWE algorithm in three parts (jwcrypto CVE-2022-3102)": header(alg="RSA-OAEP"),
    }),
    *cases(R.UNKNOWN_ISSUER, {
        "RFC 7515 appendix A.1":
            b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNv"
            b"bS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        "PyJWT GHSA-ffqj-6fqr-9h24 with an Ed25519 key":
            b"eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJ0ZXN0IjoxMjM0fQ.6ulDpqSlbHmQ8bZXhZRLFko9SwcHrghCwh8d-exJEE4",
        "PyJWT GHSA-ffqj-6fqr-9h24 with a P-256 key":
            b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0ZXN0IjoxMjM0fQ.5eYfbrbeGYmWfypQ6rMWXNZ8bdHcqKng5GPr9MJZITU",
        "PyJWT GHSA-ffqj-6fqr-9h24, the good one":
            b"eyJ0eXAiOiJKV1QiLCJhbGciOiJFZERTQSJ9.eyJ0ZXN0IjoxMjM0fQ."
            b"M5y1EEavZkHSlj9i8yi9nXKKyPBSAUhDRTOYZi3zZY11tZItDaR3qwAye8pc74_lZY3Ogt9KPNFbVOSGnUBHDg",
        "the token that jwt.io shows":
            b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ."
            b"SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
    }),
    *cases(R.MALFORMED_TOKEN, {
        "RFC 7516 appendix A.1, a JWE":
            b"eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ."
            b"OKOawDo13gRp2ojaHV7LFpZcgV7T6DVZKTyKOMTYUmKoTCVJRgckCL9kiMT03JGeipsEdY3mx_etLbbWSrFr05kLzcSr4qKAq7YN7e9jwQRb23nf"
            b"a6c9d-StnImGyFDbSv04uVuxIp5Zms1gNxKKK2Da14B8S4rzVRltdYwam_lDp5XnZAYpQdb76FdIKLaVmqgfwX7XWRxv2322i-vDxRfqNzo_tETK"
            b"zpVLzfiwQyeyPGLBIO56YJ7eObdv0je81860ppamavo35UgoRdbYaBcoh9QcfylQr66oc6vFWXRcZ_ZT2LawVCWTIy3brGPi6UklfCpIMfIjf7iG"
            b"dXKHzg.48V1_ALb6US04U3b."
            b"5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6jiSdiwkIr3ajwQzaBtQD_A.XFBoMYUZodetZdvTiFvSkQ",
        "crit bork (Authlib CVE-2025-59420)": header(crit=["bork"], bork="x"),
        "crit myparam (PyJWT CVE-2026-32597)": header(crit=["myparam"], myparam=1),
        "8,000 dots (golang-jwt CVE-2025-30204)": b"." * 8000,
        "compressed JWE (python-jose CVE-2024-33664)": jwe(alg="dir", enc="A128CBC-HS256", zip="DEF"),
        "PBES2 with a huge count (jose4j CVE-2023-51775)": jwe(
            alg="PBES2-HS256+A128KW", enc="A128GCM", p2c=2**31 - 1, p2s="AAAA"),
    }),
]
# fmt: on

TABLE = [*ORDINARY, *AUTHORIZATION, *FORM, *JSON, *PUBLISHED]

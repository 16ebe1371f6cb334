"""Hostile tokens and some valid ones beside them: one row each, with the reason that the contract gives."""

from __future__ import annotations

import json
from math import inf, nan

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.minting import ABSENT
from verifier.reasons import Reason as R

from .cases import (
    Case,
    cases,
    claim,
    claims,
    der,
    exp_written,
    header,
    json_serialization,
    jwe,
    large,
    nested,
    parameter,
    raw,
    raw_header,
    replaced,
    self_signed,
    tail_of,
    trailing_bit,
    unsigned,
    with_padding,
)
from .tokens import (
    CLAIMS,
    COGNITO,
    NOW,
    POOL,
    SECRET,
    SERVICE_ACCOUNT,
    Token,
    b64,
    hmac,
    hmac_with_public,
    of_length,
    ordinary_claims,
    ordinary_header,
    part,
    public_jwk,
    sign,
)

PEM, DER, SSH = Encoding.PEM, Encoding.DER, Encoding.OpenSSH
SPKI, PKCS1, OPENSSH = PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1, PublicFormat.OpenSSH
GENERIC, MIXED = CLAIMS["generic"]["iss"], {"iss": "https://mixed.example.net"}
HEADER, PAYLOAD = (json.dumps(ordinary("generic")).encode() for ordinary in (ordinary_header, ordinary_claims))


def authorized(reason: R, rows: dict[str, list[bytes]]) -> list[Case]:
    """A valid token in other Authorization headers."""
    return [case for name, forms in rows.items() for case in cases(reason, {name: Token()}, authorization=forms)]


THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"

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
        "empty header": Token(edit=lambda token: token[token.index(b".") :]),
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
        "header that is not JSON": Token(header=b"alg=RS256"),
        "header that is a list": Token(header=b'["RS256"]'),
        "header that is a string": Token(header=b'"RS256"'),
        "header that is null": Token(header=b"null"),
        "duplicate alg": Token(header=b'{"alg": "none", "alg": "RS256", "kid": "key-1"}'),
        "duplicate alg, one with an escape": Token(header=b'{"alg": "RS256", "\\u0061lg": "none", "kid": "key-1"}'),
        "duplicate kid": raw_header(b'"kid": "key-1"'),
        "header with a BOM": Token(header=b"\xef\xbb\xbf" + HEADER),
        "header in UTF-16": Token(header=HEADER.decode().encode("utf-16")),
        "invalid UTF-8 in the header": raw_header(b'"x": "\xff"'),
        "overlong UTF-8 in the header": raw_header(b'"x": "\xc0\xaf"'),
        "surrogate as UTF-8 in the header": raw_header(b'"x": "\xed\xa0\x80"'),
        "NaN in the header": raw_header(b'"x": NaN'),
        "1e999 in the header": raw_header(b'"x": 1e999'),
        "number of 5000 digits in the header": raw_header(b'"x": ' + b"9" * 5000),
        "header nested 5000 deep": raw_header(nested(5000)),
        "truncated header": Token(header=HEADER[:-1]),
        "header with something after it": Token(header=HEADER + b"{}"),
        "crit with an unknown extension": header(crit=["exp"], exp=NOW),
        "b64 false with crit": header(b64=False, crit=["b64"]),
        "b64 false without crit": header(b64=False),
        "b64 false and the claims unencoded": replaced(
            1, lambda _: b"{}", header(b64=False, crit=["b64"])),
        "enc in the header of a JWS": header(enc="A256GCM"),
    }),
    *parameter(R.MALFORMED_TOKEN, "alg", ABSENT, None, 256, ["RS256"]),
    *parameter(R.MALFORMED_TOKEN, "kid", 1, ["key-1"], {"$ne": ""}),
    *parameter(R.MALFORMED_TOKEN, "typ", ["JWT"]),
    *parameter(R.MALFORMED_TOKEN, "crit", [], "b64", None),
]

ALGORITHM = [
    *cases(R.UNSUPPORTED_ALGORITHM, {
        **{f"alg {alg!r} without a signature": unsigned(alg) for alg in ("none", "None", "NONE", "nOnE", "", " none")},
        "alg none with a signature": Token(header={"alg": "none"}),
        "alg none with a zero byte as signature": unsigned("none", b"\0"),
        "alg RS512 signed with the right key": Token(header={"alg": "RS512"}, algorithm="RS512"),
        "alg HS512, listed by no issuer": Token("internal", {"alg": "HS512"}, signature=hmac(SECRET, "sha512")),
        "alg ES256 on another issuer's list": Token(header={"alg": "ES256", "kid": "es-1"}, signer="es"),
        "alg HS256 on another issuer's list": Token(header={"alg": "HS256"}, signature=hmac(SECRET)),
        "alg PS256 with the RS256 issuer's key": Token(header={"alg": "PS256"}, algorithm="PS256"),
        "alg RS256 with the PS256 issuer's key": Token("ps", header={"alg": "RS256"}, algorithm="RS256"),
        "alg ES256K": Token("es", header={"alg": "ES256K"}),
        **{
            f"HMAC with the {name}": Token(issuer, {"alg": "HS256"}, signature=hmac_with_public(issuer, encoding, form))
            for name, issuer, encoding, form in (
                ("public key as PEM", "generic", PEM, SPKI),
                ("public key as PKCS 1 PEM (CVE-2017-11424)", "generic", PEM, PKCS1),
                ("public key as DER", "generic", DER, SPKI),
                ("RSA public key as OpenSSH", "generic", SSH, OPENSSH),
                ("EC public key as OpenSSH (CVE-2024-33663)", "es", SSH, OPENSSH),
                ("Ed25519 public key as OpenSSH (CVE-2022-29217)", "ed", SSH, OPENSSH),
            )
        },
        "HMAC with the public key as JWK": Token(
            header={"alg": "HS256"}, signature=lambda data: hmac(json.dumps(public_jwk("generic")).encode())(data)),
        "HMAC with an empty key": Token(header={"alg": "HS256"}, signature=hmac(b"")),
        **{
            f"alg {alg} for a key {fitting}": Token(
                header={"alg": alg, "kid": kid}, claims=MIXED, signer=signer, algorithm=alg if alg != "ES384" else "")
            for alg, kid, signer, fitting in (
                ("PS256", "rsa-1", "rogue", "published for RS256"),
                ("ES384", "ec-1", "es384", "on P-256"),
                ("RS256", "ec-1", "rogue", "on a curve"),
                ("ES256", "rsa-1", "es", "of RSA"),
            )
        },
    }),
    *parameter(R.UNSUPPORTED_ALGORITHM, "alg", "rs256", "RS256 ", "RS256\0", "R\uff33256", "dir"),
]

ISSUER = [
    # A list that holds the issuer (CVE-2025-30144), a part of its URL (CVE-2024-53861), other spellings.
    *claim(R.UNKNOWN_ISSUER, "iss", ABSENT, None, 1, [GENERIC], ["https://evil.example", GENERIC]),
    *claim(R.UNKNOWN_ISSUER, "iss", {GENERIC: True}, GENERIC + "/", GENERIC + " ", GENERIC + "\0", "\ud800"),
    *claim(R.UNKNOWN_ISSUER, "iss", GENERIC[:-1], "", GENERIC.replace("g", "G"), "generic", GENERIC + ":443"),
    *claim(R.UNKNOWN_ISSUER, "iss", GENERIC.replace("https", "http")),
    *claim(R.UNKNOWN_ISSUER, "iss", CLAIMS["auth0"]["iss"].rstrip("/"), issuer="auth0"),
    *claim(R.UNKNOWN_ISSUER, "iss", COGNITO[:-1] + "f", COGNITO + "/", issuer="homelab"),
    *claim(R.UNKNOWN_ISSUER, "iss", COGNITO.replace("us-east-1.", "eu-west-1."), issuer="homelab"),
]

KEY = [
    *parameter(R.OK, "kid", ABSENT, None),  # one key fits
    *parameter(R.UNKNOWN_KEY, "kid", "unknown", "", "KEY-1", "../../../../dev/null", "\ud800", "\x1b[2J"),
    *parameter(R.UNKNOWN_KEY, "kid", "https://evil.example/jwks.json", "x' UNION SELECT 'k' --"),
    *cases(R.UNKNOWN_KEY, {
        "kid of another issuer's key": Token(header={"kid": "okta-1"}, signer="okta"),
        "kid of a key published for encryption": Token(
            header={"kid": "encryption-1", "alg": "PS256"}, claims=MIXED, signer="ps"),
        "jku in the header": self_signed(jku="https://evil.example/jwks.json"),
        "x5u in the header": self_signed(x5u="https://evil.example/chain.pem"),
        "x5c in the header": self_signed(x5c=["MIIB"]),
        "jwk in the header (CVE-2018-0114)": lambda: self_signed(jwk=public_jwk("rogue", kid="attacker"))(),
        "jwk of HS256 in the header": self_signed(jwk={"kty": "oct", "k": "AAAA"}),
    }),
    *cases(R.OK, {
        "jku beside the right key is not followed": header(jku="https://evil.example/jwks.json"),
        "x5t beside the right key is ignored": header(x5t="AAAA"),
        "b64 true changes nothing": header(b64=True),
    }),
]

ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def beyond_order(signature: bytes) -> bytes:
    """The same Ed25519 signature with another S: RFC 8032 section 5.1.7 forbids it."""
    return signature[:32] + (int.from_bytes(signature[32:], "little") + ED25519_ORDER).to_bytes(32, "little")


SIGNATURE = cases(R.BAD_SIGNATURE, {
    "signature empty (CVE-2020-28042)": Token(signature=lambda _: b""),
    "signature of another token": Token(signature=lambda _: sign("generic", b"x.y")),
    "signature a byte short": Token(signature=lambda data: sign("generic", data)[:-1]),
    "signature a byte long": Token(signature=lambda data: sign("generic", data) + b"\0"),
    "signature with a bit flipped": Token(
        signature=lambda data: (int.from_bytes(sign("generic", data)) ^ 1).to_bytes(256)),
    "signature of zeros": Token(signature=lambda _: bytes(256)),
    "RSA signature that is its own padding": Token(signature=lambda _: b"\0\1" + b"\xff" * 253 + b"\0"),
    "PKCS 1 signature with the SHA-512 prefix": Token(algorithm="RS512"),
    "PSS signature under alg RS256": Token(algorithm="PS256"),
    "PKCS 1 signature under alg PS256": Token("ps", algorithm="RS256"),
    "another issuer's key under the same kid": Token("generic", signer="twin"),
    "the other way round": Token("twin", signer="generic"),
    "unknown key under a known kid": Token(signer="rogue"),
    "unknown key offered as jwk under a known kid": lambda: Token(
        header={"jwk": public_jwk("rogue")}, signer="rogue").encode(),
    "claims of another token": replaced(1, lambda _: part({**ordinary_claims("generic"), "scope": "admin"})),
    "header of another token": replaced(0, lambda _: part({**ordinary_header("generic"), "x": 1})),
    "psychic ES256 signature (CVE-2022-21449)": Token("es", signature=lambda _: bytes(64)),
    "psychic ES256 signature as DER": Token("es", signature=lambda _: bytes.fromhex("3006020100020100")),
    "ES256 signature as DER": replaced(2, der, Token("es")),
    "ES256 signature with r and s exchanged": Token(
        "es", signature=lambda data: (made := sign("es", data))[32:] + made[:32]),
    "ES256 signature padded to 66 bytes": Token(
        "es", signature=lambda data: b"\0" + (made := sign("es", data))[:32] + b"\0" + made[32:]),
    "EdDSA signature of zeros": Token("ed", signature=lambda _: bytes(64)),
    "EdDSA signature with S beyond the order": Token("ed", signature=lambda data: beyond_order(sign("ed", data))),
    "HMAC cut to 16 bytes": Token("internal", signature=lambda data: hmac(SECRET)(data)[:16]),
    "HMAC with an empty secret": Token("internal", signature=hmac(b"")),
    "HMAC with the secret's base64": Token("internal", signature=hmac(b64(SECRET))),
    "HMAC with another issuer's public key as PEM": Token(
        "internal", signature=hmac_with_public("generic", PEM, SPKI)),
    "HMAC-SHA512 under alg HS256": Token("internal", signature=hmac(SECRET, "sha512")),
})

TIMES = [
    *claim(R.OK, "exp", NOW + 60.5, NOW - 9),
    *claim(R.OK, "nbf", NOW + 9),
    *claim(R.OK, "iat", NOW + 9, ABSENT),
    *cases(R.OK, {"exp with an exponent": exp_written("1.8e9")}),
    *claim(R.EXPIRED, "exp", NOW - 10, NOW - 10.5, 1, 0, -1, -(2**53)),
    *claim(R.NOT_YET_VALID, "nbf", NOW + 60, NOW + 10.5),
    *claim(R.NOT_YET_VALID, "iat", NOW + 60),
    *claim(R.INVALID_CLAIMS, "exp", ABSENT, None, str(NOW + 60), "never", True, False, [NOW + 60], {}),
    *claim(R.INVALID_CLAIMS, "exp", nan, inf, -inf, 1e300, 2**64),
    *cases(R.INVALID_CLAIMS, {"exp 1e999": exp_written("1e999"), "exp of 5000 digits": exp_written("9" * 5000)}),
    *claim(R.INVALID_CLAIMS, "nbf", True, str(NOW), None),
    *claim(R.INVALID_CLAIMS, "iat", True, str(NOW), None),
]

CLAIMS_PART = [
    *cases(R.INVALID_CLAIMS, {
        "claims that are not JSON": Token(claims=b"sub=agent-1"),
        "claims empty": Token(claims=b""),
        "claims that are a list": Token(claims=b"[]"),
        "claims that are a string": Token(claims=b'"agent-1"'),
        "claims that are null": Token(claims=b"null"),
        "a whole token as claims": lambda: Token(header={"cty": "JWT"}, claims=Token().encode()).encode(),
        "duplicate iss": raw(b'"iss": "https://evil.example"'),
        "duplicate scope": raw(b'"scope": "admin"'),
        "duplicate scope, one with an escape": raw(b'"sc\\u006fpe": "admin"'),
        "duplicate key in an object within": raw(b'"x": {"a": 1, "a": 2}'),
        "duplicate exp, equal": raw(b'"exp": %d' % (NOW + 3600)),
        "NaN in an unused claim": raw(b'"x": NaN'),
        "1e999 in an unused claim": raw(b'"x": 1e999'),
        "number of 5000 digits in an unused claim": raw(b'"x": ' + b"9" * 5000),
        "claims nested 5000 deep": raw(nested(5000)),
        "BOM before the claims": Token(claims=b"\xef\xbb\xbf" + PAYLOAD),
        "claims in UTF-16": Token(claims=PAYLOAD.decode().encode("utf-16")),
        "invalid UTF-8 in the claims": raw(b'"x": "\xff"'),
        "surrogate as UTF-8 in the claims": raw(b'"x": "\xed\xa0\x80"'),
        "raw line break in a claim": raw(b'"x": "a\nb"'),
        "comment in the claims": raw(b'"x": 1 /* , */'),
        "comma at the end of the claims": raw(b'"x": 1,'),
        "single quotes": raw(b"'x': 1"),
        "trailing bit in the claims": replaced(1, trailing_bit, tail_of(1, "claims")),
    }),
    *cases(R.OK, {
        "white space around the claims": Token(claims=b" \n" + PAYLOAD + b"\t"),
        "claims nested a little": raw(nested(20)),
        "unknown claims of every type": raw(b'"a": null, "b": [1, 2.5, -3e2], "c": {"d": "\\ud83d\\ude00"}'),
    }),
]

SERVICE_OF_OTHER = "service-account-agent-2"
MACHINE = [
    *cases(R.NOT_M2M, {
        "Cognito ID token": Token("homelab", claims={"token_use": "id", "client_id": ABSENT, "aud": "agent-1"}),
        "person's Cognito token": Token("homelab", claims={
            "username": "alice", "sub": "5b3f", "device_key": "us-east-1_1", "cognito:groups": ["admin"]}),
        "ID token without client_id": claims(client_id=ABSENT, sub="alice", nonce="n"),
        "Okta token of a person": Token("okta", claims={"sub": "alice@example.com", "uid": "00u1"}),
        "Auth0 token of a person": Token("auth0", claims={"sub": "auth0|1", "gty": ABSENT}),
        "Keycloak token of a person by its grant": Token(
            "keycloak", claims={"preferred_username": ABSENT, "jti": "ntrtte:1", "client_id": "agent-1"}),
        "Keycloak token of a person with a service account's name": Token(
            "keycloak", claims={"jti": "onrtac:1", "sid": "s"}),
        "Keycloak 26.1 token of a person with a service account's name": Token("keycloak", claims={"sid": "s"}),
        "Okta token of a person whose login is the client's id": Token("okta", claims={"uid": "00u1"}),
        "Auth0 token of a person, RFC 9068 profile": Token(
            "auth0", claims={"azp": ABSENT, "gty": ABSENT, "client_id": "agent-1", "sub": "auth0|1"}),
        "RFC 9068 token with typ JWT": Token("rfc9068", header={"typ": "JWT"}),
        "RFC 9068 token without typ": Token("rfc9068", header={"typ": ABSENT}),
    }),
    *parameter(R.NOT_M2M, "typ", "dpop+jwt", "logout+jwt", "logout+at+jwt", "id_token", ""),
    *claim(R.NOT_M2M, "token_use", "id", "refresh", ABSENT, "Access", ["access"], issuer="homelab"),
    *claim(R.NOT_M2M, "client_id", ABSENT, issuer="homelab"),
    *claim(R.NOT_M2M, "username", "alice", None, "", issuer="homelab"),
    *claim(R.NOT_M2M, "cognito:groups", ["admin"], [], issuer="homelab"),
    *claim(R.NOT_M2M, "device_key", "us-east-1_1", issuer="homelab"),
    *claim(R.NOT_M2M, "sub", "alice", "Agent-1", ""),
    *claim(R.NOT_M2M, "gty", "client_credentials", ["client-credentials"], sub="alice"),
    *claim(R.NOT_M2M, "cid", ABSENT, issuer="okta"),
    *claim(R.NOT_M2M, "sub", ABSENT, issuer="okta"),
    *claim(R.NOT_M2M, "gty", "password", issuer="auth0"),
    *claim(R.NOT_M2M, "azp", ABSENT, issuer="auth0"),
    *claim(R.NOT_M2M, "scp", "read", "", issuer="entra"),
    *claim(R.NOT_M2M, "roles", ABSENT, issuer="entra"),
    *claim(R.NOT_M2M, "preferred_username", "alice", SERVICE_OF_OTHER, ABSENT, issuer="keycloak"),
    *claim(R.NOT_M2M, "sub", "alice", ABSENT, issuer="rfc9068"),
    *claim(R.NOT_M2M, "sub", "system:node:worker-1", issuer="kubernetes"),
    *parameter(R.OK, "typ", ABSENT, "JOSE", "application/JWT"),
    *cases(R.OK, {
        "Cognito's other form of issuer": Token(
            "homelab", claims={"iss": f"https://issuer-cognito-idp.us-east-1.amazonaws.com/{POOL}"}),
        "generic token with azp": claims(client_id=ABSENT, azp="agent-1"),
        "generic token without sub": claims(sub=ABSENT),
        "generic token with gty and another sub": claims(sub="agent-1@clients", gty="client-credentials"),
        "Entra v1 token with appid": Token("entra", claims={"azp": ABSENT, "appid": "agent-1"}),
        "Auth0 token of its RFC 9068 profile": Token(
            "auth0", header={"typ": "at+jwt"}, claims={"azp": ABSENT, "gty": ABSENT, "client_id": "agent-1"}),
        "Keycloak token by its grant": Token("keycloak", claims={"preferred_username": ABSENT, "jti": "trltcc:1"}),
        "RFC 9068 token with the long typ": Token("rfc9068", header={"typ": "application/at+jwt"}),
        "RFC 9068 token with typ in another case": Token("rfc9068", header={"typ": "AT+JWT"}),
        "person's token of an issuer with allow_users": Token("people", claims={"sub": "alice"}),
    }),
]

M2M = "api://m2m"
AUDIENCE = [
    *claim(R.WRONG_AUDIENCE, "aud", "api://other", ABSENT, [], "", M2M + "/", M2M[:-1], M2M.upper(), "any"),
    *claim(R.WRONG_AUDIENCE, "aud", "api://m2m api://other"),
    *claim(R.WRONG_AUDIENCE, "aud", "agent-1", issuer="homelab"),
    *claim(R.INVALID_CLAIMS, "aud", None, 1, True, {M2M: 1}, [M2M, 1], [M2M, None], [[M2M]]),
    *claim(R.OK, "aud", ["api://other", M2M]),
]

CRLF = "a\r\nX-M2M-Role: admin"
OTHER_CLAIMS = [
    *claim(R.INVALID_CLAIMS, "client_id", "", None, 7, ["agent-1"], CRLF, sub=ABSENT),
    *claim(R.INVALID_CLAIMS, "client_id", "agent-1\n", "agent 1", "agent-1 ", "agent\t1", "a\0", sub=ABSENT),
    *claim(R.INVALID_CLAIMS, "client_id", "a\x7f", "\u0430gent-1", "agënt", "\ud800", "\u2028", sub=ABSENT),
    *claim(R.INVALID_CLAIMS, "client_id", "a\nb", issuer="homelab"),
    *claim(R.INVALID_CLAIMS, "sub", 1, None, ["agent-1"]),
    *claim(R.INVALID_CLAIMS, "sub", 1, issuer="homelab"),
    *claim(R.INVALID_CLAIMS, "sub", SERVICE_ACCOUNT + "\n", issuer="kubernetes"),
    *claim(R.INVALID_CLAIMS, "jti", 1, None, ["jti-revoked"]),
    *claim(R.INVALID_CLAIMS, "scope", 1, None, {"read": True}, CRLF, "a\tb", "read\0", "a\x0bb", "a\xa0b", "reäd"),
    *claim(R.INVALID_CLAIMS, "scp", ["read admin"], ["read", "a\nb"], ["read", 1], [["read"]], issuer="okta"),
    *claim(R.INVALID_CLAIMS, "roles", ["read admin"], issuer="entra"),
    *claim(R.INVALID_CLAIMS, "custom:tenant", CRLF, "a\nb", "a\tb", "a\0", " a", "a ", " ", "ténant", "\udfff"),
    *claim(R.INVALID_CLAIMS, "groups", ["a", "b\r\nc"], ["a", ""]),
    *claim(R.OK, "custom:tenant", "a b", 'a"b\\', True),
    *claim(R.OK, "level", 1.5, None, {"a": "\r\n"}),
    *claim(R.OK, "groups", ["a", "b"], ["a", 1]),
    *claim(R.OK, "scope", "", ABSENT, " read  write "),
]

PROOF = [
    *claim(R.BAD_PROOF, "cnf", {"jkt": THUMBPRINT}, {"x5t#S256": THUMBPRINT}, {"kid": "1"}, {}, None, "none"),
    *claim(R.BAD_PROOF, "cnf", {"jkt": THUMBPRINT}, issuer="homelab"),
    *cases(R.BAD_PROOF, {"bound by DPoP, with an invalid proof": claims(cnf={"jkt": THUMBPRINT})},
           authorization=(b"DPoP %s",), headers=((b"dpop", b"e30.e30."), (b"x-client-cert", b"forged"))),
    *cases(R.BAD_PROOF, {"bound to a certificate, and no header for it": claims(cnf={"x5t#S256": THUMBPRINT})},
           headers=((b"ssl-client-cert", b"AAAA"),)),
    *claim(R.BAD_PROOF, "cnf", {"jkt": "0ZcO"}, {"jkt": THUMBPRINT, "kid": "1"}),
]

REVOKED = [
    *claim(R.REVOKED, "jti", "jti-revoked"),
    *claim(R.REVOKED, "jti", "jti-revoked", issuer="homelab"),
    *claim(R.REVOKED, "cid", "gone", issuer="okta", sub="gone"),
    *claim(R.REVOKED, "client_id", "banned", sub="banned"),
    *claim(R.REVOKED, "cid", "banned", issuer="okta", sub="banned"),
    *claim(R.OK, "client_id", "gone", sub="gone"),
    *claim(R.OK, "jti", "jti-revoked-not", ABSENT),
    *cases(R.REVOKED, {"revoked client where there is one issuer": Token(
        "homelab", claims={"client_id": "gone", "sub": "gone"})}, app="single"),
]

SIZE = [
    *cases(R.HEADERS_TOO_LARGE, {
        "scopes beyond the header limit": large(40),
        "mapped claim beyond the header limit": claims(**{"custom:tenant": "x" * 4000}),
        "mapped number beyond the header limit": raw(b'"level": ' + b"9" * 4000),
        "client id beyond the header limit": claims(client_id="a" * 4000, sub="a" * 4000),
    }),
    *cases(R.OK, {"scopes just below the header limit": large(32)}),
]

# Published tokens and attacks, kept as they were published.
UNSECURED_RFC_7519 = (
    b"eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl"
    b"fQ."
)
HS256_RFC_7515 = (
    b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNv"
    b"bS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)
PYJWT_GHSA_FFQJ_ED25519 = (
    b"eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJ0ZXN0IjoxMjM0fQ.6ulDpqSlbHmQ8bZXhZRLFko9SwcHrghCwh8d-exJEE4"
)
PYJWT_GHSA_FFQJ_P256 = (
    b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0ZXN0IjoxMjM0fQ.5eYfbrbeGYmWfypQ6rMWXNZ8bdHcqKng5GPr9MJZITU"
)
PYJWT_GHSA_FFQJ_GOOD = (
    b"eyJ0eXAiOiJKV1QiLCJhbGciOiJFZERTQSJ9.eyJ0ZXN0IjoxMjM0fQ."
    b"M5y1EEavZkHSlj9i8yi9nXKKyPBSAUhDRTOYZi3zZY11tZItDaR3qwAye8pc74_lZY3Ogt9KPNFbVOSGnUBHDg"
)
JWT_IO = (
    b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ."
    b"SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
)
JWE_RFC_7516 = (
    b"eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ."
    b"OKOawDo13gRp2ojaHV7LFpZcgV7T6DVZKTyKOMTYUmKoTCVJRgckCL9kiMT03JGeipsEdY3mx_etLbbWSrFr05kLzcSr4qKAq7YN7e9jwQRb23nf"
    b"a6c9d-StnImGyFDbSv04uVuxIp5Zms1gNxKKK2Da14B8S4rzVRltdYwam_lDp5XnZAYpQdb76FdIKLaVmqgfwX7XWRxv2322i-vDxRfqNzo_tETK"
    b"zpVLzfiwQyeyPGLBIO56YJ7eObdv0je81860ppamavo35UgoRdbYaBcoh9QcfylQr66oc6vFWXRcZ_ZT2LawVCWTIy3brGPi6UklfCpIMfIjf7iG"
    b"dXKHzg.48V1_ALb6US04U3b."
    b"5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6jiSdiwkIr3ajwQzaBtQD_A.XFBoMYUZodetZdvTiFvSkQ"
)

PUBLISHED = [
    *cases(R.UNSUPPORTED_ALGORITHM, {
        "RFC 7519 section 6.1, unsecured": UNSECURED_RFC_7519,
        "JWE algorithm in three parts (jwcrypto CVE-2022-3102)": header(alg="RSA-OAEP"),
    }),
    *cases(R.UNKNOWN_ISSUER, {
        "RFC 7515 appendix A.1": HS256_RFC_7515,
        "PyJWT GHSA-ffqj-6fqr-9h24 with an Ed25519 key": PYJWT_GHSA_FFQJ_ED25519,
        "PyJWT GHSA-ffqj-6fqr-9h24 with a P-256 key": PYJWT_GHSA_FFQJ_P256,
        "PyJWT GHSA-ffqj-6fqr-9h24, the good one": PYJWT_GHSA_FFQJ_GOOD,
        "the token that jwt.io shows": JWT_IO,
    }),
    *cases(R.MALFORMED_TOKEN, {
        "RFC 7516 appendix A.1, a JWE": JWE_RFC_7516,
        "crit bork (Authlib CVE-2025-59420)": header(crit=["bork"], bork="x"),
        "crit myparam (PyJWT CVE-2026-32597)": header(crit=["myparam"], myparam=1),
        "8,000 dots (golang-jwt CVE-2025-30204)": b"." * 8000,
        "compressed JWE (python-jose CVE-2024-33664)": jwe(alg="dir", enc="A128CBC-HS256", zip="DEF"),
        "PBES2 with a huge count (jose4j CVE-2023-51775)": jwe(
            alg="PBES2-HS256+A128KW", enc="A128GCM", p2c=2**31 - 1, p2s="AAAA"),
    }),
]
# fmt: on

TABLE = [
    *(*ORDINARY, *AUTHORIZATION, *FORM, *ALGORITHM, *ISSUER, *KEY, *SIGNATURE, *TIMES, *CLAIMS_PART, *MACHINE),
    *(*AUDIENCE, *OTHER_CLAIMS, *PROOF, *REVOKED, *SIZE, *PUBLISHED),
]

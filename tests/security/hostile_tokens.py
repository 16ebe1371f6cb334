"""Hostile tokens and a few ordinary neighbours: one row each, with the reason that the contract gives."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from verifier.reasons import Reason as R

from .cases import (
    cases,
    claims,
    cognito,
    der,
    exp_written,
    header,
    hmac_with_public,
    json_serialization,
    jwe,
    large,
    nested,
    padded_to,
    raw,
    replaced,
    self_signed,
    trailing_bit,
    unsigned,
)
from .tokens import (
    ABSENT,
    CLAIMS,
    COGNITO,
    COGNITO_OTHER_FORM,
    NOW,
    SECRET,
    SERVICE_ACCOUNT,
    Token,
    b64,
    hmac,
    of_length,
    ordinary_claims,
    ordinary_header,
    part,
    public_jwk,
    raw_header,
    sign,
)

PEM, DER, SSH = Encoding.PEM, Encoding.DER, Encoding.OpenSSH
SPKI, PKCS1 = PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1

ORDINARY = [
    *cases(R.OK, {f"ordinary token of {name}": Token(name) for name in CLAIMS if name != "dark"}),
    *cases(R.OK, {"scheme in lower case": Token()}, authorization=(b"bearer %s",)),
    *cases(R.OK, {"scheme in mixed case": Token()}, authorization=(b"bEaReR %s",)),
    *cases(R.OK, {"two spaces after the scheme": Token()}, authorization=(b"Bearer  %s",)),
    *cases(R.OK, {"no original URL where no rule looks at it": Token()}, url=None, method=None),
    *cases(R.OK, {"token of exactly 16 KiB": lambda: of_length(16384)}),
    *cases(R.KEYS_UNAVAILABLE, {"issuer whose keys cannot be had": Token("dark")}),
]

AUTHORIZATION = [
    *cases(R.MISSING_TOKEN, {"no Authorization header": None}),
    *cases(R.MISSING_TOKEN, {"empty Authorization header": b""}, authorization=(b"",)),
    *cases(R.MISSING_TOKEN, {"Basic credentials": b"dXNlcjpwYXNz"}, authorization=(b"Basic %s",)),
    *cases(R.BAD_PROOF, {"DPoP scheme with a token that is not bound": Token()}, authorization=(b"DPoP %s",)),
    *cases(R.BAD_PROOF, {"DPoP scheme with a bound token": claims(cnf={"jkt": "0ZcO"})}, authorization=(b"dpop %s",)),
    *cases(R.EXPIRED, {"DPoP scheme with an expired token": claims(exp=1)}, authorization=(b"DPoP %s",)),
    *cases(R.MISSING_TOKEN, {"scheme that begins like DPoP": Token()}, authorization=(b"DPoPx %s",)),
    *cases(R.MISSING_TOKEN, {"token without a scheme": Token()}, authorization=(b"%s",)),
    *cases(R.MISSING_TOKEN, {"scheme that begins like Bearer": Token()}, authorization=(b"Bearerx %s",)),
    *cases(R.MISSING_TOKEN, {"token glued to the scheme": Token()}, authorization=(b"Bearer%s",)),
    *cases(
        R.MISSING_TOKEN,
        {"scheme with a letter that looks the same": Token()},
        authorization=(b"\xd0\x92earer %s",),
    ),
    *cases(R.MALFORMED_TOKEN, {"scheme without a token": b""}, authorization=(b"Bearer",)),
    *cases(R.MALFORMED_TOKEN, {"two tokens with a space": Token()}, authorization=(b"Bearer %s %s",)),
    *cases(R.MALFORMED_TOKEN, {"two tokens with a comma": Token()}, authorization=(b"Bearer %s,%s",)),
    *cases(R.MALFORMED_TOKEN, {"two credentials in one header": Token()}, authorization=(b"Bearer %s, Bearer %s",)),
    *cases(R.MALFORMED_TOKEN, {"two equal headers": Token()}, authorization=(b"Bearer %s", b"Bearer %s")),
    *cases(R.MALFORMED_TOKEN, {"two headers, the second Basic": Token()}, authorization=(b"Bearer %s", b"Basic eDp5")),
    *cases(R.MALFORMED_TOKEN, {"two headers, the first Basic": Token()}, authorization=(b"Basic eDp5", b"Bearer %s")),
    *cases(R.OK, {"white space around the value": Token()}, authorization=(b"\t Bearer %s \t",)),
    *cases(R.MALFORMED_TOKEN, {"tab before the token": Token()}, authorization=(b"Bearer \t%s",)),
    *cases(R.MALFORMED_TOKEN, {"line break in the token": Token()}, authorization=(b"Bearer %s\n",)),
    *cases(R.MALFORMED_TOKEN, {"quotes around the token": Token()}, authorization=(b'Bearer "%s"',)),
    *cases(R.MALFORMED_TOKEN, {"no-break space in the token": Token()}, authorization=(b"Bearer \xa0%s",)),
    *cases(R.MALFORMED_TOKEN, {"NUL in the token": Token()}, authorization=(b"Bearer %s\x00",)),
    *cases(R.MALFORMED_TOKEN, {"auth parameter instead of a token": Token()}, authorization=(b'Bearer token="%s"',)),
]

FORM = cases(
    R.MALFORMED_TOKEN,
    {
        "token of 16 KiB and a byte": lambda: of_length(16385),
        "one part": b"abc",
        "two parts": Token(edit=lambda token: token[: token.rindex(b".")]),
        "four parts": Token(edit=lambda token: token + b".AAAA"),
        "five parts, as a JWE has": Token(edit=lambda token: token + b".AAAA.AAAA"),
        "empty header": Token(edit=lambda token: token[token.index(b".") :]),
        "dots alone": b"..",
        "JSON serialization": lambda: json_serialization(flattened=False),
        "flattened JSON serialization": lambda: json_serialization(flattened=True),
        "padding on the header": replaced(0, lambda part: part + b"=" * (-len(part) % 4), padded_to(1, "header")),
        # No base64url character at all, so the form is broken before the claims are read.
        "padding on the claims": replaced(1, lambda part: part + b"=" * (-len(part) % 4), padded_to(1, "claims")),
        "padding on the signature": replaced(2, lambda part: part + b"=="),
        "trailing bit in the header": replaced(0, trailing_bit, padded_to(1, "header")),
        "trailing bits of two bytes in the header": replaced(0, trailing_bit, padded_to(2, "header")),
        "trailing bit in the signature": replaced(2, trailing_bit),
        "plus and slash instead of dash and underscore": replaced(2, lambda _: b"+/" * 128),
        "base64 character that fits no byte": replaced(2, lambda part: part[: len(part) // 4 * 4] + b"A"),
        "line break within base64": replaced(2, lambda part: part[:8] + b"\n" + part[8:]),
        "percent-encoded dot": Token(edit=lambda token: token.replace(b".", b"%2E")),
        "header that is no JSON": Token(header=b"alg=RS256"),
        "header that is a list": Token(header=b'["RS256"]'),
        "header that is a string": Token(header=b'"RS256"'),
        "header that is null": Token(header=b"null"),
        "duplicate alg": Token(header=b'{"alg": "none", "alg": "RS256", "kid": "key-1"}'),
        "duplicate alg, one spelled with an escape": Token(
            header=b'{"alg": "RS256", "\\u0061lg": "none", "kid": "key-1"}'
        ),
        "duplicate kid": Token(header=raw_header("generic", b'"kid": "key-1"')),
        "header with a BOM": Token(header=b"\xef\xbb\xbf" + json.dumps(ordinary_header("generic")).encode()),
        "header in UTF-16": Token(header=json.dumps(ordinary_header("generic")).encode("utf-16")),
        "invalid UTF-8 in the header": Token(header=raw_header("generic", b'"x": "\xff"')),
        "overlong UTF-8 in the header": Token(header=raw_header("generic", b'"x": "\xc0\xaf"')),
        "surrogate as UTF-8 in the header": Token(header=raw_header("generic", b'"x": "\xed\xa0\x80"')),
        "NaN in the header": Token(header=raw_header("generic", b'"x": NaN')),
        "1e999 in the header": Token(header=raw_header("generic", b'"x": 1e999')),
        "number of 5000 digits in the header": Token(header=raw_header("generic", b'"x": ' + b"9" * 5000)),
        "header nested 5000 deep": Token(header=raw_header("generic", nested(5000))),
        "header cut off": Token(header=json.dumps(ordinary_header("generic")).encode()[:-1]),
        "header with something after it": Token(header=json.dumps(ordinary_header("generic")).encode() + b"{}"),
        "alg missing": header(alg=ABSENT),
        "alg null": header(alg=None),
        "alg a number": header(alg=256),
        "alg a list": header(alg=["RS256"]),
        "kid a number": header(kid=1),
        "kid a list": header(kid=["key-1"]),
        "kid an object": header(kid={"$ne": ""}),
        "typ a list": header(typ=["JWT"]),
        "crit with an unknown extension": header(crit=["exp"], exp=NOW),
        "crit that is empty": header(crit=[]),
        "crit that is no list": header(crit="b64"),
        "crit null": header(crit=None),
        "b64 false with crit": header(b64=False, crit=["b64"]),
        "b64 false without crit": header(b64=False),
        "b64 false and the claims unencoded": Token(
            header={"b64": False, "crit": ["b64"]},
            edit=lambda token: token.split(b".")[0] + b".{}." + token.split(b".")[2],
        ),
        "enc in the header of a JWS": header(enc="A256GCM"),
    },
)

ALGORITHM = [
    *cases(
        R.UNSUPPORTED_ALGORITHM,
        {
            **{
                f"alg {name!r} without a signature": unsigned(name)
                for name in ("none", "None", "NONE", "nOnE", "", " none")
            },
            "alg none with a signature": Token(header={"alg": "none"}),
            "alg none with a zero byte as signature": unsigned("none", b"\0"),
            "alg in lower case": header(alg="rs256"),
            "alg with a space": header(alg="RS256 "),
            "alg with a NUL": header(alg="RS256\0"),
            "alg in letters that look the same": header(alg="R\uff33256"),
            "alg RS512 signed with the right key": Token(header={"alg": "RS512"}, algorithm="RS512"),
            "alg HS512, listed by no issuer": Token(
                "internal", header={"alg": "HS512"}, signature=hmac(SECRET, "HS512")
            ),
            "alg ES256 on another issuer's list": Token(header={"alg": "ES256", "kid": "es-1"}, signer="es"),
            "alg HS256 on another issuer's list": Token(header={"alg": "HS256"}, signature=hmac(SECRET)),
            "alg PS256 with the RS256 issuer's key": Token(header={"alg": "PS256"}, algorithm="PS256"),
            "alg RS256 with the PS256 issuer's key": Token("ps", header={"alg": "RS256"}, algorithm="RS256"),
            "alg dir": header(alg="dir"),
            "alg ES256K": Token("es", header={"alg": "ES256K"}),
            "HMAC with the public key as PEM": hmac_with_public("generic", PEM, SPKI),
            "HMAC with the public key as PKCS 1 PEM (CVE-2017-11424)": hmac_with_public("generic", PEM, PKCS1),
            "HMAC with the public key as DER": hmac_with_public("generic", DER, SPKI),
            "HMAC with the RSA public key as OpenSSH": hmac_with_public("generic", SSH, PublicFormat.OpenSSH),
            "HMAC with the EC public key as OpenSSH (CVE-2024-33663)": hmac_with_public(
                "es", SSH, PublicFormat.OpenSSH
            ),
            "HMAC with the Ed25519 public key as OpenSSH (CVE-2022-29217)": hmac_with_public(
                "ed", SSH, PublicFormat.OpenSSH
            ),
            "HMAC with the public key as JWK": lambda: Token(
                header={"alg": "HS256"}, signature=hmac(json.dumps(public_jwk("generic")).encode())
            ).encode(),
            "HMAC with an empty key": Token(header={"alg": "HS256"}, signature=hmac(b"")),
        },
    ),
    *cases(
        R.UNSUPPORTED_ALGORITHM,
        {
            f"alg {algorithm} for a key {fitting}": Token(
                header={"alg": algorithm, "kid": kid},
                claims={"iss": "https://mixed.example.net"},
                signer=signer,
                algorithm=algorithm if algorithm != "ES384" else "",
            )
            for algorithm, kid, signer, fitting in (
                ("PS256", "rsa-1", "rogue", "published for RS256"),
                ("ES384", "ec-1", "es384", "on P-256"),
                ("RS256", "ec-1", "rogue", "on a curve"),
                ("ES256", "rsa-1", "es", "of RSA"),
            )
        },
    ),
]

ISSUER = cases(
    R.UNKNOWN_ISSUER,
    {
        "iss missing": claims(iss=ABSENT),
        "iss null": claims(iss=None),
        "iss a number": claims(iss=1),
        "iss a list of the issuer (CVE-2025-30144)": claims(iss=[CLAIMS["generic"]["iss"]]),
        "iss a list of attacker and issuer": claims(iss=["https://evil.example", CLAIMS["generic"]["iss"]]),
        "iss an object": claims(iss={CLAIMS["generic"]["iss"]: True}),
        "iss with a slash more": claims(iss=CLAIMS["generic"]["iss"] + "/"),
        "iss with a slash less": Token("auth0", claims={"iss": CLAIMS["auth0"]["iss"].rstrip("/")}),
        "iss in another case": claims(iss="https://ID.example.net"),
        "iss over http": claims(iss="http://id.example.net"),
        "iss with the default port": claims(iss="https://id.example.net:443"),
        "iss that is a part of the issuer (CVE-2024-53861)": claims(iss="https://id.example.ne"),
        "iss empty, a part of any": claims(iss=""),
        "iss with a space": claims(iss=CLAIMS["generic"]["iss"] + " "),
        "iss with a NUL": claims(iss=CLAIMS["generic"]["iss"] + "\0"),
        "iss with a lone surrogate": claims(iss="\ud800"),
        "iss of another Cognito pool": cognito(iss=COGNITO[:-1] + "f"),
        "iss of the pool in another region": cognito(iss=COGNITO.replace("us-east-1.", "eu-west-1.")),
        "iss of Cognito with a slash": cognito(iss=COGNITO + "/"),
        "the issuer's name instead of its URL": claims(iss="generic"),
    },
)

KEY = [
    *cases(R.OK, {"no kid where one key fits": header(kid=ABSENT), "kid null": header(kid=None)}),
    *cases(
        R.UNKNOWN_KEY,
        {
            "kid nobody has": header(kid="nobody"),
            "kid empty": header(kid=""),
            "kid in another case": header(kid="KEY-1"),
            "kid a path": header(kid="../../../../dev/null"),
            "kid a URL": header(kid="https://evil.example/jwks.json"),
            "kid an SQL injection": header(kid="x' UNION SELECT 'k' --"),
            "kid with a lone surrogate": header(kid="\ud800"),
            "kid with a terminal escape": header(kid="\x1b[2J"),
            "kid of another issuer's key": Token(header={"kid": "okta-1"}, signer="okta"),
            "kid of a key published for encryption": Token(
                header={"kid": "encryption-1", "alg": "PS256"},
                claims={"iss": "https://mixed.example.net"},
                signer="ps",
            ),
            "jku in the header": self_signed(jku="https://evil.example/jwks.json"),
            "x5u in the header": self_signed(x5u="https://evil.example/chain.pem"),
            "x5c in the header": self_signed(x5c=["MIIB"]),
            "jwk in the header (CVE-2018-0114)": lambda: self_signed(jwk=public_jwk("rogue", kid="attacker"))(),
            "jwk of HS256 in the header": self_signed(jwk={"kty": "oct", "k": "AAAA"}),
        },
    ),
    *cases(
        R.OK,
        {
            "jku beside the right key is not followed": header(jku="https://evil.example/jwks.json"),
            "x5t beside the right key is not looked at": header(x5t="AAAA"),
            "b64 true changes nothing": header(b64=True),
        },
    ),
]

SIGNATURE = [
    *cases(
        R.BAD_SIGNATURE,
        {
            "signature empty (CVE-2020-28042)": Token(signature=lambda _: b""),
            "signature of another token": Token(signature=lambda _: sign("generic", b"x.y")),
            "signature a byte short": Token(signature=lambda data: sign("generic", data)[:-1]),
            "signature a byte long": Token(signature=lambda data: sign("generic", data) + b"\0"),
            "signature with a bit flipped": Token(
                signature=lambda data: (int.from_bytes(sign("generic", data)) ^ 1).to_bytes(256)
            ),
            "signature of zeros": Token(signature=lambda _: bytes(256)),
            "RSA signature that is its own padding": Token(signature=lambda _: b"\0\1" + b"\xff" * 253 + b"\0"),
            "PKCS 1 signature with the SHA-512 prefix": Token(algorithm="RS512"),
            "PSS signature under alg RS256": Token(algorithm="PS256"),
            "PKCS 1 signature under alg PS256": Token("ps", algorithm="RS256"),
            "another issuer's key under the same kid": Token("generic", signer="twin"),
            "the other way round": Token("twin", signer="generic"),
            "nobody's key under a known kid": Token(signer="rogue"),
            "nobody's key offered as jwk under a known kid": lambda: Token(
                header={"jwk": public_jwk("rogue")}, signer="rogue"
            ).encode(),
            "claims of another token": replaced(1, lambda _: part({**ordinary_claims("generic"), "scope": "admin"})),
            "header of another token": replaced(0, lambda _: part({**ordinary_header("generic"), "x": 1})),
            "psychic ES256 signature (CVE-2022-21449)": Token("es", signature=lambda _: bytes(64)),
            "psychic ES256 signature as DER": Token("es", signature=lambda _: bytes.fromhex("3006020100020100")),
            "ES256 signature as DER": replaced(2, der, Token("es")),
            "ES256 signature with r and s exchanged": Token(
                "es", signature=lambda data: (made := sign("es", data))[32:] + made[:32]
            ),
            "ES256 signature padded to 66 bytes": Token(
                "es", signature=lambda data: b"\0" + (made := sign("es", data))[:32] + b"\0" + made[32:]
            ),
            "EdDSA signature of zeros": Token("ed", signature=lambda _: bytes(64)),
            "EdDSA signature with S beyond the order": Token(
                "ed",
                signature=lambda data: (
                    (made := sign("ed", data))[:32]
                    + (int.from_bytes(made[32:], "little") + 2**252 + 27742317777372353535851937790883648493).to_bytes(
                        32, "little"
                    )
                ),
            ),
            "HMAC cut to 16 bytes": Token("internal", signature=lambda data: hmac(SECRET)(data)[:16]),
            "HMAC with an empty secret": Token("internal", signature=hmac(b"")),
            "HMAC with the secret's base64": Token("internal", signature=hmac(b64(SECRET))),
            "HMAC with another issuer's public key as PEM": hmac_with_public(
                "generic",
                PEM,
                SPKI,
                claims={"iss": CLAIMS["internal"]["iss"]},
                header={"alg": "HS256", "kid": "internal-1"},
            ),
            "HMAC-SHA512 under alg HS256": Token("internal", signature=hmac(SECRET, "HS512")),
        },
    ),
]

TIMES = [
    *cases(
        R.OK,
        {
            "exp a float": claims(exp=NOW + 60.5),
            "exp written with an exponent": exp_written("1.8e9"),
            "exp passed within the leeway": claims(exp=NOW - 9),
            "nbf ahead within the leeway": claims(nbf=NOW + 9),
            "iat ahead within the leeway": claims(iat=NOW + 9),
            "iat missing": claims(iat=ABSENT),
        },
    ),
    *cases(
        R.EXPIRED,
        {
            "exp passed by the leeway": claims(exp=NOW - 10),
            "exp passed long ago": claims(exp=1),
            "exp zero": claims(exp=0),
            "exp negative": claims(exp=-1),
            "exp negative and far": claims(exp=-(2**53)),
            "exp a float just passed": claims(exp=NOW - 10.5),
        },
    ),
    *cases(
        R.NOT_YET_VALID,
        {
            "nbf ahead": claims(nbf=NOW + 60),
            "nbf a float ahead": claims(nbf=NOW + 10.5),
            "iat ahead": claims(iat=NOW + 60),
        },
    ),
    *cases(
        R.INVALID_CLAIMS,
        {
            "exp missing": claims(exp=ABSENT),
            "exp null": claims(exp=None),
            "exp a string": claims(exp=str(NOW + 60)),
            "exp a string that is no number": claims(exp="never"),
            "exp true": claims(exp=True),
            "exp false": claims(exp=False),
            "exp a list": claims(exp=[NOW + 60]),
            "exp an object": claims(exp={}),
            "exp NaN": claims(exp=float("nan")),
            "exp Infinity": claims(exp=float("inf")),
            "exp minus Infinity": claims(exp=float("-inf")),
            "exp 1e999": exp_written("1e999"),
            "exp 1e300": claims(exp=1e300),
            "exp beyond 64 bits": claims(exp=2**64),
            "exp of 5000 digits": exp_written("9" * 5000),
            "nbf true": claims(nbf=True),
            "nbf a string": claims(nbf=str(NOW)),
            "nbf null": claims(nbf=None),
            "iat true": claims(iat=True),
            "iat a string": claims(iat=str(NOW)),
            "iat null": claims(iat=None),
        },
    ),
]

CLAIMS_PART = [
    *cases(
        R.INVALID_CLAIMS,
        {
            "claims that are no JSON": Token(claims=b"sub=agent-1"),
            "claims empty": Token(claims=b""),
            "claims that are a list": Token(claims=b"[]"),
            "claims that are a string": Token(claims=b'"agent-1"'),
            "claims that are null": Token(claims=b"null"),
            "a whole token as claims": lambda: Token(header={"cty": "JWT"}, claims=Token().encode()).encode(),
            "duplicate iss": raw(b'"iss": "https://evil.example"'),
            "duplicate scope": raw(b'"scope": "admin"'),
            "duplicate scope, one spelled with an escape": raw(b'"sc\\u006fpe": "admin"'),
            "duplicate key in an object within": raw(b'"x": {"a": 1, "a": 2}'),
            "duplicate exp, equal": raw(b'"exp": %d' % (NOW + 3600)),
            "NaN in a claim nobody reads": raw(b'"x": NaN'),
            "1e999 in a claim nobody reads": raw(b'"x": 1e999'),
            "number of 5000 digits in a claim nobody reads": raw(b'"x": ' + b"9" * 5000),
            "claims nested 5000 deep": raw(nested(5000)),
            "BOM before the claims": Token(claims=b"\xef\xbb\xbf" + json.dumps(ordinary_claims("generic")).encode()),
            "claims in UTF-16": Token(claims=json.dumps(ordinary_claims("generic")).encode("utf-16")),
            "invalid UTF-8 in the claims": raw(b'"x": "\xff"'),
            "surrogate as UTF-8 in the claims": raw(b'"x": "\xed\xa0\x80"'),
            "raw line break in a claim": raw(b'"x": "a\nb"'),
            "comment in the claims": raw(b'"x": 1 /* , */'),
            "comma at the end of the claims": raw(b'"x": 1,'),
            "single quotes": raw(b"'x': 1"),
            "trailing bit in the claims": replaced(1, trailing_bit, padded_to(1, "claims")),
        },
    ),
    *cases(
        R.OK, {"white space around the claims": Token(claims=b" \n" + json.dumps(ordinary_claims("generic")).encode())}
    ),
]

MACHINE = [
    *cases(
        R.NOT_M2M,
        {
            "Cognito ID token": cognito(token_use="id", client_id=ABSENT, aud="agent-1", username=ABSENT),
            "Cognito ID token with client_id": cognito(token_use="id"),
            "Cognito refresh token": cognito(token_use="refresh"),
            "Cognito token without token_use": cognito(token_use=ABSENT),
            "Cognito token_use in another case": cognito(token_use="Access"),
            "Cognito token_use a list": cognito(token_use=["access"]),
            "Cognito token without client_id": cognito(client_id=ABSENT),
            "person's Cognito token": cognito(
                username="alice", sub="5b3f", device_key="us-east-1_1", **{"cognito:groups": ["admin"]}
            ),
            "Cognito token with username": cognito(username="alice"),
            "Cognito token with username null": cognito(username=None),
            "Cognito token with username empty": cognito(username=""),
            "Cognito token with groups": cognito(**{"cognito:groups": ["admin"]}),
            "Cognito token with groups empty": cognito(**{"cognito:groups": []}),
            "Cognito token with device_key": cognito(device_key="us-east-1_1"),
            "person's token": claims(sub="alice"),
            "ID token without client_id": claims(client_id=ABSENT, sub="alice", nonce="n"),
            "gty in another spelling": claims(sub="alice", gty="client_credentials"),
            "gty a list": claims(sub="alice", gty=["client-credentials"]),
            "sub the client in another case": claims(sub="Agent-1"),
            "sub empty": claims(sub=""),
            "Okta token of a person": Token("okta", claims={"sub": "alice@example.com", "uid": "00u1"}),
            "Okta token without cid": Token("okta", claims={"cid": ABSENT}),
            "Okta token without sub": Token("okta", claims={"sub": ABSENT}),
            "Auth0 token of a person": Token("auth0", claims={"sub": "auth0|1", "gty": ABSENT}),
            "Auth0 token with another grant": Token("auth0", claims={"gty": "password"}),
            "Auth0 token without azp": Token("auth0", claims={"azp": ABSENT}),
            "Entra token with scp": Token("entra", claims={"scp": "read"}),
            "Entra token with scp empty": Token("entra", claims={"scp": ""}),
            "Entra token without roles": Token("entra", claims={"roles": ABSENT}),
            "Keycloak token of a person": Token("keycloak", claims={"preferred_username": "alice"}),
            "Keycloak token of another client's account": Token(
                "keycloak", claims={"preferred_username": "service-account-agent-2"}
            ),
            "Keycloak token of a person by its grant": Token(
                "keycloak", claims={"preferred_username": ABSENT, "jti": "ntrtte:1", "client_id": "agent-1"}
            ),
            "Auth0 token of a person, RFC 9068 profile": Token(
                "auth0", claims={"azp": ABSENT, "gty": ABSENT, "client_id": "agent-1", "sub": "auth0|1"}
            ),
            "Keycloak token without preferred_username": Token("keycloak", claims={"preferred_username": ABSENT}),
            "RFC 9068 token with typ JWT": Token("rfc9068", header={"typ": "JWT"}),
            "RFC 9068 token without typ": Token("rfc9068", header={"typ": ABSENT}),
            "RFC 9068 token of a person": Token("rfc9068", claims={"sub": "alice"}),
            "RFC 9068 token without sub": Token("rfc9068", claims={"sub": ABSENT}),
            "Kubernetes token of no service account": Token("kubernetes", claims={"sub": "system:node:worker-1"}),
            "DPoP proof offered as a token": header(typ="dpop+jwt"),
            "logout token offered as a token": header(typ="logout+jwt"),
            "logout token that ends like an access token": header(typ="logout+at+jwt"),
            "ID token offered as a token": header(typ="id_token"),
            "typ empty": header(typ=""),
        },
    ),
    *cases(
        R.OK,
        {
            "Cognito's other form of issuer": cognito(iss=COGNITO_OTHER_FORM),
            "generic token with azp": claims(client_id=ABSENT, azp="agent-1"),
            "generic token without sub": claims(sub=ABSENT),
            "generic token with gty and another sub": claims(sub="agent-1@clients", gty="client-credentials"),
            "Entra v1 token with appid": Token("entra", claims={"azp": ABSENT, "appid": "agent-1"}),
            "Auth0 token of its RFC 9068 profile": Token(
                "auth0", header={"typ": "at+jwt"}, claims={"azp": ABSENT, "gty": ABSENT, "client_id": "agent-1"}
            ),
            "Keycloak token by its grant": Token("keycloak", claims={"preferred_username": ABSENT, "jti": "trltcc:1"}),
            "typ JOSE": header(typ="JOSE"),
            "the long typ": header(typ="application/JWT"),
            "RFC 9068 token with the long typ": Token("rfc9068", header={"typ": "application/at+jwt"}),
            "RFC 9068 token with typ in another case": Token("rfc9068", header={"typ": "AT+JWT"}),
            "person's token of an issuer with allow_users": Token("people", claims={"sub": "alice"}),
        },
    ),
]

AUDIENCE = [
    *cases(
        R.WRONG_AUDIENCE,
        {
            "aud of another API": claims(aud="api://other"),
            "aud missing": claims(aud=ABSENT),
            "aud an empty list": claims(aud=[]),
            "aud an empty string": claims(aud=""),
            "aud with a slash more": claims(aud="api://m2m/"),
            "aud that is a part of ours": claims(aud="api://m2"),
            "aud of several, joined by a space": claims(aud="api://m2m api://other"),
            "aud in another case": claims(aud="API://m2m"),
            "aud `any`": claims(aud="any"),
            "Cognito aud that nobody configured": cognito(aud="agent-1"),
        },
    ),
    *cases(
        R.INVALID_CLAIMS,
        {
            "aud null": claims(aud=None),
            "aud a number": claims(aud=1),
            "aud true": claims(aud=True),
            "aud an object": claims(aud={"api://m2m": 1}),
            "aud a list with a number": claims(aud=["api://m2m", 1]),
            "aud a list with null": claims(aud=["api://m2m", None]),
            "aud a list in a list": claims(aud=[["api://m2m"]]),
        },
    ),
    *cases(R.OK, {"aud a list with ours": claims(aud=["api://other", "api://m2m"])}),
]

OTHER_CLAIMS = [
    *cases(
        R.INVALID_CLAIMS,
        {
            "client_id empty": claims(client_id="", sub=""),
            "client_id null": claims(client_id=None),
            "client_id a number": claims(client_id=7, sub="7"),
            "client_id a list": claims(client_id=["agent-1"]),
            "client_id with a line break": claims(client_id="agent-1\r\nX-M2M-Role: admin", sub=ABSENT),
            "client_id with a line break at its end": claims(client_id="agent-1\n", sub="agent-1\n"),
            "client_id with a space": claims(client_id="agent 1", sub="agent 1"),
            "client_id with a space at its end": claims(client_id="agent-1 ", sub="agent-1 "),
            "client_id with a tab": claims(client_id="agent\t1", sub="agent\t1"),
            "client_id with a NUL": claims(client_id="agent-1\0", sub="agent-1\0"),
            "client_id with DEL": claims(client_id="agent-1\x7f", sub="agent-1\x7f"),
            "client_id in letters that look the same": claims(client_id="\u0430gent-1", sub="\u0430gent-1"),
            "client_id beyond ASCII": claims(client_id="agënt", sub="agënt"),
            "client_id with a lone surrogate": claims(client_id="\ud800", sub="\ud800"),
            "client_id with U+2028": claims(client_id="a\u2028b", sub="a\u2028b"),
            "sub a number": claims(sub=1),
            "sub null": claims(sub=None),
            "sub a list": claims(sub=["agent-1"]),
            "Cognito sub a number": cognito(sub=1),
            "Cognito client_id with a line break": cognito(client_id="a\nb"),
            "jti a number": claims(jti=1),
            "jti null": claims(jti=None),
            "jti a list": claims(jti=["jti-revoked"]),
            "scope a number": claims(scope=1),
            "scope null": claims(scope=None),
            "scope an object": claims(scope={"read": True}),
            "scope with a line break": claims(scope="read\r\nX-M2M-Role: admin"),
            "scope with a tab": claims(scope="read\tadmin"),
            "scope with a NUL": claims(scope="read\0"),
            "scope with a vertical tab": claims(scope="read\x0badmin"),
            "scope with a no-break space": claims(scope="read\xa0admin"),
            "scope beyond ASCII": claims(scope="reäd"),
            "scope list with a space in an item": Token("okta", claims={"scp": ["read admin"]}),
            "scope list with a line break": Token("okta", claims={"scp": ["read", "a\nb"]}),
            "scope list with a number": Token("okta", claims={"scp": ["read", 1]}),
            "scope list in a list": Token("okta", claims={"scp": [["read"]]}),
            "roles with a space": Token("entra", claims={"roles": ["read admin"]}),
            "Kubernetes account with a line break": Token("kubernetes", claims={"sub": SERVICE_ACCOUNT + "\n"}),
            "mapped claim with CR and LF": claims(**{"custom:tenant": "a\r\nX-M2M-Role: admin"}),
            "mapped claim with LF": claims(**{"custom:tenant": "a\nb"}),
            "mapped claim with a tab": claims(**{"custom:tenant": "a\tb"}),
            "mapped claim with a NUL": claims(**{"custom:tenant": "a\0"}),
            "mapped claim with a space before it": claims(**{"custom:tenant": " a"}),
            "mapped claim with a space after it": claims(**{"custom:tenant": "a "}),
            "mapped claim that is a space": claims(**{"custom:tenant": " "}),
            "mapped claim beyond ASCII": claims(**{"custom:tenant": "ténant"}),
            "mapped claim with a lone surrogate": claims(**{"custom:tenant": "\udfff"}),
            "mapped list with a line break": claims(groups=["a", "b\r\nc"]),
            "mapped list that ends with nothing": claims(groups=["a", ""]),
        },
    ),
    *cases(
        R.OK,
        {
            "mapped claim with a space within": claims(**{"custom:tenant": "a b"}),
            "mapped claim with quotes": claims(**{"custom:tenant": 'a"b\\'}),
            "mapped claims of all types": claims(level=1.5, groups=["a", "b"], **{"custom:tenant": True}),
            "mapped claim null": claims(level=None),
            "mapped claim an object": claims(level={"a": "\r\n"}),
            "mapped list with a number": claims(groups=["a", 1]),
            "scope empty": claims(scope=""),
            "scope missing": claims(scope=ABSENT),
            "scope with two spaces": claims(scope=" read  write "),
            "claims nested a little": raw(nested(20)),
            "unknown claims of every type": raw(b'"a": null, "b": [1, 2.5, -3e2], "c": {"d": "\\ud83d\\ude00"}'),
        },
    ),
]

PROOF = cases(
    R.BAD_PROOF,
    {
        "bound by DPoP": claims(cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
        "bound to a certificate": claims(cnf={"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}),
        "bound by a method nobody knows": claims(cnf={"kid": "1"}),
        "cnf empty": claims(cnf={}),
        "cnf null": claims(cnf=None),
        "cnf a string": claims(cnf="none"),
        "bound Cognito token": cognito(cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
    },
) + cases(
    R.BAD_PROOF,
    {"bound by DPoP, with a proof that is none": claims(cnf={"jkt": "0ZcO"})},
    headers=((b"dpop", b"e30.e30."), (b"x-client-cert", b"forged")),
)

REVOKED = [
    *cases(
        R.REVOKED,
        {
            "revoked jti": claims(jti="jti-revoked"),
            "revoked jti of another issuer": cognito(jti="jti-revoked"),
            "revoked client of one issuer": Token("okta", claims={"cid": "gone", "sub": "gone"}),
            "client revoked everywhere": claims(client_id="banned", sub="banned"),
            "client revoked everywhere, at another issuer": Token("okta", claims={"cid": "banned", "sub": "banned"}),
        },
    ),
    *cases(
        R.OK,
        {
            "client of that name at another issuer": claims(client_id="gone", sub="gone"),
            "jti that contains a revoked one": claims(jti="jti-revoked-not"),
            "jti missing": claims(jti=ABSENT),
        },
    ),
    *cases(
        R.REVOKED, {"revoked client where there is one issuer": cognito(client_id="gone", sub="gone")}, world="single"
    ),
]

SIZE = [
    *cases(R.HEADERS_TOO_LARGE, {"scopes beyond the header limit": large(40)}),
    *cases(R.HEADERS_TOO_LARGE, {"mapped claim beyond the header limit": claims(**{"custom:tenant": "x" * 4000})}),
    *cases(R.HEADERS_TOO_LARGE, {"mapped number beyond the header limit": raw(b'"level": ' + b"9" * 4000)}),
    *cases(R.HEADERS_TOO_LARGE, {"client id beyond the header limit": claims(client_id="a" * 4000, sub="a" * 4000)}),
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
    *cases(R.UNSUPPORTED_ALGORITHM, {"RFC 7519 section 6.1, unsecured": UNSECURED_RFC_7519}),
    *cases(
        R.UNKNOWN_ISSUER,
        {
            "RFC 7515 appendix A.1": HS256_RFC_7515,
            "PyJWT GHSA-ffqj-6fqr-9h24 with an Ed25519 key": PYJWT_GHSA_FFQJ_ED25519,
            "PyJWT GHSA-ffqj-6fqr-9h24 with a P-256 key": PYJWT_GHSA_FFQJ_P256,
            "PyJWT GHSA-ffqj-6fqr-9h24, the good one": PYJWT_GHSA_FFQJ_GOOD,
            "the token that jwt.io shows": JWT_IO,
        },
    ),
    *cases(
        R.MALFORMED_TOKEN,
        {
            "RFC 7516 appendix A.1, a JWE": JWE_RFC_7516,
            "crit bork (Authlib CVE-2025-59420)": header(crit=["bork"], bork="x"),
            "crit myparam (PyJWT CVE-2026-32597)": header(crit=["myparam"], myparam=1),
            "dots without end (golang-jwt CVE-2025-30204)": b"." * 8000,
            "compressed JWE (python-jose CVE-2024-33664)": jwe(alg="dir", enc="A128CBC-HS256", zip="DEF"),
            "PBES2 with a count beyond reason (jose4j CVE-2023-51775)": jwe(
                alg="PBES2-HS256+A128KW", enc="A128GCM", p2c=2**31 - 1, p2s="AAAA"
            ),
        },
    ),
    *cases(R.UNSUPPORTED_ALGORITHM, {"JWE algorithm in three parts (jwcrypto CVE-2022-3102)": header(alg="RSA-OAEP")}),
]

TABLE = [
    *ORDINARY,
    *AUTHORIZATION,
    *FORM,
    *ALGORITHM,
    *ISSUER,
    *KEY,
    *SIGNATURE,
    *TIMES,
    *CLAIMS_PART,
    *MACHINE,
    *AUDIENCE,
    *OTHER_CLAIMS,
    *PROOF,
    *REVOKED,
    *SIZE,
    *PUBLISHED,
]

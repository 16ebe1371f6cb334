"""Hostile claims under valid signatures, and some valid ones beside them."""

from __future__ import annotations

import json
from math import inf, nan

from tests.minting import ABSENT
from verifier.reasons import Reason as R

from .cases import cases, claim, claims, parameter, raw
from .hostile_forms import THUMBPRINT
from .tokens import CLAIMS, COGNITO, NOW, POOL, SERVICE_ACCOUNT, Token, ordinary_claims

GENERIC = CLAIMS["generic"]["iss"]


def exp_written(number: str) -> Token:
    """An ordinary token whose exp is a number that no JSON library writes."""
    return Token(claims=json.dumps(ordinary_claims("generic")).replace(f"{NOW + 3600}", number).encode())


def large(number: int) -> Token:
    """A token with so many scopes of 100 characters."""
    return claims(scope=" ".join(f"{place:0100d}" for place in range(number)))


# fmt: off
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
# fmt: on

TABLE = [*ISSUER, *TIMES, *MACHINE, *AUDIENCE, *OTHER_CLAIMS, *PROOF, *REVOKED, *SIZE]

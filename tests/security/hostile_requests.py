"""Valid tokens on hostile requests: policies, narrowing, rules, paths, lists, roles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.minting import ABSENT
from verifier.reasons import Reason as R

from .cases import Case, cases, claim, claims
from .tokens import PREFIX, Token

HOST = b"https://api.example.com"


def varied(reason: R, by: str, rows: dict[str, Any], *, token: Token | None = None, **request: Any) -> list[Case]:
    """Rows that differ in one field of the request: ``{name: value}``, where ``by`` names the field."""
    made = token or Token()
    return [case for name, value in rows.items() for case in cases(reason, {name: made}, **{**request, by: value})]


def named(label: str, contents: Iterable[bytes], before: bytes = b"", after: bytes = b"") -> dict[str, bytes]:
    """Rows named by what varies."""
    return {f"{label} {one.decode('ascii', 'backslashreplace')}": before + one + after for one in contents}


# fmt: off
POLICY = [
    *varied(R.OK, "path", {"policy in the path": "/verify/api"}),
    *varied(R.UNKNOWN_POLICY, "path", {
        "policy that is not configured": "/verify/nope",
        "policy in another case": "/verify/API",
        "policy with a slash after it": "/verify/api/",
        "policy after two slashes": "/verify//api",
        "policy after dots": "/verify/nope/../api",
        "policy with a space": "/verify/api ",
        "policy with a NUL": "/verify/api\0",
        "policy in letters that look the same": "/verify/\u0430pi",
        "policy with a percent sign": "/verify/%61pi",
        "policy with its query encoded": "/verify/api?scope=read",
        "policy with a path parameter": "/verify/api;x",
        "policy with an attribute's name": "/verify/__class__",
        "policy with an issuer's name": "/verify/generic",
    }),
    *cases(R.UNKNOWN_POLICY, {"unknown policy without a token": None}, path="/verify/nope"),
    *varied(R.BAD_AUTH_REQUEST, "url", {
        "rules but no original URL": None,
        "rules and an empty original URL": b"",
        "rules and a relative URL": b"/db/orders",
        "rules and a URL of another scheme": b"file:///db/orders",
        "rules and a URL without scheme": b"//api.example.com/db/orders",
    }, path="/verify/api"),
    *varied(R.BAD_AUTH_REQUEST, "method", {
        "rules but no method": None, "rules and an empty method": b"",
    }, path="/verify/api"),
    *varied(R.BAD_AUTH_REQUEST, "headers", {
        "X-Original-URL twice": ((b"x-original-url", HOST + b"/db/orders"),),
        "X-Original-Method twice": ((b"x-original-method", b"GET"),),
        "X-Original-URL twice, one empty": ((b"x-original-url", b""),),
    }, path="/verify/api"),
]

FORGED = varied(R.INSUFFICIENT_SCOPE, "headers", {
    "forged X-Forwarded-Method": ((b"x-forwarded-method", b"GET"),),
    "forged X-HTTP-Method-Override": ((b"x-http-method-override", b"GET"),),
    "forged X-Original-URI": ((b"x-original-uri", b"/open/x"),),
    "forged X-Forwarded-Uri": ((b"x-forwarded-uri", b"/open/x"),),
    "forged X-Forwarded-Host": ((b"x-forwarded-host", b"other.example.com"),),
    "forged X-Rewrite-URL": ((b"x-rewrite-url", b"/open/x"),),
    "forged X-M2M headers": ((b"x-m2m-client-id", b"root"), (b"x-m2m-scope", b"write"), (b"x-m2m-role", b"admin")),
    "forged X-M2M-Reason": ((b"x-m2m-reason", b"ok"),),
    "forged X-Auth-Request policy": ((b"x-policy", b"default"), (b"x-auth-request-redirect", b"/")),
    "forged cookie with a token": ((b"cookie", b"access_token=abc"),),
}, path="/verify/api", method=b"POST")

API: dict[str, Any] = {"path": "/verify/api"}
ADMIN: dict[str, Any] = {**API, "url": HOST + b"/admin/x"}
RULES = [
    *varied(R.OK, "method", {"GET by a reader": b"GET", "HEAD by a reader": b"HEAD"}, **API),
    *varied(R.NO_MATCHING_RULE, "method", named("method", b"get PROPFIND GET,POST \xff\xfe".split()), **API),
    *varied(R.NO_MATCHING_RULE, "method", {"method with a space": b"GET "}, **API),
    *varied(R.INSUFFICIENT_SCOPE, "method", {"POST by a reader": b"POST", "DELETE by a reader": b"DELETE"}, **API),
    *cases(R.OK, {"POST by a writer": claims(scope="read write")}, method=b"POST", **API),
    *cases(R.INSUFFICIENT_SCOPE, {
        "writer without the policy's own scope": claims(scope="write"),
        "no scope": claims(scope=ABSENT),
        "scope in another case": claims(scope="READ"),
        "scope that begins the same": claims(scope="reader"),
        "scope with another prefix": claims(scope="https://evil.example/read"),
        "scope with the prefix twice": claims(scope=PREFIX + PREFIX + "read"),
        "scope that is the prefix": claims(scope=PREFIX),
        "scopes joined by a comma": claims(scope="read,write"),
    }, **API),
    *cases(R.OK, {"scope with the prefix": claims(scope=PREFIX + "read")}, **API),
    *cases(R.INSUFFICIENT_SCOPE, {"any_scope by a reader": Token()}, **ADMIN),
    *cases(R.OK, {"any_scope by root": claims(scope="read root")}, **ADMIN),
    *varied(R.NO_MATCHING_RULE, "url", named("api", [b"/other", b"/DB/orders", b"/dbx"], HOST), **API),
]


def paths(reason: R, targets: bytes) -> list[Case]:
    """Raw request targets, separated by white space, on the policy ``paths``."""
    return varied(reason, "url", named("path", targets.split(), HOST), path="/verify/paths")


def hosts(reason: R, targets: list[bytes]) -> list[Case]:
    """Hosts of the original URL."""
    return varied(reason, "url", named("host", targets, b"https://", b"/open/a"), path="/verify/paths")


PATHS = [
    *paths(R.OK, rb"""
        / /?q /open /open/ /open/a/b /open/a?x=/../shut/%2f /open/./a /open/b/../a /open//a /open/a%20b /%6fpen/a
        /open/%C3%A9 /open/a;v=1 /open/... /open/..a /open/a%3Fb /files/7/raw /100%25
    """),
    *paths(R.INSUFFICIENT_SCOPE, rb"/shut /shut/x /%73hut/x /shut/./x /shut//x /shut/x?/open/"),
    *paths(R.NO_MATCHING_RULE, rb"/Open/a /opened /files/raw /files/7/raw/ /files/7/8/raw /nowhere"),
    # an encoded slash or backslash, a backslash
    *paths(R.AMBIGUOUS_PATH, rb"/open%2fa /open%2Fa /open/..%2fshut/x /open%5ca /open/..%5Cshut /open\a /open/..\shut"),
    # NUL and other controls
    *paths(R.AMBIGUOUS_PATH, rb"/open/%00 /open/a%00.png /open/a%0d%0aX-M2M-Role:%20admin /open/a%09b /open/%C2%85"),
    *paths(R.AMBIGUOUS_PATH, b"/open/\x01 /open/a\x7f /open/a%7F"),
    # a second level of encoding
    *paths(R.AMBIGUOUS_PATH, rb"/open/%252e%252e/shut /open/%252fshut /open/a%2541 /open/%25%32%65"),
    # dots with parameters
    *paths(R.AMBIGUOUS_PATH, rb"/open/..;/shut/x /open/..;x=1/shut/x /open/.;/a /open/%2e%2e;/shut /open/..%3b/shut"),
    # above the root
    *paths(R.AMBIGUOUS_PATH, rb"/.. /../open/a /open/../../open/a /%2e%2e/open/a"),
    # neither UTF-8 nor percent-encoding
    *paths(R.AMBIGUOUS_PATH, b"/open/\xff /open/%ff /open/%c0%af /open/%e0%80%af /open/%ed%a0%80"),
    *paths(R.AMBIGUOUS_PATH, rb"/open/% /open/%2 /open/%zz /open/%u002e"),
    # an empty segment together with a dot segment
    *paths(R.AMBIGUOUS_PATH, rb"/open//../a /open/.//a //open/./a /open/a//.."),
    # an authority, parameters together with dots, encoded dots together with raw ones
    *paths(R.AMBIGUOUS_PATH, rb"""
        //x/open/a ///x/shut/a //u@h:80/open/a /;x/open/a /open;x/../a /open/a;x/./b /open/%2e/../open/a
    """),
    # parameters that hide another rule
    *paths(R.AMBIGUOUS_PATH, rb"/shut;x/a /open;x/a /;x/shut"),
    *paths(R.OK, rb"/files/7;x/raw"),
    # a raw #
    *paths(R.AMBIGUOUS_PATH, rb"/open/a#/shut /open/a?x#y"),
    # another rule with dots not resolved, slashes not merged
    *paths(R.AMBIGUOUS_PATH, rb"""
        /open/../shut/x /shut/../open/x /open/%2e%2e/shut/x /shut/%2E%2E/open/x /open/.%2e/shut/x
        /files/../files/7/raw /files//7/raw
    """),
    *hosts(R.AMBIGUOUS_PATH, [b"h?", b"h#", b"u@h", b"u:p@h", b"a\\b", b"h?x=/", b"h:", b"h:80:80", b"h\xc3\xa9"]),
    *hosts(R.AMBIGUOUS_PATH, [b"h:8a", b"[::1]x", b"[::1", b"::1", b"h%2f", b"h%00", b"h h", b"h\t", b"h;x", b"h,i"]),
    *varied(R.AMBIGUOUS_PATH, "url", {
        "no host and an authority in the path": b"https:////x/open/a",
        "path of 257 segments": HOST + b"/open" + b"/a" * 256,
        "path of 8193 bytes": HOST + b"/open/".ljust(8193, b"a"),
    }, path="/verify/paths"),
    *varied(R.OK, "url", {
        "no host": b"https:///open/a",
        "path of 256 segments": HOST + b"/open" + b"/a" * 255,
        "path of 8192 bytes": HOST + b"/open/".ljust(8192, b"a"),
    }, path="/verify/paths"),
    *hosts(R.OK, b"h H.example.COM h:8443 10.0.0.1 [::1] [2001:db8::1]:8443 a_b.svc".split()),
    *cases(R.OK, {"ambiguous path where no rule reads it": Token()}, url=HOST + b"/open/../%2f\\"),
]


def narrowed(reason: R, queries: bytes, **request: Any) -> list[Case]:
    """Queries of the auth URL, separated by white space."""
    return varied(reason, "query", named("auth URL with", queries.split()), **request)


SINGLE: dict[str, Any] = {"app": "single", "token": Token("homelab")}
NARROWING = [
    *narrowed(R.OK, b"""
        scope=read scope=read&scope=read scope=write,read client=generic/agent-1 client=okta/x,generic/agent-1
        issuer=generic issuer=okta,generic issuer=generic&scope=read&client=generic/agent-1
    """),
    *narrowed(R.INSUFFICIENT_SCOPE, b"""
        scope=write scope=read&scope=write scope=write&scope=read scope=write,admin scope=read,write&scope=admin,root
        scope=wr%69te scope=write%2Cadmin scope=read+write scope=read;colour=red scope=scope=read scope=READ
    """ + b"scope=" + PREFIX.encode() + b"read"),
    *narrowed(R.CLIENT_NOT_ALLOWED, b"""
        client=generic/agent-2 client=okta/agent-1 client=generic/agent-1&client=generic/agent-2
        client=generic/agent-2&client=generic/agent-1 client=generic/Agent-1
    """),
    *narrowed(R.ISSUER_NOT_ALLOWED, b"""
        issuer=okta issuer=generic&issuer=okta issuer=okta&issuer=generic issuer=unknown
    """),
    *narrowed(R.BAD_AUTH_REQUEST, b"""
        colour=red scope=read&colour=red colour=red&scope=read Scope=read %73cope=read scope[]=read scope%20=read =read
        scope scope= scope=read, scope=,read scope=read%20write scope=read" scope=read%00 scope=read%0d%0aX
        scope=%c3%a9 scope=\xff client=agent-1 client=unknown/agent-1 client=generic/ client= issuer= issuer
        policy=default mode=report ?scope=read
    """),
    *varied(R.BAD_AUTH_REQUEST, "query", {"auth URL with a space": b"scope =read"}),
    *varied(R.OK, "query", {"client id alone where there is one issuer": b"client=agent-1"}, **SINGLE),
    *varied(R.CLIENT_NOT_ALLOWED, "query", {"another id alone where there is one issuer": b"client=agent-2"}, **SINGLE),
]

NARROW: dict[str, Any] = {"path": "/verify/narrow"}
LISTS = [
    *cases(R.OK, {"client and issuer on the policy's lists": Token()}, **NARROW),
    *cases(R.CLIENT_NOT_ALLOWED, {
        "client not on the policy's list": claims(client_id="agent-2", sub="agent-2"),
        "client of that name at another issuer, not listed": Token("okta"),
    }, **NARROW),
    *cases(R.ISSUER_NOT_ALLOWED, {"listed client of an issuer not listed": Token("homelab")}, **NARROW),
    *cases(R.CLIENT_NOT_ALLOWED, {"query that names a client beyond the policy's list": Token("okta")},
           query=b"client=okta/agent-1&issuer=okta", **NARROW),
    *cases(R.ISSUER_NOT_ALLOWED, {"query that names an issuer beyond the policy's list": Token("homelab")},
           query=b"issuer=homelab", **NARROW),
    *claim(R.CLIENT_NOT_ALLOWED, "sub", "repo:evil/app:ref:refs/heads/main", issuer="github"),
    *claim(R.CLIENT_NOT_ALLOWED, "sub", "repo:informationcart/app:ref:refs/heads/main2", issuer="github"),
]

ROLES = [
    *cases(R.NO_ROLE, {"no role where one is required": Token()}, app="strict"),
    *cases(R.OK, {"role by scope where one is required": claims(scope="query")}, app="strict"),
]
# fmt: on

TABLE = [*POLICY, *FORGED, *RULES, *PATHS, *NARROWING, *LISTS, *ROLES]

"""Good tokens on hostile requests: policies, narrowing, rules, paths, roles, report mode."""

from __future__ import annotations

from typing import Any

from verifier.reasons import Reason as R

from .cases import Case, cases, claims, cognito
from .tokens import ABSENT, PREFIX, Token

HOST = b"https://api.example.com"


def asked(
    reason: R, rows: dict[str, Any], world: str = "main", token: Token | None = None, *, by: str, **request: Any
) -> list[Case]:
    """Rows that differ in one field of the request: ``{name: value}``, where ``by`` names the field."""
    label = "narrowed: " if by == "query" else ""
    return [
        case
        for name, value in rows.items()
        for case in cases(reason, {f"{label}{name}": token or Token()}, world, **{**request, by: value})
    ]


POLICY = [
    *asked(R.OK, {"policy in the path": "/verify/api"}, by="path"),
    *asked(
        R.UNKNOWN_POLICY,
        {
            "policy nobody configured": "/verify/nope",
            "policy in another case": "/verify/API",
            "policy with a slash after it": "/verify/api/",
            "policy behind two slashes": "/verify//api",
            "policy reached by dots": "/verify/nope/../api",
            "policy with a space": "/verify/api ",
            "policy with a NUL": "/verify/api\0",
            "policy in letters that look the same": "/verify/\u0430pi",
            "policy with a percent sign": "/verify/%61pi",
            "policy with its query encoded": "/verify/api?scope=read",
            "policy with a path parameter": "/verify/api;x",
            "policy named like an attribute": "/verify/__class__",
            "policy named by an issuer": "/verify/generic",
        },
        by="path",
    ),
    *cases(R.UNKNOWN_POLICY, {"unknown policy without a token": None}, path="/verify/nope"),
    *asked(
        R.BAD_AUTH_REQUEST,
        {
            "rules but no original URL": None,
            "rules and an empty original URL": b"",
            "rules and a relative URL": b"/db/orders",
            "rules and a URL of another scheme": b"file:///db/orders",
            "rules and a URL without scheme": b"//api.example.com/db/orders",
        },
        by="url",
        path="/verify/api",
    ),
    *asked(
        R.BAD_AUTH_REQUEST,
        {"rules but no method": None, "rules and an empty method": b""},
        by="method",
        path="/verify/api",
    ),
    *asked(
        R.BAD_AUTH_REQUEST,
        {
            "X-Original-URL twice": ((b"x-original-url", HOST + b"/db/orders"),),
            "X-Original-Method twice": ((b"x-original-method", b"GET"),),
            "X-Original-URL twice, one empty": ((b"x-original-url", b""),),
        },
        by="headers",
        path="/verify/api",
    ),
]

WRITE: dict[str, Any] = {"by": "headers", "path": "/verify/api", "method": b"POST"}
FORGED = asked(
    R.INSUFFICIENT_SCOPE,
    {
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
    },
    **WRITE,
)

RULES = [
    *asked(R.OK, {"GET by a reader": b"GET", "HEAD by a reader": b"HEAD"}, by="method", path="/verify/api"),
    *asked(
        R.NO_MATCHING_RULE,
        {
            "method in lower case": b"get",
            "method nobody listed": b"PROPFIND",
            "method with a space": b"GET ",
            "method of two": b"GET,POST",
            "method of strange bytes": b"\xff\xfe",
        },
        by="method",
        path="/verify/api",
    ),
    *asked(
        R.INSUFFICIENT_SCOPE,
        {"POST by a reader": b"POST", "DELETE by a reader": b"DELETE"},
        by="method",
        path="/verify/api",
    ),
    *cases(R.OK, {"POST by a writer": claims(scope="read write")}, path="/verify/api", method=b"POST"),
    *cases(
        R.INSUFFICIENT_SCOPE,
        {
            "writer without the policy's own scope": claims(scope="write"),
            "no scope": claims(scope=ABSENT),
            "scope in another case": claims(scope="READ"),
            "scope that begins alike": claims(scope="reader"),
            "scope with another prefix": claims(scope="https://evil.example/read"),
            "scope with the prefix twice": claims(scope=PREFIX + PREFIX + "read"),
            "scope that is the prefix": claims(scope=PREFIX),
            "scopes joined by a comma": claims(scope="read,write"),
        },
        path="/verify/api",
    ),
    *cases(R.OK, {"scope with the prefix": claims(scope=PREFIX + "read")}, path="/verify/api"),
    *cases(R.INSUFFICIENT_SCOPE, {"any_scope by a reader": Token()}, path="/verify/api", url=HOST + b"/admin/x"),
    *cases(R.OK, {"any_scope by root": claims(scope="read root")}, path="/verify/api", url=HOST + b"/admin/x"),
    *cases(R.NO_MATCHING_RULE, {"path no rule names": Token()}, path="/verify/api", url=HOST + b"/other"),
    *cases(R.NO_MATCHING_RULE, {"path in another case": Token()}, path="/verify/api", url=HOST + b"/DB/orders"),
    *cases(R.NO_MATCHING_RULE, {"path that begins alike": Token()}, path="/verify/api", url=HOST + b"/dbx"),
]


def paths(reason: R, *targets: bytes) -> list[Case]:
    """Raw request targets on the policy ``paths``."""
    rows = {f"path {target.decode('ascii', 'backslashreplace')}": HOST + target for target in targets}
    return asked(reason, rows, by="url", path="/verify/paths")


PATHS = [
    *paths(
        R.OK,
        b"/open",
        b"/open/",
        b"/open/a/b",
        b"/open/a?x=/../shut/%2f",
        b"/open/./a",
        b"/open/b/../a",
        b"/open//a",
        b"/open/a%20b",
        b"/%6fpen/a",
        b"/open/%C3%A9",
        b"/open/a;v=1",
        b"/open/...",
        b"/open/..a",
        b"/open/a%3Fb",
        b"/files/7/raw",
        b"/100%25",
        b"/",
        b"/?q",
    ),
    *paths(R.INSUFFICIENT_SCOPE, b"/shut", b"/shut/x", b"/%73hut/x", b"/shut/./x", b"/shut//x", b"/shut/x?/open/"),
    *paths(R.NO_MATCHING_RULE, b"/Open/a", b"/opened", b"/files/raw", b"/files/7/raw/", b"/files/7/8/raw", b"/nowhere"),
    *paths(
        R.AMBIGUOUS_PATH,
        # an encoded slash or backslash, a backslash
        b"/open%2fa",
        b"/open%2Fa",
        b"/open/..%2fshut/x",
        b"/open%5ca",
        b"/open/..%5Cshut",
        b"/open\\a",
        b"/open/..\\shut",
        # NUL and other controls
        b"/open/%00",
        b"/open/a%00.png",
        b"/open/a%0d%0aX-M2M-Role:%20admin",
        b"/open/a%09b",
        b"/open/\x01",
        b"/open/a\x7f",
        b"/open/a%7F",
        b"/open/%C2%85",
        # a second level of encoding
        b"/open/%252e%252e/shut",
        b"/open/%252fshut",
        b"/open/a%2541",
        b"/open/%25%32%65",
        # dots with parameters
        b"/open/..;/shut/x",
        b"/open/..;x=1/shut/x",
        b"/open/.;/a",
        b"/open/%2e%2e;/shut",
        b"/open/..%3b/shut",
        # above the root
        b"/..",
        b"/../open/a",
        b"/open/../../open/a",
        b"/%2e%2e/open/a",
        # no UTF-8, no percent-encoding
        b"/open/\xff",
        b"/open/%ff",
        b"/open/%c0%af",
        b"/open/%e0%80%af",
        b"/open/%ed%a0%80",
        b"/open/%",
        b"/open/%2",
        b"/open/%zz",
        b"/open/%u002e",
        # an empty segment together with a dot segment
        b"/open//../a",
        b"/open/.//a",
        b"//open/./a",
        # an authority, parameters together with dots, encoded dots together with raw ones
        b"//x/open/a",
        b"///x/shut/a",
        b"//u@h:80/open/a",
        b"/;x/open/a",
        b"/open;x/../a",
        b"/open/a;x/./b",
        b"/open/%2e/../open/a",
        b"/open/a//..",
        # a raw #
        b"/open/a#/shut",
        b"/open/a?x#y",
        # another rule with dots not resolved, slashes not merged
        b"/open/../shut/x",
        b"/shut/../open/x",
        b"/open/%2e%2e/shut/x",
        b"/shut/%2E%2E/open/x",
        b"/open/.%2e/shut/x",
        b"/files/../files/7/raw",
        b"/files//7/raw",
    ),
    *asked(R.OK, {"no host": b"https:///open/a"}, by="url", path="/verify/paths"),
    *asked(
        R.AMBIGUOUS_PATH,
        {
            "no host and an authority in the path": b"https:////x/open/a",
            "path of 257 segments": HOST + b"/open" + b"/a" * 256,
            "path of 8193 bytes": HOST + b"/open/".ljust(8193, b"a"),
        },
        by="url",
        path="/verify/paths",
    ),
    *asked(
        R.OK,
        {
            "path of 256 segments": HOST + b"/open" + b"/a" * 255,
            "path of 8192 bytes": HOST + b"/open/".ljust(8192, b"a"),
        },
        by="url",
        path="/verify/paths",
    ),
    *asked(
        R.AMBIGUOUS_PATH,
        {
            f"host {host.decode('ascii', 'backslashreplace')}": b"https://" + host + b"/open/a"
            for host in (
                b"h?",
                b"h#",
                b"u@h",
                b"u:p@h",
                b"a\\b",
                b"h?x=/",
                b"h:",
                b"h:80:80",
                b"h:8a",
                b"[::1",
                b"::1",
                b"h%2f",
                b"h%00",
                b"h h",
                b"h\t",
                b"h;x",
                b"h\xc3\xa9",
                b"h,i",
                b"[::1]x",
            )
        },
        by="url",
        path="/verify/paths",
    ),
    *asked(
        R.OK,
        {
            f"host {host.decode()}": b"https://" + host + b"/open/a"
            for host in (
                b"",
                b"h",
                b"H.example.COM",
                b"h:8443",
                b"10.0.0.1",
                b"[::1]",
                b"[2001:db8::1]:8443",
                b"a_b.svc",
            )
        },
        by="url",
        path="/verify/paths",
    ),
    *cases(R.OK, {"ambiguous path where no rule looks at it": Token()}, url=HOST + b"/open/../%2f\\"),
]

NARROWING = [
    *asked(
        R.OK,
        {
            "scope held": b"scope=read",
            "scope held, twice": b"scope=read&scope=read",
            "any of two scopes": b"scope=write,read",
            "client named": b"client=generic/agent-1",
            "client among others": b"client=okta/x,generic/agent-1",
            "issuer named": b"issuer=generic",
            "issuer among others": b"issuer=okta,generic",
            "everything at once": b"issuer=generic&scope=read&client=generic/agent-1",
        },
        by="query",
    ),
    *asked(
        R.INSUFFICIENT_SCOPE,
        {
            "scope not held": b"scope=write",
            "scope not held after one that is": b"scope=read&scope=write",
            "scope not held before one that is": b"scope=write&scope=read",
            "neither of two scopes": b"scope=write,admin",
            "second set not held": b"scope=read,write&scope=admin,root",
            "scope with a percent encoding": b"scope=wr%69te",
            "scope with an encoded comma": b"scope=write%2Cadmin",
            "scope with a plus": b"scope=read+write",
            "scope with a semicolon and a parameter": b"scope=read;colour=red",
            "scope with an equals sign": b"scope=scope=read",
            "scope in another case": b"scope=READ",
            "scope with the prefix, held without it": b"scope=" + PREFIX.encode() + b"read",
        },
        by="query",
    ),
    *asked(
        R.CLIENT_NOT_ALLOWED,
        {
            "another client": b"client=generic/agent-2",
            "the same id at another issuer": b"client=okta/agent-1",
            "two clients that exclude each other": b"client=generic/agent-1&client=generic/agent-2",
            "the same in the other order": b"client=generic/agent-2&client=generic/agent-1",
            "client in another case": b"client=generic/Agent-1",
        },
        by="query",
    ),
    *asked(
        R.ISSUER_NOT_ALLOWED,
        {
            "another issuer": b"issuer=okta",
            "two issuers that exclude each other": b"issuer=generic&issuer=okta",
            "the same in the other order, other issuers": b"issuer=okta&issuer=generic",
            "issuer nobody configured": b"issuer=nobody",
        },
        by="query",
    ),
    *asked(
        R.BAD_AUTH_REQUEST,
        {
            "unknown parameter": b"colour=red",
            "unknown parameter after a known one": b"scope=read&colour=red",
            "unknown parameter before a known one": b"colour=red&scope=read",
            "parameter in another case": b"Scope=read",
            "parameter with a percent encoding": b"%73cope=read",
            "parameter with brackets": b"scope[]=read",
            "parameter with a space": b"scope =read",
            "parameter without a name": b"=read",
            "scope without a value": b"scope",
            "scope with an empty value": b"scope=",
            "scope with an empty alternative": b"scope=read,",
            "scope with an empty alternative first": b"scope=,read",
            "scope with a space": b"scope=read%20write",
            "scope with a quote": b'scope=read"',
            "scope with a NUL": b"scope=read%00",
            "scope with a line break": b"scope=read%0d%0aX",
            "scope beyond ASCII": b"scope=%c3%a9",
            "scope of raw bytes": b"scope=\xff",
            "client without its issuer": b"client=agent-1",
            "client of an issuer nobody configured": b"client=nobody/agent-1",
            "client with an empty id": b"client=generic/",
            "client with an empty value": b"client=",
            "issuer with an empty value": b"issuer=",
            "issuer without a value": b"issuer",
            "policy as a parameter": b"policy=default",
            "mode as a parameter": b"mode=report",
            "two question marks": b"?scope=read",
        },
        by="query",
    ),
    *asked(
        R.OK, {"client id alone where there is one issuer": b"client=agent-1"}, "single", Token("homelab"), by="query"
    ),
    *asked(
        R.CLIENT_NOT_ALLOWED,
        {"another id alone where there is one issuer": b"client=agent-2"},
        "single",
        Token("homelab"),
        by="query",
    ),
]

LISTS = [
    *cases(R.OK, {"client and issuer on the policy's lists": Token()}, path="/verify/narrow"),
    *cases(
        R.CLIENT_NOT_ALLOWED,
        {
            "client not on the policy's list": claims(client_id="agent-2", sub="agent-2"),
            "client of that name at another issuer, not listed": Token("okta"),
        },
        path="/verify/narrow",
    ),
    *cases(R.ISSUER_NOT_ALLOWED, {"listed client of an issuer not listed": cognito()}, path="/verify/narrow"),
    *cases(
        R.CLIENT_NOT_ALLOWED,
        {"query that names a client beyond the policy's list": Token("okta")},
        path="/verify/narrow",
        query=b"client=okta/agent-1&issuer=okta",
    ),
    *cases(
        R.ISSUER_NOT_ALLOWED,
        {"query that names an issuer beyond the policy's list": cognito()},
        path="/verify/narrow",
        query=b"issuer=homelab",
    ),
    *cases(
        R.CLIENT_NOT_ALLOWED,
        {
            "repository not on the shared issuer's list": Token(
                "github", claims={"sub": "repo:evil/app:ref:refs/heads/main"}
            ),
            "listed repository, another branch": Token(
                "github", claims={"sub": "repo:informationcart/app:ref:refs/heads/main2"}
            ),
        },
    ),
]

ROLES = [
    *cases(R.NO_ROLE, {"no role where one is required": Token()}, world="strict"),
    *cases(R.OK, {"role by scope where one is required": claims(scope="query")}, world="strict"),
]

TABLE = [*POLICY, *FORGED, *RULES, *PATHS, *NARROWING, *LISTS, *ROLES]

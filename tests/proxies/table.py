"""Requests and forgeries, what the verifier decides, and what a proxy answers or rewrites by itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from verifier.identity import IDENTITY_HEADERS

MAPPED = {"X-User-ID": "sub", "X-Tenant-ID": "tenant"}
HEADERS = (*IDENTITY_HEADERS, *MAPPED)
RESOURCE = {"url": "https://api.example/", "authorization_servers": ["https://id.example"]}
CONFIGURATION: dict[str, Any] = {
    "policies": {
        "api": {
            "rules": [
                {"path": "/db/**", "methods": ["GET", "HEAD"]},
                {"path": "/db/**", "methods": ["POST"], "scope": ["write"]},
                {"path": "/open/**", "methods": ["GET"], "token": "none"},
            ],
            "resource": RESOURCE,
        }
    },
    "headers": MAPPED,
    "audit": "all",
}

FORGED = tuple(f"{spelt}: forged" for name in HEADERS for spelt in (name, name.lower(), name.upper(), name))
UNDERSCORED = tuple(f"{name.replace('-', '_')}: forged" for name in HEADERS)
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip

NGINX = ("nginx", "ingress-nginx", "nginx-ingress-controller", "nginx-gateway-fabric")
ENVOY = ("envoy", "envoy-gateway", "istio", "gateway-api", "cilium")


@dataclass(frozen=True)
class Row:
    """One request. ``reason`` is the verifier's; ``by`` says which proxies answer by themselves, and with what.

    A status there is the proxy's own. "rewrites" is a proxy that sends the API another path than it got, for which the
    decision is "ok". "arrives": the forged header does, or the switch to HTTP/2.
    """

    name: str
    reason: str = "ok"
    target: str = "/db/x"
    lines: tuple[str, ...] = ()
    method: str = "GET"
    scopes: tuple[str, ...] | None = ("read",)
    claims: dict[str, Any] = field(default_factory=dict)
    body: str = ""
    version: str = "1.1"
    host: str | None = "api.example"
    by: dict[str, int | str] = field(default_factory=dict)
    status: int = 0
    """The client's, where another than the reason's."""
    anonymous: bool = False
    """Whether the API gets no identity."""

    @property
    def number(self) -> str:
        """What the audit log names the request by."""
        return f"row-{[row.name for row in TABLE].index(self.name)}"


def own(proxies: Iterable[str], answer: int | str) -> dict[str, int | str]:
    """The same answer from several proxies."""
    return dict.fromkeys(proxies, answer)


WRITE = ("read", "write")
# They resolve dots before they ask; the API gets the same path as the verifier.
NORMALISE = ("traefik", "envoy-gateway", "istio")
RESOLVED = own(NORMALISE, 403)
REWRITES = own(NORMALISE, "rewrites")
TABLE = [
    Row("a token"),
    Row("no token", "missing_token", scopes=None),
    Row("no bearer token", "missing_token", scopes=None, lines=("Authorization: Basic YTpi",)),
    Row("an expired token", "expired", claims={"exp": 1}),
    Row("a broken token", "malformed_token", scopes=None, lines=("Authorization: Bearer x",)),
    Row("two Authorization headers", "malformed_token", lines=("Authorization: Bearer x",), by=own(NGINX, 400)),
    # Methods
    Row("HEAD", method="HEAD"),
    Row("HEAD without a token", "missing_token", method="HEAD", scopes=None),
    Row("POST with a body", method="POST", scopes=WRITE, body="a body"),
    Row("POST with chunks", method="POST", scopes=WRITE, lines=("Transfer-Encoding: chunked",),
        body="6\r\na body\r\n0\r\n\r\n"),
    Row("POST without the scope", "insufficient_scope", method="POST", body="a body"),
    Row("DELETE", "no_matching_rule", method="DELETE"),
    Row("OPTIONS", "no_matching_rule", method="OPTIONS"),
    Row("PROPFIND", "no_matching_rule", method="PROPFIND"),
    # Paths
    Row("a path without a rule", "no_matching_rule", "/other"),
    Row("where nginx asks the verifier", "no_matching_rule", "/_m2m", by={"nginx": 404}),
    Row("an encoded letter", target="/db/%78"),
    Row("UTF-8", target="/db/%C3%A9"),
    Row("a query that looks like ours", target="/db/x?scope=admin&client=other&issuer=none"),
    Row("a query with a path", target="/db/x?q=/../other//%2f"),
    Row("dots out of the rule", "ambiguous_path", "/db/../other", by=RESOLVED),
    Row("dots into the rule", "ambiguous_path", "/other/../db/x", by=REWRITES),
    Row("encoded dots out of the rule", "ambiguous_path", "/db/%2e%2e/other", by=RESOLVED),
    Row("encoded dots into the rule", "ambiguous_path", "/other/%2E%2e/db/x", by=REWRITES),
    Row("dots that stay", target="/db/y/../x"),
    Row("dots above the root", "ambiguous_path", "/../../db/x", by=own(NGINX, 400) | REWRITES),
    Row("dots with a parameter", "ambiguous_path", "/db/..;/other", by=own(("envoy-gateway", "istio"), 403)),
    Row("two slashes", target="/db//x"),
    Row("two slashes at the start", "ambiguous_path", "//db/x", by=own(("traefik", "envoy-gateway"), "rewrites")),
    Row("an encoded slash", "ambiguous_path", "/db/a%2fb", by={"envoy-gateway": 307}),
    Row("an encoded slash and dots", "ambiguous_path", "/db/..%2fother", by={"envoy-gateway": 307}),
    Row("encoded twice", "ambiguous_path", "/db/%252e%252e/other"),
    Row("a backslash", "ambiguous_path", "/db/..\\other", by=own(("envoy-gateway", "istio"), 403)),
    Row("a NUL", "ambiguous_path", "/db/x%00", by=own((*NGINX, "envoy-gateway", "istio"), 400)),
    Row("a fragment", "ambiguous_path", "/db/x#y", by=own((*ENVOY, "traefik", "haproxy"), 400) | {"caddy": "rewrites"}),
    Row("absolute form", target="http://api.example/db/x"),
    Row("absolute form of another path", "no_matching_rule", "http://api.example/other"),
    Row("asterisk form", "bad_auth_request", "*", method="OPTIONS",
        by=own(NGINX, 400) | own(ENVOY, 404) | {"traefik": 200, "caddy": 200, "haproxy": 403}),
    # Hosts
    Row("another host", host="other.example"),
    Row("no host", host=None, version="1.0", by=own(ENVOY, 426)),
    Row("a host with a question mark", "ambiguous_path", host="h?", by=own((*ENVOY, "traefik", "caddy"), 400)),
    Row("a host with a path", "ambiguous_path", "/other", host="h/open", scopes=None,
        by=own((*NGINX, *ENVOY, "traefik", "caddy", "haproxy"), 400)),
    Row("two hosts in one", "ambiguous_path", host="h,api.example"),
    # Forged headers
    Row("forged identity", lines=FORGED),
    Row("forged identity without a token", "missing_token", lines=FORGED, scopes=None),
    Row("forged identity where no token is needed", target="/open/x", lines=FORGED, scopes=None, anonymous=True),
    Row("forged identity with underscores", lines=UNDERSCORED,
        by={"envoy-gateway": 400} | own(("istio", "gateway-api", "cilium"), "arrives")),
    Row("identity named as a header of the connection", lines=(f"Connection: {', '.join(HEADERS)}", *FORGED)),
    *[Row(f"forged {name}", "no_matching_rule", method="DELETE", lines=(f"{name}: GET",))
      for name in ("X-Original-Method", "X-Forwarded-Method", "Method")],
    *[Row(f"forged {name}", "no_matching_rule", target, (f"{name}: {value}",), method, by={"envoy-gateway": 400})
      for name, method, target, value in [("X_Original_Method", "DELETE", "/db/x", "GET"),
                                          ("X_Forwarded_Uri", "GET", "/other", "/db/x")]],
    *[Row(f"forged {name}", "no_matching_rule", "/other", lines=(f"{name}: {value}",))
      for name, value in [("X-Original-URL", "http://api.example/db/x"), ("X-Original-URI", "/db/x"),
                          ("X-Forwarded-Uri", "/db/x"), ("X-Rewrite-URL", "/db/x"), ("Path", "/db/x"),
                          ("X-Envoy-Original-Path", "/db/x")]],
    *[Row(f"forged {name}", lines=(f"{name}: {value}",))
      for name, value in [("X-Forwarded-Host", "h?"), ("X-Forwarded-Proto", "ftp"), ("X-Forwarded-For", "1.2.3.4")]],
    Row("the method's header named as one of the connection", "no_matching_rule", method="DELETE",
        lines=("Connection: X-Original-Method, X-Forwarded-Method, X-Forwarded-Uri", "X-Original-Method: GET")),
    *[Row(f"{name} where no token is needed", "missing_token", "/open/x", (f"{name}: DELETE",), scopes=None)
      for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")],
    # More
    Row("no token is needed", target="/open/x", scopes=None, anonymous=True),
    Row("a WebSocket", target="/db/socket", lines=UPGRADE, status=101, by={"nginx": 200}),
    Row("a switch to HTTP/2", lines=("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
        by=own(("ingress-nginx", "nginx-ingress-controller", "nginx-gateway-fabric"), "arrives")),
    Row("a WebSocket without a token", "missing_token", target="/db/socket", lines=UPGRADE, scopes=None),
]  # fmt: skip

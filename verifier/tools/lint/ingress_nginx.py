"""Rules about one Ingress and its annotations, checked against ingress-nginx 1.15."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from verifier.identity import IDENTITY_HEADERS
from verifier.policy.policies import PARAMETERS
from verifier.proxies import nginx
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Finding, Ingress, covers

SERVICE = "http://m2m-verifier.NAMESPACE.svc.cluster.local:8000"

# What ingress-nginx's annotation validation accepts; for fullmatch, because a final newline fails there too.
AUTH_URL = re.compile(r"[A-Za-z0-9\-._~/: ,?&=$]*")
VARIABLE = re.compile(r"\$\{?([A-Za-z0-9_]+)\}?")
CLIENT_CHOSEN = re.compile(
    r"(escaped_)?request_uri|(document_)?uri|request|args|is_args|query_string|host|(arg|http|cookie|sent_http)_.*"
)
CACHE_KEY_NEEDS = ("http_authorization", "request_method", "request_uri")


def findings(ingress: Ingress, known: Known) -> Iterator[Finding]:
    """Every trap that one Ingress holds by itself."""
    if ingress.guarded:
        yield from _auth_url(ingress, known)
        yield from _response_headers(ingress, known)
        yield from _annotations(ingress)
        yield from _tls(ingress)
    else:
        yield from _missing_auth_url(ingress)


def _auth_url(ingress: Ingress, known: Known) -> Iterator[Finding]:
    written, url = ingress.annotation("auth-url"), ingress.auth_url
    base = f"{url.scheme}://{url.netloc}"
    policy = ingress.policy
    chosen = [name for name in VARIABLE.findall(written) if CLIENT_CHOSEN.fullmatch(name)]
    refused = "".join(dict.fromkeys(char for char in written if not AUTH_URL.fullmatch(char)))
    if refused:
        yield ingress.trap(
            "auth-url-characters",
            "auth-url",
            f"ingress-nginx accepts only A-Za-z0-9-._~/: ,?&=$ in auth-url, and no percent-encoding: with {refused!r} "
            "it rejects or ignores the whole Ingress",
            "".join(char for char in written if AUTH_URL.fullmatch(char)),
        )
    if chosen:
        yield ingress.trap(
            "auth-url-variable",
            "auth-url",
            f"the client chooses the value of ${chosen[0]}: it can add parameters or name another policy; the "
            "verifier reads the request's URL from X-Original-URL",
            base + VARIABLE.sub("", url.path).rstrip("/"),
        )
    if policy is None or "/" in policy:
        yield ingress.trap(
            "auth-url-path",
            "auth-url",
            f"{url.path or '/'} is not the verifier's path for nginx: /health answers 200 to every request, and "
            "/forward-auth trusts X-Forwarded headers, which ingress-nginx passes on as the client sent them",
            f"{base}{nginx.PREFIX}/default",
        )
        return
    if known.policies is not None and not chosen and policy not in known.policies:
        # Only a similar name is proposed: any other policy may allow whom this one would refuse.
        near = difflib.get_close_matches(policy, known.policies, n=1) or ["POLICY"]
        yield ingress.trap(
            "unknown-policy",
            "auth-url",
            f"the configuration has no policy {policy!r}, so every request is answered 403 unknown_policy; "
            f"its policies are {', '.join(sorted(known.policies)) or 'none'}",
            f"{base}{nginx.PREFIX}/{near[0]}",
        )
    if not refused and not chosen:
        yield from _parameters(ingress)


def _parameters(ingress: Ingress) -> Iterator[Finding]:
    url, _, query = ingress.annotation("auth-url").partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    valid = [pair for pair in pairs if pair.partition("=")[0] in PARAMETERS]
    unknown = [pair for pair in pairs if pair not in valid]
    if unknown:
        yield ingress.trap(
            "auth-url-query",
            "auth-url",
            f"with {unknown[0]!r} every request is answered 403 bad_auth_request: the parameters are "
            f"{', '.join(PARAMETERS)}",
            "?".join(filter(None, (url, "&".join(valid)))),
        )


def _missing_auth_url(ingress: Ingress) -> Iterator[Finding]:
    identity = {name.lower() for name in IDENTITY_HEADERS}
    if not ingress.annotation("auth-url") and any(name.lower() in identity for name in ingress.response_headers):
        yield ingress.trap(
            "no-guard",
            "auth-url",
            "auth-response-headers lists the verifier's headers, but there is no auth-url: no token is needed, and "
            "X-M2M headers reach the API as the client sent them",
            f"{SERVICE}{nginx.PREFIX}/POLICY",
        )


def _response_headers(ingress: Ingress, known: Known) -> Iterator[Finding]:
    listed = ingress.response_headers
    lower = {name.lower() for name in listed}
    missing = [name for name in (*IDENTITY_HEADERS, *known.headers) if name.lower() not in lower]
    if missing:
        yield ingress.trap(
            "forgeable-header",
            "auth-response-headers",
            f"{', '.join(missing)} not listed: the API receives what the client sent, not what the verifier answered",
            ", ".join([*listed, *missing]),
        )


def _annotations(ingress: Ingress) -> Iterator[Finding]:
    keepalive = ingress.annotation("auth-keepalive")
    if keepalive and not re.fullmatch(r"0|-\d+", keepalive):
        yield ingress.trap(
            "auth-keepalive",
            "auth-keepalive",
            "replaces the subrequest by Lua code that in ingress-nginx 1.13 to 1.15 shifts or breaks the "
            "auth-response-headers: the API may receive one header's value under another's name",
            None,
        )
    cache_key = ingress.annotation("auth-cache-key")
    absent = [f"${name}" for name in CACHE_KEY_NEEDS if name not in VARIABLE.findall(cache_key)]
    if cache_key and absent:
        yield ingress.trap(
            "auth-cache-key",
            "auth-cache-key",
            f"without {', '.join(absent)} the decision about one request is used for others, with another token, "
            "method or path",
            "".join(f"${name}" for name in CACHE_KEY_NEEDS),
        )
    if ingress.annotation("auth-snippet"):
        yield ingress.trap(
            "auth-snippet",
            "auth-snippet",
            "a critical-risk annotation that ingress-nginx refuses, with the whole Ingress, unless its administrator "
            "allows snippets; the verifier needs no snippet",
            None,
        )
    if not any(_positive(ingress.annotation(key)) for key in ("limit-rps", "limit-rpm")):
        yield ingress.trap(
            "no-rate-limit",
            "limit-rps",
            "neither limit-rps nor limit-rpm: nginx applies the limit before the subrequest, so it is what keeps a "
            "flood of bad tokens away from the verifier",
            "20",
        )
    if ingress.annotation("enable-global-auth") == "false":
        yield ingress.trap(
            "global-auth-off",
            "enable-global-auth",
            "switches the controller-wide guard off and has no other effect beside auth-url: when auth-url is removed "
            "or mistyped, the API is unprotected",
            None,
        )


def _tls(ingress: Ingress) -> Iterator[Finding]:
    # force-ssl-redirect says that TLS ends in front of nginx, on a load balancer.
    if ingress.annotation("force-ssl-redirect") == "true":
        return
    if ingress.annotation("ssl-redirect") == "false":
        why = "requests over plain http are served as well: a token sent there can be read and used by others"
        yield ingress.trap("no-tls", "ssl-redirect", why, None)
    for host in ingress.hosts:
        if not any(not hosts or any(covers(name, host) for name in hosts) for hosts in ingress.tls):
            yield ingress.finding(
                "no-tls",
                "spec.tls",
                f"no certificate for {host or 'this Ingress'}: bearer tokens cross the network unencrypted, and "
                "whoever reads one can use it until it expires",
                f"spec.tls: [{{hosts: [{host or '…'}], secretName: {ingress.name.rpartition('/')[2]}-tls}}]",
            )


def _positive(value: str) -> bool:
    return value.isdecimal() and int(value) > 0

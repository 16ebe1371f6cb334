"""Rules about one Ingress and its annotations, checked against ingress-nginx 1.15."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from verifier.identity import IDENTITY_HEADERS
from verifier.policy.policies import PARAMETERS
from verifier.proxies import nginx
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import UNGUARDED, Finding, Ingress, covers

SERVICE = "http://m2m-verifier.NAMESPACE.svc.cluster.local:8000"

# What ingress-nginx's annotation validation accepts; for fullmatch, because a final newline fails there too.
AUTH_URL = re.compile(r"[A-Za-z0-9\-._~/: ,?&=$]*")
VARIABLE = re.compile(r"\$\{?([A-Za-z0-9_]+)\}?")
CLIENT_CHOSEN = re.compile(
    r"(escaped_)?request_uri|(document_)?uri|request|args|is_args|query_string|host|(arg|http|cookie|sent_http)_.*"
)
_IDENTITY = {name.lower() for name in IDENTITY_HEADERS}
CACHE_KEY_NEEDS = ("http_authorization", "request_method", "request_uri")


def findings(ingresses: Sequence[Ingress], known: Known) -> Iterator[Finding]:
    """Every trap that an Ingress holds by itself."""
    passing = {host for ingress in ingresses if not _missing_for_certificate(ingress) for host in ingress.hosts}
    for ingress in ingresses:
        if ingress.guarded:
            yield from _auth_url(ingress, known)
            yield from _response_headers(ingress, known)
            yield from _annotations(ingress)
            yield from _tls(ingress)
            yield from _certificate(ingress, known, passing)
        elif not ingress.annotation("auth-url") and not _IDENTITY.isdisjoint(map(str.lower, ingress.response_headers)):
            why = f"auth-response-headers lists the verifier's, but there is no auth-url: {UNGUARDED}"
            yield ingress.trap("no-guard", "auth-url", why, f"{SERVICE}{nginx.PREFIX}/POLICY")


def _auth_url(ingress: Ingress, known: Known) -> Iterator[Finding]:
    written, url, policy = ingress.annotation("auth-url"), ingress.auth_url, ingress.policy
    base = f"{url.scheme}://{url.netloc}"
    accepted = "".join(char for char in written if AUTH_URL.fullmatch(char))
    chosen = [name for name in VARIABLE.findall(written) if CLIENT_CHOSEN.fullmatch(name)]
    if accepted != written:
        refused = "".join(sorted(set(written) - set(accepted)))
        why = f"with {refused!r} ingress-nginx refuses the whole Ingress: it accepts A-Za-z0-9-._~/: ,?&=$ alone"
        yield ingress.trap("auth-url-characters", "auth-url", why, accepted)
    if chosen:
        why = f"the client chooses the value of ${chosen[0]}: it can add parameters or name another policy"
        write = base + VARIABLE.sub("", url.path).rstrip("/")
        yield ingress.trap("auth-url-variable", "auth-url", why, write)
    if policy is None or "/" in policy:
        why = (
            f"{url.path or '/'} is not the verifier's path for nginx: /health answers 200 to every request, and "
            "/forward-auth trusts X-Forwarded headers, which ingress-nginx passes on as the client sent them"
        )
        yield ingress.trap("auth-url-path", "auth-url", why, f"{base}{nginx.PREFIX}/default")
        return
    if known.policies is not None and not chosen and policy not in known.policies:
        # Only a similar name is proposed: any other policy may allow whom this one would refuse.
        near = difflib.get_close_matches(policy, known.policies, n=1) or ["POLICY"]
        names = ", ".join(sorted(known.policies)) or "none"
        why = f"every request is answered 403 unknown_policy: there is no policy {policy!r} among {names}"
        yield ingress.trap("unknown-policy", "auth-url", why, f"{base}{nginx.PREFIX}/{near[0]}")
    if accepted == written and not chosen:
        yield from _parameters(ingress)


def _parameters(ingress: Ingress) -> Iterator[Finding]:
    url, _, query = ingress.annotation("auth-url").partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    unknown = [pair for pair in pairs if pair.partition("=")[0] not in PARAMETERS]
    if unknown:
        why = f"every request is answered 403 bad_auth_request: {unknown[0]!r} is none of {', '.join(PARAMETERS)}"
        valid = "&".join(pair for pair in pairs if pair not in unknown)
        yield ingress.trap("auth-url-query", "auth-url", why, f"{url}?{valid}".removesuffix("?"))


def _response_headers(ingress: Ingress, known: Known) -> Iterator[Finding]:
    listed = ingress.response_headers
    lower = {name.lower() for name in listed}
    missing = [name for name in (*IDENTITY_HEADERS, *known.headers) if name.lower() not in lower]
    if missing:
        why = f"{', '.join(missing)} not listed: the API receives what the client sent, not what the verifier answered"
        yield ingress.trap("forgeable-header", "auth-response-headers", why, ", ".join([*listed, *missing]))


def _annotations(ingress: Ingress) -> Iterator[Finding]:
    keepalive = ingress.annotation("auth-keepalive")
    if keepalive and not re.fullmatch(r"0|-\d+", keepalive):
        why = "ingress-nginx 1.13 to 1.15 then shifts or breaks the auth-response-headers: one under another's name"
        yield ingress.trap("auth-keepalive", "auth-keepalive", why)
    cache_key = ingress.annotation("auth-cache-key")
    absent = [f"${name}" for name in CACHE_KEY_NEEDS if name not in VARIABLE.findall(cache_key)]
    if cache_key and absent:
        why = f"without {', '.join(absent)} one decision is used for requests with another token, method or path"
        yield ingress.trap("auth-cache-key", "auth-cache-key", why, "".join(f"${name}" for name in CACHE_KEY_NEEDS))
    if ingress.annotation("auth-snippet"):
        why = "a critical risk: ingress-nginx refuses the Ingress unless its administrator allows snippets"
        yield ingress.trap("auth-snippet", "auth-snippet", why)
    if not any(re.fullmatch(r"0*[1-9][0-9]*", ingress.annotation(key)) for key in ("limit-rps", "limit-rpm")):
        why = "neither limit-rps nor limit-rpm: nothing keeps a flood of bad tokens away from the verifier"
        yield ingress.trap("no-rate-limit", "limit-rps", why, "20")
    if ingress.annotation("enable-global-auth") == "false":
        why = "switches the controller's own guard off: if auth-url is ever removed or misspelt, the API is unprotected"
        yield ingress.trap("global-auth-off", "enable-global-auth", why)


def _tls(ingress: Ingress) -> Iterator[Finding]:
    # force-ssl-redirect says that TLS ends in front of nginx, on a load balancer.
    if ingress.annotation("force-ssl-redirect") == "true":
        return
    if ingress.annotation("ssl-redirect") == "false":
        why = "requests over plain http are served as well: a token sent there can be read and used by others"
        yield ingress.trap("no-tls", "ssl-redirect", why)
    for host in ingress.hosts:
        if not any(not hosts or any(covers(name, host) for name in hosts) for hosts in ingress.tls):
            why = f"no certificate for {host or 'this Ingress'}: whoever reads a token on the network can use it"
            write = f"spec.tls: [{{hosts: [{host or '…'}], secretName: {ingress.name.rpartition('/')[2]}-tls}}]"
            yield ingress.finding("no-tls", "spec.tls", why, write)


def _certificate(ingress: Ingress, known: Known, passing: set[str]) -> Iterator[Finding]:
    """A header for the client's certificate that nginx does not set itself. It counts for all paths of a host."""
    others = [name for name in known.certificates if name != nginx.CERTIFICATE]
    if others:
        why = f"ingress-nginx does not set {others[0]}: whoever has a client's certificate can send it, and no key"
        write = f"client_certificate_header: {nginx.CERTIFICATE}"
        yield ingress.finding("forgeable-certificate", "client_certificate_header", why, write)
    elif known.certificates and not passing.issuperset(ingress.hosts):
        for key, value in _missing_for_certificate(ingress).items():
            why = f"nginx passes {nginx.CERTIFICATE} on as the client sent it: a token that is bound to a certificate "
            why += "can be used by whoever has the certificate, without its key"
            yield ingress.trap("forgeable-certificate", key, why, value)


def _missing_for_certificate(ingress: Ingress) -> dict[str, str]:
    """Annotations, with values, without which ingress-nginx does not set the header of the client's certificate."""
    missing = {} if ingress.annotation("auth-tls-secret") else {"auth-tls-secret": "NAMESPACE/client-ca"}
    if ingress.annotation("auth-tls-pass-certificate-to-upstream") != "true":
        missing["auth-tls-pass-certificate-to-upstream"] = "true"
    return missing

"""Rules about an Ingress and its annotations, checked against ingress-nginx 1.15, and Traefik's provider for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from verifier.proxies import fields, forward_auth, nginx
from verifier.tools.lint import snippets
from verifier.tools.lint.guards import UNGUARDED, Found, Guard, Route, split
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Finding, Manifests, Object, Place

PREFIX = "nginx.ingress.kubernetes.io/"
MIDDLEWARES: Place = ("metadata", "annotations", "traefik.ingress.kubernetes.io/router.middlewares")
SERVICE = "http://m2m-verifier.NAMESPACE.svc.cluster.local:8000"

# What ingress-nginx's annotation validation accepts; for fullmatch, because a final newline fails there too.
AUTH_URL = re.compile(r"[A-Za-z0-9\-._~/: ,?&=$]*")
VARIABLE = re.compile(r"\$\{?([A-Za-z0-9_]+)\}?")
CLIENT_CHOSEN = re.compile(
    r"(escaped_)?request_uri|(document_)?uri|request|args|is_args|query_string|host|(arg|http|cookie|sent_http)_.*"
)
CACHE_KEY_NEEDS = ("http_authorization", "request_method", "request_uri")


@dataclass(frozen=True, slots=True)
class Ingress:
    """What the rules read of one Ingress."""

    object: Object
    is_traefik: bool

    def annotation(self, key: str) -> str:
        """The value of an ingress-nginx annotation, empty where it is absent."""
        return self.object.text(*place(key))

    @property
    def guard(self) -> Guard:
        """How it asks the verifier, if it does."""
        # Traefik answers the client itself; nginx sets the header of the certificate, which has rules of its own.
        prefix = forward_auth.PREFIX if self.is_traefik else nginx.PREFIX
        certified = () if self.is_traefik else (nginx.CERTIFICATE,)
        return Guard(self.object, place("auth-url"), (prefix,), f'{PREFIX}auth-url: "{self.annotation("auth-url")}"',
                     passed=place("auth-response-headers"), drops_challenge=not self.is_traefik,
                     certified=certified)  # fmt: skip

    @property
    def is_guarded(self) -> bool:
        """Whether it asks: ``auth-url`` has the verifier's path, or names its Service."""
        return bool(self.annotation("auth-url")) and self.guard.asks

    @property
    def hosts(self) -> list[str]:
        """Each host once, in file order."""
        return list(dict.fromkeys(host for host, _, _ in self.paths()))

    def paths(self) -> Iterator[tuple[str, str, str]]:
        """Host, path and backend of each rule."""
        rules = list(self.object.each("spec", "rules")) or ([()] if self.object.at("spec", "defaultBackend") else [])
        for rule in rules:
            host = self.object.text(*rule, "host") if rule else ""
            for path in list(self.object.each(*rule, "http", "paths")) if rule else []:
                yield host, self.object.text(*path, "path") or "/", self._backend(*path, "backend")
            if not rule or not self.object.at(*rule, "http", "paths"):
                yield host, "/", self._backend("spec", "defaultBackend")

    def _backend(self, *backend: str | int) -> str:
        name, port = self.object.text(*backend, "service", "name"), (*backend, "service", "port")
        number = self.object.text(*port, "number") or self.object.text(*port, "name")
        return f"{self.object.namespace}/{name}:{number}".removeprefix("/") if name else ""

    def trap(self, rule: str, key: str, why: str, value: str | None = None) -> Finding:
        """A finding about an ingress-nginx annotation. ``value`` None: the line has to be deleted."""
        return self.object.trap(rule, place(key), why, value)


def place(key: str) -> Place:
    """Where an ingress-nginx annotation stands."""
    return ("metadata", "annotations", PREFIX + key)


def covers(pattern: str, host: str) -> bool:
    """Whether ``pattern``, a host name or a wildcard for one label, includes ``host``."""
    return pattern == host or (pattern.startswith("*.") and host.partition(".")[2] == pattern[2:])


def read(manifests: Manifests, known: Known) -> Iterator[Found]:
    """The guards, routes and traps of all Ingresses."""
    ingresses = []
    has_traefik = next(manifests.sections("entryPoints"), None) is not None
    classes = {one.name for one in manifests.of("", "IngressClass") if "traefik" in one.text("spec", "controller")}
    for one in manifests.of("", "Ingress"):
        annotations = one.at("metadata", "annotations")
        if not isinstance(annotations, dict | None):
            yield one.finding("unreadable", ("metadata", "annotations"), "not a mapping", 'annotations: {"…": "…"}')
            continue
        ingress = Ingress(one, _is_traefiks(one, classes, has_traefik))
        # A canary shares the guard of the Ingress beside it. One with Middlewares is read in traefik.
        if ingress.annotation("canary") != "true" and not one.text(*MIDDLEWARES):
            ingresses.append(ingress)
    passing = {host for ingress in ingresses if not _missing_for_certificate(ingress) for host in ingress.hosts}
    guarded_hosts = {host for ingress in ingresses if ingress.is_guarded for host in ingress.hosts}
    for ingress in ingresses:
        guard = ingress.guard if ingress.is_guarded else None
        is_checked = bool(ingress.annotation("auth-url"))
        for host, path, backend in ingress.paths():
            yield Route(ingress.object, place("auth-url"), host, path, backend, guard, is_checked)
        if guard is not None:
            yield guard
            yield from _auth_url(ingress)
            yield from _traefik(ingress) if ingress.is_traefik else _nginx(ingress, known, passing)
            yield from _tls(ingress)
        elif not is_checked and ingress.guard.asks:
            why = f"auth-response-headers lists the verifier's, but there is no auth-url: {UNGUARDED}"
            write = f"{SERVICE}{ingress.guard.prefixes[0]}/POLICY"
            yield ingress.trap("no-guard", "auth-url", why, write)
        is_shared = not guarded_hosts.isdisjoint(ingress.hosts)
        yield from snippets.of_ingress(ingress.object, guard is not None, is_shared, known)


def _is_traefiks(ingress: Object, classes: set[str], has_traefik: bool) -> bool:
    """Whether Traefik reads this Ingress: its class says so, or Traefik's configuration and the dialect do."""
    name, url = ingress.text("spec", "ingressClassName"), split(ingress.text(*place("auth-url")))
    asks_traefik = has_traefik and fields.policy_below(forward_auth.PREFIX, url.path) is not None
    return "traefik" in name or name in classes or asks_traefik


def _auth_url(ingress: Ingress) -> Iterator[Finding]:
    written = ingress.annotation("auth-url")
    url = split(written)
    accepted = "".join(char for char in written if AUTH_URL.fullmatch(char))
    chosen = [name for name in VARIABLE.findall(written) if CLIENT_CHOSEN.fullmatch(name)]
    if accepted != written:
        refused = "".join(sorted(set(written) - set(accepted)))
        why = f"with {refused!r} ingress-nginx refuses the whole Ingress: it accepts A-Za-z0-9-._~/: ,?&=$ alone"
        yield ingress.trap("auth-url-characters", "auth-url", why, accepted)
    if chosen:
        why = f"the client chooses the value of ${chosen[0]}: it can add parameters or name another policy"
        write = f"{url.scheme}://{url.netloc}{VARIABLE.sub('', url.path).rstrip('/')}"
        yield ingress.trap("auth-url-variable", "auth-url", why, write)


def _traefik(ingress: Ingress) -> Iterator[Finding]:
    if ingress.annotation("rewrite-target"):
        why = "Traefik rewrites before it asks: the verifier checks another path than the client sent"
        yield ingress.trap("rewrite-before-auth", "rewrite-target", why)


def _nginx(ingress: Ingress, known: Known, passing: set[str]) -> Iterator[Finding]:
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
    if nginx.CERTIFICATE in known.certificates and not passing.issuperset(ingress.hosts):
        for key, value in _missing_for_certificate(ingress).items():
            why = f"nginx passes {nginx.CERTIFICATE} on as the client sent it: a token that is bound to a certificate "
            why += "can be used by whoever has the certificate, without its key"
            yield ingress.trap("forgeable-certificate", key, why, value)


def _tls(ingress: Ingress) -> Iterator[Finding]:
    # force-ssl-redirect says that TLS ends in front of nginx, on a load balancer.
    if ingress.annotation("force-ssl-redirect") == "true":
        return
    if ingress.annotation("ssl-redirect") == "false":
        why = "requests over plain http are served as well: a token sent there can be read and used by others"
        yield ingress.trap("no-tls", "ssl-redirect", why)
    certificates = [ingress.object.texts(*entry, "hosts") for entry in ingress.object.each("spec", "tls")]
    for host in ingress.hosts:
        if not any(not hosts or any(covers(name, host) for name in hosts) for hosts in certificates):
            why = f"no certificate for {host or 'this Ingress'}: whoever reads a token on the network can use it"
            write = f"spec.tls: [{{hosts: [{host or '…'}], secretName: {ingress.object.name}-tls}}]"
            yield ingress.object.finding("no-tls", ("spec", "tls"), why, write)


def _missing_for_certificate(ingress: Ingress) -> dict[str, str]:
    """Annotations, with values, without which ingress-nginx does not set the header of the client's certificate.

    It counts for all paths of a host.
    """
    missing = {} if ingress.annotation("auth-tls-secret") else {"auth-tls-secret": "NAMESPACE/client-ca"}
    if ingress.annotation("auth-tls-pass-certificate-to-upstream") != "true":
        missing["auth-tls-pass-certificate-to-upstream"] = "true"
    return missing

"""Rules about Traefik's Middleware and IngressRoute, and about its static configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from verifier.proxies import forward_auth
from verifier.tools.lint.gateway_api import middlewares_of, ways_of
from verifier.tools.lint.guards import UNGUARDED, Found, Guard, Route, missing_headers
from verifier.tools.lint.ingress_nginx import MIDDLEWARES, Ingress
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Finding, Manifests, Object, Place
from verifier.tools.lint.targets import GROUP, named

_GROUPS = ("traefik.io", "traefik.containo.us")
_REWRITES = ("addPrefix", "replacePath", "replacePathRegex", "stripPrefix", "stripPrefixRegex")
_CHECKS = ("forwardAuth", "basicAuth", "digestAuth")
_ALIASES = ("aliasHeadersStrategy", "underscoreHeadersStrategy")
_SAFE = ("delete", "reject")


def read(manifests: Manifests, known: Known) -> Iterator[Found]:
    """The guards, routes and traps of Traefik's objects."""
    middlewares: dict[str, Object] = {}
    for one in manifests.of(_GROUPS, "Middleware"):
        middlewares |= {one.label: one, f"{one.namespace or 'default'}-{one.name}@kubernetescrd": one}
    guards = {one.label: found for one in middlewares.values() if (found := _guard(one)).asks}
    statics = list(manifests.sections("entryPoints"))
    used: set[str] = set()
    serving: set[str] = set()
    for one, listed, names, ways in _routers(manifests):
        entries = one.texts("spec", "entryPoints")
        outer = [name for static in statics for name in _outer(static, entries)]
        chain = _chain([*outer, *names], middlewares)
        used |= {middleware.label for middleware in chain}
        guard = next((guards[middleware.label] for middleware in chain if middleware.label in guards), None)
        is_checked = any(middleware.at("spec", kind) is not None for middleware in chain for kind in _CHECKS)
        for host, path, backend in ways:
            yield Route(one, listed, host, path, backend, guard, is_checked)
        if guard is not None:
            serving.update(entries)
            yield from _order(one, listed, chain, guard, known)
    for static in statics:
        yield from _static(static, serving)
    for label, guard in guards.items():
        yield guard
        trust: Place = ("spec", "forwardAuth", "trustForwardHeader")
        if guard.object.text(*trust) == "true":
            why = "the client then chooses method and URL that the verifier checks, in X-Forwarded headers"
            yield guard.object.trap("trusted-forward-header", trust, why, "false")
        if label not in used:
            why = f"no route in these files names this Middleware: {UNGUARDED}"
            yield guard.object.finding("unused-guard", ("metadata", "name"), why, guard.use)


def _routers(manifests: Manifests) -> Iterator[tuple[Object, Place, list[str], list[tuple[str, str, str]]]]:
    """What lists Middlewares: object, place, names; and host, path and backend of each way to an API."""
    for one in manifests.of("", "Ingress"):
        if one.text(*MIDDLEWARES):
            yield one, MIDDLEWARES, one.texts(*MIDDLEWARES), list(Ingress(one, True).paths())
    for one in manifests.of(_GROUPS, "IngressRoute", "IngressRouteTCP"):
        for place in one.each("spec", "routes"):
            names = [_name(one, item) for item in one.each(*place, "middlewares")]
            backends = [named(one, item, with_port=True) for item in one.each(*place, "services")]
            ways = [(host, path, backend) for host, path in _matches(one.text(*place, "match")) for backend in backends]
            yield one, (*place, "middlewares"), names, ways
    for one in manifests.of(GROUP, "HTTPRoute"):
        for rule in one.each("spec", "rules"):
            if references := middlewares_of(one, rule):
                yield one, (*rule, "filters"), [_name(one, item) for item in references], list(ways_of(one, rule))


def _outer(static: Object, entries: list[str]) -> Iterator[str]:
    """The Middlewares of the entry points that a router names; of all, where it names none."""
    for entry in static.mapping("entryPoints"):
        if entry in entries or not entries:
            yield from static.texts("entryPoints", entry, "http", "middlewares")


def _guard(middleware: Object) -> Guard:
    auth: Place = ("spec", "forwardAuth")
    asked = (*auth, "authRequestHeaders") if middleware.texts(*auth, "authRequestHeaders") else ()
    use = f"middlewares: [{{name: {middleware.name}}}]"
    return Guard(middleware, (*auth, "address"), (forward_auth.PREFIX,), use,
                 passed=(*auth, "authResponseHeaders"), asked=asked)  # fmt: skip


def _name(one: Object, item: Place) -> str:
    """The key of a Middleware that a route or a chain names."""
    name, namespace = one.text(*item, "name"), one.text(*item, "namespace") or one.namespace
    return name if "@" in name else f"{namespace}/{name}".removeprefix("/")


def _chain(names: list[str], middlewares: Mapping[str, Object]) -> list[Object]:
    """The Middlewares of a route in the order in which they run first, chains resolved."""
    found: dict[str, Object] = {}
    pending = names[::-1]
    while pending:
        one = middlewares.get(pending.pop())
        if one is not None and one.label not in found:
            found[one.label] = one
            pending += [_name(one, item) for item in one.each("spec", "chain", "middlewares")][::-1]
    return list(found.values())


def _order(one: Object, place: Place, chain: list[Object], guard: Guard, known: Known) -> Iterator[Finding]:
    """What runs before the guard and changes what it checks, or after it and changes what it answered."""
    position = next(number for number, middleware in enumerate(chain) if middleware.label == guard.object.label)
    for middleware in chain[:position]:
        if any(middleware.at("spec", kind) is not None for kind in _REWRITES):
            why = f"{middleware.label} changes the path before the verifier sees it: rules check another path"
            names = list(dict.fromkeys([guard.object.name, *(other.name for other in chain)]))
            yield one.trap("rewrite-before-auth", place, why, [f"{{name: {name}}}" for name in names])
    for middleware in chain[position:]:
        own = set(map(str.lower, missing_headers((), known)))
        for name in middleware.mapping("spec", "headers", "customRequestHeaders"):
            if str(name).lower() in own:
                why = f"sets {name} behind the guard: the API receives another value than the verifier's"
                yield middleware.trap("forgeable-header", ("spec", "headers", "customRequestHeaders", name), why)


def _matches(rule: str) -> Iterator[tuple[str, str]]:
    """Hosts and paths of a rule. Where an alternative names no path, it matches all."""
    hosts = re.findall(r"(?<![!\w])Host(?:SNI)?\(\s*[`\"']([^`\"']*)", rule) or [""]
    for alternative in rule.split("||"):
        path = re.search(r"(?<![!\w])Path(?:Prefix)?\(\s*[`\"']([^`\"']*)", alternative)
        for host in hosts:
            yield host, path[1] if path else "/"


def _static(static: Object, serving: set[str]) -> Iterator[Finding]:
    """Traps of the entry points that serve a guarded route; of all, where it is not known which."""
    for entry in static.mapping("entryPoints"):
        if serving and entry not in serving:
            continue
        http: Place = ("entryPoints", entry, "http")
        if static.text("entryPoints", entry, "forwardedHeaders", "insecure") == "true":
            why = "clients choose their X-Forwarded headers, and so the address in the audit log"
            place = ("entryPoints", entry, "forwardedHeaders", "insecure")
            yield static.trap("trusted-forward-header", place, why, "false")
        is_redirect = static.at(*http, "redirections", "entryPoint") is not None
        if not is_redirect and not any(static.text(*http, key) in _SAFE for key in _ALIASES):
            why = "X_M2M_Role reaches the API, and is the same as X-M2M-Role to a WSGI or CGI application"
            yield static.trap("header-alias", (*http, _ALIASES[0]), why, _SAFE[0])

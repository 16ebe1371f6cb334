"""Rules about the routes of the Gateway API, their filter ExternalAuth, and ReferenceGrants."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from verifier.proxies import gateway_fabric
from verifier.tools.lint import envoy_gateway, istio
from verifier.tools.lint.guards import EXT_AUTHZ, UNGUARDED, Found, Guard, Route
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Finding, Manifests, Object, Place
from verifier.tools.lint.targets import GROUP, Targets, named, no_grant


def read(manifests: Manifests, known: Known) -> Iterator[Found]:
    """The guards, routes and traps of HTTPRoutes and what is like them."""
    attached = istio.targets(manifests) | envoy_gateway.targets(manifests)
    for one in manifests.of(GROUP, "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"):
        for rule in one.each("spec", "rules"):
            if middlewares_of(one, rule):  # Traefik's: read in traefik
                continue
            found = list(_filters(one, rule, manifests))
            yield from found
            guard = next((each for each in found if isinstance(each, Guard)), None)
            is_checked = any(one.text(*item, "type") == "ExternalAuth" for item in one.each(*rule, "filters"))
            if not is_checked:
                guard, is_checked = _attached(one, rule, attached)
            for host, path, backend in ways_of(one, rule):
                yield Route(one, (*rule, "filters"), host, path, backend, guard, is_checked)


def ways_of(one: Object, rule: Place) -> Iterator[tuple[str, str, str]]:
    """Host, path and backend of a rule. One without a backend redirects or answers by itself."""
    paths = [one.text(*match, "path", "value") or "/" for match in one.each(*rule, "matches")] or ["/"]
    backends = [named(one, item, with_port=True) for item in one.each(*rule, "backendRefs")]
    return product(one.texts("spec", "hostnames") or [""], paths, backends)


def middlewares_of(one: Object, rule: Place) -> list[Place]:
    """The filters of a rule that are Middlewares of Traefik."""
    references: list[Place] = [(*item, "extensionRef") for item in one.each(*rule, "filters")]
    return [item for item in references if one.text(*item, "kind") == "Middleware"]


def _filters(one: Object, rule: Place, manifests: Manifests) -> Iterator[Guard | Finding]:
    filters: Place = (*rule, "filters")
    for place in list(one.each(*filters)) or [filters]:  # a mapping, where the line with the type is lost
        auth: Place = (*place, "externalAuth")
        http, backend = (*auth, "http"), (*auth, "backendRef")
        is_fabric = one.text(*http, "path").startswith(gateway_fabric.PREFIX)
        guard = Guard(one, (*http, "path"), _dialects(one, manifests), "the same filter ExternalAuth",
                      [(*backend, "name")], (*http, "allowedResponseHeaders"), (*http, "allowedHeaders"),
                      drops_challenge=is_fabric)  # fmt: skip
        if not isinstance(one.at(*auth), dict) or not guard.asks:
            continue
        if one.text(*place, "type") != "ExternalAuth":
            yield one.trap("no-guard", (*place, "type"), f"the filter's type is another: {UNGUARDED}", "ExternalAuth")
            continue
        yield guard
        yield from no_grant(one, backend, manifests)


def _dialects(one: Object, manifests: Manifests) -> tuple[str, ...]:
    """NGINX Gateway Fabric has one of its own. Where no Gateway is in the files, both count."""
    parents = {named(one, item) for item in one.each("spec", "parentRefs")}
    gateways = (gateway for gateway in manifests.of(GROUP, "Gateway") if gateway.label in parents)
    classes = {"nginx" in gateway.text("spec", "gatewayClassName") for gateway in gateways}
    return tuple(
        prefix for prefix, is_fabric in ((EXT_AUTHZ, False), (gateway_fabric.PREFIX, True))
        if is_fabric in classes or not classes
    )  # fmt: skip


def _attached(one: Object, rule: Place, attached: Targets) -> tuple[Guard | None, bool]:
    """What a policy of Envoy Gateway or Istio does for this rule: the nearest one counts."""
    keys = [(one.kind, one.label, one.text(*rule, "name")), (one.kind, one.label, "")]
    for item in one.each("spec", "parentRefs"):
        gateway = named(one, item)
        keys += [("Gateway", gateway, one.text(*item, "sectionName")), ("Gateway", gateway, "")]
    return next((attached[key] for key in keys if key in attached), (None, False))

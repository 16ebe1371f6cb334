"""Rules about Istio's extension providers and the AuthorizationPolicies that use them."""

from __future__ import annotations

from collections.abc import Iterator

from verifier.policy.resources import WELL_KNOWN
from verifier.tools.lint.guards import EXT_AUTHZ, UNGUARDED, Found, Guard
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Finding, Manifests, Object, Place
from verifier.tools.lint.targets import Targets, targets_of

# The mesh configuration: a file or ConfigMap of its own, Helm values, an IstioOperator.
_MESHES: tuple[Place, ...] = ((), ("meshConfig",), ("spec", "meshConfig"))


def read(manifests: Manifests, known: Known) -> Iterator[Found]:
    """The guards and traps of providers and policies."""
    guards = _providers(manifests)
    yield from guards.values()
    used = set()
    for policy in manifests.of("security.istio.io", "AuthorizationPolicy"):
        name = policy.text("spec", "provider", "name")
        if name in guards or "m2m-verifier" in name:
            used.add(name)
            yield from _policy(policy)
        elif not name and policy.text("spec", "action") == "CUSTOM":
            yield policy.trap("no-guard", ("spec", "provider"), f"names no provider: {UNGUARDED}", "{name: PROVIDER}")
    for name, guard in guards.items():
        if name not in used:
            why = f"no AuthorizationPolicy in these files names this provider: {UNGUARDED}"
            yield guard.object.finding("unused-guard", guard.place[:-2], why, guard.use)


def targets(manifests: Manifests) -> Targets:
    """The guards of Gateways and routes that an AuthorizationPolicy is attached to."""
    guards = _providers(manifests)
    return {
        key: (guards.get(policy.text("spec", "provider", "name")), True)
        for policy in manifests.of("security.istio.io", "AuthorizationPolicy")
        if policy.text("spec", "action") == "CUSTOM"
        for key in targets_of(policy, manifests)
    }


def _providers(manifests: Manifests) -> dict[str, Guard]:
    guards: dict[str, Guard] = {}
    for one in (*manifests.sections(), *manifests.of("istio.io", "IstioOperator")):
        for item in (item for mesh in _MESHES for item in one.each(*mesh, "extensionProviders")):
            http: Place = (*item, "envoyExtAuthzHttp")
            name = one.text(*item, "name")
            use = f"an AuthorizationPolicy with action: CUSTOM, provider: {{name: {name}}}, rules: [{{}}]"
            guard = Guard(one, (*http, "pathPrefix"), (EXT_AUTHZ,), use, [(*http, "service")],
                          (*http, "headersToUpstreamOnAllow"), (*http, "includeRequestHeadersInCheck"),
                          has_wildcards=True, fail_open=(*http, "failOpen"))  # fmt: skip
            guards |= {name: guard} if guard.asks else {}
    return guards


def _policy(policy: Object) -> Iterator[Finding]:
    if policy.text("spec", "action") != "CUSTOM":
        why = f"only action: CUSTOM asks the provider: {UNGUARDED}"
        yield policy.trap("no-guard", ("spec", "action"), why, "CUSTOM")
    if not any(_is_every_request(policy, rule) for rule in policy.each("spec", "rules")):
        why = f"no rule holds for every request; for the others {UNGUARDED}"
        yield policy.trap("no-guard", ("spec", "rules"), why, ["{}"])


def _is_every_request(policy: Object, rule: Place) -> bool:
    """An empty rule, or one that leaves out the protected-resource document alone."""
    content = policy.at(*rule)
    paths = policy.texts(*rule, "to", 0, "operation", "notPaths")
    only_paths = {"to": [{"operation": {"notPaths": paths}}]}
    return content == {} or (content == only_paths and all(path.startswith(WELL_KNOWN) for path in paths))

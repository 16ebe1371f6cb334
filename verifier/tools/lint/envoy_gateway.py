"""Rules about Envoy Gateway's SecurityPolicy."""

from __future__ import annotations

from collections.abc import Iterator

from verifier.tools.lint.guards import EXT_AUTHZ, UNGUARDED, Found, Guard
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Manifests, Object, Place
from verifier.tools.lint.targets import Targets, no_grant, targets_of

_CHECKS = ("extAuth", "jwt", "basicAuth", "oidc", "apiKeyAuth")
_HTTP: Place = ("spec", "extAuth", "http")


def read(manifests: Manifests, known: Known) -> Iterator[Found]:
    """The guards and traps of SecurityPolicies."""
    for policy in _policies(manifests):
        guard = _guard(policy)
        if guard is None:
            continue
        yield guard
        for backend in _backends(policy):
            yield from no_grant(policy, backend, manifests)
        if not any(policy.at("spec", key) for key in ("targetRefs", "targetRef", "targetSelectors")):
            why = f"this SecurityPolicy has no target: {UNGUARDED}"
            yield policy.trap("unused-guard", ("spec", "targetRefs"), why, ["{kind: HTTPRoute, name: ROUTE, …}"])


def targets(manifests: Manifests) -> Targets:
    """What SecurityPolicies do for their targets. One on a route replaces that of its Gateway, unless it is merged."""
    return {
        key: (_guard(policy), any(policy.at("spec", kind) is not None for kind in _CHECKS))
        for policy in _policies(manifests)
        if policy.at("spec", "extAuth") is not None or not policy.text("spec", "mergeType")
        for key in targets_of(policy, manifests)
    }


def _policies(manifests: Manifests) -> Iterator[Object]:
    return manifests.of("gateway.envoyproxy.io", "SecurityPolicy")


def _backends(policy: Object) -> tuple[Place, ...]:
    return (*policy.each(*_HTTP, "backendRefs"), (*_HTTP, "backendRef"))


def _guard(policy: Object) -> Guard | None:
    use, services = f"the route among the targetRefs of {policy.label}", [(*item, "name") for item in _backends(policy)]
    guard = Guard(policy, (*_HTTP, "path"), (EXT_AUTHZ,), use, services, (*_HTTP, "headersToBackend"),
                  ("spec", "extAuth", "headersToExtAuth"), fail_open=("spec", "extAuth", "failOpen"))  # fmt: skip
    return guard if isinstance(policy.at(*_HTTP), dict) and guard.asks else None

"""Rules about Envoy Gateway's SecurityPolicy."""

from __future__ import annotations

from collections.abc import Iterator

from verifier.tools.lint.guards import EXT_AUTHZ, UNGUARDED, Found, Guard, asks_verifier
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
        for backend in (*policy.each(*_HTTP, "backendRefs"), (*_HTTP, "backendRef")):
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


def _guard(policy: Object) -> Guard | None:
    path, passed, asked = (*_HTTP, "path"), (*_HTTP, "headersToBackend"), ("spec", "extAuth", "headersToExtAuth")
    backends = (*policy.each(*_HTTP, "backendRefs"), (*_HTTP, "backendRef"))
    service = " ".join(policy.text(*backend, "name") for backend in backends)
    if not isinstance(policy.at(*_HTTP), dict) or not asks_verifier(policy.text(*path), service, policy.texts(*passed)):
        return None
    return Guard(policy, path, policy.text(*path), (EXT_AUTHZ,), passed, policy.texts(*passed),
                 f"the route among the targetRefs of {policy.label}", asked, policy.texts(*asked),
                 fail_open=("spec", "extAuth", "failOpen"))  # fmt: skip

"""Rules about F5's NGINX Ingress Controller: Policy, VirtualServer, VirtualServerRoute."""

from __future__ import annotations

from collections.abc import Iterator

from verifier.proxies import nginx
from verifier.tools.lint import snippets
from verifier.tools.lint.guards import UNGUARDED, Found, Guard, Route, missing_headers
from verifier.tools.lint.known import Known
from verifier.tools.lint.manifests import Finding, Manifests, Object, Place
from verifier.tools.lint.targets import named

_GROUP = "nginx.org"
_AUTH: Place = ("spec", "externalAuth")
_CHECKS = ("externalAuth", "jwt", "basicAuth", "oidc", "apiKey")
_REQUEST = {"x-original-url": "$scheme://$http_host$request_uri", "x-original-method": "$request_method"}


def read(manifests: Manifests, known: Known) -> Iterator[Found]:
    """The guards, routes and traps of VirtualServers and Policies."""
    policies = {policy.label: policy for policy in manifests.of(_GROUP, "Policy")}
    guards = {label: found for label, policy in policies.items() if (found := _guard(policy)).asks}
    deciding = {label for label, one in policies.items() if any(one.at("spec", kind) is not None for kind in _CHECKS)}
    inherited: dict[str, list[str]] = {}  # the policies of a VirtualServerRoute
    used: set[str] = set()
    for one in (*manifests.of(_GROUP, "VirtualServer"), *manifests.of(_GROUP, "VirtualServerRoute")):
        has_guard = False
        outer = [named(one, item) for item in one.each("spec", "policies")]
        for place in (*one.each("spec", "routes"), *one.each("spec", "subroutes")):
            own = [named(one, item) for item in one.each(*place, "policies")]
            # The nearest one counts.
            names = [*own, *outer, *inherited.get(one.label, [])]
            if one.at(*place, "route") is not None:
                target = one.text(*place, "route")
                inherited[target if "/" in target else f"{one.namespace}/{target}".removeprefix("/")] = names
                continue
            checks = [name for name in names if name in deciding]
            guard = next((guards.get(name) for name in checks if policies[name].at(*_AUTH) is not None), None)
            used |= {guard.object.label} if guard else set()
            host, path = one.text("spec", "host"), one.text(*place, "path")
            for backend in _backends(one, place):
                yield Route(one, (*place, "policies"), host, path, backend, guard, bool(checks))
            if guard is not None:
                has_guard = True
                yield from _location(one, (*place, "location-snippets"), known)
        if has_guard:
            server: Place = ("spec", "server-snippets")
            yield from snippets.of_text(one, server, one.text(*server), known)
    for label, guard in guards.items():
        yield guard
        yield from _request(guard)
        if label not in used:
            why = f"no VirtualServer in these files names this Policy: {UNGUARDED}"
            yield guard.object.finding("unused-guard", ("metadata", "name"), why, guard.use)


def _guard(policy: Object) -> Guard:
    own = snippets.set_headers(policy.text(*_AUTH, "authSnippets"))
    certified = tuple(name for name, value in own.items() if value.startswith("$ssl_client_"))
    return Guard(policy, (*_AUTH, "authURI"), (nginx.PREFIX,), f"policies: [{{name: {policy.name}}}]",
                 [(*_AUTH, "authServiceName")], drops_challenge=True, certified=certified)  # fmt: skip


def _backends(one: Object, place: Place) -> Iterator[str]:
    """namespace/service:port of the upstreams that a route passes requests to."""
    upstreams = {one.text(*item, "name"): item for item in one.each("spec", "upstreams")}
    actions: list[Place] = [(*item, "action") for item in ((place), *one.each(*place, "splits"))]
    for action in actions:
        name = one.text(*action, "pass") or one.text(*action, "proxy", "upstream")
        if name in upstreams:
            service, port = (one.text(*upstreams[name], key) for key in ("service", "port"))
            yield f"{one.namespace}/{service}:{port}".removeprefix("/")


def _location(one: Object, place: Place, known: Known) -> Iterator[Finding]:
    """The headers that a guarded location sets."""
    snippet = one.text(*place)
    missing = missing_headers([*snippets.verified_headers(snippet)], known)
    if missing:
        why = f"{', '.join(missing)} not set: the API receives what the client sent, not what the verifier answered"
        variables = {name: name.lower().replace("-", "_") for name in missing}
        lines = [f"auth_request_set $m2m_{variable} $upstream_http_{variable}; proxy_set_header {name} $m2m_{variable};"
                 for name, variable in variables.items()]  # fmt: skip
        yield one.finding("forgeable-header", place, why, f"{place[-1]}: {' '.join(lines)}")
    yield from snippets.of_text(one, place, snippet, known)


def _request(guard: Guard) -> Iterator[Finding]:
    """The headers that name the original request: the controller sets none."""
    place: Place = (*_AUTH, "authSnippets")
    given = snippets.set_headers(guard.object.text(*place))
    wrong = {name: value for name, value in _REQUEST.items() if given.get(name) != value}
    if wrong:
        why = f"nginx passes {', '.join(wrong)} on as the client sent it: the client chooses what the verifier checks"
        write = " ".join(f"proxy_set_header {name} {value};" for name, value in wrong.items())
        yield guard.object.finding("forgeable-request", place, why, f"authSnippets: {write}")

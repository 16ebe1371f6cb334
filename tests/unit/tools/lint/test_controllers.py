"""What lint says about each controller's objects. The blocks of `guard` are changed in one place."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.unit.tools.lint.manifest import METADATA, Manifest, N, lint, rules, unguarded
from verifier.tools.guard import PROXIES, Guard
from verifier.tools.lint import Known, check
from verifier.tools.lint.manifests import Manifests, Object, as_object

MAPPED = ("X-User-ID", "X-Tenant-ID")
KNOWN = Known(frozenset({"orders"}), frozenset({"orders"}), MAPPED)
# The others print no objects of Kubernetes.
CONTROLLERS = [proxy for proxy, file in PROXIES.items() if file.endswith(".yaml") and proxy != "envoy"]

# Without its selector, an AuthorizationPolicy holds for every pod of its namespace: more is checked, not less.
NOT_JUDGED = {"selector"}


def block(proxy: str) -> str:
    return Guard("orders", MAPPED).block(proxy)


@pytest.mark.parametrize("proxy", CONTROLLERS)
def test_what_guard_prints_has_no_finding(proxy: str) -> None:
    assert lint(block(proxy), known=KNOWN) == []
    assert lint(Guard("Orders_2.eu", resource=False).block(proxy)) == []


@pytest.mark.parametrize("proxy", CONTROLLERS)
def test_a_block_without_any_one_of_its_guarding_lines_has_a_finding(proxy: str) -> None:
    lines = block(proxy).splitlines()
    guarding = Guard("orders", MAPPED).guarding(proxy)
    silent = {
        lines[number].strip().partition(":")[0] for number in guarding
        if not lint("\n".join(lines[:number] + lines[number + 1 :]), known=KNOWN)
    }  # fmt: skip

    assert silent - NOT_JUDGED == set()
    assert len(silent) < len(guarding)


@pytest.mark.parametrize("proxy", CONTROLLERS)
def test_a_policy_that_the_configuration_lacks_is_found_behind_each(proxy: str) -> None:
    [finding] = lint(block(proxy), known=Known(frozenset({"order"}), headers=MAPPED))

    [asked] = set(re.findall(r"/(?:verify|forward-auth|ext-authz|gateway-fabric)/order", block(proxy)))
    assert (finding.rule, finding.write.strip('"').endswith(asked), finding.line > 0) == ("unknown-policy", True, True)


@pytest.mark.parametrize("proxy", CONTROLLERS)
def test_a_challenge_is_lost_behind_nginx_alone(proxy: str) -> None:
    known = Known(KNOWN.policies, KNOWN.resources, MAPPED, challenges=frozenset({"orders"}))
    behind_nginx = proxy in ("ingress-nginx", "nginx-ingress-controller", "nginx-gateway-fabric")

    assert rules(lint(block(proxy), known=known)) == ["lost-challenge"] * behind_nginx


@pytest.mark.parametrize("proxy", CONTROLLERS)
def test_a_certificate_can_be_forged_where_the_controller_passes_on_what_the_client_sends(proxy: str) -> None:
    known = Known(KNOWN.policies, KNOWN.resources, MAPPED, ("ssl-client-cert",))
    found = set(rules(lint(block(proxy), known=known)))

    passes_all = proxy in ("ingress-nginx", "traefik", "traefik-ingress-nginx", "nginx-ingress-controller")
    assert found == ({"forgeable-certificate"} if passes_all else set())


GATEWAY_GROUP = "gateway.networking.k8s.io/v1"


def one(group: str, kind: str, name: str, **spec: Any) -> Manifest:
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec}


def middleware(name: str, **spec: Any) -> Manifest:
    return one("traefik.io/v1alpha1", "Middleware", name, **spec)


def chain(*names: str) -> Manifest:
    return middleware("both", chain={"middlewares": [{"name": name} for name in names]})


PARENT = {"name": "gateway", "namespace": "gateway"}


def route(name: str, host: str = "other.example.com", **rule: Any) -> Manifest:
    rule = {"backendRefs": [{"name": "orders", "port": 8080}]} | rule
    return one(GATEWAY_GROUP, "HTTPRoute", name, hostnames=[host], parentRefs=[PARENT], rules=[rule])


def gateway(name: str) -> Manifest:
    return one(GATEWAY_GROUP, "Gateway", "gateway", gatewayClassName=name) | {"metadata": PARENT}


def cors(**spec: Any) -> Manifest:
    targets = [{"kind": "HTTPRoute", "name": "open"}]
    return one("gateway.envoyproxy.io/v1alpha1", "SecurityPolicy", "cors", targetRefs=targets, cors={}, **spec)


def naming(middlewares: str) -> Manifest:
    """An Ingress of the guarded host that names Middlewares of Traefik."""
    made = unguarded(host="orders.example.com")
    made["metadata"]["annotations"]["traefik.ingress.kubernetes.io/router.middlewares"] = middlewares
    return made


STRIP = middleware("strip", stripPrefix={})
ROLE = middleware("role", headers={"customRequestHeaders": {"x-m2m-role": "root"}})
INGRESS_CLASS = one("networking.k8s.io/v1", "IngressClass", "nginx", controller="traefik.io/ingress-nginx")
REFERENCE = [{"type": "ExtensionRef", "extensionRef": {"kind": "Middleware", "name": "orders-m2m"}}]
SAFE = {"aliasHeadersStrategy": "delete", "middlewares": ["default-orders-m2m@kubernetescrd"]}
ENTRY = {"entryPoints": {"websecure": {"http": SAFE}}}
OTHERS = [{"type": "ExternalAuth", "externalAuth": {"backendRef": {"name": "others"}, "http": {"path": "/x"}}}]
REDIRECT = route("open", "orders.example.com", backendRefs=[], filters=[{"type": "RequestRedirect"}])
NAMED = "- name: orders-m2m "
SERVICES = "services: [{name: orders, port: 8080}]"
TARGET = "spec:\n  targetRefs:\n    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: orders}"
ON_GATEWAY = "  namespace: gateway\nspec:\n  targetRefs:\n    - {kind: Gateway, name: gateway}"
SELECTED = [route("open"), route("other", "www.example.com")]
SELECTED[0]["metadata"]["labels"] = {"a": "b"}
EVERYTHING = "rules: [{}]"
F5_ROUTE = "      action: {pass: orders}\n"
JWT = one("k8s.nginx.org/v1", "Policy", "jwt", jwt={"realm": "x"})
F5_SUBROUTE = one(
    "k8s.nginx.org/v1", "VirtualServerRoute", "sub", host="x.example",
    subroutes=[{"path": "/", "action": {"pass": "a"}}], upstreams=[{"name": "a", "service": "orders", "port": 8080}],
)  # fmt: skip

# A text in a block, what it becomes, objects beside the block, and the rules that find something.
CHANGES: dict[str, list[tuple[str, str, list[Manifest], list[str]]]] = {
    "traefik": [
        ("/forward-auth/orders", "/verify/orders", [], ["auth-url-path"]),
        ("/forward-auth/orders", "/forward-auth/orders?scope=a&x=1", [], ["auth-url-query"]),
        ("trustForwardHeader: false", "trustForwardHeader: true", [], ["trusted-forward-header"]),
        ("trustForwardHeader: false", "authRequestHeaders: [Authorization]", [], ["hidden-header"]),
        ("    http:\n", "    forwardedHeaders: {insecure: true}\n    http:\n", [], ["trusted-forward-header"]),
        ("aliasHeadersStrategy: delete", "underscoreHeadersStrategy: reject", [], []),
        ("aliasHeadersStrategy: delete", "aliasHeadersStrategy: keep", [], ["header-alias"]),
        ("aliasHeadersStrategy: delete", "redirections: {entryPoint: {to: websecure}}", [], []),
        (NAMED, "- name: strip\n        - name: orders-m2m ", [STRIP], ["rewrite-before-auth"]),
        (NAMED, "- name: orders-m2m\n        - name: strip ", [STRIP], []),
        (NAMED, "- name: both ", [STRIP, chain("strip", "orders-m2m")], ["rewrite-before-auth"]),
        (NAMED, "- name: both ", [chain("orders-m2m", "both")], []),
        (NAMED, "- name: orders-m2m\n        - name: role ", [ROLE], ["forgeable-header"]),
        (NAMED, "- name: role\n        - name: orders-m2m ", [ROLE], []),
        (NAMED, "- name: default-orders-m2m@kubernetescrd ", [], []),
        ("  routes:", f"  routes:\n    - {{match: Path(`/x`), {SERVICES}}}", [], ["unprotected"]),
        ("traefik", "traefik", [route("open")], ["unprotected"]),
        ("traefik", "traefik", [route("guarded", filters=REFERENCE)], []),
        (NAMED, "- name: x ", [route("guarded", filters=REFERENCE)], ["unprotected"]),
        (NAMED, "- name: x ", [ENTRY], []),
        ("traefik", "traefik", [naming("")], ["unprotected"]),
        ("traefik", "traefik", [naming("default-orders-m2m@kubernetescrd")], []),
        ("traefik", "traefik", [naming("default-other@kubernetescrd")], ["unprotected"]),
        ("entryPoints:\n", "entryPoints:\n  metrics: {address: ':8082'}\n", [], []),
    ],
    "traefik-ingress-nginx": [
        (f"    {N}auth-url", f"    {N}rewrite-target: /$1\n    {N}auth-url", [], ["rewrite-before-auth"]),
        ("ingressClassName: nginx", "ingressClassName: traefik", [], []),
        # Without Traefik's configuration, the Ingress is one of ingress-nginx.
        ("entryPoints:", "others:", [], ["no-rate-limit", "auth-url-path"]),
        ("entryPoints:", "others:", [INGRESS_CLASS], []),
    ],
    "envoy-gateway": [
        ("failOpen: false", "failOpen: true", [], ["fail-open"]),
        ("/ext-authz/orders", "/ext-authz/orders/", [], ["auth-url-path"]),
        ("/ext-authz/orders", "/ext-authz/orders?x=1", [], ["auth-url-path"]),
        ("/ext-authz/orders", "/ext-authz/", [], ["auth-url-path"]),
        ("/ext-authz/orders", "/gateway-fabric/orders", [], ["auth-url-path"]),
        ("headersToBackend:", "x:", [], ["forgeable-header"]),
        ("kind: ReferenceGrant", "kind: Other", [], ["no-reference-grant"]),
        (TARGET, TARGET, [route("orders"), route("open")], ["unprotected"]),
        # The grant is for another namespace than the Gateway's.
        (TARGET, ON_GATEWAY, [route("orders"), route("open")], ["no-reference-grant"]),
        (TARGET, ON_GATEWAY, [route("orders"), route("open"), cors()], ["no-reference-grant", "unprotected"]),
        (TARGET, ON_GATEWAY, [route("orders"), route("open"), cors(mergeType="x")], ["no-reference-grant"]),
        ("targetRefs:", "targetSelectors: [{kind: HTTPRoute, matchLabels: {a: b}}]\n  x:", SELECTED, ["unprotected"]),
    ],
    "istio": [
        ("failOpen: false", "failOpen: true", [], ["fail-open"]),
        ("/ext-authz/orders", "/verify/orders", [], ["auth-url-path"]),
        ("- x-m2m-role\n", "- x-m2m-*\n", [], []),
        ("headersToUpstreamOnAllow", "headersToDownstreamOnAllow", [], ["forgeable-header"]),
        (EVERYTHING, "rules: [{to: [{operation: {paths: [/a]}}]}]", [], ["no-guard"]),
        (EVERYTHING, "rules: [{to: [{operation: {notPaths: [/health]}}]}]", [], ["no-guard"]),
        (EVERYTHING, f"rules: [{{to: [{{operation: {{notPaths: [{METADATA}*]}}}}]}}]", [], []),
        ("provider: {name: m2m-verifier-orders}", "provider: {name: m2m-verifier-order}", [], ["unused-guard"]),
        ("provider: {name: m2m-verifier-orders}", "x: y", [], ["no-guard", "unused-guard"]),
        ("selector:", "targetRefs: [{kind: HTTPRoute, name: other}]\n  x:", SELECTED, ["unprotected"]),
    ],
    "gateway-api": [
        ("/ext-authz/orders", "/verify/orders", [], ["auth-url-path"]),
        ("type: ExternalAuth ", "type: URLRewrite ", [], ["no-guard"]),
        ("allowedResponseHeaders:", "x:", [], ["forgeable-header"]),
        ("allowedHeaders:", "x:", [], ["hidden-header"]),
        ("kind: ReferenceGrant", "kind: Other", [], ["no-reference-grant"]),
        ("spec", "spec", [route("open")], ["unprotected"]),
        ("spec", "spec", [REDIRECT], []),
        ("spec", "spec", [gateway("nginx")], ["auth-url-path"]),
        ("spec", "spec", [gateway("cilium")], []),
        ("spec", "spec", [unguarded(host="orders.example.com")], ["unprotected"]),
        ("spec", "spec", [route("open", filters=OTHERS)], []),
        ("namespace: auth, port: 8000", "port: 8000", [], []),
    ],
    "nginx-ingress-controller": [
        ("/verify/orders", "/forward-auth/orders", [], ["auth-url-path"]),
        ("X-Original-URL $scheme://$http_host$request_uri", "X-Original-URL $request_uri", [], ["forgeable-request"]),
        ("X-M2M-Role $m2m_role", "X-M2M-Role $http_x_role", [], ["forgeable-header"]),
        ("$upstream_http_x_m2m_role", "$upstream_http_x_role", [], ["forgeable-header"]),
        ("location-snippets: |", "location-snippets: |\n        satisfy any;", [], ["satisfy-any"]),
        ("  routes:", "  server-snippets: satisfy any;\n  routes:", [], ["satisfy-any"]),
        (F5_ROUTE, F5_ROUTE + "    - {path: /x, action: {proxy: {upstream: orders}}}\n", [], ["unprotected"]),
        ("      policies:\n        - name: orders-m2m ", "      x:\n        - name: x ", [], ["unused-guard"]),
        ("  routes:\n", "  policies: [{name: orders-m2m}]\n  routes:\n", [], []),
        (F5_ROUTE, F5_ROUTE + "    - {path: /x, policies: [{name: jwt}], action: {pass: orders}}\n", [JWT], []),
        (F5_ROUTE, F5_ROUTE + "    - {path: /x, route: sub}\n", [F5_SUBROUTE], ["unprotected"]),
        (F5_ROUTE, F5_ROUTE + "    - {path: /x, route: sub, policies: [{name: orders-m2m}]}\n", [F5_SUBROUTE],
         ["forgeable-header"]),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("proxy", "old", "new", "beside", "found"), [(proxy, *change) for proxy in CHANGES for change in CHANGES[proxy]]
)
def test_what_loses_the_guard_is_found_and_what_is_close_to_it_is_not(
    proxy: str, old: str, new: str, beside: list[Manifest], found: list[str]
) -> None:
    text = Guard("orders", MAPPED, resource=False).block(proxy)
    assert old in text

    known = Known(frozenset({"orders"}), headers=MAPPED)
    assert set(rules(lint(text.replace(old, new, 1), *beside, known=known))) == set(found)


@pytest.mark.parametrize(("key", "proxy"), [("mesh", "istio"), ("traefik.yaml", "traefik")])
def test_a_configuration_in_a_config_map_is_read_with_its_lines(key: str, proxy: str) -> None:
    inner, *rest = Guard("orders", resource=False).block(proxy).split("---\n")
    inner = inner.replace("failOpen: false", "failOpen: true").replace("delete", "keep")
    indented = "".join(f"    {line}\n" for line in inner.splitlines())
    text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n  {key}: |\n{indented}"
    [finding] = lint(text, "---\n".join(rest))

    broken = re.compile("failOpen: true|Strategy: keep")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if broken.search(line)]
    assert (finding.object, [finding.line]) == ("ConfigMap a", lines)


JUNK = ("x", 3, None, [], [3], [[]], {}, {"x": "y"}, [{"name": []}])


def variants(part: Any) -> Iterator[None]:
    """Put each piece of junk in the place of each part, in turn."""
    for key, value in list(part.items() if isinstance(part, dict) else enumerate(part)):
        for part[key] in JUNK:
            yield
        part[key] = value
        if isinstance(value, dict | list):
            yield from variants(value)


@pytest.mark.parametrize("proxy", CONTROLLERS)
def test_a_part_of_another_type_is_no_traceback(proxy: str) -> None:
    documents = list(yaml.safe_load_all(block(proxy)))
    for _ in variants(documents):
        objects = Manifests(tuple(as_object(Object("x.yaml", document)) for document in documents))
        assert all(str(finding) for finding in check(objects, KNOWN)[2])

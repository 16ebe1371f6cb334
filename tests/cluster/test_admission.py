"""The admission policy refuses an Ingress that lets requests pass without the verifier, and only those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import kustomize
from tests.cluster.server import APPLY, ApiServer
from tests.e2e.stage import eventually
from tests.kustomize import MINIMAL, OVERLAYS
from tests.programs import m2m_verifier

NAMESPACE = "guarded"
NGINX = "nginx.ingress.kubernetes.io/"
URL = f"http://m2m-verifier.{NAMESPACE}.svc.cluster.local:8000/verify"
HEADERS = "X-M2M-Client-ID, X-M2M-Scope, X-M2M-Role, X-M2M-Issuer"
CACHE_KEY = "$http_authorization$request_method$request_uri"
METADATA, ACME = "/.well-known/oauth-protected-resource", "/.well-known/acme-challenge/"

Manifest = dict[str, Any]


def ingress(*paths: str, spec: Manifest | None = None, plain: Manifest | None = None, **annotations: str) -> Manifest:
    """An Ingress; an underscore stands for the dash in a name, `plain` has annotations that are not nginx's."""
    nginx = {NGINX + name.replace("_", "-"): value for name, value in annotations.items()}
    backend = {"service": {"name": "api", "port": {"number": 8080}}}
    rules = [
        {"http": {"paths": [{"path": p, "pathType": "ImplementationSpecific", "backend": backend} for p in paths]}}
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "tried", "namespace": NAMESPACE, "annotations": nginx | (plain or {})},
        "spec": {"ingressClassName": "nginx", "rules": rules} | (spec or {}),
    }


def guarded(spec: Manifest | None = None, plain: Manifest | None = None, **changes: str) -> Manifest:
    """A guarded Ingress with these annotations changed."""
    return ingress(
        "/", spec=spec, plain=plain, **{"auth_url": f"{URL}/api", "auth_response_headers": HEADERS, **changes}
    )


BACKEND = {"defaultBackend": {"service": {"name": "api", "port": {"number": 8080}}}}
PASS: dict[str, Manifest] = {
    "guarded": guarded(),
    "with another policy and parameters": guarded(auth_url=f"{URL}/a.b-c?scope=https://api/read,x&client=7abc"),
    "without a policy's name": guarded(auth_url=URL),
    "headers in lower case, without spaces, and a further one": guarded(
        auth_response_headers=f"x-user-id,{HEADERS.lower().replace(' ', '')}"
    ),
    "settings that are harmless": guarded(
        limit_rps="50", proxy_body_size="1m", satisfy="all", enable_global_auth="true", backend_protocol="GRPC",
        auth_cache_key=CACHE_KEY, force_ssl_redirect="true", whitelist_source_range="10.0.0.0/8",
    ),
    "another controller's annotation": guarded(plain={"cert-manager.io/issuer": "letsencrypt-dns"}),
    "a guarded default backend": guarded(spec={"rules": None, **BACKEND}),
    "metadata": ingress(METADATA),
    "metadata of a resource with a path": ingress(f"{METADATA}/mcp", limit_rps="5"),
    "cert-manager's solver": ingress(f"{ACME}w7_x-Y", whitelist_source_range="0.0.0.0/0,::/0"),
    "cert-manager's solver with the class as an annotation": ingress(
        f"{ACME}w7_x-Y", spec={"ingressClassName": None}, plain={"kubernetes.io/ingress.class": "nginx"}
    ),
}  # fmt: skip

NO_URL, NO_HEADERS, NO_CLASS = "auth-url must be", "auth-response-headers lacks", "the class must be"
RISK = "may take the guard away"
REFUSED: dict[str, tuple[Manifest, str]] = {
    "no annotation": (ingress("/"), NO_URL),
    "no rules": (ingress(spec={"rules": None, **BACKEND}), NO_URL),
    "a rule without paths": (ingress(spec={"rules": [{"host": "api.example.com"}], **BACKEND}), NO_URL),
    "the annotation under another prefix": (
        guarded(auth_url="", plain={"ingress.kubernetes.io/auth-url": f"{URL}/api"}), NO_URL,
    ),
    "the annotation's name in upper case": (guarded(auth_url="", Auth_URL=f"{URL}/api"), RISK),
    **{
        f"auth-url {value!r}": (guarded(auth_url=value), NO_URL)
        for value in (
            "", " ", f" {URL}/api", f"{URL}/api\n", f"{URL}/api x", URL.upper() + "/api",
            f"{URL}/$arg_policy", f"{URL}/api?scope=$arg_scope", f"{URL}/api/../../health", f"{URL}/..", f"{URL}x",
            f"{URL}/api#x", URL.replace("/verify", "/health"), URL.replace("/verify", "/forward-auth/api"),
            URL.replace("8000", "9090"), URL.replace(f".{NAMESPACE}.", ".attacker."),
            URL.replace(".svc.cluster.local", ".svc.cluster.local.attacker.example") + "/api",
            f"http://attacker.example/?{URL}/api", f"http://attacker.example/verify/api?{URL}",
            URL.replace("//", "//m2m-verifier@attacker.example/"), URL.replace("m2m-verifier.", "m2m-verifierX"),
        )
    },
    "a header missing": (guarded(auth_response_headers="X-M2M-Client-ID, X-M2M-Scope, X-M2M-Issuer"), "x-m2m-role"),
    "headers that only contain the names": (guarded(auth_response_headers=HEADERS.replace(", ", ";")), NO_HEADERS),
    "headers in more text than is evaluated": (guarded(auth_response_headers=HEADERS + "," * 250_000), "cost limit"),
    "satisfy: any": (guarded(satisfy="any"), "satisfy"),
    "satisfy: Any": (guarded(satisfy=" Any"), "satisfy"),
    "global auth off": (guarded(enable_global_auth="false"), "enable-global-auth"),
    "global auth off as Go reads it": (guarded(enable_global_auth="F"), "enable-global-auth"),
    "global auth off on an exempt path": (ingress(METADATA, enable_global_auth="false"), "enable-global-auth"),
    **{
        name: (guarded(**{name: value}), name.replace("_", "-"))
        for name, value in {
            "configuration_snippet": "auth_request off;", "server_snippet": "location /x { }", "auth_snippet": "x;",
            "auth_proxy_set_headers": "guarded/forged", "auth_keepalive": "8", "ssl_passthrough": "true",
            "auth_cache_key": "$http_authorization", "canary": "true", "custom_http_errors": "401",
            "default_backend": "api", "backend_protocol": "FCGI", "rewrite_target": "/$1", "use_regex": "true",
            "an_annotation_of_a_later_version": "x",
        }.items()
    },
    "a snippet on an exempt path": (ingress(ACME, server_snippet="location /x { }"), RISK),
    "a rewrite below an exempt path": (ingress(ACME, rewrite_target="/db"), RISK),
    "an exempt path beside another": (ingress(METADATA, "/db"), NO_URL),
    "an exempt path with a default backend": (ingress(METADATA, spec=BACKEND), NO_URL),
    **{
        f"path {path}": (ingress(path), NO_URL)
        for path in (
            f"{METADATA}|/", f"{METADATA}(.*)", f"{METADATA}/../db", f"{METADATA}x", f"{ACME}a/b", f"{ACME}.*",
            f"/db{METADATA}", "/.well-known/", "/.WELL-KNOWN/acme-challenge/x", "/xwell-known/acme-challenge/x",
        )
    },
    "another controller's class": (guarded(spec={"ingressClassName": "traefik"}), NO_CLASS),
    "no class": (guarded(spec={"ingressClassName": None}), NO_CLASS),
    "another class by annotation": (
        guarded(spec={"ingressClassName": None}, plain={"kubernetes.io/ingress.class": "traefik"}), NO_CLASS,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def server(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> ApiServer:
    """With the policy, as the component and the params make it, in force for one namespace."""
    folder = kustomize.write(tmp_path_factory.mktemp("policy"), ["admission-policy"], NAMESPACE)
    api_server.namespace(NAMESPACE, **{"m2m-verifier/guarded": "true"})
    api_server.kubectl(*APPLY, "--kustomize", folder)
    # Another namespace's may have been in force before.
    eventually(lambda: URL in refusal(api_server, ingress("/")), "the policy is in force")
    return api_server


def refusal(server: ApiServer, manifest: Manifest) -> str:
    """Why the API server does not create it; empty if it does."""
    without_nulls = manifest | {"spec": {key: value for key, value in manifest["spec"].items() if value is not None}}
    return server.try_to_create(without_nulls)


@pytest.mark.parametrize("name", PASS)
def test_an_ingress_passes_that_is_guarded_or_exempt(server: ApiServer, name: str) -> None:
    assert refusal(server, PASS[name]) == ""


@pytest.mark.parametrize("name", REFUSED)
def test_an_ingress_is_refused_that_is_not_guarded(server: ApiServer, name: str) -> None:
    manifest, message = REFUSED[name]
    said = refusal(server, manifest)

    assert "ValidatingAdmissionPolicy 'm2m-verifier-guard'" in said
    assert message in said


def test_an_update_is_refused_like_a_creation_unless_nginx_reads_nothing_new(server: ApiServer) -> None:
    server.apply(guarded())
    unguarded = server.kubectl("annotate", "ingress/tried", f"{NGINX}auth-url-", "-n", NAMESPACE, check=False)
    labelled = server.kubectl("label", "ingress/tried", "team=a", "-n", NAMESPACE, check=False)
    server.kubectl("delete", "ingress/tried", "--namespace", NAMESPACE)

    assert (NO_URL in unguarded.stderr, labelled.returncode) == (True, 0)


def test_the_status_of_an_ingress_brings_no_annotation_along(server: ApiServer) -> None:
    server.apply(guarded())
    patch = ("patch", "ingress/tried", "-n", NAMESPACE, "--subresource=status", "--type=merge", "--patch")
    unguarded = server.kubectl(*patch, f'{{"metadata": {{"annotations": {{"{NGINX}auth-url": null}}}}}}', check=False)
    address = server.kubectl(*patch, '{"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}', check=False)
    server.kubectl("delete", "ingress/tried", "--namespace", NAMESPACE)

    assert (NO_URL in unguarded.stderr, address.returncode) == (True, 0)


def test_an_older_unguarded_ingress_can_be_labelled_and_deleted_but_not_changed(server: ApiServer) -> None:
    namespace = server.namespace("older")
    old = ingress("/")
    old["metadata"] |= {"namespace": namespace, "finalizers": ["example.com/wait"]}
    server.apply(old)
    server.namespace(namespace, **{"m2m-verifier/guarded": "true"})

    assert server.kubectl("label", "ingress/tried", "team=a", "-n", namespace).returncode == 0
    assert NO_URL in server.kubectl("annotate", "ingress/tried", "a=b", "-n", namespace, check=False).stderr
    server.kubectl("delete", "ingress/tried", "--namespace", namespace, "--wait=false")
    released = '{"metadata": {"finalizers": null}}'
    assert (
        server.kubectl("patch", "ingress/tried", "-n", namespace, "--type=merge", "--patch", released).returncode == 0
    )


def test_a_namespace_without_the_label_is_left_alone(server: ApiServer) -> None:
    manifest = ingress("/")
    manifest["metadata"]["namespace"] = "default"

    assert refusal(server, manifest) == ""


def test_it_passes_what_guard_prints(server: ApiServer, tmp_path: Path) -> None:
    policy = {"resource": {"url": "https://api.example.com", "authorization_servers": ["https://issuer.example"]}}
    issuer = {"name": "a", "cognito": {"user_pool_id": "us-east-1_Example"}}
    config = tmp_path / "m2m.yaml"
    config.write_text(yaml.safe_dump({"issuers": [issuer], "policies": {"api": policy}}))
    _, printed, _ = m2m_verifier("guard", "--proxy=ingress-nginx", "--policy=api", f"--config={config}")

    assert [refusal(server, manifest) for manifest in moved(printed, ".auth.")] == ["", ""]


def moved(text: str, old: str) -> list[Manifest]:
    """Manifests in the guarded namespace instead of their own; `old` is that part of the verifier's name."""
    manifests = list(yaml.safe_load_all(text.replace(old, f".{NAMESPACE}.")))
    for manifest in manifests:
        manifest["metadata"]["namespace"] = NAMESPACE
    return manifests


@pytest.mark.parametrize("folder", [*OVERLAYS, MINIMAL], ids=lambda path: path.name)
def test_it_passes_our_own_ingresses(server: ApiServer, folder: Path) -> None:
    ours = kustomize.of_kind(kustomize.build(folder), "Ingress")
    manifests = moved(yaml.safe_dump_all(ours), f".{ours[0]['metadata']['namespace']}.")

    assert [refusal(server, manifest) for manifest in manifests] == [""] * len(ours)

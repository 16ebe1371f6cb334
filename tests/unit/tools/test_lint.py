import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from verifier import cli
from verifier.tools.lint import Finding, Known, lint_files, main

N = "nginx.ingress.kubernetes.io/"
ALL_HEADERS = "X-M2M-Client-ID, X-M2M-Scope, X-M2M-Role, X-M2M-Issuer"
VERIFY = "http://m2m-verifier.auth.svc.cluster.local:8000/verify/api"
METADATA = "/.well-known/oauth-protected-resource"

Manifest = dict[str, Any]
Lint = Callable[..., list[Finding]]


def ingress(
    name: str = "api",
    host: str | None = "api.example.com",
    paths: tuple[str, ...] = ("/",),
    service: str = "api",
    tls: bool = True,
    **annotations: str | None,
) -> Manifest:
    """A guarded Ingress without a trap; an annotation is named with underscores, and None leaves it out."""
    values: dict[str, str | None] = {
        "auth-url": VERIFY,
        "auth-response-headers": ALL_HEADERS,
        "limit-rps": "20",
        **{key.replace("_", "-"): value for key, value in annotations.items()},
    }
    backend = {"service": {"name": service, "port": {"number": 80}}}
    rule: Manifest = {"http": {"paths": [{"path": p, "pathType": "Prefix", "backend": backend} for p in paths]}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "annotations": {N + key: value for key, value in values.items() if value is not None},
        },
        "spec": {
            **({"tls": [{"hosts": [host] if host else [], "secretName": f"{name}-tls"}]} if tls else {}),
            "rules": [{"host": host, **rule} if host else rule],
        },
    }


def unguarded(name: str = "open", **options: Any) -> Manifest:
    return ingress(name, auth_url=None, auth_response_headers=None, limit_rps=None, **options)


@pytest.fixture
def lint(tmp_path: Path) -> Lint:
    def run(*manifests: Manifest, known: Known | None = None) -> list[Finding]:
        path = tmp_path / "ingress.yaml"
        path.write_text(yaml.safe_dump_all(manifests))
        return lint_files([path], known)

    return run


def test_an_ingress_without_a_trap_has_no_finding(lint: Lint) -> None:
    assert lint(ingress(), known=Known(policies=frozenset({"api"}))) == []


TRAPS: dict[str, tuple[str, list[Manifest], list[Manifest]]] = {
    # name: the rule, manifests that have the trap, manifests that come close and have it not
    "a header of ours is not listed": (
        "forgeable-header",
        [ingress(auth_response_headers="X-M2M-Client-ID, X-M2M-Scope, X-M2M-Issuer")],
        [ingress(auth_response_headers="x-m2m-client-id,x-m2m-scope,x-m2m-role,x-m2m-issuer,X-Other")],
    ),
    "no header is listed": (
        "forgeable-header",
        [ingress(auth_response_headers=None)],
        [ingress(auth_response_headers=ALL_HEADERS)],
    ),
    "keepalive to the verifier": (
        "auth-keepalive",
        [ingress(auth_keepalive="8")],
        [ingress(auth_keepalive="0")],
    ),
    "a cache key without the token": (
        "auth-cache-key",
        [ingress(auth_cache_key="$request_method$request_uri")],
        [ingress(auth_cache_key="${http_authorization}$request_method$request_uri")],
    ),
    "a cache key without the method": (
        "auth-cache-key",
        [ingress(auth_cache_key="$http_authorization$request_uri")],
        [ingress(auth_cache_key="$request_uri$http_authorization$request_method$host")],
    ),
    "a cache key with a variable that only begins like the URL's": (
        "auth-cache-key",
        [ingress(auth_cache_key="$http_authorization$request_method$request_uri_mine")],
        [ingress(auth_cache_key="$http_authorization$request_method$request_uri")],
    ),
    "a percent sign in the auth-url": (
        "auth-url-characters",
        [ingress(auth_url=VERIFY + "?scope=read%20all")],
        [ingress(auth_url=VERIFY + "?scope=read,write&client=homelab/7abc")],
    ),
    "a line break at the end of the auth-url, from a YAML block": (
        "auth-url-characters",
        [ingress(auth_url=VERIFY + "\n")],
        [ingress(auth_url=VERIFY)],
    ),
    "the client's URI in the auth-url's query": (
        "auth-url-variable",
        [ingress(auth_url=VERIFY + "?scope=$request_uri")],
        [ingress(auth_url=VERIFY + "?scope=read")],
    ),
    "the client's parameter as the policy": (
        "auth-url-variable",
        [ingress(auth_url="http://m2m-verifier.auth:8000/verify/$arg_policy")],
        [ingress(auth_url="http://m2m-verifier.auth:8000/verify/$namespace")],
    ),
    "a mistyped parameter": (
        "auth-url-query",
        [ingress(auth_url=VERIFY + "?scpoe=admin")],
        [ingress(auth_url=VERIFY + "?scope=admin&client=etl&issuer=lab")],
    ),
    "a mistyped auth-url": (
        "no-guard",
        [ingress(auth_url=None, auth_ulr=VERIFY)],
        [ingress(auth_url="https://sso.example.com/oauth2/auth"), unguarded(host="www.example.com", service="web")],
    ),
    "a path that says 200 to everyone": (
        "auth-url-path",
        [ingress(auth_url="http://m2m-verifier.auth:8000/health")],
        [ingress(auth_url="http://m2m-verifier.auth:8000/verify")],
    ),
    "a snippet": (
        "auth-snippet",
        [ingress(auth_snippet="proxy_set_header X-Forwarded-Host $host;")],
        [ingress()],
    ),
    "no rate limit": (
        "no-rate-limit",
        [ingress(limit_rps=None)],
        [ingress(limit_rps=None, limit_rpm="600")],
    ),
    "a rate limit of zero, which is none": (
        "no-rate-limit",
        [ingress(limit_rps="0")],
        [ingress(limit_rps="1")],
    ),
    "no certificate": (
        "no-tls",
        [ingress(tls=False)],
        [ingress(tls=False, force_ssl_redirect="true")],
    ),
    "a certificate for another host": (
        "no-tls",
        [ingress() | {"spec": {**ingress()["spec"], "tls": [{"hosts": ["www.example.com"]}]}}],
        [ingress() | {"spec": {**ingress()["spec"], "tls": [{"hosts": ["*.example.com"]}]}}],
    ),
    "plain http beside https": (
        "no-tls",
        [ingress(ssl_redirect="false")],
        [ingress(ssl_redirect="true")],
    ),
    "another path of the host without auth-url": (
        "unprotected",
        [ingress(), unguarded(paths=("/internal",), service="other")],
        [ingress(), unguarded(paths=(METADATA,), service="m2m-verifier")],
    ),
    "the whole host again, without auth-url": (
        "unprotected",
        [unguarded(service="other"), ingress(paths=("/api",))],
        [ingress(), unguarded(host="www.example.com", service="other")],
    ),
    "a host under a guarded wildcard without auth-url": (
        "unprotected",
        [ingress(host="*.example.com"), unguarded(host="db.example.com", service="other")],
        [ingress(host="*.example.com"), unguarded(host="db.eu.example.com", service="other")],
    ),
    "the guarded API under another name without auth-url": (
        "unprotected",
        [ingress(), unguarded(host="legacy.example.com")],
        [ingress(), unguarded(host="legacy.example.com", auth_type="basic", service="legacy")],
    ),
    "the protected-resource document behind auth": (
        "metadata-behind-auth",
        [ingress(paths=("/", METADATA + "/mcp"))],
        [ingress(paths=("/",)), unguarded(paths=(METADATA,))],
    ),
    "the controller's own guard off": (
        "global-auth-off",
        [ingress(enable_global_auth="false")],
        [ingress(enable_global_auth="true")],
    ),
    "the controller's own guard off on a path of the host": (
        "global-auth-off",
        [ingress(), unguarded(paths=("/x",), enable_global_auth="false")],
        [ingress(), unguarded(paths=(METADATA,), enable_global_auth="false")],
    ),
}


@pytest.mark.parametrize(("rule", "trapped"), [(r, t) for r, t, _ in TRAPS.values()], ids=TRAPS)
def test_a_trap_is_found(lint: Lint, rule: str, trapped: list[Manifest]) -> None:
    assert rule in {finding.rule for finding in lint(*trapped)}


@pytest.mark.parametrize("harmless", [harmless for _, _, harmless in TRAPS.values()], ids=TRAPS)
def test_what_comes_close_to_a_trap_is_not_reported(lint: Lint, harmless: list[Manifest]) -> None:
    assert lint(*harmless) == []


def test_a_finding_names_file_object_annotation_reason_and_the_line_to_write(lint: Lint, tmp_path: Path) -> None:
    [finding] = lint(ingress(auth_response_headers="X-M2M-Client-ID, X-M2M-Scope, X-M2M-Issuer"))

    assert str(finding) == (
        f"{tmp_path}/ingress.yaml: shop/api: {N}auth-response-headers [forgeable-header]\n"
        "  why:   X-M2M-Role not listed: the API gets what the client wrote there, not what the verifier said\n"
        f'  write: {N}auth-response-headers: "X-M2M-Client-ID, X-M2M-Scope, X-M2M-Issuer, X-M2M-Role"'
    )


@pytest.mark.parametrize(
    ("url", "write"),
    [
        (VERIFY + "?scope=read%20all", VERIFY + "?scope=read20all"),
        (VERIFY + "?scope=$request_uri", VERIFY),
        ("http://m2m-verifier.auth:8000/verify/$arg_policy", "http://m2m-verifier.auth:8000/verify"),
        ("http://m2m-verifier.auth:8000/health", "http://m2m-verifier.auth:8000/verify/default"),
        (VERIFY + "?scpoe=admin", VERIFY),
        (VERIFY + "?scope=read&scpoe=admin&client=etl", VERIFY + "?scope=read&client=etl"),
    ],
)
def test_the_line_to_write_is_one_that_lint_accepts(lint: Lint, url: str, write: str) -> None:
    [finding] = lint(ingress(auth_url=url))

    assert finding.write == f'{N}auth-url: "{write}"'
    assert lint(ingress(auth_url=write)) == []


def test_a_policy_that_the_configuration_lacks_is_found(lint: Lint) -> None:
    [finding] = lint(ingress(), known=Known(policies=frozenset({"default", "web"})))

    assert (finding.rule, "'api'" in finding.why, "default, web" in finding.why) == ("unknown-policy", True, True)


@pytest.mark.parametrize(("policies", "meant"), [({"default", "apis"}, "apis"), ({"default", "web"}, "POLICY")])
def test_for_a_policy_that_is_not_there_no_other_is_proposed_but_one_like_it(
    lint: Lint, policies: set[str], meant: str
) -> None:
    [finding] = lint(ingress(), known=Known(policies=frozenset(policies)))

    assert finding.write.endswith(f'/verify/{meant}"')


def test_no_policy_in_the_path_means_the_default_one(lint: Lint) -> None:
    manifest = ingress(auth_url="http://m2m-verifier.auth:8000/verify")

    assert lint(manifest, known=Known(policies=frozenset({"default"}))) == []
    assert [f.rule for f in lint(manifest, known=Known(policies=frozenset({"api"})))] == ["unknown-policy"]


def test_policies_are_not_judged_without_a_configuration(lint: Lint) -> None:
    assert lint(ingress(auth_url="http://m2m-verifier.auth:8000/verify/whatever")) == []


def test_a_header_mapped_in_the_configuration_must_be_listed_too(lint: Lint) -> None:
    known = Known(headers=("X-Tenant-ID",))

    assert [f.rule for f in lint(ingress(), known=known)] == ["forgeable-header"]
    assert lint(ingress(auth_response_headers=ALL_HEADERS + ", X-Tenant-ID"), known=known) == []


def test_a_policy_with_a_resource_needs_an_open_path_to_its_document(lint: Lint) -> None:
    known = Known(resources=frozenset({"api"}))

    assert [f.rule for f in lint(ingress(), known=known)] == ["metadata-behind-auth"]
    assert lint(ingress(), unguarded(paths=(METADATA,)), known=known) == []
    assert lint(ingress(paths=("/api",)), known=known) == []


@pytest.mark.parametrize(
    "stranger",
    [
        ingress(
            auth_url="http://oauth2-proxy.auth.svc/oauth2/auth", auth_response_headers=None, limit_rps=None, tls=False
        ),
        unguarded(tls=False, auth_snippet="x", auth_keepalive="9", enable_global_auth="false"),
        ingress(auth_url="http://authelia.auth.svc/api/verify", auth_cache_key="$cookie_session"),
    ],
    ids=["oauth2-proxy", "no auth at all", "authelia"],
)
def test_an_ingress_that_the_verifier_does_not_guard_is_left_alone(lint: Lint, stranger: Manifest) -> None:
    assert lint(stranger) == []


def test_browsers_behind_oauth2_proxy_may_use_the_same_api(lint: Lint) -> None:
    browsers = ingress("web", host="www.example.com", auth_url="http://oauth2-proxy.auth.svc/oauth2/auth")

    assert lint(ingress(), browsers) == []


def test_a_canary_is_guarded_by_the_ingress_it_stands_in_for(lint: Lint) -> None:
    assert lint(ingress(), unguarded("canary", canary="true", service="next")) == []


def test_a_side_door_in_another_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(ingress()))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(unguarded()))

    [finding] = lint_files([tmp_path / "a.yaml", tmp_path / "b.yaml"])

    assert (finding.rule, finding.file, finding.object) == ("unprotected", f"{tmp_path}/b.yaml", "shop/open")
    assert finding.write == f'{N}auth-url: "{VERIFY}"'


def test_a_default_backend_alone_is_a_route_to_the_api(lint: Lint) -> None:
    catch_all = unguarded()
    catch_all["spec"] = {"defaultBackend": {"service": {"name": "api", "port": {"number": 80}}}}

    assert [f.rule for f in lint(ingress(), catch_all)] == ["unprotected"]


def test_an_ingress_without_a_host_needs_a_certificate_too(lint: Lint) -> None:
    assert lint(ingress(host=None)) == []
    assert [f.rule for f in lint(ingress(host=None, tls=False))] == ["no-tls"]


@pytest.mark.parametrize("kind", ["List", "IngressList"])
def test_the_items_of_a_list_are_read(lint: Lint, kind: str) -> None:
    found = lint(
        {"apiVersion": "v1", "kind": kind, "items": [ingress(), ingress("bad", limit_rps=None), {"kind": "Pod"}]}
    )

    assert [(f.rule, f.object) for f in found] == [("no-rate-limit", "shop/bad")]


def test_other_kinds_and_empty_documents_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(
        "---\n---\nkind: Service\n---\n- a list\n---\njust text\n---\n" + yaml.safe_dump(ingress(limit_rps=None))
    )

    assert [f.rule for f in lint_files([path])] == ["no-rate-limit"]


def test_an_unquoted_annotation_counts_as_what_it_says(lint: Lint) -> None:
    manifest = ingress(limit_rps=None)
    manifest["metadata"]["annotations"] |= {N + "limit-rps": 20, N + "enable-global-auth": False}

    assert [f.rule for f in lint(manifest)] == ["global-auth-off"]


UNREADABLE = {
    "bad YAML": b"a: [1, 2\nb: }",
    "a tab for an indent": b"a:\n\tb: 1",
    "an unknown tag": b"!!python/object:os.system x",
    "a date that is none": b"a: 2024-99-99",
    "not UTF-8": b"a: \xff\xfe",
    "a control character": b"a: \x00",
    "nested beyond reason": b"[" * 20_000,
    "annotations that are a list": b"{kind: Ingress, metadata: {name: x, annotations: [a]}}",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_a_finding(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)

    [finding] = lint_files([path])

    assert (finding.rule, finding.file) == ("unreadable", str(path))
    assert finding.why


def test_what_is_no_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("kind: Ingress\nmetadata: {name: a\nspec: ]\n")

    assert [finding.why for finding in lint_files([path])] == ["line 3: expected ',' or '}', but got ':'"]


@pytest.mark.parametrize(("name", "why"), [("missing.yaml", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_opened_is_a_finding(tmp_path: Path, name: str, why: str) -> None:
    [finding] = lint_files([tmp_path / name])

    assert (finding.rule, why in finding.why) == ("unreadable", True)


@pytest.mark.parametrize(
    "shape",
    [
        "kind: Ingress",
        "{kind: Ingress, metadata: [], spec: 3}",
        "{kind: Ingress, metadata: {name: x}, spec: {rules: [1, {http: {paths: [null]}}], tls: [x, {hosts: 3}]}}",
        "{kind: List, items: {a: b}}",
        "&a {kind: List, items: [*a]}",
        "{kind: Ingress, metadata: {name: {a: b}, annotations: {nginx.ingress.kubernetes.io/auth-url: [1]}}}",
        "{kind: Ingress, metadata: {annotations: {nginx.ingress.kubernetes.io/auth-url: 'http://['}}}",
    ],
)
def test_a_shape_that_kubernetes_would_refuse_is_no_traceback(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(shape)

    assert lint_files([path]) == []


def test_an_alias_bomb_is_read_without_being_printed(tmp_path: Path) -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
    path = tmp_path / "bomb.yaml"
    path.write_text(f"a0: &a0 [x]\n{levels}\nkind: Ingress\nmetadata: {{name: *a11, annotations: {{a: *a11}}}}\n")

    assert lint_files([path]) == []


@pytest.mark.parametrize(("manifest", "code"), [(ingress(), 0), (ingress(limit_rps=None), 1)])
def test_the_exit_code_says_whether_there_is_a_finding(tmp_path: Path, manifest: Manifest, code: int) -> None:
    path = tmp_path / "ingress.yaml"
    path.write_text(yaml.safe_dump(manifest))

    assert main([path], None, io.StringIO()) == code


def test_the_last_line_counts_what_was_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "ingress.yaml"
    path.write_text(yaml.safe_dump_all([ingress(), unguarded(host="www.example.com", service="web")]))
    out = io.StringIO()

    main([path], None, out)

    assert out.getvalue() == "1 file(s), 2 Ingress(es), 1 guarded by the verifier: no finding(s)\n"


CONFIGURATION = """
issuers: [{name: homelab, cognito: {user_pool_id: us-east-1_Example}}]
policies:
  api: {resource: {url: "https://api.example.com", authorization_servers: ["https://id.example.com"]}}
headers: {X-Tenant-ID: tenant}
"""


def test_the_command_knows_what_the_configuration_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "verifier.yaml").write_text(CONFIGURATION)
    (tmp_path / "api.yaml").write_text(yaml.safe_dump(ingress()))
    (tmp_path / "web.yaml").write_text(yaml.safe_dump(ingress(host="web.example.com", auth_url=VERIFY[:-3] + "web")))

    assert cli.main(["lint", f"--config={tmp_path}/verifier.yaml", f"{tmp_path}/api.yaml", f"{tmp_path}/web.yaml"]) == 1

    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(tmp_path))]
    assert [line.removeprefix(f"{tmp_path}/") for line in found] == [
        f"api.yaml: shop/api: {N}auth-response-headers [forgeable-header]",
        f"web.yaml: shop/api: {N}auth-url [unknown-policy]",
        f"web.yaml: shop/api: {N}auth-response-headers [forgeable-header]",
        f"api.yaml: shop/api: {N}auth-url [metadata-behind-auth]",
    ]


def test_the_command_needs_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "api.yaml").write_text(yaml.safe_dump(ingress()))

    assert cli.main(["lint", str(tmp_path / "api.yaml")]) == 0

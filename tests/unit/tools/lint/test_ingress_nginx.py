"""What lint says about one Ingress and its annotations."""

from typing import Any

import pytest

from tests.unit.tools.lint.manifest import VERIFY, Manifest, N, ingress, lint, rules, unguarded
from verifier.tools.lint import Known

HOST = "http://m2m-verifier.auth:8000"


CACHE_KEY = "$http_authorization$request_method$request_uri"
# The rule, what makes the trap, and what is close to it but makes none: annotations, or other arguments of ingress().
# fmt: off
TRAPS = {
    "an identity header is not listed": (
        "forgeable-header", {"auth_response_headers": "X-M2M-Client-ID, X-M2M-Scope, X-M2M-Issuer"},
        {"auth_response_headers": "x-m2m-client-id,x-m2m-scope,x-m2m-role,x-m2m-issuer,X-Other"},
    ),
    "no header is listed": ("forgeable-header", {"auth_response_headers": None}, {}),
    "keepalive to the verifier": ("auth-keepalive", {"auth_keepalive": "8"}, {"auth_keepalive": "0"}),
    "a cache key without the token": (
        "auth-cache-key", {"auth_cache_key": "$request_method$request_uri"},
        {"auth_cache_key": "${http_authorization}$request_method$request_uri"},
    ),
    "a cache key without the method": (
        "auth-cache-key", {"auth_cache_key": "$http_authorization$request_uri"},
        {"auth_cache_key": "$request_uri$http_authorization$request_method$host"},
    ),
    "a cache key with a variable that only begins like the URL's": (
        "auth-cache-key", {"auth_cache_key": CACHE_KEY + "_mine"}, {"auth_cache_key": CACHE_KEY},
    ),
    "a percent sign in the auth-url": (
        "auth-url-characters", {"auth_url": VERIFY + "?scope=read%20all"},
        {"auth_url": VERIFY + "?scope=read,write&client=homelab/7abc"},
    ),
    "a line break at the end of the auth-url, from a YAML block": (
        "auth-url-characters", {"auth_url": VERIFY + "\n"}, {},
    ),
    "the client's URI in the auth-url's query": (
        "auth-url-variable", {"auth_url": VERIFY + "?scope=$request_uri"}, {"auth_url": VERIFY + "?scope=read"},
    ),
    "the client's parameter as the policy": (
        "auth-url-variable", {"auth_url": f"{HOST}/verify/$arg_policy"}, {"auth_url": f"{HOST}/verify/$namespace"},
    ),
    "a mistyped parameter": (
        "auth-url-query", {"auth_url": VERIFY + "?scpoe=admin"},
        {"auth_url": VERIFY + "?scope=admin&client=etl&issuer=lab"},
    ),
    "a mistyped auth-url": (
        "no-guard", {"auth_url": None, "auth_ulr": VERIFY}, {"auth_url": "https://sso.example.com/oauth2/auth"},
    ),
    "a path that answers 200 to every request": (
        "auth-url-path", {"auth_url": f"{HOST}/health"}, {"auth_url": f"{HOST}/verify"},
    ),
    "a path below the policy": ("auth-url-path", {"auth_url": VERIFY + "/x"}, {}),
    "an auth-snippet": ("auth-snippet", {"auth_snippet": "proxy_set_header X-Forwarded-Host $host;"}, {}),
    "no rate limit": ("no-rate-limit", {"limit_rps": None}, {"limit_rps": None, "limit_rpm": "600"}),
    "no rate limit before a verifier of another name": (
        "no-rate-limit", {"auth_url": "http://auth.infra/verify/api", "limit_rps": None},
        {"auth_url": "http://auth.infra/verify/api"},
    ),
    "a rate limit of zero, which is none": ("no-rate-limit", {"limit_rps": "0"}, {"limit_rps": "1"}),
    "a rate limit of a hundred": ("no-rate-limit", {"limit_rps": "-100"}, {"limit_rps": "100"}),
    "no certificate": ("no-tls", {"tls": False}, {"tls": False, "force_ssl_redirect": "true"}),
    "no certificate for every host": ("no-tls", {"host": None, "tls": False}, {"host": None}),
    "a certificate for another host": ("no-tls", {"certified": "www.example.com"}, {"certified": "*.example.com"}),
    "plain http beside https": ("no-tls", {"ssl_redirect": "false"}, {"ssl_redirect": "true"}),
    "the controller's own guard off": (
        "global-auth-off", {"enable_global_auth": "false"}, {"enable_global_auth": "true"},
    ),
}
# fmt: on


@pytest.mark.parametrize(("rule", "trapped", "harmless"), TRAPS.values(), ids=TRAPS)
def test_a_trap_is_found_and_what_is_close_to_it_is_not(
    rule: str, trapped: dict[str, Any], harmless: dict[str, Any]
) -> None:
    assert (rule in rules(lint(ingress(**trapped))), lint(ingress(**harmless))) == (True, [])


def test_a_finding_names_file_line_object_annotation_reason_and_what_to_write() -> None:
    [finding] = lint(ingress(auth_response_headers="X-M2M-Client-ID, X-M2M-Scope, X-M2M-Issuer"))

    assert str(finding) == (
        f"{finding.file}:5: Ingress shop/api: {N}auth-response-headers [forgeable-header]\n"
        "  why:   X-M2M-Role not listed: the API receives what the client sent, not what the verifier answered\n"
        f'  write: {N}auth-response-headers: "X-M2M-Client-ID, X-M2M-Scope, X-M2M-Issuer, X-M2M-Role"'
    )


@pytest.mark.parametrize(
    ("url", "write"),
    [
        (VERIFY + "?scope=read%20all", VERIFY + "?scope=read20all"),
        (VERIFY + "?scope=$request_uri", VERIFY),
        (f"{HOST}/verify/$arg_policy", f"{HOST}/verify"),
        (f"{HOST}/health", f"{HOST}/verify/default"),
        (VERIFY + "?scpoe=admin", VERIFY),
        (VERIFY + "?scope=read&scpoe=admin&client=etl", VERIFY + "?scope=read&client=etl"),
    ],
)
def test_the_line_to_write_is_one_that_lint_accepts(url: str, write: str) -> None:
    [finding] = lint(ingress(auth_url=url))

    assert (finding.write, lint(ingress(auth_url=write))) == (f'{N}auth-url: "{write}"', [])


@pytest.mark.parametrize(("policies", "proposed"), [({"default", "apis"}, "apis"), ({"default", "web"}, "POLICY")])
def test_a_policy_that_the_configuration_lacks_is_found_and_only_a_similar_one_proposed(
    policies: set[str], proposed: str
) -> None:
    [finding] = lint(ingress(), known=Known(policies=frozenset(policies)))

    assert (finding.rule, "'api'" in finding.why) == ("unknown-policy", True)
    assert ", ".join(sorted(policies)) in finding.why
    assert finding.write.endswith(f'/verify/{proposed}"')


@pytest.mark.parametrize(
    ("path", "policies", "found"),
    [
        ("/verify", {"default"}, []), ("/verify", {"api"}, ["unknown-policy"]), ("/verify/api", {"api"}, []),
        ("/verify/", {"default"}, ["unknown-policy"]), ("/verify/anything", None, []),
    ],
)  # fmt: skip
def test_the_policy_is_the_one_that_the_verifier_reads_from_the_path(
    path: str, policies: set[str] | None, found: list[str]
) -> None:
    known = Known(policies and frozenset(policies))

    assert rules(lint(ingress(auth_url=HOST + path), known=known)) == found


CERTIFIED = {"auth_tls_secret": "shop/ca", "auth_tls_pass_certificate_to_upstream": "true"}


@pytest.mark.parametrize(
    ("manifests", "certificates", "found"),
    [
        ([ingress()], (), []),
        ([ingress(**CERTIFIED)], ("ssl-client-cert",), []),
        ([ingress(**CERTIFIED), ingress("b", paths=("/b",))], ("ssl-client-cert",), []),
        ([ingress()], ("ssl-client-cert",), ["auth-tls-secret", "auth-tls-pass-certificate-to-upstream"]),
        ([ingress(auth_tls_secret="shop/ca")], ("ssl-client-cert",), ["auth-tls-pass-certificate-to-upstream"]),
        ([ingress(**CERTIFIED), ingress("b", "b.example.com")], ("ssl-client-cert",),
         ["auth-tls-secret", "auth-tls-pass-certificate-to-upstream"]),
        ([ingress(**CERTIFIED)], ("ssl-client-cert", "x-client-cert"), ["auth-url"]),
    ],
)  # fmt: skip
def test_nginx_must_set_the_header_of_the_clients_certificate_on_each_guarded_host(
    manifests: list[Manifest], certificates: tuple[str, ...], found: list[str]
) -> None:
    findings = lint(*manifests, known=Known(certificates=certificates))

    assert [finding.place.removeprefix(N) for finding in findings] == found
    assert set(rules(findings)) <= {"forgeable-certificate"}


@pytest.mark.parametrize(
    "other",
    [
        ingress(auth_url="http://oauth2-proxy/oauth2/auth", auth_response_headers=None, limit_rps=None, tls=False),
        unguarded(tls=False, auth_snippet="x", auth_keepalive="9", enable_global_auth="false"),
        ingress(auth_url="http://authelia.auth.svc/api/verify", auth_cache_key="$cookie_session"),
    ],
    ids=["oauth2-proxy", "no auth at all", "authelia"],
)
def test_an_ingress_that_the_verifier_does_not_guard_is_ignored(other: Manifest) -> None:
    assert lint(other) == []


def test_an_unquoted_annotation_counts_as_what_it_says() -> None:
    manifest = ingress(limit_rps=None)
    manifest["metadata"]["annotations"] |= {N + "limit-rps": 20, N + "enable-global-auth": False}

    assert rules(lint(manifest)) == ["global-auth-off"]

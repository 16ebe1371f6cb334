"""What lint says about nginx directives in snippets, and about `satisfy`."""

import pytest

from tests.unit.tools.lint.manifest import ALL_HEADERS, Manifest, N, ingress, lint, rules, unguarded
from verifier.tools.lint import Known

SNIPPETS = {
    # name: the rule, a snippet that takes the guard away, and one that is close to it and does not
    "satisfy any": ("satisfy-any", "satisfy any;", "satisfy all;"),
    "satisfy any in other words": ("satisfy-any", 'allow all;\n\tsatisfy\n  "ANY" ;', "# satisfy any;\nallow all;"),
    "satisfy any in a block": ("satisfy-any", "if ($x) { set $y 1; } location /a { satisfy any; }", "set $s any;"),
    "satisfy any after a variable": ("satisfy-any", "set $a ${b}c; satisfy any;", 'add_header X "satisfy any;";'),
    "auth_request off": ("auth-request-off", "location /db/public { auth_request off; }", "auth_request_set $a $b;"),
    "auth_request off in quotes": ("auth-request-off", "auth_request 'off';", "set $auth_request off;"),
    "auth_request off at another place": ("auth-request-off", "auth_request off;", "auth_request /other;"),
    "an identity header": ("forgeable-header", "proxy_set_header X-M2M-Role admin;", "proxy_set_header X-Role a;"),
    "in quotes": ("forgeable-header", 'proxy_set_header "x-m2m-role" $arg_role;', "add_header X-M2M-Role a;"),
    "with underscores": ("forgeable-header", "proxy_set_header X_M2M_Role a;", "more_set_headers 'X-M2M-Role: a';"),
    "by headers-more": ("forgeable-header", "more_set_input_headers -r 'X-M2M-Role: a';", "# X-M2M-Role"),
    "to a gRPC API": ("forgeable-header", "grpc_set_header X-M2M-Role a;", "grpc_set_header X-Other x-m2m-role;"),
    "a mapped header": ("forgeable-header", "proxy_set_header X-User-ID a;", "proxy_set_header X-User a;"),
}
KNOWN = Known(headers=("X-User-ID",))
LISTED = f"{ALL_HEADERS}, X-User-ID"


@pytest.mark.parametrize("annotation", ["configuration_snippet", "server_snippet"])
@pytest.mark.parametrize(("rule", "harmful", "harmless"), SNIPPETS.values(), ids=SNIPPETS)
def test_a_directive_that_takes_the_guard_away_is_found(
    annotation: str, rule: str, harmful: str, harmless: str
) -> None:
    def found(snippet: str) -> list[str]:
        return rules(lint(ingress(auth_response_headers=LISTED, **{annotation: snippet}), known=KNOWN))

    assert (found(harmful), found(harmless)) == ([rule], [])


@pytest.mark.parametrize("annotation", [N + "auth-snippet", "nginx.org/location-snippets", "example.com/http-snippet"])
def test_every_annotation_that_holds_a_snippet_is_read(annotation: str) -> None:
    manifest = ingress()
    manifest["metadata"]["annotations"][annotation] = "satisfy any;"

    assert "satisfy-any" in rules(lint(manifest))


@pytest.mark.parametrize("value", ["any", "Any", " any\n"])
def test_satisfy_any_beside_a_guard_is_found(value: str) -> None:
    [finding] = lint(ingress(satisfy=value))

    assert (finding.rule, finding.place) == ("satisfy-any", N + "satisfy")
    assert lint(ingress(satisfy="all")) == []


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (unguarded(paths=("/.well-known/acme-challenge",), server_snippet="satisfy any;"), ["satisfy-any"]),
        (unguarded(paths=("/.well-known/acme-challenge",), configuration_snippet="satisfy any;"), []),
        (unguarded(host="www.example.com", service="web", server_snippet="satisfy any;"), []),
    ],
    ids=["the server of a guarded host", "a location of its own", "another host"],
)
def test_a_server_snippet_counts_for_every_ingress_of_the_host(other: Manifest, found: list[str]) -> None:
    assert rules(lint(ingress(), other)) == found


def test_a_finding_names_annotation_and_directive() -> None:
    [finding] = lint(ingress(configuration_snippet="proxy_set_header\n  X-M2M-Role admin;"))

    assert (finding.place, finding.object) == (N + "configuration-snippet", "Ingress shop/api")
    assert "`proxy_set_header X-M2M-Role admin`" in finding.write

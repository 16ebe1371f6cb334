"""The configuration block that ``m2m-verifier guard`` prints."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.unit.tools.lint.manifest import METADATA, N, lint
from verifier import cli
from verifier.identity import IDENTITY_HEADERS
from verifier.tools.guard import PROXIES, Guard
from verifier.tools.lint import Known

MAPPED = ("X-User-ID", "X-Tenant-ID")
Command = Callable[..., tuple[int, str, str]]
HEADERS = (*IDENTITY_HEADERS, *MAPPED)

CONFIGURATION = """
issuers: [{name: lab, cognito: {user_pool_id: us-east-1_Example}}]
policies:
  orders: {scope: [read]}
  mcp: {resource: {url: "https://mcp.example", authorization_servers: ["https://id.example"]}}
headers: {X-User-ID: sub, X-Tenant-ID: "custom:tenant"}
"""


@pytest.fixture
def guard(tmp_path: Path, capsys: pytest.CaptureFixture[str], no_environment: None) -> Command:
    """Exit status, standard output and standard error of the command, with a configuration or (None) without."""

    def run(proxy: str, policy: str = "orders", configuration: str | None = CONFIGURATION) -> tuple[int, str, str]:
        path = tmp_path / "m2m.yaml"
        path.write_text(configuration or "")
        options = ["--config", str(path)] if configuration else []
        return cli.main(["guard", "--proxy", proxy, "--policy", policy, *options]), *capsys.readouterr()

    return run


@pytest.mark.parametrize("header", HEADERS)
def test_nginx_overwrites_each_header_with_the_verifiers_own_value(header: str) -> None:
    block = Guard("orders", MAPPED).block("nginx")
    [variable] = re.findall(rf"^ *proxy_set_header {header} (\$\w+);", block, re.MULTILINE)

    assert f"auth_request_set {variable} $upstream_http_{header.lower().replace('-', '_')};" in block
    assert block.count(f"auth_request_set {variable} ") == 1


@pytest.mark.parametrize("mapped", ["Host", "X-Request-Id", "connection"])
def test_a_header_that_the_block_sets_anyway_is_set_once_by_its_mapping_if_there_is_one(mapped: str) -> None:
    def passed(guard: Guard) -> list[tuple[str, str]]:
        location = guard.block("nginx").partition("location / {")[2].partition("}")[0]
        found = re.findall(r"proxy_set_header (host|x-request-id|connection) (\S+);", location, re.IGNORECASE)
        return sorted((name.lower(), value) for name, value in found)

    anyway = {"connection": '""', "host": "$http_host", "x-request-id": "$m2m_request_id"}
    variable = f"$m2m_mapped_{mapped.lower().replace('-', '_')}"

    assert passed(Guard("orders")) == [*anyway.items()]
    assert passed(Guard("orders", (mapped,))) == [*(anyway | {mapped.lower(): variable}).items()]


ASKS = {
    "nginx": "/verify/orders", "ingress-nginx": "/verify/orders", "nginx-ingress-controller": "/verify/orders",
    "haproxy": "/verify/orders", "traefik": "/forward-auth/orders", "traefik-ingress-nginx": "/forward-auth/orders",
    "caddy": "/forward-auth/orders?", "nginx-gateway-fabric": "/gateway-fabric/orders",
}  # fmt: skip


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_block_asks_in_its_dialect_and_lists_every_header(proxy: str) -> None:
    guard = Guard("orders", MAPPED)
    lines = guard.block(proxy).splitlines()
    guarding = " ".join(lines[number] for number in guard.guarding(proxy)).lower()
    path = ASKS.get(proxy, "/ext-authz/orders")  # no slash at its end: the request's own path follows

    assert [path in line.split() or f"{path};" in line or line.endswith(path) for line in lines].count(True) >= 1
    assert [header for header in HEADERS if header.lower() not in guarding] == []


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_line_that_guards_has_its_reason_beside_or_above_it_or_is_in_a_list_that_has_one(proxy: str) -> None:
    guard = Guard("orders", MAPPED)
    lines = guard.block(proxy).splitlines()
    bare = [number for number in guard.guarding(proxy) if "# guards: " not in lines[number] + lines[number - 1]]

    assert [
        lines[number] for number in bare if not any(header.lower() in lines[number].lower() for header in HEADERS)
    ] == []
    for number in bare:
        first = next(above for above in range(number, -1, -1) if above not in bare)
        assert any("#" in line for line in lines[max(first - len(HEADERS) - 1, 0) : first + 1])


def test_caddy_removes_each_header_and_those_with_underscores_before_it_asks() -> None:
    """A Caddy before 2.11.2 would pass on the client's header where the verifier's is empty."""
    before = Guard("orders", MAPPED).block("caddy").partition("\t\tforward_auth")[0].splitlines()

    assert {f"\t\trequest_header -{name}" for name in (*HEADERS, "*_*")} <= set(before)


@pytest.mark.parametrize("policy", ["orders", "Orders_2.eu"])
@pytest.mark.parametrize("proxy", [proxy for proxy, file in PROXIES.items() if file.endswith(".yaml")])
def test_every_object_has_a_name_that_kubernetes_accepts(proxy: str, policy: str) -> None:
    block = Guard(policy).block(proxy)
    found = [document.get("metadata", {}).get("name", "x") for document in yaml.safe_load_all(block)]
    found += re.findall("secretName: ([^ ,}\n]+)", block)

    assert [name for name in found if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)] == []


def test_the_ingress_lists_the_headers_and_each_annotation_has_its_reason_above_it() -> None:
    block = Guard("orders", MAPPED, resource=False).block("ingress-nginx")

    assert yaml.safe_load(block)["metadata"]["annotations"][N + "auth-response-headers"] == ", ".join(HEADERS)
    above = re.findall(rf"^( *\S).*\n *{re.escape(N)}([a-z-]+):", block, re.MULTILINE)
    assert above == [("    #", key) for key in ("auth-url", "auth-response-headers", "limit-rps")]


def test_only_where_the_configuration_names_their_header_certificates_are_passed(guard: Command) -> None:
    first = "{name: lab, client_certificate_header: SSL-Client-Cert, cognito: {user_pool_id: us-east-1_Example}}"
    second = "{name: two, client_certificate_header: X-Cert, cognito: {user_pool_id: us-east-1_Other}}"
    one, two = (f"issuers: [{issuers}]\npolicies: {{orders: {{}}}}" for issuers in (first, f"{first}, {second}"))
    line = "    proxy_set_header ssl-client-cert $ssl_client_escaped_cert;\n"

    _, block, _ = guard("nginx", configuration=one)
    assert block.partition("location = /_m2m {")[2].count(line) == block.count("$ssl_client_escaped_cert") == 1
    assert lint(guard("ingress-nginx", configuration=one)[1], known=Known(certificates=("ssl-client-cert",))) == []
    assert guard("nginx", configuration=two)[1].count("$ssl_client_escaped_cert;") == 2
    error = "--proxy: ingress-nginx needs client_certificate_header: ssl-client-cert\n"
    assert guard("ingress-nginx", configuration=two) == (2, "", error)


@pytest.mark.parametrize("proxy", PROXIES)
def test_without_such_a_header_no_block_names_a_certificate(proxy: str) -> None:
    assert not re.search("client_cert|auth-tls", Guard("orders").block(proxy))


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize(("policy", "public"), [("mcp", True), ("orders", False)])
def test_headers_and_public_document_are_those_of_the_configuration(
    proxy: str, policy: str, public: bool, guard: Command
) -> None:
    _, block, _ = printed = guard(proxy, policy)

    assert printed == (0, Guard(policy, MAPPED, public).block(proxy), "")
    assert (METADATA in block) is public


def test_the_configuration_may_be_that_of_the_environment(
    guard: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "named.yaml").write_text(CONFIGURATION)
    monkeypatch.setenv("M2M_CONFIG", str(tmp_path / "named.yaml"))

    assert guard("nginx", configuration=None) == (0, Guard("orders", MAPPED, resource=False).block("nginx"), "")


def test_without_a_configuration_the_block_says_what_it_cannot_know(guard: Command) -> None:
    status, block, errors = guard("nginx", configuration=None)

    assert (status, block, "--config" in errors) == (0, Guard("orders").block("nginx"), True)


@pytest.mark.parametrize(
    ("proxy", "policy", "error"),
    [
        ("apache", "orders", f"--proxy: must be one of {', '.join(PROXIES)}"),
        ("nginx", "order", "--policy: the configuration has no policy 'order'; its policies are default, mcp, orders"),
        # A name that would change the block.
        *[("nginx", name, "--policy: must be letters, digits, dots, dashes or underscores")
          for name in ("", "a/b", "a b", "x;proxy_pass", "$arg_p", "a\nb")],
    ],
)  # fmt: skip
def test_a_proxy_or_a_policy_that_cannot_be_used_is_refused(
    guard: Command, proxy: str, policy: str, error: str
) -> None:
    assert guard(proxy, policy) == (2, "", f"{error}\n")

"""The configuration block that ``m2m-verifier guard`` prints."""

import re
from pathlib import Path

import pytest
import yaml

from tests.unit.tools.lint.manifest import METADATA, N
from verifier import cli
from verifier.identity import IDENTITY_HEADERS
from verifier.tools.guard import PROXIES, Guard
from verifier.tools.lint import Known, lint_files

MAPPED = ("X-User-ID", "X-Tenant-ID")
HEADERS = (*IDENTITY_HEADERS, *MAPPED)

CONFIGURATION = """
issuers: [{name: lab, cognito: {user_pool_id: us-east-1_Example}}]
policies:
  orders: {scope: [read]}
  mcp: {resource: {url: "https://mcp.example", authorization_servers: ["https://id.example"]}}
headers: {X-User-ID: sub, X-Tenant-ID: "custom:tenant"}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "m2m.yaml"
    path.write_text(CONFIGURATION)
    return path


@pytest.mark.parametrize("header", HEADERS)
def test_nginx_overwrites_each_header_with_the_verifiers_own_value(header: str) -> None:
    block = Guard("orders", MAPPED).block("nginx")
    [variable] = re.findall(rf"^ *proxy_set_header {header} (\$\w+);", block, re.MULTILINE)

    assert f"auth_request_set {variable} $upstream_http_{header.lower().replace('-', '_')};" in block
    assert block.count(f"auth_request_set {variable} ") == 1


@pytest.mark.parametrize("mapped", ["Host", "X-Request-Id", "connection"])
def test_a_header_that_the_block_sets_anyway_is_set_once_by_its_mapping_if_there_is_one(mapped: str) -> None:
    def passed(block: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, value in re.findall(
            r"proxy_set_header (\S+) (\S+);", block.partition("location / {")[2].partition("}")[0]
        ):
            found.setdefault(name.lower(), []).append(value)
        return {name: found[name] for name in ("host", "x-request-id", "connection")}

    anyway = {"host": ["$http_host"], "x-request-id": ["$m2m_request_id"], "connection": ['""']}
    variable = f"$m2m_mapped_{mapped.lower().replace('-', '_')}"

    assert passed(Guard("orders").block("nginx")) == anyway
    assert passed(Guard("orders", (mapped,)).block("nginx")) == anyway | {mapped.lower(): [variable]}


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


def test_only_where_the_configuration_names_their_header_certificates_are_passed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m2m.yaml"
    first = "{name: lab, client_certificate_header: SSL-Client-Cert, cognito: {user_pool_id: us-east-1_Example}}"
    second = "{name: two, client_certificate_header: X-Cert, cognito: {user_pool_id: us-east-1_Other}}"
    path.write_text(f"issuers: [{first}]\npolicies: {{orders: {{}}}}")
    arguments = ["--policy", "orders", "--config", str(path)]

    assert cli.main(["guard", "--proxy", "nginx", *arguments]) == 0
    block = capsys.readouterr().out
    line = "    proxy_set_header ssl-client-cert $ssl_client_escaped_cert;\n"
    assert block.partition("location = /_m2m {")[2].count(line) == block.count("$ssl_client_escaped_cert") == 1
    assert cli.main(["guard", "--proxy", "ingress-nginx", *arguments]) == 0
    (tmp_path / "ingress.yaml").write_text(capsys.readouterr().out)
    assert lint_files([tmp_path / "ingress.yaml"], Known(certificates=("ssl-client-cert",))) == []

    path.write_text(f"issuers: [{first}, {second}]\npolicies: {{orders: {{}}}}")
    assert cli.main(["guard", "--proxy", "nginx", *arguments]) == 0
    assert capsys.readouterr().out.count("$ssl_client_escaped_cert;") == 2
    assert cli.main(["guard", "--proxy", "ingress-nginx", *arguments]) == 2
    assert "needs client_certificate_header: ssl-client-cert" in capsys.readouterr().err


@pytest.mark.parametrize("proxy", PROXIES)
def test_without_such_a_header_no_block_names_a_certificate(proxy: str) -> None:
    assert not re.search("client_cert|auth-tls", Guard("orders").block(proxy))


@pytest.mark.parametrize("from_environment", [False, True])
@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize(("policy", "public"), [("mcp", True), ("orders", False)])
def test_headers_and_public_document_are_those_of_the_configuration(
    proxy: str, policy: str, public: bool, from_environment: bool, config: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, no_environment: None,
) -> None:  # fmt: skip
    arguments = ["guard", "--proxy", proxy, "--policy", policy]
    if from_environment:
        monkeypatch.setenv("M2M_CONFIG", str(config))
    else:
        arguments += ["--config", str(config)]

    assert cli.main(arguments) == 0
    block = capsys.readouterr().out
    assert (block, METADATA in block) == (Guard(policy, MAPPED, public).block(proxy), public)


def test_without_a_configuration_the_block_says_what_it_cannot_know(
    capsys: pytest.CaptureFixture[str], no_environment: None
) -> None:
    assert cli.main(["guard", "--proxy", "nginx", "--policy", "orders"]) == 0
    out, errors = capsys.readouterr()

    assert (out, "--config" in errors) == (Guard("orders").block("nginx"), True)


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
    proxy: str, policy: str, error: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["guard", "--proxy", proxy, "--policy", policy, "--config", str(config)]) == 2
    assert capsys.readouterr() == ("", f"{error}\n")

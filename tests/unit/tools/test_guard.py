"""The configuration block that ``m2m-verifier guard`` prints."""

import re
from pathlib import Path

import pytest
import yaml

from tests.unit.tools.lint.manifest import N
from verifier import cli
from verifier.identity import IDENTITY_HEADERS
from verifier.tools.guard import PROXIES, Guard
from verifier.tools.lint import Known, lint_files

MAPPED = ("X-User-ID", "X-Tenant-ID")

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


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert cli.main(["guard", *map(str, arguments)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("header", [*IDENTITY_HEADERS, *MAPPED])
def test_the_block_has_every_header_of_the_configuration(
    proxy: str, header: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert header in printed(capsys, "--proxy", proxy, "--policy", "orders", "--config", config)


@pytest.mark.parametrize("header", [*IDENTITY_HEADERS, *MAPPED])
def test_nginx_overwrites_each_header_with_the_verifiers_own_value(header: str) -> None:
    block = Guard("orders", MAPPED).block("nginx")
    [variable] = re.findall(rf"^ *proxy_set_header {header} (\$\w+);", block, re.MULTILINE)

    assert f"auth_request_set {variable} $upstream_http_{header.lower().replace('-', '_')};" in block
    assert block.count(f"auth_request_set {variable} ") == 1


def test_a_mapped_header_that_the_block_sets_anyway_is_set_once() -> None:
    block = Guard("orders", ("X-Request-Id",)).block("nginx")
    location = block.partition("location / {")[2].partition("}")[0]

    assert re.findall(r"proxy_set_header x-request-id (\S+);", location, re.IGNORECASE) == ["$m2m_mapped_x_request_id"]


@pytest.mark.parametrize(
    "line",
    [
        "satisfy all;",
        "auth_request /_m2m;",
        "internal;",
        "proxy_pass_request_body off;",
        'proxy_set_header Content-Length "";',
        "proxy_set_header X-Original-URL $scheme://$http_host$request_uri;",
        "proxy_set_header X-Original-Method $request_method;",
        "proxy_pass http://m2m_verifier/verify/orders;",
    ],
)
def test_each_line_that_guards_nginx_has_its_reason_beside_it(line: str) -> None:
    [found] = [one.strip() for one in Guard("orders").block("nginx").splitlines() if one.strip().startswith(line)]

    assert re.fullmatch(re.escape(line) + r" +# \S.+", found)


@pytest.mark.parametrize("policy", ["orders", "Orders_2.eu"])
def test_lint_finds_no_trap_in_the_ingress(policy: str, tmp_path: Path) -> None:
    path = tmp_path / "ingress.yaml"
    path.write_text(Guard(policy, MAPPED, resource=True).block("ingress-nginx"))

    assert lint_files([path], Known(frozenset({policy}), frozenset({policy}), MAPPED)) == []


def test_every_name_in_the_ingress_is_one_that_kubernetes_accepts() -> None:
    [ingress, metadata] = yaml.safe_load_all(Guard("Orders_2.eu", resource=True).block("ingress-nginx"))
    names = [ingress["metadata"]["name"], metadata["metadata"]["name"], ingress["spec"]["tls"][0]["secretName"]]

    assert [name for name in names if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)] == []


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize(("policy", "public"), [("mcp", True), ("orders", False)])
def test_the_metadata_document_is_public_where_the_policy_has_one(
    proxy: str, policy: str, public: bool, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = printed(capsys, "--proxy", proxy, "--policy", policy, "--config", config)

    assert ("/.well-known/oauth-protected-resource" in block) is public


def test_without_a_configuration_the_block_says_what_it_cannot_know(
    capsys: pytest.CaptureFixture[str], no_environment: None
) -> None:
    assert cli.main(["guard", "--proxy", "nginx", "--policy", "orders"]) == 0
    out, errors = capsys.readouterr()

    assert (out, "--config" in errors) == (Guard("orders").block("nginx"), True)


def test_the_file_that_the_environment_names_counts_as_the_configuration(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_environment: None
) -> None:
    monkeypatch.setenv("M2M_CONFIG", str(config))

    assert "X-Tenant-ID" in printed(capsys, "--proxy", "nginx", "--policy", "orders")


def test_a_policy_that_the_configuration_lacks_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["guard", "--proxy", "nginx", "--policy", "order", "--config", str(config)]) == 2
    assert capsys.readouterr().err == (
        "--policy: the configuration has no policy 'order'; its policies are default, mcp, orders\n"
    )


@pytest.mark.parametrize("policy", ["", "a/b", "a b", "x;proxy_pass", "$arg_p", "a\nb"])
def test_a_policy_name_that_would_change_the_block_is_refused(
    policy: str, capsys: pytest.CaptureFixture[str], no_environment: None
) -> None:
    assert cli.main(["guard", "--proxy", "nginx", "--policy", policy]) == 2
    assert capsys.readouterr().out == ""


def test_an_unknown_proxy_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["guard", "--proxy", "apache", "--policy", "orders"]) == 2
    assert capsys.readouterr().err == f"--proxy: must be one of {', '.join(PROXIES)}\n"


def test_the_annotation_lists_the_headers_with_their_reason(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = printed(capsys, "--proxy", "ingress-nginx", "--policy", "orders", "--config", config)
    [ingress] = yaml.safe_load_all(block)

    listed = ingress["metadata"]["annotations"][N + "auth-response-headers"]
    assert listed == ", ".join([*IDENTITY_HEADERS, *MAPPED])
    lines = block.splitlines()
    for key in ("auth-url", "auth-response-headers", "limit-rps"):
        [number] = [number for number, line in enumerate(lines) if f"{N}{key}:" in line]
        assert lines[number - 1].strip().startswith("#")

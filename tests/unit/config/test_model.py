"""The sections of a configuration: what they may hold, and what they become."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.config.support import MakeConfig, Problems, issuer
from verifier.config.model import Settings
from verifier.policy.policies import Policy

MakePolicy = Callable[..., Policy]
ROOT = Path(__file__).parents[3]


def test_the_contracts_example_is_accepted(make_config: MakeConfig) -> None:
    config = make_config("""
issuers:
  - name: homelab
    cognito: {region: us-east-1, user_pool_id: us-east-1_Example}
    clients: [7abc, 9def]
  - name: okta
    profile: okta
    issuer: https://example.okta.com/oauth2/default
    jwks_url: https://example.okta.com/oauth2/default/v1/keys
    audience: [api://default]
    algorithms: [RS256]
    claims: {client_id: cid, scope: scp}
    scope_prefix: ""
    allow_users: false
scope_prefix: https://api.lab.informationcart.com/
policies:
  default: {}
  api:
    scope: [read]
    rules:
      - {path: /db/**, methods: [GET, HEAD]}
      - {path: /db/**, methods: [POST, PUT, PATCH, DELETE], scope: [write]}
      - {path: /admin/**, any_scope: [admin, root]}
    clients: [homelab/7abc]
    issuers: [homelab]
    mode: enforce
    resource: {url: https://api.example/mcp, authorization_servers: [https://a.example], scopes_supported: [read]}
roles:
  clients: {homelab/7abc: "arn:aws:iam::123456789012:role/etl"}
  scopes: {query.admin: "arn:aws:iam::123456789012:role/admin"}
  required: false
revoked: {clients: [], tokens: []}
headers: {X-User-ID: sub, X-Tenant-ID: "custom:tenant"}
leeway: 10
cache: {size: 10000, ttl: 300}
max_header_bytes: 3584
nginx_cache_ttl: 0
audit: all
""")

    assert [issuer.name for issuer in config.issuers] == ["homelab", "okta"]
    assert set(config.policies.by_name) == {"default", "api"}


def test_the_defaults_are_those_of_the_contract(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    config = make_config(lab)

    assert (config.leeway, config.cache_size, config.cache_ttl) == (10, 10_000, 300)
    assert (config.max_header_bytes, config.nginx_cache_ttl, config.audit) == (3584, 0, "all")
    assert (config.issuers[0].algorithms, config.issuers[0].allow_users) == ({"RS256"}, False)


def test_the_policy_default_always_exists(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    default = make_config(lab).policies.by_name["default"]

    assert (default.needs, default.rules, default.clients, default.issuers, default.report) == (
        (), (), None, None, False,
    )  # fmt: skip


def test_the_file_may_define_default(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    config = make_config({**lab, "policies": {"default": {"scope": ["read"]}}})

    assert config.policies.by_name["default"].needs == (("read",),)


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        ("x", {"x": 1}),
        ("leeway", {"leeway": -1}),
        ("leeway", {"leeway": "soon"}),
        ("leeway", {"leeway": None}),
        ("leeway", {"leeway": True}),
        ("cache.size", {"cache": {"size": -1}}),
        ("cache.ttl", {"cache": {"ttl": -1}}),
        ("cache.x", {"cache": {"x": 1}}),
        ("max_header_bytes", {"max_header_bytes": 0}),
        ("nginx_cache_ttl", {"nginx_cache_ttl": -1}),
        ("audit", {"audit": "some"}),
        ("policies.a b", {"policies": {"a b": {}}}),
        ("policies.a/b", {"policies": {"a/b": {}}}),
        ("roles.clients.etl", {"roles": {"clients": {"etl": "a\nb"}}}),
        ("roles.clients.etl", {"roles": {"clients": {"etl": "é"}}}),
        ("roles.scopes.a b", {"roles": {"scopes": {"a b": "r"}}}),
        ("roles.required", {"roles": {"required": "perhaps"}}),
        ("revoked.jtis", {"revoked": {"jtis": []}}),
        ("revoked.tokens[0]", {"revoked": {"tokens": [""]}}),
        ("headers.X Y", {"headers": {"X Y": "sub"}}),
        ("headers.X:Y", {"headers": {"X:Y": "sub"}}),
        ("headers.X-User", {"headers": {"X-User": ""}}),
        ("headers.x-user", {"headers": {"X-User": "sub", "x-user": "sub"}}),
        ("scope_prefix", {"scope_prefix": "a b"}),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(
    problems: Problems, lab: dict[str, Any], place: str, changes: dict[str, Any]
) -> None:
    assert re.search(rf"m2m\.yaml:\d+: {re.escape(place)}: .", "\n".join(problems({**lab, **changes})))


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        ("scopes", {"scopes": ["a"]}),
        ("scope[0]", {"scope": ["a b"]}),
        ("scope[0]", {"scope": ['a"']}),
        ("mode", {"mode": "off"}),
        ("clients", {"clients": "etl"}),
        ("clients[0]", {"clients": ["a b"]}),
        ("issuers[0]", {"issuers": ["other"]}),
        ("rules", {"rules": []}),
        ("rules[0].path", {"rules": [{"path": "db"}]}),
        ("rules[0].path", {"rules": [{"path": "/a*"}]}),
        ("rules[0].path", {"rules": [{"path": "/a%20b"}]}),
        ("rules[0].path", {"rules": [{"path": "/a/../b"}]}),
        ("rules[0].path", {"rules": [{"methods": ["GET"]}]}),
        ("rules[0].methods[0]", {"rules": [{"path": "/", "methods": ["get"]}]}),
        ("rules[0].methods", {"rules": [{"path": "/", "methods": []}]}),
        ("rules[0].any_scope", {"rules": [{"path": "/", "any_scope": []}]}),
        ("rules[0].verbs", {"rules": [{"path": "/", "verbs": ["GET"]}]}),
        ("resource.authorization_servers", {"resource": {"url": "https://a.example"}}),
        ("resource.url", {"resource": {"url": "http://a.example/mcp", "authorization_servers": ["https://b.example"]}}),
        ("resource.url", {"resource": {"url": "https://a.example/#x", "authorization_servers": ["https://b.example"]}}),
        ("resource", {"resource": {"url": "https://a.example?x", "authorization_servers": ["https://b.example"]}}),
    ],
)
def test_a_policys_wrong_value_is_refused_with_its_place(
    problems: Problems, lab: dict[str, Any], place: str, changes: dict[str, Any]
) -> None:
    found = "\n".join(problems({**lab, "policies": {"api": changes}}))

    assert re.search(rf"m2m\.yaml:\d+: policies\.api\.{re.escape(place)}: .", found)


@pytest.mark.parametrize(
    "name",
    ["X-M2M-Client-ID", "x-m2m-role", "X-M2M-Anything", "Cache-Control", "WWW-Authenticate", "Content-Length",
     "content-type", "Set-Cookie", "Authorization", "Host", "Connection", "Transfer-Encoding", "Retry-After"],
)  # fmt: skip
def test_a_header_that_the_verifier_itself_sends_cannot_be_mapped(
    problems: Problems, lab: dict[str, Any], name: str
) -> None:
    assert f"headers.{name}: " in "".join(problems({**lab, "headers": {name: "sub"}}))


def test_claims_are_mapped_to_headers_in_file_order(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    config = make_config({**lab, "headers": {"X-User-ID": "sub", "X-Tenant-ID": "custom:tenant"}})

    assert list(config.headers.items()) == [("X-User-ID", "sub"), ("X-Tenant-ID", "custom:tenant")]


@pytest.mark.parametrize(
    ("given", "needs"),
    [
        ({}, ()),
        ({"scope": "read"}, (("read",),)),
        ({"scope": ["read"]}, (("read",),)),
        ({"scope": ["read", "write"]}, (("read",), ("write",))),
    ],
)
def test_a_policys_scopes_are_all_needed(policy: MakePolicy, given: dict[str, Any], needs: Any) -> None:
    assert policy(**given).needs == needs


def test_a_rule_needs_its_scopes_and_one_of_its_alternatives(policy: MakePolicy) -> None:
    rule = policy(rules=[{"path": "/a", "methods": "GET", "scope": ["x", "y"], "any_scope": ["a", "b"]}]).rules[0]

    assert (rule.path.text, rule.methods, rule.needs) == ("/a", {"GET"}, (("x",), ("y",), ("a", "b")))


def test_rules_keep_their_order(policy: MakePolicy) -> None:
    assert [rule.path.text for rule in policy(rules=[{"path": "/b"}, {"path": "/a"}]).rules] == ["/b", "/a"]


@pytest.mark.parametrize(("mode", "report"), [("enforce", False), ("report", True)])
def test_a_policy_enforces_or_reports(policy: MakePolicy, mode: str, report: bool) -> None:
    assert policy(mode=mode).report is report


def test_a_required_role_is_required_by_every_policy(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    config = make_config({**lab, "roles": {"required": True}, "policies": {"api": {}}})

    assert all(policy.role_required for policy in config.policies.by_name.values())


def test_a_resources_scopes_are_written_as_a_token_holds_them(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    given = {
        "url": "https://api.example/mcp", "authorization_servers": ["https://as.example"],
        "scopes_supported": ["read", "https://api/write"],
    }  # fmt: skip
    config = make_config({**lab, "scope_prefix": "https://api/", "policies": {"mcp": {"resource": given}}})
    resource = config.policies.by_name["mcp"].resource

    assert resource is not None
    assert resource.scopes_supported == ("https://api/read", "https://api/write")


@pytest.fixture
def two(lab: dict[str, Any]) -> dict[str, Any]:
    """Two issuers."""
    return {"issuers": lab["issuers"] + issuer(name="okta", issuer="https://okta.example")["issuers"]}


def test_with_one_issuer_a_client_id_stands_alone(policy: MakePolicy) -> None:
    assert policy(clients=["etl", "lab/other"]).clients == {("lab", "etl"), ("lab", "other")}


def test_with_several_issuers_a_client_id_names_its_own(make_config: MakeConfig, two: dict[str, Any]) -> None:
    config = make_config({**two, "policies": {"api": {"clients": ["okta/etl"]}}, "roles": {"clients": {"lab/a": "r"}}})

    assert config.policies.by_name["api"].clients == {("okta", "etl")}
    assert config.roles.clients == {("lab", "a"): "r"}


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        ("policies.api.clients[1]", {"policies": {"api": {"clients": ["lab/a", "etl"]}}}),
        ("policies.api.clients[0]", {"policies": {"api": {"clients": ["other/etl"]}}}),
        ("roles.clients.etl", {"roles": {"clients": {"etl": "r"}}}),
    ],
)
def test_with_several_issuers_a_bare_client_id_is_an_error(
    problems: Problems, two: dict[str, Any], place: str, changes: dict[str, Any]
) -> None:
    found = "".join(problems({**two, **changes}))

    assert f"{place}: " in found
    assert "must be written issuer-name" in found


def test_a_bare_revoked_client_counts_for_all_issuers(make_config: MakeConfig, two: dict[str, Any]) -> None:
    revoked = make_config({**two, "revoked": {"clients": ["etl", "okta/x"], "tokens": ["t"]}}).revoked

    assert "etl" in revoked.bare_clients
    assert (revoked.clients, revoked.tokens) == ({("okta", "x")}, {"t"})


@pytest.mark.parametrize("section", ["policies", "roles", "revoked", "headers", "cache"])
def test_a_section_without_lines_counts_as_absent(make_config: MakeConfig, lab: dict[str, Any], section: str) -> None:
    assert make_config({**lab, section: None}).policies.by_name.keys() == {"default"}


def test_a_policy_without_lines_accepts_any_valid_token(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    made = make_config({**lab, "policies": {"api": None}}).policies.by_name["api"]

    assert (made.needs, made.rules, made.clients) == ((), (), None)


def test_the_published_schema_is_generated_from_the_model() -> None:
    """``make schema`` writes it; in it, one text may stand for a list."""
    schema = json.loads((ROOT / "docs" / "config.schema.json").read_text("utf-8"))

    assert schema == Settings.model_json_schema()
    assert {"type": "string"} in schema["$defs"]["IssuerSettings"]["properties"]["audience"]["anyOf"]

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
TWO = {"issuers": issuer()["issuers"] + issuer(name="okta", issuer="https://okta.example")["issuers"]}


def test_the_example_in_the_documentation_is_accepted(make_config: MakeConfig) -> None:
    example = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "configuration.md").read_text("utf-8"), re.DOTALL)
    assert example is not None
    config = make_config(example[1])

    assert [issuer.name for issuer in config.issuers] == ["homelab", "okta"]
    assert set(config.policies.by_name) == {"default", "api"}
    assert config.policies.by_name["api"].resource is not None


def test_the_defaults_are_those_of_the_contract(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    config = make_config(lab)

    assert (config.leeway, config.cache_size, config.cache_ttl) == (10, 10_000, 300)
    assert (config.max_header_bytes, config.nginx_cache_ttl, config.audit) == (3584, 0, "all")


def test_an_unquoted_off_turns_the_audit_off(make_config: MakeConfig) -> None:
    assert make_config("issuers: [{name: lab, issuer: 'https://i.example', audience: any}]\naudit: off").audit == "off"


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        ("x", {"x": 1}),
        ("issuers", {"issuers": []}),
        *(("leeway", {"leeway": value}) for value in (-1, "soon", None, True)),
        ("cache.size", {"cache": {"size": -1}}),
        ("cache.ttl", {"cache": {"ttl": -1}}),
        ("cache.x", {"cache": {"x": 1}}),
        ("max_header_bytes", {"max_header_bytes": 0}),
        ("nginx_cache_ttl", {"nginx_cache_ttl": -1}),
        ("audit", {"audit": "some"}),
        ("policies.a b", {"policies": {"a b": {}}}),
        ("policies.a/b", {"policies": {"a/b": {}}}),
        *(("roles.clients.etl", {"roles": {"clients": {"etl": role}}}) for role in ("a\nb", "é")),
        ("roles.scopes.a b", {"roles": {"scopes": {"a b": "r"}}}),
        ("roles.required", {"roles": {"required": "perhaps"}}),
        ("revoked.jtis", {"revoked": {"jtis": []}}),
        ("revoked.tokens[0]", {"revoked": {"tokens": [""]}}),
        ("headers.X Y", {"headers": {"X Y": "sub"}}),
        ("headers.X:Y", {"headers": {"X:Y": "sub"}}),
        ("headers.X-User", {"headers": {"X-User": ""}}),
        ("headers.x-user", {"headers": {"X-User": "sub", "x-user": "sub"}}),
        *(
            (f"headers.{name}", {"headers": {name: "sub"}})
            for name in (
                "X-M2M-Client-ID", "x-m2m-role", "X-M2M-Anything", "Cache-Control", "WWW-Authenticate", "Retry-After",
                "Date", "Server", "Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "content-type",
                "Content-Encoding", "TE", "Trailer", "Upgrade", "Set-Cookie", "Location", "Host", "Authorization",
                "Proxy-Authenticate",
            )
        ),
        ("scope_prefix", {"scope_prefix": "a b"}),
        ("policies.api.clients[1]", {**TWO, "policies": {"api": {"clients": ["lab/a", "etl"]}}}),
        ("policies.api.clients[0]", {**TWO, "policies": {"api": {"clients": ["other/etl"]}}}),
        ("roles.clients.etl", {**TWO, "roles": {"clients": {"etl": "r"}}}),
        *(
            (f"policies.api.{place}", {"policies": {"api": policy}})
            for place, policy in (
                ("scopes", {"scopes": ["a"]}),
                ("scope[0]", {"scope": ["a b"]}),
                ("scope[0]", {"scope": ['a"']}),
                ("mode", {"mode": "off"}),
                ("clients", {"clients": "etl"}),
                *(("clients[0]", {"clients": [client]}) for client in ("a b", "oktaa/abc", "repo:o/r", "etl*")),
                ("issuers[0]", {"issuers": ["other"]}),
                ("rules", {"rules": []}),
                *(
                    ("rules[1].path", {"rules": [{"path": "/ok"}, {"path": path}]})
                    for path in (
                        "db", "/a*", "/a%20b", "/a/../b", "/db/{id}", "/db/:id", "/db/[a-z]+", "/db/(a|b)", "/a?b=1",
                    )
                ),
                ("rules[0].path", {"rules": [{"methods": ["GET"]}]}),
                ("rules[0].methods[0]", {"rules": [{"path": "/", "methods": ["get"]}]}),
                ("rules[0].methods", {"rules": [{"path": "/", "methods": []}]}),
                ("rules[0].any_scope", {"rules": [{"path": "/", "any_scope": []}]}),
                ("rules[0].verbs", {"rules": [{"path": "/", "verbs": ["GET"]}]}),
                ("rules[0].token", {"rules": [{"path": "/", "token": "optional"}]}),
                ("rules[0].scope", {"rules": [{"path": "/", "token": "none", "scope": "read"}]}),
                ("rules[0].scope", {"rules": [{"path": "/", "token": "none", "scope": []}]}),
                ("rules[0].any_scope", {"rules": [{"path": "/", "token": "none", "any_scope": ["read"]}]}),
                ("scope_challenge", {"scope_challenge": 400}),
                ("resource.authorization_servers", {"resource": {"url": "https://a.example"}}),
                *(
                    ("resource.url", {"resource": {"url": url, "authorization_servers": ["https://b.example"]}})
                    for url in ("http://a.example/mcp", "https://a.example/#x", "https://a.example?x")
                ),
            )
        ),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_place(
    problems: Problems, lab: dict[str, Any], place: str, changes: dict[str, Any]
) -> None:
    [problem] = problems({**lab, **changes})

    assert re.fullmatch(rf"m2m\.yaml:\d+: {re.escape(place)}: .+", problem)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"needs": (), "rules": (), "clients": None, "issuers": None, "report": False, "role_required": False}),
        ({"scope": "read"}, {"needs": (("read",),)}),
        ({"scope": ["read"]}, {"needs": (("read",),)}),
        ({"scope": ["read", "write"]}, {"needs": (("read",), ("write",))}),
        ({"mode": "enforce"}, {"report": False, "scope_challenge": 403}),
        ({"scope_challenge": 401}, {"scope_challenge": 401}),
        ({"mode": "report"}, {"report": True}),
        ({"clients": ["etl", "lab/other"]}, {"clients": {("lab", "etl"), ("lab", "other")}}),
        ({"issuers": ["lab"]}, {"issuers": {"lab"}}),
        ({"rules": [{"path": "/health", "token": "none"}]}, {"has_open_rules": True}),
        ({"rules": [{"path": "/health"}]}, {"has_open_rules": False}),
    ],
    ids=repr,
)
def test_settings_become_a_policy(policy: MakePolicy, given: dict[str, Any], expected: dict[str, Any]) -> None:
    made = policy(**given)

    assert {name: getattr(made, name) for name in expected} == expected


def test_rules_keep_their_order_and_need_all_scopes_and_one_of_the_alternatives(policy: MakePolicy) -> None:
    first = {"path": "/b", "methods": "GET", "scope": ["x", "y"], "any_scope": ["a", "b"]}
    rules = policy(rules=[first, {"path": "/a"}]).rules

    assert [(rule.path.text, rule.methods, rule.needs) for rule in rules] == [
        ("/b", {"GET"}, (("x",), ("y",), ("a", "b"))), ("/a", None, ()),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("policies", "needs"), [({}, ()), ({"default": None}, ()), ({"default": {"scope": "r"}}, (("r",),))]
)
def test_the_policy_default_always_exists_and_may_be_defined(
    make_config: MakeConfig, lab: dict[str, Any], policies: dict[str, Any], needs: Any
) -> None:
    made = make_config({**lab, "policies": policies}).policies.by_name["default"]

    assert (made.needs, made.rules, made.clients, made.issuers, made.report) == (needs, (), None, None, False)


def test_claims_are_mapped_to_headers_in_file_order(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    config = make_config({**lab, "headers": {"X-User-ID": "sub", "X-Tenant-ID": "custom:tenant"}})

    assert list(config.headers.items()) == [("X-User-ID", "sub"), ("X-Tenant-ID", "custom:tenant")]


def test_a_required_role_is_required_by_every_policy(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    config = make_config({**lab, "roles": {"required": True}, "policies": {"api": {}}})

    assert [policy.role_required for policy in config.policies.by_name.values()] == [True, True]


def test_a_resources_scopes_are_written_as_a_token_holds_them(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    given = {
        "url": "https://api.example/mcp", "authorization_servers": ["https://as.example"],
        "scopes_supported": ["read", "https://api/write"],
    }  # fmt: skip
    config = make_config({**lab, "scope_prefix": "https://api/", "policies": {"mcp": {"resource": given}}})
    resource = config.policies.by_name["mcp"].resource

    assert resource is not None
    assert resource.scopes_supported == ("https://api/read", "https://api/write")


@pytest.mark.parametrize(("last", "warnings"), [("/**", 1), ("/db/**", 0)])
def test_a_rule_that_a_final_slash_evades_is_a_warning(
    policy: MakePolicy, caplog: pytest.LogCaptureFixture, last: str, warnings: int
) -> None:
    policy(rules=[{"path": "/admin", "scope": "admin"}, {"path": last}])

    assert caplog.text.count("add a rule for /admin/") == warnings


@pytest.mark.parametrize(("prefixes", "expected"), [(("a:", "a:"), "a:"), (("a:", "b:"), "f:"), ((None, "f:"), "f:")])
def test_a_challenge_has_the_prefix_that_all_issuers_share_else_the_files(
    make_config: MakeConfig, prefixes: tuple[str | None, str], expected: str
) -> None:
    settings = zip(TWO["issuers"], prefixes, strict=True)
    issuers = [one if prefix is None else one | {"scope_prefix": prefix} for one, prefix in settings]
    config = make_config({"issuers": issuers, "scope_prefix": "f:"})

    assert config.policies.by_name["default"].challenge_prefix == expected


def test_with_several_issuers_a_client_id_names_its_own_and_a_revoked_one_may_not(
    make_config: MakeConfig,
) -> None:
    config = make_config({
        **TWO, "policies": {"api": {"clients": ["okta/etl"]}}, "roles": {"clients": {"lab/a": "r"}},
        "revoked": {"clients": ["etl", "okta/x", "other/x", "lab/"], "tokens": ["t"]},
    })  # fmt: skip

    assert config.policies.by_name["api"].clients == {("okta", "etl")}
    assert config.roles.clients == {("lab", "a"): "r"}
    assert (config.revoked.clients, config.revoked.tokens) == ({"etl", "okta/x", "other/x", "lab/"}, {"t"})


def test_the_published_schema_is_generated_from_the_model() -> None:
    """``make schema`` writes it; in it, one text may stand for a list."""
    schema = json.loads((ROOT / "docs" / "config.schema.json").read_text("utf-8"))

    assert schema == Settings.model_json_schema()
    assert {"type": "string"} in schema["$defs"]["IssuerSettings"]["properties"]["audience"]["anyOf"]

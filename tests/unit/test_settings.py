"""What a configuration may say, what must fit together, and what it becomes."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.support import SigningKey, b64, jwks
from verifier.config import Config, ConfigError
from verifier.config.model import Settings
from verifier.policy.policies import Policy
from verifier.tokens.verify import IssuerRules

MakeConfig = Callable[..., Config]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def problems(make_config: MakeConfig) -> Callable[[dict[str, Any]], str]:
    """Everything that is wrong with a configuration."""

    def find(content: dict[str, Any]) -> str:
        with pytest.raises(ConfigError) as caught:
            make_config(content)
        return "\n".join(caught.value.problems)

    return find


def issuer(**changes: Any) -> dict[str, Any]:
    given = {"name": "lab", "issuer": "https://issuer.example", "audience": ["api"], **changes}
    return {"issuers": [{name: value for name, value in given.items() if value is not None}]}


@pytest.fixture
def rules(make_config: MakeConfig) -> Callable[..., IssuerRules]:
    """The rules of one issuer with changed settings; None leaves one out."""
    return lambda **changes: make_config(issuer(**changes)).issuers[0]


@pytest.fixture
def policy(make_config: MakeConfig, lab: dict[str, Any]) -> Callable[..., Policy]:
    """A policy of a configuration with one issuer."""
    return lambda **given: make_config({**lab, "policies": {"api": given}}).policies.by_name["api"]


# --- the whole file ---


def test_the_contracts_example_is_good(make_config: MakeConfig) -> None:
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


def test_a_policy_default_is_always_there(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    default = make_config(lab).policies.by_name["default"]

    assert (default.needs, default.rules, default.clients, default.issuers, default.report) == (
        (), (), None, None, False,
    )  # fmt: skip


def test_the_file_may_say_what_default_is(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    config = make_config({**lab, "policies": {"default": {"scope": ["read"]}}})

    assert config.policies.by_name["default"].needs == (("read",),)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"x": 1}, "x"),
        ({"leeway": -1}, "leeway"),
        ({"leeway": "soon"}, "leeway"),
        ({"cache": {"size": -1}}, "cache.size"),
        ({"cache": {"ttl": -1}}, "cache.ttl"),
        ({"cache": {"x": 1}}, "cache.x"),
        ({"max_header_bytes": 0}, "max_header_bytes"),
        ({"nginx_cache_ttl": -1}, "nginx_cache_ttl"),
        ({"audit": "some"}, "audit"),
        ({"policies": {"a b": {}}}, "policies.a b"),
        ({"policies": {"a/b": {}}}, "policies.a/b"),
        ({"policies": {"api": {"scopes": ["a"]}}}, "policies.api.scopes"),
        ({"policies": {"api": {"scope": ["a b"]}}}, "policies.api.scope[0]"),
        ({"policies": {"api": {"scope": ['a"']}}}, "policies.api.scope[0]"),
        ({"policies": {"api": {"mode": "off"}}}, "policies.api.mode"),
        ({"policies": {"api": {"clients": "etl"}}}, "policies.api.clients"),
        ({"policies": {"api": {"clients": ["a b"]}}}, "policies.api.clients[0]"),
        ({"policies": {"api": {"issuers": ["other"]}}}, "policies.api.issuers[0]"),
        ({"policies": {"api": {"rules": [{"path": "db"}]}}}, "policies.api.rules[0].path"),
        ({"policies": {"api": {"rules": [{"path": "/a*"}]}}}, "policies.api.rules[0].path"),
        ({"policies": {"api": {"rules": [{"path": "/a%20b"}]}}}, "policies.api.rules[0].path"),
        ({"policies": {"api": {"rules": [{"path": "/a/../b"}]}}}, "policies.api.rules[0].path"),
        ({"policies": {"api": {"rules": [{"methods": ["GET"]}]}}}, "policies.api.rules[0].path"),
        ({"policies": {"api": {"rules": [{"path": "/", "methods": ["get"]}]}}}, "policies.api.rules[0].methods[0]"),
        ({"policies": {"api": {"rules": [{"path": "/", "methods": []}]}}}, "policies.api.rules[0].methods"),
        ({"policies": {"api": {"rules": [{"path": "/", "any_scope": []}]}}}, "policies.api.rules[0].any_scope"),
        ({"policies": {"api": {"rules": [{"path": "/", "verbs": ["GET"]}]}}}, "policies.api.rules[0].verbs"),
        (
            {"policies": {"api": {"resource": {"url": "https://a.example"}}}},
            "policies.api.resource.authorization_servers",
        ),
        ({"roles": {"clients": {"etl": "a\nb"}}}, "roles.clients.etl"),
        ({"roles": {"clients": {"etl": "é"}}}, "roles.clients.etl"),
        ({"roles": {"scopes": {"a b": "r"}}}, "roles.scopes.a b"),
        ({"roles": {"required": "perhaps"}}, "roles.required"),
        ({"revoked": {"jtis": []}}, "revoked.jtis"),
        ({"revoked": {"tokens": [""]}}, "revoked.tokens[0]"),
        ({"headers": {"X Y": "sub"}}, "headers.X Y"),
        ({"headers": {"X:Y": "sub"}}, "headers.X:Y"),
        ({"headers": {"X-User": ""}}, "headers.X-User"),
        ({"scope_prefix": "a b"}, "scope_prefix"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_value_is_refused_with_its_place(
    problems: Callable[[dict[str, Any]], str], lab: dict[str, Any], changes: dict[str, Any], place: str
) -> None:
    assert re.search(rf"m2m\.yaml:\d+: {re.escape(place)}: .", problems({**lab, **changes}))


# --- issuers ---


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"name": None}, "name: is missing", id="no name"),
        pytest.param({"name": "a/b"}, "name: must be", id="a name with a slash"),
        pytest.param({"name": ""}, "name: must be", id="an empty name"),
        pytest.param({"issuer": None}, "issuer (a URL) or cognito", id="neither issuer nor cognito"),
        pytest.param({"cognito": {"user_pool_id": "p"}}, "issuer (a URL) or cognito", id="both"),
        pytest.param({"issuer": "http://issuer.example"}, "must be https", id="plain http"),
        pytest.param({"issuer": "issuer.example"}, "https URL", id="no URL"),
        pytest.param({"jwks_url": "http://issuer.example/k"}, "must be https", id="keys over plain http"),
        pytest.param({"jwks_url": "https://u:p@issuer.example/k"}, "user or password", id="a password in a URL"),
        pytest.param({"audience": None}, "audience: is missing", id="no audience"),
        pytest.param({"audience": [""]}, "audience[0]", id="an empty audience"),
        pytest.param({"algorithms": []}, "algorithms", id="no algorithm"),
        pytest.param({"algorithms": ["none"]}, "algorithms[0]", id="algorithm none"),
        pytest.param({"algorithms": ["rs256"]}, "algorithms[0]", id="algorithm in lower case"),
        pytest.param({"algorithms": ["HS256"]}, "need a jwks_file", id="a shared secret without a file"),
        pytest.param(
            {"algorithms": ["RS256", "HS512"], "jwks_url": "https://a.example/k"}, "need a jwks_file", id="published"
        ),
        pytest.param({"profile": "google"}, "profile", id="unknown profile"),
        pytest.param({"profile": "github"}, "needs clients", id="github without clients"),
        pytest.param({"clients": ["a b"]}, "clients[0]", id="a client with a space"),
        pytest.param({"client": ["a"]}, "unknown key: did you mean `clients`?", id="unknown key"),
        pytest.param({"claims": {"client": "cid"}}, "claims.client", id="unknown claim"),
        pytest.param({"jwks_file": "nowhere.json"}, "No such file", id="no such file"),
    ],
)
def test_an_issuer_that_cannot_work_is_refused(
    problems: Callable[[dict[str, Any]], str], changes: dict[str, Any], told: str
) -> None:
    assert told in problems(issuer(**changes))


def test_no_issuer_at_all_is_refused(problems: Callable[[dict[str, Any]], str]) -> None:
    assert "issuers" in problems({"issuers": []})


def test_two_issuers_may_not_have_one_name(problems: Callable[[dict[str, Any]], str]) -> None:
    two = issuer()["issuers"] + issuer(issuer="https://other.example")["issuers"]

    assert "issuers[1].name: another issuer has this name" in problems({"issuers": two})


def test_two_issuers_may_not_have_one_url(problems: Callable[[dict[str, Any]], str]) -> None:
    two = issuer()["issuers"] + issuer(name="b")["issuers"]

    assert "issuers[1]: issuer lab has the same issuer URL" in problems({"issuers": two})


def cognito(**changes: Any) -> dict[str, Any]:
    return {"issuer": None, "audience": None, "cognito": {"region": "eu-west-1", "user_pool_id": "p_1"}, **changes}


def test_both_forms_of_a_cognito_issuer_count(rules: Callable[..., IssuerRules]) -> None:
    assert rules(**cognito()).urls == (
        "https://cognito-idp.eu-west-1.amazonaws.com/p_1",
        "https://issuer-cognito-idp.eu-west-1.amazonaws.com/p_1",
    )


def test_a_cognito_pools_keys_are_where_aws_has_them(rules: Callable[..., IssuerRules]) -> None:
    assert rules(**cognito()).key_set_url == "https://cognito-idp.eu-west-1.amazonaws.com/p_1/.well-known/jwks.json"


def test_cognito_needs_no_audience_and_takes_none_but_what_is_configured(rules: Callable[..., IssuerRules]) -> None:
    made = rules(**cognito())

    assert (made.audience, made.audience_optional) == (frozenset(), True)


def test_a_configured_audience_of_cognito_stays_optional(rules: Callable[..., IssuerRules]) -> None:
    made = rules(**cognito(audience=["api"]))

    assert (made.audience, made.audience_optional) == ({"api"}, True)


@pytest.mark.parametrize("profile", ["okta", "github"])
def test_a_cognito_pool_has_no_other_profile(problems: Callable[[dict[str, Any]], str], profile: str) -> None:
    assert "does not go with cognito" in problems(issuer(**cognito(profile=profile, clients=["a"])))


@pytest.mark.parametrize("audience", ["any", ["any"]], ids=repr)
def test_any_audience_must_be_written_out(rules: Callable[..., IssuerRules], audience: Any) -> None:
    assert rules(audience=audience).audience is None


def test_one_audience_may_stand_without_a_list(rules: Callable[..., IssuerRules]) -> None:
    assert rules(audience="api").audience == {"api"}


def test_without_a_key_url_the_issuer_is_asked_where_its_keys_are(rules: Callable[..., IssuerRules]) -> None:
    assert rules().key_set_url is None


def test_keys_may_be_in_a_file_beside_the_configuration(
    rules: Callable[..., IssuerRules], tmp_path: Path, signer: SigningKey
) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(signer))

    assert rules(jwks_file="keys.json").jwks_file == tmp_path / "keys.json"


def test_a_shared_secret_may_be_in_a_file(rules: Callable[..., IssuerRules], tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(jwks({"kty": "oct", "k": b64(b"k" * 32)}))

    assert rules(jwks_file="keys.json", algorithms=["HS256"]).algorithms == {"HS256"}


def test_keys_may_not_be_in_two_places(
    problems: Callable[[dict[str, Any]], str], tmp_path: Path, signer: SigningKey
) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(signer))

    assert "not both" in problems(issuer(jwks_file="keys.json", jwks_url="https://issuer.example/keys"))


def test_a_file_without_a_usable_key_is_refused(
    problems: Callable[[dict[str, Any]], str], tmp_path: Path, weak_signer: SigningKey
) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(weak_signer))

    assert "no key in it can verify" in problems(issuer(jwks_file="keys.json"))


def test_claims_override_the_profile(rules: Callable[..., IssuerRules]) -> None:
    made = rules(claims={"client_id": "cid", "scope": "scp"})

    assert (made.profile.client_id, made.profile.scope) == (("cid",), "scp")


@pytest.mark.parametrize(("own", "wanted"), [(None, "https://api/"), ("", ""), ("x:", "x:")])
def test_an_issuers_scope_prefix_overrides_the_files(make_config: MakeConfig, own: str | None, wanted: str) -> None:
    config = make_config({**issuer(scope_prefix=own), "scope_prefix": "https://api/"})

    assert config.issuers[0].scope_prefix == wanted


@pytest.mark.parametrize(("clients", "wanted"), [(None, None), ([], frozenset()), (["a", "b"], {"a", "b"})])
def test_an_issuers_allow_list_is_optional_and_an_empty_one_allows_nobody(
    rules: Callable[..., IssuerRules], clients: list[str] | None, wanted: Any
) -> None:
    assert rules(clients=clients).clients == wanted


def test_github_with_clients_is_good(rules: Callable[..., IssuerRules]) -> None:
    assert rules(profile="github", clients=["repo:acme/etl:ref:refs/heads/main"]).clients


def test_http_on_loopback_is_allowed(rules: Callable[..., IssuerRules]) -> None:
    assert rules(issuer="http://127.0.0.1:8081/pool").urls == ("http://127.0.0.1:8081/pool",)


# --- policies ---


def test_a_policys_scopes_are_all_needed(policy: Callable[..., Policy]) -> None:
    assert policy(scope=["read", "write"]).needs == (("read",), ("write",))


@pytest.mark.parametrize("scope", ["read", ["read"]], ids=repr)
def test_one_scope_may_stand_without_a_list(policy: Callable[..., Policy], scope: Any) -> None:
    assert policy(scope=scope).needs == (("read",),)


def test_a_rule_needs_its_scopes_and_one_of_its_alternatives(policy: Callable[..., Policy]) -> None:
    rule = policy(rules=[{"path": "/a", "methods": "GET", "scope": ["x", "y"], "any_scope": ["a", "b"]}]).rules[0]

    assert (rule.path.text, rule.methods, rule.needs) == ("/a", {"GET"}, (("x",), ("y",), ("a", "b")))


def test_rules_keep_their_order(policy: Callable[..., Policy]) -> None:
    assert [rule.path.text for rule in policy(rules=[{"path": "/b"}, {"path": "/a"}]).rules] == ["/b", "/a"]


@pytest.mark.parametrize(("mode", "report"), [("enforce", False), ("report", True)])
def test_a_policy_enforces_or_reports(policy: Callable[..., Policy], mode: str, report: bool) -> None:
    assert policy(mode=mode).report is report


def test_a_required_role_is_required_by_every_policy(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    config = make_config({**lab, "roles": {"required": True}, "policies": {"api": {}}})

    assert all(policy.role_required for policy in config.policies.by_name.values())


def test_a_resources_scopes_are_told_as_a_token_holds_them(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    given = {
        "url": "https://api.example/mcp", "authorization_servers": ["https://as.example"],
        "scopes_supported": ["read", "https://api/write"],
    }  # fmt: skip
    config = make_config({**lab, "scope_prefix": "https://api/", "policies": {"mcp": {"resource": given}}})
    resource = config.policies.by_name["mcp"].resource

    assert resource is not None
    assert resource.scopes_supported == ("https://api/read", "https://api/write")


@pytest.mark.parametrize("url", ["http://api.example/mcp", "https://api.example/mcp?x", "https://api.example/#x"])
def test_a_resource_is_an_https_url_without_query_or_fragment(
    problems: Callable[[dict[str, Any]], str], lab: dict[str, Any], url: str
) -> None:
    given = {"url": url, "authorization_servers": ["https://as.example"]}

    assert "policies.mcp.resource" in problems({**lab, "policies": {"mcp": {"resource": given}}})


# --- client ids, with one issuer and with several ---


@pytest.fixture
def two(lab: dict[str, Any]) -> dict[str, Any]:
    """Two issuers."""
    return {"issuers": lab["issuers"] + issuer(name="okta", issuer="https://okta.example")["issuers"]}


def test_with_one_issuer_a_client_id_stands_alone(policy: Callable[..., Policy]) -> None:
    assert policy(clients=["etl", "lab/other"]).clients == {("lab", "etl"), ("lab", "other")}


def test_with_several_issuers_a_client_id_names_its_own(make_config: MakeConfig, two: dict[str, Any]) -> None:
    config = make_config({**two, "policies": {"api": {"clients": ["okta/etl"]}}, "roles": {"clients": {"lab/a": "r"}}})

    assert config.policies.by_name["api"].clients == {("okta", "etl")}
    assert config.roles.clients == {("lab", "a"): "r"}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"policies": {"api": {"clients": ["lab/a", "etl"]}}}, "policies.api.clients[1]: must be written issuer-name"),
        ({"policies": {"api": {"clients": ["other/etl"]}}}, "policies.api.clients[0]: must be written issuer-name"),
        ({"roles": {"clients": {"etl": "r"}}}, "roles.clients.etl: must be written issuer-name"),
    ],
    ids=["policy", "another issuer", "role"],
)
def test_with_several_issuers_a_bare_client_id_is_an_error(
    problems: Callable[[dict[str, Any]], str], two: dict[str, Any], changes: dict[str, Any], place: str
) -> None:
    assert place in problems({**two, **changes})


def test_a_bare_revoked_client_counts_for_all_issuers(make_config: MakeConfig, two: dict[str, Any]) -> None:
    revoked = make_config({**two, "revoked": {"clients": ["etl", "okta/x"], "tokens": ["t"]}}).revoked

    assert "etl" in revoked.bare_clients
    assert revoked.clients == {("okta", "x")}
    assert revoked.tokens == {"t"}


# --- headers ---


def test_claims_are_mapped_to_headers_in_file_order(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    config = make_config({**lab, "headers": {"X-User-ID": "sub", "X-Tenant-ID": "custom:tenant"}})

    assert list(config.headers.items()) == [("X-User-ID", "sub"), ("X-Tenant-ID", "custom:tenant")]


@pytest.mark.parametrize(
    "name",
    ["X-M2M-Client-ID", "x-m2m-role", "X-M2M-Anything", "Cache-Control", "WWW-Authenticate", "Content-Length",
     "content-type", "Set-Cookie", "Authorization", "Host", "Connection", "Transfer-Encoding", "Retry-After"],
)  # fmt: skip
def test_a_header_that_the_answer_has_for_its_own_reasons_cannot_be_mapped(
    problems: Callable[[dict[str, Any]], str], lab: dict[str, Any], name: str
) -> None:
    assert f"headers.{name}: " in problems({**lab, "headers": {name: "sub"}})


def test_header_names_know_no_case(problems: Callable[[dict[str, Any]], str], lab: dict[str, Any]) -> None:
    assert "given twice" in problems({**lab, "headers": {"X-User": "sub", "x-user": "sub"}})


# --- the published schema ---

SCHEMA = ROOT / "docs" / "config.schema.json"


def test_the_published_schema_is_the_models() -> None:
    """``make schema`` writes it."""
    assert json.loads(SCHEMA.read_text("utf-8")) == Settings.model_json_schema()


def test_the_schema_knows_that_one_text_may_stand_for_a_list() -> None:
    audience = json.loads(SCHEMA.read_text("utf-8"))["$defs"]["IssuerSettings"]["properties"]["audience"]

    assert {"type": "string"} in audience["anyOf"]


def test_issuers_of_the_file_come_before_those_of_the_environment(
    make_config: MakeConfig, lab: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        config = make_config(lab, oauth_issuer="https://other.example")

    assert [issuer.urls for issuer in config.issuers] == [("https://issuer.example",)]
    assert "OAUTH_ISSUER" in caplog.text


# --- what was left empty ---


@pytest.mark.parametrize("section", ["policies", "roles", "revoked", "headers", "cache"])
def test_a_section_whose_lines_are_gone_says_nothing(
    make_config: MakeConfig, lab: dict[str, Any], section: str
) -> None:
    assert make_config({**lab, section: None}).policies.by_name.keys() == {"default"}


def test_a_policy_whose_lines_are_gone_asks_for_any_valid_token(policy: Callable[..., Policy]) -> None:
    assert policy().needs == ()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"policies": {"api": {"rules": []}}}, id="a list without rules"),
        pytest.param({"leeway": None}, id="a number left empty"),
        pytest.param({"leeway": True}, id="a boolean for a number"),
    ],
)
def test_a_value_that_says_nothing_is_an_error(
    problems: Callable[[dict[str, Any]], str], lab: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert problems({**lab, **changes})


def test_an_allow_list_left_empty_is_none_and_the_log_says_so(
    make_config: MakeConfig, lab: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    made = make_config({"issuers": [{**lab["issuers"][0], "clients": None}]})

    assert made.issuers[0].clients is None
    assert "clients is left empty" in caplog.text


def test_any_does_not_stand_beside_other_audiences(problems: Callable[[dict[str, Any]], str]) -> None:
    assert "leave the others out" in problems(issuer(audience=["api", "any"]))


def test_an_issuer_that_strangers_share_needs_one_client_at_least(problems: Callable[[dict[str, Any]], str]) -> None:
    assert "needs clients" in problems(issuer(profile="github", clients=[]))


@pytest.mark.parametrize("form", ["", "issuer-"])
def test_a_cognito_pool_given_by_its_url_has_both_forms(rules: Callable[..., IssuerRules], form: str) -> None:
    host = "cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Pool"

    assert set(rules(profile="cognito", issuer=f"https://{form}{host}").urls) == {
        f"https://{host}",
        f"https://issuer-{host}",
    }

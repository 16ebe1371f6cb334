"""The configuration of issuers: what must fit together, and the rules that it becomes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.config.support import MakeConfig, Problems, issuer
from tests.unit.support import SigningKey, b64, jwks
from verifier.tokens.verify import IssuerRules

MakeRules = Callable[..., IssuerRules]
COGNITO = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Pool"
OTHER_COGNITO = "https://issuer-cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Pool"


def cognito(**changes: Any) -> dict[str, Any]:
    pool = {"region": "eu-west-1", "user_pool_id": "eu-west-1_Pool"}
    return {"issuer": None, "audience": None, "cognito": pool, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"name": None}, "name: is missing", id="no name"),
        pytest.param({"name": "a/b"}, "name: must be", id="a name with a slash"),
        pytest.param({"name": ""}, "name: must be", id="an empty name"),
        pytest.param({"issuer": None}, "issuer (a URL) or cognito", id="neither issuer nor cognito"),
        pytest.param({"cognito": {"user_pool_id": "eu-west-1_P"}}, "issuer (a URL) or cognito", id="both"),
        pytest.param({"issuer": "http://issuer.example"}, "must be https", id="plain http"),
        pytest.param({"issuer": "issuer.example"}, "https URL", id="no URL"),
        pytest.param(
            cognito(cognito={"region": "us-east-1", "user_pool_id": "eu-west-1_Pool"}),
            "cognito.region: is us-east-1, but the pool id names eu-west-1",
            id="a pool of another region",
        ),
        pytest.param(cognito(cognito={"user_pool_id": "Pool"}), "must be a user pool id", id="a pool without region"),
        pytest.param({"issuer": COGNITO.replace("west", "east", 1)}, "no such pool", id="a URL with another region"),
        pytest.param({"jwks_url": "http://issuer.example/k"}, "must be https", id="keys over plain http"),
        pytest.param({"jwks_url": "https://u:p@issuer.example/k"}, "user or password", id="a password in a URL"),
        pytest.param({"jwks_file": "nowhere.json"}, "No such file", id="no such file"),
        pytest.param({"issuer": "", "jwks_url": "https://a.example/k"}, "issuers[0].issuer", id="an empty issuer"),
        pytest.param({"audience": None}, "audience: is missing", id="no audience"),
        pytest.param({"audience": [""]}, "audience[0]", id="an empty audience"),
        pytest.param({"audience": ["api", "any"]}, "leave the others out", id="any beside another audience"),
        pytest.param({"algorithms": []}, "algorithms", id="no algorithm"),
        pytest.param({"algorithms": ["none"]}, "algorithms[0]", id="algorithm none"),
        pytest.param({"algorithms": ["rs256"]}, "algorithms[0]", id="algorithm in lower case"),
        pytest.param({"algorithms": ["HS256"]}, "need a jwks_file", id="a shared secret without a file"),
        pytest.param(
            {"algorithms": ["RS256", "HS512"], "jwks_url": "https://a.example/k"}, "need a jwks_file", id="published"
        ),
        pytest.param({"profile": "google"}, "profile", id="unknown profile"),
        pytest.param({"profile": "github"}, "needs clients", id="github without clients"),
        pytest.param({"profile": "github", "clients": []}, "needs clients", id="github with an empty list"),
        pytest.param({"clients": ["a b"]}, "clients[0]", id="a client with a space"),
        pytest.param({"client": ["a"]}, "unknown key: did you mean `clients`?", id="unknown key"),
        pytest.param({"claims": {"client": "cid"}}, "claims.client", id="unknown claim"),
        pytest.param(cognito(profile="okta"), "does not go with cognito", id="a pool with another profile"),
        pytest.param(cognito(profile="github", clients=["a"]), "does not go with cognito", id="a pool as github"),
    ],
)
def test_an_issuer_that_cannot_work_is_refused(problems: Problems, changes: dict[str, Any], message: str) -> None:
    assert message in "\n".join(problems(issuer(**changes)))


def test_a_configuration_without_issuers_is_refused(problems: Problems) -> None:
    assert "issuers" in "".join(problems({"issuers": []}))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"issuer": "https://other.example"}, "issuers[1].name: another issuer has this name"),
        ({"name": "b"}, "issuers[1]: issuer lab has the same issuer URL"),
    ],
    ids=["name", "url"],
)
def test_two_issuers_share_neither_name_nor_url(problems: Problems, second: dict[str, Any], message: str) -> None:
    assert message in "".join(problems({"issuers": issuer()["issuers"] + issuer(**second)["issuers"]}))


@pytest.mark.parametrize(
    "settings",
    [cognito(), {"profile": "cognito", "issuer": COGNITO}, {"profile": "cognito", "issuer": OTHER_COGNITO}],
    ids=["pool", "URL", "other URL"],
)
def test_both_forms_of_a_cognito_issuer_count(rules: MakeRules, settings: dict[str, Any]) -> None:
    assert set(rules(**settings).urls) == {COGNITO, OTHER_COGNITO}


def test_a_pools_region_is_in_its_id(rules: MakeRules) -> None:
    assert rules(**cognito(cognito={"user_pool_id": "eu-west-1_Pool"})).urls == (COGNITO, OTHER_COGNITO)


def test_a_cognito_pools_keys_are_at_aws(rules: MakeRules) -> None:
    assert rules(**cognito()).key_set_url == f"{COGNITO}/.well-known/jwks.json"


@pytest.mark.parametrize(("given", "audience"), [(None, frozenset()), (["api"], {"api"})])
def test_cognitos_audience_is_optional(rules: MakeRules, given: Any, audience: Any) -> None:
    made = rules(**cognito(audience=given))

    assert (made.audience, made.audience_optional) == (audience, True)


@pytest.mark.parametrize(
    ("given", "audience"), [("any", None), (["any"], None), ("api", {"api"}), ([], frozenset())], ids=repr
)
def test_an_audience_is_a_list_a_text_or_any(rules: MakeRules, given: Any, audience: Any) -> None:
    assert rules(audience=given).audience == audience


def test_without_a_key_url_the_keys_are_discovered(rules: MakeRules) -> None:
    assert rules().key_set_url is None


@pytest.mark.parametrize("name", ["kubernetes/serviceaccount", "http://issuer.example", "Zoë"])
@pytest.mark.parametrize("keys", [{"jwks_url": "https://keys.example/k"}, {"jwks_file": "keys.json"}], ids=repr)
def test_where_the_keys_are_given_an_issuer_may_be_any_text(
    rules: MakeRules, tmp_path: Path, signer: SigningKey, name: str, keys: dict[str, str]
) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(signer))

    assert rules(issuer=name, **keys).urls == (name,)


@pytest.mark.parametrize("key", ["ca_file", "bearer_token_file"])
def test_a_file_for_fetching_keys_is_relative_and_may_be_missing_with_a_warning(
    rules: MakeRules, tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    path = tmp_path / "file"
    assert getattr(rules(**{key: "file"}), key) == path
    assert set(caplog.messages) == {f"{key}: {path} is not there yet: keys cannot be fetched without it"}
    caplog.clear()
    path.write_text("")
    assert getattr(rules(**{key: "file"}), key) == path
    assert caplog.messages == []


@pytest.mark.parametrize("key", ["ca_file", "bearer_token_file"])
def test_a_file_for_fetching_keys_has_no_effect_beside_a_key_file(
    problems: Problems, tmp_path: Path, signer: SigningKey, key: str
) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(signer))

    assert f"{key}: has no effect with jwks_file" in "\n".join(problems(issuer(jwks_file="keys.json", **{key: "file"})))


def test_http_on_loopback_is_allowed(rules: MakeRules) -> None:
    assert rules(issuer="http://127.0.0.1:8081/pool").urls == ("http://127.0.0.1:8081/pool",)


def test_a_key_file_is_relative_to_the_configurations_folder(
    rules: MakeRules, tmp_path: Path, signer: SigningKey
) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(signer))
    made = rules(jwks_file="keys.json")

    assert (made.jwks_file, made.jwks) == (tmp_path / "keys.json", jwks(signer))


def test_a_shared_secret_may_be_in_a_file(rules: MakeRules, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(jwks({"kty": "oct", "k": b64(b"k" * 32)}))

    assert rules(jwks_file="keys.json", algorithms=["HS256"]).algorithms == {"HS256"}


def test_a_key_file_and_a_key_url_exclude_each_other(problems: Problems, tmp_path: Path, signer: SigningKey) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(signer))

    assert "not both" in "".join(problems(issuer(jwks_file="keys.json", jwks_url="https://issuer.example/keys")))


def test_a_file_without_a_usable_key_is_refused(problems: Problems, tmp_path: Path, weak_signer: SigningKey) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(weak_signer))

    assert "no key in it can verify" in "".join(problems(issuer(jwks_file="keys.json")))


def test_claims_override_the_profile(rules: MakeRules) -> None:
    made = rules(claims={"client_id": "cid", "scope": "scp"})

    assert (made.profile.client_id, made.profile.scope) == (("cid",), "scp")


@pytest.mark.parametrize(("own", "effective"), [(None, "https://api/"), ("", ""), ("x:", "x:")])
def test_an_issuers_scope_prefix_overrides_the_files(make_config: MakeConfig, own: str | None, effective: str) -> None:
    config = make_config({**issuer(scope_prefix=own), "scope_prefix": "https://api/"})

    assert config.issuers[0].scope_prefix == effective


@pytest.mark.parametrize(("clients", "allowed"), [(None, None), ([], frozenset()), (["a", "b"], {"a", "b"})])
def test_an_allow_list_is_optional_and_an_empty_one_allows_no_client(
    rules: MakeRules, clients: list[str] | None, allowed: Any
) -> None:
    assert rules(clients=clients).clients == allowed


def test_a_list_without_value_counts_as_absent_with_a_warning(
    make_config: MakeConfig, lab: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    made = make_config({"issuers": [{**lab["issuers"][0], "clients": None}]})

    assert made.issuers[0].clients is None
    assert "clients has no value" in caplog.text


def test_github_with_clients_is_accepted(rules: MakeRules) -> None:
    assert rules(profile="github", clients=["repo:acme/etl:ref:refs/heads/main"]).clients

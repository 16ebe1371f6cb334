"""Rules and clients of policies, as the configuration file has them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from verifier.config import Config, ConfigError

MakeConfig = Callable[..., Config]


@pytest.fixture
def load_policy(make_config: MakeConfig, lab: dict[str, Any]) -> Callable[..., Config]:
    def load(**policy: Any) -> Config:
        return make_config({**lab, "policies": {"api": policy}})

    return load


@pytest.mark.parametrize(("rule", "open_rules"), [({"token": "none"}, True), ({}, False)])
def test_token_none_makes_a_rule_need_no_token(load_policy: MakeConfig, rule: dict[str, Any], open_rules: bool) -> None:
    config = load_policy(rules=[{"path": "/health", **rule}])

    assert config.policies.by_name["api"].has_open_rules is open_rules


@pytest.mark.parametrize("rule", [{"scope": "read"}, {"scope": []}, {"any_scope": ["read"]}, {"token": "optional"}])
def test_a_scope_beside_token_none_or_another_value_of_token_is_refused(
    load_policy: MakeConfig, rule: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"api\.rules\[0\]"):
        load_policy(rules=[{"path": "/health", "token": "none", **rule}])


@pytest.mark.parametrize("path", ["/db/{id}", "/db/:id", "/db/[a-z]+", "/db/(a|b)", "/a?b=1"])
def test_a_rule_path_of_another_router_is_refused_at_its_place(load_policy: MakeConfig, path: str) -> None:
    with pytest.raises(ConfigError, match=r"api\.rules\[1\]\.path"):
        load_policy(rules=[{"path": "/ok"}, {"path": path}])


@pytest.mark.parametrize("client", ["oktaa/abc", "repo:o/r", "repo:o/r:*", "etl*"])
def test_a_client_that_cannot_exist_is_refused_in_policies_and_roles(
    make_config: MakeConfig, lab: dict[str, Any], client: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config({**lab, "policies": {"api": {"clients": [client]}}, "roles": {"clients": {client: "r"}}})

    places = [problem.split(": ")[1] for problem in caught.value.problems]
    assert places == ["policies.api.clients[0]", f"roles.clients.{client}"]


def test_the_clients_of_an_issuer_are_ids_as_the_token_has_them(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    lab["issuers"][0]["clients"] = ["repo:o/r", "lab/x"]

    assert make_config(lab).issuers[0].clients == frozenset({"repo:o/r", "lab/x"})


def test_the_clients_of_an_issuer_are_no_patterns(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    lab["issuers"][0]["clients"] = ["repo:o/r:*"]

    with pytest.raises(ConfigError, match="list each client"):
        make_config(lab)


@pytest.mark.parametrize(("last", "warnings"), [("/**", 1), ("/db/**", 0)])
def test_a_rule_that_a_final_slash_evades_is_a_warning(
    load_policy: MakeConfig, caplog: pytest.LogCaptureFixture, last: str, warnings: int
) -> None:
    with caplog.at_level(logging.WARNING):
        load_policy(rules=[{"path": "/admin", "scope": "admin"}, {"path": last}])

    assert caplog.text.count("add a rule for /admin/") == warnings

"""The types of single configuration values: the names of claims and of token types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.support import Clock, SigningKey, claims
from verifier.config import Config, ConfigError
from verifier.keys.sets import KeySet
from verifier.reasons import Rejected
from verifier.tokens.verify import TokenVerifier

MakeConfig = Callable[..., Config]


def problems(make_config: MakeConfig, content: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make_config(content)
    return caught.value.problems


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("realm_access.roles", "realm_access.roles"),
        (["kubernetes.io", "namespace"], ("kubernetes.io", "namespace")),
        (["https://example.com/roles"], ("https://example.com/roles",)),
    ],
    ids=repr,
)
def test_a_claim_is_named_by_a_text_or_by_steps(
    make_config: MakeConfig, lab: dict[str, Any], written: Any, name: Any
) -> None:
    lab["issuers"][0]["claims"] = {"client_id": written, "scope": written}
    config = make_config(lab | {"headers": {"X-A": written}})

    assert config.headers == {"X-A": name}
    assert (config.issuers[0].profile.client_id, config.issuers[0].profile.scope) == ((name,), name)


@pytest.mark.parametrize("written", ["", 5, True, [], [""], ["a", 5], [["a"]], {"a": "b"}], ids=repr)
def test_nothing_else_names_a_claim(make_config: MakeConfig, lab: dict[str, Any], written: Any) -> None:
    lab["issuers"][0]["claims"] = {"scope": written}
    found = problems(make_config, lab | {"headers": {"X-A": written}})

    assert [problem.split(": ", 1)[1] for problem in found] == [
        "issuers[0].claims.scope: must be the name of a claim, or a list of names for one that is nested",
        "headers.X-A: must be the name of a claim, or a list of names for one that is nested",
    ]


def test_further_types_of_tokens_are_taken_in_any_case_and_with_application(
    make_config: MakeConfig, lab: dict[str, Any]
) -> None:
    lab["issuers"][0]["typ"] = ["application/VND+jwt", "other"]

    assert make_config(lab).issuers[0].typ == frozenset({"vnd+jwt", "other"})


def test_one_further_type_needs_no_list(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    lab["issuers"][0]["typ"] = "vnd+jwt"

    assert make_config(lab).issuers[0].typ == frozenset({"vnd+jwt"})


def test_without_further_types_there_are_none(make_config: MakeConfig, lab: dict[str, Any]) -> None:
    assert make_config(lab).issuers[0].typ == frozenset()


@pytest.mark.parametrize("written", [[""], ["a b"], [5], {"a": 1}], ids=repr)
def test_a_further_type_is_visible_ascii(make_config: MakeConfig, lab: dict[str, Any], written: Any) -> None:
    lab["issuers"][0]["typ"] = written

    assert len(problems(make_config, lab)) == 1


@pytest.mark.parametrize(("repository", "allowed"), [("acme/etl", True), ("acme/other", False)])
def test_github_actions_may_be_allowed_by_repository(
    make_config: MakeConfig, lab: dict[str, Any], signer: SigningKey, repository: str, allowed: bool
) -> None:
    """Whatever the branch or environment that ``sub`` names."""
    lab["issuers"][0] |= {"profile": "github", "claims": {"client_id": "repository"}, "clients": ["acme/etl"]}
    (rules,) = make_config(lab).issuers
    verifier = TokenVerifier(
        [rules.with_keys(KeySet([signer.public()]))],
        clock=Clock(),
        leeway=10,
        role_of=lambda *_: "",
        mapped_headers={},
    )
    token = signer.sign(claims(sub=f"repo:{repository}:ref:refs/heads/main", repository=repository))

    principal = verifier.verify(token.encode()).principal
    assert (principal.client_id, principal.listed) == (repository, allowed)
    with pytest.raises(Rejected, match="repository"):
        verifier.verify(signer.sign(claims()).encode())

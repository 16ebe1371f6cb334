"""How each kind of issuer writes a machine's token, and how it writes a person's."""

from __future__ import annotations

from typing import Any

import pytest

from verifier.reasons import Reason, Rejected
from verifier.tokens.profiles import PROFILES, SHARED_BY_STRANGERS, scope_values, text

MACHINES: dict[str, dict[str, Any]] = {
    "generic": {"client_id": "etl", "sub": "etl"},
    "cognito": {"client_id": "etl", "sub": "etl", "token_use": "access"},
    "okta": {"cid": "etl", "sub": "etl", "scp": ["read"]},
    "auth0": {"azp": "etl", "sub": "etl@clients", "gty": "client-credentials"},
    "entra": {"azp": "etl", "sub": "an-object-id", "roles": ["read"]},
    "keycloak": {"azp": "etl", "sub": "uuid", "preferred_username": "service-account-etl", "typ": "Bearer"},
    "kubernetes": {"sub": "system:serviceaccount:jobs:etl"},
    "github": {"sub": "repo:acme/etl:ref:refs/heads/main"},
    "rfc9068": {"client_id": "etl", "sub": "etl"},
}


def problem(profile: str, claims: dict[str, Any]) -> str | None:
    """Why a token is not a machine's, by this profile."""
    rules = PROFILES[profile]
    client_id = rules.client_of(claims)
    if client_id is None:
        return "no client id"
    return rules.access(claims, client_id) or rules.machine(claims, client_id)


def test_the_profiles_are_those_of_the_contract() -> None:
    assert set(PROFILES) == set(MACHINES)


@pytest.mark.parametrize("profile", MACHINES)
def test_a_machines_token_passes_its_own_profile(profile: str) -> None:
    assert problem(profile, MACHINES[profile]) is None


ALSO_MACHINES = [
    ("generic", {"azp": "etl", "sub": "etl"}, "azp instead of client_id"),
    ("generic", {"client_id": "etl"}, "no sub"),
    ("generic", {"client_id": "etl", "sub": "etl@clients", "gty": "client-credentials"}, "gty"),
    ("entra", {"appid": "etl", "roles": []}, "version 1: appid"),
    ("keycloak", {"azp": "ETL", "preferred_username": "service-account-etl"}, "the user name in lower case"),
    ("keycloak", {"azp": "etl", "preferred_username": "service-account-etl"}, "no claim typ"),
]


@pytest.mark.parametrize(("profile", "claims"), [case[:2] for case in ALSO_MACHINES], ids=[c[2] for c in ALSO_MACHINES])
def test_another_form_of_a_machines_token_passes(profile: str, claims: dict[str, Any]) -> None:
    assert problem(profile, claims) is None


PEOPLE = [
    ("generic", {"sub": "ann"}, "generic: sub of a person"),
    ("generic", {"gty": "password", "sub": "ann"}, "generic: another grant"),
    ("cognito", {"username": "ann"}, "cognito: username"),
    ("cognito", {"cognito:groups": ["admins"]}, "cognito: groups"),
    ("cognito", {"device_key": "k"}, "cognito: device"),
    ("cognito", {"username": None}, "cognito: username null"),
    ("cognito", {"token_use": "id"}, "cognito: an id token"),
    ("cognito", {"token_use": None}, "cognito: token_use null"),
    ("okta", {"sub": "ann@example.com"}, "okta: sub of a person"),
    ("auth0", {"gty": "password"}, "auth0: another grant"),
    ("auth0", {"gty": None}, "auth0: no grant"),
    ("entra", {"scp": "read"}, "entra: delegated"),
    ("keycloak", {"preferred_username": "ann"}, "keycloak: a person's name"),
    ("keycloak", {"preferred_username": "service-account-other"}, "keycloak: another client's account"),
    ("keycloak", {"typ": "ID"}, "keycloak: an id token"),
    ("kubernetes", {"sub": "system:node:a"}, "kubernetes: a node"),
    ("rfc9068", {"sub": "ann"}, "rfc9068: sub of a person"),
]


@pytest.mark.parametrize(("profile", "changes"), [case[:2] for case in PEOPLE], ids=[case[2] for case in PEOPLE])
def test_a_persons_token_does_not_pass(profile: str, changes: dict[str, Any]) -> None:
    assert problem(profile, MACHINES[profile] | changes) is not None


MISSING = [
    ("cognito", "token_use"), ("cognito", "client_id"), ("okta", "cid"), ("okta", "sub"), ("auth0", "azp"),
    ("auth0", "gty"), ("entra", "azp"), ("entra", "roles"), ("keycloak", "azp"), ("keycloak", "preferred_username"),
    ("kubernetes", "sub"), ("rfc9068", "client_id"), ("rfc9068", "sub"), ("generic", "client_id"),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "claim"), MISSING, ids=[" without ".join(case) for case in MISSING])
def test_a_token_without_what_tells_a_machine_does_not_pass(profile: str, claim: str) -> None:
    claims = {name: value for name, value in MACHINES[profile].items() if name != claim}

    assert problem(profile, claims) is not None


def test_an_rfc_9068_token_must_say_its_type() -> None:
    assert PROFILES["rfc9068"].typ == ("at+jwt", "application/at+jwt")


def test_only_cognito_leaves_the_audience_out() -> None:
    assert [name for name, profile in PROFILES.items() if profile.audience_optional] == ["cognito"]


def test_strangers_share_github() -> None:
    assert {"github"} == SHARED_BY_STRANGERS


def test_client_id_is_preferred_to_azp() -> None:
    assert PROFILES["generic"].client_of({"azp": "b", "client_id": "a"}) == "a"


def test_claims_can_be_renamed() -> None:
    profile = PROFILES["generic"].with_claims("cid", "scp")

    assert profile.client_of({"cid": "a", "client_id": "b"}) == "a"
    assert profile.scope == "scp"


def test_claims_that_are_not_renamed_stay() -> None:
    assert PROFILES["okta"].with_claims(None, None) == PROFILES["okta"]


@pytest.mark.parametrize("value", [None, 5, True, ["a"], {"a": 1}], ids=repr)
def test_a_claim_that_must_be_a_string_is_nothing_else(value: Any) -> None:
    with pytest.raises(Rejected) as caught:
        text({"sub": value}, "sub")

    assert caught.value.reason is Reason.INVALID_CLAIMS


def test_an_absent_claim_is_none() -> None:
    assert text({}, "sub") is None


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [({}, []), ({"scope": ""}, []), ({"scope": "a"}, ["a"]), ({"scope": "a b"}, ["a", "b"]), ({"scope": ["a"]}, ["a"])],
    ids=["absent", "empty", "one", "two", "list"],
)
def test_scopes_are_one_string_or_a_list_of_strings(claims: dict[str, Any], scopes: list[str]) -> None:
    assert scope_values(claims, "scope") == scopes


@pytest.mark.parametrize("value", [None, 5, True, ["a", 5], [None], {"a": 1}], ids=repr)
def test_scopes_are_nothing_else(value: Any) -> None:
    with pytest.raises(Rejected) as caught:
        scope_values({"scope": value}, "scope")

    assert caught.value.reason is Reason.INVALID_CLAIMS

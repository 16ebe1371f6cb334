"""How each kind of issuer writes a machine's token, and how it writes a person's."""

from __future__ import annotations

from typing import Any

import pytest

from verifier.reasons import Reason, Rejected
from verifier.tokens.profiles import PROFILES, SHARED_ISSUERS, scope_values, text

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

ALSO_MACHINES: dict[str, tuple[str, dict[str, Any]]] = {
    "generic: azp instead of client_id": ("generic", {"azp": "etl", "sub": "etl"}),
    "generic: no sub": ("generic", {"client_id": "etl"}),
    "generic: gty": ("generic", {"client_id": "etl", "sub": "etl@clients", "gty": "client-credentials"}),
    "entra: appid of version 1": ("entra", {"appid": "etl", "roles": []}),
    "keycloak: lower case": ("keycloak", {"azp": "ETL", "preferred_username": "service-account-etl"}),
    "keycloak: no claim typ": ("keycloak", {"azp": "etl", "preferred_username": "service-account-etl"}),
    **{name: (name, claims) for name, claims in MACHINES.items()},
}

# Changes to a machine's token; a value of None takes the claim away, NULL is JSON's null.
NULL: Any = object()
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "generic: sub of a person": ("generic", {"sub": "ann"}),
    "generic: another grant": ("generic", {"gty": "password", "sub": "ann"}),
    "generic: no client_id": ("generic", {"client_id": None}),
    "cognito: username": ("cognito", {"username": "ann"}),
    "cognito: groups": ("cognito", {"cognito:groups": ["admins"]}),
    "cognito: device": ("cognito", {"device_key": "k"}),
    "cognito: username null": ("cognito", {"username": NULL}),
    "cognito: an id token": ("cognito", {"token_use": "id"}),
    "cognito: token_use null": ("cognito", {"token_use": NULL}),
    "cognito: no token_use": ("cognito", {"token_use": None}),
    "cognito: no client_id": ("cognito", {"client_id": None}),
    "okta: sub of a person": ("okta", {"sub": "ann@example.com"}),
    "okta: no cid": ("okta", {"cid": None}),
    "okta: no sub": ("okta", {"sub": None}),
    "auth0: another grant": ("auth0", {"gty": "password"}),
    "auth0: grant null": ("auth0", {"gty": NULL}),
    "auth0: no grant": ("auth0", {"gty": None}),
    "auth0: no azp": ("auth0", {"azp": None}),
    "entra: delegated": ("entra", {"scp": "read"}),
    "entra: no roles": ("entra", {"roles": None}),
    "entra: no azp": ("entra", {"azp": None}),
    "keycloak: a person's name": ("keycloak", {"preferred_username": "ann"}),
    "keycloak: another client's account": ("keycloak", {"preferred_username": "service-account-other"}),
    "keycloak: an id token": ("keycloak", {"typ": "ID"}),
    "keycloak: no user name": ("keycloak", {"preferred_username": None}),
    "keycloak: no azp": ("keycloak", {"azp": None}),
    "kubernetes: a node": ("kubernetes", {"sub": "system:node:a"}),
    "kubernetes: no sub": ("kubernetes", {"sub": None}),
    "github: no sub": ("github", {"sub": None}),
    "rfc9068: sub of a person": ("rfc9068", {"sub": "ann"}),
    "rfc9068: no sub": ("rfc9068", {"sub": None}),
    "rfc9068: no client_id": ("rfc9068", {"client_id": None}),
}


def problem(profile: str, claims: dict[str, Any]) -> str | None:
    """Why a token is not a machine's, by this profile."""
    rules = PROFILES[profile]
    client_id = rules.client_of(claims)
    if client_id is None:
        return "no client id"
    return rules.access(claims, client_id) or rules.machine(claims, client_id)


@pytest.mark.parametrize("case", ALSO_MACHINES)
def test_a_machines_token_passes_its_own_profile(case: str) -> None:
    assert problem(*ALSO_MACHINES[case]) is None


@pytest.mark.parametrize("case", OTHERS)
def test_another_token_does_not_pass(case: str) -> None:
    profile, changes = OTHERS[case]
    changed = {name: value for name, value in (MACHINES[profile] | changes).items() if value is not None}
    claims = {name: None if value is NULL else value for name, value in changed.items()}

    assert problem(profile, claims) is not None


@pytest.mark.parametrize(
    ("profile", "scope"),
    [
        ("generic", "scope"), ("cognito", "scope"), ("okta", "scp"), ("auth0", "scope"), ("entra", "roles"),
        ("keycloak", "scope"), ("kubernetes", "scope"), ("github", "scope"), ("rfc9068", "scope"),
    ],
)  # fmt: skip
def test_each_profile_reads_scopes_from_its_claim(profile: str, scope: str) -> None:
    assert PROFILES[profile].scope == scope


def test_the_profiles_are_those_of_the_contract() -> None:
    assert set(PROFILES) == set(MACHINES)
    assert PROFILES["rfc9068"].typ == ("at+jwt", "application/at+jwt")
    assert [name for name, profile in PROFILES.items() if profile.audience_optional] == ["cognito"]
    assert {"github"} == SHARED_ISSUERS


def test_client_id_is_preferred_to_azp() -> None:
    assert PROFILES["generic"].client_of({"azp": "b", "client_id": "a"}) == "a"


def test_claims_can_be_renamed() -> None:
    profile = PROFILES["generic"].with_claims("cid", "scp")

    assert profile.client_of({"cid": "a", "client_id": "b"}) == "a"
    assert profile.scope == "scp"


def test_claims_that_are_not_renamed_stay() -> None:
    assert PROFILES["okta"].with_claims(None, None) == PROFILES["okta"]


def test_an_absent_claim_is_none() -> None:
    assert text({}, "sub") is None


@pytest.mark.parametrize("value", [None, 5, True, ["a"], {"a": 1}], ids=repr)
def test_a_claim_that_must_be_a_string_is_nothing_else(value: Any) -> None:
    with pytest.raises(Rejected) as caught:
        text({"sub": value}, "sub")

    assert caught.value.reason is Reason.INVALID_CLAIMS


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

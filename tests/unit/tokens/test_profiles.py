"""How each kind of issuer writes a machine's token, and how it writes a person's."""

from __future__ import annotations

from typing import Any

import pytest

from verifier.tokens.profiles import PROFILES, SHARED_ISSUERS, suggest

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

KEYCLOAK = {"azp": "etl", "sub": "uuid", "typ": "Bearer"}
ALSO_MACHINES: dict[str, tuple[str, dict[str, Any]]] = {
    "generic: azp instead of client_id": ("generic", {"azp": "etl", "sub": "etl"}),
    "generic: no sub": ("generic", {"client_id": "etl"}),
    "generic: gty": ("generic", {"client_id": "etl", "sub": "etl@clients", "gty": "client-credentials"}),
    "entra: appid of version 1": ("entra", {"appid": "etl", "roles": []}),
    "keycloak: lower case": ("keycloak", {"azp": "ETL", "preferred_username": "service-account-etl"}),
    "auth0: RFC 9068": ("auth0", {"client_id": "etl", "sub": "etl@clients"}),
    "keycloak: no profile scope": ("keycloak", KEYCLOAK | {"jti": "trrtcc:9d3dab58-9f8e", "acr": "1", "scope": "read"}),
    "keycloak: lightweight": ("keycloak", {"azp": "etl", "jti": "trltcc:1234", "typ": "Bearer", "scope": "read"}),
    "keycloak: lightweight, in a session": ("keycloak", {"azp": "etl", "jti": "onltcc:1234", "sid": "id"}),
    "keycloak: 26.1 without profile scope": ("keycloak", KEYCLOAK | {"client_id": "etl", "jti": "9d3dab58-9f8e"}),
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
    "auth0: no client": ("auth0", {"azp": None}),
    "auth0: RFC 9068, sub of a person": ("auth0", {"azp": None, "gty": None, "client_id": "etl", "sub": "auth0|ann"}),
    "auth0: RFC 9068, sub without suffix": ("auth0", {"azp": None, "gty": None, "client_id": "etl", "sub": "etl"}),
    "auth0: RFC 9068, no sub": ("auth0", {"azp": None, "gty": None, "client_id": "etl", "sub": None}),
    "auth0: RFC 9068, another grant": ("auth0", {"azp": None, "gty": "password", "client_id": "etl"}),
    "entra: delegated": ("entra", {"scp": "read"}),
    "entra: no roles": ("entra", {"roles": None}),
    "entra: no azp": ("entra", {"azp": None}),
    "keycloak: a person's name": ("keycloak", {"preferred_username": "ann"}),
    "keycloak: another client's account": ("keycloak", {"preferred_username": "service-account-other"}),
    "keycloak: an id token": ("keycloak", {"typ": "ID"}),
    "keycloak: neither user name nor grant nor client_id": ("keycloak", {"preferred_username": None}),
    "keycloak: a person's name, whatever jti": ("keycloak", {"preferred_username": "ann", "jti": "trrtcc:1"}),
    **{
        f"keycloak: grant {grant}": ("keycloak", {"preferred_username": None, "jti": f"{grant}:1", "client_id": "etl"})
        for grant in ("onrtac", "onrtro", "onrtrt", "ofrtac", "ntrtte", "trrtte", "trltte", "onltac", "trrtna")
    },
    "keycloak: cc elsewhere in jti": ("keycloak", {"preferred_username": None, "jti": "x:trrtcc:1"}),
    "keycloak: another client_id": ("keycloak", {"preferred_username": None, "client_id": "other"}),
    **{
        f"keycloak: client_id beside {name}": ("keycloak", {"preferred_username": None, "client_id": "etl", name: "x"})
        for name in ("sid", "session_state", "auth_time", "name", "email", "act", "may_act")
    },
    "keycloak: no azp": ("keycloak", {"azp": None}),
    "kubernetes: a node": ("kubernetes", {"sub": "system:node:a"}),
    "kubernetes: no sub": ("kubernetes", {"sub": None}),
    "github: no sub": ("github", {"sub": None}),
    "rfc9068: sub of a person": ("rfc9068", {"sub": "ann"}),
    "rfc9068: no sub": ("rfc9068", {"sub": None}),
    "rfc9068: no client_id": ("rfc9068", {"client_id": None}),
}


def changed(claims: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = {name: value for name, value in (claims | changes).items() if value is not None}
    return {name: None if value is NULL else value for name, value in merged.items()}


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

    assert problem(profile, changed(MACHINES[profile], changes)) is not None


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
    assert [name for name, profile in PROFILES.items() if profile.audience_optional] == ["cognito"]
    assert {"github"} == SHARED_ISSUERS


@pytest.mark.parametrize("profile", MACHINES)
def test_the_type_is_none_or_that_of_a_jwt_and_for_rfc9068_that_of_an_access_token(profile: str) -> None:
    expected = ["at+jwt"] if profile == "rfc9068" else [None, "jwt", "jose", "at+jwt"]

    assert PROFILES[profile].typ == frozenset(expected)


def test_client_id_is_preferred_to_azp() -> None:
    assert PROFILES["generic"].client_of({"azp": "b", "client_id": "a"}) == "a"


def test_claims_can_be_renamed() -> None:
    profile = PROFILES["generic"].with_claims("cid", "scp")

    assert profile.client_of({"cid": "a", "client_id": "b"}) == "a"
    assert profile.scope == "scp"


def test_claims_that_are_not_renamed_stay() -> None:
    assert PROFILES["okta"].with_claims(None, None) == PROFILES["okta"]


def test_a_nested_claim_may_hold_the_client_id() -> None:
    profile = PROFILES["kubernetes"].with_claims(("kubernetes.io", "namespace"), None)
    claims = MACHINES["kubernetes"] | {"kubernetes.io": {"namespace": "jobs"}}

    assert (profile.client_of(claims), profile.machine(claims, "jobs")) == ("jobs", None)


def test_a_github_token_may_count_by_its_repository() -> None:
    profile = PROFILES["github"].with_claims("repository", None)

    assert profile.client_of(MACHINES["github"] | {"repository": "acme/etl"}) == "acme/etl"


SUGGESTIONS = {
    "cognito": "this looks like Cognito: set profile: cognito",
    "okta": "this looks like Okta: set profile: okta",
    "auth0": "this looks like Auth0: set profile: auth0",
    "entra": "this looks like Entra: set profile: entra",
    "keycloak": "this looks like Keycloak: set profile: keycloak",
    "kubernetes": "this looks like Kubernetes: set profile: kubernetes",
    "github": "this looks like GitHub Actions: set profile: github",
    "rfc9068": "",
    "generic": "",
}
AS_ISSUED: dict[str, dict[str, Any]] = {
    "entra": {"tid": "tenant", "oid": "object"},
    "kubernetes": {"kubernetes.io": {"namespace": "jobs"}},
    "github": {"repository": "acme/etl", "workflow": "ci"},
}


@pytest.mark.parametrize("profile", SUGGESTIONS)
def test_the_profile_of_a_machines_token_is_suggested_by_its_shape(profile: str) -> None:
    claims = MACHINES[profile] | AS_ISSUED.get(profile, {})

    assert suggest(claims, "jwt", PROFILES["rfc9068"]) == SUGGESTIONS[profile]
    assert suggest(claims, "jwt", PROFILES[profile]) == ""
    assert suggest(claims, "logout+jwt", PROFILES["rfc9068"]) == ""


@pytest.mark.parametrize("case", OTHERS)
def test_no_profile_is_suggested_for_a_persons_token(case: str) -> None:
    profile, changes = OTHERS[case]
    claims = changed(MACHINES[profile] | AS_ISSUED.get(profile, {}), changes)

    assert suggest(claims, None, PROFILES["generic"]) == ""


def test_claims_of_wrong_types_suggest_nothing() -> None:
    assert suggest({"cid": 5, "sub": [], "azp": {}, "token_use": None}, None, PROFILES["generic"]) == ""

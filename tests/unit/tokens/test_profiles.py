"""How each kind of issuer writes a machine's token, and how it writes a person's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.minting import edited
from tests.unit.support import ABSENT, outcome, show
from verifier.reasons import Reason
from verifier.tokens.claims import ClaimName
from verifier.tokens.profiles import PROFILES, SHARED_ISSUERS, suggest

MACHINES: dict[str, dict[str, Any]] = {
    "generic": {"client_id": "etl", "sub": "etl"},
    "cognito": {"client_id": "etl", "sub": "etl", "token_use": "access"},
    "okta": {"cid": "etl", "sub": "etl", "scp": ["read"]},
    "auth0": {"azp": "etl", "sub": "etl@clients", "gty": "client-credentials"},
    "entra": {"azp": "etl", "sub": "an-object-id", "roles": ["read"], "tid": "tenant", "oid": "object"},
    "keycloak": {"azp": "etl", "sub": "uuid", "preferred_username": "service-account-etl", "typ": "Bearer"},
    "kubernetes": {"sub": "system:serviceaccount:jobs:etl", "kubernetes.io": {"namespace": "jobs"}},
    "github": {"sub": "repo:acme/etl:ref:refs/heads/main", "repository": "acme/etl", "workflow": "ci"},
    "rfc9068": {"client_id": "etl", "sub": "etl"},
}
# Other forms of a machine's token, and tokens of any other kind: changes to the one above. ABSENT: without the claim.
AUTH0_RFC9068 = {"azp": ABSENT, "gty": ABSENT, "client_id": "etl"}
NAMELESS = {"preferred_username": ABSENT}  # Keycloak without the scope `profile`
OTHER_FORMS: dict[str, list[dict[str, Any]]] = {
    "generic": [
        {"client_id": ABSENT, "azp": "etl"}, {"sub": ABSENT}, {"sub": "etl@clients", "gty": "client-credentials"},
    ],
    "auth0": [AUTH0_RFC9068],
    "entra": [{"azp": ABSENT, "appid": "etl", "roles": []}],  # version 1
    "keycloak": [
        {"azp": "ETL"}, {"typ": ABSENT}, {"jti": "trrtcc:1"},
        *({"jti": f"{grant}:1", "sid": "id", "client_id": "etl"} for grant in ("onrtcc", "onrtrt", "onrtte")),
        NAMELESS | {"jti": "trrtcc:9d3dab58-9f8e", "acr": "1", "scope": "read"},
        NAMELESS | {"sub": ABSENT, "jti": "trltcc:1234"},  # lightweight
        NAMELESS | {"sub": ABSENT, "jti": "onltcc:1234", "sid": "id"},  # lightweight, in a session
        NAMELESS | {"client_id": "etl", "jti": "9d3dab58-9f8e"},  # 26.1
    ],
}  # fmt: skip
OTHERS: dict[str, list[dict[str, Any]]] = {
    "generic": [{"sub": "ann"}, {"gty": "password", "sub": "ann"}, {"client_id": ABSENT}],
    "cognito": [
        {"username": "ann"}, {"cognito:groups": ["admins"]}, {"device_key": "k"}, {"username": None},
        {"token_use": "id"}, {"token_use": None}, {"token_use": ABSENT}, {"client_id": ABSENT},
    ],
    "okta": [{"sub": "ann@example.com"}, {"uid": "00uabc"}, {"cid": ABSENT}, {"sub": ABSENT}],
    "auth0": [
        {"gty": "password"}, {"gty": None}, {"gty": ABSENT}, {"azp": ABSENT},
        AUTH0_RFC9068 | {"sub": "auth0|ann"}, AUTH0_RFC9068 | {"sub": "etl"}, AUTH0_RFC9068 | {"sub": ABSENT},
        AUTH0_RFC9068 | {"gty": "password"},
    ],
    "entra": [{"scp": "read"}, {"roles": ABSENT}, {"azp": ABSENT}],
    "keycloak": [
        {"preferred_username": "ann"}, {"preferred_username": "ann", "jti": "trrtcc:1"},
        {"preferred_username": "service-account-other"}, {"typ": "ID"}, {"azp": ABSENT},
        # A person who registered this user name; the client has no service account.
        *({"jti": f"{grant}:1", "sid": "id"} for grant in ("onrtac", "onrtro", "onrtrt", "onrtte")),
        *({claim: "x"} for claim in ("sid", "session_state", "auth_time")),  # 26.1
        NAMELESS, NAMELESS | {"jti": "x:trrtcc:1"}, NAMELESS | {"client_id": "other"},
        *(
            NAMELESS | {"jti": f"{grant}:1", "client_id": "etl"}
            for grant in ("onrtac", "onrtro", "onrtrt", "ofrtac", "ntrtte", "trrtte", "trltte", "onltac", "trrtna")
        ),
        *(
            NAMELESS | {"client_id": "etl", name: "x"}
            for name in ("sid", "session_state", "auth_time", "name", "email", "act", "may_act")
        ),
    ],
    "kubernetes": [{"sub": "system:node:a"}, {"sub": ABSENT}],
    "github": [{"sub": ABSENT}],
    "rfc9068": [{"sub": "ann"}, {"sub": ABSENT}, {"client_id": ABSENT}],
}  # fmt: skip


def tokens(table: dict[str, list[dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Profiles and claims."""
    return [(name, edited(MACHINES[name], changes)) for name, group in table.items() for changes in group]


@pytest.mark.parametrize(("profile", "claims"), [*MACHINES.items(), *tokens(OTHER_FORMS)], ids=show)
def test_a_machines_token_passes_its_own_profile(profile: str, claims: dict[str, Any]) -> None:
    client_id = claims.get("cid") or claims.get("azp") or claims.get("client_id") or claims.get("appid")

    assert PROFILES[profile].machine_of(claims, "at+jwt") == (client_id or claims["sub"])


@pytest.mark.parametrize(("profile", "claims"), tokens(OTHERS), ids=show)
def test_another_token_does_not_pass_and_no_profile_is_suggested(profile: str, claims: dict[str, Any]) -> None:
    assert outcome(PROFILES[profile].machine_of, claims, "at+jwt") is Reason.NOT_M2M
    assert suggest(claims, None, PROFILES["generic"]) == ""


def test_the_profiles_are_those_of_the_contract() -> None:
    assert set(PROFILES) == set(MACHINES)
    assert [name for name, profile in PROFILES.items() if profile.audience_optional] == ["cognito"]
    assert {"github"} == SHARED_ISSUERS
    scopes = {name: profile.scope for name, profile in PROFILES.items()}
    assert scopes == dict.fromkeys(MACHINES, "scope") | {"okta": "scp", "entra": "roles"}
    types = {name: profile.typ for name, profile in PROFILES.items()}
    assert types == {name: {None, "jwt", "jose", "at+jwt"} for name in MACHINES} | {"rfc9068": {"at+jwt"}}


def test_client_id_is_preferred_to_azp() -> None:
    assert PROFILES["generic"].client_of({"azp": "b", "client_id": "a"}) == "a"


def test_claims_can_be_renamed() -> None:
    profile = PROFILES["generic"].with_claims("cid", "scp")

    assert (profile.client_of({"cid": "a", "client_id": "b"}), profile.scope) == ("a", "scp")
    assert PROFILES["okta"].with_claims(None, None) == PROFILES["okta"]


@pytest.mark.parametrize(
    ("profile", "claim", "client_id"),
    [("kubernetes", ("kubernetes.io", "namespace"), "jobs"), ("github", "repository", "acme/etl")],
)
def test_another_claim_may_hold_the_client_id(profile: str, claim: ClaimName, client_id: str) -> None:
    renamed = PROFILES[profile].with_claims(claim, None)

    assert renamed.machine_of(MACHINES[profile], "jwt") == client_id


PRODUCTS = {
    "cognito": "Cognito", "okta": "Okta", "auth0": "Auth0", "entra": "Entra", "keycloak": "Keycloak",
    "kubernetes": "Kubernetes", "github": "GitHub Actions",
}  # fmt: skip


@pytest.mark.parametrize("profile", MACHINES)
def test_the_profile_of_a_machines_token_is_suggested_by_its_shape(profile: str) -> None:
    claims, product = MACHINES[profile], PRODUCTS.get(profile)
    suggestion = f"this looks like {product}: set profile: {profile}" if product else ""

    assert suggest(claims, "jwt", PROFILES["rfc9068"]) == suggestion
    assert suggest(claims, "jwt", PROFILES[profile]) == ""
    assert suggest(claims, "logout+jwt", PROFILES["rfc9068"]) == ""


def test_claims_of_wrong_types_suggest_nothing() -> None:
    assert suggest({"cid": 5, "sub": [], "azp": {}, "token_use": None}, None, PROFILES["generic"]) == ""

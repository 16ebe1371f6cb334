"""Client ids as they are written, roles and revocation."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.support import make_principal
from verifier.policy.clients import ClientIds, Revoked, Roles

BOTH = ClientIds(("lab", "okta"))
ONE = ClientIds(("lab",))


@pytest.mark.parametrize(
    ("ids", "written", "client"),
    [
        (ONE, "etl", ("lab", "etl")),
        (ONE, "lab/etl", ("lab", "etl")),
        (ONE, "lab/repo:acme/etl", ("lab", "repo:acme/etl")),
        (ONE, "lab", ("lab", "lab")),
        (BOTH, "okta/etl", ("okta", "etl")),
        (BOTH, "lab/repo:acme/etl", ("lab", "repo:acme/etl")),
    ],
)
def test_a_client_id_is_parsed(ids: ClientIds, written: str, client: tuple[str, str]) -> None:
    assert ids.parse(written) == client


NO_CLIENT = {
    "must be written issuer-name/client-id, with one of lab, okta$": (BOTH, ["etl", "lab/", "/etl", ""]),
    "must be written issuer-name/client-id, with one of lab$": (ONE, ["lab/", "/etl", "/"]),
    "no issuer is named other": (BOTH, ["other/etl"]),
    "no issuer is named repo:acme": (ONE, ["repo:acme/etl"]),
    "list each client": (ONE, ["*", "etl-*", "lab/repo:o/r:*", "la*/etl"]),
}


@pytest.mark.parametrize(
    ("ids", "written", "why"), [(ids, one, why) for why, (ids, group) in NO_CLIENT.items() for one in group]
)
def test_a_client_id_that_is_ambiguous_or_a_pattern_is_refused(ids: ClientIds, written: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ids.parse(written)


ROLES = Roles({("lab", "etl"): "of-client"}, {"query.admin": "of-admin", "query.read": "of-read"})


@pytest.mark.parametrize(
    ("issuer", "client", "scopes", "role"),
    [
        ("lab", "etl", {"query.admin"}, "of-client"),
        ("lab", "x", {"query.read", "query.admin"}, "of-admin"),
        ("lab", "x", {"query.read"}, "of-read"),
        ("okta", "etl", {"query.read"}, "of-read"),
        ("lab", "x", {"other"}, ""),
        ("lab", "x", set(), ""),
    ],
)
def test_a_role_is_by_client_then_by_scope_else_none(issuer: str, client: str, scopes: set[str], role: str) -> None:
    assert ROLES.of(issuer, client, frozenset(scopes)) == role


@pytest.mark.parametrize(
    ("revoked", "covers"),
    [
        ({}, False),
        ({"clients": {"lab/etl"}}, True),
        ({"clients": {"okta/etl"}}, False),
        ({"clients": {"etl"}}, True),
        ({"clients": {"x", "lab", "lab/"}}, False),
        ({"tokens": {"token-1"}}, True),
        ({"tokens": {"token-2"}}, False),
    ],
    ids=str,
)
def test_a_client_or_a_token_is_revoked(revoked: dict[str, Any], covers: bool) -> None:
    assert Revoked(**revoked).covers(make_principal(), "token-1") is covers

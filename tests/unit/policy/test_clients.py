"""Client ids as they are written, roles and revocation."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("ids", "written"),
    [
        *[(BOTH, written) for written in ("etl", "other/etl", "lab/", "/etl", "")],
        *[(ONE, written) for written in ("other/etl", "repo:acme/etl", "lab/", "/etl", "/")],
    ],
)
def test_a_slash_or_several_issuers_make_the_issuer_name_necessary(ids: ClientIds, written: str) -> None:
    with pytest.raises(ValueError, match="must be written issuer-name/client-id"):
        ids.parse(written)


@pytest.mark.parametrize("ids", [ONE, BOTH], ids=["one issuer", "two issuers"])
def test_a_name_that_no_issuer_has_is_quoted(ids: ClientIds) -> None:
    with pytest.raises(ValueError, match="no issuer is named oktaa"):
        ids.parse("oktaa/abc")


@pytest.mark.parametrize("written", ["etl", "lab/", "/etl"])
def test_where_no_name_is_unknown_none_is_quoted(written: str) -> None:
    with pytest.raises(ValueError, match=r"with one of lab, okta$"):
        BOTH.parse(written)


@pytest.mark.parametrize("written", ["*", "etl-*", "lab/repo:o/r:*", "la*/etl"])
def test_a_client_id_is_no_pattern(written: str) -> None:
    with pytest.raises(ValueError, match="list each client"):
        ONE.parse(written)


ROLES = Roles({("lab", "etl"): "of-client"}, {"query.admin": "of-admin", "query.read": "of-read"})


@pytest.mark.parametrize(
    ("issuer", "client", "scopes", "role"),
    [
        pytest.param("lab", "etl", {"query.admin"}, "of-client", id="client first"),
        pytest.param("lab", "x", {"query.read", "query.admin"}, "of-admin", id="scope in file order"),
        pytest.param("lab", "x", {"query.read"}, "of-read", id="the other scope"),
        pytest.param("okta", "etl", {"query.read"}, "of-read", id="a client of another issuer"),
        pytest.param("lab", "x", {"other"}, "", id="none"),
        pytest.param("lab", "x", set(), "", id="no scope"),
    ],
)
def test_a_role_is_by_client_then_by_scope_else_none(issuer: str, client: str, scopes: set[str], role: str) -> None:
    assert ROLES.of(issuer, client, frozenset(scopes)) == role


@pytest.mark.parametrize(
    ("revoked", "covers"),
    [
        pytest.param(Revoked(), False, id="nothing"),
        pytest.param(Revoked(clients=frozenset({("lab", "etl")})), True, id="client"),
        pytest.param(Revoked(clients=frozenset({("okta", "etl")})), False, id="client of another issuer"),
        pytest.param(Revoked(bare_clients=frozenset({"etl"})), True, id="bare"),
        pytest.param(Revoked(bare_clients=frozenset({"x"})), False, id="another bare"),
        pytest.param(Revoked(tokens=frozenset({"token-1"})), True, id="jti"),
        pytest.param(Revoked(tokens=frozenset({"token-2"})), False, id="another jti"),
    ],
)
def test_a_client_or_a_token_is_revoked(revoked: Revoked, covers: bool) -> None:
    assert revoked.covers(make_principal(), "token-1") is covers

"""What becomes of verified claims."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.support import ABSENT, claims, outcome, show
from verifier.identity import Principal, split_headers
from verifier.reasons import Reason
from verifier.tokens.claims import ClaimName
from verifier.tokens.principals import MAX_SCOPE_LENGTH, MAX_SCOPES, Principals
from verifier.tokens.profiles import PROFILES

MAPPED: dict[str, ClaimName] = {"X-Tenant": "tenant"}


def make_principals(mapped: dict[str, ClaimName] | None = None, role: str = "") -> Principals:
    return Principals(lambda *_: role, mapped or {})


def make(principals: Principals, client_id: str = "etl", prefix: str = "", **changes: Any) -> Principal:
    return principals.make("lab", client_id, claims(**changes), PROFILES["generic"], prefix, None)


def test_the_identity_headers_are_those_of_the_contract() -> None:
    principal = make(make_principals(MAPPED, role="arn:role"), tenant="acme")

    assert split_headers(principal.header_lines) == (
        (b"x-m2m-client-id", b"etl"), (b"x-m2m-scope", b"read write"), (b"x-m2m-role", b"arn:role"),
        (b"x-m2m-issuer", b"lab"), (b"x-tenant", b"acme"),
    )  # fmt: skip
    assert (principal.issuer, principal.client_id, principal.scope, principal.role) == (
        "lab", "etl", "read write", "arn:role",
    )  # fmt: skip


def test_scopes_are_held_with_and_without_the_issuers_prefix() -> None:
    principal = make(make_principals(), prefix="https://api/", scope=["https://api/read", "write", "https://api/"])

    assert principal.scopes == {"https://api/read", "read", "write", "https://api/"}
    assert (principal.scope, principal.scope_prefix) == ("https://api/read write https://api/", "https://api/")


def test_the_role_is_looked_up_by_issuer_client_and_scopes() -> None:
    roles = {("lab", "etl", frozenset({"read", "write"})): "arn:role"}

    assert make(Principals(lambda *known: roles[known], {})).role == "arn:role"


@pytest.mark.parametrize(
    ("clients", "listed"), [(None, True), ({"etl"}, True), ({"other"}, False), (set(), False)], ids=repr
)
def test_a_principal_knows_whether_its_issuer_lists_it(clients: set[str] | None, listed: bool) -> None:
    listing = None if clients is None else frozenset(clients)
    principal = make_principals().make("lab", "etl", {}, PROFILES["generic"], "", listing)

    assert principal.listed is listed


@pytest.mark.parametrize(
    "changes",
    [{"client_id": client} for client in ("", "a b", "a\r\nX: y", "é", "\x7f")]
    + [{"scope": scope} for scope in ("read\tall", "read\nx", "é", ["read all"], ["read", " "], "\x7f")],
    ids=repr,
)
def test_a_client_id_or_scope_that_no_header_may_carry_is_invalid(changes: dict[str, Any]) -> None:
    principals = make_principals()
    make(principals, scope="read all")  # the same header, from two scopes

    assert outcome(make, principals, **changes) is Reason.INVALID_CLAIMS


# --- mapped claims ---


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("acme", b"acme"), ("", b""), (ABSENT, b""), (5, b"5"), (1.5, b"1.5"), (True, b"true"), (False, b"false"),
        (["a", "b"], b"a b"), ([], b""), ({"a": 1}, b""), ([1], b""), (None, b""), (["a", None], b""),
    ],
    ids=show,
)  # fmt: skip
def test_a_mapped_claim_becomes_a_header(value: Any, header: bytes) -> None:
    """Strings as they are, numbers and booleans as JSON, lists of strings joined by a space, else empty."""
    principals = make_principals({"X-Tenant": "tenant", "X-Nested": ("realm", "tenant")})
    made = dict(split_headers(make(principals, tenant=value, realm={"tenant": value}).header_lines))

    assert (made[b"x-tenant"], made[b"x-nested"]) == (header, header)


@pytest.mark.parametrize("value", ["a\nb", " a", "a ", "é", ["a", ""], ["", "a"]], ids=repr)
def test_a_mapped_claim_that_no_header_may_carry_is_invalid(value: Any) -> None:
    assert outcome(make, make_principals(MAPPED), tenant=value) is Reason.INVALID_CLAIMS


@pytest.mark.parametrize(
    ("values", "warnings"),
    [
        pytest.param([{"a": 1}, {"a": 2}, [1]], ["the claim tenant is of a type"], id="of another type"),
        pytest.param([ABSENT, ABSENT], ["no token so far has the claim tenant"], id="in no token"),
        pytest.param(["acme", ABSENT], [], id="in the first token"),
        pytest.param(["acme", ""], [], id="in all tokens"),
    ],
)
def test_a_mapped_claim_that_cannot_become_a_header_is_a_warning_once(
    values: list[Any], warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    principals = make_principals(MAPPED)
    for value in values:
        make(principals, tenant=value)

    assert len(caplog.messages) == len(warnings)
    assert all(message.startswith(start) for message, start in zip(caplog.messages, warnings, strict=True))


@pytest.mark.parametrize(
    ("profile", "scope", "warnings"),
    [
        ("generic", "roles", ["no token so far has the claim roles, which is mapped to the scope of issuer lab"]),
        ("okta", "scope", []), ("okta", None, []),
    ],
)  # fmt: skip
def test_a_scope_claim_that_is_configured_and_in_no_token_is_a_warning_once(
    profile: str, scope: str | None, warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    principals = make_principals()
    for _ in range(2):
        principals.make("lab", "etl", claims(), PROFILES[profile].with_claims(None, scope), "", None)

    assert caplog.messages == warnings


# --- what is stored once ---


@pytest.mark.parametrize(
    "changes", [{"scope": "read"}, {"scope": "readwrite"}, {"client_id": "b"}, {"tenant": "b"}], ids=repr
)
def test_equal_principals_and_no_others_are_one_object(changes: dict[str, Any]) -> None:
    principals = make_principals(MAPPED)
    principal = make(principals, jti="1")

    assert make(principals, jti="2") is principal
    assert make(principals, **changes).header_lines != principal.header_lines


def test_a_principal_is_forgotten_with_its_last_token() -> None:
    roles = iter(["first", "second"])
    principals = Principals(lambda *_: next(roles), {})
    make(principals)  # not stored, so it is forgotten at once

    assert make(principals).role == "second"


@pytest.mark.parametrize(("length", "shared"), [(MAX_SCOPE_LENGTH, True), (MAX_SCOPE_LENGTH + 1, False)])
def test_a_scope_up_to_a_length_is_stored_once_for_all_principals(length: int, shared: bool) -> None:
    principals = make_principals()
    first, second = (make(principals, client, prefix="p/", scope="p/".ljust(length, "s")) for client in ("a", "b"))

    assert ({id(scope) for scope in first.scopes} == {id(scope) for scope in second.scopes}) is shared


def test_the_memory_of_scopes_is_bounded() -> None:
    principals = make_principals()
    kept = make(principals, scope="first " + "l" * (MAX_SCOPE_LENGTH + 1))
    for number in range(MAX_SCOPES):
        make(principals, scope=f"scope-{number}")

    again = make(principals, client_id="b", scope=kept.scope)
    assert set(map(id, again.scopes)).isdisjoint(map(id, kept.scopes))

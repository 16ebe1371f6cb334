"""How claims are named, and the types that they must have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.support import rejected, show
from verifier.reasons import Reason
from verifier.tokens.claims import ABSENT, ClaimName, find_claim, number, scope_values, show_claim, text

CLAIMS: dict[str, Any] = {
    "sub": "etl",
    "null": None,
    "realm_access": {"roles": ["a", "b"], "empty": {}},
    "realm_access.exact": "c",
    "https://example.com/roles": "d",
    "kubernetes.io": {"namespace": "jobs", "serviceaccount": {"name": "etl"}},
    "list": [{"a": 1}],
}


FOUND: list[tuple[ClaimName, Any]] = [
    ("sub", "etl"), ("null", None), ("realm_access.roles", ["a", "b"]), ("realm_access.exact", "c"),
    ("https://example.com/roles", "d"), (("kubernetes.io", "namespace"), "jobs"),
    (("kubernetes.io", "serviceaccount", "name"), "etl"), (("https://example.com/roles",), "d"),
]  # fmt: skip
NOT_FOUND: list[ClaimName] = [
    "kubernetes.io.namespace", "realm_access.nothing", "realm_access.empty.roles", "realm_access.roles.a", "sub.sub",
    "null.sub", "list.0", "list.a", ("realm_access.roles",), "nothing", ".",
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [*FOUND, *((name, ABSENT) for name in NOT_FOUND)], ids=show)
def test_a_claim_of_exactly_this_name_wins_else_dots_or_a_list_descend(name: ClaimName, value: Any) -> None:
    assert find_claim(CLAIMS, name) == value


def test_a_nested_claim_is_shown_with_dots() -> None:
    assert [show_claim("sub"), show_claim(("kubernetes.io", "namespace"))] == ["sub", "kubernetes.io.namespace"]


READ: list[tuple[Callable[[Any, str], Any], list[tuple[Any, Any]]]] = [
    (text, [(ABSENT, None), ("", ""), ("a", "a")]),
    (number, [(ABSENT, None), (0, 0), (-1.5, -1.5), (2.0**53, 2.0**53)]),
    (
        scope_values,
        [(ABSENT, []), ("", []), ("a", ["a"]), ("a  b ", ["a", "b"]), ([], []), (["a", "", "b c"], ["a", "b c"])],
    ),
]


@pytest.mark.parametrize(
    ("read", "value", "expected"), [(read, *case) for read, cases in READ for case in cases], ids=show
)
def test_a_claim_is_read(read: Callable[[Any, str], Any], value: Any, expected: Any) -> None:
    assert read({} if value is ABSENT else {"x": value}, "x") == expected


WRONG: list[tuple[Callable[[Any, str], Any], tuple[Any, ...]]] = [
    (text, (None, 5, True, ["a"], {"a": 1})),
    (number, (None, "5", True, False, [5], {}, 2.0**53 + 2, float("nan"))),
    (scope_values, (None, 5, True, ["a", 5], [None], {"a": 1})),
]


@pytest.mark.parametrize(("read", "value"), [(read, value) for read, values in WRONG for value in values], ids=show)
def test_a_claim_of_another_type_is_invalid(read: Callable[[Any, str], Any], value: Any) -> None:
    no = rejected(read, {"x": value}, "x")

    assert no.reason is Reason.INVALID_CLAIMS
    assert "x" in no.description

"""How claims are named, and the types that they must have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.support import show
from verifier.reasons import Reason, Rejected
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sub", "etl"),
        ("null", None),
        ("realm_access.roles", ["a", "b"]),
        ("realm_access.exact", "c"),
        ("https://example.com/roles", "d"),
        (("kubernetes.io", "namespace"), "jobs"),
        (("kubernetes.io", "serviceaccount", "name"), "etl"),
        (("https://example.com/roles",), "d"),
        ("kubernetes.io.namespace", ABSENT),
        ("realm_access.nothing", ABSENT),
        ("realm_access.empty.roles", ABSENT),
        ("realm_access.roles.a", ABSENT),
        ("sub.sub", ABSENT),
        ("null.sub", ABSENT),
        ("list.0", ABSENT),
        ("list.a", ABSENT),
        (("realm_access.roles",), ABSENT),
        ("nothing", ABSENT),
        (".", ABSENT),
    ],
    ids=show,
)
def test_a_claim_of_exactly_this_name_wins_else_dots_or_a_list_descend(name: ClaimName, value: Any) -> None:
    assert find_claim(CLAIMS, name) == value


def test_a_nested_claim_is_shown_with_dots() -> None:
    assert [show_claim("sub"), show_claim(("kubernetes.io", "namespace"))] == ["sub", "kubernetes.io.namespace"]


@pytest.mark.parametrize(
    ("read", "claims", "value"),
    [
        (text, {}, None),
        (text, {"x": ""}, ""),
        (text, {"x": "a"}, "a"),
        (number, {}, None),
        (number, {"x": 0}, 0),
        (number, {"x": -1.5}, -1.5),
        (number, {"x": 2.0**53}, 2.0**53),
        (scope_values, {}, []),
        (scope_values, {"x": ""}, []),
        (scope_values, {"x": "a"}, ["a"]),
        (scope_values, {"x": "a  b "}, ["a", "b"]),
        (scope_values, {"x": []}, []),
        (scope_values, {"x": ["a", "", "b c"]}, ["a", "b c"]),
    ],
)
def test_a_claim_is_read(read: Callable[[Any, str], Any], claims: dict[str, Any], value: Any) -> None:
    assert read(claims, "x") == value


WRONG: list[tuple[Callable[[Any, str], Any], tuple[Any, ...]]] = [
    (text, (None, 5, True, ["a"], {"a": 1})),
    (number, (None, "5", True, [5], {}, 2.0**53 + 2, float("nan"))),
    (scope_values, (None, 5, True, ["a", 5], [None], {"a": 1})),
]


@pytest.mark.parametrize(("read", "value"), [(read, value) for read, values in WRONG for value in values], ids=show)
def test_a_claim_of_another_type_is_invalid(read: Callable[[Any, str], Any], value: Any) -> None:
    with pytest.raises(Rejected) as caught:
        read({"x": value}, "x")

    assert caught.value.reason is Reason.INVALID_CLAIMS
    assert "x" in caught.value.description

"""Single claims: how they are named, and the types that they must have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verifier.reasons import Reason, Rejected

Claims = Mapping[str, Any]
"""A token's claims as parsed: their types are checked where they are read."""

ClaimName = str | tuple[str, ...]
"""The name of a claim. In a text, a dot descends into objects; a tuple has the steps."""

LARGEST_TIME = 2.0**53  # seconds; beyond it JSON numbers lose precision (RFC 8259 section 6)

ABSENT: Any = object()


def find_claim(claims: Claims, name: ClaimName) -> Any:
    """The value of a claim, or ABSENT. A claim with exactly this name wins over one that is nested."""
    if isinstance(name, str):
        if name in claims or "." not in name:
            return claims.get(name, ABSENT)
        name = tuple(name.split("."))
    value: Any = claims
    for step in name:
        if not isinstance(value, Mapping) or step not in value:
            return ABSENT
        value = value[step]
    return value


def show_claim(name: ClaimName) -> str:
    """A claim's name for log lines and descriptions."""
    return name if isinstance(name, str) else ".".join(name)


def text(claims: Claims, name: ClaimName) -> str | None:
    """The string claim ``name``, None where absent. Raises Rejected where it is anything but a string."""
    value = find_claim(claims, name)
    if value is ABSENT:
        return None
    if not isinstance(value, str):
        raise Rejected(Reason.INVALID_CLAIMS, f"the claim {show_claim(name)} is not a string")
    return value


def scope_values(claims: Claims, name: ClaimName) -> list[str]:
    """The scopes of ``name``, which is one string (RFC 8693 section 4.2) or a list of strings. Raises Rejected."""
    value = find_claim(claims, name)
    if value is ABSENT:
        return []
    if isinstance(value, str):
        return [scope for scope in value.split(" ") if scope]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [scope for scope in value if scope]
    raise Rejected(Reason.INVALID_CLAIMS, f"the claim {show_claim(name)} is neither a string nor a list of strings")


def number(claims: Claims, name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2) in seconds. Raises Rejected; a boolean is no number, nor is 1e999."""
    value: float = claims.get(name, ABSENT)
    if value is ABSENT:
        return None
    if type(value) not in (int, float) or not abs(value) <= LARGEST_TIME:
        raise Rejected(Reason.INVALID_CLAIMS, f"{name} is not a number of seconds")
    return value

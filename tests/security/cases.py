"""Rows of the hostile table, and the ways to change a token that its rows are written with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from tests.minting import ABSENT
from verifier.reasons import Reason

from .running_app import Answer, Request, RunningApp
from .tokens import Token, ordinary_claims, with_member

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
"""Of base64url."""

Recipe = Token | bytes | Callable[[], bytes] | None
"""A token, or how to make it when it is first needed (keys take time); None: no Authorization header."""


@dataclass(frozen=True)
class Case:
    """One request and the reason that its answer must give."""

    name: str
    reason: Reason
    recipe: Recipe
    request: Request = field(default_factory=Request)
    app: str = "main"

    @cached_property
    def token(self) -> bytes | None:
        """The token's bytes."""
        if isinstance(self.recipe, Token):
            return self.recipe.encode()
        return self.recipe() if callable(self.recipe) else self.recipe

    def ask(self, app: RunningApp, *, asgi: bool = False, **changes: Any) -> Answer:
        """Send it, with ``changes`` to the request."""
        return app.ask(self.token, asgi=asgi, **{**vars(self.request), **changes})


def cases(reason: Reason, rows: Mapping[str, Recipe], app: str = "main", **request: Any) -> list[Case]:
    """Rows that share their reason and their request."""
    return [Case(name, reason, token, Request(**request), app) for name, token in rows.items()]


def claim(reason: Reason, name: str, *values: Any, issuer: str = "generic", **others: Any) -> list[Case]:
    """One row for each value of a claim; ``others`` are further claims."""
    tokens = [Token(issuer, claims={name: value, **others}) for value in values]
    prefix = "" if issuer == "generic" else f"{issuer}: "
    return cases(reason, {f"{prefix}{name} {written(value)}": token for value, token in zip(values, tokens)})


def parameter(reason: Reason, name: str, *values: Any) -> list[Case]:
    """One row for each value of a header parameter."""
    return cases(reason, {f"{name} {written(value)}": Token(header={name: value}) for value in values})


def written(value: Any) -> str:
    """A value in a row's name."""
    return "missing" if value is ABSENT else json.dumps(value)


def header(**changes: Any) -> Token:
    """An ordinary token of the generic issuer with another header."""
    return Token(header=changes)


def claims(**changes: Any) -> Token:
    """The same with other claims."""
    return Token(claims=changes)


def replaced(place: int, edit: Callable[[bytes], bytes], token: Token | None = None) -> Token:
    """An ordinary token with one of its three parts edited after it was signed."""

    def edit_part(encoded: bytes) -> bytes:
        parts = encoded.split(b".")
        parts[place] = edit(parts[place])
        return b".".join(parts)

    return replace(token or Token(), edit=edit_part)


def raw(member: bytes) -> Token:
    """An ordinary token with a member of its claims in any form."""
    return Token(claims=with_member(ordinary_claims("generic"), member))

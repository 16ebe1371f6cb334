"""The types of configuration values that several sections share, with the message for a wrong one."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Annotated, Any, TypedDict

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    model_validator,
)

from verifier.identity import VISIBLE
from verifier.keys.fetch import require_secure
from verifier.policy.clients import NO_PATTERN, ClientIds
from verifier.policy.policies import SCOPE_TOKEN
from verifier.tokens import claims

log = logging.getLogger(__name__)


class Context(TypedDict):
    """What validators need beside the value."""

    folder: Path
    """The configuration file's folder, which relative paths start from."""
    client_ids: ClientIds
    owners: dict[tuple[str, str], str]
    """Who has a value that only one may have, by kind and value; validators fill it."""


Info = ValidationInfo[Context]


def matching(pattern: re.Pattern[str], message: str) -> AfterValidator:
    def validate(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(message)
        return value

    return AfterValidator(validate)


def secure_url(url: str) -> str:
    require_secure(url)
    if not VISIBLE.fullmatch(url) or any(mark in url for mark in '"\\#'):
        raise ValueError("has characters that are not allowed in a URL")
    return url


def _claim_name(value: Any) -> claims.ClaimName:
    """A text, or a list that spells the steps into nested objects."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value and all(isinstance(step, str) and step for step in value):
        return tuple(value)
    raise ValueError("must be the name of a claim, or a list of names for one that is nested")


def _list_of_one(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


OrOne = BeforeValidator(_list_of_one, json_schema_input_type=list[str] | str)
"""A string counts as a list of one; the JSON schema allows it."""

Text = Annotated[str, Field(min_length=1)]
Name = Annotated[
    str, matching(re.compile("[A-Za-z0-9][A-Za-z0-9._-]*"), "must be letters, digits, dots, dashes or underscores")
]
HeaderName = Annotated[
    str, matching(re.compile("[A-Za-z0-9][A-Za-z0-9-]*"), "must be a header name of letters, digits and dashes")
]
Url = Annotated[str, AfterValidator(secure_url)]
ClientId = Annotated[
    str,
    matching(VISIBLE, "must be visible ASCII characters without spaces"),
    matching(re.compile(r"[^*]*"), NO_PATTERN),
]
Scope = Annotated[str, matching(SCOPE_TOKEN, "must be one scope: visible ASCII without spaces, quotes, backslashes")]
Prefix = Annotated[str, matching(re.compile(rf"(?:{SCOPE_TOKEN.pattern})?"), "must be part of a scope")]
ClaimName = Annotated[
    claims.ClaimName,
    PlainValidator(_claim_name, json_schema_input_type=Text | Annotated[list[Text], Field(min_length=1)]),
]


class Section(BaseModel):
    """A mapping of the file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_values(cls, given: Any) -> Any:
        """A section whose lines are all removed or commented out counts as absent."""
        if not isinstance(given, dict):
            return {} if given is None else given
        for name in sorted(cls.model_fields.keys() - _SECTIONS):
            if given.get(name, ...) is None:
                # It may be an allow-list whose last line was removed: `[]` was intended.
                log.warning(
                    "%s has no value in the configuration and counts as absent; write `[]` to allow no client", name
                )
        return {name: value for name, value in given.items() if value is not None or name not in _SECTIONS}


_SECTIONS = frozenset({"policies", "roles", "revoked", "headers", "cache", "claims"})

"""The types of single configuration values, with the message for a wrong one."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)

from verifier.identity import HEADER_SAFE, IDENTITY_HEADERS, VISIBLE
from verifier.keys.fetch import require_secure
from verifier.keys.jwk import parse_key_file
from verifier.policy.clients import NO_PATTERN, ClientIds
from verifier.policy.paths import PathPattern
from verifier.policy.policies import SCOPE_TOKEN
from verifier.tokens import claims

log = logging.getLogger(__name__)


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


class Context(TypedDict):
    """What validators need beside the value."""

    folder: Path
    """The configuration file's folder, which relative paths start from."""
    client_ids: ClientIds


def key_file(path: Path, info: ValidationInfo[Context]) -> Path:
    found = info.context["folder"] / path
    try:
        parse_key_file(found.read_bytes())
    except OSError as error:
        raise ValueError(f"{found}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{found}: {error}") from error
    return found


def file_read_later(path: Path, info: ValidationInfo[Context]) -> Path:
    """A file that is read for each fetch of keys. It may not exist where the configuration is only checked."""
    found = info.context["folder"] / path
    if not found.is_file():
        log.warning("%s: %s is not there yet: keys cannot be fetched without it", info.field_name, found)
    return found


def _known_issuer(name: str, info: ValidationInfo[Context]) -> str:
    names = info.context["client_ids"].issuers
    if name not in names:
        raise ValueError(f"no issuer has this name; there is {', '.join(names)}")
    return name


def _known_client(written: str, info: ValidationInfo[Context]) -> str:
    info.context["client_ids"].parse(written)
    return written


def _free_header(name: str) -> str:
    if name.lower() in _RESERVED or name.lower().startswith("x-m2m-"):
        raise ValueError("is a header that the verifier itself sends, or that proxies interpret")
    return name


def _no_pattern(client_id: str) -> str:
    if "*" in client_id:
        raise ValueError(NO_PATTERN)
    return client_id


def path_pattern(path: str) -> str:
    PathPattern(path)
    return path


_Text = Annotated[str, Field(min_length=1)]


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


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_METHOD = re.compile(r"[A-Z][A-Z_-]*")
REGION = re.compile(r"[a-z0-9-]+")
POOL = re.compile(r"[a-z0-9-]+_[A-Za-z0-9]+")
COGNITO_ISSUER = re.compile(r"https://(?:issuer-)?cognito-idp\.([a-z0-9-]+)\.amazonaws\.com/([\w-]+)", re.ASCII)

Name = Annotated[str, matching(_NAME, "must be letters, digits, dots, dashes or underscores")]
Url = Annotated[str, AfterValidator(secure_url)]
ClientId = Annotated[
    str, matching(VISIBLE, "must be visible ASCII characters without spaces"), AfterValidator(_no_pattern)
]
IssuerName = Annotated[str, AfterValidator(_known_issuer)]
ClientReference = Annotated[ClientId, AfterValidator(_known_client)]
Scope = Annotated[str, matching(SCOPE_TOKEN, "must be one scope: visible ASCII without spaces, quotes, backslashes")]
Prefix = Annotated[str, matching(re.compile(rf"(?:{SCOPE_TOKEN.pattern})?"), "must be part of a scope")]
Method = Annotated[str, matching(_METHOD, "must be an HTTP method in upper case, as in GET")]
HeaderName = Annotated[
    str, matching(_HEADER_NAME, "must be a header name of letters, digits and dashes"), AfterValidator(_free_header)
]
ClaimName = Annotated[
    claims.ClaimName,
    PlainValidator(_claim_name, json_schema_input_type=_Text | Annotated[list[_Text], Field(min_length=1)]),
]
TypName = Annotated[str, matching(VISIBLE, "must be visible ASCII characters without spaces, as in at+jwt")]
HeaderValue = Annotated[str, matching(HEADER_SAFE, "must be ASCII without a space at either end")]
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
    "HS256", "HS384", "HS512",
]  # fmt: skip
ProfileName = Literal["generic", "cognito", "okta", "auth0", "entra", "keycloak", "kubernetes", "github", "rfc9068"]

# Headers that the verifier itself sends, or that proxies interpret.
_RESERVED = frozenset(
    name.lower()
    for name in (
        *IDENTITY_HEADERS, "X-M2M-Reason", "Cache-Control", "WWW-Authenticate", "Retry-After", "Date", "Server",
        "Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Content-Type", "Content-Encoding", "TE",
        "Trailer", "Upgrade", "Set-Cookie", "Location", "Host", "Authorization", "Proxy-Authenticate",
    )
)  # fmt: skip


def _absent(value: Any) -> Any:
    """A section whose lines are all removed or commented out counts as absent."""
    return {} if value is None else value


OrAbsent = BeforeValidator(_absent)


class Section(BaseModel):
    """A mapping of the file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_section(cls, value: Any) -> Any:
        return _absent(value)

    @field_validator("*", mode="before")
    @classmethod
    def _warn_without_value(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and info.field_name not in _SECTIONS:
            # It may be an allow-list whose last line was removed: `[]` was intended.
            log.warning(
                "%s has no value in the configuration and counts as absent; write `[]` to allow no client",
                info.field_name,
            )
        return value


_SECTIONS = ("policies", "roles", "revoked", "headers", "cache", "claims")

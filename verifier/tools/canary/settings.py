"""The canary's configuration file: what it asks, with which token, and what the API must then see."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from verifier.config.fields import ClientId, HeaderName, Info, OrOne, Scope, Section, Text, Url, matching
from verifier.config.load import load_section
from verifier.identity import HEADER_SAFE, IDENTITY_HEADERS

CLIENT_ID = IDENTITY_HEADERS[0]


def _in_folder(path: Path, info: Info) -> Path:
    return info.context["folder"] / path


File = Annotated[Path, AfterValidator(_in_folder)]
"""A file that is read when it is needed, so that a renewed one counts."""

# Without // at the start, which would name another host, to which the token would be sent.
_PATH = matching(re.compile(r"/(?!/)[A-Za-z0-9._~!$&'()*+,;=:@%/-]*"), "must be a path, as in /metrics")


class Grant(Section):
    """Client credentials (RFC 6749 section 4.4)."""

    url: Url
    client_id: ClientId
    client_secret_file: File
    auth: Literal["basic", "post"] = "basic"
    scope: Annotated[list[Scope], OrOne] = []
    parameters: Annotated[dict[Text, str], Field(max_length=20)] = {}
    """Further parameters of the request, such as ``audience`` or ``resource``."""
    ca_file: File | None = None


class Settings(Section):
    """The whole file."""

    url: Url
    """Leads through the proxy to the echo endpoint."""
    ca_file: File | None = None
    token: Grant | None = None
    """Where the good token comes from."""
    token_file: File | None = None
    """The good token, in a file that others renew."""
    identity: dict[HeaderName, str | None]
    """What each identity header must be for this token: empty for no header, null for any value but a forged one."""
    expired_token_file: File | None = None
    leeway: Annotated[float, Field(strict=True, ge=0, le=3600)] = 60.0
    """Seconds after ``exp`` in which a token may still be accepted; more than the verifier's own leeway."""
    internal_paths: Annotated[list[Annotated[str, _PATH]], Field(max_length=20)] = ["/_m2m", "/metrics"]
    """Must not lead to the verifier."""
    interval: Annotated[float, Field(strict=True, ge=1, le=300)] = 60.0
    """Seconds from the start of one round to the next."""

    @field_validator("url")
    @classmethod
    def _no_query(cls, url: str) -> str:
        if "?" in url:
            raise ValueError("must have no query: the canary adds its own")
        return url

    @field_validator("identity")
    @classmethod
    def _complete(cls, given: dict[str, str | None]) -> dict[str, str | None]:
        found: dict[str, str | None] = dict.fromkeys(IDENTITY_HEADERS)
        names = {name.lower(): name for name in IDENTITY_HEADERS}
        for written, value in given.items():
            if value is not None and not HEADER_SAFE.fullmatch(value):
                raise ValueError(f"{written}: must be a header value")
            found[names.setdefault(written.lower(), written)] = value
        if not found[CLIENT_ID]:
            raise ValueError(f"{CLIENT_ID} must have a value: the client id as the API has to see it")
        if len(found) > 50:
            raise ValueError("must have at most 50 headers")
        return found

    @model_validator(mode="after")
    def _one_source(self) -> Settings:
        if (self.token is None) == (self.token_file is None):
            raise ValueError("must have either token or token_file")
        return self


def load(path: Path) -> Settings:
    """The content of the file. Raises ConfigError."""
    return load_section(Settings, path)

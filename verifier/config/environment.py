"""The environment variables that configure the verifier."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from verifier.config import ConfigError, Listen
from verifier.config.issuers import COGNITO_ISSUER
from verifier.tokens.profiles import PROFILES, SHARED_ISSUERS

log = logging.getLogger(__name__)

_PORTS, _WORKERS = (0, 65535), (1, 64)
_Port = Annotated[int, Field(ge=_PORTS[0], le=_PORTS[1])]


class Environment(BaseSettings):
    """Environment variables; each field is one, in upper case."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    cognito_region: str = ""
    cognito_user_pool_id: str = ""
    cognito_client_ids: str = ""
    oauth_issuer: str = ""
    oauth_jwks_url: str = ""
    oauth_audience: str = ""
    oauth_profile: str = ""
    m2m_config: Path | None = None
    m2m_host: str = "0.0.0.0"  # noqa: S104 - a service in a container is reached from outside
    m2m_port: _Port = 8000
    m2m_metrics_port: _Port = 9090
    m2m_workers: int = Field(default=1, ge=_WORKERS[0], le=_WORKERS[1])

    def issuer(self) -> dict[str, Any] | None:
        """The issuer that the environment describes, in the form of the file."""
        if self.cognito_user_pool_id and self.oauth_issuer:
            raise ConfigError(
                ["COGNITO_USER_POOL_ID, OAUTH_ISSUER: give one; several issuers need a file (M2M_CONFIG)"]
            )
        if self.cognito_user_pool_id:
            pool = _given(user_pool_id=self.cognito_user_pool_id, region=self.cognito_region)
            clients = {"clients": _words(self.cognito_client_ids)} if self.cognito_client_ids else {}
            return {"name": "cognito", "cognito": pool, **clients}
        return self._oauth_issuer() if self.oauth_issuer else None

    def _oauth_issuer(self) -> dict[str, Any]:
        implied = "cognito" if COGNITO_ISSUER.fullmatch(self.oauth_issuer) else "generic"
        profile = self.oauth_profile or implied
        if profile in SHARED_ISSUERS:
            raise ConfigError([f"OAUTH_PROFILE: {profile} needs a file with `clients` (M2M_CONFIG)"])
        if not self.oauth_audience and profile in PROFILES and not PROFILES[profile].audience_optional:
            log.warning("OAUTH_AUDIENCE is not set: only tokens without aud pass (`any` accepts every audience)")
        issuer = _given(name="oauth", issuer=self.oauth_issuer, profile=profile, jwks_url=self.oauth_jwks_url)
        # `any` must be explicit: without an audience, only tokens without `aud` pass.
        return {**issuer, "audience": _words(self.oauth_audience)}

    def without_effect(self, file_with_issuers: Path | None) -> Iterator[tuple[str, str]]:
        """Variables of an issuer that are set but not used, and the reason."""
        needed = {"cognito": "cognito_user_pool_id", "oauth": "oauth_issuer"}
        for name in sorted(self.model_fields_set):
            needs = needed.get(name.partition("_")[0])
            if needs is not None and file_with_issuers is not None:
                yield name.upper(), f"{file_with_issuers} names issuers"
            elif needs is not None and not getattr(self, needs):
                yield name.upper(), f"{needs.upper()} is not set"

    def listen(self) -> Listen:
        """Addresses and processes."""
        return Listen(self.m2m_host, self.m2m_port, self.m2m_metrics_port, self.m2m_workers)


def variable_of(place: tuple[str | int, ...]) -> str:
    """The variable that sets what is at a place of the configuration."""
    settings = {
        "region": "COGNITO_REGION",
        "user_pool_id": "COGNITO_USER_POOL_ID",
        "clients": "COGNITO_CLIENT_IDS",
        "issuer": "OAUTH_ISSUER",
        "jwks_url": "OAUTH_JWKS_URL",
        "audience": "OAUTH_AUDIENCE",
        "profile": "OAUTH_PROFILE",
    }
    return next((settings[str(part)] for part in place if str(part) in settings), "environment")


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value}


def _words(value: str) -> list[str]:
    return re.findall(r"[^\s,]+", value)


def read_environment(listen: Mapping[str, Any] = {}) -> Environment:
    """The process's environment. Raises ConfigError.

    ``listen``: values of ``Listen`` that take precedence; their variables may then be invalid.
    """
    for name, ours in _misspelt(os.environ):
        log.warning("%s is not a variable of the verifier: did you mean %s?", name, ours)
    try:
        return Environment(**{f"m2m_{name}": value for name, value in listen.items()})
    except ValidationError as error:
        raise ConfigError([_problem(str(one["loc"][0]), one["input"]) for one in error.errors()]) from error


def _problem(name: str, value: object) -> str:
    least, most = _WORKERS if name == "m2m_workers" else _PORTS
    problem = f"{name.upper()}: must be a number from {least} to {most}, not {str(value)[:80]!a}"
    if re.match("(tcp|udp|sctp)://", str(value)):
        service = name.removesuffix("_port").replace("_", "-")
        problem += (
            f": Kubernetes sets this for a Service named {service}; use the option on the command line, or set "
            "`enableServiceLinks: false` in the Pod"
        )
    return problem


def _misspelt(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables that are one typing mistake away from one of ours, and ours."""
    names = [name.upper() for name in Environment.model_fields]
    for name, value in environment.items():
        if value and name.upper() not in names:
            yield from ((name, ours) for ours in names if _is_one_mistake_away(name.upper(), ours))


def _is_one_mistake_away(written: str, meant: str) -> bool:
    """Whether one character is missing, added, wrong or at another place: both are the same without one of each."""
    if abs(len(written) - len(meant)) > 1:
        return False
    return not _without_one(written).isdisjoint(_without_one(meant))


def _without_one(name: str) -> set[str]:
    """A name, and what is left of it without one of its characters."""
    return {name, *(name[:at] + name[at + 1 :] for at in range(len(name)))}

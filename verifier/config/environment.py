"""The environment variables that configure the verifier."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from verifier.config import ConfigError, Listen
from verifier.config.fields import COGNITO_ISSUER

log = logging.getLogger(__name__)


class Environment(BaseSettings):
    """Environment variables; each field is one, in upper case."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    cognito_region: str = "us-east-1"
    cognito_user_pool_id: str = ""
    cognito_client_ids: str = ""
    oauth_issuer: str = ""
    oauth_jwks_url: str = ""
    oauth_audience: str = ""
    m2m_config: Path | None = None
    m2m_host: str = "0.0.0.0"  # noqa: S104 - a service in a container is reached from outside
    m2m_port: int = Field(default=8000, ge=0, le=65535)
    m2m_metrics_port: int = Field(default=9090, ge=0, le=65535)
    m2m_workers: int = Field(default=1, ge=1, le=64)

    def issuer(self) -> tuple[dict[str, Any], Mapping[str, str]] | None:
        """The issuer that the environment describes, in the form of the file, and the variable of each value."""
        if self.cognito_user_pool_id and self.oauth_issuer:
            raise ConfigError(
                ["COGNITO_USER_POOL_ID, OAUTH_ISSUER: give one; several issuers need a file (M2M_CONFIG)"]
            )
        if self.cognito_user_pool_id:
            pool = {"region": self.cognito_region, "user_pool_id": self.cognito_user_pool_id}
            clients = _words(self.cognito_client_ids)
            return (
                {"name": "cognito", "cognito": pool} | ({"clients": clients} if clients else {}),
                {"region": "COGNITO_REGION", "user_pool_id": "COGNITO_USER_POOL_ID", "clients": "COGNITO_CLIENT_IDS"},
            )
        if self.oauth_issuer:
            profile = "cognito" if COGNITO_ISSUER.fullmatch(self.oauth_issuer) else "generic"
            if profile == "generic" and not self.oauth_audience:
                log.warning("OAUTH_AUDIENCE is not set: only tokens without aud pass (`any` accepts every audience)")
            return (
                {
                    "name": "oauth",
                    "issuer": self.oauth_issuer,
                    "profile": profile,
                    # `any` must be explicit: without an audience, only tokens without `aud` pass.
                    "audience": _words(self.oauth_audience) or [],
                }
                | ({"jwks_url": self.oauth_jwks_url} if self.oauth_jwks_url else {}),
                {"issuer": "OAUTH_ISSUER", "jwks_url": "OAUTH_JWKS_URL", "audience": "OAUTH_AUDIENCE"},
            )
        return None

    def listen(self) -> Listen:
        """Addresses and processes."""
        return Listen(self.m2m_host, self.m2m_port, self.m2m_metrics_port, self.m2m_workers)


def _words(value: str) -> list[str] | None:
    return re.split(r"[\s,]+", value.strip(" ,\n\t")) if value.strip(" ,\n\t") else None


def read_environment() -> Environment:
    """The process's environment. Raises ConfigError."""
    try:
        return Environment()
    except ValidationError as error:
        raise ConfigError([f"{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]) from error

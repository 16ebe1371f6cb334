"""A valid configuration, as plain frozen objects. ``load`` reads one, ``reload`` follows its changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from verifier.policy.clients import Revoked, Roles
from verifier.policy.policies import Policies
from verifier.tokens.claims import ClaimName
from verifier.tokens.verify import IssuerRules


class ConfigError(Exception):
    """The configuration cannot be used. ``problems`` has one line for each error, with its place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Listen:
    """Addresses and processes, from the environment; the command line overrides them."""

    host: str
    port: int
    metrics_port: int
    workers: int


@dataclass(frozen=True)
class Config:
    """The whole configuration. ``path`` is None where it came from the environment alone."""

    path: Path | None
    content: bytes = field(repr=False)
    """What the file held when it was read."""
    listen: Listen
    issuers: tuple[IssuerRules, ...]
    policies: Policies
    roles: Roles
    revoked: Revoked
    headers: Mapping[str, ClaimName]
    """Response headers and the claims whose values they carry."""
    leeway: float
    """Seconds."""
    cache_size: int
    cache_ttl: float
    """Seconds."""
    max_header_bytes: int
    nginx_cache_ttl: int
    """Seconds; 0: no answer may be cached."""
    audit: str
    """all, denied or off."""

    @property
    def certificate_headers(self) -> tuple[str, ...]:
        """The request headers in which issuers expect a client's certificate, in lower case."""
        named = (issuer.client_certificate_header for issuer in self.issuers)
        return tuple(dict.fromkeys(name.lower() for name in named if name is not None))

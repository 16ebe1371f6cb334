"""Clients by issuer and id: how they are written, which role they have, which are revoked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from verifier.identity import Principal

Client = tuple[str, str]
"""An issuer's configured name and a client id: two issuers may use the same id."""

NO_PATTERN = "holds a *, but a client id is no pattern: list each client"


@dataclass(frozen=True, slots=True)
class ClientIds:
    """Parses client ids as they are written in the configuration and in auth URLs."""

    issuers: tuple[str, ...]

    def parse(self, written: str) -> Client:
        """``issuer-name/client-id``, or an id without a slash where there is one issuer. Raises ValueError."""
        name, slash, client_id = written.partition("/")
        if "*" in written:
            raise ValueError(NO_PATTERN)
        if slash and name in self.issuers and client_id:
            return name, client_id
        if len(self.issuers) == 1 and not slash:
            return self.issuers[0], written
        unknown = f": no issuer is named {name}" if name and client_id else ""
        raise ValueError(f"must be written issuer-name/client-id, with one of {', '.join(self.issuers)}{unknown}")


@dataclass(frozen=True, slots=True, eq=False)
class Roles:
    """Roles by client first, then by scope in file order, else none."""

    clients: Mapping[Client, str] = field(default_factory=dict)
    scopes: Mapping[str, str] = field(default_factory=dict)

    def of(self, issuer: str, client_id: str, scopes: frozenset[str]) -> str:
        """The role, empty where there is none."""
        role = self.clients.get((issuer, client_id))
        if role is None:
            role = next((role for scope, role in self.scopes.items() if scope in scopes), "")
        return role


@dataclass(frozen=True, slots=True, eq=False)
class Revoked:
    """Revoked clients and revoked tokens, by ``jti``."""

    clients: frozenset[str] = frozenset()
    """As they are written: ``issuer-name/client-id``, or an id alone, which counts for all issuers."""
    tokens: frozenset[str] = frozenset()

    @property
    def any(self) -> bool:
        """Whether anything is revoked."""
        return bool(self.clients or self.tokens)

    def covers(self, principal: Principal, jti: str) -> bool:
        """Whether this token was revoked."""
        client_id = principal.client_id
        return client_id in self.clients or f"{principal.issuer}/{client_id}" in self.clients or jti in self.tokens

"""The structure of the configuration: its sections, their consistency, and the domain objects they become."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from verifier.config import Config, Listen
from verifier.config.fields import (
    ClaimName,
    ClientId,
    HeaderName,
    Info,
    Name,
    OrOne,
    Prefix,
    Scope,
    Section,
    Text,
    Url,
    matching,
)
from verifier.config.issuers import IssuerSettings
from verifier.identity import HEADER_SAFE, IDENTITY_HEADERS
from verifier.policy.clients import ClientIds, Revoked, Roles
from verifier.policy.paths import PathPattern
from verifier.policy.policies import Policies, Policy, Rule, with_prefix
from verifier.policy.resources import Resource

log = logging.getLogger(__name__)

# Headers that the verifier itself sends, or that proxies interpret.
_RESERVED = frozenset(
    name.lower()
    for name in (
        *IDENTITY_HEADERS, "X-M2M-Reason", "Cache-Control", "WWW-Authenticate", "Retry-After", "Date", "Server",
        "Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Content-Type", "Content-Encoding", "TE",
        "Trailer", "Upgrade", "Set-Cookie", "Location", "Host", "Authorization", "Proxy-Authenticate",
    )
)  # fmt: skip


def _free_header(name: str, info: Info) -> str:
    if name.lower() in _RESERVED or name.lower().startswith("x-m2m-"):
        raise ValueError("is a header that the verifier itself sends, or that proxies interpret")
    if info.context["owners"].setdefault(("header", name.lower()), name) != name:
        raise ValueError("is given twice: header names are case-insensitive")
    return name


def _known_issuer(name: str, info: Info) -> str:
    names = info.context["client_ids"].issuers
    if name not in names:
        raise ValueError(f"no issuer has this name; there is {', '.join(names)}")
    return name


def _known_client(written: str, info: Info) -> str:
    info.context["client_ids"].parse(written)
    return written


def _path_pattern(path: str) -> str:
    PathPattern(path)
    return path


ClientReference = Annotated[ClientId, AfterValidator(_known_client)]
ResponseHeader = Annotated[HeaderName, AfterValidator(_free_header)]
HeaderValue = Annotated[str, matching(HEADER_SAFE, "must be ASCII without a space at either end")]
Method = Annotated[str, matching(re.compile("[A-Z][A-Z_-]*"), "must be an HTTP method in upper case, as in GET")]


class RuleSettings(Section):
    """One line of a policy's rules."""

    path: Annotated[str, AfterValidator(_path_pattern)]
    methods: Annotated[list[Method], Field(min_length=1), OrOne] | None = None
    token: Literal["none"] | None = None
    scope: Annotated[list[Scope], OrOne] = []
    any_scope: Annotated[list[Scope], Field(min_length=1), OrOne] | None = None

    @field_validator("scope", "any_scope")
    @classmethod
    def _needs_a_token(cls, scopes: Any, info: Info) -> Any:
        """Called where the rule names them, even as an empty list."""
        if info.data.get("token") == "none":
            raise ValueError(
                "token: none lets requests pass without a token and so without a scope: remove one of them"
            )
        return scopes

    def build(self) -> Rule:
        """The domain object."""
        needs = tuple((scope,) for scope in self.scope) + ((tuple(self.any_scope),) if self.any_scope else ())
        return Rule(
            PathPattern(self.path), frozenset(self.methods) if self.methods else None, needs, self.token is None
        )


class ResourceSettings(Section):
    """What the protected-resource document says about the API (RFC 9728)."""

    url: Annotated[Url, matching(re.compile(r"[^?]*"), "must have no query")]
    authorization_servers: Annotated[list[Url], Field(min_length=1)]
    scopes_supported: list[Scope] = []

    def build(self, prefix: str) -> Resource:
        """The domain object, with scopes as a token holds them."""
        scopes = tuple(with_prefix(scope, prefix) for scope in self.scopes_supported)
        return Resource(self.url, tuple(self.authorization_servers), scopes)


class PolicySettings(Section):
    """One policy: what a request needs."""

    scope: Annotated[list[Scope], OrOne] = []
    rules: Annotated[list[RuleSettings], Field(min_length=1)] | None = None
    clients: list[ClientReference] | None = None
    issuers: list[Annotated[str, AfterValidator(_known_issuer)]] | None = None
    mode: Literal["enforce", "report"] = "enforce"
    resource: ResourceSettings | None = None
    scope_challenge: Literal[401, 403] = 403

    def build(self, name: str, client_ids: ClientIds, prefix: str, *, role_required: bool) -> Policy:
        """The domain object. Logs what a request could evade."""
        policy = Policy(
            name,
            needs=tuple((scope,) for scope in self.scope),
            rules=tuple(rule.build() for rule in self.rules or ()),
            clients=None if self.clients is None else frozenset(map(client_ids.parse, self.clients)),
            issuers=None if self.issuers is None else frozenset(self.issuers),
            report=self.mode == "report",
            role_required=role_required,
            challenge_prefix=prefix,
            scope_challenge=self.scope_challenge,
            resource=self.resource.build(prefix) if self.resource is not None else None,
        )
        for rule, path, other in policy.slash_gaps():
            log.warning(
                "policy %s: the rule %s needs more than %s, which decides about %s; many APIs take both paths for one: "
                "add a rule for %s, or end the path in /**",
                name, rule.path.text, other.path.text, path, path,
            )  # fmt: skip
        return policy


class RoleSettings(Section):
    """Roles: client first, then scope in file order, else none."""

    clients: dict[ClientReference, HeaderValue] = {}
    scopes: dict[Scope, HeaderValue] = {}
    required: bool = False


class RevokedSettings(Section):
    """Revoked clients and tokens."""

    clients: list[ClientId] = []
    tokens: list[Text] = []


class CacheSettings(Section):
    """Verified tokens kept: how many, and for how many seconds. 0 turns it off."""

    size: Annotated[int, Field(strict=True, ge=0, le=10_000_000)] = 10_000
    ttl: Annotated[float, Field(strict=True, ge=0, le=86_400)] = 300.0


def _as_written(value: Any) -> Any:
    """YAML 1.1 reads an unquoted ``off`` as false."""
    return "off" if value is False else value


class Settings(Section):
    """The whole configuration file."""

    issuers: Annotated[list[IssuerSettings], Field(min_length=1)]
    scope_prefix: Prefix = ""
    policies: dict[Name, PolicySettings] = {}
    roles: RoleSettings = RoleSettings()
    revoked: RevokedSettings = RevokedSettings()
    headers: dict[ResponseHeader, ClaimName] = {}
    leeway: Annotated[float, Field(strict=True, ge=0, le=300)] = 10.0
    cache: CacheSettings = CacheSettings()
    max_header_bytes: Annotated[int, Field(strict=True, ge=512, le=65_536)] = 3584
    nginx_cache_ttl: Annotated[int, Field(strict=True, ge=0, le=3600)] = 0
    audit: Annotated[Literal["all", "denied", "off"], BeforeValidator(_as_written)] = "all"

    def build(self, path: Path | None, content: bytes, listen: Listen) -> Config:
        """The plain configuration. A policy ``default`` always exists: any valid M2M token, unless the file has one."""
        issuers = tuple(issuer.build(self.scope_prefix) for issuer in self.issuers)
        client_ids = ClientIds(tuple(issuer.name for issuer in issuers))
        prefixes = {issuer.scope_prefix for issuer in issuers}
        prefix = prefixes.pop() if len(prefixes) == 1 else self.scope_prefix
        policies = {
            name: policy.build(name, client_ids, prefix, role_required=self.roles.required)
            for name, policy in {"default": PolicySettings(), **self.policies}.items()
        }
        roles = {client_ids.parse(written): role for written, role in self.roles.clients.items()}
        return Config(
            path=path,
            content=content,
            listen=listen,
            issuers=issuers,
            policies=Policies(policies, client_ids),
            roles=Roles(roles, self.roles.scopes),
            revoked=Revoked(frozenset(self.revoked.clients), frozenset(self.revoked.tokens)),
            headers=self.headers,
            leeway=self.leeway,
            cache_size=self.cache.size,
            cache_ttl=self.cache.ttl,
            max_header_bytes=self.max_header_bytes,
            nginx_cache_ttl=self.nginx_cache_ttl,
            audit=self.audit,
        )

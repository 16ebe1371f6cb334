"""The structure of the configuration: its sections, their consistency, and the domain objects they become."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from verifier.config import Config, Listen
from verifier.config.fields import (
    ClaimName,
    ClientId,
    ClientReference,
    HeaderName,
    HeaderValue,
    IssuerName,
    Method,
    Name,
    OrAbsent,
    OrOne,
    Prefix,
    Scope,
    Section,
    Url,
    path_pattern,
)
from verifier.config.issuers import IssuerSettings
from verifier.policy.clients import Client, ClientIds, Revoked, Roles
from verifier.policy.paths import PathPattern
from verifier.policy.policies import Policies, Policy, Rule, with_prefix
from verifier.policy.resources import Resource

log = logging.getLogger(__name__)


class RuleSettings(Section):
    """One line of a policy's rules."""

    path: Annotated[str, AfterValidator(path_pattern)]
    methods: Annotated[list[Method], Field(min_length=1), OrOne] | None = None
    scope: Annotated[list[Scope], OrOne] = []
    any_scope: Annotated[list[Scope], Field(min_length=1), OrOne] | None = None
    token: Literal["none"] | None = None

    @model_validator(mode="after")
    def _no_scope_without_token(self) -> RuleSettings:
        if self.token is not None and not self.model_fields_set.isdisjoint({"scope", "any_scope"}):
            raise ValueError(
                "token: none lets requests pass without a token and so without a scope: remove one of the two"
            )
        return self

    def build(self) -> Rule:
        """The domain object."""
        needs = tuple((scope,) for scope in self.scope) + ((tuple(self.any_scope),) if self.any_scope else ())
        return Rule(
            PathPattern(self.path), frozenset(self.methods) if self.methods else None, needs, self.token is None
        )


class ResourceSettings(Section):
    """What the protected-resource document says about the API (RFC 9728)."""

    url: Url
    authorization_servers: Annotated[list[Url], Field(min_length=1)]
    scopes_supported: list[Scope] = []

    @model_validator(mode="after")
    def _no_query(self) -> ResourceSettings:
        if "?" in self.url:
            raise ValueError("url must have no query")
        return self

    def build(self, prefix: str) -> Resource:
        """The domain object, with scopes as a token holds them."""
        scopes = tuple(with_prefix(scope, prefix) for scope in self.scopes_supported)
        return Resource(self.url, tuple(self.authorization_servers), scopes)


class PolicySettings(Section):
    """One policy: what a request needs."""

    scope: Annotated[list[Scope], OrOne] = []
    rules: Annotated[list[RuleSettings], Field(min_length=1)] | None = None
    clients: list[ClientReference] | None = None
    issuers: list[IssuerName] | None = None
    mode: Literal["enforce", "report"] = "enforce"
    resource: ResourceSettings | None = None

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
    tokens: list[Annotated[str, Field(min_length=1)]] = []


class CacheSettings(Section):
    """Verified tokens kept: how many, and for how many seconds. 0 turns it off."""

    size: Annotated[int, Field(strict=True, ge=0, le=10_000_000)] = 10_000
    ttl: Annotated[float, Field(strict=True, ge=0, le=86_400)] = 300.0


class Settings(Section):
    """The whole configuration file."""

    issuers: Annotated[list[IssuerSettings], Field(min_length=1)]
    scope_prefix: Prefix = ""
    policies: Annotated[dict[Name, PolicySettings], OrAbsent] = {}
    roles: RoleSettings = RoleSettings()
    revoked: RevokedSettings = RevokedSettings()
    headers: Annotated[dict[HeaderName, ClaimName], OrAbsent] = {}
    leeway: Annotated[float, Field(strict=True, ge=0, le=300)] = 10.0
    cache: CacheSettings = CacheSettings()
    max_header_bytes: Annotated[int, Field(strict=True, ge=512, le=65_536)] = 3584
    nginx_cache_ttl: Annotated[int, Field(strict=True, ge=0, le=3600)] = 0
    audit: Literal["all", "denied", "off"] = "all"

    @property
    def client_ids(self) -> ClientIds:
        """The parser of client ids."""
        return ClientIds(tuple(issuer.name for issuer in self.issuers))

    def build(self, path: Path | None, content: bytes, listen: Listen) -> Config:
        """The plain configuration."""
        return Config(
            path=path,
            content=content,
            listen=listen,
            issuers=tuple(issuer.build(self.scope_prefix) for issuer in self.issuers),
            policies=self._build_policies(),
            roles=Roles(
                {self.client_ids.parse(written): role for written, role in self.roles.clients.items()},
                self.roles.scopes,
            ),
            revoked=self._build_revoked(),
            headers=self.headers,
            leeway=self.leeway,
            cache_size=self.cache.size,
            cache_ttl=self.cache.ttl,
            max_header_bytes=self.max_header_bytes,
            nginx_cache_ttl=self.nginx_cache_ttl,
            audit=self.audit,
        )

    def _build_policies(self) -> Policies:
        """The policy ``default`` always exists: any valid M2M token, unless the file defines it."""
        prefixes = {issuer.build(self.scope_prefix).scope_prefix for issuer in self.issuers}
        prefix = prefixes.pop() if len(prefixes) == 1 else self.scope_prefix
        named = {"default": PolicySettings(), **self.policies}
        built = {
            name: given.build(name, self.client_ids, prefix, role_required=self.roles.required)
            for name, given in named.items()
        }
        return Policies(built, self.client_ids)

    def _build_revoked(self) -> Revoked:
        """The domain object: an id without issuer counts for all of them."""
        named: set[Client] = set()
        for written in self.revoked.clients:
            name, _, client_id = written.partition("/")
            if name in self.client_ids.issuers and client_id:
                named.add((name, client_id))
        return Revoked(frozenset(named), frozenset(self.revoked.clients), frozenset(self.revoked.tokens))

    def problems(self, removed: AbstractSet[tuple[str | int, ...]]) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Inconsistencies and duplicates, each with its place. ``removed``: places of invalid values, not compared."""
        names: set[str] = set()
        owner: dict[str, str] = {}
        for place, issuer in enumerate(self.issuers):
            if issuer.name in names:
                yield ("issuers", place, "name"), "another issuer has this name"
            names.add(issuer.name)
            for key, others, problem in issuer.inconsistencies():
                if removed.isdisjoint(("issuers", place, name) for name in (key, *others)):
                    yield ("issuers", place, key), problem
            for url in () if issuer.url_problem else issuer.urls:
                if owner.setdefault(url, issuer.name) != issuer.name:
                    yield ("issuers", place), f"issuer {owner[url]} has the same issuer URL"
        headers: set[str] = set()
        for header in self.headers:
            if header.lower() in headers:
                yield ("headers", header), "is given twice: header names are case-insensitive"
            headers.add(header.lower())

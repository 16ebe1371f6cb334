"""The configuration's model: what may be written, what must fit together, and the domain objects it becomes."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from verifier.config import Config, Listen
from verifier.identity import HEADER_SAFE, IDENTITY_HEADERS, VISIBLE
from verifier.keys.fetch import require_secure
from verifier.keys.jwk import SYMMETRIC_ALGORITHMS, parse_key_set
from verifier.policy.paths import PathPattern
from verifier.policy.policies import SCOPE_TOKEN, Client, ClientIds, Policies, Policy, Revoked, Roles, Rule, with_prefix
from verifier.policy.resources import Resource
from verifier.tokens.profiles import PROFILES, SHARED_BY_STRANGERS
from verifier.tokens.verify import IssuerRules

log = logging.getLogger(__name__)


def _matching(pattern: re.Pattern[str], told: str) -> AfterValidator:
    def validate(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(told)
        return value

    return AfterValidator(validate)


def _secure(url: str) -> str:
    require_secure(url)
    if not VISIBLE.fullmatch(url) or any(mark in url for mark in '"\\#'):
        raise ValueError("holds characters that no URL has")
    return url


class Context(TypedDict):
    """What validators have to know beyond their own value."""

    folder: Path
    """The configuration file's: relative paths begin there."""
    client_ids: ClientIds


def _key_file(path: Path, info: ValidationInfo[Context]) -> Path:
    found = info.context["folder"] / path
    try:
        parse_key_set(found.read_bytes(), symmetric=True)
    except OSError as error:
        raise ValueError(f"{found}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{found}: {error}") from error
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
        raise ValueError("is a header that the answer carries for its own reasons")
    return name


def _pattern(path: str) -> str:
    PathPattern(path)
    return path


def _list_of_one(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


OrOne = BeforeValidator(_list_of_one, json_schema_input_type=list[str] | str)
"""One text may stand for a list of one; editors are told so."""


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_METHOD = re.compile(r"[A-Z][A-Z_-]*")
_REGION = re.compile(r"[a-z0-9-]+")
_POOL = re.compile(r"[A-Za-z0-9_-]+")
COGNITO_ISSUER = re.compile(r"https://(?:issuer-)?cognito-idp\.([a-z0-9-]+)\.amazonaws\.com/([\w-]+)", re.ASCII)

Name = Annotated[str, _matching(_NAME, "must be letters, digits, dots, dashes or underscores")]
Url = Annotated[str, AfterValidator(_secure)]
ClientId = Annotated[str, _matching(VISIBLE, "must be visible ASCII characters without spaces")]
IssuerName = Annotated[str, AfterValidator(_known_issuer)]
ClientReference = Annotated[ClientId, AfterValidator(_known_client)]
Scope = Annotated[str, _matching(SCOPE_TOKEN, "must be one scope: visible ASCII without spaces, quotes, backslashes")]
Prefix = Annotated[str, _matching(re.compile(rf"(?:{SCOPE_TOKEN.pattern})?"), "must be part of a scope")]
Method = Annotated[str, _matching(_METHOD, "must be an HTTP method in upper case, as in GET")]
HeaderName = Annotated[
    str, _matching(_HEADER_NAME, "must be a header name of letters, digits and dashes"), AfterValidator(_free_header)
]
HeaderValue = Annotated[str, _matching(HEADER_SAFE, "must be ASCII without a space at either end")]
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"
]  # fmt: skip
ProfileName = Literal["generic", "cognito", "okta", "auth0", "entra", "keycloak", "kubernetes", "github", "rfc9068"]

# Headers that an answer carries for its own reasons, or that proxies act upon.
_RESERVED = frozenset(
    name.lower()
    for name in (
        *IDENTITY_HEADERS, "X-M2M-Reason", "Cache-Control", "WWW-Authenticate", "Retry-After", "Date", "Server",
        "Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Content-Type", "Content-Encoding", "TE",
        "Trailer", "Upgrade", "Set-Cookie", "Location", "Host", "Authorization", "Proxy-Authenticate",
    )
)  # fmt: skip


def _nothing(value: Any) -> Any:
    """A section whose lines are all gone or commented out says nothing."""
    return {} if value is None else value


OrNothing = BeforeValidator(_nothing)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_section(cls, value: Any) -> Any:
        return _nothing(value)

    @field_validator("*", mode="before")
    @classmethod
    def _not_left_empty(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and info.field_name not in _SECTIONS:
            # It may be an allow-list that lost its last line, where `[]` was meant.
            log.warning(
                "%s is left empty in the configuration: that is as if the line were not there; `[]` lets nobody in",
                info.field_name,
            )
        return value


_SECTIONS = ("policies", "roles", "revoked", "headers", "cache", "claims")


class Cognito(_Model):
    """An AWS Cognito user pool."""

    region: Annotated[str, _matching(_REGION, "must be an AWS region")] = "us-east-1"
    user_pool_id: Annotated[str, _matching(_POOL, "must be a user pool id, as in us-east-1_Example")]

    @property
    def issuers(self) -> tuple[str, str]:
        """Both forms that the pool's tokens may name as their issuer."""
        host, pool = f"cognito-idp.{self.region}.amazonaws.com", self.user_pool_id
        return f"https://{host}/{pool}", f"https://issuer-{host}/{pool}"


class ClaimNames(_Model):
    """Claims to read instead of the profile's."""

    client_id: str | None = None
    scope: str | None = None


class IssuerSettings(_Model):
    """One issuer, with everything that decides about its tokens."""

    name: Name
    cognito: Cognito | None = None
    profile: ProfileName = "generic"
    issuer: Url | None = None
    jwks_url: Url | None = None
    jwks_file: Annotated[Path, AfterValidator(_key_file)] | None = None
    audience: Annotated[list[Annotated[str, Field(min_length=1)]], OrOne] | None = None
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = ["RS256"]
    claims: ClaimNames = ClaimNames()
    scope_prefix: Prefix | None = None
    allow_users: bool = False
    clients: list[ClientId] | None = None

    def misfits(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """What does not fit together: the key to mend, the others that matter, and what is wrong."""
        if (self.cognito is None) == (self.issuer is None):
            yield "issuer", ("cognito",), "give one of issuer (a URL) or cognito (region and user_pool_id)"
        if self.cognito is not None and self.profile not in ("generic", "cognito"):
            yield "profile", ("cognito",), f"profile {self.profile} does not go with cognito"
        if self.cognito is not None and "_" in self.cognito.user_pool_id:
            region = self.cognito.user_pool_id.partition("_")[0]
            if region != self.cognito.region:
                log.warning("issuer %s: the pool is of region %s, not of %s", self.name, region, self.cognito.region)
        if self.jwks_url is not None and self.jwks_file is not None:
            yield "jwks_file", ("jwks_url",), "give jwks_url or jwks_file, not both"
        if SYMMETRIC_ALGORITHMS.intersection(self.algorithms) and self.jwks_file is None:
            told = "HS256, HS384 and HS512 need a jwks_file: a published secret would be none"
            yield "algorithms", ("jwks_file",), told
        if self.audience is None and not PROFILES[self.profile_name].audience_optional:
            told = "is missing: name it, write `any` to accept all, or [] for tokens without aud"
            yield "audience", ("cognito", "profile"), told
        if len(self.audience or ()) > 1 and "any" in (self.audience or ()):
            yield "audience", (), "`any` accepts every audience: leave the others out"
        if not self.clients and self.profile in SHARED_BY_STRANGERS:
            yield "clients", ("profile",), f"profile {self.profile} needs clients: strangers share this issuer"

    @property
    def profile_name(self) -> ProfileName:
        """The profile, which a Cognito pool implies."""
        return "cognito" if self.cognito is not None else self.profile

    @property
    def urls(self) -> tuple[str, ...]:
        """Values of ``iss`` that count, the first being the one to ask for keys."""
        if self.cognito is not None:
            return self.cognito.issuers
        if self.issuer is None:
            return ()
        pool = COGNITO_ISSUER.fullmatch(self.issuer) if self.profile == "cognito" else None
        both = Cognito(region=pool[1], user_pool_id=pool[2]).issuers if pool else ()
        return (self.issuer, *(url for url in both if url != self.issuer))

    def build(self, scope_prefix: str) -> IssuerRules:
        """As the domain wants it. ``scope_prefix`` is the file's."""
        profile = PROFILES[self.profile_name]
        url = self.jwks_url
        if self.cognito is not None and url is None:
            url = self.urls[0] + "/.well-known/jwks.json"
        return IssuerRules(
            name=self.name,
            urls=self.urls,
            key_set_url=url,
            jwks_file=self.jwks_file,
            profile=profile.with_claims(self.claims.client_id, self.claims.scope),
            algorithms=frozenset(self.algorithms),
            audience=None if "any" in (self.audience or ()) else frozenset(self.audience or ()),
            # Cognito's tokens have none, and `audience: []` says that these have none.
            audience_optional=profile.audience_optional or not self.audience,
            scope_prefix=scope_prefix if self.scope_prefix is None else self.scope_prefix,
            allow_users=self.allow_users,
            clients=None if self.clients is None else frozenset(self.clients),
        )


class RuleSettings(_Model):
    """One line of a policy's rules."""

    path: Annotated[str, AfterValidator(_pattern)]
    methods: Annotated[list[Method], Field(min_length=1), OrOne] | None = None
    scope: Annotated[list[Scope], OrOne] = []
    any_scope: Annotated[list[Scope], Field(min_length=1), OrOne] | None = None

    def build(self) -> Rule:
        """As the domain wants it."""
        needs = tuple((scope,) for scope in self.scope) + ((tuple(self.any_scope),) if self.any_scope else ())
        return Rule(PathPattern(self.path), frozenset(self.methods) if self.methods else None, needs)


class ResourceSettings(_Model):
    """What agents are told about the API (RFC 9728)."""

    url: Url
    authorization_servers: Annotated[list[Url], Field(min_length=1)]
    scopes_supported: list[Scope] = []

    @model_validator(mode="after")
    def _no_query(self) -> ResourceSettings:
        if "?" in self.url:
            raise ValueError("url must have no query")
        return self

    def build(self, prefix: str) -> Resource:
        """As the domain wants it, with scopes as a token holds them."""
        scopes = tuple(with_prefix(scope, prefix) for scope in self.scopes_supported)
        return Resource(self.url, tuple(self.authorization_servers), scopes)


class PolicySettings(_Model):
    """What an auth URL asks of a request."""

    scope: Annotated[list[Scope], OrOne] = []
    rules: Annotated[list[RuleSettings], Field(min_length=1)] | None = None
    clients: list[ClientReference] | None = None
    issuers: list[IssuerName] | None = None
    mode: Literal["enforce", "report"] = "enforce"
    resource: ResourceSettings | None = None

    def build(self, name: str, client_ids: ClientIds, prefix: str, *, role_required: bool) -> Policy:
        """As the domain wants it."""
        return Policy(
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


class RoleSettings(_Model):
    """Roles: client first, then scope in file order, else none."""

    clients: dict[ClientReference, HeaderValue] = {}
    scopes: dict[Scope, HeaderValue] = {}
    required: bool = False


class RevokedSettings(_Model):
    """What no longer counts."""

    clients: list[ClientId] = []
    tokens: list[Annotated[str, Field(min_length=1)]] = []


class CacheSettings(_Model):
    """Verified tokens kept: how many, and for how many seconds. 0 turns it off."""

    size: Annotated[int, Field(strict=True, ge=0, le=10_000_000)] = 10_000
    ttl: Annotated[float, Field(strict=True, ge=0, le=86_400)] = 300.0


class Settings(_Model):
    """The whole configuration file."""

    issuers: Annotated[list[IssuerSettings], Field(min_length=1)]
    scope_prefix: Prefix = ""
    policies: Annotated[dict[Name, PolicySettings], OrNothing] = {}
    roles: RoleSettings = RoleSettings()
    revoked: RevokedSettings = RevokedSettings()
    headers: Annotated[dict[HeaderName, Annotated[str, Field(min_length=1)]], OrNothing] = {}
    leeway: Annotated[float, Field(strict=True, ge=0, le=300)] = 10.0
    cache: CacheSettings = CacheSettings()
    max_header_bytes: Annotated[int, Field(strict=True, ge=512, le=65_536)] = 3584
    nginx_cache_ttl: Annotated[int, Field(strict=True, ge=0, le=3600)] = 0
    audit: Literal["all", "denied", "off"] = "all"

    @property
    def client_ids(self) -> ClientIds:
        """How client ids are written here."""
        return ClientIds(tuple(issuer.name for issuer in self.issuers))

    def build(self, path: Path | None, listen: Listen) -> Config:
        """As the rest of the program wants it."""
        return Config(
            path=path,
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
        """``default`` is always there: any valid M2M token, unless the file says more."""
        prefixes = {issuer.build(self.scope_prefix).scope_prefix for issuer in self.issuers}
        prefix = prefixes.pop() if len(prefixes) == 1 else self.scope_prefix
        named = {"default": PolicySettings(), **self.policies}
        built = {
            name: given.build(name, self.client_ids, prefix, role_required=self.roles.required)
            for name, given in named.items()
        }
        return Policies(built, self.client_ids)

    def _build_revoked(self) -> Revoked:
        """As the domain wants it: an id without issuer counts for all of them."""
        named: set[Client] = set()
        for written in self.revoked.clients:
            name, _, client_id = written.partition("/")
            if name in self.client_ids.issuers and client_id:
                named.add((name, client_id))
        return Revoked(frozenset(named), frozenset(self.revoked.clients), frozenset(self.revoked.tokens))

    def problems(self, gone: AbstractSet[tuple[str | int, ...]]) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What does not fit together or is given twice, each with its place; ``gone`` are places not to judge by."""
        names: set[str] = set()
        owner: dict[str, str] = {}
        for place, issuer in enumerate(self.issuers):
            if issuer.name in names:
                yield ("issuers", place, "name"), "another issuer has this name"
            names.add(issuer.name)
            for key, others, told in issuer.misfits():
                if gone.isdisjoint(("issuers", place, name) for name in (key, *others)):
                    yield ("issuers", place, key), told
            for url in issuer.urls:
                if owner.setdefault(url, issuer.name) != issuer.name:
                    yield ("issuers", place), f"issuer {owner[url]} has the same issuer URL"
        headers: set[str] = set()
        for header in self.headers:
            if header.lower() in headers:
                yield ("headers", header), "is given twice: header names know no case"
            headers.add(header.lower())

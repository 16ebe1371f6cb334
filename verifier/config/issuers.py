"""The configuration of issuers."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from verifier.config.fields import (
    ClaimName,
    ClientId,
    HeaderName,
    Info,
    Name,
    OrOne,
    Prefix,
    Section,
    Text,
    Url,
    matching,
    secure_url,
)
from verifier.identity import VISIBLE
from verifier.keys.jwk import SYMMETRIC_ALGORITHMS, parse_key_file
from verifier.tokens.jws import media_type
from verifier.tokens.profiles import PROFILES, SHARED_ISSUERS
from verifier.tokens.verify import IssuerRules

log = logging.getLogger(__name__)

COGNITO_ISSUER = re.compile(r"https://(?:issuer-)?cognito-idp\.([a-z0-9-]+)\.amazonaws\.com/([\w-]+)", re.ASCII)


def _unique_name(name: str, info: Info) -> str:
    if info.context["client_ids"].issuers.count(name) > 1:
        raise ValueError("another issuer has this name")
    return name


def _key_file(path: Path, info: Info) -> Path:
    found = info.context["folder"] / path
    try:
        parse_key_file(found.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{found}: {getattr(error, 'strerror', error)}") from error
    return found


def _file_read_later(path: Path, info: Info) -> Path:
    """A file that is read for each fetch of keys. It may not exist where the configuration is only checked."""
    found = info.context["folder"] / path
    if not found.is_file():
        log.warning("%s: %s is not there yet: keys cannot be fetched without it", info.field_name, found)
    return found


def _region(pool: str) -> str:
    return pool.partition("_")[0]


def _cognito_urls(pool: str) -> tuple[str, str]:
    """Both forms of ``iss`` in the tokens of a pool."""
    host = f"cognito-idp.{_region(pool)}.amazonaws.com"
    return f"https://{host}/{pool}", f"https://issuer-{host}/{pool}"


class Cognito(Section):
    """An AWS Cognito user pool."""

    user_pool_id: Annotated[
        str, matching(re.compile("[a-z0-9-]+_[A-Za-z0-9]+"), "must be a user pool id, as in us-east-1_Example")
    ]
    region: str | None = None
    """Default: the one in the pool id."""

    @field_validator("region")
    @classmethod
    def _is_the_pools(cls, region: str | None, info: Info) -> str | None:
        named = _region(info.data.get("user_pool_id", ""))
        if region and named and region != named:
            raise ValueError(f"is {region}, but the pool id names {named}")
        return region


class ClaimNames(Section):
    """Names of claims that replace the profile's."""

    client_id: ClaimName | None = None
    scope: ClaimName | None = None


FileReadLater = Annotated[Path, AfterValidator(_file_read_later)]
TypName = Annotated[str, matching(VISIBLE, "must be visible ASCII characters without spaces, as in at+jwt")]
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
    "HS256", "HS384", "HS512",
]  # fmt: skip
ProfileName = Literal["generic", "cognito", "okta", "auth0", "entra", "keycloak", "kubernetes", "github", "rfc9068"]


class IssuerSettings(Section):
    """One issuer and the rules for its tokens."""

    # A field that is left out is compared, too: see _inconsistency, for which the order of the fields counts.
    model_config = ConfigDict(validate_default=True)

    name: Annotated[Name, AfterValidator(_unique_name)]
    cognito: Cognito | None = None
    profile: ProfileName = "generic"
    jwks_url: Url | None = None
    jwks_file: Annotated[Path, AfterValidator(_key_file)] | None = None
    issuer: Text | None = None
    ca_file: FileReadLater | None = None
    bearer_token_file: FileReadLater | None = None
    audience: Annotated[list[Text], OrOne] | None = None
    typ: Annotated[list[TypName], OrOne] = []
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = ["RS256"]
    claims: ClaimNames = ClaimNames()
    scope_prefix: Prefix | None = None
    allow_users: bool = False
    clients: list[ClientId] | None = None
    client_certificate_header: HeaderName | None = None

    @field_validator("*")
    @classmethod
    def _fits_the_fields_above(cls, value: Any, info: Info) -> Any:
        problem = _inconsistency(str(info.field_name), value, info.data)
        if problem is not None:
            raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _urls_are_unique(self, info: Info) -> IssuerSettings:
        for url in self.urls:
            owner = info.context["owners"].setdefault(("issuer URL", url), self.name)
            if owner != self.name:
                raise ValueError(f"issuer {owner} has the same issuer URL")
        return self

    @property
    def urls(self) -> tuple[str, ...]:
        """Accepted values of ``iss``; the keys are fetched from the first."""
        if self.cognito is not None:
            return _cognito_urls(self.cognito.user_pool_id)
        issuer = self.issuer or ""  # it is there: ``_inconsistency``
        pool = COGNITO_ISSUER.fullmatch(issuer) if self.profile == "cognito" else None
        both = _cognito_urls(pool[2]) if pool else ()
        return (issuer, *(url for url in both if url != issuer))

    def build(self, scope_prefix: str) -> IssuerRules:
        """The domain object. ``scope_prefix`` is the file's."""
        profile = PROFILES["cognito" if self.cognito is not None else self.profile]
        cognito_url = f"{self.urls[0]}/.well-known/jwks.json" if self.cognito is not None else None
        audience = self.audience or ()
        return IssuerRules(
            name=self.name,
            urls=self.urls,
            key_set_url=self.jwks_url or cognito_url,
            jwks_file=self.jwks_file,
            jwks=self.jwks_file.read_bytes() if self.jwks_file is not None else None,
            ca_file=self.ca_file,
            bearer_token_file=self.bearer_token_file,
            profile=profile.with_claims(self.claims.client_id, self.claims.scope),
            typ=frozenset(map(media_type, self.typ)),
            algorithms=frozenset(self.algorithms),
            audience=None if "any" in audience else frozenset(audience),
            # Cognito's tokens have no audience; `audience: []` states that this issuer's have none.
            audience_optional=profile.audience_optional or not audience,
            scope_prefix=scope_prefix if self.scope_prefix is None else self.scope_prefix,
            allow_users=self.allow_users,
            clients=None if self.clients is None else frozenset(self.clients),
            client_certificate_header=self.client_certificate_header,
        )


def _inconsistency(field: str, value: Any, above: Mapping[str, Any]) -> str | None:
    """Why a valid field does not fit those above it.

    ``above`` lacks those that are invalid: they are not compared, so that one mistake is one error.
    """
    match field:
        case "profile" if above.get("cognito") and value not in ("generic", "cognito"):
            return f"profile {value} does not go with cognito"
        case "jwks_file" if value and above.get("jwks_url"):
            return "give jwks_url or jwks_file, not both"
        case "issuer":
            return _issuer_problem(value, above)
        case "ca_file" | "bearer_token_file" if value and above.get("jwks_file"):
            return "has no effect with jwks_file: it is for fetching keys"
        case "audience" if value is None and above.get("cognito", ...) is None:
            if not PROFILES[above.get("profile", "cognito")].audience_optional:
                return "is missing: name it, write `any` to accept all, or [] for tokens without aud"
        case "audience" if value and len(value) > 1 and "any" in value:
            return "`any` accepts every audience: leave the others out"
        case "algorithms" if above.get("jwks_file", ...) is None and SYMMETRIC_ALGORITHMS.intersection(value):
            return "HS256, HS384 and HS512 need a jwks_file: a secret must not be published"
        case "clients" if not value and above.get("profile") in SHARED_ISSUERS:
            return f"profile {above['profile']} needs clients: unrelated parties share this issuer"
    return None


def _issuer_problem(issuer: str | None, above: Mapping[str, Any]) -> str | None:
    if "cognito" in above and (issuer is None) == (above["cognito"] is None):
        return "give one of issuer (a URL) or cognito (region and user_pool_id)"
    pool = COGNITO_ISSUER.fullmatch(issuer or "")
    if pool is not None and pool[1] != _region(pool[2]):
        return f"no such pool: the URL names the region {pool[1]}, the pool id {_region(pool[2])}"
    if issuer is not None and above.get("jwks_url", ...) is None and above.get("jwks_file", ...) is None:
        try:
            secure_url(issuer)
        except ValueError as error:
            return f"{error}, unless there is a jwks_url or jwks_file"
    return None

"""The configuration of issuers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from verifier.config.fields import (
    COGNITO_ISSUER,
    POOL,
    REGION,
    Algorithm,
    ClaimName,
    ClientId,
    Name,
    OrOne,
    Prefix,
    ProfileName,
    Section,
    TypName,
    Url,
    file_read_later,
    key_file,
    matching,
    secure_url,
)
from verifier.keys.jwk import SYMMETRIC_ALGORITHMS
from verifier.tokens.jws import media_type
from verifier.tokens.profiles import PROFILES, SHARED_ISSUERS
from verifier.tokens.verify import IssuerRules


class Cognito(Section):
    """An AWS Cognito user pool."""

    user_pool_id: Annotated[str, matching(POOL, "must be a user pool id, as in us-east-1_Example")]
    region: Annotated[str, matching(REGION, "must be an AWS region")] | None = None
    """Default: the one in the pool id."""

    @field_validator("region")
    @classmethod
    def _is_the_pools(cls, region: str | None, info: ValidationInfo) -> str | None:
        named = _region(info.data.get("user_pool_id", ""))
        if region and named and region != named:
            raise ValueError(f"is {region}, but the pool id names {named}")
        return region


def _region(pool: str) -> str:
    return pool.partition("_")[0]


def _cognito_urls(pool: str) -> tuple[str, str]:
    """Both forms of ``iss`` in the tokens of a pool."""
    host = f"cognito-idp.{_region(pool)}.amazonaws.com"
    return f"https://{host}/{pool}", f"https://issuer-{host}/{pool}"


class ClaimNames(Section):
    """Names of claims that replace the profile's."""

    client_id: ClaimName | None = None
    scope: ClaimName | None = None


class IssuerSettings(Section):
    """One issuer and the rules for its tokens."""

    name: Name
    cognito: Cognito | None = None
    profile: ProfileName = "generic"
    issuer: Annotated[str, Field(min_length=1)] | None = None
    jwks_url: Url | None = None
    jwks_file: Annotated[Path, AfterValidator(key_file)] | None = None
    ca_file: Annotated[Path, AfterValidator(file_read_later)] | None = None
    bearer_token_file: Annotated[Path, AfterValidator(file_read_later)] | None = None
    audience: Annotated[list[Annotated[str, Field(min_length=1)]], OrOne] | None = None
    typ: Annotated[list[TypName], OrOne] = []
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = ["RS256"]
    claims: ClaimNames = ClaimNames()
    scope_prefix: Prefix | None = None
    allow_users: bool = False
    clients: list[ClientId] | None = None

    def inconsistencies(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """Inconsistent settings: the key to change, the other keys involved, and the problem."""
        if (self.cognito is None) == (self.issuer is None):
            yield "issuer", ("cognito",), "give one of issuer (a URL) or cognito (region and user_pool_id)"
        if self.cognito is not None and self.profile not in ("generic", "cognito"):
            yield "profile", ("cognito",), f"profile {self.profile} does not go with cognito"
        pool = COGNITO_ISSUER.fullmatch(self.issuer or "")
        if pool is not None and pool[1] != _region(pool[2]):
            yield "issuer", (), f"no such pool: the URL names the region {pool[1]}, the pool id {_region(pool[2])}"
        if self.jwks_url is not None and self.jwks_file is not None:
            yield "jwks_file", ("jwks_url",), "give jwks_url or jwks_file, not both"
        if self.url_problem is not None:
            yield "issuer", ("jwks_url", "jwks_file"), f"{self.url_problem}, unless there is a jwks_url or jwks_file"
        for key in ("ca_file", "bearer_token_file"):
            if getattr(self, key) is not None and self.jwks_file is not None:
                yield key, ("jwks_file",), "has no effect with jwks_file: it is for fetching keys"
        if SYMMETRIC_ALGORITHMS.intersection(self.algorithms) and self.jwks_file is None:
            problem = "HS256, HS384 and HS512 need a jwks_file: a secret must not be published"
            yield "algorithms", ("jwks_file",), problem
        if self.audience is None and not PROFILES[self.profile_name].audience_optional:
            problem = "is missing: name it, write `any` to accept all, or [] for tokens without aud"
            yield "audience", ("cognito", "profile"), problem
        if len(self.audience or ()) > 1 and "any" in (self.audience or ()):
            yield "audience", (), "`any` accepts every audience: leave the others out"
        if not self.clients and self.profile in SHARED_ISSUERS:
            yield "clients", ("profile",), f"profile {self.profile} needs clients: unrelated parties share this issuer"

    @property
    def url_problem(self) -> str | None:
        """Why the issuer is no URL that keys can be discovered from, None where that is not needed."""
        if self.issuer is not None and self.jwks_url is None and self.jwks_file is None:
            try:
                secure_url(self.issuer)
            except ValueError as error:
                return str(error)
        return None

    @property
    def profile_name(self) -> ProfileName:
        """The profile, which a Cognito pool implies."""
        return "cognito" if self.cognito is not None else self.profile

    @property
    def urls(self) -> tuple[str, ...]:
        """Accepted values of ``iss``; the keys are fetched from the first."""
        if self.cognito is not None:
            return _cognito_urls(self.cognito.user_pool_id)
        if self.issuer is None:
            return ()
        pool = COGNITO_ISSUER.fullmatch(self.issuer) if self.profile == "cognito" else None
        both = _cognito_urls(pool[2]) if pool else ()
        return (self.issuer, *(url for url in both if url != self.issuer))

    def build(self, scope_prefix: str) -> IssuerRules:
        """The domain object. ``scope_prefix`` is the file's."""
        profile = PROFILES[self.profile_name]
        url = self.jwks_url
        if self.cognito is not None and url is None:
            url = self.urls[0] + "/.well-known/jwks.json"
        return IssuerRules(
            name=self.name,
            urls=self.urls,
            key_set_url=url,
            jwks_file=self.jwks_file,
            jwks=self.jwks_file.read_bytes() if self.jwks_file is not None else None,
            ca_file=self.ca_file,
            bearer_token_file=self.bearer_token_file,
            profile=profile.with_claims(self.claims.client_id, self.claims.scope),
            typ=frozenset(map(media_type, self.typ)),
            algorithms=frozenset(self.algorithms),
            audience=None if "any" in (self.audience or ()) else frozenset(self.audience or ()),
            # Cognito's tokens have no audience; `audience: []` states that this issuer's have none.
            audience_optional=profile.audience_optional or not self.audience,
            scope_prefix=scope_prefix if self.scope_prefix is None else self.scope_prefix,
            allow_users=self.allow_users,
            clients=None if self.clients is None else frozenset(self.clients),
        )

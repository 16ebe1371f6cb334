"""The configuration of issuers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from verifier.config.fields import (
    COGNITO_ISSUER,
    POOL,
    REGION,
    Algorithm,
    ClientId,
    Name,
    OrOne,
    Prefix,
    ProfileName,
    Section,
    Url,
    key_file,
    matching,
)
from verifier.keys.jwk import SYMMETRIC_ALGORITHMS
from verifier.tokens.profiles import PROFILES, SHARED_ISSUERS
from verifier.tokens.verify import IssuerRules

log = logging.getLogger(__name__)


class Cognito(Section):
    """An AWS Cognito user pool."""

    region: Annotated[str, matching(REGION, "must be an AWS region")] = "us-east-1"
    user_pool_id: Annotated[str, matching(POOL, "must be a user pool id, as in us-east-1_Example")]

    @property
    def issuers(self) -> tuple[str, str]:
        """Both forms of ``iss`` in the pool's tokens."""
        host, pool = f"cognito-idp.{self.region}.amazonaws.com", self.user_pool_id
        return f"https://{host}/{pool}", f"https://issuer-{host}/{pool}"


class ClaimNames(Section):
    """Names of claims that replace the profile's."""

    client_id: str | None = None
    scope: str | None = None


class IssuerSettings(Section):
    """One issuer and the rules for its tokens."""

    name: Name
    cognito: Cognito | None = None
    profile: ProfileName = "generic"
    issuer: Url | None = None
    jwks_url: Url | None = None
    jwks_file: Annotated[Path, AfterValidator(key_file)] | None = None
    audience: Annotated[list[Annotated[str, Field(min_length=1)]], OrOne] | None = None
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
        if self.cognito is not None and "_" in self.cognito.user_pool_id:
            region = self.cognito.user_pool_id.partition("_")[0]
            if region != self.cognito.region:
                log.warning("issuer %s: the pool is of region %s, not of %s", self.name, region, self.cognito.region)
        if self.jwks_url is not None and self.jwks_file is not None:
            yield "jwks_file", ("jwks_url",), "give jwks_url or jwks_file, not both"
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
    def profile_name(self) -> ProfileName:
        """The profile, which a Cognito pool implies."""
        return "cognito" if self.cognito is not None else self.profile

    @property
    def urls(self) -> tuple[str, ...]:
        """Accepted values of ``iss``; the keys are fetched from the first."""
        if self.cognito is not None:
            return self.cognito.issuers
        if self.issuer is None:
            return ()
        pool = COGNITO_ISSUER.fullmatch(self.issuer) if self.profile == "cognito" else None
        both = Cognito(region=pool[1], user_pool_id=pool[2]).issuers if pool else ()
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
            profile=profile.with_claims(self.claims.client_id, self.claims.scope),
            algorithms=frozenset(self.algorithms),
            audience=None if "any" in (self.audience or ()) else frozenset(self.audience or ()),
            # Cognito's tokens have no audience; `audience: []` states that this issuer's have none.
            audience_optional=profile.audience_optional or not self.audience,
            scope_prefix=scope_prefix if self.scope_prefix is None else self.scope_prefix,
            allow_users=self.allow_users,
            clients=None if self.clients is None else frozenset(self.clients),
        )

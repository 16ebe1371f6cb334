"""From the bytes of a token to a VerifiedToken: one check after the other, the first that fails gives the reason."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verifier.clock import Clock
from verifier.identity import VerifiedToken
from verifier.keys.jwk import ED25519_NAMES, Key
from verifier.keys.sets import KeySet
from verifier.reasons import Reason, Rejected
from verifier.tokens.claims import ClaimName, Claims, number, text
from verifier.tokens.jws import UnverifiedToken, parse_compact, unverified_claims
from verifier.tokens.principals import Principals
from verifier.tokens.profiles import Profile, suggest
from verifier.tokens.proofs import binding_of


@dataclass(frozen=True, kw_only=True)
class IssuerRules:
    """Everything that decides about one issuer's tokens but its keys."""

    name: str
    urls: tuple[str, ...]
    """Values of ``iss`` that count as this issuer; the first is the one to ask for keys."""
    key_set_url: str | None
    """None: the issuer's discovery document names it."""
    jwks_file: Path | None = None
    jwks: bytes | None = field(default=None, repr=False)
    """The content of ``jwks_file``; it may hold secrets."""
    ca_file: Path | None = None
    """Certificate authorities for fetching the keys, instead of the system's."""
    bearer_token_file: Path | None = None
    """A token for fetching the keys; it is sent only to the origins of ``urls`` and ``key_set_url``."""
    client_certificate_header: str | None = None
    """Where the proxy puts the client's certificate, for tokens that are bound to one (RFC 8705)."""
    profile: Profile
    typ: frozenset[str] = frozenset()
    """Further values of the header's ``typ``, as ``jws`` gives them, that its access tokens have."""
    algorithms: frozenset[str]
    audience: frozenset[str] | None
    """None: any."""
    audience_optional: bool = False
    """Whether a token without ``aud``, or with an empty list, passes; one that names any must match all the same."""
    scope_prefix: str = ""
    allow_users: bool = False
    clients: frozenset[str] | None = None
    """The issuer's own allow-list, None where it has none."""

    def with_keys(self, keys: KeySet) -> Issuer:
        """The issuer, complete."""
        return Issuer(**vars(self), keys=keys)


@dataclass(frozen=True, kw_only=True)
class Issuer(IssuerRules):
    """An issuer and its keys in one object: one's key never checks another's token."""

    keys: KeySet


class TokenVerifier:
    """Verifies tokens of the configured issuers.

    ``leeway`` is in seconds; ``role_of`` maps an issuer's name, a client id and scopes to a role (empty: none);
    ``mapped_headers`` maps response headers to claims; ``resources`` are the URLs of the policies' resources;
    ``observe`` is called with the issuer's name and the seconds of each signature check.
    """

    def __init__(
        self,
        issuers: Iterable[Issuer],
        *,
        clock: Clock,
        leeway: float,
        role_of: Callable[[str, str, frozenset[str]], str],
        mapped_headers: Mapping[str, ClaimName],
        resources: frozenset[str] = frozenset(),
        observe: Callable[[str, float], None] = lambda _, __: None,
    ) -> None:
        self._issuers = {url: issuer for issuer in issuers for url in issuer.urls}
        listed = frozenset[str]().union(*(issuer.algorithms for issuer in self._issuers.values()))
        self._algorithms = listed.union(ED25519_NAMES[name] for name in listed.intersection(ED25519_NAMES))
        self._clock = clock
        self._leeway = leeway
        self._principals = Principals(role_of, mapped_headers)
        self._resources = resources
        self._observe = observe

    def verify(self, token: bytes) -> VerifiedToken:
        """Check form, algorithm, issuer, key, signature and claims, in this order. Raises Rejected."""
        parts = parse_compact(token)
        if parts.header.algorithm not in self._algorithms:  # RFC 8725 section 3.1; `none` is on no list
            raise Rejected(Reason.UNSUPPORTED_ALGORITHM, "no issuer here signs with the token's alg")
        claims = unverified_claims(parts)
        url = claims.get("iss")
        issuer = self._issuers.get(url) if isinstance(url, str) else None  # RFC 8725 section 3.8: exactly
        if issuer is None:
            raise Rejected(Reason.UNKNOWN_ISSUER, "iss is not an issuer that is configured here")
        try:
            key = self._verify_signature(issuer, parts)
            exp = self._check_times(claims)
            client_id = _check_machine(issuer, parts.header.typ, claims)
            audience = _check_audience(issuer, claims)
            principal = self._principals.make(
                issuer.name, client_id, claims, issuer.profile, issuer.scope_prefix, issuer.clients
            )
            jti = text(claims, "jti") or ""
            text(claims, "sub")
            binding = binding_of(claims)
        except Rejected as rejected:
            rejected.issuer = issuer.name
            raise
        resources = self._resources.intersection(audience)
        return VerifiedToken(principal, key, exp, jti, self._clock(), binding, resources)

    def _verify_signature(self, issuer: Issuer, parts: UnverifiedToken) -> Key:
        algorithm, kid = parts.header.algorithm, parts.header.kid
        listed = algorithm if algorithm in issuer.algorithms else ED25519_NAMES.get(algorithm)
        if listed not in issuer.algorithms:
            raise Rejected(Reason.UNSUPPORTED_ALGORITHM, "this issuer does not sign with the token's alg")
        candidates = issuer.keys.candidates(kid, parts.header.thumbprints, algorithm)
        if not candidates:
            raise _key_problem(issuer.keys, kid, Reason.UNKNOWN_KEY)
        fitting = [key for key in candidates if key.fits(algorithm) and key.fits(listed)]
        if not fitting:
            raise _key_problem(issuer.keys, kid, Reason.UNSUPPORTED_ALGORITHM, "the token's alg does not fit its key")
        start = time.perf_counter()
        found = next((key for key in fitting if key.verify(algorithm, parts.signing_input, parts.signature)), None)
        self._observe(issuer.name, time.perf_counter() - start)
        if found is None:  # the key may have been replaced under its kid
            raise _key_problem(issuer.keys, kid, Reason.BAD_SIGNATURE, "the token's signature does not match")
        return found

    def _check_times(self, claims: Claims) -> float:
        """RFC 7519 sections 4.1.4 to 4.1.6, with the leeway they allow. The token's ``exp``."""
        now = self._clock()
        exp = number(claims, "exp")
        nbf = number(claims, "nbf")
        iat = number(claims, "iat")
        if exp is None:
            raise Rejected(Reason.INVALID_CLAIMS, "the token has no exp")
        if now >= exp + self._leeway:
            raise Rejected(Reason.EXPIRED, f"the token expired {math.ceil(now - exp)} s ago")
        latest = now + self._leeway
        if nbf is not None and latest < nbf:
            raise Rejected(Reason.NOT_YET_VALID, f"nbf is {math.ceil(nbf - now)} s in the future")
        if iat is not None and latest < iat:
            raise Rejected(Reason.NOT_YET_VALID, f"iat is {math.ceil(iat - now)} s in the future")
        return exp


def _key_problem(keys: KeySet, kid: str | None, reason: Reason, description: str = "") -> Rejected:
    """A refusal that newer keys may change. Where a published key cannot be used, the description says why."""
    if not len(keys):
        reason, description = Reason.KEYS_UNAVAILABLE, "the issuer's keys are not available at the moment"
    elif reason is Reason.UNKNOWN_KEY:
        description = (
            "the token has no kid, and no key of the issuer fits its alg"
            if kid is None
            else "the issuer has no usable key with the token's kid"
        )
    cause = keys.cause_of(kid)
    if cause is not None:
        key = "a key without kid" if kid is None else "a key with the token's kid"
        description += f"; the issuer publishes {key} that cannot be used: {cause}"
    return Rejected(reason, description, refresh=keys.refresh if keys.may_refresh() else None)


def _check_machine(issuer: Issuer, typ: str | None, claims: Claims) -> str:
    """The client id of a machine's access token."""
    try:
        return issuer.profile.machine_of(claims, typ, issuer.typ, issuer.allow_users)
    except Rejected as rejected:
        if rejected.reason is Reason.NOT_M2M and (suggestion := suggest(claims, typ, issuer.profile)):
            rejected.description += "; " + suggestion
        raise


def _check_audience(issuer: Issuer, claims: Claims) -> list[str]:
    """RFC 7519 section 4.1.3: a string or a list of strings, of which one must be configured. The list."""
    named: Any = claims.get("aud", [])
    if "aud" in claims:
        if isinstance(named, str):
            named = [named]
        if not isinstance(named, list) or not all(isinstance(item, str) for item in named):
            raise Rejected(Reason.INVALID_CLAIMS, "aud is neither a string nor a list of strings")
    is_optional = not named and issuer.audience_optional
    if issuer.audience is not None and not is_optional and issuer.audience.isdisjoint(named):
        raise Rejected(Reason.WRONG_AUDIENCE, "aud names no audience that this issuer is configured with")
    return list(named)

"""From the bytes of a token to a VerifiedToken: one check after the other, the first that fails gives the reason."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

from verifier.clock import Clock
from verifier.identity import (
    HEADER_SAFE,
    IDENTITY_HEADERS,
    VISIBLE,
    Principal,
    VerifiedToken,
    encode_headers,
    header_lines,
)
from verifier.keys.jwk import ED25519_NAMES, Key
from verifier.keys.sets import KeySet
from verifier.reasons import Reason, Rejected
from verifier.tokens.jws import Claims, UnverifiedToken, parse_compact, unverified_claims
from verifier.tokens.profiles import Profile, scope_values, text

log = logging.getLogger(__name__)

LARGEST_TIME = 2.0**53  # seconds; beyond it JSON numbers lose precision (RFC 8259 section 6)


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
    profile: Profile
    algorithms: frozenset[str]
    audience: frozenset[str] | None
    """None: any."""
    audience_optional: bool = False
    """Whether a token without ``aud`` passes; one that has it must match all the same."""
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


class Verifier(Protocol):
    """Verifies tokens."""

    def verify(self, token: bytes) -> VerifiedToken:
        """Raises Rejected."""


class TokenVerifier:
    """Verifies tokens of the configured issuers.

    ``leeway`` is in seconds; ``role_of`` maps an issuer's name, a client id and scopes to a role (empty: none);
    ``mapped_headers`` maps response headers to claims; ``observe`` is called with the issuer's name and the seconds of
    each signature check.
    """

    def __init__(
        self,
        issuers: Iterable[Issuer],
        *,
        clock: Clock,
        leeway: float,
        role_of: Callable[[str, str, frozenset[str]], str],
        mapped_headers: Mapping[str, str],
        observe: Callable[[str, float], None] = lambda _, __: None,
    ) -> None:
        self._issuers = {url: issuer for issuer in issuers for url in issuer.urls}
        listed = frozenset[str]().union(*(issuer.algorithms for issuer in self._issuers.values()))
        self._algorithms = listed.union(ED25519_NAMES[name] for name in listed.intersection(ED25519_NAMES))
        self._clock = clock
        self._leeway = leeway
        self._role_of = role_of
        self._mapped_headers = mapped_headers
        self._warned: set[str] = set()
        self._principals: WeakValueDictionary[tuple[object, ...], Principal] = WeakValueDictionary()
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
            client_id = _check_machine(issuer, parts, claims)
            _check_audience(issuer, claims)
            principal = self._principal(issuer, client_id, claims)
            jti = text(claims, "jti") or ""
            text(claims, "sub")
            if "cnf" in claims:  # RFC 7800 section 3.1: bound to a key whose possession nobody proved
                raise Rejected(Reason.BAD_PROOF, "the token is bound to its sender (cnf) and no proof is supported")
        except Rejected as rejected:
            rejected.issuer = issuer.name
            raise
        return VerifiedToken(principal, key, exp, jti, self._clock())

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
        exp = _number(claims, "exp")
        nbf = _number(claims, "nbf")
        iat = _number(claims, "iat")
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

    def _principal(self, issuer: Issuer, client_id: str, claims: Claims) -> Principal:
        """Everything that becomes a header, shared by all tokens that carry the same, so that a cached one is small."""
        granted = [sys.intern(scope) for scope in scope_values(claims, issuer.profile.scope) if scope]
        mapped = [self._mapped(claims, claim) for claim in self._mapped_headers.values()]
        shared = (issuer.name, client_id, *granted, "", *mapped)  # no scope is empty: it separates the two lists
        known = self._principals.get(shared)
        if known is None:
            known = self._principals[shared] = self._make_principal(issuer, client_id, granted, mapped)
        return known

    def _make_principal(self, issuer: Issuer, client_id: str, granted: list[str], mapped: list[str]) -> Principal:
        if not VISIBLE.fullmatch(client_id):
            raise Rejected(Reason.INVALID_CLAIMS, "the client id holds characters that no header may carry")
        if not all(map(VISIBLE.fullmatch, granted)):
            raise Rejected(Reason.INVALID_CLAIMS, "a scope holds characters that no header may carry")
        prefix = issuer.scope_prefix
        scope = " ".join(granted)
        scopes = frozenset(granted + [held[len(prefix) :] for held in granted if prefix and held.startswith(prefix)])
        role = self._role_of(issuer.name, client_id, scopes)
        values = (client_id, scope, role, issuer.name)
        headers = encode_headers([*zip(IDENTITY_HEADERS, values), *zip(self._mapped_headers, mapped)])
        listed = issuer.clients is None or client_id in issuer.clients
        return Principal(issuer.name, client_id, scope, scopes, prefix, role, listed, headers, header_lines(headers))

    def _mapped(self, claims: Claims, name: str) -> str:
        value = claims.get(name, "")
        if isinstance(value, bool | int | float):
            value = json.dumps(value)
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = " ".join(value)
        elif not isinstance(value, str):
            if name not in self._warned:
                self._warned.add(name)
                log.warning("the claim %s is of a type that no header can hold: its header stays empty", name)
            return ""
        if not HEADER_SAFE.fullmatch(value):
            raise Rejected(Reason.INVALID_CLAIMS, f"the claim {name} holds characters that no header may carry")
        return value


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


def _number(claims: Claims, name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2) in seconds. Raises Rejected; a boolean is no number, nor is 1e999."""
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_TIME:
        raise Rejected(Reason.INVALID_CLAIMS, f"{name} is not a number of seconds")
    return value


def _check_machine(issuer: Issuer, parts: UnverifiedToken, claims: Claims) -> str:
    profile = issuer.profile
    client_id = profile.client_of(claims)
    if client_id is None:
        raise Rejected(Reason.NOT_M2M, f"not a machine's access token: it has no {' or '.join(profile.client_id)}")
    problem = check_typ(parts.header.typ, profile.typ) or profile.access(claims, client_id)
    if problem is None and not issuer.allow_users:
        problem = profile.machine(claims, client_id)
    if problem is not None:
        raise Rejected(Reason.NOT_M2M, f"not a machine's access token: {problem}")
    return client_id


def check_typ(typ: str, wanted: tuple[str, ...]) -> str | None:
    """Why the header's ``typ``, in lower case, is not an access token's, or None (RFC 8725 section 3.11).

    Where the profile asks for no certain type, a ``typ`` that names a kind of JWT must still name access tokens: a
    logout token or a DPoP proof of the same issuer must not pass.
    """
    if wanted:
        return None if typ in wanted else f"typ is not {wanted[0]}"
    return "typ names another kind of token" if "+" in typ and not typ.endswith("at+jwt") else None


def _check_audience(issuer: Issuer, claims: Claims) -> None:
    """RFC 7519 section 4.1.3: a string or a list of strings, of which one must be ours."""
    named: Any = claims.get("aud")
    if "aud" in claims:
        if isinstance(named, str):
            named = [named]
        if not isinstance(named, list) or not all(isinstance(item, str) for item in named):
            raise Rejected(Reason.INVALID_CLAIMS, "aud is neither a string nor a list of strings")
    if issuer.audience is None or (named is None and issuer.audience_optional):
        return
    if not issuer.audience.intersection(named or ()):
        raise Rejected(Reason.WRONG_AUDIENCE, "aud names no audience that this issuer is configured with")

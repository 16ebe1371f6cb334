"""What becomes of verified claims: the principal, whose values are safe to become response headers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from weakref import WeakValueDictionary

from verifier.identity import HEADER_SAFE, IDENTITY_HEADERS, VISIBLE, Principal, encode_headers, header_lines
from verifier.reasons import Reason, Rejected
from verifier.tokens.claims import ABSENT, ClaimName, Claims, find_claim, scope_values, show_claim
from verifier.tokens.profiles import PROFILES, Profile

log = logging.getLogger(__name__)

MAX_SCOPES, MAX_SCOPE_LENGTH = 4096, 128  # scopes that are stored once for all principals, and characters of one


class Principals:
    """Makes principals. Equal ones are one object, and so is each scope, so that a cached token is small.

    ``role_of`` maps an issuer's name, a client id and scopes to a role (empty: none); ``mapped_headers`` maps response
    headers to claims. A mapped claim that cannot become a header, or that no token has, is logged once.
    """

    def __init__(
        self, role_of: Callable[[str, str, frozenset[str]], str], mapped_headers: Mapping[str, ClaimName]
    ) -> None:
        self._role_of = role_of
        self._mapped_headers = mapped_headers
        self._principals: WeakValueDictionary[tuple[str, ...], Principal] = WeakValueDictionary()
        self._scopes: dict[str, str] = {}
        self._logged: set[tuple[str, ClaimName]] = set()

    def make(
        self,
        issuer: str,
        client_id: str,
        claims: Claims,
        profile: Profile,
        prefix: str,
        clients: frozenset[str] | None,
    ) -> Principal:
        """The principal of verified claims. ``clients`` is the issuer's list, None: it has none. Raises Rejected."""
        if profile.scope != PROFILES[profile.name].scope:
            self._note_claim(claims, profile.scope, f"the scope of issuer {issuer}")
        granted = [self._share(scope) for scope in scope_values(claims, profile.scope)]
        mapped = [self._mapped(claims, header, claim) for header, claim in self._mapped_headers.items()]
        scope = " ".join(granted)
        shared = (issuer, client_id, scope, *mapped)
        known = self._principals.get(shared)
        if known is not None:
            return known
        if not VISIBLE.fullmatch(client_id):
            raise Rejected(Reason.INVALID_CLAIMS, "the client id holds characters that no header may carry")
        prefixed = [held for held in granted if prefix and held != prefix and held.startswith(prefix)]
        scopes = frozenset(granted + [self._share(held[len(prefix) :]) for held in prefixed])
        role = self._role_of(issuer, client_id, scopes)
        values = (client_id, scope, role, issuer, *mapped)
        lines = header_lines(encode_headers([*zip((*IDENTITY_HEADERS, *self._mapped_headers), values)]))
        listed = clients is None or client_id in clients
        made = Principal(issuer, client_id, scope, scopes, prefix, role, listed, lines)
        self._principals[shared] = made
        return made

    def _is_first(self, target: str, name: ClaimName) -> bool:
        """Whether nothing has been logged about this claim and its target so far."""
        first = (target, name) not in self._logged
        self._logged.add((target, name))
        return first

    def _note_claim(self, claims: Claims, name: ClaimName, target: str) -> None:
        """Warn once where the first token does not have a claim that the configuration maps to ``target``."""
        if self._is_first(target, name) and find_claim(claims, name) is ABSENT:
            log.warning("no token so far has the claim %s, which is mapped to %s", show_claim(name), target)

    def _share(self, scope: str) -> str:
        """The one copy of a scope. Raises Rejected."""
        known = self._scopes.get(scope)
        if known is None:
            if not VISIBLE.fullmatch(scope):
                raise Rejected(Reason.INVALID_CLAIMS, "a scope holds characters that no header may carry")
            if len(scope) > MAX_SCOPE_LENGTH:
                return scope
            if len(self._scopes) >= MAX_SCOPES:
                self._scopes.clear()
            known = self._scopes[scope] = scope
        return known

    def _mapped(self, claims: Claims, header: str, name: ClaimName) -> str:
        self._note_claim(claims, name, header)
        value = find_claim(claims, name)
        if value is ABSENT:
            return ""
        if isinstance(value, bool | int | float):
            value = json.dumps(value)
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = " ".join(value)
        elif not isinstance(value, str):
            if self._is_first("", name):
                log.warning("the claim %s is of a type that no header can hold: its header is empty", show_claim(name))
            return ""
        if not HEADER_SAFE.fullmatch(value):
            raise Rejected(
                Reason.INVALID_CLAIMS, f"the claim {show_claim(name)} holds characters that no header may carry"
            )
        return value

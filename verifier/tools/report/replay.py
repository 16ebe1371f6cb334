"""What a configuration would answer to the requests of audit lines. The decision is the gate's own."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

from verifier.config import Config
from verifier.gate import Gate
from verifier.identity import Principal, VerifiedToken
from verifier.policy.clients import Revoked
from verifier.policy.paths import AmbiguousPathError
from verifier.policy.policies import with_prefix
from verifier.proxies.answers import OTHER_HEADER_BYTES
from verifier.reasons import Reason, Rejected
from verifier.request import AuthRequest
from verifier.tokens.principals import Principals
from verifier.tokens.proofs import Proofs, SeenProofs
from verifier.tokens.verify import IssuerRules
from verifier.tools.report.lines import Record

MAX_REMEMBERED = 10_000  # paths, and outcomes; then all are forgotten
LONGEST = 2048  # characters of what is remembered of one

NOT_REPLAYED = frozenset(
    {
        Reason.UNKNOWN_POLICY, Reason.BAD_AUTH_REQUEST, Reason.AMBIGUOUS_PATH, Reason.HEADERS_TOO_LARGE,
        Reason.INTERNAL_ERROR,
    }
)  # fmt: skip
"""The line lacks the cause of these: they stay as they are."""

DECIDED_BY_POLICY = frozenset(
    {
        Reason.OK, Reason.REVOKED, Reason.CLIENT_NOT_ALLOWED, Reason.ISSUER_NOT_ALLOWED, Reason.INSUFFICIENT_SCOPE,
        Reason.NO_ROLE, Reason.NO_MATCHING_RULE,
    }
)  # fmt: skip
"""What the gate says of a valid token. The others, but for ``missing_token``, say that the token is not valid."""


_Key = TypeVar("_Key", bound=tuple[Hashable, ...])
_Value = TypeVar("_Value")


class Outcome(NamedTuple):
    """What the configuration answers to one request."""

    reason: Reason
    passes: bool
    """Whether nginx would let it pass: it is allowed, or the policy is in report mode."""
    role: str
    needed: frozenset[str]
    """The granted scopes that the request needs; of alternatives, all that are granted."""


class _RecordedKey:
    """The key that verified the token when the line was written."""

    retired = False


class _RecordedTokens:
    """Takes the place of the verifier of tokens: gives what one audit line says of its token."""

    token: VerifiedToken | Rejected

    def verify(self, _: bytes) -> tuple[VerifiedToken, bool]:
        """The token that was verified then. Raises Rejected, as it was refused then."""
        if isinstance(self.token, Rejected):
            raise self.token
        return self.token, True


class Replay:
    """Decides about recorded requests with ``config``, without some scopes and with further clients revoked.

    ``without_scopes`` and ``revoke`` are written as in the configuration; ``queries`` are auth URLs' queries by policy.
    """

    def __init__(
        self, config: Config, without_scopes: Iterable[str], revoke: Iterable[str], queries: Mapping[str, bytes]
    ) -> None:  # fmt: skip
        self._config = config
        self._issuers = {rules.name: rules for rules in config.issuers}
        self._without = frozenset(without_scopes)
        self._queries = queries
        self._principals = Principals(config.roles.of, {})
        self._revoked = Revoked(config.revoked.clients.union(revoke), config.revoked.tokens)
        self._tokens = _RecordedTokens()
        room = config.max_header_bytes - OTHER_HEADER_BYTES
        # No recorded token is bound to a key: a refused proof is replayed as it was.
        proofs = Proofs({}, SeenProofs(), clock=time.time, leeway=config.leeway)
        self._gate = Gate(self._tokens, config.policies, self._revoked, room, proofs)
        self._meets: dict[tuple[str, ...], Hashable] = {}
        self._outcomes: dict[tuple[Hashable, ...], Outcome] = {}
        self.absent = {*(f"scope {scope}" for scope in self._without), *(f"client {client}" for client in revoke)}
        """What is taken away, as far as no line has had it."""

    def outcome(self, record: Record) -> Outcome:
        """What the configuration answers to a recorded request."""
        if record.reason in NOT_REPLAYED:
            return Outcome(record.reason, record.passed, record.role, frozenset())
        target = record.policy, record.method, record.host, record.path
        meets = self._meets.get(target)
        if meets is None:
            meets = _remember(self._meets, target, self._rules_met(*target))
        key = (
            record.reason, record.policy, record.issuer, record.client_id, record.scope,
            record.jti in self._revoked.tokens, meets,
        )  # fmt: skip
        return self._outcomes.get(key) or _remember(self._outcomes, key, self._decide(record))

    def _rules_met(self, name: str, method: str, host: str, path: str) -> Hashable:
        """Equal for requests that no policy of this name distinguishes."""
        policy = self._config.policies.by_name.get(name)
        if policy is None or not policy.rules:
            return ()
        url = _url(host, path)
        try:
            rules, rare = policy.rules_of_readings(method, url)
        except AmbiguousPathError as error:
            return str(error), bool(method), bool(url)
        return frozenset(rules), frozenset(rare), bool(method), bool(url)

    def _decide(self, record: Record) -> Outcome:
        url = _url(record.host, record.path)
        query = self._queries.get(record.policy, b"")
        request = AuthRequest(record.policy, query, b"Bearer recorded", record.method, url)
        needed = frozenset[str]()
        if record.client_id and record.reason in DECIDED_BY_POLICY:
            try:
                principal, needed = self._reduced(record, request)
                self._tokens.token = VerifiedToken(principal, _RecordedKey(), math.inf, record.jti, 0.0)
            except Rejected as rejected:
                self._tokens.token = rejected
        elif record.reason in (Reason.OK, Reason.MISSING_TOKEN):
            request = replace(request, authorization=None)
        else:
            self._tokens.token = Rejected(record.reason, "as recorded")
        decision = self._gate.decide(request)
        passes = decision.reason is Reason.OK or decision.report
        return Outcome(decision.reason, passes, decision.token.principal.role if decision.token else "", needed)

    def _reduced(self, record: Record, request: AuthRequest) -> tuple[Principal, frozenset[str]]:
        """The client without the scopes that are taken away, and what it needs of those that are granted.

        Raises Rejected.
        """
        rules = self._issuers.get(record.issuer)
        if rules is None:
            raise Rejected(Reason.UNKNOWN_ISSUER, "the configuration has no issuer of this name")
        for written in (record.client_id, f"{record.issuer}/{record.client_id}"):
            self.absent.discard(f"client {written}")
        prefix = rules.scope_prefix
        taken = {form: scope for scope in self._without for form in (scope, with_prefix(scope, prefix))}
        granted = [scope for scope in record.scope.split(" ") if scope]
        self.absent -= {f"scope {taken[scope]}" for scope in granted if scope in taken}
        principal = self._principal(rules, record.client_id, granted)
        reduced = self._principal(rules, record.client_id, [scope for scope in granted if scope not in taken])
        wanted = self._wanted(request)
        if wanted is None:
            return reduced, frozenset()

        def is_needed(scope: str) -> bool:
            forms = {scope, scope.removeprefix(prefix)}
            role = self._config.roles.of(rules.name, record.client_id, principal.scopes - forms)
            return not forms.isdisjoint(wanted) or role != principal.role

        return reduced, frozenset(filter(is_needed, granted))

    def _principal(self, rules: IssuerRules, client_id: str, scopes: list[str]) -> Principal:
        """As the claims of a token would give it. Raises Rejected."""
        profile = rules.profile.with_claims(None, "scope")  # a line has the scopes, wherever the token has them
        claims = {"scope": " ".join(scopes)}
        return self._principals.make(rules.name, client_id, claims, profile, rules.scope_prefix, rules.clients)

    def _wanted(self, request: AuthRequest) -> set[str] | None:
        """The scopes that the rules of a request name; None where there is no decision about them."""
        try:
            policy = self._config.policies.find(request.policy, request.query)
            needs, rare = policy.needs_of(request.method, request.url)
        except Rejected:
            return None
        return {scope for alternatives in (*needs, *rare) for scope in alternatives}


def _url(host: str, path: str) -> bytes:
    """As nginx names it; the scheme does not count. Half of a surrogate pair is in no line that the verifier wrote."""
    return f"http://{host}{path}".encode("utf-8", "backslashreplace") if host or path else b""


def _remember(known: dict[_Key, _Value], key: _Key, value: _Value) -> _Value:
    """Keep the value of a key, unless it is long."""
    if sum(len(part) for part in key if isinstance(part, str)) <= LONGEST:
        if len(known) >= MAX_REMEMBERED:
            known.clear()
        known[key] = value
    return value

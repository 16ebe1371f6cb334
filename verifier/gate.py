"""The decision: who sends this request, and may they. One synchronous function without I/O."""

from __future__ import annotations

import logging
import traceback
from typing import Protocol

from verifier.decision import Decision
from verifier.identity import VerifiedToken
from verifier.policy.clients import Revoked
from verifier.policy.policies import Policies, Policy
from verifier.reasons import OK, Reason, Rejected
from verifier.request import AuthRequest, credentials, is_url
from verifier.tokens.proofs import Proofs

log = logging.getLogger(__name__)


class Verifier(Protocol):
    """Checks tokens: ``CachedVerifier``, or what replays audit lines."""

    def verify(self, token: bytes) -> tuple[VerifiedToken, bool]:
        """The verified token, and whether it was cached. Raises Rejected."""


class Gate:
    """Decides about auth requests. ``max_identity_bytes`` is what the identity headers of an answer may take."""

    def __init__(
        self,
        verifier: Verifier,
        policies: Policies,
        revoked: Revoked,
        max_identity_bytes: int,
        proofs: Proofs,
    ) -> None:
        self._verifier = verifier
        self._policies = policies
        self._revoked = revoked if revoked.any else None
        self._max_identity_bytes = max_identity_bytes
        self._proofs = proofs

    def decide(self, request: AuthRequest) -> Decision:
        """The decision; the first check that fails gives the reason. Never raises: a defect is a 503."""
        policy: Policy | None = None
        token: VerifiedToken | None = None
        cached: bool | None = None
        try:
            policy = self._policies.find(request.policy, request.query)
            if policy.rules or request.repeated:
                _check_auth_request(request, policy)
            if policy.has_open_rules and _needs_no_token(request, policy):
                return Decision(OK, policy.name, policy.report)
            presented = credentials(request)
            cached = False
            verified, cached = self._verifier.verify(presented.token)
            if verified.binding is not None or presented.is_dpop:  # until it is proved, the token identifies nobody
                self._proofs.check(request, presented, verified, policy.origin)
            token = verified
            policy.check_audience(token)
            principal = token.principal
            if self._revoked is not None and self._revoked.covers(principal, token.jti):
                raise Rejected(Reason.REVOKED, "the token or its client was revoked")
            policy.authorize(principal, request.method, request.url)
            if len(principal.header_lines) > self._max_identity_bytes:
                raise Rejected(Reason.HEADERS_TOO_LARGE, "the identity headers exceed the proxy's buffer")
        except Rejected as rejected:
            # A policy whose auth URL is wrong still names the metric and the challenge.
            return _refusal(request, rejected, policy or self._policies.by_name.get(request.policy), token, cached)
        except Exception as error:  # fail closed; the text of a defect may quote the token
            _log_defect(error)
            defect = Rejected(Reason.INTERNAL_ERROR, "an internal error: the decision is indeterminate")
            return _refusal(request, defect, policy, token, cached)
        return Decision(OK, policy.name, policy.report, principal.issuer, token, cached)


def _check_auth_request(request: AuthRequest, policy: Policy) -> None:
    if request.repeated and request.repeated != {"authorization"}:
        raise Rejected(Reason.BAD_AUTH_REQUEST, "the proxy named the original request twice")
    if policy.rules and not (request.method and is_url(request.url)):
        raise Rejected(Reason.BAD_AUTH_REQUEST, "the proxy did not name the original request's method and URL")


def _needs_no_token(request: AuthRequest, policy: Policy) -> bool:
    """Whether a ``token: none`` rule decides. An auth URL that asks for more, or a hidden method, needs a token."""
    return not (request.query or request.method_override or policy.needs_token(request.method, request.url))


def _refusal(
    request: AuthRequest,
    rejected: Rejected,
    policy: Policy | None,
    token: VerifiedToken | None,
    cached: bool | None,
) -> Decision:
    return Decision(
        rejected.reason,
        policy.name if policy else "",
        policy.report if policy else False,
        rejected.issuer or (token.principal.issuer if token else ""),
        token,
        cached,
        rejected.description,
        rejected.scope or (_challenge_scope(policy, request) if policy else ""),
        policy.resource_metadata if policy else "",
        rejected.refresh,
        rejected.is_dpop,
        policy.scope_challenge if policy else 403,
    )


def _challenge_scope(policy: Policy, request: AuthRequest) -> str:
    """Empty where a defect keeps it from being known: the refusal stands all the same."""
    try:
        return policy.challenge_scope(request.method, request.url)
    except Exception as error:
        _log_defect(error)
        return ""


def _log_defect(error: Exception) -> None:
    place = traceback.extract_tb(error.__traceback__)[-1]
    log.error("defect: %s at %s:%s", type(error).__name__, place.filename, place.lineno)

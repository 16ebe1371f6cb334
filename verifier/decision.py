"""A decision, in plain values that metrics, audit and answers read."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.identity import VerifiedToken
from verifier.reasons import Reason, Refresh


@dataclass(slots=True)
class Decision:
    """Why one request was allowed or refused."""

    reason: Reason
    policy: str = ""
    """Its name, empty where the auth request named no policy that exists."""
    report: bool = False
    """Whether the policy is in report mode, where every answer is 200."""
    issuer: str = ""
    """The configured name of the token's issuer, empty where unknown."""
    token: VerifiedToken | None = None
    """Present only when signature and claims were verified; the token may be revoked all the same."""
    cached: bool | None = None
    """Whether the token was found in the cache; None where the decision needed no token."""
    description: str = ""
    scope: str = ""
    """Space-separated scopes for the challenge."""
    resource_metadata: str = ""
    """The URL of the policy's protected-resource document (RFC 9728), for the challenge."""
    refresh: Refresh | None = None
    """Where newer keys may change the decision: await it once, then decide again."""
    is_dpop: bool = False
    """Whether the challenge is for a DPoP proof (RFC 9449 section 7.1)."""
    scope_challenge: int = 403
    """The status of a refusal for insufficient scope, as the policy says."""

    @property
    def status(self) -> int:
        """The status of the answer; in report mode, of the answer that there would be."""
        return self.scope_challenge if self.reason is Reason.INSUFFICIENT_SCOPE else self.reason.status

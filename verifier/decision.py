"""What the verifier answers and why: one closed set of reasons, shared by metrics, audit, headers and tests."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from verifier.identity import VerifiedToken
    from verifier.keys.jwk import Key
    from verifier.policy.policies import Policy
    from verifier.request import AuthRequest


class Reason(StrEnum):
    """Why a request was allowed or refused, with the HTTP status that says so."""

    status: int

    def __new__(cls, word: str, status: int) -> Reason:
        """Make the member ``word`` carry its HTTP ``status``."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.status = status
        return member

    OK = "ok", 200

    MISSING_TOKEN = "missing_token", 401
    MALFORMED_TOKEN = "malformed_token", 401
    UNSUPPORTED_ALGORITHM = "unsupported_algorithm", 401
    UNKNOWN_ISSUER = "unknown_issuer", 401
    UNKNOWN_KEY = "unknown_key", 401
    BAD_SIGNATURE = "bad_signature", 401
    EXPIRED = "expired", 401
    NOT_YET_VALID = "not_yet_valid", 401
    WRONG_AUDIENCE = "wrong_audience", 401
    INVALID_CLAIMS = "invalid_claims", 401
    BAD_PROOF = "bad_proof", 401
    REVOKED = "revoked", 401

    NOT_M2M = "not_m2m", 403
    CLIENT_NOT_ALLOWED = "client_not_allowed", 403
    ISSUER_NOT_ALLOWED = "issuer_not_allowed", 403
    INSUFFICIENT_SCOPE = "insufficient_scope", 403
    NO_ROLE = "no_role", 403
    NO_MATCHING_RULE = "no_matching_rule", 403
    AMBIGUOUS_PATH = "ambiguous_path", 403
    UNKNOWN_POLICY = "unknown_policy", 403
    BAD_AUTH_REQUEST = "bad_auth_request", 403
    HEADERS_TOO_LARGE = "headers_too_large", 403

    KEYS_UNAVAILABLE = "keys_unavailable", 503


class Rejected(Exception):
    """One check failed.

    ``description`` is for the person who was refused: ASCII, without quotes or backslashes (RFC 6750 section 3),
    and never quotes the token. ``issuer`` is the configured name, once it is known. ``scope`` is what a token
    would have to hold, where scope is the cause. ``key`` is the one whose signature does not match.
    """

    def __init__(
        self, reason: Reason, description: str, *, issuer: str = "", scope: str = "", key: Key | None = None
    ) -> None:
        super().__init__(reason, description)
        self.reason = reason
        self.description = description
        self.issuer = issuer
        self.scope = scope
        self.key = key


class Decision(NamedTuple):
    """The end of the line: what metrics, audit and the dialects read."""

    reason: Reason
    policy: Policy | None
    """None where the auth request named no policy that exists."""
    issuer: str = ""
    """The configured name of the token's issuer, empty where unknown."""
    token: VerifiedToken | None = None
    """Present only when signature and claims were verified, be it revoked or not."""
    description: str = ""
    scope: str = ""
    """Space-separated scopes for the challenge of an ``insufficient_scope``."""
    cached: bool = False


Observed: TypeAlias = "tuple[AuthRequest, Decision, float]"
"""What was asked, what was decided, and how many seconds it took."""

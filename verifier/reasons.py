"""The closed set of reasons, shared by metrics, audit, headers and tests, and the exception that carries one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum

Refresh = Callable[[], Awaitable[None]]
"""Fetches an issuer's keys once, or joins the fetch under way."""


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
    INTERNAL_ERROR = "internal_error", 503


OK = Reason.OK  # a member takes many times longer to look up than a global


class Rejected(Exception):
    """One check failed.

    ``description`` is for the person who was refused: ASCII, without quotes or backslashes (RFC 6750 section 3). It
    never quotes the token. ``issuer`` is the configured name, once it is known. ``scope`` is what a token would have to
    hold, where scope is the cause. ``refresh`` is there where newer keys may change the decision. ``is_dpop``: a DPoP
    proof is what the client has to send (RFC 9449).
    """

    def __init__(
        self,
        reason: Reason,
        description: str,
        *,
        issuer: str = "",
        scope: str = "",
        refresh: Refresh | None = None,
        is_dpop: bool = False,
    ) -> None:
        super().__init__(reason, description)
        self.reason = reason
        self.description = description
        self.issuer = issuer
        self.scope = scope
        self.refresh = refresh
        self.is_dpop = is_dpop

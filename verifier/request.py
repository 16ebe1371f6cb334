"""The question: one request that a proxy asks about, free of any proxy's dialect."""

from __future__ import annotations

import re
from typing import NamedTuple

from verifier.decision import Reason, Rejected

# RFC 9110 section 11.1, RFC 6750 section 2.1: the scheme in any case, one or more spaces, one token.
_BEARER = re.compile(rb"bearer +([^\s,]+)", re.IGNORECASE)
_BEARER_SCHEME = re.compile(rb"bearer(?:[\s,]|$)", re.IGNORECASE)


class AuthRequest(NamedTuple):
    """What the dialects parse and the gate decides about."""

    policy: str
    """The policy's name, from the path of the auth URL."""
    query: bytes
    """The auth URL's query, raw."""
    authorization: bytes | None
    """The value of the ``Authorization`` header, None where there is none."""
    method: str
    """The original request's method; empty where the proxy did not say."""
    url: bytes
    """The original request's URL, raw; empty where the proxy did not say."""
    repeated: frozenset[str] = frozenset()
    """Lower-case names, of the headers read here, that came more than once."""
    request_id: str = ""
    remote_addr: str = ""


def bearer_token(request: AuthRequest) -> bytes:
    """The one bearer token of a request. Raises Rejected."""
    value = request.authorization
    if value is None:
        raise Rejected(Reason.MISSING_TOKEN, "there is no Authorization header")
    if "authorization" in request.repeated:
        raise Rejected(Reason.MALFORMED_TOKEN, "there is more than one Authorization header")
    found = _BEARER.fullmatch(value)
    if found is None:
        if _BEARER_SCHEME.match(value):
            raise Rejected(Reason.MALFORMED_TOKEN, "there is not exactly one token after Bearer")
        raise Rejected(Reason.MISSING_TOKEN, "the Authorization header's scheme is not Bearer")
    return found[1]

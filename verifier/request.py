"""An auth request: what a proxy asks, in the same form for every dialect."""

from __future__ import annotations

from typing import NamedTuple

from verifier.reasons import Reason, Rejected


class AuthRequest(NamedTuple):
    """Made by a dialect in ``proxies``, read by the gate."""

    policy: str
    """The policy's name, from the path of the auth URL."""
    query: bytes
    """The auth URL's query, raw."""
    authorization: bytes | None
    """The value of the ``Authorization`` header, None where there is none."""
    method: str
    """The original request's method; empty where the proxy did not send it."""
    url: bytes
    """The original request's URL, raw; empty where the proxy did not send it."""
    repeated: frozenset[str] = frozenset()
    """Lower-case names of those headers read here that came more than once."""
    request_id: str = ""
    remote_addr: str = ""
    body_announced: bool = False
    """Whether a body may follow on the connection. It is never read."""
    method_override: bool = False
    """Whether a header asks the API to act upon another method than ``method``."""


def is_url(url: bytes) -> bool:
    """Whether ``url`` is absolute, as ``$scheme://$http_host$request_uri`` always is."""
    return url.startswith((b"http://", b"https://"))


def bearer_token(request: AuthRequest) -> bytes:
    """The one bearer token of a request (RFC 6750 section 2.1), its form still unchecked. Raises Rejected.

    The scheme counts in any case, before one or more spaces (RFC 9110 section 11.1).
    """
    value = request.authorization
    if value is None:
        raise Rejected(Reason.MISSING_TOKEN, "there is no Authorization header")
    if "authorization" in request.repeated:
        raise Rejected(Reason.MALFORMED_TOKEN, "there is more than one Authorization header")
    scheme, _, token = value.partition(b" ")
    if scheme.lower() != b"bearer":
        raise Rejected(Reason.MISSING_TOKEN, "the Authorization header's scheme is not Bearer")
    return token.lstrip(b" ")

"""An auth request: what a proxy asks, in the same form for every dialect."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from verifier.reasons import Reason, Rejected

# W3C Trace Context section 3.2; after version 00 nothing follows the flags, after a later one a dash and anything.
_TRACEPARENT = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?", re.DOTALL
)


@dataclass(slots=True)  # a NamedTuple takes longer to make and to read
class AuthRequest:
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
    proofs: tuple[bytes, ...] = ()
    """The values of all ``DPoP`` headers (RFC 9449 section 4.1)."""
    headers: Sequence[tuple[bytes, bytes]] = ()
    """All headers, names in lower case: the configuration names the one that holds the client's certificate."""
    traceparent: bytes = b""
    """Which trace the request belongs to, unchecked (see ``trace_id_of``); empty where it came more than once."""


def is_url(url: bytes) -> bool:
    """Whether ``url`` is absolute, as ``$scheme://$http_host$request_uri`` always is."""
    return url.startswith((b"http://", b"https://"))


def trace_id_of(traceparent: bytes) -> str:
    """The trace id in a ``traceparent`` (W3C Trace Context section 3.2), empty where the value is not valid."""
    found = _TRACEPARENT.fullmatch(traceparent.strip(b" \t"))
    return found[1].decode("ascii") if found else ""


@dataclass(slots=True)
class Credentials:
    """The content of an ``Authorization`` header."""

    is_dpop: bool
    """Whether the scheme is DPoP (RFC 9449 section 7.1), else it is Bearer (RFC 6750 section 2.1)."""
    token: bytes
    """The access token, its form still unchecked."""


def credentials(request: AuthRequest) -> Credentials:
    """The one access token of a request. Raises Rejected.

    The scheme counts in any case, before one or more spaces (RFC 9110 section 11.1); white space around the field value
    is no part of it (section 5.5).
    """
    value = request.authorization
    if value is None:
        raise Rejected(Reason.MISSING_TOKEN, "there is no Authorization header")
    if "authorization" in request.repeated:
        raise Rejected(Reason.MALFORMED_TOKEN, "there is more than one Authorization header")
    scheme, _, token = value.strip(b" \t").partition(b" ")
    scheme = scheme.lower()
    if scheme not in (b"bearer", b"dpop"):
        raise Rejected(Reason.MISSING_TOKEN, "the Authorization header's scheme is neither Bearer nor DPoP")
    return Credentials(scheme == b"dpop", token.lstrip(b" "))

"""nginx ``auth_request`` and ingress-nginx ``auth-url``: ``/verify`` and ``/verify/{policy}``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from verifier.request import AuthRequest

PREFIX = "/verify"
_BELOW_PREFIX = PREFIX + "/"

# nginx sets X-Original-URL and X-Original-Method itself; X-Original-URI, X-Forwarded-* and X-M2M-* are as the client
# forged them. A second one of these would leave open which one counts.
_ONCE = (b"authorization", b"x-original-url", b"x-original-method")

CERTIFICATE = "ssl-client-cert"
"""Where ingress-nginx puts the client's certificate; its name for this header is fixed."""

# Frameworks that know one of these route by the method that it names.
_METHOD_OVERRIDES = frozenset({b"x-http-method-override", b"x-http-method", b"x-method-override"})

# Printable, without escapes in the path, without a fragment.
_PLAIN_URL = re.compile(rb"/[!-\"$&->@-~]*(?:\?[!-\"$-~]*)?")
_LONGEST_URL = 1024  # bytes of one that is remembered


def policy_in(path: str) -> str | None:
    """The policy that an auth path names, None where it is no auth path.

    ``/verify/`` is what a template makes of an empty name: no policy, rather than the default one.
    """
    if path == PREFIX:
        return "default"
    return path[len(PREFIX) + 1 :] if path.startswith(_BELOW_PREFIX) else None


def auth_url(url: bytes) -> tuple[str, bytes] | None:
    """Policy and query of a plain auth URL; None for all others, which need a URL parser."""
    return _auth_url(url) if len(url) <= _LONGEST_URL else None


@lru_cache(maxsize=256)  # auth URLs are few and written by operators
def _auth_url(url: bytes) -> tuple[str, bytes] | None:
    if not _PLAIN_URL.fullmatch(url):
        return None
    path, _, query = url.partition(b"?")
    policy = policy_in(path.decode("ascii"))
    return None if policy is None else (policy, query)


def parse(policy: str, query: bytes, pairs: Sequence[tuple[bytes, bytes]], peer: str) -> AuthRequest:
    """Read the subrequest's headers, whose names are in lower case. ``peer`` is the address of the connection."""
    headers: dict[bytes, bytes] = dict(pairs)
    get = headers.get
    return AuthRequest(
        policy,
        query,
        get(b"authorization"),
        get(b"x-original-method", b"").decode("latin-1"),
        get(b"x-original-url", b""),
        frozenset() if len(headers) == len(pairs) else _repeated(pairs),
        get(b"x-request-id", b"").decode("latin-1"),
        get(b"x-real-ip", b"").decode("latin-1") or peer,
        b"content-length" in headers or b"transfer-encoding" in headers,
        not headers.keys().isdisjoint(_METHOD_OVERRIDES),
        dpop_proofs(pairs) if b"dpop" in headers else (),
        pairs,
    )


def dpop_proofs(pairs: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, ...]:
    """The values of all DPoP headers (RFC 9449 section 4.1)."""
    return tuple(value for name, value in pairs if name == b"dpop")


def _repeated(pairs: Sequence[tuple[bytes, bytes]]) -> frozenset[str]:
    names = [name for name, _ in pairs]
    return frozenset(name.decode("ascii") for name in _ONCE if names.count(name) > 1)

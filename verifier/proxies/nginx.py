"""nginx ``auth_request`` and ingress-nginx ``auth-url``: ``/verify`` and ``/verify/{policy}``."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from verifier.request import AuthRequest

PREFIX = "/verify"
_BELOW_PREFIX = PREFIX + "/"

# nginx sets X-Original-URL and X-Original-Method itself; X-Original-URI, X-Forwarded-* and X-M2M-* are as the client
# forged them. Of these no second one may come: which would count?
_ONCE = (b"authorization", b"x-original-url", b"x-original-method")


# Printable, without escapes in the path, without a fragment.
_PLAIN_URL = re.compile(rb"/[!-\"$&->@-~]*(?:\?[!-\"$-~]*)?")
_LONGEST_URL = 1024  # bytes: those seen are remembered


def policy_in(path: str) -> str | None:
    """The policy that an auth path names, None where it is no auth path.

    ``/verify/`` is what a template makes of an empty name: no policy, rather than the default one.
    """
    if path == PREFIX:
        return "default"
    return path[len(PREFIX) + 1 :] if path.startswith(_BELOW_PREFIX) else None


def auth_url(url: bytes) -> tuple[str, bytes] | None:
    """Policy and query of a plain auth URL, None for all others: those want a parser of URLs."""
    return _auth_url(url) if len(url) <= _LONGEST_URL else None


@lru_cache(maxsize=256)  # they are few, and written by operators
def _auth_url(url: bytes) -> tuple[str, bytes] | None:
    if not _PLAIN_URL.fullmatch(url):
        return None
    path, _, query = url.partition(b"?")
    policy = policy_in(path.decode("ascii"))
    return None if policy is None else (policy, query)


def parse(scope: Any, policy: str) -> AuthRequest:
    """Read the subrequest's headers from an ASGI ``scope``."""
    pairs = scope["headers"]
    headers: dict[bytes, bytes] = dict(pairs)
    get = headers.get
    peer = scope["client"]
    return AuthRequest(
        policy,
        scope["query_string"],
        get(b"authorization"),
        get(b"x-original-method", b"").decode("latin-1"),
        get(b"x-original-url", b""),
        frozenset() if len(headers) == len(pairs) else _repeated(pairs),
        get(b"x-request-id", b"").decode("latin-1"),
        get(b"x-real-ip", b"").decode("latin-1") or (peer[0] if peer else ""),
        b"content-length" in headers or b"transfer-encoding" in headers,
    )


def _repeated(pairs: list[tuple[bytes, bytes]]) -> frozenset[str]:
    names = [name for name, _ in pairs]
    return frozenset(name.decode("ascii") for name in _ONCE if names.count(name) > 1)

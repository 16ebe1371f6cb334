"""nginx ``auth_request`` and ingress-nginx ``auth-url``: ``/verify`` and ``/verify/{policy}``."""

from __future__ import annotations

from typing import Any

from verifier.request import AuthRequest

PREFIX = "/verify"

# nginx sets X-Original-URL and X-Original-Method itself; X-Original-URI, X-Forwarded-* and X-M2M-* are as the client
# forged them. Of these no second one may come: which would count?
_ONCE = (b"authorization", b"x-original-url", b"x-original-method")


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

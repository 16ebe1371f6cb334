"""nginx ``auth_request`` and ingress-nginx ``auth-url``: ``/verify`` and ``/verify/{policy}``."""

from __future__ import annotations

from verifier.proxies import fields
from verifier.request import AuthRequest

PREFIX = "/verify"

# nginx sets X-Original-URL and X-Original-Method itself; X-Original-URI, X-Forwarded-* and X-M2M-* are as the client
# forged them. A second one of these would leave open which one counts.
_ONCE = (b"authorization", b"x-original-url", b"x-original-method")

CERTIFICATE = "ssl-client-cert"
"""Where ingress-nginx puts the client's certificate; its name for this header is fixed."""


def parse(policy: str, query: bytes, pairs: fields.Pairs, peer: str) -> AuthRequest:
    """Read the subrequest's headers. ``peer`` is the address of the connection."""
    headers: dict[bytes, bytes] = dict(pairs)
    get = headers.get
    return fields.auth_request(
        policy,
        query,
        pairs,
        headers,
        method=get(b"x-original-method", b"").decode("latin-1"),
        url=get(b"x-original-url", b""),
        once=_ONCE,
        remote_addr=get(b"x-real-ip", b"").decode("latin-1") or peer,
    )

"""Traefik ``forwardAuth`` and Caddy ``forward_auth``: ``/forward-auth`` and ``/forward-auth/{policy}``."""

from __future__ import annotations

from verifier.proxies import fields
from verifier.request import AuthRequest

PREFIX = "/forward-auth"

# Traefik (with trustForwardHeader false) and Caddy set these themselves; X-Original-* are as the client forged them.
_METHOD, _PROTO, _HOST, _URI = (b"x-forwarded-" + name for name in (b"method", b"proto", b"host", b"uri"))
_ONCE = (b"authorization", _METHOD, _PROTO, _HOST, _URI)

# Traefik writes ws and wss for a WebSocket's handshake, which is an ordinary request.
_SCHEMES = {b"http": b"http://", b"https": b"https://", b"ws": b"http://", b"wss": b"https://"}


def parse(policy: str, query: bytes, pairs: fields.Pairs, peer: str) -> AuthRequest:
    """Read the subrequest's headers. ``peer`` is the address of the connection.

    The URL is empty where a part of it is missing, but for the host, which a client may leave out.
    """
    headers: dict[bytes, bytes] = dict(pairs)
    get = headers.get
    scheme, uri = _SCHEMES.get(get(_PROTO, b"")), get(_URI, b"")
    return fields.auth_request(
        policy,
        query,
        pairs,
        headers,
        method=get(_METHOD, b"").decode("latin-1"),
        url=fields.url(scheme, get(_HOST, b""), uri) if scheme and uri[:1] == b"/" else b"",
        once=_ONCE,
        # The last one is the proxy's own: those before it may be the client's.
        remote_addr=get(b"x-forwarded-for", b"").rpartition(b",")[2].strip().decode("latin-1") or peer,
    )

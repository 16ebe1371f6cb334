"""NGINX Gateway Fabric's filter ``ExternalAuth``: ``/gateway-fabric`` and ``/gateway-fabric/{policy}``.

It asks with ``auth_request``: a GET with a fixed path, the original method and raw URI in the headers Method and Path.
"""

from __future__ import annotations

from verifier.proxies import fields
from verifier.request import AuthRequest

PREFIX = "/gateway-fabric"

# It sets these itself and passes on no other header of the client that the route does not allow.
_ONCE = (b"authorization", b"method", b"path", b"host")


def parse(policy: str, query: bytes, pairs: fields.Pairs, peer: str) -> AuthRequest:
    """Read the subrequest's headers. ``peer`` is the address of the connection.

    The URL is empty where the path is missing. Its scheme, which the proxy does not say, is https.
    """
    headers: dict[bytes, bytes] = dict(pairs)
    get = headers.get
    path = get(b"path", b"")
    return fields.auth_request(
        policy,
        query,
        pairs,
        headers,
        method=get(b"method", b"").decode("latin-1"),
        url=fields.url(b"https://", get(b"host", b""), path) if path.startswith(b"/") else b"",
        once=_ONCE,
        remote_addr=peer,
    )

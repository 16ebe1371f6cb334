"""Envoy ``ext_authz`` over HTTP and what is built on it: ``/ext-authz/{policy}/…``.

The proxy asks with the original request's own method, and with its path and query behind a prefix.
"""

from __future__ import annotations

from verifier.proxies import fields
from verifier.request import AuthRequest

PREFIX = b"/ext-authz/"

# Host is the client's, as in every dialect: rules do not look at it.
_ONCE = (b"authorization", b"host")


def parse(method: str, target: bytes, pairs: fields.Pairs, peer: str) -> AuthRequest:
    """Read a request whose raw ``target`` begins with PREFIX. ``peer`` is the address of the connection.

    Nothing is decoded: an encoded slash does not end the policy's name, and the path stays as it was sent. The URL is
    empty where nothing, or no slash, follows the policy. Its scheme, which the proxy does not say, is https.
    """
    policy, slash, _ = target[len(PREFIX) :].partition(b"?")[0].partition(b"/")
    headers: dict[bytes, bytes] = dict(pairs)
    original = target[len(PREFIX) + len(policy) :]
    return fields.auth_request(
        policy.decode("latin-1"),
        b"",
        pairs,
        headers,
        method=method,
        url=fields.url(b"https://", headers.get(b"host", b""), original) if slash else b"",
        once=_ONCE,
        remote_addr=peer,
        no_body=(None, b"0"),  # Envoy sends the length 0 with every auth request
    )

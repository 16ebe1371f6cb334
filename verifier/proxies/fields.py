"""What is the same in every dialect: the policy in an auth path, and the headers whose meaning no proxy changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from verifier.request import AuthRequest

Pairs = Sequence[tuple[bytes, bytes]]
"""A request's headers, names in lower case."""

# Frameworks that know one of these route by the method that it names.
METHOD_OVERRIDES = _OVERRIDE, _METHOD, _METHOD_OVERRIDE = (
    b"x-http-method-override", b"x-http-method", b"x-method-override",
)  # fmt: skip


def policy_below(prefix: str, path: str) -> str | None:
    """The policy that an auth path names, None where it does not begin with ``prefix``.

    A final slash alone is what a template makes of an empty name: no policy, rather than the default one.
    """
    if path == prefix:
        return "default"
    return path[len(prefix) + 1 :] if path.startswith(prefix + "/") else None


def auth_request(
    policy: str,
    query: bytes,
    pairs: Pairs,
    headers: Mapping[bytes, bytes],
    *,
    method: str,
    url: bytes,
    once: Iterable[bytes],
    remote_addr: str,
    no_body: tuple[bytes | None, ...] = (None,),
) -> AuthRequest:
    """The auth request of a dialect.

    ``headers`` are the ``pairs`` by name; a second one of ``once`` is noticed. ``no_body`` are the values of
    ``Content-Length`` with which the proxy sends no body.
    """
    get = headers.get
    repeated: frozenset[str] = frozenset()
    traceparent = get(b"traceparent", b"")
    if len(headers) != len(pairs):
        repeated = _repeated(pairs, once)
        traceparent = b"" if _repeated(pairs, (b"traceparent",)) else traceparent
    return AuthRequest(
        policy,
        query,
        get(b"authorization"),
        method,
        url,
        repeated,
        get(b"x-request-id", b"").decode("latin-1"),
        remote_addr,
        get(b"content-length") not in no_body or b"transfer-encoding" in headers,
        _OVERRIDE in headers or _METHOD in headers or _METHOD_OVERRIDE in headers,
        dpop_proofs(pairs) if b"dpop" in headers else (),
        pairs,
        traceparent,
    )


def url(scheme: bytes, host: bytes, target: bytes) -> bytes:
    """The URL of the original request; ``scheme`` ends with ``://``.

    A slash in the client's Host would move the place where the path begins. Encoded, it is no part of an authority
    (RFC 3986 section 3.2): where rules need the path, the URL is refused.
    """
    return scheme + host.replace(b"/", b"%2F") + target


def dpop_proofs(pairs: Pairs) -> tuple[bytes, ...]:
    """The values of all DPoP headers (RFC 9449 section 4.1)."""
    return tuple(value for name, value in pairs if name == b"dpop")


def _repeated(pairs: Pairs, once: Iterable[bytes]) -> frozenset[str]:
    names = [name for name, _ in pairs]
    return frozenset(name.decode("ascii") for name in once if names.count(name) > 1)

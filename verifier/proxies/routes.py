"""Which dialect a request is in. The path alone says so: it is written by the operator."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from verifier.proxies import ext_authz, fields, forward_auth, gateway_fabric, nginx
from verifier.request import AuthRequest

_Parse = Callable[[str, bytes, fields.Pairs, str], AuthRequest]
_BY_HEADERS: dict[str, _Parse] = {dialect.PREFIX: dialect.parse for dialect in (nginx, forward_auth, gateway_fabric)}

FORMS = ", ".join(f"{prefix}[/POLICY][?QUERY]" for prefix in _BY_HEADERS) + " or /ext-authz/POLICY"
"""The auth paths, for messages."""

# Printable, without escapes in the path, without a fragment.
_PLAIN_URL = re.compile(rb"/[!-\"$&->@-~]*(?:\?[!-\"$-~]*)?")
_LONGEST_URL = 1024  # bytes of one that is remembered


def auth_request(
    method: str, path: str, raw_path: bytes, query: bytes, pairs: fields.Pairs, peer: str
) -> AuthRequest | None:
    """The auth request that an HTTP request is, None where it is none. ``path`` is ``raw_path`` decoded."""
    if raw_path.startswith(ext_authz.PREFIX):
        return ext_authz.parse(method, raw_path + b"?" + query if query else raw_path, pairs, peer)
    named = _named(path)
    return None if named is None else named[0](named[1], query, pairs, peer)


def plain_auth_request(method: bytes, target: bytes, pairs: fields.Pairs, peer: str) -> AuthRequest | None:
    """The same from the request line; None as well where it takes a URL parser to read it."""
    if target.startswith(ext_authz.PREFIX):
        return ext_authz.parse(method.decode("ascii"), target, pairs, peer)
    asked = _plain(target) if method == b"GET" and len(target) <= _LONGEST_URL else None
    return None if asked is None else asked[0](asked[1], asked[2], pairs, peer)


def _named(path: str) -> tuple[_Parse, str] | None:
    for prefix, parse in _BY_HEADERS.items():
        policy = fields.policy_below(prefix, path)
        if policy is not None:
            return parse, policy
    return None


@lru_cache(maxsize=256)  # auth URLs are few and written by operators
def _plain(url: bytes) -> tuple[_Parse, str, bytes] | None:
    if not _PLAIN_URL.fullmatch(url):
        return None
    path, _, query = url.partition(b"?")
    named = _named(path.decode("ascii"))
    return None if named is None else (*named, query)

"""A Decision as an HTTP answer: status, challenge, identity headers, body. The same in every dialect."""

from __future__ import annotations

import json
import math
import re
from functools import cache, lru_cache
from http import HTTPStatus
from typing import NamedTuple

from verifier.decision import Decision, Reason
from verifier.identity import IDENTITY_HEADERS, encode_headers, header_lines, type_headers, wire_size
from verifier.keys.sets import Clock
from verifier.policy.policies import Policy, challenge_scope

RETRY_AFTER = 5  # seconds: by then a failed fetch of keys was tried again

MAX_DESCRIPTION = 500  # characters

_NO_STORE = (b"cache-control", b"no-store")
_NO_BODY = (b"content-length", b"0")
_JSON = (b"content-type", b"application/json")
# RFC 6750 section 3: what error_description may hold.
_NOT_DESCRIPTION = re.compile(r"[^ !#-\[\]-~]")

# What an answer carries besides identity: nginx's buffer has to hold the status line and the server's own headers too.
_OTHERS = (
    (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
    (b"connection", b"close"),
    (b"cache-control", b"max-age=3600"),
    _NO_BODY,
)
OTHER_HEADER_BYTES = len(b"HTTP/1.1 200 OK\r\n\r\n") + wire_size(_OTHERS)


class Answer(NamedTuple):
    """What goes over the wire."""

    status: int
    headers: type_headers
    head: bytes
    """The status line and ``headers``, as they go over the wire."""
    body: bytes = b""


@cache
def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode("ascii"))


def _allow(headers: type_headers, cache_control: tuple[bytes, bytes] = _NO_STORE) -> Answer:
    headers = (*headers, cache_control, _NO_BODY)
    return Answer(200, headers, _status_line(200) + header_lines(headers))


class Answers:
    """Renders decisions.

    ``mapped`` are the names of further response headers; ``nginx_cache_ttl`` is in seconds, 0: no answer may be kept;
    ``max_header_bytes`` is what nginx's buffer takes of a whole answer.
    """

    def __init__(self, mapped: tuple[str, ...], nginx_cache_ttl: int, clock: Clock, max_header_bytes: int) -> None:
        self.max_identity_bytes = max_header_bytes - OTHER_HEADER_BYTES
        self._nobody = encode_headers([(name, "") for name in (*IDENTITY_HEADERS, *mapped)])
        self._ttl = nginx_cache_ttl
        self._clock = clock
        self._anonymous = _allow(self._nobody)
        # Both repeat: a client has many tokens, a flood is of few kinds. By headers: no principal outlives its tokens.
        self._identified = lru_cache(maxsize=1024)(_allow)
        self._denial = lru_cache(maxsize=1024)(self._render_denial)

    def render(self, decision: Decision) -> Answer:
        """The answer to a decision, in report mode always 200."""
        reason, policy, token = decision.reason, decision.policy, decision.token
        if reason is Reason.OK and token is not None:
            if self._ttl:
                return _allow(token.principal.headers, self._cache_control(token.exp))
            return self._identified(token.principal.headers)
        if policy is not None and policy.report:
            # Identity only from a token that is valid, and only where it fits.
            if token is None or reason is Reason.REVOKED or token.principal.header_bytes > self.max_identity_bytes:
                return self._anonymous
            return self._identified(token.principal.headers)
        return self._denial(reason, policy, decision.description, decision.scope)

    def _cache_control(self, exp: float) -> tuple[bytes, bytes]:
        age = min(self._ttl, math.floor(exp - self._clock()))
        return (b"cache-control", b"max-age=%d" % age) if age > 0 else _NO_STORE

    def _render_denial(self, reason: Reason, policy: Policy | None, description: str, scope: str) -> Answer:
        description = _NOT_DESCRIPTION.sub("?", description)[:MAX_DESCRIPTION]
        body = json.dumps({"error": _error(reason), "error_description": description, "reason": reason}).encode()
        extra = [("X-M2M-Reason", str(reason)), ("Content-Length", str(len(body)))]
        if reason.status == 503:
            extra.append(("Retry-After", str(RETRY_AFTER)))
        challenge = _challenge(reason, policy, description, scope)
        if len(challenge) > self.max_identity_bytes // 2:  # nginx's buffer holds refusals too
            challenge = challenge.partition(", scope=")[0]
        if challenge:
            extra.append(("WWW-Authenticate", challenge))
        headers = self._nobody + encode_headers(extra) + (_JSON, _NO_STORE)
        return Answer(reason.status, headers, _status_line(reason.status) + header_lines(headers), body)


def _error(reason: Reason) -> str:
    """The ``error`` of the body: RFC 6750 section 3.1 and RFC 6749 section 4.1.2.1 where they have a word for it."""
    if reason is Reason.MISSING_TOKEN:
        return "missing_token"
    if reason is Reason.INSUFFICIENT_SCOPE:
        return "insufficient_scope"
    if reason is Reason.BAD_AUTH_REQUEST:
        return "invalid_request"
    return {401: "invalid_token", 403: "access_denied", 503: "temporarily_unavailable"}[reason.status]


def _challenge(reason: Reason, policy: Policy | None, description: str, scope: str) -> str:
    """RFC 6750 section 3; ``resource_metadata`` is RFC 9728 section 5.1."""
    if reason.status != 401 and reason is not Reason.INSUFFICIENT_SCOPE:
        return ""
    parameters = []
    if reason.status == 401:
        parameters.append(("realm", policy.name if policy else "m2m"))
    if reason is not Reason.MISSING_TOKEN:
        error = "invalid_token" if reason.status == 401 else "insufficient_scope"
        parameters += [("error", error), ("error_description", description)]
    if policy is not None and policy.resource is not None:
        parameters.append(("resource_metadata", policy.resource.metadata_url))
        scope = scope or challenge_scope(policy.needs, policy.challenge_prefix)
    if scope:
        parameters.append(("scope", scope))
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters)

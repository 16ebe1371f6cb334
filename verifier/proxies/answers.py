"""HTTP answers to decisions: status, challenge, identity headers, body. They are the same in every dialect."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

from verifier.clock import Clock
from verifier.decision import Decision
from verifier.identity import IDENTITY_HEADERS, Headers, Principal, encode_headers, header_lines, split_headers
from verifier.keys.jwk import ASYMMETRIC_ALGORITHMS
from verifier.reasons import OK, Reason

RETRY_AFTER = 5  # seconds: a failed fetch of keys has been repeated by then

MAX_DESCRIPTION = 500  # characters

# RFC 6750 section 3: the characters that error_description may hold.
_NOT_DESCRIPTION = re.compile(r"[^ !#-\[\]-~]")

# What an answer carries besides identity: nginx's buffer has to hold the status line and the server's own headers too.
OTHER_HEADER_BYTES = len(
    b"HTTP/1.1 200 OK\r\n\r\n"
    b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\nconnection: close\r\ncache-control: max-age=3600\r\ncontent-length: 0\r\n"
)


# The `error` of the body: as RFC 6750 section 3.1 and RFC 6749 section 4.1.2.1 name it, where they do.
_ERRORS: dict[Reason, str] = {
    Reason.MISSING_TOKEN: "missing_token",
    Reason.INSUFFICIENT_SCOPE: "insufficient_scope",
    Reason.BAD_AUTH_REQUEST: "invalid_request",
    Reason.INTERNAL_ERROR: "server_error",
}
_BAD_DPOP = "invalid_dpop_proof"  # RFC 9449 section 12.2
_OTHER_ERRORS = {401: "invalid_token", 403: "access_denied", 503: "temporarily_unavailable"}


@dataclass(slots=True)
class Answer:
    """A response without the headers that the server adds."""

    status: int
    head: bytes
    """The status line and the headers, as they are sent."""
    body: bytes = b""

    @property
    def headers(self) -> Headers:
        """The headers in pairs, for ASGI."""
        return split_headers(self.head.partition(b"\r\n")[2])


class Answers:
    """Renders decisions.

    ``mapped`` are the names of further response headers; ``nginx_cache_ttl`` is in seconds, 0: no answer may be cached;
    ``max_header_bytes`` is what the proxy's buffer takes of a whole answer.
    """

    def __init__(self, mapped: tuple[str, ...], nginx_cache_ttl: int, clock: Clock, max_header_bytes: int) -> None:
        self.max_identity_bytes = max_header_bytes - OTHER_HEADER_BYTES
        self._no_identity = header_lines(encode_headers([(name, "") for name in (*IDENTITY_HEADERS, *mapped)]))
        self._ttl = nginx_cache_ttl
        self._clock = clock
        # Refusals repeat: a flood of bad tokens is of few kinds.
        self._refusal = lru_cache(maxsize=256)(self._render_refusal)

    def render(self, decision: Decision) -> Answer:
        """The answer to a decision; in report mode it is always 200."""
        token = decision.token
        if decision.reason is OK:
            if token is None:  # a rule that needs none: no exp would end a cached answer
                return self._allow(None)
            # A report-mode policy may be enforced at any time, and a token with cnf needs its proof in each request.
            if decision.report or not self._ttl or token.binding is not None:
                return self._allow(token.principal)
            return self._allow(token.principal, min(self._ttl, math.floor(token.exp - self._clock())))
        if decision.report:
            # Identity only from a token that is valid, not revoked or for another resource, and only where it fits.
            if token is None or decision.reason.status == 401:
                return self._allow(None)
            fits = len(token.principal.header_lines) <= self.max_identity_bytes
            return self._allow(token.principal if fits else None)
        return self._refusal(
            decision.reason,
            decision.status,
            decision.policy,
            decision.description,
            decision.scope,
            decision.resource_metadata,
            decision.is_dpop,
        )

    def _allow(self, principal: Principal | None, max_age: int = 0) -> Answer:
        identity = self._no_identity if principal is None else principal.header_lines
        end = b"cache-control: max-age=%d\r\n" % max_age if max_age > 0 else b"cache-control: no-store\r\n"
        return Answer(200, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + identity + end)

    def _render_refusal(
        self, reason: Reason, status: int, policy: str, description: str, scope: str, metadata: str, is_dpop: bool
    ) -> Answer:
        description = _NOT_DESCRIPTION.sub("?", description)[:MAX_DESCRIPTION]
        error = _BAD_DPOP if is_dpop else _ERRORS.get(reason) or _OTHER_ERRORS[status]
        body = json.dumps({"error": error, "error_description": description, "reason": reason}).encode()
        extra = [("X-M2M-Reason", str(reason)), ("Content-Length", str(len(body)))]
        if status == 503:
            extra.append(("Retry-After", str(RETRY_AFTER)))
        challenge = _challenge(reason, status, policy, description, scope, metadata, is_dpop)
        if len(challenge) > self.max_identity_bytes // 2:  # the proxy's buffer holds refusals too
            challenge = challenge.partition(", scope=")[0]
        if challenge:
            extra.append(("WWW-Authenticate", challenge))
        extra += [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        status_line = b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode("ascii"))
        return Answer(status, status_line + self._no_identity + header_lines(encode_headers(extra)), body)


def _challenge(
    reason: Reason, status: int, policy: str, description: str, scope: str, metadata: str, is_dpop: bool
) -> str:
    """RFC 6750 section 3, for DPoP RFC 9449 section 7.1; ``resource_metadata`` is RFC 9728 section 5.1."""
    if status != 401 and reason is not Reason.INSUFFICIENT_SCOPE:
        return ""
    parameters = []
    if status == 401:
        parameters.append(("realm", policy or "m2m"))
    if reason is not Reason.MISSING_TOKEN:
        error = "insufficient_scope" if reason is Reason.INSUFFICIENT_SCOPE else "invalid_token"
        error = _BAD_DPOP if is_dpop else error
        parameters += [("error", error), ("error_description", description)]
    if is_dpop:
        parameters.append(("algs", " ".join(ASYMMETRIC_ALGORITHMS)))
    if metadata:
        parameters.append(("resource_metadata", metadata))
    if scope:
        parameters.append(("scope", scope))
    return ("DPoP " if is_dpop else "Bearer ") + ", ".join(f'{name}="{value}"' for name, value in parameters)

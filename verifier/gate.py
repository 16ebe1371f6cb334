"""The straight line: headers, request, token, principal, policy, decision, metrics and audit, answer."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from verifier.decision import Decision, Observed, Reason, Rejected
from verifier.identity import VerifiedToken
from verifier.policy.paths import is_url
from verifier.policy.policies import Policies, Policy, Revoked
from verifier.proxies import nginx
from verifier.proxies.answers import Answer, Answers
from verifier.request import AuthRequest, bearer_token
from verifier.tokens.cache import CachedVerifier, digest_of

log = logging.getLogger(__name__)

_CLOSE = (b"connection", b"close")

Observe = Callable[[Sequence[Observed]], None]
"""Is told of each decision once, soon after and of several at a time."""


class Gate:
    """Decides: who asks, may they, and why not."""

    def __init__(self, verifier: CachedVerifier, policies: Policies, revoked: Revoked, answers: Answers) -> None:
        self._verifier = verifier
        self._policies = policies
        self._revoked = revoked
        self._max_identity_bytes = answers.max_identity_bytes
        self.render = answers.render

    async def decide(self, request: AuthRequest) -> Decision:
        """The first check that fails gives the reason. Never raises; what nobody can tell is a 503."""
        policy = None
        token: VerifiedToken | None = None
        issuer, cached = "", False
        try:
            policy = self._policies.find(request.policy, request.query)
            _check_auth_request(request, policy)
            bearer = bearer_token(request)
            digest = digest_of(bearer)
            token = self._verifier.get(digest)
            cached = token is not None
            if token is None:
                token = await self._verifier.verify(bearer, digest)
            principal = token.principal
            issuer = principal.issuer
            if self._revoked.covers(principal, token.jti):
                raise Rejected(Reason.REVOKED, "the token or its client was revoked")
            policy.authorize(principal, request.method, request.url)
            if principal.header_bytes > self._max_identity_bytes:
                raise Rejected(Reason.HEADERS_TOO_LARGE, "the identity headers exceed nginx's buffer")
        except Rejected as no:
            policy = policy or self._policies.by_name.get(request.policy)
            return Decision(no.reason, policy, no.issuer or issuer, token, no.description, no.scope, cached)
        except Exception as error:  # fail closed: a defect of ours is a 503, and its text may quote the token
            _log_defect(error)
            return Decision(Reason.KEYS_UNAVAILABLE, policy, issuer, token, "an internal error: nobody can tell")
        return Decision(Reason.OK, policy, issuer, token, "", "", cached)


def _check_auth_request(request: AuthRequest, policy: Policy) -> None:
    if request.repeated and request.repeated != {"authorization"}:
        raise Rejected(Reason.BAD_AUTH_REQUEST, "the proxy named the original request twice")
    if policy.rules and not (request.method and is_url(request.url)):
        raise Rejected(Reason.BAD_AUTH_REQUEST, "the proxy did not name the original request's method and URL")


def _log_defect(error: Exception) -> None:
    place = traceback.extract_tb(error.__traceback__)[-1]
    log.error("defect: %s at %s:%s", type(error).__name__, place.filename, place.lineno)


class AuthEndpoint:
    """The ASGI callable that proxies ask. ``gate`` may be replaced at any time: a request sees one gate only."""

    def __init__(self, gate: Gate, observers: tuple[Observe, ...]) -> None:
        self.gate = gate
        self._observers = observers
        self._untold: list[Observed] = []

    def at_once(self, scope: Any, policy: str) -> Answer | None:
        """The answer to one subrequest; None where more is to be done: a body, an address to find, keys to wait for."""
        start = perf_counter()
        request = nginx.parse(scope, policy)
        if request.body_announced or not request.remote_addr:
            return None
        gate = self.gate
        deciding = gate.decide(request)
        try:
            deciding.send(None)
        except StopIteration as decided:  # it never had to wait
            # Observers are told at the end of the loop's turn, one after the other: deciding, counting and writing down
            # by turns drive each other's code out of the processor's caches.
            if not self._untold:
                asyncio.get_running_loop().call_soon(self._tell)
            return self._answer(gate, request, decided.value, start)
        deciding.close()  # whoever waits for the keys begins again
        return None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one subrequest; ``scope["path"]`` is an auth path."""
        start = perf_counter()
        gate = self.gate
        request = nginx.parse(scope, nginx.policy_in(scope["path"]) or "")
        answer = self._answer(gate, request, await gate.decide(request), start)
        self._tell()
        headers = answer.headers
        if request.body_announced:  # and nobody reads it: the next request on this connection must not be taken for it
            headers = (*headers, _CLOSE)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _answer(self, gate: Gate, request: AuthRequest, decision: Decision, start: float) -> Answer:
        answer = gate.render(decision)
        self._untold.append((request, decision, perf_counter() - start))
        return answer

    def _tell(self) -> None:
        untold, self._untold = self._untold, []
        for observe in self._observers:
            observe(untold)

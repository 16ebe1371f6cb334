"""Composition root: builds everything from a Config, routes requests, and runs what works in the background."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator
from time import perf_counter

from prometheus_client import Metric
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from verifier.clock import Clock
from verifier.config import Config
from verifier.decision import Decision
from verifier.gate import Gate
from verifier.keys.fetch import Fetch, HttpFetch
from verifier.keys.sets import KeySet, RemoteKeys, keys_of_file
from verifier.observe.audit import Audit
from verifier.observe.batch import Batch
from verifier.observe.metrics import Metrics
from verifier.policy.resources import WELL_KNOWN, ResourceDocuments
from verifier.proxies import routes
from verifier.proxies.answers import Answers
from verifier.request import AuthRequest
from verifier.tokens.cache import CachedVerifier
from verifier.tokens.proofs import Proofs, SeenProofs
from verifier.tokens.verify import IssuerRules, TokenVerifier

log = logging.getLogger(__name__)

READY_ANYWAY = 30.0  # seconds after the start from which one issuer with keys is enough
FIRST_KEYS = 2.0  # seconds that a reload waits for the keys of new issuers, whose tokens would be refused meanwhile

_NO_STORE = {"Cache-Control": "no-store"}

# The protected-resource document is public. Agents in browsers read it too.
_DOCUMENT_METHODS = ["GET", "HEAD", "OPTIONS"]
_DOCUMENT = {"Cache-Control": "public, max-age=300", "Access-Control-Allow-Origin": "*"}
_PREFLIGHT = {
    **_DOCUMENT,
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Max-Age": "300",
}


class Runtime:
    """Everything built from one configuration. A reload builds another and takes over unchanged key sets.

    Without ``fetch``, keys are fetched over HTTP with each issuer's own certificate authorities and token.
    """

    def __init__(
        self, config: Config, metrics: Metrics, *, fetch: Fetch | None, clock: Clock, previous: Runtime | None = None
    ) -> None:
        self.config = config
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.keys: dict[str, KeySet] = {}
        issuers = []
        for rules in config.issuers:
            if previous is not None and previous.serves(rules):
                keys = previous.keys[rules.name]
            elif rules.jwks is not None:
                keys = keys_of_file(rules.name, rules.jwks, clock())
            else:
                counter = metrics.refresh_counter(rules.name)
                own_fetch = fetch or http_fetch(rules)
                keys = RemoteKeys(rules.name, rules.urls[0], rules.key_set_url, own_fetch, clock, counter)
            self.keys[rules.name] = keys
            issuers.append(rules.with_keys(keys))
        policies = config.policies.by_name.values()
        resources = [policy.resource for policy in policies if policy.resource is not None]
        verifier = TokenVerifier(
            issuers,
            clock=clock,
            leeway=config.leeway,
            role_of=config.roles.of,
            mapped_headers=config.headers,
            resources=frozenset(resource.url for resource in resources),
            observe=metrics.verifications.observe,
        )
        self.answers = Answers(tuple(config.headers), config.nginx_cache_ttl, clock, config.max_header_bytes)
        self.cache = CachedVerifier(
            verifier,
            size=config.cache_size,
            ttl=config.cache_ttl,
            clock=clock,
            max_identity_bytes=self.answers.max_identity_bytes,
        )
        # It outlives a reload, or a proof could be used again after it.
        self.seen: SeenProofs = SeenProofs() if previous is None else previous.seen
        certificates = {rules.name: rules.client_certificate_header for rules in config.issuers}
        proofs = Proofs(certificates, self.seen, clock=clock, leeway=config.leeway)
        self.gate = Gate(self.cache, config.policies, config.revoked, self.answers.max_identity_bytes, proofs)
        self.documents = ResourceDocuments(resources)

    def serves(self, rules: IssuerRules) -> bool:
        """Whether an issuer with the same remote keys is running here."""
        running = {_key_source(mine) for mine in self.config.issuers if mine.jwks is None}
        return rules.jwks is None and _key_source(rules) in running

    def start(self, previous: Runtime | None = None) -> None:
        """Start the background refresh of each remote key set; take over those that already run."""
        for name, keys in self.keys.items():
            if previous is not None and previous.keys.get(name) is keys and name in previous.tasks:
                self.tasks[name] = previous.tasks.pop(name)
            elif isinstance(keys, RemoteKeys):
                self.tasks[name] = asyncio.create_task(keys.run(), name=f"keys of {name}")

    async def decide(self, request: AuthRequest) -> Decision:
        """The decision; where newer keys may change it, they are fetched once."""
        decision = self.gate.decide(request)
        if decision.refresh is not None:
            await decision.refresh()
            decision = self.gate.decide(request)
        return decision

    async def first_keys(self, seconds: float) -> None:
        """Wait until the first fetch of each issuer's keys has ended, but no longer than ``seconds``."""
        tried = [keys.tried.wait() for keys in self.keys.values() if isinstance(keys, RemoteKeys)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*tried)

    async def stop(self) -> None:
        """Cancel the background tasks."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


def _key_source(rules: IssuerRules) -> tuple[object, ...]:
    return rules.name, rules.urls, rules.key_set_url, rules.ca_file, rules.bearer_token_file


def http_fetch(rules: IssuerRules) -> HttpFetch:
    """What fetches an issuer's keys, with its certificate authorities and token."""
    trusted = rules.urls if rules.key_set_url is None else (*rules.urls, rules.key_set_url)
    return HttpFetch(ca_file=rules.ca_file, bearer_token_file=rules.bearer_token_file, trusted_urls=trusted)


class Service:
    """One runtime at a time; metrics and audit outlive it."""

    def __init__(self, config: Config, *, fetch: Fetch | None, clock: Clock, audit_lock: int | None) -> None:
        self.metrics = Metrics()
        self.audit = Audit(config.audit, on_drop=self.metrics.audit_dropped.inc, lock=audit_lock)
        self.decided = Batch(clock, self.metrics.observe, self.audit.observe)
        self._fetch = fetch
        self._clock = clock
        self.runtime = Runtime(config, self.metrics, fetch=self._fetch, clock=clock)
        self._started = clock()
        self._was_ready = False
        self._taking = asyncio.Lock()  # a configuration must not overtake a later one

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Start and stop the background work."""
        self._started = self._clock()
        gc.freeze()  # modules and configuration live as long as the process: no collection need look at them
        self.audit.start()
        self.runtime.start()
        try:
            yield
        finally:
            await self.runtime.stop()
            self.decided.flush()
            await asyncio.to_thread(self.audit.stop)

    def collect(self) -> list[Metric]:
        """All metric families, in plain objects that can be sent to another process."""
        self.decided.flush()
        runtime = self.runtime
        self.metrics.show_keys((name, len(keys), keys.last_success) for name, keys in runtime.keys.items())
        self.metrics.cache_entries.set(len(runtime.cache))
        return list(self.metrics.registry.collect())

    async def take(self, config: Config) -> None:
        """Put a changed configuration into force without interrupting requests."""
        async with self._taking:
            old = self.runtime
            new = Runtime(config, self.metrics, fetch=self._fetch, clock=self._clock, previous=old)
            new.start(old)
            await new.first_keys(FIRST_KEYS)
            self.runtime, self.audit.mode = new, config.audit
            log.info("the changed configuration is in force")
            await old.stop()

    def ready(self) -> tuple[bool, dict[str, bool]]:
        """Whether to send traffic here, and which issuers have keys. Once ready, missing keys do not change it."""
        has_keys = {name: len(keys) > 0 for name, keys in self.runtime.keys.items()}
        waited = self._clock() - self._started >= READY_ANYWAY
        self._was_ready |= all(has_keys.values()) or (waited and any(has_keys.values()))
        return self._was_ready, has_keys


class Application(Starlette):
    """Answers auth paths ahead of middleware and router, which would take half of the time of a small answer."""

    def __init__(self, service: Service, routes: list[Route]) -> None:
        super().__init__(routes=routes, lifespan=service.lifespan, exception_handlers={HTTPException: _refuse})
        self.router.redirect_slashes = False  # the target of a redirect would be the client's Host
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        start = perf_counter()
        request = _auth_request(scope) if scope["type"] == "http" else None
        if request is None:
            await super().__call__(scope, receive, send)
        else:
            await self._answer(request, send, start)

    async def _answer(self, request: AuthRequest, send: Send, start: float) -> None:
        runtime = self.service.runtime
        decision = await runtime.decide(request)
        answer = runtime.answers.render(decision)
        headers = answer.headers
        if request.body_announced:  # it is not read, so the connection cannot be used again
            headers = (*headers, (b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
        self.service.decided.add(request, decision, perf_counter() - start)


async def _refuse(_: Request, error: Exception) -> Response:
    """404 and 405, which no proxy may cache either."""
    assert isinstance(error, HTTPException)  # noqa: S101 # Starlette calls it for nothing else
    return JSONResponse({"error": error.detail}, error.status_code, headers={**(error.headers or {}), **_NO_STORE})


def _auth_request(scope: Scope) -> AuthRequest | None:
    raw_path = scope.get("raw_path") or b""  # without it, a path that was decoded is no original path
    peer = scope["client"][0] if scope["client"] else ""
    return routes.auth_request(scope["method"], scope["path"], raw_path, scope["query_string"], scope["headers"], peer)


def create_app(
    config: Config, *, fetch: Fetch | None = None, clock: Clock = time.time, audit_lock: int | None = None
) -> Application:
    """The application that answers subrequests.

    ``fetch`` gets key sets (default: over https), ``clock`` gives seconds since the epoch, ``audit_lock`` is the
    descriptor of a file that workers lock to share stdout.
    """
    service = Service(config, fetch=fetch, clock=clock, audit_lock=audit_lock)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "healthy", "service": "m2m-verifier"}, headers=_NO_STORE)

    async def ready(_: Request) -> Response:
        is_ready, issuers = service.ready()
        body = {"status": "ready" if is_ready else "not_ready", "issuers": issuers}
        return JSONResponse(body, 200 if is_ready else 503, headers=_NO_STORE)

    async def resource_document(request: Request) -> Response:
        if request.method == "OPTIONS":  # a browser asks before a GET that names its MCP version
            return Response(status_code=204, headers=_PREFLIGHT)
        document = service.runtime.documents.find(request.url.path, request.headers.get("host", ""))
        if document is None:
            return JSONResponse({"error": "no policy names this resource"}, 404, headers=_NO_STORE)
        return JSONResponse(document, headers=_DOCUMENT)

    return Application(
        service,
        [
            Route("/health", health),
            Route("/ready", ready),
            Route(WELL_KNOWN, resource_document, methods=_DOCUMENT_METHODS),
            Route(WELL_KNOWN + "/{rest:path}", resource_document, methods=_DOCUMENT_METHODS),
        ],
    )

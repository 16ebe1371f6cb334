"""Composition root: what is wired to what, the routes, and what runs in the background."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from verifier.config import Config
from verifier.gate import AuthEndpoint, Gate
from verifier.keys.fetch import Fetch, HttpFetch
from verifier.keys.jwk import parse_key_set
from verifier.keys.sets import Clock, KeySet, RemoteKeys, StaticKeys, discovered_from, located_at
from verifier.observe.audit import Audit
from verifier.observe.metrics import IssuerState, Metrics, State
from verifier.policy.resources import WELL_KNOWN, ResourceDocuments
from verifier.proxies import nginx
from verifier.proxies.answers import Answers
from verifier.server.outbox import Outbox
from verifier.tokens.cache import CachedVerifier
from verifier.tokens.verify import IssuerRules, TokenVerifier

log = logging.getLogger(__name__)

READY_ANYWAY = 30.0  # seconds after the start from which one issuer with keys is enough
FIRST_KEYS = 2.0  # seconds that a reload waits for the keys of new issuers, whose tokens would be refused meanwhile

_NO_STORE = {"Cache-Control": "no-store"}

Reload = Callable[[], Config | None]
"""Looks whether the configuration changed on disk: the new one, or None. Raises ConfigError."""


class Runtime:
    """Everything made of one configuration. A reload makes another and hands over the keys that stay the same."""

    def __init__(
        self, config: Config, metrics: Metrics, *, fetch: Fetch, clock: Clock, previous: Runtime | None = None
    ) -> None:
        self.config = config
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.keys: dict[str, KeySet] = {}
        issuers = []
        for rules in config.issuers:
            keys = previous.keys[rules.name] if previous and previous.serves(rules) else _key_set(rules, fetch, clock)
            self.keys[rules.name] = keys
            issuers.append(rules.with_keys(keys))
        verifier = TokenVerifier(
            issuers,
            clock=clock,
            leeway=config.leeway,
            role_of=config.roles.of,
            mapped_headers=config.headers,
            observe=metrics.observe_verification,
        )
        self.cache = CachedVerifier(verifier, size=config.cache_size, ttl=config.cache_ttl, clock=clock)
        answers = Answers(tuple(config.headers), config.nginx_cache_ttl, clock, config.max_header_bytes)
        self.gate = Gate(self.cache, config.policies, config.revoked, answers)
        policies = config.policies.by_name.values()
        self.documents = ResourceDocuments([policy.resource for policy in policies if policy.resource is not None])

    def serves(self, rules: IssuerRules) -> bool:
        """Whether an issuer with the same remote keys is running here."""
        return any(
            (mine.name, mine.urls, mine.key_set_url) == (rules.name, rules.urls, rules.key_set_url)
            for mine in self.config.issuers
            if mine.jwks_file is None and rules.jwks_file is None
        )

    def start(self, previous: Runtime | None = None) -> None:
        """Run the background refresh of each remote key set; take over those that already run."""
        for name, keys in self.keys.items():
            if previous is not None and previous.keys.get(name) is keys and name in previous.tasks:
                self.tasks[name] = previous.tasks.pop(name)
            elif isinstance(keys, RemoteKeys):
                self.tasks[name] = asyncio.create_task(keys.run(), name=f"keys of {name}")

    async def first_keys(self, seconds: float) -> None:
        """Wait until each issuer was asked for its keys once, but no longer than ``seconds``."""
        tried = [keys.tried.wait() for keys in self.keys.values() if isinstance(keys, RemoteKeys)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*tried)

    async def stop(self) -> None:
        """Cancel what runs."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    def issuer_states(self) -> Iterator[IssuerState]:
        """Each issuer's keys, for metrics."""
        for name, keys in self.keys.items():
            refreshes = keys.refreshes if isinstance(keys, RemoteKeys) else {}
            yield IssuerState(name, len(keys), keys.last_success, refreshes)


def _key_set(rules: IssuerRules, fetch: Fetch, clock: Clock) -> KeySet:
    if rules.jwks_file is not None:
        return StaticKeys(parse_key_set(rules.jwks_file.read_bytes(), symmetric=True), clock())
    locate = discovered_from(rules.urls[0]) if rules.key_set_url is None else located_at(rules.key_set_url)
    return RemoteKeys(rules.name, fetch, locate, clock)


class Service:
    """The running whole: one runtime at a time, metrics and audit that outlive it."""

    def __init__(
        self, config: Config, *, fetch: Fetch | None, clock: Clock, reload: Reload | None, audit_lock: int | None
    ) -> None:
        self.metrics = Metrics()
        self.audit = Audit(config.audit, clock, lock=audit_lock)
        self._http = HttpFetch()  # opens nothing before its first use
        self._fetch = fetch or self._http
        self._clock = clock
        self._reload = reload
        self.runtime = Runtime(config, self.metrics, fetch=self._fetch, clock=clock)
        self.endpoint = AuthEndpoint(self.runtime.gate, (self.metrics.observe, self.audit.observe))
        self._hits = self._misses = 0
        self.metrics.state = self._state
        self.metrics.audit_dropped = lambda: self.audit.dropped
        self._started = clock()

    def _state(self) -> State:
        cache = self.runtime.cache
        return State(self.runtime.issuer_states(), self._hits + cache.hits, self._misses + cache.misses, len(cache))

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Start and stop what runs in the background."""
        self._started = self._clock()
        gc.freeze()  # modules and configuration live as long as the process: no collection need look at them
        self.audit.start()
        self.runtime.start()
        watch = asyncio.create_task(self._watch(), name="configuration watch")
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await self.runtime.stop()
            await self._http.close()
            await asyncio.to_thread(self.audit.stop)

    async def _watch(self) -> None:
        while self._reload is not None:
            await asyncio.sleep(1.0)
            try:
                config = await asyncio.to_thread(self._reload)
                if config is not None:
                    await self._take(config)
            except Exception as error:  # whatever is wrong with it: the old configuration stays in force
                self.metrics.count_reload(successful=False)
                log.error(  # noqa: TRY400 - its text says what is wrong and where; a trace of our own code would not
                    "the changed configuration is refused, the old one stays in force: %s",
                    "; ".join(str(error).splitlines()),
                )

    async def _take(self, config: Config) -> None:
        old = self.runtime
        new = Runtime(config, self.metrics, fetch=self._fetch, clock=self._clock, previous=old)
        new.start(old)
        await new.first_keys(FIRST_KEYS)
        self._hits, self._misses = self._hits + old.cache.hits, self._misses + old.cache.misses
        self.runtime, self.endpoint.gate, self.audit.mode = new, new.gate, config.audit
        self.metrics.count_reload(successful=True)
        log.info("the changed configuration is in force")
        await old.stop()
        await old.cache.clear()

    def ready(self) -> tuple[bool, dict[str, bool]]:
        """Whether to send traffic here, and which issuers have keys."""
        has_keys = {name: len(keys) > 0 for name, keys in self.runtime.keys.items()}
        waited = self._clock() - self._started >= READY_ANYWAY
        return all(has_keys.values()) or (waited and any(has_keys.values())), has_keys


class Application(Starlette):
    """Takes auth paths ahead of middleware and router: half of a small answer's time would go into those.

    ``endpoint`` answers them; ``protocol.AuthProtocol`` asks it directly, and writes by way of ``outbox``.
    """

    def __init__(self, service: Service, routes: list[Route]) -> None:
        super().__init__(routes=routes, lifespan=service.lifespan)
        self.state.service = service
        self.endpoint = service.endpoint
        self.outbox = Outbox()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] == "http" and nginx.policy_in(scope["path"]) is not None:
            await self.endpoint(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(
    config: Config,
    *,
    fetch: Fetch | None = None,
    clock: Clock = time.time,
    reload: Reload | None = None,
    audit_lock: int | None = None,
) -> Starlette:
    """The application that answers subrequests.

    ``fetch`` gets key sets (default: over https), ``clock`` gives seconds since the epoch, ``reload`` is asked every
    second for a changed configuration, ``audit_lock`` is what workers lock to share stdout. ``app.state.service`` is
    the running Service.
    """
    service = Service(config, fetch=fetch, clock=clock, reload=reload, audit_lock=audit_lock)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "healthy", "service": "m2m-verifier"}, headers=_NO_STORE)

    async def ready(_: Request) -> Response:
        is_ready, issuers = service.ready()
        body = {"status": "ready" if is_ready else "not_ready", "issuers": issuers}
        return JSONResponse(body, 200 if is_ready else 503, headers=_NO_STORE)

    async def resource_document(request: Request) -> Response:
        document = service.runtime.documents.find(request.url.path, request.headers.get("host", ""))
        if document is None:
            return JSONResponse({"error": "no policy names this resource"}, 404, headers=_NO_STORE)
        # Agents in browsers read it too (RFC 9728 section 3.1 leaves this to the server).
        return JSONResponse(document, headers={"Access-Control-Allow-Origin": "*", **_NO_STORE})

    return Application(
        service,
        [
            Route("/health", health),
            Route("/ready", ready),
            Route(WELL_KNOWN, resource_document),
            Route(WELL_KNOWN + "/{rest:path}", resource_document),
        ],
    )

"""Composition root: what is wired to what, the routes, and what runs in the background."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from verifier.answers import Answers
from verifier.audit import Audit
from verifier.cache import CachedVerifier
from verifier.dialects import nginx
from verifier.fetch import Fetch, HttpFetch
from verifier.gate import AuthEndpoint, Gate
from verifier.keys import Clock, KeySet, RemoteKeys, StaticKeys, discovered_from, located_at
from verifier.metrics import IssuerState, Metrics, State
from verifier.profiles import PROFILES
from verifier.resource_metadata import WELL_KNOWN, ResourceDocuments
from verifier.settings import IssuerSettings, Settings
from verifier.tokens import Issuer, TokenVerifier

log = logging.getLogger(__name__)

READY_ANYWAY = 30.0  # seconds after the start from which one issuer with keys is enough
FIRST_KEYS = 2.0  # seconds that a reload waits for the keys of issuers that are new

Reload = Callable[[], Settings | None]
"""Looks whether the configuration changed on disk: the new one, or None. Raises ConfigError."""


class Runtime:
    """Everything made of one configuration. A reload makes another and hands over the keys that stay the same."""

    def __init__(
        self, settings: Settings, metrics: Metrics, *, fetch: Fetch, clock: Clock, previous: Runtime | None = None
    ) -> None:
        self.settings = settings
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.keys: dict[str, KeySet] = {}
        issuers = []
        for given in settings.issuers:
            keys = previous.keys[given.name] if previous and previous.serves(given) else _key_set(given, fetch, clock)
            self.keys[given.name] = keys
            issuers.append(_issuer(given, keys, settings.prefix_of(given)))
        verifier = TokenVerifier(
            issuers,
            clock=clock,
            leeway=settings.leeway,
            role_of=settings.build_roles().of,
            mapped_headers=settings.headers,
            observe=metrics.observe_verification,
        )
        self.cache = CachedVerifier(verifier, size=settings.cache.size, ttl=settings.cache.ttl, clock=clock)
        policies = settings.build_policies()
        answers = Answers(tuple(settings.headers), settings.nginx_cache_ttl, clock)
        self.gate = Gate(self.cache, policies, settings.build_revoked(), answers, settings.max_header_bytes)
        self.documents = ResourceDocuments([p.resource for p in policies.by_name.values() if p.resource is not None])

    def serves(self, given: IssuerSettings) -> bool:
        """Whether an issuer with the same keys is running here."""
        return any(
            mine.name == given.name and (mine.urls, mine.key_set_url) == (given.urls, given.key_set_url)
            for mine in self.settings.issuers
            if mine.jwks_file is None and given.jwks_file is None
        )

    def start(self, previous: Runtime | None = None) -> None:
        """Run the background refresh of each remote key set; take over those that already run."""
        for name, keys in self.keys.items():
            if previous is not None and previous.keys.get(name) is keys and name in previous.tasks:
                self.tasks[name] = previous.tasks.pop(name)
            elif isinstance(keys, RemoteKeys):
                self.tasks[name] = asyncio.create_task(keys.run(), name=f"keys of {name}")

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


def _key_set(given: IssuerSettings, fetch: Fetch, clock: Clock) -> KeySet:
    if given.jwks_file is not None:
        return StaticKeys(given.read_keys(), clock())
    url = given.key_set_url
    locate = located_at(url) if url is not None else discovered_from(given.urls[0])
    return RemoteKeys(given.name, fetch, locate, clock)


def _issuer(given: IssuerSettings, keys: KeySet, scope_prefix: str) -> Issuer:
    return Issuer(
        name=given.name,
        urls=given.urls,
        keys=keys,
        profile=PROFILES[given.profile_name].with_claims(given.claims.client_id, given.claims.scope),
        algorithms=frozenset(given.algorithms),
        audience=given.audiences,
        audience_optional=given.audience_optional,
        scope_prefix=scope_prefix,
        allow_users=given.allow_users,
        clients=None if given.clients is None else frozenset(given.clients),
    )


class Service:
    """The running whole: one runtime at a time, metrics and audit that outlive it."""

    def __init__(self, settings: Settings, *, fetch: Fetch | None, clock: Clock, reload: Reload | None) -> None:
        self.metrics = Metrics()
        self.audit = Audit(settings.audit, clock)
        self._own_fetch = HttpFetch() if fetch is None else None
        self._fetch: Fetch = fetch or self._own_fetch  # type: ignore[assignment] # one of them is there
        self._clock = clock
        self._reload = reload
        self.runtime = Runtime(settings, self.metrics, fetch=self._fetch, clock=clock)
        self.endpoint = AuthEndpoint(self.runtime.gate, (self.metrics.observe_decision, self.audit.observe_decision))
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
        self.audit.start()
        self.runtime.start()
        watch = asyncio.create_task(self._watch(), name="configuration watch")
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await self.runtime.stop()
            if self._own_fetch is not None:
                await self._own_fetch.close()
            await asyncio.to_thread(self.audit.stop)

    async def _watch(self) -> None:
        while self._reload is not None:
            await asyncio.sleep(1.0)
            try:
                settings = await asyncio.to_thread(self._reload)
                if settings is not None:
                    await self._take(settings)
            except Exception as error:  # whatever is wrong with it: the old configuration stays in force
                self.metrics.count_reload(successful=False)
                log.error("the changed configuration is refused, the old one stays in force:\n%s", error)  # noqa: TRY400

    async def _take(self, settings: Settings) -> None:
        old = self.runtime
        new = Runtime(settings, self.metrics, fetch=self._fetch, clock=self._clock, previous=old)
        new.start(old)
        await _until_keys(new)
        self._hits, self._misses = self._hits + old.cache.hits, self._misses + old.cache.misses
        self.runtime, self.endpoint.gate, self.audit.mode = new, new.gate, settings.audit
        self.metrics.count_reload(successful=True)
        log.info("the changed configuration is in force")
        await old.stop()

    def ready(self) -> tuple[bool, dict[str, bool]]:
        """Whether to send traffic here, and which issuers have keys."""
        has_keys = {name: len(keys) > 0 for name, keys in self.runtime.keys.items()}
        waited = self._clock() - self._started >= READY_ANYWAY
        return all(has_keys.values()) or (waited and any(has_keys.values())), has_keys


async def _until_keys(runtime: Runtime) -> None:
    """Wait for the first keys of new issuers, so that their tokens are not refused meanwhile; but not for long."""
    tried = [keys.tried.wait() for keys in runtime.keys.values() if isinstance(keys, RemoteKeys)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_KEYS):
            await asyncio.gather(*tried)


class AuthPaths:
    """Takes auth paths ahead of the router: half of a small answer's time would go into it otherwise."""

    def __init__(self, app: Any, endpoint: AuthEndpoint) -> None:
        self._app = app
        self._endpoint = endpoint

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI application."""
        if scope["type"] == "http":
            path = scope["path"]
            if path == nginx.PREFIX or path.startswith(nginx.PREFIX + "/"):
                await self._endpoint(scope, receive, send)
                return
        await self._app(scope, receive, send)


def create_app(
    settings: Settings, *, fetch: Fetch | None = None, clock: Clock = time.time, reload: Reload | None = None
) -> Starlette:
    """The application that answers subrequests.

    ``fetch`` gets key sets (default: over https), ``clock`` gives seconds since the epoch, ``reload`` is asked every
    second for a changed configuration. ``app.state.service`` is the running Service.
    """
    service = Service(settings, fetch=fetch, clock=clock, reload=reload)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "healthy", "service": "m2m-verifier"})

    async def ready(_: Request) -> Response:
        is_ready, issuers = service.ready()
        body = {"status": "ready" if is_ready else "not_ready", "issuers": issuers}
        return JSONResponse(body, 200 if is_ready else 503)

    async def resource_document(request: Request) -> Response:
        document = service.runtime.documents.find(request.url.path, request.headers.get("host", ""))
        if document is None:
            return JSONResponse({"error": "no policy names this resource"}, 404)
        # Agents in browsers read it too (RFC 9728 section 3.1 leaves this to the server).
        return JSONResponse(document, headers={"Access-Control-Allow-Origin": "*", "Cache-Control": "max-age=300"})

    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/ready", ready),
            Route(WELL_KNOWN, resource_document),
            Route(WELL_KNOWN + "/{rest:path}", resource_document),
        ],
        middleware=[Middleware(AuthPaths, endpoint=service.endpoint)],
        lifespan=service.lifespan,
    )
    app.state.service = service
    return app

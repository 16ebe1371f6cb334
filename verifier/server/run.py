"""Runs the application: sockets, uvicorn, the metrics port and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import uvicorn
import uvloop
from prometheus_client import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from verifier.app import Application, create_app
from verifier.config import Config
from verifier.server import signals
from verifier.server.connection import Listener

log = logging.getLogger(__name__)

DRAIN = 10  # seconds for requests under way; the longest wait is the one for keys, 2 s
SWITCH_INTERVAL = 0.0005  # seconds: the longest time that a thread with other work keeps the interpreter


class Sockets(NamedTuple):
    """Listening sockets: for subrequests, and for Prometheus."""

    http: socket.socket
    metrics: socket.socket


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: they end the process with the signal, which is a clean end here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: Starlette) -> _Server:
    http: Any = Listener(app.service if isinstance(app, Application) else None)
    return _Server(
        uvicorn.Config(
            app,
            http=http,
            ws="none",
            lifespan="on",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # forwarded headers belong to the dialects
            log_config=None,
            timeout_graceful_shutdown=DRAIN,
        )
    )


def metrics_app(collect: Callable[[], Awaitable[Iterable[Metric]]]) -> Starlette:
    """An application that serves at ``/metrics`` what ``collect`` returns."""

    async def metrics(_: Request) -> Response:
        families = await collect()
        collected: Any = SimpleNamespace(collect=lambda: families)
        # In a thread: the series of a thousand clients take tens of milliseconds to render.
        text = await asyncio.to_thread(generate_latest, collected)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    app = Starlette(routes=[Route("/metrics", metrics)])
    app.router.redirect_slashes = False
    return app


async def serve(apps: list[tuple[Starlette, socket.socket]], stop: asyncio.Event) -> None:
    """Answer until ``stop`` is set; then accept no new connections, finish what is under way and return."""
    servers = [(_server(app), sock) for app, sock in apps]

    async def stop_all() -> None:
        await stop.wait()
        for server, _ in servers:
            server.should_exit = True

    stopper = asyncio.create_task(stop_all())
    try:
        await asyncio.gather(*(server.serve(sockets=[sock]) for server, sock in servers))
    finally:
        stopper.cancel()


async def serve_beside(apps: list[tuple[Starlette, socket.socket]], work: Coroutine[Any, Any, None]) -> None:
    """Answer while ``work`` runs, until it ends or a signal. What it raises is raised."""
    stop = signals.stop_event()
    working = asyncio.create_task(work)
    working.add_done_callback(lambda _: stop.set())
    await asyncio.gather(serve(apps, stop), stop.wait())
    if working.done():
        working.result()
    working.cancel()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` on uvloop."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
        signals.ignore()


async def run_single(config: Config, sockets: Sockets) -> None:
    """One process that answers and serves its own metrics, until a signal."""
    from verifier.config.reload import follow  # a worker does not load what reads files

    app = create_app(config)
    service = app.service

    async def collect() -> Iterable[Metric]:
        return service.collect()

    following = asyncio.create_task(follow(config, service.take, service.metrics))
    await serve([(app, sockets.http), (metrics_app(collect), sockets.metrics)], signals.stop_event())
    following.cancel()

"""Runs the application: uvicorn as nginx needs it, metrics on a port of their own, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import uvicorn
import uvloop
from prometheus_client import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from verifier.app import Application
from verifier.server import signals as stopping
from verifier.server.connection import AuthProtocol

log = logging.getLogger(__name__)

KEEP_ALIVE = 75  # seconds; nginx keeps an idle upstream connection for 60: we must not be the one to hang up first
DRAIN = 10  # seconds for requests under way; the longest wait of any is the one for keys, 2 s
BACKLOG = 2048
SWITCH_INTERVAL = 0.0005  # seconds: a thread that writes metrics down or reads keys holds the interpreter no longer


class Listeners(NamedTuple):
    """Bound sockets: for subrequests, and for Prometheus."""

    http: socket.socket
    metrics: socket.socket


def listen(host: str, port: int) -> socket.socket:
    """A bound, listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def listen_unix(path: Path) -> socket.socket:
    """A listening Unix socket that every user of this machine may connect to. Raises OSError.

    A socket that an earlier process left behind is replaced; anything else at ``path`` is not.
    """
    if path.is_socket():
        path.unlink()
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(path))
        path.chmod(0o666)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class _Server(uvicorn.Server):
    """uvicorn, but signals are ours: its own way is to die of them, and SIGTERM is a clean end here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: Starlette) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=AuthProtocol if isinstance(app, Application) else "httptools",
            ws="none",
            lifespan="on",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # forwarded headers are a dialect's business, not the connection's
            log_config=None,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=DRAIN,
        )
    )


def metrics_app(collect: Callable[[], Awaitable[Iterable[Metric]]]) -> Starlette:
    """``/metrics``, of whatever ``collect`` gathers."""

    async def metrics(_: Request) -> Response:
        families = list(await collect())

        class Gathered:
            def collect(self) -> Iterable[Metric]:
                return families

        # In a thread: a thousand clients' series take tens of milliseconds to write down.
        text = await asyncio.to_thread(generate_latest, Gathered())
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return Starlette(routes=[Route("/metrics", metrics)])


async def serve(apps: list[tuple[Starlette, socket.socket]], stop: asyncio.Event) -> None:
    """Answer until ``stop`` is set; then take no new connections, finish what is under way and return."""
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


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set, also those that waited."""
    stop = asyncio.Event()
    for number in stopping.SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopping.release()
    return stop


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run ``main`` on uvloop."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_await(main))
        stopping.ignore()


async def _await(main: Callable[[], Awaitable[None]]) -> None:
    await main()


def run_single(app: Starlette, listeners: Listeners) -> None:
    """One process that answers and serves its own metrics."""

    async def main() -> None:
        registry = app.state.service.metrics.registry

        async def collect() -> Iterable[Metric]:
            return registry.collect()  # type: ignore[no-any-return] # starlette's state is untyped

        apps = [(app, listeners.http), (metrics_app(collect), listeners.metrics)]
        await serve(apps, stop_on_signals())

    run(main)

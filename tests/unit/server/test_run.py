"""Sockets, metrics on their own, and a clean end: over real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from verifier.server.run import KEEP_ALIVE, listen, listen_unix, metrics_app, run, serve


def test_idle_connections_are_kept_for_longer_than_nginx_keeps_them() -> None:
    assert KEEP_ALIVE > 60


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_socket_listens_on_its_host(host: str, family: socket.AddressFamily) -> None:
    with listen(host, 0) as sock:
        assert sock.family == family
        assert sock.getsockname()[0] == host
        socket.create_connection(sock.getsockname()[:2]).close()


def test_a_port_that_is_taken_is_an_error() -> None:
    with listen("127.0.0.1", 0) as sock, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", sock.getsockname()[1])


def test_a_unix_socket_takes_the_place_of_one_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "verifier.sock"
    listen_unix(path).close()
    with listen_unix(path):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        assert path.stat().st_mode & 0o777 == 0o666


def test_a_unix_socket_does_not_take_the_place_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("text")

    with pytest.raises(OSError, match="in use"):
        listen_unix(path)
    assert path.read_text() == "text"


async def slowly(_: Request) -> PlainTextResponse:
    await asyncio.sleep(0.3)
    return PlainTextResponse("done")


def ask(talk: Callable[[httpx.AsyncClient, asyncio.Event], Awaitable[None]]) -> None:
    """Serve ``slowly`` while ``talk`` runs, then end."""

    async def main() -> None:
        stop = asyncio.Event()
        with listen("127.0.0.1", 0) as sock:
            base = f"http://127.0.0.1:{sock.getsockname()[1]}"
            app = Starlette(routes=[Route("/slow", slowly)])
            server = asyncio.create_task(serve([(app, sock)], stop))
            async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
                await talk(client, stop)
            stop.set()
            await asyncio.wait_for(server, 5)

    asyncio.run(main())


def test_an_answer_names_no_server() -> None:
    async def talk(client: httpx.AsyncClient, _: asyncio.Event) -> None:
        assert "server" not in (await client.get("/nowhere")).headers

    ask(talk)


def test_a_request_under_way_is_finished_before_the_end() -> None:
    async def talk(client: httpx.AsyncClient, stop: asyncio.Event) -> None:
        answer = asyncio.create_task(client.get("/slow"))
        await asyncio.sleep(0.15)
        stop.set()
        assert (await answer).text == "done"

    ask(talk)


def test_after_the_end_no_connection_is_taken() -> None:
    async def talk(client: httpx.AsyncClient, stop: asyncio.Event) -> None:
        await client.get("/nowhere")
        stop.set()
        await asyncio.sleep(0.3)
        with pytest.raises(httpx.TransportError):
            await client.get("/nowhere")

    ask(talk)


async def test_metrics_are_served_at_their_path_alone() -> None:
    registry = CollectorRegistry()
    Gauge("answer", "Everything.", registry=registry).set(42)

    async def collect() -> object:
        return registry.collect()

    transport = httpx.ASGITransport(app=metrics_app(collect))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://metrics") as client:
        answer, other = await client.get("/metrics"), await client.get("/verify")

    assert "answer 42.0" in answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert other.status_code == 404


def test_a_thread_beside_the_loop_may_hold_the_interpreter_for_less_than_a_millisecond() -> None:
    before, seen = sys.getswitchinterval(), []

    async def main() -> None:
        seen.append(sys.getswitchinterval())

    try:
        run(main)
    finally:
        sys.setswitchinterval(before)
    assert seen[0] < 0.001

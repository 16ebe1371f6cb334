"""The metrics port and a clean end, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from verifier.server import signals
from verifier.server.run import metrics_app, run, serve, serve_beside
from verifier.server.sockets import listen


class Slow:
    """An application whose one answer waits for ``go``."""

    def __init__(self) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.app = Starlette(routes=[Route("/slow", self._answer)])

    async def _answer(self, _: Request) -> PlainTextResponse:
        self.asked.set()
        await self.go.wait()
        return PlainTextResponse("done")


async def refused(client: httpx.AsyncClient) -> bool:
    try:
        await client.get("/nowhere")
    except httpx.TransportError:
        return True
    return False


def serving(talk: Callable[[httpx.AsyncClient, Slow, asyncio.Event], Awaitable[None]]) -> None:
    """Serve a Slow application while ``talk`` runs, then stop."""

    async def main() -> None:
        slow, stop = Slow(), asyncio.Event()
        with listen("127.0.0.1", 0) as sock:
            base = f"http://127.0.0.1:{sock.getsockname()[1]}"
            server = asyncio.create_task(serve([(slow.app, sock)], stop))
            async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
                await talk(client, slow, stop)
            stop.set()
            await server

    asyncio.run(main())


def test_an_answer_names_no_server() -> None:
    async def talk(client: httpx.AsyncClient, _: Slow, __: asyncio.Event) -> None:
        assert "server" not in (await client.get("/nowhere")).headers

    serving(talk)


def test_a_request_under_way_is_finished_but_no_new_connection_is_taken() -> None:
    async def talk(client: httpx.AsyncClient, slow: Slow, stop: asyncio.Event) -> None:
        answer = asyncio.create_task(client.get("/slow"))
        await slow.asked.wait()
        stop.set()
        while not await refused(client):
            pass
        slow.go.set()
        assert (await answer).text == "done"

    serving(talk)


async def test_metrics_are_served_at_their_path_alone() -> None:
    registry = CollectorRegistry()
    Gauge("answer", "Everything.", registry=registry).set(42)

    async def collect() -> Iterable[Metric]:
        return registry.collect()

    transport = httpx.ASGITransport(app=metrics_app(collect))
    async with httpx.AsyncClient(transport=transport, base_url="http://metrics") as client:
        answer = await client.get("/metrics")
        others = [await client.get(path) for path in ("/verify", "/metrics/")]

    assert "answer 42.0" in answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert [other.status_code for other in others] == [404, 404]


@pytest.fixture
def handlers() -> Iterator[None]:
    """Afterwards, signals have the handlers that they had before."""
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_thread_beside_the_loop_may_hold_the_interpreter_for_less_than_a_millisecond() -> None:
    before, seen = sys.getswitchinterval(), []

    async def main() -> None:
        seen.append(sys.getswitchinterval())

    try:
        run(main())
    finally:
        sys.setswitchinterval(before)
    assert seen[0] < 0.001


@pytest.mark.usefixtures("handlers")
def test_a_defect_of_the_work_beside_a_server_stops_the_server_and_is_raised() -> None:
    async def work() -> None:
        raise LookupError("a defect")

    with listen("127.0.0.1", 0) as sock, pytest.raises(LookupError, match="a defect"):
        asyncio.run(serve_beside([(Slow().app, sock)], work()))

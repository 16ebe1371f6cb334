"""Several processes on one port, and one ``/metrics`` for all of them.

The supervisor holds the sockets, starts workers, replaces one that ends, reads a changed configuration once for all,
and collects their metrics. Counters of a worker that ended stay in the sums, so that no counter ever falls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from typing import Any

from prometheus_client import Metric

from verifier import logs
from verifier.app import create_app
from verifier.config import Config
from verifier.observe.merge import ClientLimit, merge
from verifier.observe.metrics import Metrics
from verifier.server import run, signals

log = logging.getLogger(__name__)

COLLECT_TIME = 1.0  # seconds for a worker to send its metrics; after that its last ones count
RESTART_PAUSE = 1.0  # seconds

_spawn = multiprocessing.get_context("spawn")


class _SharedFile:
    """A descriptor that a spawned process receives a duplicate of."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.descriptor),)


def _received(duplicate: Any) -> _SharedFile:
    return _SharedFile(duplicate.detach())


class _Worker:
    """A child process, as the supervisor sees it."""

    def __init__(self, config: Config, http: socket.socket, audit_lock: _SharedFile) -> None:
        self.metrics: list[Metric] = []
        self.received = asyncio.Event()
        self.connection, theirs = _spawn.Pipe()
        self.process = _spawn.Process(target=work, args=(config, http, audit_lock, theirs))
        with signals.blocked():  # until the worker can end cleanly
            self.process.start()
        theirs.close()


class Supervisor:
    """Keeps ``count`` workers running."""

    def __init__(self, count: int, config: Config, sockets: run.Sockets) -> None:
        self._count = count
        self._config = config
        self._sockets = sockets
        self._audit_lock = _SharedFile(os.memfd_create("audit"))
        self._workers: dict[int, _Worker] = {}
        self._exited: list[Metric] = []
        self._limit = ClientLimit()
        self._own = Metrics()
        self._threads = ThreadPoolExecutor(2 * count)  # for each worker one that receives and one that sends
        self._is_stopping = False
        resource_tracker.ensure_running()  # it unblocks signals, which must not happen while a worker is being started

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        from verifier.config.reload import follow  # a worker does not load what reads files

        stop = signals.stop_event()
        following = asyncio.create_task(follow(self._config, self._take, self._own))
        supervising = [asyncio.create_task(self._supervise(number)) for number in range(self._count)]
        app = run.metrics_app(self.collect)
        metrics = asyncio.create_task(run.serve([(app, self._sockets.metrics)], stop))
        await stop.wait()
        self._is_stopping = True
        self._sockets.http.close()  # or new connections would wait for a worker that never comes
        for worker in self._workers.values():
            worker.process.terminate()
        await asyncio.wait(supervising, timeout=run.DRAIN + 5)
        for worker in self._workers.values():
            worker.process.kill()
        following.cancel()
        await asyncio.gather(metrics, following, *supervising, return_exceptions=True)
        self._threads.shutdown()

    async def _supervise(self, number: int) -> None:
        while not self._is_stopping:
            worker = self._workers[number] = _Worker(self._config, self._sockets.http, self._audit_lock)
            with contextlib.suppress(EOFError, OSError):
                while True:
                    worker.metrics = self._limit.apply(await self._call(worker.connection.recv))
                    worker.received.set()
            await self._call(worker.process.join)
            worker.connection.close()
            if not self._is_stopping:
                log.error("worker %d ended with status %s: starting another", number, worker.process.exitcode)
                ended = [family for family in worker.metrics if family.type in ("counter", "histogram")]
                self._exited = merge([self._exited, ended])
                worker.metrics = []
                await asyncio.sleep(RESTART_PAUSE)

    async def collect(self) -> Iterable[Metric]:
        """The sum of all processes, running and ended."""
        await asyncio.gather(*map(self._ask, self._workers.values()))
        # No await from here on: the counts of a worker that ends move to those that have ended.
        running = [worker.metrics for worker in self._workers.values()]
        return merge([*running, self._exited, list(self._own.registry.collect())])

    async def _ask(self, worker: _Worker) -> None:
        worker.received.clear()
        with contextlib.suppress(OSError, TimeoutError):
            await self._call(worker.connection.send, None)
            async with asyncio.timeout(COLLECT_TIME):
                await worker.received.wait()

    async def _take(self, config: Config) -> None:
        self._config = config
        sending = (self._call(worker.connection.send, config) for worker in self._workers.values())
        await asyncio.gather(*sending, return_exceptions=True)  # one that has ended starts with it

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def work(config: Config, http: socket.socket, audit_lock: _SharedFile, supervisor: Connection) -> None:
    """A worker: answers on ``http``, sends its metrics when asked, ends with its supervisor."""

    async def main() -> None:
        app = create_app(config, audit_lock=audit_lock.descriptor)
        stop = signals.stop_event()
        loop = asyncio.get_running_loop()
        sender = ThreadPoolExecutor(1)
        tasks = set[asyncio.Task[None]]()

        def receive() -> None:
            try:
                message = supervisor.recv()
            except (EOFError, OSError):
                loop.remove_reader(supervisor.fileno())
                stop.set()
                return
            if message is None:
                sender.submit(supervisor.send, app.service.collect())
            else:
                tasks.add(task := loop.create_task(app.service.take(message)))
                task.add_done_callback(tasks.discard)

        loop.add_reader(supervisor.fileno(), receive)
        await run.serve([(app, http)], stop)
        loop.remove_reader(supervisor.fileno())
        sender.shutdown()

    logs.configure(logging.INFO, queued=True)
    run.run(main())

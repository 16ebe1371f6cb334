"""Several processes on one port, and one ``/metrics`` that speaks for all of them.

The parent holds the sockets, starts workers, restarts one that dies, and asks each for its numbers when Prometheus
asks. Counters of a worker that died stay in the sums, so that none ever falls.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Iterable

from prometheus_client import Metric

from verifier.app import create_app
from verifier.config import Config, ConfigError, Watch
from verifier.observe.metrics import MAX_CLIENTS
from verifier.server import run as server

log = logging.getLogger(__name__)

ANSWER_LIMIT = 1.0  # seconds for a worker to tell its numbers; after that its last ones count
RESTART_PAUSE = 1.0  # seconds
_LENGTH = struct.Struct("!I")

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
Family = tuple[str, str, str, Samples]
"""Name, type, documentation, samples."""

# A gauge that several workers tell: the one that is worse off counts; all others are added up.
_WORST = frozenset(
    {
        "m2m_verifier_jwks_last_success_timestamp_seconds",
        "m2m_verifier_jwks_keys",
        "m2m_verifier_config_last_reload_successful",
        "m2m_verifier_build_info",
        "process_start_time_seconds",
        "process_max_fds",
    }
)


def snapshot(families: Iterable[Metric]) -> bytes:
    """A worker's numbers for its parent."""
    plain = [
        (f.name, f.type, f.documentation, [(s.name, sorted(s.labels.items()), s.value) for s in f.samples])
        for f in families
    ]
    return json.dumps(plain).encode()


def _read(data: bytes) -> list[Family]:
    return [
        (name, kind, told, {(sample, tuple(map(tuple, labels))): value for sample, labels, value in samples})
        for name, kind, told, samples in json.loads(data)
    ]


def merge(parts: Iterable[list[Family]]) -> list[Family]:
    """Add workers up."""
    merged: dict[str, Family] = {}
    for name, kind, told, samples in (family for part in parts for family in part):
        _, _, _, into = merged.setdefault(name, (name, kind, told, {}))
        for key, value in samples.items():
            if key not in into:
                into[key] = value
            else:
                into[key] = min(into[key], value) if name in _WORST else into[key] + value
    return list(merged.values())


def _monotonic(part: list[Family]) -> list[Family]:
    """What stays of a worker that has gone."""
    return [family for family in part if family[1] in ("counter", "histogram")]


def _metric(family: Family) -> Metric:
    name, kind, told, samples = family
    metric = Metric(name, told, kind)
    for (sample, labels), value in samples.items():
        metric.add_sample(sample, dict(labels), value)
    return metric


class _Worker:
    """One child process, as its parent sees it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.last: list[Family] = []
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._writer: asyncio.StreamWriter | None = None
        self._told = asyncio.Event()

    async def run(self, command: list[str], shared: tuple[int, ...], config: Config) -> int:
        """Start the process, with the ``shared`` descriptors, and listen to it until it ends. Its exit status."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = (*shared, theirs.fileno())
            # A session of its own: a terminal's Ctrl-C is for the parent, who stops workers in order.
            process = await asyncio.create_subprocess_exec(
                *command, *map(str, descriptors), pass_fds=descriptors, start_new_session=True
            )
        self._process = process
        if self._stopping:  # it was asked to while the process was being made
            self.stop()
        reader, self._writer = await asyncio.open_connection(sock=ours)
        given = pickle.dumps(config)
        self._writer.write(_LENGTH.pack(len(given)) + given)
        with contextlib.suppress(EOFError, OSError):
            while True:
                length = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))[0]
                self.last = _read(await reader.readexactly(length))
                self._told.set()
        self._writer.close()
        self._writer = None
        return await process.wait()

    def stop(self, *, at_once: bool = False) -> None:
        """Ask the process to finish what it has and end, or kill it."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL if at_once else signal.SIGTERM)

    async def ask(self) -> None:
        """Bring ``last`` up to date, if the worker tells its numbers in time."""
        if self._writer is not None:
            self._told.clear()
            self._writer.write(b"?")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_LIMIT):
                    await self._told.wait()


class Parent:
    """Keeps ``count`` workers running. ``command`` starts one; it is given three descriptors as last arguments:

    the listening socket, a file to lock while writing audit lines, and a socket to tell its numbers on. A worker that
    has to be replaced while the file is broken gets the last configuration that was good.
    """

    def __init__(self, count: int, command: list[str], config: Config, listeners: server.Listeners) -> None:
        self._workers = [_Worker(number) for number in range(count)]
        self._gone: list[Family] = []
        self._clients: set[tuple[str, str]] = set()
        self._command = command
        self._config = config
        self._listeners = listeners
        self._lock = os.memfd_create("audit")
        self._stopping = False

    async def collect(self) -> Iterable[Metric]:
        """The sum of all workers, living and dead."""
        await asyncio.gather(*(worker.ask() for worker in self._workers))
        # Read in one go: the numbers of a worker that dies while others are asked move to those that have gone.
        told = merge([*(worker.last for worker in self._workers), self._gone])
        return [_metric(self._bound_clients(family)) for family in told]

    def _bound_clients(self, family: Family) -> Family:
        """Each worker names its first 1,000 clients; the sum names no more than that, and always the same."""
        if family[0] != "m2m_verifier_client_decisions":
            return family
        bounded: Samples = {}
        for (sample, labels), value in family[3].items():
            named = dict(labels)
            client = (named["issuer"], named["client_id"])
            if client not in self._clients and len(self._clients) >= MAX_CLIENTS:
                named["client_id"] = "other"
            elif client[1] != "other":
                self._clients.add(client)
            key = (sample, tuple(named.items()))
            bounded[key] = bounded.get(key, 0) + value
        return (*family[:3], bounded)

    async def _keep(self, worker: _Worker) -> None:
        while not self._stopping:
            status = await worker.run(self._command, (self._listeners.http.fileno(), self._lock), self._config)
            if not self._stopping:
                log.error("worker %d ended with status %s: starting another", worker.number, status)
                self._gone = merge([self._gone, _monotonic(worker.last)])
                worker.last = []
                await asyncio.sleep(RESTART_PAUSE)

    async def _follow_config(self) -> None:
        watch = Watch(self._config)
        while self._config.path is not None:
            await asyncio.sleep(1.0)
            with contextlib.suppress(ConfigError):  # workers see it too, and say so
                changed: Config | None = await asyncio.to_thread(watch)
                self._config = changed or self._config

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        stop = server.stop_on_signals()
        following = asyncio.create_task(self._follow_config())
        keepers = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
        metrics = asyncio.create_task(server.serve([(server.metrics_app(self.collect), self._listeners.metrics)], stop))
        await stop.wait()
        self._stopping = True
        self._listeners.http.close()  # or new connections would wait for a worker that never comes
        for worker in self._workers:
            worker.stop()
        _, late = await asyncio.wait(keepers, timeout=server.DRAIN + RESTART_PAUSE + 4)
        for worker in self._workers:
            if late:
                worker.stop(at_once=True)
        following.cancel()
        await asyncio.gather(metrics, following, *keepers, return_exceptions=True)


def run_worker(http: int, lock: int, control: int) -> None:
    """A child, given descriptors: answers on ``http``, tells its numbers when asked, ends when the parent has gone."""
    parent = socket.socket(fileno=control)
    length = _LENGTH.unpack(parent.recv(_LENGTH.size, socket.MSG_WAITALL))[0]
    config: Config = pickle.loads(parent.recv(length, socket.MSG_WAITALL))  # noqa: S301 - our own parent wrote it
    app = create_app(config, reload=Watch(config) if config.path else None, audit_lock=lock)

    async def main() -> None:
        stop = server.stop_on_signals()
        reader, writer = await asyncio.open_connection(sock=parent)

        async def tell() -> None:
            with contextlib.suppress(OSError):
                while await reader.read(1):
                    data = snapshot(app.state.service.metrics.registry.collect())
                    writer.write(_LENGTH.pack(len(data)) + data)
            stop.set()

        telling = asyncio.create_task(tell())
        await server.serve([(app, socket.socket(fileno=http))], stop)
        telling.cancel()
        writer.close()

    server.run(main)


def run_parent(count: int, config: Config, listeners: server.Listeners) -> None:
    """Start ``count`` workers and keep them running until a signal."""
    command = [sys.executable, "-m", "verifier", "worker"]

    async def main() -> None:
        await Parent(count, command, config, listeners).run()

    server.run(main)

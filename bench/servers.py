"""Start a side pinned to its core, read what it costs from /proc, and stop it again."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).resolve().parent.parent


class BenchError(Exception):
    """A side that does not start, answers wrongly or loses requests: a figure from it would mean nothing."""


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class ServerSpec:
    """One process to start, before it has a core or a log file.

    `ready` is a (port, path) that must answer 200; `drain_stdout` gives it a pipe that `cat` empties on the load
    generator's core, as a container runtime would, instead of a file.
    """

    name: str
    argv: Sequence[str]
    ready: tuple[int, str]
    env: Mapping[str, str] = field(default_factory=dict)
    drain_stdout: bool = False


class Server:
    """A running process with its children."""

    def __init__(self, spec: ServerSpec, *, core: int, drain_core: int, logs: Path) -> None:
        self.name = spec.name
        self._log = logs / f"{spec.name}.log"
        self._drain: subprocess.Popen[bytes] | None = None
        env = {**os.environ, **spec.env}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(core), *spec.argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if spec.drain_stdout else log,
                stderr=log,
                env=env,
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop the sides in order
            )
        if spec.drain_stdout:
            self._drain = subprocess.Popen(
                ["taskset", "-c", str(drain_core), "cat"],
                stdin=self._process.stdout,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            assert self._process.stdout is not None
            self._process.stdout.close()
        self._wait_until_ready(*spec.ready)

    def _wait_until_ready(self, port: int, path: str) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError, http.client.HTTPException):
                if get(port, path)[0] == 200:
                    return
            time.sleep(0.05)
        self.stop()
        tail = self._log.read_text(errors="replace")[-2000:]
        raise BenchError(f"{self.name} did not become ready; the end of {self._log.relative_to(ROOT)}:\n{tail}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def pids(self) -> list[int]:
        """The process and all that descend from it."""
        found, queue = [], [self.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    queue += [int(child) for child in children.read_text().split()]
        return found

    def cpu_seconds(self) -> float:
        """User and system time so far, of all threads and processes (proc(5), stat fields 14 and 15)."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                # The command may hold spaces, so count from the bracket behind it.
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / TICK

    def rss_bytes(self) -> int:
        """VmRSS, summed over the processes; pages that they share count once for each."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmRSS:"):
                        total += int(line.split()[1]) * 1024
        return total

    def stop(self) -> None:
        for process, wait in ((self._process, 10), (self._drain, 5)):
            if process is None or process.poll() is not None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # its own session, so nobody else's processes
                process.wait()


@contextlib.contextmanager
def running(spec: ServerSpec, *, core: int, drain_core: int, logs: Path) -> Iterator[Server]:
    server = Server(spec, core=core, drain_core=drain_core, logs=logs)
    try:
        yield server
    finally:
        server.stop()


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """One GET on a connection of its own: status, headers (names in lower case), body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()

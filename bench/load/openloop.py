"""Open loop: requests leave at a fixed rate, whatever the side does, and wait counts from when each was due.

That is what makes it safe against coordinated omission: a side that stalls for 50 ms is charged for every
request that was due meanwhile, not for one. A process of its own, so that nothing else holds its interpreter:

    python -m bench.load.openloop --port 8000 --template FILE --tokens FILE --rate 500 --seconds 5

prints one JSON object. `--rate 0` sends as fast as the connections allow (each token once, with `--requests`).
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import select
import socket
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.load.requests import render

SPIN_NS = 120_000  # a timer wakes late by about its slack (50 µs): sleep until shortly before, then look at the clock


@dataclass(frozen=True)
class OpenLoopResult:
    """Latencies in µs, counted from when a request was due; `late` is how late the generator itself noticed it.

    `unfinished` requests count with what they had waited when the run gave up.
    """

    sent: int
    unfinished: int
    seconds: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    late_p50_us: float
    late_p99_us: float
    late_max_us: float
    statuses: dict[str, int]
    worst: list[tuple[float, float]]  # (seconds after the start, µs), the longest waits


def percentile(ordered: list[int], share: float) -> float:
    """The nearest-rank percentile, in the unit of `ordered`; 0 for nothing."""
    if not ordered:
        return 0.0
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)])


def complete_status(buffer: bytes) -> int | None:
    """The status, once the whole response is there: by Content-Length, by the last chunk, or 204/304."""
    head, end, body = buffer.partition(b"\r\n\r\n")
    if not end:
        return None
    status = int(head[9:12])
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    if at >= 0:
        length = int(lower[at + 17 :].split(b"\r\n", 1)[0])
        return status if len(body) >= length else None
    if b"\r\ntransfer-encoding: chunked" in lower:
        return status if body.endswith(b"0\r\n\r\n") else None
    return status


class _Connection:
    __slots__ = ("buffer", "due", "fd", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.fd = self.socket.fileno()
        self.buffer = b""
        self.due = 0


class OpenLoop:
    """Sends `total` requests, in turn from `requests`; one object for one run."""

    def __init__(self, *, port: int, requests: list[bytes], connections: int, total: int) -> None:
        self.port = port
        self.requests = requests
        self.total = total
        self.sent = self.lost = 0
        self.finished: list[tuple[int, int]] = []  # (latency, when it was due), in ns
        self.lateness: list[int] = []
        self.statuses: Counter[str] = Counter()
        self._poll = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        for _ in range(connections):
            self._connect()

    def run(self, *, rate: float, seconds: float, grace: float = 3.0) -> OpenLoopResult:
        """`rate` 0 means: whenever a connection is free. Gives up `grace` seconds after the last was due."""
        clock = time.perf_counter_ns
        period = 1e9 / rate if rate else 0.0
        waiting: deque[int] = deque()
        scheduled = 0
        gc.disable()  # a collection of ours would look like a wait of the side's
        start = clock() + 2_000_000
        stop = start + int((seconds + grace) * 1e9)
        while len(self.finished) + self.lost < self.total and (now := clock()) < stop:
            if rate:
                while scheduled < self.total and (due := start + int(scheduled * period)) <= now:
                    waiting.append(due)
                    self.lateness.append(now - due)
                    scheduled += 1
            else:
                fresh = min(len(self._idle), self.total - scheduled)
                waiting.extend([now] * fresh)
                scheduled += fresh
            while waiting and self._idle:
                self._send(waiting.popleft())
            if rate and scheduled < self.total:
                pause = start + int(scheduled * period) - clock() - SPIN_NS
                if pause > 0:
                    select.select([self._poll], [], [], pause / 1e9)  # epoll itself waits in whole milliseconds
                events = self._poll.poll(0)
            else:
                events = self._poll.poll(0.05)
            for fd, _ in events:
                self._receive(self._open[fd])
        end = clock()
        gc.enable()
        # What nobody answered has waited until now: left out, the slowest would be the ones that do not count.
        busy = [connection.due for connection in self._open.values() if connection not in self._idle]
        unfinished = [(end - due, due) for due in (*waiting, *busy)]
        for connection in self._open.values():
            connection.socket.close()
        self._poll.close()
        return self._result(start, end, unfinished)

    def _connect(self) -> None:
        connection = _Connection(self.port)
        self._open[connection.fd] = connection
        self._poll.register(connection.fd, select.EPOLLIN)
        self._idle.append(connection)

    def _drop(self, connection: _Connection) -> None:
        self._poll.unregister(connection.fd)
        del self._open[connection.fd]
        connection.socket.close()

    def _send(self, due: int) -> None:
        connection = self._idle.pop()
        connection.due = due
        try:
            connection.socket.send(self.requests[self.sent % len(self.requests)])
        except OSError:
            # The side closed an idle connection: a proxy opens another one, and so do we.
            self._drop(connection)
            self._connect()
            self._send(due)
            return
        self.sent += 1

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if connection in self._idle:
                self._idle.remove(connection)
            else:
                self.lost += 1
                self.statuses["lost"] += 1
            self._drop(connection)
            self._connect()
            return
        connection.buffer += data
        status = complete_status(connection.buffer)
        if status is not None:
            self.finished.append((time.perf_counter_ns() - connection.due, connection.due))
            self.statuses[str(status)] += 1
            connection.buffer = b""
            self._idle.append(connection)

    def _result(self, start: int, end: int, unfinished: list[tuple[int, int]]) -> OpenLoopResult:
        waits = sorted(self.finished + unfinished)
        latencies = [latency for latency, _ in waits]
        self.lateness.sort()
        return OpenLoopResult(
            sent=self.sent,
            unfinished=self.total - len(self.finished),
            seconds=(end - start) / 1e9,
            p50_us=percentile(latencies, 0.5) / 1e3,
            p99_us=percentile(latencies, 0.99) / 1e3,
            p999_us=percentile(latencies, 0.999) / 1e3,
            max_us=percentile(latencies, 1) / 1e3,
            late_p50_us=percentile(self.lateness, 0.5) / 1e3,
            late_p99_us=percentile(self.lateness, 0.99) / 1e3,
            late_max_us=percentile(self.lateness, 1) / 1e3,
            statuses=dict(self.statuses),
            worst=[((due - start) / 1e9, latency / 1e3) for latency, due in reversed(waits[-5:])],
        )


def from_json(text: str) -> OpenLoopResult:
    values: dict[str, Any] = json.loads(text)
    values["worst"] = [(at, us) for at, us in values["worst"]]
    return OpenLoopResult(**values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--tokens", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second; 0: as fast as possible")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--requests", type=int, help="how many in all, instead of rate times seconds")
    parser.add_argument("--skip", type=int, default=0, help="begin at this token")
    parser.add_argument("--connections", type=int, default=64)
    arguments = parser.parse_args()
    template = arguments.template.read_bytes().decode()  # its line ends stay CRLF
    tokens = arguments.tokens.read_text().split()[arguments.skip :]
    total = arguments.requests if arguments.requests is not None else int(arguments.rate * arguments.seconds)
    loop = OpenLoop(
        port=arguments.port,
        requests=[render(template, token, number) for number, token in enumerate(tokens[: max(total, 1)])],
        connections=arguments.connections,
        total=total,
    )
    result = loop.run(rate=arguments.rate, seconds=arguments.seconds)
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()

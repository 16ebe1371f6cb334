"""Closed loop: wrk, one thread, as many requests as the side answers."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.servers import BenchError

SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class WrkResult:
    """One window. `busy` is the share of its core that wrk used: near 1, wrk and not the side was the limit."""

    requests: int
    seconds: float
    denied: int
    p50_us: float
    p99_us: float
    max_us: float
    busy: float

    @property
    def rps(self) -> float:
        return self.requests / self.seconds


def command(
    *, core: int, port: int, template: Path, tokens: Path, offset: int, connections: int, seconds: int
) -> list[str]:
    return [
        *("taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"),
        *("-s", str(SCRIPT), f"http://127.0.0.1:{port}/", "--", str(template), str(tokens), str(offset)),
    ]


def parse(output: str) -> WrkResult:
    """Reads what wrk.lua printed; raises BenchError where a request was lost."""
    lines = output.splitlines()
    prepared = next((line for line in lines if line.startswith("PREPARED ")), None)
    result = next((line for line in lines if line.startswith("RESULT ")), None)
    if prepared is None or result is None:
        raise BenchError(f"wrk gave no result:\n{output[-2000:]}")
    values = json.loads(result.removeprefix("RESULT "))
    if values["socket_errors"] or not values["requests"]:
        raise BenchError(f"wrk lost requests: {values}")
    seconds = values["duration_us"] / 1e6
    return WrkResult(
        requests=values["requests"],
        seconds=seconds,
        denied=values["denied"],
        p50_us=values["p50_us"],
        p99_us=values["p99_us"],
        max_us=values["max_us"],
        busy=(values["cpu_s"] - float(prepared.split()[1])) / seconds,
    )


def run(argv: list[str], *, timeout: float) -> WrkResult:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise BenchError(f"wrk failed: {done.stderr or done.stdout}")
    return parse(done.stdout)

"""The interleaved run: every side up, every cell measured once in each round, all of it checked."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import plan
from bench.check import check, check_status, counters
from bench.load import openloop, wrk
from bench.load.requests import template
from bench.servers import ROOT, BenchError, Server, ServerSpec, running
from bench.sides import envoy, nginx, others, ours
from bench.sides.context import Context

Window = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How long and how often. Two cores: what is measured runs on one, what measures it on the other."""

    rounds: int = 7
    seconds: int = 1
    fixed_seconds: float = 2.0
    server_core: int = 0
    load_core: int = 1
    cold: int = 20_000
    distinct: int = 50_000
    fill: tuple[int, ...] = (10_000, 50_000)
    stall_entries: int = 50_000
    repeats: int = 2  # of each probe


QUICK = Settings(
    rounds=2, seconds=1, fixed_seconds=1.0, cold=15_000, distinct=20_000, fill=(2_000, 20_000), stall_entries=10_000,
    repeats=1,
)  # fmt: skip


def _close_and_keepalive(name: str, port: int) -> tuple[nginx.Front, nginx.Front]:
    return (
        nginx.Front(f"front-{name}-close", f"127.0.0.1:{port}", keepalive=False),
        nginx.Front(f"front-{name}-keepalive", f"127.0.0.1:{port}"),
    )


def specs(context: Context) -> dict[str, Callable[[], ServerSpec]]:
    """How to start each process, by the name that targets use. The front needs to know who is behind it."""
    socket = context.folder("sockets") / "ours.sock"
    local = context.ports
    ttl = f"127.0.0.1:{local['ours-ttl']}"
    fronts = (
        *_close_and_keepalive("ours", local["ours"]),
        nginx.Front("front-ours-uds", f"unix:{socket}"),
        nginx.Front("front-ours-uds-close", f"unix:{socket}", keepalive=False),
        nginx.Front("front-ours-cache", ttl, keepalive=False, cache=True),
        nginx.Front("front-ours-cache-aio", ttl, keepalive=False, cache=True, reading="aio threads;"),
        nginx.Front("front-ours-cache-open", ttl, keepalive=False, cache=True, reading="open_file_cache max=10000;"),
        *_close_and_keepalive("fastapi", local["fastapi"]),
        *_close_and_keepalive("uvicorn", local["uvicorn"]),
        *_close_and_keepalive("floor", local["nginx-floor"]),
    )
    return {
        "ours": lambda: ours.spec(context),
        "ours-before": lambda: ours.spec(context, "ours-before", command=context.before),
        "ours-audit-off": lambda: ours.spec(context, "ours-audit-off", audit="off"),
        "ours-uds": lambda: ours.spec(context, "ours-uds", uds=socket),
        "ours-ttl": lambda: ours.spec(context, "ours-ttl", nginx_cache_ttl=60),
        "fastapi": lambda: others.fastapi(context),
        "node-aws": lambda: others.node(context, "node-aws", "aws_jwt_verify.js"),
        "node-fast-jwt": lambda: others.node(context, "node-fast-jwt", "fast_jwt.js"),
        "envoy": lambda: envoy.jwt_authn(context, "envoy"),
        "envoy-cache": lambda: envoy.jwt_authn(context, "envoy-cache", cache=True),
        "envoy-ext-authz": lambda: envoy.ext_authz(context, "envoy-ext-authz"),
        "uvicorn": lambda: others.uvicorn_constant(context),
        "nginx-floor": lambda: nginx.floor(context),
        "nginx-front": lambda: nginx.front(context, fronts),
    }


def say(text: str) -> None:
    print(text, flush=True)


@dataclass
class Bench:
    """Every process of one run, and what has been measured so far."""

    settings: Settings
    context: Context
    api: Server | None = None
    servers: dict[str, Server] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    fixed: list[Window] = field(default_factory=list)
    _offsets: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def specs(self) -> dict[str, Callable[[], ServerSpec]]:
        return specs(self.context)

    @contextlib.contextmanager
    def start(self, spec: ServerSpec, *, beside_the_load: bool = False) -> Iterator[Server]:
        core = self.settings.load_core if beside_the_load else self.settings.server_core
        logs = self.context.folder("logs")
        with running(spec, core=core, drain_core=self.settings.load_core, logs=logs) as server:
            yield server

    @contextlib.contextmanager
    def up(self, targets: set[str]) -> Iterator[None]:
        """Every server that a target needs, the front last: it looks its sockets up when it starts."""
        names = dict.fromkeys(server for name in targets for server in plan.TARGETS[name].servers)
        order = sorted(names, key=lambda name: (name == "nginx-front", name))
        how = self.specs
        with contextlib.ExitStack() as stack:
            for name in order:
                say(f"starting {name}")
                self.servers[name] = stack.enter_context(self.start(how[name]()))
            yield
        self.servers.clear()

    def template(self, target: plan.Target, *, close: bool = False) -> Path:
        path = self.context.folder("requests") / f"{target.name}{'-close' if close else ''}.http"
        path.write_text(template(target, close=close), newline="")
        return path

    def measure(self, target: plan.Target, load: plan.Load, *, seconds: int) -> Window:
        """One closed-loop window."""
        offset = self._next(target, load)
        argv = wrk.command(
            core=self.settings.load_core,
            port=self.context.ports[target.port],
            template=self.template(target, close=load.close),
            tokens=self.context.tokens.path(load.tokens),
            offset=offset,
            connections=load.connections,
            seconds=seconds,
        )
        servers = [self.servers[name] for name in target.servers]
        counted = counters(self.context, target.verifier)
        before, api_before = _cpu(servers), self._api_cpu()
        result = wrk.run(argv, timeout=seconds + 60)
        used, api_used = _cpu(servers) - before, self._api_cpu() - api_before
        self._advance(target, load, result.requests + load.connections)
        counted = {key: value - counted[key] for key, value in counters(self.context, target.verifier).items()}
        self._verify(target, load, result, counted)
        return {
            "load": load.name,
            "target": target.name,
            "rps": round(result.rps, 1),
            "requests": result.requests,
            "p50_us": result.p50_us,
            "p99_us": result.p99_us,
            "max_us": result.max_us,
            "cpu_us": round(used / result.requests * 1e6, 2),
            "rss_mib": round(sum(server.rss_bytes() for server in servers) / 2**20, 1),
            "load_busy": round(result.busy + api_used / result.seconds, 3),
            "audit_dropped": counted.get("dropped", 0),
        }

    def _api_cpu(self) -> float:
        """The API runs beside the load generator, and takes from it."""
        return self.api.cpu_seconds() if self.api else 0.0

    def _verify(self, target: plan.Target, load: plan.Load, result: wrk.WrkResult, counted: dict[str, int]) -> None:
        expected = result.requests if load.status >= 400 else 0
        if target.verifies and result.denied != expected:
            raise BenchError(f"{target.name}, {load.name}: {result.denied} of {result.requests} were denied")
        if target.verifies:
            check_status(self.context, target, load.tokens, load.status)
        if load.fresh and counted.get("hits"):
            raise BenchError(f"{target.name}, {load.name}: {counted['hits']} tokens were not new to the cache")

    def _next(self, target: plan.Target, load: plan.Load) -> int:
        """Where a COLD cycle continues: a least-recently-used cache smaller than the cycle then never knows a token."""
        return self._offsets.get((target.verifier, load.tokens), 0) if load.fresh and target.verifies else 0

    def _advance(self, target: plan.Target, load: plan.Load, by: int) -> None:
        key = (target.verifier, load.tokens)
        self._offsets[key] = (self._offsets.get(key, 0) + by) % self.settings.cold

    def measure_fixed(self, target: plan.Target, load: plan.Load, rate: int) -> Window:
        """One open-loop window."""
        total = int(rate * self.settings.fixed_seconds)
        offset = self._next(target, load)
        if offset + total > self.settings.cold:
            offset = 0  # the generator does not wrap; skipping ahead keeps every token as old as a whole cycle
            self._offsets[(target.verifier, load.tokens)] = 0
        argv = openloop_command(
            self.settings.load_core,
            port=self.context.ports[target.port],
            template=self.template(target),
            tokens=self.context.tokens.path(load.tokens),
            rate=rate,
            seconds=self.settings.fixed_seconds,
            skip=offset,
        )
        result = run_openloop(argv, timeout=self.settings.fixed_seconds + 60)
        self._advance(target, load, total)
        if target.verifies and set(result.statuses) - {str(load.status)}:
            raise BenchError(f"{target.name}, {load.name} at {rate}/s: answered {result.statuses}")
        values = {key: value for key, value in asdict(result).items() if key not in ("statuses", "worst")}
        return {"load": load.name, "target": target.name, "rate": rate, **_rounded(values)}

    def check(self, targets: set[str]) -> None:
        for name in sorted(targets):
            check(self.context, plan.TARGETS[name])
        say(f"{len(targets)} targets answer as they should")

    def interleave(self, targets: set[str], loads: set[str]) -> None:
        """One second of warm-up for each cell, then the rounds."""
        cells = plan.select(plan.CELLS, targets=targets, loads=loads)
        fixed = plan.select(plan.FIXED_RATE, targets=targets, loads=loads)
        for load, names in cells:  # Node compiles what is hot, Python specialises it, caches fill
            for name in names:
                self.measure(plan.TARGETS[name], plan.LOADS[load], seconds=1)
        say("warmed up")
        began = time.monotonic()
        for number in range(self.settings.rounds):
            for load, names in cells:
                for name in plan.rotated(names, number):
                    window = self.measure(plan.TARGETS[name], plan.LOADS[load], seconds=self.settings.seconds)
                    self.windows.append({"round": number, **window})
                    say(f"[{number + 1}/{self.settings.rounds}] {_line(window)}")
            for load, names in fixed:
                for name in plan.rotated(names, number):
                    window = self.measure_fixed(plan.TARGETS[name], plan.LOADS[load], plan.RATE)
                    self.fixed.append({"round": number, **window})
                    say(f"[{number + 1}/{self.settings.rounds}] {_fixed_line(window)}")
            self.save()
            passed = time.monotonic() - began
            left = passed / (number + 1) * (self.settings.rounds - number - 1)
            say(f"round {number + 1} done after {passed / 60:.1f} min, about {left / 60:.1f} min of rounds left")

    def save(self) -> None:
        """What there is so far, so that an interrupted run is not lost."""
        path = self.context.build / "results.partial.json"
        path.write_text(json.dumps({"windows": self.windows, "fixed": self.fixed}, indent=1))


def _cpu(servers: list[Server]) -> float:
    return sum(server.cpu_seconds() for server in servers)


def openloop_command(
    core: int,
    *,
    port: int,
    template: Path,
    tokens: Path,
    rate: float,
    seconds: float,
    skip: int = 0,
    requests: int | None = None,
    connections: int = 64,
) -> list[str]:
    return [
        *("taskset", "-c", str(core), sys.executable, "-m", "bench.load.openloop"),
        *("--port", str(port), "--template", str(template), "--tokens", str(tokens)),
        *("--rate", str(rate), "--seconds", str(seconds), "--skip", str(skip), "--connections", str(connections)),
        *(() if requests is None else ("--requests", str(requests))),
    ]


def run_openloop(argv: list[str], *, timeout: float) -> openloop.OpenLoopResult:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT)
    if done.returncode:
        raise BenchError(f"the open loop failed: {done.stderr[-2000:]}")
    return openloop.from_json(done.stdout)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 1) if isinstance(value, float) else value for key, value in values.items()}


def _line(window: Window) -> str:
    bound = "  (the load generator is the limit)" if window["load_busy"] > 0.9 else ""
    if window["audit_dropped"]:
        bound += f"  ({window['audit_dropped']} audit lines dropped)"
    return (
        f"{window['load']:<12}{window['target']:<22}{window['rps']:>9.0f}/s  p50 {window['p50_us'] / 1e3:7.2f} ms"
        f"  p99 {window['p99_us'] / 1e3:7.2f} ms  {window['cpu_us']:7.1f} µs CPU  {window['rss_mib']:6.0f} MiB{bound}"
    )


def _fixed_line(window: Window) -> str:
    late = f"  {window['unfinished']} unanswered" if window["unfinished"] else ""
    return (
        f"{window['load']:<12}{window['target']:<22}at {window['rate']}/s  p50 {window['p50_us'] / 1e3:7.2f} ms"
        f"  p99 {window['p99_us'] / 1e3:7.2f} ms  max {window['max_us'] / 1e3:7.2f} ms{late}"
    )

"""What a throughput figure hides: memory for each token, the longest wait while something happens, and whether
one client's garbage is another client's delay."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import plan
from bench.check import ask, metric
from bench.load import openloop, wrk
from bench.run import Bench, Window, openloop_command, run_openloop, say
from bench.servers import ROOT, BenchError, get
from bench.sides import ours
from bench.tokens import sign_many

MIB = 2**20
OURS = plan.TARGETS["ours"]


def memory(bench: Bench) -> list[Window]:
    """Resident memory of one fresh process, empty and after so many different tokens, all of them kept."""
    name, settings = "ours-memory", bench.settings
    spec = ours.spec(bench.context, name, cache={"size": 2 * settings.distinct, "ttl": 3600})
    rows: list[Window] = []
    with bench.start(spec) as server:
        _fill(bench, name, bench.context.tokens.path("hot"), 2000)  # imports, buffers, the names of all clients
        rows.append({"tokens": 0, "rss_mib": round(server.rss_bytes() / MIB, 1)})
        sent = 0
        for tokens in settings.fill:
            _fill(bench, name, bench.context.tokens.path("distinct"), tokens - sent, skip=sent)
            sent = tokens
            entries = _metric(bench, name, "m2m_verifier_token_cache_entries")
            if entries < tokens:
                raise BenchError(f"after {tokens} different tokens the cache holds {entries}")
            rows.append({"tokens": tokens, "rss_mib": round(server.rss_bytes() / MIB, 1)})
            say(f"memory after {tokens} tokens: {rows[-1]['rss_mib']} MiB; before them: {rows[0]['rss_mib']} MiB")
    return rows


def _fill(bench: Bench, name: str, tokens: Path, count: int, *, skip: int = 0) -> None:
    """`count` requests over a few connections, as fast as they are answered."""
    argv = openloop_command(
        bench.settings.load_core,
        port=bench.context.ports[name],
        template=bench.template(OURS),
        tokens=tokens,
        rate=0,
        seconds=240,
        skip=skip,
        requests=count,
        connections=8,
    )
    result = run_openloop(argv, timeout=300)
    if result.statuses != {"200": count}:
        raise BenchError(f"{name}: filling its cache was answered {result.statuses}")


def _metric(bench: Bench, name: str, series: str) -> int:
    return metric(get(bench.context.ports[f"{name}-metrics"], "/metrics")[2].decode(), series)


# --- background -------------------------------------------------------------------------------------------------


YIELDING = (
    "nice",
    "-n",
    "10",
)  # on the core that they share, the load makes way for the probe, not the other way round


@contextlib.contextmanager
def _wrk_beside(bench: Bench, target: plan.Target, port: int, load: str, *, connections: int, seconds: float,
                offset: int = 0) -> Iterator[list[wrk.WrkResult]]:  # fmt: skip
    """wrk in the background; its result is in the list after the block."""
    argv = wrk.command(
        core=bench.settings.load_core,
        port=port,
        template=bench.template(target),
        tokens=bench.context.tokens.path(load),
        offset=offset,
        connections=connections,
        seconds=int(seconds) + 1,
    )
    results: list[wrk.WrkResult] = []
    process = subprocess.Popen([*YIELDING, *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        time.sleep(0.5)  # it builds its requests first
        yield results
        results.append(wrk.parse(process.communicate(timeout=seconds + 60)[0]))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _openloop_beside(argv: list[str], *, seconds: float) -> Iterator[list[openloop.OpenLoopResult]]:
    """An open loop in the background; its result is in the list after the block."""
    results: list[openloop.OpenLoopResult] = []
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    try:
        yield results
        output = process.communicate(timeout=seconds + 60)[0]
        if process.returncode:
            raise BenchError(f"the open loop failed: {output[-2000:]}")
        results.append(openloop.from_json(output))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _probe_command(bench: Bench, target: plan.Target, port: int, *, rate: int, seconds: float) -> list[str]:
    """Known tokens over connections of their own: another client than the one who makes the load."""
    return openloop_command(
        bench.settings.load_core,
        port=port,
        template=bench.template(target),
        tokens=bench.context.tokens.path("hot"),
        rate=rate,
        seconds=seconds,
        connections=16,
    )


# --- the longest wait -------------------------------------------------------------------------------------------

STALL_RATE = 500
STALL_SECONDS = 6.0
RELOAD_SECONDS = 16.0  # who reads the configuration makes way for requests, of which there are as many as get answers
SAMPLE = 2000  # tokens that tell how long signing and sending take here

Event = Callable[[], Callable[[], bool]]
"""Makes something happen, and gives what tells afterwards whether it did: to ask meanwhile would be an event itself."""


def stalls(bench: Bench) -> list[Window]:
    """The longest wait in an open loop of known tokens, beside a load of new ones, while one thing happens.

    The new tokens are what makes objects and so brings the collector; the same probe against a constant answer
    shows what the machine and the generator add by themselves.
    """
    rows: list[Window] = []
    for repeat in range(bench.settings.repeats):
        for row in (*_stalls_of_a_constant(bench), *_stalls_of_ours(bench), *_stall_of_expiry(bench)):
            rows.append({"repeat": repeat, **row})
            say(
                f"longest wait: {row['event']}: {row['max_us'] / 1e3:.2f} ms (generator {row['late_max_us'] / 1e3:.2f})"
            )
    return rows


def _phase(
    bench: Bench, title: str, target: plan.Target, port: int, event: Event, *, load: str, offset: int = 0,
    seconds: float = STALL_SECONDS,
) -> Window:  # fmt: skip
    """Probe beside a load; `event` happens one second in."""
    argv = _probe_command(bench, target, port, rate=STALL_RATE, seconds=seconds)
    with _wrk_beside(
        bench, target, port, load, connections=4, seconds=seconds + 1, offset=offset
    ) as loads, _openloop_beside(argv, seconds=seconds) as probes:  # fmt: skip
        time.sleep(1)
        has_happened = event()
    happened = has_happened()
    probe = probes[0]
    if set(probe.statuses) - {"200"}:
        raise BenchError(f"the probe of {title!r} was answered {probe.statuses}")
    return {
        "event": title,
        "happened": happened,
        "p50_us": round(probe.p50_us, 1),
        "p99_us": round(probe.p99_us, 1),
        "max_us": round(probe.max_us, 1),
        "late_max_us": round(probe.late_max_us, 1),
        "unfinished": probe.unfinished,
        "load_requests": loads[0].requests,
    }


def _nothing() -> Callable[[], bool]:
    return lambda: True


def _stalls_of_a_constant(bench: Bench) -> Iterator[Window]:
    target = plan.TARGETS["uvicorn"]
    with bench.start(bench.specs["uvicorn"]()):
        yield _phase(
            bench, "uvicorn answering a constant", target, bench.context.ports["uvicorn"], _nothing, load="cold"
        )


def _stalls_of_ours(bench: Bench) -> Iterator[Window]:
    """Everything but the expiry, with the cache smaller than the cycle of tokens, so that each is new."""
    name = "ours-stall"
    port = bench.context.ports[name]
    offset = 0
    events: tuple[tuple[str, Event, float], ...] = (
        ("new tokens only (collections)", _nothing, STALL_SECONDS),
        ("scrape of /metrics, 1,000 clients", lambda: _scrape(bench, name), STALL_SECONDS),
        ("reload of the configuration", lambda: _reload(bench, name), RELOAD_SECONDS),
        ("refresh of the keys", lambda: _refresh(bench, name), STALL_SECONDS),
    )
    with bench.start(ours.spec(bench.context, name)):
        for title, event, seconds in events:
            row = _phase(bench, title, OURS, port, event, load="cold", offset=offset, seconds=seconds)
            offset = (offset + row["load_requests"]) % bench.settings.cold
            yield row


def _scrape(bench: Bench, name: str) -> Callable[[], bool]:
    """Ten scrapes; whether there were a thousand clients to show."""
    clients: set[str] = set()
    for _ in range(10):
        text = get(bench.context.ports[f"{name}-metrics"], "/metrics")[2].decode()
        clients = {
            line.partition('client_id="')[2].partition('"')[0]
            for line in text.splitlines()
            if line.startswith("m2m_verifier_client_decisions_total{")
        }
        time.sleep(0.4)
    return lambda: len(clients) >= 1000


def _reload(bench: Bench, name: str) -> Callable[[], bool]:
    """A change of the file that changes no decision; whether it came into force."""
    series = 'm2m_verifier_config_reloads_total{result="success"}'
    before = _metric(bench, name, series)
    ours.write_config(bench.context, name, revoked={"clients": [], "tokens": [f"nobody-{time.time()}"]})
    return lambda: _metric(bench, name, series) > before


def _refresh(bench: Bench, name: str) -> Callable[[], bool]:
    """One token with an unknown key id; whether the keys were fetched again."""
    series = 'm2m_verifier_jwks_refreshes_total{issuer="homelab",result="success"}'
    before = _metric(bench, name, series)
    get(
        bench.context.ports[name],
        "/verify",
        {
            "Authorization": f"Bearer {bench.context.tokens.first('flood')}",
            "X-Original-URL": "https://api.lab.informationcart.com/",
            "X-Original-Method": "GET",
        },
    )
    return lambda: _metric(bench, name, series) > before


def _stall_of_expiry(bench: Bench) -> Iterator[Window]:
    """Fill a cache with tokens that all end in one second, and probe across that second.

    ES256, because they are signed on the spot; what a cache holds of a token does not depend on its algorithm.
    """
    name, entries, context = "ours-expiry", bench.settings.stall_entries, bench.context
    size = 2 * bench.settings.distinct + entries  # nothing is pushed out before its time
    with bench.start(ours.spec(context, name, cache={"size": size, "ttl": 3600}, leeway=0)):
        began = time.monotonic()
        _fill_expiring(bench, name, SAMPLE, expires=int(time.time()) + 600)
        each = (time.monotonic() - began) / SAMPLE
        # As long as it takes, as much again to spare, and the probe's own time.
        expires = int(time.time() + 2 * entries * each + STALL_SECONDS + 5)
        _fill_expiring(bench, name, entries, expires=expires)
        held = _metric(bench, name, "m2m_verifier_token_cache_entries")
        spare = expires - time.time() - STALL_SECONDS / 2
        if spare < 0:
            raise BenchError("filling the cache took longer than its tokens live: too slow a machine for this probe")
        time.sleep(spare)
        title = f"{entries:,} cached tokens expire together"
        row = _phase(bench, title, OURS, context.ports[name], _nothing, load="distinct")
        yield row | {"happened": held >= entries}


def _fill_expiring(bench: Bench, name: str, count: int, *, expires: int) -> None:
    path = bench.context.tokens.path("expiring")
    path.write_text("\n".join(sign_many(bench.context.tokens.ec, count, expires=expires)))
    _fill(bench, name, path, count)
    path.unlink()


# --- fairness ---------------------------------------------------------------------------------------------------

FAIR_RATE = 200  # also for the slowest side far below what it can do
FAIR_SECONDS = 4.0
FLOOD_RATE = 1000
FAIR_TARGETS = ("ours", "node-aws", "fastapi")


def fairness(bench: Bench, targets: set[str]) -> list[Window]:
    """One client's waits at a fixed rate: alone, beside 1,000 garbage requests a second, beside all that eight
    connections can send. Garbage is a third each of turned signatures, junk and unknown keys."""
    rows: list[Window] = []
    for repeat in range(bench.settings.repeats):
        for name in FAIR_TARGETS:
            if name not in targets:
                continue
            with bench.start(bench.specs[name]()):
                row = _fairness_of(bench, plan.TARGETS[name])
            rows.append({"repeat": repeat, "target": name, **row})
            say(
                f"fairness: {name}: p99 alone {row['quiet_p99_us'] / 1e3:.2f} ms, beside 1,000/s of garbage "
                f"{row['paced_p99_us'] / 1e3:.2f} ms, beside all it can get {row['flat_out_p99_us'] / 1e3:.2f} ms"
            )
    return rows


def _fairness_of(bench: Bench, target: plan.Target) -> dict[str, Any]:
    port = bench.context.ports[target.port]
    probe = _probe_command(bench, target, port, rate=FAIR_RATE, seconds=FAIR_SECONDS)
    ask(bench.context, target, bench.context.tokens.first("hot"))
    run_openloop(_probe_command(bench, target, port, rate=FAIR_RATE, seconds=1), timeout=60)  # warm
    quiet = run_openloop(probe, timeout=60)
    garbage = openloop_command(
        bench.settings.load_core,
        port=port,
        template=bench.template(target),
        tokens=bench.context.tokens.path("garbage"),
        rate=FLOOD_RATE,
        seconds=FAIR_SECONDS + 1,
    )
    with _openloop_beside([*YIELDING, *garbage], seconds=FAIR_SECONDS + 1):
        time.sleep(0.7)
        paced = run_openloop(probe, timeout=60)
    with _wrk_beside(bench, target, port, "garbage", connections=8, seconds=FAIR_SECONDS + 1) as floods:
        flat_out = run_openloop(probe, timeout=60)
    for result in (quiet, paced, flat_out):
        if set(result.statuses) - {"200"}:
            raise BenchError(f"{target.name}: the quiet client was answered {result.statuses}")
    return {
        "quiet_p99_us": round(quiet.p99_us, 1),
        "paced_p99_us": round(paced.p99_us, 1),
        "flat_out_p99_us": round(flat_out.p99_us, 1),
        "flat_out_rps": round(floods[0].rps, 1),
        "unfinished": quiet.unfinished + paced.unfinished + flat_out.unfinished,
    }

"""`make bench`, or by hand: python -m bench --quick --only ours,envoy --load hot."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import facts, plan, probes, report
from bench.run import QUICK, Bench, Settings, say
from bench.servers import ROOT, BenchError
from bench.sides import nginx, ours
from bench.sides.context import Context
from bench.tokens import make_token_set

BUILD = ROOT / "build" / "bench"
DOCUMENT = ROOT / "docs" / "performance.md"
PROBES = ("memory", "stalls", "fairness")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measure the verifier beside its alternatives.")
    parser.add_argument("--quick", action="store_true", help="two short rounds, for development; docs stay untouched")
    parser.add_argument("--rounds", type=int, help=f"default {Settings.rounds}")
    parser.add_argument("--seconds", type=int, help=f"a closed-loop window, default {Settings.seconds}")
    parser.add_argument("--short", action="store_true", help=" ".join(f"--{k} {v}" for k, v in plan.SHORT.items()))
    parser.add_argument("--only", default="", metavar="TARGET,…", help=f"of {', '.join(plan.TARGETS)}")
    parser.add_argument("--load", default="", metavar="LOAD,…", help=f"of {', '.join(plan.LOADS)}")
    parser.add_argument("--probes", default=",".join(PROBES), metavar="PROBE,…", help="of %(default)s, or none")
    parser.add_argument(
        "--before", type=Path, metavar="PATH", help="an older checkout or its virtual environment, measured beside ours"
    )
    parser.add_argument("--no-rounds", action="store_true", help="the probes alone")
    parser.add_argument("--server-core", type=int, default=Settings.server_core)
    parser.add_argument("--load-core", type=int, default=Settings.load_core)
    options = parser.parse_args(argv)
    if options.short:
        vars(options).update(plan.SHORT)
    return options


def names(text: str, known: dict[str, Any] | tuple[str, ...], what: str) -> set[str]:
    """A comma-separated list, all of `known` where it is empty; raises BenchError for a name that is not known."""
    wanted = {name.strip() for name in text.split(",") if name.strip()} or set(known)
    if unknown := wanted - set(known):
        raise BenchError(f"no such {what}: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return wanted


def settings_from(options: argparse.Namespace) -> Settings:
    base = QUICK if options.quick else Settings()
    changes = {key: getattr(options, key) for key in ("rounds", "seconds") if getattr(options, key)}
    changes |= {"server_core": options.server_core, "load_core": options.load_core}
    settings = dataclasses.replace(base, **changes)
    if {settings.server_core, settings.load_core} - os.sched_getaffinity(0) or (
        settings.server_core == settings.load_core
    ):
        raise BenchError("two cores are needed: one for what is measured, one for what measures it")
    return settings


def main() -> int:
    options = arguments()
    try:
        return run(options)
    except BenchError as error:
        print(f"\nthe benchmark stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; nothing was written to docs", file=sys.stderr)
        return 130


def run(options: argparse.Namespace) -> int:
    settings = settings_from(options)
    targets = names(options.only, plan.TARGETS, "target")
    before = ours.command_of(options.before) if options.before else None
    if before is None:
        targets.discard("ours-before")
    if not targets:
        raise BenchError("ours-before needs --before")
    loads = names(options.load, plan.LOADS, "load")
    chosen = set() if options.probes == "none" else names(options.probes, PROBES, "probe")
    if not any("ours" in name for name in targets):
        chosen.clear()
    began = time.monotonic()
    say(f"tokens: {settings.distinct:,} for memory, {settings.cold:,} for each COLD load (signing takes a while)")
    tokens = make_token_set(BUILD / "tokens", cold=settings.cold, distinct=settings.distinct)
    os.sched_setaffinity(0, {settings.load_core})  # from here on we only watch, and not on the servers' core
    bench = Bench(settings, Context(BUILD, tokens, before))
    machine = facts.Machine()
    if machine.busy_before > 0.1:
        say(f"something else keeps {machine.busy_before:.0%} of this machine busy: the figures will not mean much")
    results: dict[str, Any] = {}
    failed = False
    with bench.start(nginx.api(bench.context), beside_the_load=True) as bench.api:
        if not options.no_rounds:
            with bench.up(targets):
                bench.check(targets)
                bench.interleave(targets, loads)
            results |= {"windows": bench.windows, "fixed": bench.fixed}
        wanted: dict[str, Callable[[], Any]] = {
            "memory": lambda: probes.memory(bench),
            "stalls": lambda: probes.stalls(bench),
            "fairness": lambda: probes.fairness(bench, targets),
        }
        for name, probe in wanted.items():
            if name not in chosen:
                continue
            try:
                results[name] = probe()
            except BenchError as error:  # half an hour of rounds is not thrown away for a probe
                failed = True
                say(f"\nthe probe of {name} FAILED: {error}")
    results["facts"] = facts.gather(bench.context, settings, machine)
    filtered = options.quick or options.only or options.load or options.no_rounds or chosen != set(PROBES)
    write(results, complete=not failed and not filtered and settings.rounds >= Settings.rounds)
    say(f"\ndone in {(time.monotonic() - began) / 60:.1f} min")
    return int(failed)


def write(results: dict[str, Any], *, complete: bool) -> None:
    """Raw figures always; the document only from a whole run."""
    (BUILD / "results.json").write_text(json.dumps(results, indent=1))
    rendered = report.render(results)
    (BUILD / "report.md").write_text(rendered + "\n")
    say("\n" + rendered)
    where = [BUILD / "results.json", BUILD / "report.md"]
    if complete:
        DOCUMENT.write_text(report.insert(DOCUMENT.read_text(), rendered))
        where.append(DOCUMENT)
    say("\nwritten: " + ", ".join(str(path.relative_to(ROOT)) for path in where))


if __name__ == "__main__":
    sys.exit(main())

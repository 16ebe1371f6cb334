"""From raw windows to the tables of docs/performance.md. Pure: no clock, no files but the two it is handed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench import plan

Window = dict[str, Any]
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


@dataclass(frozen=True)
class Ratio:
    """Taken in each round by itself, so that what slows both sides down cancels out."""

    median: float
    low: float
    high: float
    rounds: int


def ratio(windows: Iterable[Window], load: str, over: str, under: str, value: str = "rps") -> Ratio | None:
    """`value` of target `over` divided by that of `under`, over the rounds that have both; None without any."""
    seen: dict[str, dict[int, float]] = {over: {}, under: {}}
    for window in windows:
        if window["load"] == load and window["target"] in seen:
            seen[window["target"]][window["round"]] = window[value]
    both = sorted(seen[over].keys() & seen[under].keys())
    ratios = [seen[over][number] / seen[under][number] for number in both]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), len(ratios)) if ratios else None


def medians(windows: Iterable[Window], keys: Sequence[str], values: Sequence[str]) -> dict[tuple[Any, ...], Window]:
    """Windows grouped by `keys`, in order of first appearance, with the median of each of `values`."""
    groups: dict[tuple[Any, ...], list[Window]] = {}
    for window in windows:
        groups.setdefault(tuple(window[key] for key in keys), []).append(window)
    return {
        group: {value: statistics.median(member[value] for member in members) for value in values}
        for group, members in groups.items()
    }


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left and all others to the right."""
    lines = [list(head), ["---"] + ["---:"] * (len(head) - 1), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """Three significant digits, thousands with a comma."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def milliseconds(microseconds: float) -> str:
    return number(microseconds / 1000)


def _title(name: str) -> str:
    return plan.TARGETS[name].title


def _short(load: str) -> str:
    return plan.LOADS[load].title.split(":")[0]


def _spread(found: Ratio) -> tuple[str, str]:
    return f"**{number(found.median)}**", f"{number(found.low)} to {number(found.high)}"


def ratios_table(windows: list[Window]) -> str:
    rows = []
    for comparison in plan.COMPARISONS:
        load, ours, other = comparison.load, comparison.ours, comparison.other
        found = ratio(windows, load, ours, other)
        cpu = ratio(windows, load, other, ours, "cpu_us")
        if found is None or cpu is None:
            continue
        rows.append(
            (
                _short(load),
                _title(ours),
                _title(other),
                *_spread(found),
                comparison.goal,
                number(cpu.median),
            )
        )
    return table(("load", "side", "against", "median ratio", "range", "goal", "by CPU"), rows)


def before_table(windows: list[Window]) -> str:
    rows = []
    for line in plan.BEFORE_AFTER:
        rate, cpu = (ratio(windows, line.load, line.ours, line.other, value) for value in ("rps", "cpu_us"))
        if rate and cpu:
            rows.append((_short(line.load), *_spread(rate), line.goal, *_spread(cpu), line.cpu_goal))
    head = ("load", "requests/s, median ratio", "range", "goal", "CPU a request, median ratio", "range", "goal")
    return table(head, rows) if rows else ""


def throughput_tables(windows: list[Window]) -> str:
    values = ("rps", "p50_us", "p99_us", "cpu_us", "rss_mib", "load_busy", "audit_dropped")
    found = medians(windows, ("load", "target"), values)
    parts = []
    for load in plan.LOADS.values():
        rows = [
            (
                _title(target) + (" ¹" if row["load_busy"] > 0.9 else "") + (" ²" if row["audit_dropped"] else ""),
                number(row["rps"]),
                milliseconds(row["p50_us"]),
                milliseconds(row["p99_us"]),
                number(row["cpu_us"]),
                number(row["rss_mib"]),
            )
            for (name, target), row in found.items()
            if name == load.name
        ]
        if rows:
            head = ("side", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "memory MiB")
            parts.append(f"#### {load.title}\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def fixed_table(fixed: list[Window]) -> str:
    values = ("p50_us", "p99_us", "p999_us", "max_us", "late_p99_us", "unfinished")
    rows = [
        (
            _short(load),
            f"{rate:,}",
            _title(target),
            *(milliseconds(row[value]) for value in values[:5]),
            number(row["unfinished"]) if row["unfinished"] else "0",
        )
        for (load, rate, target), row in medians(fixed, ("load", "rate", "target"), values).items()
    ]
    head = (
        "load",
        "requests/s",
        "side",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "generator late p99 ms",
        "unanswered",
    )
    return table(head, rows)


def memory_table(rows: list[Window]) -> str:
    empty = rows[0]["rss_mib"]
    return table(
        ("distinct tokens kept", "resident MiB", "more than empty MiB", "bytes a token"),
        [
            (
                f"{row['tokens']:,}",
                number(row["rss_mib"]),
                number(row["rss_mib"] - empty),
                number((row["rss_mib"] - empty) * 2**20 / row["tokens"]) if row["tokens"] else "",
            )
            for row in rows
        ],
    )


def stalls_table(rows: list[Window]) -> str:
    groups: dict[str, list[Window]] = {}
    for row in rows:
        groups.setdefault(row["event"], []).append(row)
    return table(
        ("while", "p50 ms", "p99 ms", "longest ms, median", "longest ms, worst", "of it the generator ms", "seen"),
        [
            (
                event,
                milliseconds(statistics.median(row["p50_us"] for row in members)),
                milliseconds(statistics.median(row["p99_us"] for row in members)),
                milliseconds(statistics.median(row["max_us"] for row in members)),
                milliseconds(max(row["max_us"] for row in members)),
                milliseconds(max(row["late_max_us"] for row in members)),
                f"{sum(bool(row['happened']) for row in members)} of {len(members)}",
            )
            for event, members in groups.items()
        ],
    )


def fairness_table(rows: list[Window]) -> str:
    values = ("quiet_p99_us", "paced_p99_us", "flat_out_p99_us", "flat_out_rps")
    lines = []
    for (target,), row in medians(rows, ("target",), values).items():
        mine = [window for window in rows if window["target"] == target]
        times = [
            statistics.median(window[value] / window["quiet_p99_us"] for window in mine)
            for value in ("paced_p99_us", "flat_out_p99_us")
        ]
        lines.append(
            (
                _title(target),
                milliseconds(row["quiet_p99_us"]),
                milliseconds(row["paced_p99_us"]),
                number(times[0]),
                milliseconds(row["flat_out_p99_us"]),
                number(times[1]),
                number(row["flat_out_rps"]),
            )
        )
    head = (
        "side",
        "p99 alone ms",
        "p99 beside 1,000/s ms",
        "times",
        "p99 beside 8 connections ms",
        "times",
        "garbage/s",
    )
    return table(head, lines)


def facts_table(facts: dict[str, str]) -> str:
    return table(("fact", "value"), facts.items())


def render(results: dict[str, Any]) -> str:
    """Everything between the markers."""
    parts = [
        "### Where and with what\n\n" + facts_table(results["facts"]),
    ]
    windows, fixed = results.get("windows", []), results.get("fixed", [])
    if windows:
        parts.append(
            "### Ours against the others: requests per second\n\nThe median over the rounds of (ours / other) in the "
            "same round, and its range. A goal is what the project set itself; nothing asserts it. By CPU: how many "
            "times our CPU time for a request the other side spends.\n\n" + ratios_table(windows)
        )
    if before := before_table(windows):
        parts.append(
            "### Ours, before and after\n\nThe median over the rounds of (ours / the older version) in the same round, "
            "and its range. In requests a second more than 1 is better, in CPU less than 1.\n\n" + before
        )
    if fixed:
        parts.append(
            "### Latency at a fixed rate\n\nOpen loop: every wait counts from when the request was due. Medians over "
            "the rounds. What the generator itself was late is part of the waits.\n\n" + fixed_table(fixed)
        )
    for key, title, render_rows in (
        ("memory", "### Memory: what a kept token costs", memory_table),
        ("stalls", "### The longest wait while something happens", stalls_table),
        ("fairness", "### One client's p99 beside another client's garbage", fairness_table),
    ):
        if results.get(key):
            parts.append(f"{title}\n\n{render_rows(results[key])}")
    if windows:
        parts.append(
            "### As fast as each side can\n\nClosed loop, medians over the rounds; except one at a time, p50 and p99 "
            "are those of a saturated side. CPU and memory are those of all its processes, nginx included where it "
            "stands in front. ¹ the load generator's core was over 90 % busy: the side may be faster than shown. "
            "² it dropped audit lines.\n\n" + throughput_tables(windows)
        )
    return "\n\n".join(parts)


def insert(document: str, rendered: str) -> str:
    """`document` with what stands between the markers replaced; raises ValueError without them."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{rendered}\n\n{END}{after}"

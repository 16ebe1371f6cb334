"""Draws the boards from a real Prometheus's answers: `make pictures` writes docs/dashboards/*.png.

This is a drawing, not Grafana: it puts panels where the JSON puts them, asks their expressions, and uses their units,
colours and thresholds. Eight minutes of traffic with an incident: an issuer without keys, then a broken configuration.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from grafana.live import ROOT, Live, Prometheus, ask_with

TARGET = ROOT / "docs" / "dashboards"
MINUTES = 8.0
WIDTH, CELL, GAP, HEADER = 1600, 34, 8, 64  # pixels; CELL is the height of one grid unit
DPI = 100

BACKGROUND, SURFACE, EDGE, TEXT, MUTED = "#111217", "#181b1f", "#2a2d34", "#d8d9da", "#8e9099"
NAMED = {
    "green": "#73bf69",
    "yellow": "#f2cc0c",
    "orange": "#ff9830",
    "red": "#f2495c",
    "blue": "#5794f2",
    "purple": "#b877d9",
    "super-light-purple": "#deb6f2",
}
CLASSIC = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#b877d9", "#8ab8ff", "#fade2a", "#ff7383", "#96d98d", "#ca95e5"]
SHADES = (1.0, 0.72, 0.5, 0.86, 0.6, 0.4)

Points = tuple[list[float], list[float]]


def human(value: float, unit: str, decimals: int | None = None) -> str:
    """A number as Grafana writes it."""

    def digits(number: float) -> str:
        if decimals is not None:
            return f"{number:.{decimals}f}"
        return f"{number:.3g}" if 0.1 <= abs(number) < 1000 else f"{number:.2f}".rstrip("0").rstrip(".")

    if value != value:
        return "–"  # noqa: RUF001 - a dash, as Grafana has it
    if unit == "s":
        for factor, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
            if abs(value) >= factor:
                return f"{digits(value / factor)} {name}"
        return f"{digits(value * 1e6)} µs" if value else "0 s"
    if unit == "bytes":
        return f"{value / 2**20:.1f} MiB"
    if unit == "percentunit":
        return f"{digits(value * 100)}%"
    return digits(value) + {"reqps": " req/s", "reqpm": " req/min"}.get(unit, "")


def legend(template: str, metric: dict[str, str]) -> str:
    """The name of a series."""
    return re.sub(r"{{(\w+)}}", lambda match: metric.get(match[1], ""), template)


class Board:
    """One dashboard on one picture."""

    def __init__(self, board: dict[str, Any], prometheus: Prometheus, start: float, end: float) -> None:
        self._board, self._prometheus, self._start, self._end = board, prometheus, start, end
        bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
        self._height = HEADER + bottom * CELL + GAP
        self._figure: Figure = plt.figure(figsize=(WIDTH / DPI, self._height / DPI), dpi=DPI, facecolor=BACKGROUND)
        self._canvas = self._axes(0, 0, WIDTH, self._height)
        self._canvas.set(xlim=(0, WIDTH), ylim=(self._height, 0))
        self._canvas.axis("off")

    def _axes(self, x: float, y: float, w: float, h: float) -> Axes:
        return self._figure.add_axes((x / WIDTH, 1 - (y + h) / self._height, w / WIDTH, h / self._height))

    def _text(self, x: float, y: float, text: str, size: float = 9, color: str = TEXT, **more: Any) -> None:
        self._canvas.text(x, y, text, fontsize=size * 72 / DPI * 1.28, color=color, va="center", **more)

    def draw(self, path: Path) -> None:
        """Write the picture."""
        self._text(GAP + 6, 24, self._board["title"], 15, weight="bold")
        self._text(GAP + 6, 48, self._board["description"], 9, MUTED)
        minutes = (self._end - self._start) / 60
        note = f"{minutes:.0f} minutes of test traffic on two verifiers; oauth2-proxy replayed. A drawing, not Grafana."
        self._text(WIDTH - GAP - 6, 24, note, 9, MUTED, ha="right")
        for panel in self._board["panels"]:
            place = panel["gridPos"]
            x, w = GAP + place["x"] / 24 * (WIDTH - GAP), place["w"] / 24 * (WIDTH - GAP) - GAP
            y, h = HEADER + place["y"] * CELL, place["h"] * CELL - GAP
            if panel["type"] == "row":
                self._text(x + 6, y + h / 2, "⌄  " + panel["title"], 10.5, weight="bold")
                continue
            box = FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0,rounding_size=3", fc=SURFACE, ec=EDGE, lw=0.8)
            self._canvas.add_patch(box)
            self._text(x + 10, y + 16, panel["title"], 9.5)
            (self._stat if panel["type"] == "stat" else self._series)(panel, x, y, w, h)
        self._figure.savefig(path, facecolor=BACKGROUND)
        plt.close(self._figure)
        Image.open(path).convert("RGB").save(path, optimize=True)

    def _ask(self, panel: dict[str, Any]) -> dict[str, Points]:
        found: dict[str, Points] = {}
        for target in panel["targets"]:
            series = self._prometheus.query_range(ask_with(target["expr"]), self._start, self._end, 2)
            named = {legend(target["legendFormat"], one["metric"]): one for one in series}
            for name, one in sorted(named.items()):
                times, values = zip(*((float(t), float(v)) for t, v in one["values"]), strict=True)
                if any(value == value for value in values):
                    found[name] = (list(times), list(values))
        return found

    def _stat(self, panel: dict[str, Any], x: float, y: float, w: float, h: float) -> None:
        defaults, options = panel["fieldConfig"]["defaults"], panel["options"]
        found = self._ask(panel)
        middle = y + h / 2 + 12
        if not found:
            self._text(x + w / 2, middle, defaults["noValue"], 12, MUTED, ha="center")
            return
        times, values = next(iter(found.values()))
        last = [value for value in values if value == value][-1]
        color = self._level(defaults["thresholds"], last)
        text = human(last, defaults["unit"], defaults.get("decimals"))
        if mappings := defaults.get("mappings"):
            mapped = mappings[0]["options"].get(f"{last:g}", {"text": text, "color": "blue"})
            text, color = mapped["text"], NAMED[mapped["color"]]
        if options["textMode"] == "name":
            text = ", ".join(found)
        if options["graphMode"] == "area":
            spark = self._axes(x + 1, y + h * 0.68, w - 2, h * 0.31)
            spark.axis("off")
            spark.plot(times, values, color=color, lw=1.1, alpha=0.8)
            low = min((v for v in values if v == v), default=0)
            spark.fill_between(times, values, low, color=color, alpha=0.14, lw=0)
            spark.margins(x=0)
        self._text(x + w / 2, middle - 14, text, 21 if len(text) < 10 else 17, color, ha="center", weight="bold")

    @staticmethod
    def _level(thresholds: dict[str, Any], value: float) -> str:
        color = "blue"
        for step in thresholds["steps"]:
            if step["value"] is None or value >= step["value"]:
                color = step["color"]
        return NAMED[color]

    @staticmethod
    def _color(panel: dict[str, Any], name: str, seen: dict[str, int]) -> str | None:
        color = None
        for override in panel["fieldConfig"]["overrides"]:
            if re.search(override["matcher"]["options"].strip("/"), name):
                wanted = override["properties"][0]["value"]
                color = NAMED[wanted["fixedColor"]]
                if wanted["mode"] == "shades":
                    number = seen[color] = seen.get(color, -1) + 1
                    light = SHADES[number % len(SHADES)]
                    red, green, blue = mpl.colors.to_rgb(color)
                    color = mpl.colors.to_hex((red * light, green * light, blue * light))
        return color

    def _series(self, panel: dict[str, Any], x: float, y: float, w: float, h: float) -> None:
        defaults = panel["fieldConfig"]["defaults"]
        unit, custom = defaults["unit"], defaults["custom"]
        found = self._ask(panel)
        if not found:
            self._text(x + w / 2, y + h / 2 + 8, defaults["noValue"], 12, MUTED, ha="center")
            return
        rows = min(len(found), 5)
        plot = self._axes(x + 66, y + 34, w - 82, h - 34 - 26 - 22 - 17 * rows)
        seen: dict[str, int] = {}
        colors = {
            name: self._color(panel, name, seen) or CLASSIC[number % len(CLASSIC)] for number, name in enumerate(found)
        }
        times = sorted({t for ts, _ in found.values() for t in ts})
        filled = {n: [dict(zip(ts, vs, strict=True)).get(t, math.nan) for t in times] for n, (ts, vs) in found.items()}
        if "stacking" in custom:
            heights = [[0.0 if v != v else v for v in values] for values in filled.values()]
            plot.stackplot(times, heights, colors=colors.values(), alpha=0.62, lw=0)
        else:
            for name, values in filled.items():
                plot.plot(times, values, color=colors[name], lw=1.6, solid_capstyle="round")
                plot.fill_between(times, values, 0, color=colors[name], alpha=0.06, lw=0)
        busy = any(value > 0 for values in filled.values() for value in values)
        self._style(plot, unit, busy=busy)
        if "thresholdsStyle" in custom:
            for step in defaults["thresholds"]["steps"]:
                if step["value"] is not None and step["value"] <= plot.get_ylim()[1]:
                    plot.axhline(step["value"], color=NAMED[step["color"]], lw=1, ls=(0, (5, 4)), alpha=0.8)
        self._legend(filled, colors, unit, x, y + h - 17 * rows - 14, w, rows)

    def _style(self, plot: Axes, unit: str, *, busy: bool) -> None:
        plot.set_facecolor("none")
        plot.set_xlim(self._start, self._end)
        plot.set_ylim(0, plot.get_ylim()[1] if busy else 1)
        ticks = [self._start + (self._end - self._start) * i / 4 for i in range(5)]
        plot.set_xticks(ticks, [time.strftime("%H:%M", time.gmtime(tick)) for tick in ticks])
        plot.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=unit == "none"))
        plot.yaxis.set_major_formatter(lambda value, _: human(value, unit))
        plot.tick_params(colors=MUTED, labelsize=8.2, length=0, pad=5)
        plot.grid(color=EDGE, lw=0.7)
        plot.set_axisbelow(True)
        for spine in plot.spines.values():
            spine.set_visible(False)

    def _legend(
        self, filled: dict[str, list[float]], colors: dict[str, str], unit: str, x: float, y: float, w: float, rows: int
    ) -> None:
        columns = (x + w - 176, x + w - 94, x + w - 12)
        for column, title in zip(columns, ("mean", "max", "last"), strict=True):
            self._text(column, y - 4, title, 7.8, NAMED["blue"], ha="right")
        shown = list(filled.items())
        if len(shown) > rows:  # Grafana scrolls; the most frequent are shown here
            shown = sorted(shown, key=lambda item: -sum(v for v in item[1] if v == v))[:rows]
            self._text(x + 12, y - 4, f"{len(filled)} series, the first {rows} by size", 7.8, MUTED)
        for number, (name, values) in enumerate(shown):
            line = y + 13 + 17 * number
            known = [value for value in values if value == value]
            self._canvas.plot([x + 12, x + 24], [line, line], color=colors[name], lw=3, solid_capstyle="butt")
            self._text(x + 31, line, name or "all", 8.4)
            for column, value in zip(columns, (sum(known) / len(known), max(known), known[-1]), strict=True):
                self._text(column, line, human(value, unit), 8.4, ha="right")


def main(minutes: float) -> None:
    """Run the traffic, then draw."""
    seconds = minutes * 60
    with Live(replicas=2) as live:
        start = time.time() + 15
        story = [
            (0.30, live.lose_issuer),
            (0.62, live.find_issuer),
            (0.80, live.break_configuration),
            (0.93, live.find_issuer),
            (1.0, lambda: None),
        ]
        for share, act in story:
            time.sleep(max(0.0, start + share * seconds - time.time()))
            act()
        TARGET.mkdir(parents=True, exist_ok=True)
        for source in sorted((ROOT / "grafana" / "dashboards").glob("*.json")):
            board = json.loads(source.read_text(encoding="utf-8"))
            Board(board, live.prometheus, start, start + seconds).draw(TARGET / f"{source.stem}.png")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else MINUTES)

"""Draws the boards from a real Prometheus's answers: `make pictures` writes docs/dashboards/*.png.

This is a drawing, not Grafana: it puts panels where the JSON puts them, asks their expressions, and uses their units,
colours, legends and thresholds. Eight minutes of traffic with an incident: an issuer without keys, then a broken
configuration.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text
from PIL import Image

from grafana.live import ROOT, Live, Prometheus, ask_with

Line = Any  # an array of the values at each step of the time axis, NaN where there is none

TARGET = ROOT / "docs" / "dashboards"
MINUTES = 8.0
STEP = 2.0  # seconds between two values
WIDTH, CELL, GAP, HEADER = 1600, 34, 8, 64  # pixels; CELL is the height of one grid unit
DPI = 100

BACKGROUND, SURFACE, EDGE, TEXT, MUTED = "#111217", "#181b1f", "#2a2d34", "#d8d9da", "#8e9099"
# Grafana's dark theme: its names, and the order in which `palette-classic` uses them.
NAMED = {
    "green": "#73bf69",
    "yellow": "#fade2a",
    "blue": "#5794f2",
    "orange": "#ff9830",
    "red": "#f2495c",
    "purple": "#b877d9",
    "dark-green": "#37872d",
    "dark-yellow": "#e0b400",
    "dark-blue": "#1f60c4",
    "dark-orange": "#fa6400",
    "dark-red": "#c4162a",
    "dark-purple": "#8f3bb8",
    "super-light-green": "#c8f2c2",
    "super-light-yellow": "#fff899",
    "super-light-blue": "#c0d8ff",
    "super-light-orange": "#ffcb7d",
    "super-light-red": "#ffa6b0",
    "super-light-purple": "#deb6f2",
}
CLASSIC = list(NAMED.values())
CALCS: dict[str, tuple[str, Callable[[Line], float]]] = {
    "mean": ("mean", np.mean),
    "max": ("max", np.max),
    "lastNotNull": ("last", lambda line: line[-1]),
}
ROW = 17  # pixels, of a legend
LEAST_PLOT = 90  # pixels that a legend below leaves to the plot
DASH = 3.0  # points for each point of line width


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
        return f"{digits(value / 2**20)} MiB"
    if unit == "percentunit":
        return f"{digits(value * 100)}%"
    return digits(value) + {"reqps": " req/s", "reqpm": " req/min"}.get(unit, "")


def legend(template: str, metric: dict[str, str]) -> str:
    """The name of a series."""
    return re.sub(r"{{(\w+)}}", lambda match: metric.get(match[1], ""), template)


def series_colors(panel: dict[str, Any], names: Iterable[str]) -> dict[str, str]:
    """Each series' colour: the one that an override gives to its name, else the next of Grafana's palette."""
    fixed = {
        override["matcher"]["options"]: NAMED[override["properties"][0]["value"]["fixedColor"]]
        for override in panel["fieldConfig"]["overrides"]
    }
    return {name: fixed.get(name, CLASSIC[number % len(CLASSIC)]) for number, name in enumerate(names)}


def coinciding(lines: dict[str, Line]) -> list[list[str]]:
    """The series in groups whose lines lie on each other, at three of four points and within 1 % of the height."""
    top = max((np.nanmax(line) for line in lines.values()), default=0.0)
    groups: list[list[str]] = []
    for name, line in lines.items():
        for group in groups:
            if np.mean(np.abs(lines[group[0]] - line) <= 0.01 * top) >= 0.75:
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def reduce_colors(path: Path) -> None:
    """Leave 256 colours, our own among them: 40 % of the size, and a repository keeps every version of a picture."""
    image = Image.open(path).convert("RGB")
    ours = bytes.fromhex("".join((BACKGROUND, SURFACE, EDGE, TEXT, MUTED, *CLASSIC)).replace("#", ""))
    others = image.quantize(256 - len(ours) // 3).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*ours, *others[: 768 - len(ours)]])
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


class Table:
    """A legend's words: for each series its name and what Grafana computes from its values."""

    def __init__(self, lines: dict[str, Line], calcs: list[str], unit: str) -> None:
        known = {name: line[~np.isnan(line)] for name, line in lines.items()}
        self.titles = [CALCS[calc][0] for calc in calcs]
        self.rows = {name: [human(CALCS[calc][1](line), unit) for calc in calcs] for name, line in known.items()}
        self.columns = [list(lines), *([*column] for column in zip(self.titles, *self.rows.values(), strict=True))]
        self._size = {name: line.sum() for name, line in known.items()}

    def first(self, count: int) -> list[str]:
        """All series, or as many of the largest."""
        names = list(self.rows)
        return names if len(names) <= count else sorted(names, key=lambda name: -self._size[name])[:count]


class Board:
    """One dashboard on one picture."""

    def __init__(self, board: dict[str, Any], prometheus: Prometheus, start: float, end: float) -> None:
        self._board, self._prometheus, self._start, self._end = board, prometheus, start, end
        self._times = np.arange(start, end + STEP / 2, STEP)
        bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
        self._height = HEADER + bottom * CELL + GAP
        self._figure: Figure = plt.figure(figsize=(WIDTH / DPI, self._height / DPI), dpi=DPI, facecolor=BACKGROUND)
        self._canvas = self._axes(0, 0, WIDTH, self._height)
        self._canvas.set(xlim=(0, WIDTH), ylim=(self._height, 0))
        self._canvas.axis("off")

    def _axes_box(self, x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        return (x / WIDTH, 1 - (y + h) / self._height, w / WIDTH, h / self._height)

    def _axes(self, x: float, y: float, w: float, h: float) -> Axes:
        return self._figure.add_axes(self._axes_box(x, y, w, h))

    def _text(self, x: float, y: float, text: str, size: float = 9, color: str = TEXT, **more: Any) -> Text:
        return self._canvas.text(x, y, text, fontsize=size * 72 / DPI * 1.28, color=color, va="center", **more)

    def _width(self, texts: Iterable[str], size: float) -> float:
        """The widest of these texts, in pixels."""
        drawn = [self._text(0, 0, text, size) for text in texts]
        widths = [float(text.get_window_extent().width) for text in drawn]
        for text in drawn:
            text.remove()
        return max(widths, default=0.0)

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
        reduce_colors(path)

    def _ask(self, panel: dict[str, Any]) -> dict[str, Line]:
        """The lines of a panel by their names in the legend."""
        found: dict[str, Line] = {}
        times = {"start": str(self._start), "end": str(self._end), "step": str(STEP)}
        for target in panel["targets"]:
            series = self._prometheus.get("query_range", query=ask_with(target["expr"]), **times)["result"]
            named = {legend(target["legendFormat"], one["metric"]): one for one in series}
            for name, one in sorted(named.items()):
                at, values = np.array(one["values"], float).T
                line = np.full(len(self._times), np.nan)
                line[np.rint((at - self._start) / STEP).astype(int)] = values
                if not np.isnan(line).all():
                    found[name] = line
        return found

    def _stat(self, panel: dict[str, Any], x: float, y: float, w: float, h: float) -> None:
        defaults, options = panel["fieldConfig"]["defaults"], panel["options"]
        found = self._ask(panel)
        middle = y + h / 2 + 12
        if not found:
            self._text(x + w / 2, middle, defaults["noValue"], 12, MUTED, ha="center")
            return
        line = next(iter(found.values()))
        last = line[~np.isnan(line)][-1]
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
            spark.plot(self._times, line, color=color, lw=1.1, alpha=0.8)
            spark.fill_between(self._times, line, np.nanmin(line), color=color, alpha=0.14, lw=0)
            spark.margins(x=0)
        self._text(x + w / 2, middle - 14, text, 21 if len(text) < 10 else 17, color, ha="center", weight="bold")

    @staticmethod
    def _level(thresholds: dict[str, Any], value: float) -> str:
        color = "blue"
        for step in thresholds["steps"]:
            if step["value"] is None or value >= step["value"]:
                color = step["color"]
        return NAMED[color]

    def _series(self, panel: dict[str, Any], x: float, y: float, w: float, h: float) -> None:
        defaults = panel["fieldConfig"]["defaults"]
        unit, custom = defaults["unit"], defaults["custom"]
        found = self._ask(panel)
        if not found:
            self._text(x + w / 2, y + h / 2 + 8, defaults["noValue"], 12, MUTED, ha="center")
            return
        colors = series_colors(panel, found)
        table = Table(found, panel["options"]["legend"]["calcs"], unit)
        if panel["options"]["legend"]["placement"] == "right":
            wide = min(0.6 * w, 31 + sum(self._width(column, 8.4) + 14 for column in table.columns))
            rows = int((h - 34 - 2 * ROW) // ROW)
            self._legend(table, colors, x + w - wide, y + 40, wide, rows)
            plot_w, plot_h = w - wide, h - 34 - 30
        else:
            rows = min(len(found), int((h - 34 - 48 - LEAST_PLOT) // ROW))
            self._legend(table, colors, x, y + h - ROW * rows - 14, w, rows)
            plot_w, plot_h = w, h - 34 - 48 - ROW * rows
        plot = self._axes(x + 66, y + 34, plot_w - 82, plot_h)
        if "stacking" in custom:
            self._stack(plot, found, colors)
        else:
            self._lines(plot, found, colors)
        busy = any(np.nanmax(line) > 0 for line in found.values())
        left = self._style(plot, unit, busy=busy)
        plot.set_position(self._axes_box(x + left, y + 34, plot_w - left - 16, plot_h))
        if "thresholdsStyle" in custom:
            for step in defaults["thresholds"]["steps"]:
                if step["value"] is not None and step["value"] <= plot.get_ylim()[1]:
                    plot.axhline(step["value"], color=NAMED[step["color"]], lw=1, ls=(0, (5, 4)), alpha=0.8)

    def _stack(self, plot: Axes, lines: dict[str, Line], colors: dict[str, str]) -> None:
        floor = np.zeros(len(self._times))
        for name, line in lines.items():
            top = floor + np.nan_to_num(line)
            plot.fill_between(self._times, floor, top, color=colors[name], alpha=0.6, lw=0)
            plot.plot(self._times, np.where(top > floor, top, np.nan), color=colors[name], lw=1)
            floor = top

    def _lines(self, plot: Axes, lines: dict[str, Line], colors: dict[str, str]) -> None:
        for group in coinciding(lines):
            for number, name in enumerate(group):
                plot.fill_between(self._times, lines[name], 0, color=colors[name], alpha=0.06, lw=0)
                dashes: Any = "-" if len(group) == 1 else (DASH * number, (DASH, DASH * (len(group) - 1)))
                plot.plot(self._times, lines[name], color=colors[name], lw=1.6, ls=dashes, dash_capstyle="butt")

    def _style(self, plot: Axes, unit: str, *, busy: bool) -> float:
        """Scales, grid and their words. Returns the pixels that the words on the left take."""
        top = plot.get_ylim()[1] if busy else 1
        plot.set_facecolor("none")
        plot.set_xlim(self._start, self._end)
        plot.set_ylim(0, top * 1.03)  # a line at the top stays whole
        ticks = [self._start + (self._end - self._start) * i / 4 for i in range(5)]
        plot.set_xticks(ticks, [time.strftime("%H:%M", time.gmtime(tick)) for tick in ticks])
        plot.get_xticklabels()[0].set_horizontalalignment("left")
        plot.get_xticklabels()[-1].set_horizontalalignment("right")
        scale = 2**20 if unit == "bytes" else 60 if unit == "s" and top >= 120 else 1
        places = mpl.ticker.MaxNLocator(4, integer=unit == "none").tick_values(0, top / scale)
        marks = [place * scale for place in places if 0 <= place * scale <= top * 1.03]
        words = [human(mark, unit) for mark in marks]
        plot.set_yticks(marks, words)
        plot.tick_params(colors=MUTED, labelsize=8.2, length=0, pad=5)
        plot.grid(color=EDGE, lw=0.7)
        plot.set_axisbelow(True)
        for spine in plot.spines.values():
            spine.set_visible(False)
        return max(66.0, 20 + max(float(label.get_window_extent().width) for label in plot.get_yticklabels()))

    def _legend(self, table: Table, colors: dict[str, str], x: float, y: float, w: float, rows: int) -> None:
        widths = [self._width(column, 8.4) + 14 for column in table.columns[1:]]
        edges = [x + w - 12 - sum(widths[number + 1 :]) for number in range(len(widths))]
        for edge, title in zip(edges, table.titles, strict=True):
            self._text(edge, y - 4, title, 7.8, NAMED["blue"], ha="right")
        names = table.first(rows)
        if len(names) < len(colors):  # Grafana scrolls; the largest are shown here
            self._text(x + 12, y - 4, f"{len(names)} of {len(colors)} series, by size", 7.8, MUTED)
        for number, name in enumerate(names):
            line = y + 13 + ROW * number
            self._canvas.plot([x + 12, x + 24], [line, line], color=colors[name], lw=3, solid_capstyle="butt")
            self._text(x + 31, line, name, 8.4)
            for edge, words in zip(edges, table.rows[name], strict=True):
                self._text(edge, line, words, 8.4, ha="right")


def main(minutes: float) -> None:
    """Run the traffic, then draw."""
    seconds = minutes * 60
    with Live(replicas=2) as live:
        start = time.time() + 15
        story: list[tuple[float, Callable[[], None]]] = [
            (0.30, lambda: live.configure(outage=True)),
            (0.62, live.configure),
            (0.80, lambda: live.write("issuers: 7\n")),  # which is refused
            (0.93, live.configure),
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
    main(MINUTES)

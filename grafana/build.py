"""Boards: `python -m grafana.build` makes dashboards/*.json, for Grafana, from boards/*.yaml, for people.

A board is rows, a row is panels side by side, 24 columns wide. A panel is a `stat` (one number) or a `series` (lines
over time). `text` is its description, `exprs` legend → PromQL, `quantiles` a histogram drawn as p50, p95 and p99,
`levels` values from which on a colour holds, `nothing` the words for no data, `runbook` the alert it leads to.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
RUNBOOK = "https://github.com/informationcart/m2m-verifier/blob/main/docs/runbook.md"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

# One meaning, one colour, on every board.
COLORS = {
    "allow": "green",
    "unauthorized": "yellow",
    "forbidden": "orange",
    "error": "red",
    "plain": "blue",
    "second": "purple",
    "third": "super-light-purple",
}
# The legend of a series → its colour. A panel names all of its series or none; without names, Grafana's palette gives
# each series its own colour.
PALETTES = {
    "status": {"200": "allow", "401": "unauthorized", "403": "forbidden", "503": "error"},
    "quantiles": {"p50": "plain", "p95": "second", "p99": "third"},
}
WIDE = 10
"""Columns from which on the legend stands on the right, where it has the whole height: Grafana gives a legend below the
plot at most 35 % of the height, about three rows."""


def stat(spec: dict[str, Any]) -> dict[str, Any]:
    """One number, coloured by its level; with a legend, the legend instead of the number."""
    defaults: dict[str, Any] = {"noValue": spec.get("nothing", "no traffic")}
    levels = spec.get("levels", {"below": "plain"})
    defaults["thresholds"] = _thresholds(levels)
    if "decimals" in spec:
        defaults["decimals"] = spec["decimals"]
    if words := spec.get("words"):
        options = {str(value): {"text": text, "color": COLORS[color]} for value, (text, color) in words.items()}
        defaults["mappings"] = [{"type": "value", "options": options}]
    month = "[30d]" in spec["expr"]  # summed once, not at every pixel of a sparkline
    flat = month or "words" in spec or "name" in spec
    panel = _panel("stat", spec["stat"], spec, {spec.get("name", ""): spec["expr"]}, defaults)
    if month:
        panel["targets"][0]["instant"] = True
    panel["options"] = {
        "colorMode": "value",
        "graphMode": "none" if flat else "area",
        "textMode": "name" if "name" in spec else "value",
        "reduceOptions": {"calcs": ["lastNotNull"]},
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "showPercentChange": False,
        "wideLayout": True,
    }
    return panel


def series(spec: dict[str, Any]) -> dict[str, Any]:
    """Lines over time, or areas on top of each other; dashed lines where a level begins."""
    stacked, levels, colors = spec.get("stacked", False), spec.get("levels"), spec.get("colors", {})
    exprs: dict[str, str] = spec.get("exprs", {})
    if metric := spec.get("quantiles"):
        colors = "quantiles"
        exprs = {
            f"p{q:g}": f"histogram_quantile({q / 100:g}, sum by (le) (rate({metric}_bucket[$__rate_interval])))"
            for q in (50, 95, 99)
        }
    custom: dict[str, Any] = {"lineWidth": 2, "fillOpacity": 8, "showPoints": "never"}
    if stacked:
        custom |= {"lineWidth": 1, "fillOpacity": 60, "stacking": {"mode": "normal"}}
    defaults = {"min": 0, "noValue": spec.get("nothing", "no data"), "color": {"mode": "palette-classic"}}
    if levels:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = _thresholds({"below": "transparent"} | levels)
    panel = _panel("timeseries", spec["series"], spec, exprs, defaults | {"custom": custom})
    palette = PALETTES[colors] if isinstance(colors, str) else colors
    panel["fieldConfig"]["overrides"] = [_override(str(name), color) for name, color in palette.items()]
    right = spec["width"] >= WIDE
    panel["options"] = {
        "legend": {
            "showLegend": True,
            "displayMode": "table",
            "placement": "right" if right else "bottom",
            "calcs": ["max", "lastNotNull"] if right else ["mean", "max", "lastNotNull"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel


def _panel(kind: str, title: str, spec: dict[str, Any], exprs: dict[str, str], defaults: Any) -> dict[str, Any]:
    panel: dict[str, Any] = {"type": kind, "title": title, "description": spec["text"], "datasource": SOURCE}
    if alert := spec.get("runbook"):
        panel["links"] = [_link(f"Runbook: {alert}", url=f"{RUNBOOK}#{alert.lower()}", targetBlank=True)]
    panel["targets"] = [
        {"refId": chr(65 + i), "datasource": SOURCE, "legendFormat": legend, "expr": expr}
        for i, (legend, expr) in enumerate(exprs.items())
    ]
    panel["fieldConfig"] = {"defaults": {"unit": spec["unit"], **defaults}, "overrides": []}
    return panel


def _link(title: str, **given: Any) -> dict[str, Any]:
    """A link with every field that Grafana's schema requires."""
    texts = {"type": "link", "icon": "", "tooltip": "", "tags": []}
    switches = dict.fromkeys(("asDropdown", "targetBlank", "includeVars", "keepTime"), False)
    return {"title": title, **texts, **switches, **given}


def _thresholds(levels: dict[Any, str]) -> dict[str, Any]:
    steps = [{"value": None if v == "below" else v, "color": COLORS.get(c, c)} for v, c in levels.items()]
    return {"mode": "absolute", "steps": steps}


def _override(name: str, color: str) -> dict[str, Any]:
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": COLORS[color]}}],
    }


def board(uid: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Lay the rows out and number the panels."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in spec["rows"]:
        place = {"h": 1, "w": 24, "x": 0, "y": y}
        panels.append({"type": "row", "title": row["row"], "collapsed": False, "gridPos": place, "panels": []})
        x, y, height = 0, y + 1, row["height"]
        for member in row["panels"]:
            if x + member["width"] > 24:
                x, y = 0, y + height
            place = {"h": height, "w": member["width"], "x": x, "y": y}
            panels.append((stat if "stat" in member else series)(member) | {"gridPos": place})
            x += member["width"]
        y += height
    policy = {
        "name": "policy",
        "label": "Policy",
        "type": "query",
        "datasource": SOURCE,
        "query": "label_values(m2m_verifier_decisions_total, policy)",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    datasource = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": uid,
        "title": spec["title"],
        "description": spec["text"],
        "tags": ["auth"],
        "links": [
            _link("Auth boards", type="dashboards", tags=["auth"], asDropdown=True, keepTime=True),
            _link("Runbook", url=RUNBOOK, targetBlank=True),
        ],
        "annotations": {"list": []},
        "templating": {"list": [datasource, policy] if spec.get("by_policy") else [datasource]},
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "graphTooltip": 1,
        "schemaVersion": 39,
        "panels": [{"id": number} | panel for number, panel in enumerate(panels, 1)],
    }


def dump(value: Any, indent: str = "") -> str:
    """JSON that opens only what does not fit on a line."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent + flat) <= 120 or not isinstance(value, (dict, list)):
        return flat
    deeper = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {dump(member, deeper)}" for key, member in value.items()]
        return "{\n" + ",\n".join(deeper + item for item in items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(deeper + dump(member, deeper) for member in value) + f"\n{indent}]"


def boards() -> dict[Path, str]:
    """Each dashboard's file and the text that belongs into it."""
    sources = sorted((HERE / "boards").glob("*.yaml"))
    return {
        HERE / "dashboards" / f"{source.stem}.json": dump(board(source.stem, yaml.safe_load(source.read_text()))) + "\n"
        for source in sources
    }


if __name__ == "__main__":
    for path, text in boards().items():
        path.write_text(text, encoding="utf-8")

"""What a PromQL expression names, what there is to name, and the panels and rules that name it."""

import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import yaml
from prometheus_client.parser import text_string_to_metric_families

from grafana.live import FIXTURE, RULES
from tests.programs import ROOT
from tests.unit.observe.test_metrics import CONTRACT

RULE_FILES = sorted(RULES.glob("*.yaml"))

BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
}
PANELS: dict[str, dict[str, Any]] = {
    f"{uid}: {panel['title']}": panel
    for uid, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
}

# What the verifier promises to its dashboards.
VERIFIER = {name: labels for name, _, labels in CONTRACT if name.startswith("m2m_verifier_")}
# What the canary promises.
CANARY = {
    "m2m_verifier_canary_check_success": {"check"},
    "m2m_verifier_canary_check_unknown": {"check"},
    "m2m_verifier_canary_last_run_timestamp_seconds": set(),
    "m2m_verifier_canary_round_duration_seconds": set(),
}
PROMETHEUS_OWN: dict[str, set[str]] = {"up": set(), "ALERTS": {"alertname", "alertstate"}}
OF_THE_SCRAPE = {"job", "instance"}


class Named(NamedTuple):
    """A metric, the labels it is selected by, and the labels that the whole expression groups and joins by."""

    metric: str
    labels: set[str]
    grouped: set[str]


def named(expr: str) -> Iterator[Named]:
    """Every metric that an expression reads."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expr)
    bare = re.sub(r"\[[^]]*\]|\boffset\s+\w+", "", bare)
    clause = r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)"
    grouped = set(re.findall(r"\w+", " ".join(re.findall(clause, bare))))
    bare = re.sub(clause, "", bare)
    for metric, matchers in re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)\b(?!\s*\()(?:\{([^}]*)\})?", bare):
        if metric not in ("and", "or", "unless", "bool"):
            yield Named(metric, set(re.findall(r"(\w+)\s*[=!]", matchers)), grouped)


@cache
def existing() -> dict[str, set[str]]:
    """Each series' name and labels: the verifier's, oauth2-proxy's, the rules' own and Prometheus's."""
    known = PROMETHEUS_OWN | {rule["record"]: set() for rule in rules() if "record" in rule} | CANARY
    for metric, labels in VERIFIER.items():
        if metric.endswith("_duration_seconds"):
            known |= {f"{metric}_bucket": labels | {"le"}, f"{metric}_sum": labels, f"{metric}_count": labels}
        else:
            known[metric] = labels
    for family in text_string_to_metric_families(FIXTURE.read_text()):
        for sample in family.samples:
            known[sample.name] = known.get(sample.name, set()) | set(sample.labels)
    return known


def unknown(expr: str) -> list[str]:
    """What an expression names that does not exist, in words."""
    reads = list(named(expr))
    wrong = [f"no metric {r.metric}" for r in reads if r.metric not in existing()]
    wrong += [
        f"{r.metric} has no label {label}"
        for r in reads
        if r.metric in existing()
        for label in r.labels - existing()[r.metric] - OF_THE_SCRAPE
    ]
    all_labels = set(chain.from_iterable(existing().get(r.metric, set()) for r in reads)) | OF_THE_SCRAPE
    wrong += [f"grouped by {label}, which nothing has" for r in reads for label in r.grouped - all_labels]
    return wrong


@cache
def rules() -> list[dict[str, Any]]:
    """Every recording and alerting rule."""
    groups = chain.from_iterable(yaml.safe_load(path.read_text())["groups"] for path in RULE_FILES)
    return [rule for group in groups for rule in group["rules"]]


def exprs(board: str) -> list[str]:
    """Every expression of a board's panels."""
    return [target["expr"] for name, panel in PANELS.items() if name.startswith(board) for target in panel["targets"]]


def alerts() -> list[dict[str, Any]]:
    """Every alerting rule."""
    return [rule for rule in rules() if "alert" in rule]

"""A real Prometheus scrapes a real verifier under mixed traffic, and is asked everything that a person would see."""

from collections.abc import Iterator
from typing import Any

import pytest

from grafana.live import Live, Prometheus, ask_with
from tests.e2e.stage import eventually
from tests.ops.pages import DOCS
from tests.ops.promql import PANELS, VERIFIER

CANARY = ("Guard", "Last round", "Checks that passed", "Checks that could not be made", "Duration of a round")
MAY_BE_EMPTY = {
    **{f"m2m-verifier: {panel}": "no canary runs here; tests/e2e/test_guard.py has its metrics" for panel in CANARY},
    "auth-overview: Alerts": "no alert is pending or firing while all is well",
}


EXPRS = [
    pytest.param(name, target["expr"], id=f"{name} [{target['legendFormat']}]")
    for name, panel in PANELS.items()
    for target in panel["targets"]
]


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Prometheus]:
    with Live() as live:
        live.configure(outage=True)  # some decisions end in 503, and a reload is counted
        yield live.prometheus


def numbers(series: list[dict[str, Any]]) -> list[float]:
    return [value for one in series if (value := float(one["value"][1])) == value]  # a NaN is not itself


@pytest.mark.parametrize(("panel", "expr"), EXPRS)
def test_every_expression_of_every_panel_returns_numbers(prometheus: Prometheus, panel: str, expr: str) -> None:
    if panel in MAY_BE_EMPTY:
        prometheus.query(ask_with(expr))
    else:
        eventually(lambda: numbers(prometheus.query(ask_with(expr))), f"{panel} has numbers")


def test_what_may_be_empty_is_on_a_board() -> None:
    assert set(MAY_BE_EMPTY) <= PANELS.keys()


@pytest.mark.parametrize("metric", sorted(VERIFIER))
def test_a_metric_has_the_labels_that_it_promises(prometheus: Prometheus, metric: str) -> None:
    found = eventually(lambda: prometheus.query(f'{{__name__=~"{metric}(_count)?"}}'), f"{metric} is scraped")
    labels = set().union(*(one["metric"] for one in found)) - {"__name__", "job", "instance"}
    assert labels == VERIFIER[metric]


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    def health() -> set[tuple[str, str]]:
        groups = prometheus.get("rules")["groups"]
        return {(rule["health"], rule.get("lastError", "")) for group in groups for rule in group["rules"]}

    eventually(lambda: ("unknown", "") not in health(), "every rule was evaluated")
    assert health() == {("ok", "")}


@pytest.mark.parametrize("query", DOCS["runbook"].blocks("promql"))
def test_the_runbooks_queries_run_as_they_stand(prometheus: Prometheus, query: str) -> None:
    prometheus.query(query)

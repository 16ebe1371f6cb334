"""The alerts are valid, fire when they should and only then, and each has its page in the runbook."""

import re
from itertools import chain
from typing import Any

import pytest
import yaml

from grafana import prometheusrule
from grafana.build import RUNBOOK
from grafana.live import binary
from tests.ops.pages import DOCS
from tests.ops.promql import RULE_FILES, alerts, rules, unknown
from tests.programs import ROOT, run

CASE_FILES = sorted((ROOT / "grafana" / "alerts" / "tests").glob("*.yaml"))
ALERTS = [pytest.param(alert, id=alert["alert"]) for alert in alerts()]


def cases() -> list[dict[str, Any]]:
    return list(chain.from_iterable(yaml.safe_load(path.read_text())["tests"] for path in CASE_FILES))


def test_a_missing_binary_is_an_error_that_names_the_make_target() -> None:
    with pytest.raises(RuntimeError, match="no-such-tool is not installed: run `make prometheus`"):
        binary("no-such-tool")


def test_promtool_finds_the_rules_valid() -> None:
    run(binary("promtool"), "check", "rules", *map(str, RULE_FILES))


def test_promtool_sees_every_alert_fire_and_stay_silent_as_its_cases_say() -> None:
    run(binary("promtool"), "test", "rules", *map(str, CASE_FILES))


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_case_that_fires_and_one_that_must_not(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    firing = [sample for case in cases() for test in case.get("promql_expr_test", ()) for sample in test["exp_samples"]]
    silent = [
        test["alertname"] for case in cases() for test in case.get("alert_rule_test", ()) if not test["exp_alerts"]
    ]
    assert [sample for sample in firing if f'alertname="{name}"' in sample["labels"] and sample["value"] == 1]
    assert name in silent


def test_no_two_cases_have_the_same_sentence_for_the_same_alert() -> None:
    sentences = [(case["name"], str(case.get("promql_expr_test") or case.get("alert_rule_test"))) for case in cases()]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_how_bad_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert alert["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOK}#{alert['alert'].lower()}"
    # A template names only labels that the alert has: all of the series, where nothing is summed up.
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
    grouped = set(chain.from_iterable(re.findall(r"\w+", by) for by in re.findall(r"by \(([^)]*)\)", alert["expr"])))
    assert used <= (grouped or {"issuer", "instance"})


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.get("alert") or rule["record"]) for rule in rules()])
def test_a_rule_names_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    assert unknown(rule["expr"]) == []


def test_the_runbook_says_of_each_alert_and_no_other_what_it_means_where_to_look_and_what_to_do() -> None:
    sections = DOCS["runbook"].sections()
    assert sorted(sections) == sorted(alert["alert"] for alert in alerts())
    words = ("**Means.**", "**Look.**", "**Do.**")
    assert [(name, word) for name, text in sections.items() for word in words if word not in text] == []


@pytest.mark.parametrize("query", DOCS["runbook"].blocks("promql"))
def test_the_runbooks_queries_name_metrics_that_exist(query: str) -> None:
    assert unknown(query) == []


def test_every_file_of_rules_has_its_prometheusrule() -> None:
    assert set(prometheusrule.TARGETS) == {path.stem for path in RULE_FILES}


@pytest.mark.parametrize("name", prometheusrule.TARGETS)
def test_a_prometheusrule_in_the_manifests_holds_the_rules_of_its_file(name: str) -> None:
    text = prometheusrule.TARGETS[name].read_text()

    assert text == prometheusrule.prometheusrule(name), "run `make manifests`"
    assert yaml.safe_load(text)["spec"] == yaml.safe_load((prometheusrule.ALERTS / f"{name}.yaml").read_text())

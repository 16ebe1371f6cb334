"""The boards name what exists, explain themselves and lead to the runbook."""

import json
from itertools import combinations
from typing import Any

import pytest
from promql import ROOT, VERIFIER, named, runbook, unknown

from grafana import build

UIDS = ["auth-overview", "m2m-verifier", "oauth2-proxy"]


def board(uid: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "grafana" / "dashboards" / f"{uid}.json").read_text())
    return loaded


def panels(uid: str) -> list[dict[str, Any]]:
    return [panel for panel in board(uid)["panels"] if panel["type"] != "row"]


NAMED = {f"{uid}: {panel['title']}": panel for uid in UIDS for panel in panels(uid)}
PANELS = [pytest.param(panel, id=name) for name, panel in NAMED.items()]
SERIES = [pytest.param(panel, id=name) for name, panel in NAMED.items() if panel["type"] == "timeseries"]


@pytest.mark.parametrize(
    ("expr", "problems"),
    [
        ("rate(m2m_verifier_denials_total[5m])", ["no metric m2m_verifier_denials_total"]),
        ("sum(oauth2_proxy_requests_total{path='/'})", ["oauth2_proxy_requests_total has no label path"]),
        ("sum by (client_id) (rate(m2m_verifier_decisions_total[5m]))", ["grouped by client_id, which nothing has"]),
        (
            'sum by (le) (rate(m2m_verifier_decision_duration_seconds_bucket{status="200"}[5m] offset 1d))',
            [],
        ),
        ('up{job="x"} == 1 unless on (instance) m2m_verifier_jwks_keys', []),
    ],
)
def test_a_metric_or_label_that_does_not_exist_is_found(expr: str, problems: list[str]) -> None:
    assert unknown(expr) == problems


def test_the_checked_in_json_is_what_the_source_makes() -> None:
    assert {path.name: path.read_text() for path in (ROOT / "grafana" / "dashboards").iterdir()} == {
        path.name: text for path, text in build.boards().items()
    }, "run `make manifests`"


@pytest.mark.parametrize("panel", PANELS)
def test_every_expression_names_metrics_and_labels_that_exist(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    assert [wrong for target in panel["targets"] for wrong in unknown(target["expr"])] == []


def test_every_metric_of_the_verifier_is_on_a_board() -> None:
    drawn = {
        read.metric.removesuffix("_bucket")
        for uid in UIDS
        for panel in panels(uid)
        for target in panel["targets"]
        for read in named(target["expr"])
    }
    assert set(VERIFIER) - drawn == set()


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_has_a_unit_a_description_and_words_for_no_data(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert len(panel["description"]) > 20
    assert defaults["unit"] in {"none", "s", "reqps", "reqpm", "percentunit", "bytes"}
    assert defaults["noValue"]


def overrides(panel: dict[str, Any]) -> dict[str, str]:
    """The colour of each series that has one of its own."""
    found = panel["fieldConfig"]["overrides"]
    assert all(override["matcher"]["id"] == "byName" for override in found)
    return {override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"] for override in found}


@pytest.mark.parametrize("panel", SERIES)
def test_series_without_a_colour_of_their_own_take_the_next_of_the_palette(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["color"] == {"mode": "palette-classic"}


@pytest.mark.parametrize("panel", SERIES)
def test_no_two_series_of_a_panel_are_given_one_colour(panel: dict[str, Any]) -> None:
    colors = list(overrides(panel).values())
    assert len(colors) == len(set(colors))


@pytest.mark.parametrize("panel", SERIES)
def test_a_panel_gives_a_colour_to_all_of_its_series_or_to_none(panel: dict[str, Any]) -> None:
    results = {"hit", "miss"} if "cache" in panel["targets"][0]["expr"] else {"success", "failure"}
    values = {"{{status}}": {"200", "401", "403", "503"}, "{{result}}": results}
    legends = {target["legendFormat"] for target in panel["targets"]}
    names = {name for legend in legends for name in values.get(legend, {legend})}
    assert set(overrides(panel)) in (set(), names)


@pytest.mark.parametrize("panel", SERIES)
def test_a_legend_is_shown_and_stands_on_the_right_of_a_wide_panel(panel: dict[str, Any]) -> None:
    legend = panel["options"]["legend"]
    assert legend["showLegend"]
    assert (legend["placement"] == "right") is (panel["gridPos"]["w"] >= build.WIDE)


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_asks_the_datasource_that_the_viewer_chose(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("uid", UIDS)
def test_a_board_is_provisioned_under_its_file_name_and_offers_its_datasource(uid: str) -> None:
    assert board(uid)["uid"] == uid
    assert board(uid)["templating"]["list"][0]["type"] == "datasource"


@pytest.mark.parametrize("uid", UIDS)
def test_every_variable_in_an_expression_is_one_that_the_board_has(uid: str) -> None:
    variables = {f"${variable['name']}" for variable in board(uid)["templating"]["list"]} | {"$__rate_interval"}
    for panel in panels(uid):
        for target in panel["targets"]:
            used = {word for word in ("$policy", "$__rate_interval", "$issuer") if word in target["expr"]}
            assert used <= variables
            assert target["expr"].count("$") == sum(target["expr"].count(word) for word in used)


@pytest.mark.parametrize("uid", UIDS)
def test_panels_stand_side_by_side_and_never_overlap(uid: str) -> None:
    def overlap(a: dict[str, int], b: dict[str, int]) -> bool:
        across = a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"]
        return across and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]

    places = [panel["gridPos"] for panel in board(uid)["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert not [pair for pair in combinations(places, 2) if overlap(*pair)]
    ids = [panel["id"] for panel in board(uid)["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_link_to_the_runbook_meets_a_heading() -> None:
    anchors = {f"{build.RUNBOOK}#{heading.lower()}" for heading in runbook()}
    links = {link["url"] for uid in UIDS for panel in panels(uid) for link in panel.get("links", [])}
    assert links
    assert links - anchors == set()


@pytest.mark.parametrize("uid", UIDS)
def test_a_board_links_to_the_runbook_and_to_the_others(uid: str) -> None:
    runbook_link, others = board(uid)["links"][1], board(uid)["links"][0]
    assert runbook_link["url"] == build.RUNBOOK
    assert set(others["tags"]) <= set(board(uid)["tags"])


def test_the_overview_shows_browsers_and_machines_side_by_side() -> None:
    titles = [panel["title"] for panel in panels("auth-overview")]
    wanted = [
        "Browser auth rate",
        "M2M auth rate",
        "Error rate",
        "Token validation latency",
        "Browser sessions in flight",
    ]
    start = titles.index(wanted[0])
    assert titles[start : start + 5] == wanted
    latency = panels("auth-overview")[start + 3]
    assert [target["legendFormat"] for target in latency["targets"]] == ["p50", "p95", "p99"]


@pytest.mark.parametrize("uid", UIDS)
def test_a_board_has_a_picture_that_says_it_is_a_drawing(uid: str) -> None:
    page = ROOT / "docs" / "dashboards" / "README.md"
    assert f"]({uid}.png)" in page.read_text()
    assert (page.parent / f"{uid}.png").read_bytes().startswith(b"\x89PNG")
    assert "not Grafana's own rendering" in page.read_text()


@pytest.mark.parametrize("uid", UIDS)
def test_a_picture_has_256_colours_which_keeps_the_repository_small(uid: str) -> None:
    header = (ROOT / "docs" / "dashboards" / f"{uid}.png").read_bytes()[:26]
    assert header[12:16] == b"IHDR"
    assert header[25] == 3  # colour type: a palette

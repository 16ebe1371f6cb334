"""The boards name what exists, explain themselves and lead to the runbook."""

import copy
import json
import re
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest

from grafana import build
from tests.ops.pages import DOCS
from tests.ops.promql import BOARDS, CANARY, PANELS, VERIFIER, exprs, named, unknown
from tests.programs import ROOT, find, run

any_board = pytest.mark.parametrize("uid", BOARDS)
any_panel = pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
any_series = pytest.mark.parametrize(
    "panel", [pytest.param(panel, id=name) for name, panel in PANELS.items() if panel["type"] == "timeseries"]
)


@pytest.mark.parametrize(
    ("expr", "found"),
    [
        ("rate(m2m_verifier_denials_total[5m])", ["no metric m2m_verifier_denials_total"]),
        ("sum(oauth2_proxy_requests_total{path='/'})", ["oauth2_proxy_requests_total has no label path"]),
        ("sum by (client_id) (rate(m2m_verifier_decisions_total[5m]))", ["grouped by client_id, which nothing has"]),
        ('sum by (le) (rate(m2m_verifier_decision_duration_seconds_bucket{status="200"}[5m] offset 1d))', []),
        ('up{job="x"} == 1 unless on (instance) m2m_verifier_jwks_keys', []),
    ],
)
def test_a_metric_or_label_that_does_not_exist_is_found(expr: str, found: list[str]) -> None:
    assert unknown(expr) == found


def test_the_checked_in_json_is_what_the_source_makes() -> None:
    assert {path.name: path.read_text() for path in (ROOT / "grafana" / "dashboards").iterdir()} == {
        path.name: text for path, text in build.boards().items()
    }, "run `make manifests`"


def strictly_read(board: dict[str, Any]) -> str:
    """What Grafana's own types, read strictly, find wrong with a board."""
    done = run(find("dashboards"), "/dev/stdin", input=json.dumps(board), check=False)
    assert done.returncode == bool(done.stdout), done.stderr
    return done.stdout


@any_board
def test_a_board_has_every_field_that_grafana_requires_and_no_other(uid: str) -> None:
    assert strictly_read(BOARDS[uid]) == ""


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda board: board.pop("annotations"), "annotations: required field is missing"),
        (
            lambda board: board["panels"][1]["options"].pop("orientation"),
            "options.orientation: required field is missing",
        ),
        (lambda board: board["panels"][1]["targets"][0].update(query="up"), "unexpected field 'query'"),
        (lambda board: board["panels"][1].update(title=7), "title: json: cannot unmarshal number"),
    ],
)
def test_a_field_that_is_missing_unknown_or_of_another_type_is_found(
    change: Callable[[dict[str, Any]], object], found: str
) -> None:
    board = copy.deepcopy(BOARDS["m2m-verifier"])
    change(board)
    assert found in strictly_read(board)


@any_panel
def test_every_expression_names_metrics_and_labels_that_exist(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    assert [wrong for target in panel["targets"] for wrong in unknown(target["expr"])] == []


def test_every_metric_of_the_verifier_and_the_canary_is_on_a_board() -> None:
    drawn = {read.metric.removesuffix("_bucket") for expr in exprs("") for read in named(expr)}
    assert {*VERIFIER, *CANARY} - drawn == set()


@any_panel
def test_every_panel_has_unit_description_words_for_no_data_and_the_datasource_that_was_chosen(
    panel: dict[str, Any],
) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert len(panel["description"]) > 20
    assert defaults["unit"] in {"none", "s", "reqps", "reqpm", "percentunit", "bytes"}
    assert defaults["noValue"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def overrides(panel: dict[str, Any]) -> dict[str, str]:
    """The colour of each series that has one of its own."""
    found = panel["fieldConfig"]["overrides"]
    assert all(override["matcher"]["id"] == "byName" for override in found)
    return {override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"] for override in found}


@any_series
def test_all_series_of_a_panel_have_a_colour_of_their_own_or_all_take_the_next_of_the_palette(
    panel: dict[str, Any],
) -> None:
    results = {"hit", "miss"} if "cache" in panel["targets"][0]["expr"] else {"success", "failure"}
    values = {"{{status}}": {"200", "401", "403", "503"}, "{{result}}": results}
    legends = {target["legendFormat"] for target in panel["targets"]}
    colors = overrides(panel)
    assert panel["fieldConfig"]["defaults"]["color"] == {"mode": "palette-classic"}
    assert set(colors) in (set(), {name for legend in legends for name in values.get(legend, {legend})})
    assert len(set(colors.values())) == len(colors)


@any_series
def test_a_legend_is_shown_and_stands_on_the_right_of_a_wide_panel(panel: dict[str, Any]) -> None:
    legend = panel["options"]["legend"]
    assert legend["showLegend"]
    assert (legend["placement"] == "right") is (panel["gridPos"]["w"] >= build.WIDE)


@any_board
def test_a_board_has_its_files_name_links_its_datasource_and_every_variable_that_is_used(uid: str) -> None:
    board = BOARDS[uid]
    others, runbook_link = board["links"]
    assert (board["uid"], board["templating"]["list"][0]["type"]) == (uid, "datasource")
    assert (runbook_link["url"], set(others["tags"]) <= set(board["tags"])) == (build.RUNBOOK, True)
    variables = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval"}
    assert {name for expr in exprs(uid) for name in re.findall(r"\$(\w*)", expr)} <= variables


@any_board
def test_panels_stand_side_by_side_and_never_overlap(uid: str) -> None:
    def overlap(a: dict[str, int], b: dict[str, int]) -> bool:
        across = a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"]
        return across and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]

    everything = BOARDS[uid]["panels"]
    places = [panel["gridPos"] for panel in everything]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert not [pair for pair in combinations(places, 2) if overlap(*pair)]
    assert len({panel["id"] for panel in everything}) == len(everything)


def test_every_link_to_the_runbook_meets_a_heading() -> None:
    anchors = {f"{build.RUNBOOK}#{heading.lower()}" for heading in DOCS["runbook"].sections()}
    links = {link["url"] for panel in PANELS.values() for link in panel.get("links", [])}
    assert links
    assert links - anchors == set()


def test_the_overview_shows_browsers_and_machines_side_by_side() -> None:
    wanted = "Browser auth rate|M2M auth rate|Error rate|Token validation latency|Browser sessions in flight"
    titles = [name.removeprefix("auth-overview: ") for name in PANELS]
    assert f"|{wanted}|" in f"|{'|'.join(titles)}|"
    latency = PANELS["auth-overview: Token validation latency"]
    assert [target["legendFormat"] for target in latency["targets"]] == ["p50", "p95", "p99"]


@any_board
def test_a_board_has_a_picture_of_256_colours(uid: str) -> None:
    page = ROOT / "docs" / "dashboards" / "README.md"
    assert f"]({uid}.png)" in page.read_text()
    header = (page.parent / f"{uid}.png").read_bytes()[:26]
    assert (header[:4], header[12:16], header[25]) == (b"\x89PNG", b"IHDR", 3)  # 3: a palette, which keeps it small

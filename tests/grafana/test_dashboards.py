"""The dashboards as checked in: made by the code, complete for a reader, and asking for metrics that exist."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from grafana import ask, queries
from tests.support.loads import ROOT

BOARDS = ask.boards()
PANELS = [(f"{name}: {panel['title']}", panel) for name, board in BOARDS.items() for panel in ask.panels(board)]
RULES = [
    rule
    for path in sorted((ROOT / "grafana/rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
every_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
every_panel = pytest.mark.parametrize("panel", [panel for _, panel in PANELS], ids=[name for name, _ in PANELS])


def test_making_them_again_changes_nothing() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="the extra `grafana` is not installed")
    from grafana.__main__ import FOLDER, dashboards, text_of
    from grafana.__main__ import RULES as RECORDED
    from grafana.rules import percentiles

    made = {name: text_of(board) for name, board in dashboards().items()}
    assert made == {path.name: path.read_text() for path in FOLDER.glob("*.json")}, "run `python -m grafana`"
    assert RECORDED.read_text() == percentiles(), "run `python -m grafana`"


def test_there_are_four() -> None:
    assert {board["title"] for board in BOARDS.values()} == {
        "Live load", "Models side by side", "Under load", "Server and machine",
    }  # fmt: skip
    assert len({board["uid"] for board in BOARDS.values()}) == 4


@every_board
def test_a_dashboard_can_be_narrowed_and_left_for_another(board: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    how_many = [queries.SHOWN] if board["title"] == "Live load" else []
    assert list(variables) == ["datasource", *queries.VARIABLES, *how_many]
    assert variables["datasource"]["type"] == "datasource"
    for name in queries.VARIABLES:
        assert variables[name]["multi"]
        assert variables[name]["includeAll"]
        # All: also the series that lack the label, as those of a load without --label do.
        assert variables[name]["allValue"] == ".*"
        assert variables[name]["datasource"]["uid"] == "${datasource}"
    assert board["links"][0]["includeVars"]
    assert board["description"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


@every_panel
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert defaults["unit"]
    steps = defaults["thresholds"]["steps"]
    assert steps[0]["value"] is None
    assert all(step["color"] for step in steps)
    if panel["type"] not in ("stat", "table", "heatmap"):
        assert panel["options"]["legend"]["showLegend"]
        assert all(target["legendFormat"] for target in panel["targets"])
    if panel["type"] == "table":
        with_unit = {o["matcher"]["options"] for o in panel["fieldConfig"]["overrides"] if o["properties"][0]["value"]}
        assert with_unit == {target["legendFormat"] for target in panel["targets"]}


@every_panel
def test_a_panel_asks_the_chosen_source_for_the_chosen_cells(panel: dict[str, Any]) -> None:
    references = [target["refId"] for target in panel["targets"]]
    assert references == [chr(ord("A") + i) for i in range(len(references))]
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for name, braces in re.findall(r"\b((?:cell:|structbench_|gen_ai_client_)[a-z0-9_:]+)(\{?)", target["expr"]):
            if name not in (*queries.CELL, "structbench_outcome", "structbench_cell_state", "structbench_cells",
                            "structbench_cache_result"):  # fmt: skip
                assert braces, f"{name} without a choice of cells"
        assert target["expr"].count("{") in (target["expr"].count('=~"$label"'), target["expr"].count("ALERTS"))


def test_live_load_is_of_the_running_cell_unless_more_are_chosen() -> None:
    """25 curves in one panel say nothing: a load of eight cells had so many."""
    board = BOARDS["live-load.json"]
    (variable,) = (each for each in board["templating"]["list"] if each["name"] == queries.SHOWN)
    assert variable["current"] == {"selected": True, "text": "the running one", "value": "1"}
    for target in ask.targets(board):
        expr = target.query["expr"]
        assert f"topk(${queries.SHOWN}, " in expr or "ALERTS{" in expr, expr
        assert expr.count("[$__range:2s] @ end()") == expr.count("topk("), "fixed at the end of the range: no jumping"
    assert "topk(1, " in ask.filled(expr, ask.Span(0, 90))


def test_latency_comes_with_exemplars_and_from_the_metric_that_has_them() -> None:
    titled = r"(TTFT|first answer|ITL|e2e) (percentiles|dist)"
    latencies = [panel for _, panel in PANELS if re.match(titled, panel["title"])]
    assert len(latencies) == 2 * len(queries.LATENCIES)
    for panel in latencies:
        with_exemplars = [target for target in panel["targets"] if target["exemplar"]]
        assert len(with_exemplars) == 1
        assert "_seconds_bucket{" in with_exemplars[0]["expr"], "a recorded series has no exemplars"


def names_in(expr: str) -> set[str]:
    """The metrics of a query: what stands before a brace or a bracket, or alone as a sum's argument."""
    without_labels = re.sub(r"(by|on) \([^)]*\)|\{[^}]*\}|\"[^\"]*\"", "", expr)
    return set(re.findall(r"\b(?:cell:|structbench_|gen_ai_client_)[a-z0-9_:]+", without_labels))


def test_every_metric_asked_for_exists() -> None:
    documented = set(
        re.findall(r"\| `([a-z0-9_]+)` \| (?:histogram|counter|gauge)", (ROOT / "docs/live-metrics.md").read_text())
    )
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    asked = {target.query["expr"] for board in BOARDS.values() for target in ask.targets(board)}
    for expr in [*asked, *(rule["expr"] for rule in RULES)]:
        for name in names_in(expr):
            assert name in recorded or re.sub("_(bucket|sum|count)$", "", name) in documented, f"{name} in {expr}"
    assert len(documented) > 25


def test_every_recorded_series_is_used() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    alerts = [rule["expr"] for rule in RULES if "alert" in rule]
    asked = [target.query["expr"] for board in BOARDS.values() for target in ask.targets(board)]
    assert recorded == {name for expr in [*alerts, *asked] for name in names_in(expr) if name.startswith("cell:")}


def test_alerts_and_colors_have_the_limits_of_the_verdict() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="the extra `grafana` is not installed")
    from grafana import parts
    from structbench.verdict import TAIL_OFF

    assert [value for value, _ in parts.LAG] == list(TAIL_OFF)
    saturated = next(rule["expr"] for rule in RULES if rule.get("alert") == "StructbenchClientSaturated")
    limits = re.findall(r"(\w+)_lag_seconds:p99_1m > ([0-9.]+) \* cell:ttft_seconds:p99_1m", saturated)
    assert limits == [("send", str(TAIL_OFF[0])), ("read", str(TAIL_OFF[0]))]


def test_what_is_provisioned_is_what_is_there() -> None:
    source = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    scrape = yaml.safe_load((ROOT / "grafana/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape == "1s"
    provider = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/structbench.yml").read_text())["providers"][0]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"


def test_variables_are_filled_in_as_grafana_does() -> None:
    span = ask.Span(1000, 1090)
    expr = 'rate(x{m=~"$model", l=~"$load", b=~"$label"}[$__rate_interval]) / y[$__range]'
    assert ask.filled(expr, span) == 'rate(x{m=~".*", l=~".*", b=~".*"}[8s]) / y[90s]'
    assert ask.filled('x{m=~"$model"}', span, {"model": "a|b"}) == 'x{m=~"a|b"}'


def test_each_dashboard_has_its_picture_and_the_docs_say_what_it_is() -> None:
    text = (ROOT / "docs/live.md").read_text()
    assert "**not screenshots of Grafana**" in text
    for name in BOARDS:
        picture = f"images/{name.removesuffix('.json')}.png"
        assert f"]({picture})" in text
        assert (ROOT / "docs" / picture).stat().st_size < 200_000

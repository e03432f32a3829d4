"""A real Prometheus with our rules scrapes loads: it agrees with the database, fills every panel, raises alerts."""

from __future__ import annotations

import math
import subprocess
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import structbench
from grafana import ask
from grafana.queries import E2E, ITL, TTFT
from loadgen.simulator import Simulator
from loadgen.telemetry.instruments import GAP_BUCKETS, LATENCY_BUCKETS
from loadgen.types import GATHERED
from structbench.run.runner import Summary
from structbench.suites.answer_book import answer_book
from tests.support.loads import FAST, MODELS, load
from tests.support.prometheus import GRAFANA, NEEDED, Prometheus, prometheus

pytestmark = NEEDED
USUAL = replace(
    FAST, tokens_per_s=150.0, jitter=0.3, parallel=3, prompt_tokens_per_s=20_000.0,
    json_shares={"schema_violation": 0.2, "invalid_json": 0.1}, tool_shares={"no_call": 0.2, "wrong_value": 0.1},
)  # fmt: skip
"""A server that makes 4 requests at a time queue, and a model that is not always right."""
LOADS = ("c=2", "c=4")
REQUESTS = 60
"""Of each cell: it lasts long enough for a rate to see it grow."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A load that has ended, in Prometheus and in the database."""

    prometheus: Prometheus
    span: ask.Span
    """From before the load until Prometheus had all of it."""
    rows: list[dict[str, Any]]

    def value(self, expr: str) -> float | None:
        found = ask.query(self.prometheus.url, expr, self.span.end_s)
        assert len(found) <= 1
        return float(found[0]["value"][1]) if found else None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("prometheus")) as running:
        yield running


@pytest.fixture(scope="module")
def measured(server: Prometheus, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Suites text, json and tools under two loads, with a model that is now and then wrong."""
    start_s = time.time()
    seen: list[Measured] = []

    def report(summary: Summary) -> None:
        rows = _rows_with_cells(summary)
        server.until("sum(structbench_requests_total)", lambda count: count == len(rows))
        server.until('sum(structbench_cells{structbench_cell_state="complete"})', lambda count: count == 6)
        # The rules come after the scrape.
        server.until("count(cell:errors:share)", lambda count: count == 6)
        seen.append(Measured(server, ask.Span(start_s, time.time()), rows))

    with Simulator({**MODELS, "usual": USUAL}, answers=answer_book()) as sim:
        options = structbench.LoadOptions(
            models=["usual"], suites=["text", "json", "tools"], requests=REQUESTS, concurrency=[2, 4], host=sim.url,
            db=tmp_path_factory.mktemp("good") / "good.duckdb", metrics_port=server.metrics_port, workers=1,
            mean_input_tokens=100, stddev_input_tokens=10, mean_output_tokens=60, stddev_output_tokens=5,
        )  # fmt: skip
        load(options, report=report)
    return seen[0]


def _rows_with_cells(summary: Summary) -> list[dict[str, Any]]:
    loads = {row["run_id"]: (row["suite"], row["load"]) for row in summary.rows}
    return [{**row, "cell": loads[row["run_id"]]} for row in summary.records()]


def test_promtool_finds_nothing_to_complain_of() -> None:
    for words in (["check", "config", "prometheus.yml"], ["test", "rules", "rules-tests/rules.yml"]):
        done = subprocess.run(["promtool", *words], cwd=GRAFANA, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_counts_are_those_of_the_database(measured: Measured) -> None:
    rows = measured.rows
    done = [row for row in rows if row["error_kind"] is None]

    def present(column: str) -> list[float]:
        return [float(row[column]) for row in done if row[column] is not None]

    gaps = sum(max(0, row["chunks"] - 1) for row in done if row["itl_mean_s"] is not None)  # else gathered
    right = {
        "sum(structbench_requests_total)": len(rows),
        'sum(structbench_requests_total{structbench_outcome="correct"})': sum(r["outcome"] == "correct" for r in rows),
        f"sum({TTFT}_count)": len(present("ttft_s")),
        f"sum({E2E}_count)": len(present("e2e_s")),
        f"sum({ITL}_count)": gaps,
        'sum(gen_ai_client_token_usage_sum{gen_ai_token_type="output"})': sum(present("output_tokens")),
        'sum(gen_ai_client_token_usage_sum{gen_ai_token_type="input"})': sum(present("prompt_tokens")),
        "sum(structbench_accuracy_count)": len(present("accuracy_score")),
        "sum(structbench_json_valid_sum)": sum(present("json_valid")),
        "sum(structbench_schema_valid_sum)": sum(present("schema_valid")),
        "sum(structbench_chunks_total)": sum(present("chunks")),
        "sum(structbench_request_planned)": len(rows),
        'sum(structbench_cells{structbench_cell_state="complete"})': 6,
    }
    assert {expr: measured.value(expr) for expr in right} == right
    for name, column in {f"{TTFT}_sum": "ttft_s", "structbench_tool_call_accuracy_sum": "tool_call_accuracy"}.items():
        assert measured.value(f"sum({name})") == pytest.approx(sum(present(column)))
    assert len(rows) == 6 * REQUESTS
    assert 0 < right['sum(structbench_requests_total{structbench_outcome="correct"})'] < len(rows)


@pytest.mark.parametrize("load_name", LOADS)
@pytest.mark.parametrize(("metric", "bounds"), [(TTFT, LATENCY_BUCKETS), (ITL, GAP_BUCKETS), (E2E, LATENCY_BUCKETS)])
def test_percentiles_are_within_one_bucket(
    measured: Measured, metric: str, bounds: tuple[float, ...], load_name: str
) -> None:
    rows = [row for row in measured.rows if row["cell"] == ("json", load_name) and row["error_kind"] is None]
    exact = {
        TTFT: [row["ttft_s"] for row in rows],
        E2E: [row["e2e_s"] for row in rows],
        # A busy machine reads several chunks at once, and so gathers an answer, whose gaps then count nowhere.
        ITL: [(b - a) / 1e6 for row in rows if row["gathered_chunks"] <= GATHERED * len(row["chunk_offsets_us"])
              for a, b in pairwise(row["chunk_offsets_us"])],
    }[metric]  # fmt: skip
    where = f'structbench_suite="json", structbench_load="{load_name}"'
    for q in (0.5, 0.95, 0.99):
        read = measured.value(f"histogram_quantile({q}, sum by (le) ({metric}_bucket{{{where}}}))")
        # A histogram's quantile is of the value with rank q n; between two values far apart ours interpolates, it not.
        true = sorted(exact)[math.ceil(q * len(exact)) - 1]
        assert read is not None
        assert abs(bisect_left(bounds, read) - bisect_left(bounds, true)) <= 1, f"p{q * 100:g}: {read}, exactly {true}"


def test_recorded_percentiles_are_of_each_cell(measured: Measured) -> None:
    for rule in ("ttft", "itl", "e2e"):
        for q in (50, 95, 99):
            found = ask.query(
                measured.prometheus.url, f"last_over_time(cell:{rule}_seconds:p{q}_1m[5m])", measured.span.end_s
            )
            cells = {(each["metric"]["structbench_suite"], each["metric"]["structbench_load"]) for each in found}
            suites = ("text", "json") if rule == "itl" else ("text", "json", "tools")  # a tool call comes whole
            assert cells == {(suite, load_name) for suite in suites for load_name in LOADS}


@pytest.mark.parametrize("name", ask.boards())
def test_no_panel_is_empty_after_a_load(measured: Measured, name: str) -> None:
    empty = []
    for target in ask.targets(ask.boards()[name]):
        found = ask.result(measured.prometheus.url, target, measured.span, {"cells": "1000"})
        values = [float(v) for series in found for _, v in series.get("values", [series.get("value")])]
        if not any(not math.isnan(value) for value in values):
            empty.append(f"{target.panel['title']}: {target.query['expr']}")
    assert empty == []


def test_a_choice_of_cells_holds_for_every_panel(measured: Measured) -> None:
    """Also for the label, which this load does not have: one that is chosen matches nothing."""
    for board in ask.boards().values():
        for target in ask.targets(board):
            if "$label" not in target.query["expr"]:
                continue
            found = ask.result(measured.prometheus.url, target, measured.span, {"label": "another"})
            values = {float(v) for series in found for _, v in series.get("values", [series.get("value")])}
            assert values <= {0.0}, f"{target.panel['title']}: {target.query['expr']}"


def test_live_load_has_the_curves_of_the_newest_cell(measured: Measured) -> None:
    cells, most = set(), 0
    for target in ask.targets(ask.boards()["live-load.json"]):
        if target.panel["type"] == "timeseries":
            found = ask.result(measured.prometheus.url, target, measured.span)
            named = [
                (each["metric"].get("structbench_suite"), each["metric"].get("structbench_load")) for each in found
            ]
            cells |= {each for each in named if each[0] is not None}
            most = max(most, len(set(named)))
    assert cells == {("tools", "c=4")}
    assert most == 1


def test_loads_stand_beside_each_other_with_their_level(measured: Measured) -> None:
    board = ask.boards()["under-load.json"]
    accuracy = next(target for target in ask.targets(board) if target.panel["title"] == "Accuracy")
    found = ask.result(measured.prometheus.url, accuracy, measured.span)
    assert {(each["metric"]["cell"], each["metric"]["level"]) for each in found} == {
        (f"usual {suite}", level) for suite in ("text", "json", "tools") for level in ("2", "4")
        if suite != "text"
    }  # fmt: skip


def test_an_exemplar_leads_to_the_row(measured: Measured) -> None:
    rows = {(row["run_id"], str(row["request_index"])): row for row in measured.rows}
    found = ask.exemplars(measured.prometheus.url, f"{TTFT}_bucket", measured.span)
    points = [point for series in found for point in series["exemplars"]]
    assert points
    for point in points:
        row = rows[point["labels"]["run_id"], point["labels"]["request_index"]]
        assert float(point["value"]) == pytest.approx(row["ttft_s"])


def test_a_good_run_raises_no_alert(measured: Measured) -> None:
    span = f"[{round(measured.span.end_s - measured.span.start_s)}s]"
    # Not where the machine stalled so long that the client rightly called itself invalid.
    cell = "gen_ai_request_model, structbench_suite, structbench_load"
    invalid = f"max_over_time(structbench_verdict{span}) >= 2"
    assert (
        measured.value(f'count(max_over_time(ALERTS{{alertstate="firing"}}{span}) unless on ({cell}) {invalid})')
        is None
    )
    assert measured.value(f"max(max_over_time(cell:errors:share{span}))") == 0


def test_a_bad_run_raises_alerts(server: Prometheus, measured: Measured, tmp_path: Path) -> None:
    """Every request of one model fails: too many errors, and nothing to measure. The other's run is good."""
    assert measured.rows
    firing: list[dict[str, str]] = []

    def report(_summary: Summary) -> None:
        server.until('count(ALERTS{alertstate="firing"})', lambda count: count is not None and count >= 2)
        firing.extend(each["metric"] for each in ask.query(server.url, 'ALERTS{alertstate="firing"}'))

    with Simulator(MODELS, answers=answer_book()) as sim:
        options = structbench.LoadOptions(
            models=["fault:500", "sim:fast"], suites=["numbers"], requests=10, host=sim.url, db=tmp_path / "bad.duckdb",
            metrics_port=server.metrics_port, workers=1, label="bad",
        )  # fmt: skip
        load(options, report=report)
    assert sorted((alert["alertname"], alert["gen_ai_request_model"]) for alert in firing) == [
        ("StructbenchErrorRate", "fault:500"), ("StructbenchRunInvalid", "fault:500"),
    ]  # fmt: skip
    assert {alert["structbench_label"] for alert in firing} == {"bad"}

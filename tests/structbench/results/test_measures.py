"""A metric by its name is the same figure, whether SQL computes it, the view does, or a textbook formula."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from structbench.gates.expressions import parse_limits
from structbench.metrics import METRICS, Metric, is_good, metric_of
from structbench.results.measures import Measured, measured, meets
from structbench.store import Reader
from tests.support import made_up_rows
from tests.support.comparisons import database, requests

LIMITS = parse_limits("ttft<0.1,tpot<0.011")
ROWS = requests(60, wrong=(3, 4, 5), failed=(7, 30))
DONE = [{**row, "error_kind": None} for row in ROWS if "error_kind" not in row]
GAPS = [(b - a) / 1e6 for row in DONE for a, b in pairwise(row["chunk_offsets_us"])]
DURATION_S = max(row["end_ns"] for row in ROWS) / 1e9


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    whole = [
        {**row, "chunk_offsets_us": row["chunk_offsets_us"][:1], "chunks": 1, "tpot_s": None, "itl_mean_s": None}
        for row in DONE
    ]
    path = database(
        tmp_path_factory.mktemp("measures") / "s.duckdb", r=(ROWS, {}), limited=(ROWS, {"goodput_limits": LIMITS}),
        whole=(whole, {}), unscored=([{**row, "outcome": "unscored", "accuracy_score": None} for row in DONE], {}),
    )  # fmt: skip
    with Reader(path) as opened:
        yield opened


def metric(name: str) -> Metric:
    found = metric_of(name)
    assert found is not None
    return found


def ask(reader: Reader, run: str, name: str, limits: dict[str, float] | None = None) -> Measured:
    return measured(reader.query, run, [metric(name)], limits)[name]


@pytest.mark.parametrize(
    ("name", "value", "n"),
    [
        ("ttft_p95", np.quantile([row["ttft_s"] for row in DONE], 0.95), 58),
        ("ttft_due_p12.5", np.quantile([row["ttft_due_s"] for row in DONE], 0.125), 58),
        ("tpot_mean", np.mean([row["tpot_s"] for row in DONE]), 58),
        ("e2e_p100", max(row["e2e_s"] for row in DONE), 58), ("itl_p99", np.quantile(GAPS, 0.99), len(GAPS)),
        ("itl_p50", np.quantile(GAPS, 0.5), len(GAPS)), ("itl_mean", np.mean(GAPS), len(GAPS)),
        ("itl_p99.9", np.quantile(GAPS, 0.999), len(GAPS)),
        ("requests_per_s", 58 / DURATION_S, 58), ("tokens_per_s", 7 * 58 / DURATION_S, 58),
        ("json_valid", 1.0, 58), ("schema_valid", 55 / 58, 58), ("correct", 55 / 58, 58),
        ("accuracy", (55 + 1.5) / 58, 58), ("error_rate", 2 / 60, 60), ("tool_call_accuracy", None, 0),
        ("correct_goodput", 55 / DURATION_S, 58), ("goodput", None, 60),
    ],
)  # fmt: skip
def test_a_metric_is_what_the_docs_say(reader: Reader, name: str, value: float | None, n: int) -> None:
    found = ask(reader, "r", name)
    assert found.n == n
    assert found.value == (None if value is None else pytest.approx(value))


def test_limits_make_goodput_the_same_in_sql_in_python_and_in_the_view(reader: Reader) -> None:
    good = [row for row in DONE if is_good(row, LIMITS)]
    right = [row for row in good if row["outcome"] == "correct"]
    assert 5 < len(right) < len(good) < 50, "the limits must tell some apart"
    (told,) = reader.query("SELECT goodput, correct_goodput FROM summary WHERE run_id = 'limited'")
    for name, count in (("goodput", len(good)), ("correct_goodput", len(right))):
        assert ask(reader, "r", name, LIMITS).value == pytest.approx(count / DURATION_S)
        assert told[name] == pytest.approx(count / DURATION_S)
    (plain,) = reader.query("SELECT goodput, correct_goodput FROM summary WHERE run_id = 'r'")
    assert plain["goodput"] is None
    assert plain["correct_goodput"] == pytest.approx(55 / DURATION_S)
    rows = reader.query(f"SELECT request_index, {meets(LIMITS)} AS good FROM requests WHERE run_id = 'r'")
    assert {row["request_index"] for row in rows if row["good"]} == {row["request_index"] for row in good}


def test_answers_in_one_piece_have_no_pace_and_break_no_limit_on_it(reader: Reader) -> None:
    for name in ("itl_p99", "itl_mean", "tpot_p50"):
        assert ask(reader, "whole", name) == (None, 0)
    assert ask(reader, "whole", "goodput", {"tpot_s": 0.001}).value == pytest.approx(58 / DURATION_S, rel=0.1)
    assert ask(reader, "whole", "goodput", {"ttft_s": 0.001}).value == 0


def test_answers_that_could_not_be_scored_are_missed(reader: Reader) -> None:
    """Not the same as a suite that asks for no score."""
    assert ask(reader, "unscored", "correct") == (None, 58)


def test_several_metrics_are_asked_for_at_once(reader: Reader) -> None:
    asked: list[Any] = []

    def query(sql: str, params: Any) -> list[dict[str, Any]]:
        asked.append(sql)
        return reader.query(sql, params)

    found = measured(query, "r", [metric(name) for name in ("ttft_p50", "ttft_p50", "correct", "e2e_mean")], None)
    assert (list(found), len(asked)) == (["ttft_p50", "correct", "e2e_mean"], 1)
    assert measured(query, "r", [], None) == {}
    measured(query, "r", [metric("itl_p50")], None)
    assert len(asked) == 2, "only what was asked for is computed"


SUFFIXES = {"p0": 0.0, "p50": 0.5, "p95": 0.95, "p99.9": 0.999}
SCORED = {
    "json_valid": "json_valid", "schema_valid": "schema_valid", "tool_call_accuracy": "tool_call_accuracy",
    "accuracy": "accuracy_score", "correct": "accuracy_score", "correct_goodput": "accuracy_score",
    "semantic_similarity": "semantic_similarity",
}  # fmt: skip


@pytest.fixture(scope="module")
def of_made_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    path = tmp_path_factory.mktemp("made-up") / "s.duckdb"
    made_up_rows.database(path).close()
    with Reader(path) as opened, opened.together():
        yield opened


@pytest.mark.parametrize(
    ("run_id", "limits"),
    [
        *((run_id, made_up_rows.LIMITS) for run_id in (*made_up_rows.REQUESTS, "never begun", "unknown")),
        ("closed", None), ("closed", {}), ("closed", made_up_rows.SOME),
    ],
)  # fmt: skip
def test_every_metric_of_any_run_is_what_the_docs_say(
    of_made_up: Reader, run_id: str, limits: dict[str, float] | None
) -> None:
    said = figures(run_id, limits)
    assert {metric(name).base for name in said} == METRICS.keys(), "a metric that nobody computes here"
    found = measured(of_made_up.query, run_id, [metric(name) for name in said], limits)
    assert found == {name: (value and pytest.approx(value, rel=1e-9), n) for name, (value, n) in said.items()}


def figures(run_id: str, limits: Mapping[str, float] | None) -> dict[str, tuple[float | None, int]]:
    rows, seconds = made_up_rows.REQUESTS.get(run_id, []), made_up_rows.rate_s(run_id)
    done = made_up_rows.completed(rows)
    timed, ended = made_up_rows.steady(done), made_up_rows.counted(made_up_rows.answered(rows))
    good = made_up_rows.counted(made_up_rows.good(rows, limits))
    unjudged = made_up_rows.counted(made_up_rows.unjudged(rows, limits))
    right = made_up_rows.with_outcome(rows, "correct")
    unscored = len(made_up_rows.with_outcome(rows, "unscored"))
    latencies = {
        name: made_up_rows.values(timed, f"{name}_s")
        for name in ("ttft", "ttft_due", "first_answer", "tpot", "e2e", "e2e_due")
    }
    tokens = made_up_rows.values(ended, "output_tokens")
    covered = ended and all(map(made_up_rows.covered, ended))
    figures: dict[str, tuple[float | None, int]] = {}
    for name, values in {**latencies, "itl": made_up_rows.gaps(rows)}.items():
        figures |= {f"{name}_{p}": (made_up_rows.quantile(values, at), len(values)) for p, at in SUFFIXES.items()}
        figures[f"{name}_mean"] = made_up_rows.mean(values), len(values)
    for name, column in SCORED.items():
        scored = made_up_rows.values(rows, column)
        figures[name] = made_up_rows.mean(scored), len(scored) or unscored
    scored = made_up_rows.values(rows, "accuracy_score")
    in_time = made_up_rows.values(made_up_rows.counted(rows), "accuracy_score")
    good_and_right = made_up_rows.with_outcome(good, "correct")
    return figures | {
        "correct": (made_up_rows.ratio(len(right), len(scored)), figures["correct"][1]),
        "correct_goodput": (
            made_up_rows.ratio(len(good_and_right), seconds)
            if in_time and not made_up_rows.with_outcome(unjudged, "correct")
            else None,
            len(in_time) or unscored,
        ),
        "goodput": (
            made_up_rows.ratio(len(good), seconds) if limits and rows and not unjudged else None,
            len(made_up_rows.counted(rows)),
        ),
        "requests_per_s": (made_up_rows.ratio(len(ended), seconds) if rows else None, len(ended)),
        "tokens_per_s": (made_up_rows.ratio(sum(tokens), seconds) if covered else None, len(ended)),
        "error_rate": (
            made_up_rows.ratio(len(made_up_rows.failed_of(rows)), n := len(made_up_rows.uncancelled(rows))),
            n,
        ),
    }

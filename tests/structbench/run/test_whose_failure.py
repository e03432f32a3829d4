"""End to end: what the model broke is scored whatever status it came with, and is in no error rate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadgen.simulator import Simulator
from loadgen.simulator.models import FAST
from structbench.suites.answer_book import answer_book
from tests.support.loads import MODELS, ask, load, small

pytestmark = pytest.mark.slow

FAULTS = ("broken-call", "repeat-guard", "repeat-error", "500")


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    models = {f"fault:{fault}@0.4": FAST for fault in FAULTS}
    tags = replace(FAST, json_shares={"think_tags": 1.0})
    with Simulator({**MODELS, **models, "tags": tags}, answers=answer_book()) as server:
        yield server


@pytest.mark.parametrize(
    ("fault", "suite", "outcome", "status"),
    [
        ("broken-call", "tools", "broken_call", 500),
        ("repeat-error", "json", "truncated", 500),
        ("repeat-guard", "json", "truncated", 200),
    ],
)
def test_the_model_s_failures_are_scored_and_no_errors(
    sim: Simulator, tmp_path: Path, fault: str, suite: str, outcome: str, status: int
) -> None:
    db = tmp_path / "results.duckdb"
    options = small(sim, db, models=[f"fault:{fault}@0.4"], suites=[suite], requests=20, warmup=0, concurrency=[4],
                    slo=["correct>=90%", "error_rate<=0"], max_error_rate=0.0)  # fmt: skip
    done = load(options)
    (row,) = done.rows
    broken = ask(db, "SELECT count(*) FROM requests WHERE error_kind IS NOT NULL")[0][0]
    assert 0 < broken < 20
    sql = "SELECT DISTINCT outcome, error_kind, error_status, accuracy_score, e2e_s FROM requests"
    assert ask(db, f"{sql} WHERE error_kind IS NOT NULL") == [(outcome, outcome, status, 0.0, None)]
    assert (row["errors"], row["error_rate"], row["completed"], row["scored"]) == (0, 0, 20 - broken, 20)
    assert row["correct"] == 20 - broken
    assert done.gates[0].outcome == "not met"
    assert done.gates[1].value == 0
    assert (done.failures, done.exit_code) == ([], 99)
    assert ask(db, "SELECT * FROM errors") == []
    again = load(replace(options, skip_cached=True, slo=[]))
    assert [each["cache"] for each in again.rows] == ["skipped"]


def test_a_server_s_own_500_is_an_error_and_not_scored(sim: Simulator, tmp_path: Path) -> None:
    done = load(small(sim, tmp_path / "r.duckdb", models=["fault:500@0.4"], suites=["tools"], requests=20, warmup=0))
    (row,) = done.rows
    assert row["errors"] > 0
    assert row["scored"] == row["completed"] == row["correct"] == 20 - row["errors"]


def test_json_after_thinking_is_seen_by_the_lenient_columns_alone(sim: Simulator, tmp_path: Path) -> None:
    (row,) = load(small(sim, tmp_path / "r.duckdb", models=["tags"], suites=["json"], requests=8, warmup=0)).rows
    sql = "SELECT DISTINCT outcome, schema_valid, schema_valid_lenient, json_source FROM requests"
    assert ask(tmp_path / "r.duckdb", sql) == [("invalid_json", False, True, "prose")]
    assert row["correct"] == 0


def test_a_run_of_an_earlier_scorer_is_told_and_scored_again(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from structbench.cli import main
    from structbench.run import cells

    db = tmp_path / "r.duckdb"
    options: Any = small(sim, db, suites=["json"], requests=4, warmup=0, skip_cached=True)
    with monkeypatch.context() as earlier:
        earlier.setattr(cells, "SCORER_VERSION", 3)
        (row,) = load(options).rows
    (told,) = load(replace(options, dry_run=True)).planned
    assert f"`structbench rescore {row['run_id']}`" in told
    assert main(["rescore", "--db", str(db), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["requests"], run["changes"]) == (4, [])
    assert [each["cache"] for each in load(options).rows] == ["skipped"]

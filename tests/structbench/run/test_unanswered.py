"""A run of which nothing was answered fails and is no cache hit; what found nobody is sent again and nothing else."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.console import Console

from loadgen.simulator import Simulator
from structbench.reports.summary import print_failures
from structbench.results.failures import Failure
from structbench.run.runner import unanswered
from structbench.suites.answer_book import answer_book
from tests.support.loads import MODELS, ask, inferences, load, small

ALL = "SELECT request_index, segment, outcome FROM requests ORDER BY 1"


def row(**counts: Any) -> dict[str, Any]:
    figures = {"e2e_p50_s": 0.2, "requests_per_s": 5.0}
    return {"requests": 4, "completed": 0, "scored": 0, "errors": 4, "failures": [], "model": "m", **figures, **counts}


def test_a_run_is_of_use_where_anything_was_answered_or_tells_of_the_model() -> None:
    busy = Failure("http", 503, 3, "busy")
    assert unanswered(row()) == "none of 4 requests was answered"
    assert unanswered(row(failures=[busy])) == "none of 4 requests was answered (http 503: busy)"
    for counts in ({"completed": 1}, {"scored": 1, "errors": 3}, {"requests": 0, "errors": 0}, {"errors": 3}):
        assert unanswered(row(**counts)) is None


def test_a_run_of_empty_answers_is_of_no_use_unless_they_are_scored() -> None:
    empty = row(completed=4, errors=0, e2e_p50_s=None, requests_per_s=0.0)
    assert unanswered(empty) == "4 answers came without a text, thinking or a call in any of them"
    assert unanswered({**empty, "scored": 4}) is None
    assert unanswered({**empty, "requests_per_s": 1.0}) is None


def test_the_errors_of_each_run_stand_with_kind_count_and_first_message() -> None:
    console = Console(file=io.StringIO(), width=100)
    print_failures([row(failures=[Failure("connect", None, 1200, "refused"), Failure("http", 500, 2, "bad")])], console)
    assert console.file.getvalue() == "Errors\n  1,200 × connect: refused\n  2 × http 500: bad\n\n"  # type: ignore[attr-defined]
    quiet = Console(file=io.StringIO(), width=100)
    print_failures([row()], quiet)
    assert quiet.file.getvalue() == ""  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(MODELS, answers=answer_book()) as server:
        yield server


@pytest.mark.slow
def test_a_run_without_an_answer_fails_and_is_asked_again_as_a_whole(sim: Simulator, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    for cache in ("new", "resumed"):
        sim.reset_truth()
        summary = load(small(sim, db, models=["fault:500"], requests=5, skip_cached=True))
        (shown,) = summary.rows
        assert (summary.exit_code, shown["cache"], shown["errors"], len(inferences(sim))) == (1, cache, 5, 6)
        assert summary.failures == [
            "fault:500 numbers c=1: none of 5 requests was answered (http 500: internal server error)"
        ]
    assert len(ask(db, ALL)) == 5


@pytest.mark.slow
def test_what_the_model_cannot_is_an_answer_and_a_cache_hit(sim: Simulator, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    for cache in ("new", "skipped"):
        summary = load(small(sim, db, models=["deaf"], suites=["tools"], requests=4, skip_cached=True))
        assert (summary.exit_code, summary.rows[0]["cache"], summary.failures) == (0, cache, [])


@pytest.mark.slow
def test_of_a_complete_run_only_what_found_nobody_is_sent_again(sim: Simulator, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    assert load(small(sim, db, requests=8, warmup=0)).exit_code == 0
    with duckdb.connect(db) as con:
        con.execute(
            "UPDATE requests SET error_kind = CASE request_index WHEN 2 THEN 'connect' ELSE 'worker_died' END,"
            " outcome = error_kind, accuracy_score = NULL WHERE request_index IN (2, 5)"
        ).fetchall()
    for cache, asked in (("resumed", 2), ("skipped", 0)):
        sim.reset_truth()
        summary = load(small(sim, db, requests=6 if asked else 8, warmup=0, skip_cached=True))
        assert (summary.exit_code, summary.rows[0]["cache"], len(inferences(sim))) == (0, cache, asked)
        rows = ask(db, ALL)
        assert [row[0] for row in rows] == list(range(8))
        assert {row[2] for row in rows} == {"correct"}
        assert {row[0] for row in rows if row[1] == 1} == {2, 5}

"""What a wrong answer was asked is at hand: it is stored with the runs of its suite, and goes with the last of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from structbench.results.wrong_answers import MAX_CHARACTERS, asked_of, wrong_kinds
from structbench.store import Reader, Store
from structbench.store.database import Database
from structbench.store.upkeep import merge, remove
from structbench.types import Case
from tests.support.reports import FAILED, document, request, requests, run, write

CASE = Case(
    id="case-0", messages=({"role": "user", "content": "Who?"},), schema={"type": "object"}, expected={"/name": "Ada"}
)


def filled(path: Path, *ids: str) -> Path:
    made = write(path, [run(run_id) for run_id in ids], [row for run_id in ids for row in requests(run_id, 8, wrong=8)])
    with Store(made) as store:
        store.append("cases", {"suite_hash": "x", "case_id": "case-0", "asked": json.dumps(asked_of(CASE))})
    return made


def test_a_stored_prompt_is_shown_without_the_suite(tmp_path: Path) -> None:
    details = document(filled(tmp_path / "a.duckdb", "r1"), details=True).details
    assert details is not None
    by_case = {row["case_id"]: row["asked"] for row in details["wrong"]["listed"]}
    assert by_case["case-0"]["messages"] == [{"role": "user", "content": "Who?"}]
    assert json.loads(by_case["case-0"]["expected"]) == {"/name": "Ada"}
    assert by_case["case-1"] is None, "this one was not kept, and the suite is not here"


def test_a_prompt_is_cut_where_it_is_long() -> None:
    long = asked_of(Case(id="c", messages=({"role": "user", "content": "a" * 5_000},)))["messages"][0]["content"]
    assert long == "a" * MAX_CHARACTERS + "\n… and 1,000 more characters"


@pytest.mark.slow
def test_prompts_are_merged_once_and_go_with_the_last_run_of_their_suite(tmp_path: Path) -> None:
    ours, theirs = filled(tmp_path / "a.duckdb", "r1"), filled(tmp_path / "b.duckdb", "r2")
    merge(ours, theirs)
    count = "SELECT count(*) AS n FROM cases"
    assert Reader(ours).query(count) == [{"n": 1}]
    remove(Database(ours), ["r1"])
    assert Reader(ours).query(count) == [{"n": 1}]
    remove(Database(ours), ["r2"])
    with Store(ours) as store:
        assert store.query(count) == [{"n": 0}]


def test_kinds_of_wrong_answers_leave_out_what_failed(tmp_path: Path) -> None:
    rows = [*requests("r1", 3), request("r1", 3, **FAILED)]
    rows += [request("r1", index, outcome="wrong_value", validation_errors=[f"at {index}"]) for index in (5, 4)]
    path = write(tmp_path / "a.duckdb", [run("r1")], rows)
    (kind,) = wrong_kinds(Reader(path), document(path).groups)
    assert (kind.outcome, kind.count, kind.first, list(kind.lines)) == ("wrong_value", 2, "at 4", [0])

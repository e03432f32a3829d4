"""Stored answers are scored again by the present scorer: old scores are kept, and the run counts for today's cell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from structbench.cli import main
from structbench.errors import BadInput
from structbench.identity import config_hash
from structbench.scoring import SCORER_VERSION
from structbench.store import Store, rescoring, run_columns
from structbench.suites.catalog import load_suite
from structbench.suites.generated import TextShape
from structbench.types import Config
from tests.support.loads import ask

DIGITS = {"type": "string", "pattern": "^\\d{3}$"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CASES: list[dict[str, Any]] = [
    {"id": "digits", "prompt": "?", "schema": DIGITS},
    {"id": "weather", "prompt": "?", "tools": [WEATHER], "expected_calls": [{"name": "weather", "arguments": {}}]},
]
NOT_DONE = "the stream ended without a done message"
FAILED = {"accuracy_score": None, "schema_valid": None, "output_text": ""}
ROWS: list[dict[str, Any]] = [
    {"output_text": '"१२३"', "outcome": "correct", "accuracy_score": 1.0, "schema_valid": True},
    {"outcome": "http", "error_kind": "http", "error_status": 500,
     "error_message": "error parsing tool call: raw='{', err=unexpected end of JSON input", **FAILED},
    {"output_text": '"123"', "outcome": "correct", "accuracy_score": 1.0, "schema_valid": True},
    {"outcome": "connect", "error_kind": "connect", "error_message": "no connection", **FAILED},
    {"outcome": "protocol", "error_kind": "protocol", "error_status": 200, "error_message": NOT_DONE, **FAILED,
     "output_text": '"12' + "\n" * 31},
    {"outcome": "correct", "accuracy_score": 1.0, "tool_calls": [{"name": "weather", "arguments": {}}]},
    {"outcome": "rejected", "error_kind": "rejected", "error_status": 500,
     "error_message": "unsupported model format", **FAILED, "accuracy_score": 0.0},
]  # fmt: skip
AFTER = ["schema_violation", "broken_call", "correct", "connect", "truncated", "correct", "http"]


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete run and an interrupted one, scored by version 3, of a suite file in the working folder."""
    monkeypatch.chdir(tmp_path)
    write_suite(tmp_path / "cases.jsonl", CASES)
    path = tmp_path / "results.duckdb"
    with Store(path) as store:
        for run_id, status, rows in (("whole", "complete", ROWS), ("part", "interrupted", ROWS[:2])):
            run = run_columns(replace(config(), seed=len(rows)))
            store.append("runs", {**run, "run_id": run_id, "status": status, "planned": len(ROWS), "verdict": "valid"})
            store.append("segments", {"run_id": run_id, "segment": 0, "status": status})
            for index, row in enumerate(rows):
                store.append("requests", {
                    "run_id": run_id, "config_hash": run["config_hash"], "request_index": index, "segment": 0,
                    "case_id": CASES[index % 2]["id"], "repeat": index // 2, "chunks": 0, "gathered_chunks": 0, **row,
                })  # fmt: skip
    return path


def write_suite(path: Path, cases: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(case) + "\n" for case in cases))


def config(scorer_version: int = 3) -> Config:
    suite = load_suite("cases.jsonl", text=TextShape(), seed=0)
    return Config(
        suite=suite.name, suite_hash=suite.content_hash, model="m", model_digest="d", server_version="1",
        server_address="here", endpoint="chat", structured="format", think=None, options={}, keep_alive=None,
        load={"kind": "closed", "concurrency": 2}, seed=0, warmup=None, timeout_s=300.0, scorer_version=scorer_version,
    )  # fmt: skip


def outcomes(db: Path, run_id: str = "whole") -> list[str]:
    sql = f"SELECT outcome FROM requests WHERE run_id = '{run_id}' ORDER BY request_index"
    return [outcome for (outcome,) in ask(db, sql)]


def test_scores_are_replaced_old_ones_kept_and_every_change_told(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rescore", "--db", str(db), "whole"]) == 0
    told = capsys.readouterr().out
    assert outcomes(db) == AFTER
    for line in ("0  digits  correct → schema_violation", "1  weather  http → broken_call",
                 "4  digits  protocol → truncated", "6  digits  rejected → http"):  # fmt: skip
        assert line in told
    assert "7 requests scored again (scorer 3 before), 4 changed" in told
    assert ask(db, "SELECT scorer_version, outcome FROM old_scores ORDER BY request_index") == [
        (3, row["outcome"]) for row in ROWS
    ]
    sql = "SELECT error_kind, error_status, accuracy_score FROM requests WHERE run_id = 'whole' ORDER BY request_index"
    assert ask(db, sql) == [
        (None, None, 0.0), ("broken_call", 500, 0.0), (None, None, 1.0), ("connect", None, None),
        ("truncated", 200, 0.0), (None, None, 1.0), ("http", 500, None),
    ]  # fmt: skip
    assert outcomes(db, "part") == [row["outcome"] for row in ROWS[:2]], "only the chosen run"


@pytest.mark.parametrize(
    ("structured", "row", "after"),
    [
        ("tools", {"tool_calls": [{"name": "answer", "arguments": "123"}], "output_text": ""}, "correct"),
        ("tools", {**FAILED, "outcome": "http", "error_kind": "http", "error_status": 400,
                   "error_message": "this model does not support tools"}, "rejected"),
        ("strict", {**FAILED, "outcome": "http", "error_kind": "http", "error_status": 400,
                    "error_message": "unsupported schema"}, "rejected"),
    ],
)  # fmt: skip
def test_an_answer_is_judged_by_how_its_schema_was_asked_for(
    db: Path, structured: str, row: dict[str, Any], after: str
) -> None:
    run = run_columns(replace(config(), structured=structured))
    with Store(db) as store:
        store.append("runs", {**run, "run_id": "asked", "status": "complete", "planned": 1, "verdict": "valid"})
        store.append("requests", {
            "run_id": "asked", "config_hash": run["config_hash"], "request_index": 0, "segment": 0, "repeat": 0,
            "case_id": "digits", "chunks": 0, "gathered_chunks": 0, "outcome": "wrong_value", **row,
        })  # fmt: skip
    assert main(["rescore", "--db", str(db), "asked"]) == 0
    assert outcomes(db, "asked") == [after]


@pytest.mark.slow
def test_the_run_is_then_the_one_of_today_s_cell_and_the_file_verifies(
    db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rescore", "--db", str(db)]) == 0
    today = config_hash(replace(config(SCORER_VERSION), seed=len(ROWS)))
    with Store(db) as store:
        assert store.find([today])[today].run_id == "whole"
        assert "runs_by_config" in str(store.query("SELECT index_name FROM duckdb_indexes()"))
    capsys.readouterr()
    main(["verify", "--db", str(db), "--json"])
    assert json.loads(capsys.readouterr().out)["problems"] == []


@pytest.mark.slow
def test_what_the_present_scorer_has_scored_is_left_alone(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rescore", "--db", str(db)]) == 0
    before = ask(db, "SELECT * FROM old_scores ORDER BY run_id, request_index")
    capsys.readouterr()
    assert main(["rescore", "--db", str(db)]) == 0
    assert "2 runs needed nothing" in capsys.readouterr().out
    assert ask(db, "SELECT * FROM old_scores ORDER BY run_id, request_index") == before


@pytest.mark.slow
def test_a_suite_that_has_changed_is_told_and_not_guessed(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (db.parent / "then").mkdir()
    (db.parent / "cases.jsonl").rename(db.parent / "then/cases.jsonl")
    assert main(["rescore", "--db", str(db), "whole"]) == 1
    assert "the suite cases.jsonl is not here: give its file with --path" in capsys.readouterr().out
    write_suite(db.parent / "cases.jsonl", [{**CASES[0], "prompt": "Another?"}, CASES[1]])
    assert main(["rescore", "--db", str(db), "whole"]) == 1
    assert "the suite cases.jsonl has changed since" in capsys.readouterr().out
    assert outcomes(db) == [row["outcome"] for row in ROWS]
    assert main(["rescore", "--db", str(db), "whole", "--path", "then/cases.jsonl"]) == 0
    assert outcomes(db) == AFTER


@pytest.mark.slow
def test_a_run_is_replaced_whole_or_not_at_all(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(rescoring, "_REPLACE", "SELECT error('killed half way') WHERE $1 <> $2")
        with pytest.raises(BadInput, match="killed half way"):
            rescoring_of(db)
    assert ask(db, "SELECT count(*) FROM old_scores") == [(0,)]
    assert outcomes(db) == [row["outcome"] for row in ROWS]
    assert main(["rescore", "--db", str(db), "whole"]) == 0
    assert outcomes(db) == AFTER


def rescoring_of(db: Path) -> None:
    from structbench.commands.rescore import _finder
    from structbench.results.rescore import rescore
    from structbench.store import Reader

    with Reader(db) as reader:
        list(rescore(reader, ["whole"], _finder([])))


@pytest.mark.slow
def test_json_has_every_change(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rescore", "--db", str(db), "part", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert [(change["request_index"], change["after"]) for change in run["changes"]] == [
        (0, "schema_violation"), (1, "broken_call")
    ]  # fmt: skip

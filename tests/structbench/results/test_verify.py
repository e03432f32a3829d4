"""Verify finds what does not hold, each kind of it, and nothing in what was really measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.api.answer import gathered
from loadgen.types import RequestError, RequestRecord
from structbench.cli import main
from structbench.results.verify import _DERIVED, _of_requests, problems
from structbench.store import Reader, Store, row_of
from structbench.store.rows import storable
from structbench.store.schema import MIGRATIONS, migrate, shape
from structbench.store.spool import Spool, insert
from structbench.store.upkeep import spool_of
from tests.support.databases import held

OLD = "20260101T000000-00000000"
INSTANTS = st.integers(0, 10**13)


@st.composite
def records(draw: st.DrawFn) -> RequestRecord:
    """Any record that the load generator can make."""
    due_ns = draw(INSTANTS)
    sent_ns = due_ns + draw(st.integers(0, 10**9))
    spread_ns = draw(st.sampled_from([10**5, 10**7, 10**10]))
    chunk_ns = tuple(sorted(sent_ns + draw(st.integers(0, spread_ns)) for _ in range(draw(st.integers(0, 9)))))
    failed = draw(st.booleans())
    dropped = failed and draw(st.booleans())
    first = draw(st.sampled_from(["first_thinking_ns", "first_answer_ns", "first_tool_call_ns"]))
    then = draw(st.integers(0, 8))
    offsets_us = [] if dropped else [(chunk - sent_ns) // 1000 for chunk in chunk_ns]
    merged = draw(st.integers(0, 2))
    some_ns = st.none() | st.integers(0, 10**10)
    return RequestRecord(
        index=0, due_ns=due_ns, sent_ns=None if dropped else sent_ns, chunk_ns=() if dropped else chunk_ns,
        end_ns=max([sent_ns, *chunk_ns]) + draw(st.integers(0, 10**6)),
        output_tokens=draw(st.none() | st.integers(0, 20)), done_reason=draw(st.sampled_from([None, "stop", "length"])),
        thinking_tokens=draw(st.none() | st.integers(0, 20)), thinking_partial=draw(st.sampled_from([None, True])),
        merged_chunks=merged, gathered_chunks=gathered(offsets_us, merged),
        load_ns=draw(some_ns), prompt_eval_ns=draw(some_ns), eval_ns=draw(some_ns),
        connected_ns=draw(st.none() | st.just(sent_ns + 1000)),
        error=RequestError("dropped" if dropped else "timeout", "why") if failed else None,
        **({"first_answer_ns": chunk_ns[min(then, len(chunk_ns) - 1)], first: chunk_ns[0]}
           if chunk_ns and not dropped else {}),
    )  # fmt: skip


class InMemory:
    """A reader of a database that is nowhere."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con

    def query(self, sql: str) -> list[dict[str, Any]]:
        result = self.con.execute(sql)
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


@pytest.fixture(scope="module")
def memory() -> Iterator[InMemory]:
    with duckdb.connect() as con:
        migrate(con, 0)
        con.execute("INSERT INTO runs (run_id, config_hash) VALUES ('r', 'h')").fetchall()
        con.execute("INSERT INTO segments (run_id, segment) VALUES ('r', 0)").fetchall()
        yield InMemory(con)


@pytest.mark.slow
@settings(max_examples=40)
@given(records(), st.sampled_from(sorted(_DERIVED)))
def test_the_formulas_in_sql_are_those_of_the_record(memory: InMemory, record: RequestRecord, column: str) -> None:
    row = row_of("r", "h", 0, "case", 0, record, None)
    columns = shape(MIGRATIONS).columns
    kept = {name: storable(value, name, columns["requests"][name]) for name, value in row.items()}
    insert(memory.con, columns, iter([("requests", json.loads(json.dumps(kept)), 0)]))
    assert list(_of_requests(memory)) == []  # type: ignore[arg-type]
    memory.con.execute(f"UPDATE requests SET {column} = coalesce({column} * 1.1 + 1, 1)").fetchall()
    found = [problem.what for problem in _of_requests(memory)]  # type: ignore[arg-type]
    assert f"requests.{column} follows from the raw columns" in found


def test_what_was_measured_holds(results_once: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--db", str(results_once)]) == 0
    assert capsys.readouterr().out == f"checked 5 runs and 36 requests in {results_once}: everything holds\n"


@pytest.mark.parametrize(
    ("change", "what", "example"),
    [
        ("UPDATE requests SET ttft_s = 9 WHERE run_id = (SELECT max(run_id) FROM requests) AND request_index = 3",
         "requests.ttft_s follows from the raw columns (1x", "request 3: 9.0, not "),
        ("UPDATE requests SET e2e_s = 1 WHERE error_kind = 'dropped'", "requests.e2e_s follows", "1.0, not NULL"),
        ("UPDATE requests SET queue_s = NULL", "requests.queue_s follows", "NULL, not"),
        ("UPDATE requests SET outcome = 'correct' WHERE error_kind = 'timeout'",
         "outcome is the error's kind", OLD),
        ("UPDATE requests SET accuracy_score = 1.5", "accuracy_score is from 0 to 1", "request"),
        ("UPDATE requests SET segment = 7 WHERE request_index = 0", "its segment is known (5x", "request 0"),
        ("UPDATE requests SET first_answer_s = ttft_s - 0.001 WHERE first_answer_s IS NOT NULL",
         "the first of the four", ""),
        ("UPDATE requests SET config_hash = 's1:0'", "config_hash is its run's (36x", ""),
        ("UPDATE requests SET end_ns = sent_ns - 1 WHERE error_kind = 'timeout'", "no request ends before", ""),
        ("UPDATE runs SET model = 'other' WHERE model = 'mixed'",
         "runs.model follows from the config (3x", "'other', not 'mixed'"),
        ("UPDATE runs SET config = json_merge_patch(config, '{\"seed\": 9}') WHERE label = 'older'",
         "runs.config_hash follows from the config (1x", "s1:"),
        ("UPDATE runs SET config = '{}' WHERE label = 'older'", "runs.config follows",
         "not 'a config that is known here'"),
        ("UPDATE runs SET config = '[]' WHERE label = 'older'", "runs.config follows from the config (1x", "'[]', not"),
        ("UPDATE runs SET config = json_merge_patch(config, '{\"load\": 5}')",
         "runs.config follows from the config (5x", "known here"),
        ("UPDATE requests SET send_lag_s = 9; UPDATE runs SET verdict = 'valid' WHERE verdict IS NOT NULL",
         "runs.verdict follows from the requests (5x", "valid, not invalid (no request completed)"),
        ("UPDATE requests SET error_kind = 'timeout'; UPDATE runs SET verdict = 'valid'",
         "runs.verdict follows from the requests (5x", "not invalid (no request completed)"),
        ("DELETE FROM requests WHERE request_index = 7",
         "a complete run has all its requests (4x", "7 requests of 8 planned"),
        ("UPDATE requests SET request_index = 70 WHERE request_index = 7",
         "request_index is within the plan (4x", "70"),
        ("DELETE FROM runs WHERE label = 'older'", "rows of samples belong to a run (1x", "no such run"),
        ("UPDATE run_gaps SET p99 = 99 WHERE gaps = (SELECT max(gaps) FROM run_gaps)",
         "kept gap percentiles are those of the chunks (1x", "p99 99.0 s, not "),
    ],
)  # fmt: skip
def test_each_thing_that_does_not_hold_is_found_with_an_example(
    results: Path, capsys: pytest.CaptureFixture[str], change: str, what: str, example: str
) -> None:
    with duckdb.connect(results) as con:
        con.execute(change).fetchall()
    assert main(["verify", "--db", str(results)]) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if what in line]
    assert line.startswith("does not hold: ")
    assert example in line
    assert "problem" in out


def test_programs_read_problems_as_json(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with duckdb.connect(results) as con:
        con.execute("DELETE FROM runs WHERE label = 'older'").fetchall()
    assert main(["verify", "--json", "--db", str(results)]) == 1
    found = json.loads(capsys.readouterr().out)["problems"]
    assert "rows of samples belong to a run" in [problem["what"] for problem in found]


def test_a_run_under_way_is_not_held_against_its_plan(results: Path) -> None:
    with duckdb.connect(results) as con:
        con.execute("UPDATE runs SET status = 'interrupted', verdict = NULL").fetchall()
        con.execute("DELETE FROM requests WHERE request_index = 7").fetchall()
    with Reader(results) as reader:
        assert list(problems(reader)) == []


@pytest.mark.slow
def test_what_a_dead_process_left_is_named_where_it_cannot_be_settled(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(results) as store:
        store.append("runs", {"run_id": "dead", "config_hash": "h", "status": "running"})
        assert store.flush()
        assert main(["verify", "--db", str(results)]) == 0, "it goes on"
    waiting = Spool(spool_of(results))
    for index in range(3):
        waiting.append("requests", {"run_id": "dead", "request_index": index})
    waiting.close()
    with held(results, "read"):
        assert main(["verify", "--db", str(results)]) == 1
    out = capsys.readouterr().out
    assert "does not hold: a run whose process is gone has ended (1x, e.g. run dead: it is running)\n" in out
    assert "does not hold: rows of processes that are gone are in the file (3x, e.g. " in out

"""What a load ends with is one table and an answer, on a narrow terminal, and never more than two screens."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from structbench.reports.brief import print_answer, print_brief
from structbench.reports.document import Document
from structbench.store import Store
from tests.support.reports import FAILED, document, many, requests, run, write

HOSTILE = "[red]m[/]\x1b[31m\u202e"


def shown(found: Document, width: int = 80, height: int = 24, **more: list[str]) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    print_brief(found, console, more=more)
    print_answer(found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


TABLE = """\
json              n  errors  correct         TTFT p50  e2e p50  correct/s
  m:1b c=1      100       2  96 % (90–98 %)     50 ms   150 ms        9.4
  m:1b c=4!  20/50*       0  –                  10 ms   110 ms          –
tools
  m:3b c=1       30       0  0 % (0–11 %)       16 ms   116 ms        0.0  (1)

Errors
  2 × timeout (m:1b json c=1): total: 300 s

Wrong answers
  30 × no call (m:3b tools c=1): nothing was called
  4 × wrong value (m:1b json c=1)
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [
        run("r1"), run("r2", concurrency=4, status="interrupted", planned=50),
        run("r3", model="m:3b", suite="tools", verdict="degraded", verdict_reason="it fell behind"),
    ]  # fmt: skip
    wrong = {"outcome": "no_call", "accuracy_score": 0.0, "validation_errors": ["nothing was called"]}
    rows = [
        *requests("r1", 100, wrong=4, failed=2),
        *requests("r2", 20, outcome="completed", accuracy_score=None, json_valid=None, schema_valid=None),
        *requests("r3", 30, **wrong),
    ]
    made = write(tmp_path_factory.mktemp("brief") / "a.duckdb", runs, rows)
    with Store(made) as store:
        note = {"kind": "load_not_reached", "text": "at most 2 of 4", "share": 0.5, "at_s": None}
        store.append("runs", {"run_id": "r2", "notes": [note]})
    return made


def test_a_load_ends_with_one_table_and_what_was_wrong(path: Path) -> None:
    text = shown(document(path), height=50)
    assert text.startswith(TABLE)
    assert "\n(1) degraded: it fell behind\n" in text
    assert "\nnote: at most 2 of 4 (m:1b json c=4)\n" in text
    assert text.index("No model has") > text.index("note:")


def test_columns_and_parts_that_are_empty_are_not_there(tmp_path: Path) -> None:
    found = document(write(tmp_path / "a.duckdb", [run("r1")], requests("r1", 80)))
    text = shown(found, height=50)
    for absent in ("errors ", "Errors", "Wrong", "(1)"):
        assert absent not in text.partition("\n\n")[0]
    assert text.splitlines()[1].split()[:3] == ["m:1b", "c=1", "80"]


def test_the_command_that_settles_what_is_open_is_one_line_to_copy(tmp_path: Path) -> None:
    kept = {"environment": {"command": ["--models", "m:1b", "--suites", "json"]}}
    found = document(write(tmp_path / "my results.duckdb", [run("r1", **kept)], requests("r1", 30)))
    text = shown(found, height=50)
    (command,) = found.headline.settled_by
    assert text.splitlines()[-1] == command
    assert "settle it" not in text.replace(command, "")
    assert f" --db '{tmp_path}/my results.duckdb' --skip-cached" in command


@pytest.mark.parametrize("width", [80, 200])
def test_36_runs_are_two_screens_at_most(tmp_path: Path, width: int) -> None:
    text = shown(document(many(tmp_path / "m.duckdb", 36, 40)), width, 24, **{"": ["warning: one"] * 9})
    assert len(text.splitlines()) <= 2 * 24
    *lines, command = text.splitlines()
    assert all(len(line) <= width for line in lines)
    assert "settle it: " in command
    assert "alpha:1b c=9" in text
    assert "beta:3b c=9" in text
    assert "more (--wide)" in text


def test_rows_without_room_are_counted(tmp_path: Path) -> None:
    text = shown(document(many(tmp_path / "m.duckdb", 36, 40)), 80, 14)
    assert len(text.splitlines()) <= 2 * 14
    hidden = next(line for line in text.splitlines() if "more runs (--wide)" in line)
    rows = [line for line in text.splitlines() if line.startswith(("  alpha", "  beta"))]
    assert int(hidden.split()[2]) + len(rows) == 36


def test_names_from_outside_drive_neither_markup_nor_terminal(tmp_path: Path) -> None:
    failed = {**FAILED, "error_message": HOSTILE}
    rows = [*requests("r1", 20, **failed), *requests("r2", 20)]
    text = shown(document(write(tmp_path / "h.duckdb", [run("r1", model=HOSTILE), run("r2")], rows)), height=50)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]m[/]" in text


def test_answers_that_came_whole_have_no_ttft_and_are_judged_by_e2e(tmp_path: Path) -> None:
    whole = {"chunks": 1, "chunk_offsets_us": [20_000], "ttft_s": 0.02, "e2e_s": 2.0, "output_tokens": 20}
    rows = [*requests("r1", 80, **whole), *requests("r2", 80)]
    found = document(write(tmp_path / "a.duckdb", [run("r1", suite="tools"), run("r2")], rows))
    line = next(line for line in shown(found, height=50).splitlines() if "2.0 s" in line)
    assert line.split()[:3] == ["m:1b", "c=1", "80"]
    assert "–" in line
    tools = next(group for group in found.groups if group.suite == "tools")
    assert found.figures[tools.id].latencies["ttft_s"]["p50"].value == 0.02, "the column keeps its value"
    (check,) = [each for each in found.headline.candidates[0].checks if each.metric.name == "e2e_p95"]
    assert (check.group.suite, check.state, check.condition.text) == ("tools", "not met", "ttft_p95<=1s")
    assert "e2e p95 2.00 s where at most 1.00 s" in found.headline.text
    assert {gate.cell: gate.outcome for gate in found.gates if gate.slo.startswith("ttft")} == {
        "m:1b json c=1": "met", "m:1b tools c=1": "not met",
    }  # fmt: skip
    (told,) = [gate.text for gate in found.gates if gate.slo.startswith("ttft") and gate.outcome == "not met"]
    assert told.startswith("e2e p95 of answers that came whole: 2.00 s"), "a line labelled ttft says what it is of"


def test_an_answer_of_one_token_has_a_first_one(tmp_path: Path) -> None:
    """The token that ends an answer is counted and never sent: a limit on TTFT was held against e2e."""
    one = {"chunks": 1, "chunk_offsets_us": [20_000], "ttft_s": 0.02, "e2e_s": 2.0}
    rows = [
        *requests("r1", 20, **one, output_tokens=1, done_reason="length"),
        *requests("r2", 20, **one, output_tokens=2, done_reason="stop"),
        *requests("r3", 20, **one, output_tokens=2, done_reason="length"),
    ]
    runs = [run(f"r{i}", config_hash=f"h{i}", suite=f"s{i}") for i in (1, 2, 3)]
    found = document(write(tmp_path / "a.duckdb", runs, rows))
    assert {group.suite: found.figures[group.id].whole for group in found.groups} == {
        "s1": False, "s2": False, "s3": True,
    }  # fmt: skip

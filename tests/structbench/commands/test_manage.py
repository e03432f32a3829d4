"""Managing what is stored: listed, counted, removed only when said so, forgotten without loss."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from loadgen.simulator import Simulator
from structbench.cli import main
from structbench.options import LoadOptions
from structbench.store import Store
from structbench.suites.answer_book import answer_book
from tests.support.loads import MODELS, ask, inferences, load, small

LABEL = "first\nsecond\x1b[2J"
OLD = "20260101T000000-00000000"


def listed(capsys: pytest.CaptureFixture[str], db: Path, *words: str) -> list[dict[str, Any]]:
    assert main(["runs", *words, "--json", "--db", str(db)]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_runs_says_what_was_done_when_and_how_it_ended(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--db", str(results)]) == 0
    heading, _, *lines, total = capsys.readouterr().out.splitlines()
    assert heading.split() == ["run", "started", "(UTC)", "model", "suite", "load", "requests", "errors", "correct",
                               "status", "verdict", "label"]  # fmt: skip
    assert " ".join(lines[0].split()) == f"{OLD} 2026-01-01 00:00 mixed json c=2 4/10 4 – interrupted invalid older"
    assert lines[1].split()[3:11] == ["sim:fast", "json", "c=2", "8", "0", "100.0", "%", "complete"]
    assert (len(lines), total) == (5, f"5 runs in {results}")


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("", 5),
        ("--model mixed", 3),
        ("--model mixed --suite json tools --status complete", 2),
        ("--label first older", 5),
        ("--status interrupted", 1),
        ("--since 2026-02-01", 4),
        ("--since 1h", 4),
        ("--since 2026-01-01T01:00+01:00", 5),
        ("20260101", 1),
        ("older --status complete", 0),
        ("json --label first", 2),
    ],
)
def test_filters_narrow_and_values_widen(
    results_once: Path, capsys: pytest.CaptureFixture[str], words: str, count: int
) -> None:
    assert (
        len(listed(capsys, results_once, *words.replace("2026-01 ", OLD).split())) == count if words != "2026-01" else 1
    )


@pytest.mark.parametrize("words", [["runs"], ["clean", "--label", LABEL, "--dry-run"]], ids=lambda words: words[0])
@pytest.mark.parametrize("terminal", [True, False])
def test_text_of_another_machine_does_not_drive_the_terminal(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    terminal: bool,
) -> None:
    run = {
        "run_id": "r\x1b[1m",
        "label": LABEL,
        "model": LABEL,
        "suite": LABEL,
        "status": "complete",
        "verdict": "\x1b[1m",
    }
    with Store(tmp_path / "s.duckdb") as store:
        store.append("runs", run)
    if terminal:
        monkeypatch.setattr("rich.console.Console.is_terminal", True)
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "40")
    assert main([*words, "--db", str(tmp_path / "s.duckdb")]) == 0
    out = capsys.readouterr().out
    assert "first second" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("runs jsn", r"did you mean json\?"),
        ("runs --label frist", r"no run has label 'frist': did you mean first\?"),
        ("runs --status complet", r"--status 'complet': did you mean complete\?"),
        ("runs --since soon", "give a date such as"),
        ("runs --since 99999999999999d", "give a date such as"),
        ("clean", "choose the runs to remove"),
        ("clean --yes", "choose the runs to remove"),
        ("clean --days -1", "--days -1: give 0 or more"),
        *((f"clean --days {days}", "--days .*: too many for the calendar") for days in ("inf", "1e12", "1e9", "8e5")),
        ("clean --days nan", "--days nan: give 0 or more"),
        ("clean --label first", "add --yes to remove the runs"),
        ("clear-cache nothing", "no run, label, model"),
        ("export --format xml", "use csv, parquet"),
        ("export older --status complete", "no runs match"),
        ("import", "name the files to import"),
        ("sql selec", "line 1, column 1"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: str, message: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    before = results.read_bytes()
    assert main([*words.split(), "--db", str(results)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(message, told)
    assert results.read_bytes() == before


@pytest.mark.parametrize(
    "words", ["runs", "stats", "verify", "export", "clean --days 1", "clear-cache", "sql from\truns", "import {db}"]
)
def test_a_file_with_nothing_to_read_is_refused_by_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    path = tmp_path / "none.duckdb"
    assert main([word.format(db=path) for word in words.split(" ")] + ["--db", str(path)]) == 2
    assert "run `structbench load`" in capsys.readouterr().err
    Store(path).close()
    if "import" not in words:
        assert main([*words.split(" "), "--db", str(path)]) == 2
        assert "is an empty database" in capsys.readouterr().err
    assert {each.name for each in tmp_path.iterdir()} == {"none.duckdb"}


def test_stats_count_cells_requests_and_cache_hits(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "--json", "--db", str(results)]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert (stats["runs"], stats["complete_runs"], stats["interrupted_runs"], stats["completed_cells"]) == (5, 4, 1, 4)
    assert (stats["models"], stats["suites"]) == (["mixed", "sim:fast"], ["json", "tools"])
    assert (stats["requests"], stats["errors"], stats["bytes"]) == (36, 4, results.stat().st_size)
    assert (stats["lookups"], stats["hits"], stats["cache_hit_rate"]) == (4, 0, 0.0)
    assert main(["stats", "--db", str(results)]) == 0
    assert "5: 4 complete, 1 interrupted, 0 running" in capsys.readouterr().out


@pytest.mark.slow
def test_clean_removes_what_was_named_and_the_file_gets_smaller(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(results) as store:
        for index in range(300):
            store.append("requests", {"run_id": OLD, "request_index": 100 + index, "output_text": f"{index}" * 3000})
    keep = ask(results, f"SELECT * FROM requests WHERE run_id <> '{OLD}' ORDER BY run_id, request_index")
    before = results.stat().st_size
    arguments = ["clean", "--days", "30", "--db", str(results)]
    assert main([*arguments, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "1 run to remove, with 304 requests:" in told
    assert f"  {OLD}  2026-01-01 00:00  mixed json c=2, 304/10 requests, interrupted, older" in told
    assert results.stat().st_size == before
    assert main([*arguments, "--yes"]) == 0
    assert "Removed 1 run, 304 requests." in capsys.readouterr().out
    assert results.stat().st_size < before - 200_000
    assert ask(results, "SELECT * FROM requests ORDER BY run_id, request_index") == keep
    for table in ("runs", "segments", "requests"):
        assert ask(results, f"SELECT count(*) FROM {table} WHERE run_id = '{OLD}'") == [(0,)]
    assert {each.name for each in results.parent.iterdir()} == {results.name}
    with Store(results) as store:
        store.append("runs", {"run_id": "new", "config_hash": "h"})
        assert len(store.query("FROM summary")) == 5, "the file is as good as the old one"


@pytest.mark.parametrize(("answer", "left"), [("y", 4), ("n", 5), ("", 5)])
def test_clean_asks_at_a_terminal(
    results: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: int, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _prompt: answer)
    assert main(["clean", "older", "--db", str(results)]) == 0
    assert "1 run to remove" in capsys.readouterr().out
    assert len(listed(capsys, results)) == left


def test_clean_leaves_a_run_under_way_alone(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(results) as store:
        store.append("runs", {"run_id": "live", "status": "running", "label": "older"})
        store.flush()
        assert main(["clean", "--label", "older", "--yes", "--db", str(results)]) == 0
        assert "1 run still running will be kept." in capsys.readouterr().out
        store.append("requests", {"run_id": "live", "request_index": 0})
    assert ask(results, "SELECT run_id, count(request_index) FROM runs LEFT JOIN requests USING (run_id)"
               " WHERE runs.label = 'older' GROUP BY 1") == [("live", 1)]  # fmt: skip


def options_of(server: Simulator, db: Path) -> LoadOptions:
    return small(server, db, suites=["numbers"], requests=2, skip_cached=True)


def states(options: LoadOptions) -> Sequence[str]:
    return [row["cache"] for row in load(options).rows]


@pytest.mark.slow
def test_after_clear_cache_cells_run_again_and_no_row_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "s.duckdb"
    with Simulator(MODELS, answers=answer_book()) as server:
        assert states(options_of(server, db)) == ["new"]
        assert states(options_of(server, db)) == ["skipped"]
        assert main(["clear-cache", "--suite", "numbers", "--db", str(db)]) == 0
        assert "Forgot 1 run" in capsys.readouterr().out
        server.reset_truth()
        assert states(options_of(server, db)) == ["new"]
        assert len(inferences(server)) >= 2
        assert states(options_of(server, db)) == ["skipped"]
    rows = listed(capsys, db)
    assert [(row["status"], row["requests"], row["forgotten"]) for row in rows] == [
        ("complete", 2, True), ("complete", 2, False)
    ]  # fmt: skip
    first, second = (row["run_id"] for row in rows)
    assert ask(db, "SELECT result, run_id FROM lookups ORDER BY looked_up_at") == [
        ("miss", first), ("hit", first), ("miss", second), ("hit", second)
    ]  # fmt: skip

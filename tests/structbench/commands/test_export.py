"""Export and import: what comes out is what was measured, whole or not there; what goes in, goes in once."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import pytest

from structbench.cli import main
from structbench.results.benchstat import PER_REQUEST, PER_RUN
from structbench.store import Reader, Store
from structbench.types import Note
from tests.support.loads import ROOT, ask

pytestmark = pytest.mark.slow

OLD = "20260101T000000-00000000"


def export(db: Path, *words: object) -> int:
    return main(["export", *map(str, words), "--db", str(db)])


@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "out.json", "out.jsonl"])
def test_every_format_holds_every_request(results_once: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    assert export(results_once, "-o", out) == 0
    read = f"read_{name[4:].replace('jsonl', 'json')}('{out}'{', allow_quoted_nulls = false' * name.endswith('csv')})"
    figures = "run_id, request_index, model, suite, load, label, outcome, ttft_s, output_text, started_at::TIMESTAMP"
    order = "ORDER BY run_id, request_index"
    with duckdb.connect() as con:
        got = con.execute(f"SELECT {figures} FROM {read} {order}").fetchall()
    assert got == ask(results_once, f"SELECT {figures} FROM exported {order}")
    assert len(got) == 36
    assert {each.name for each in tmp_path.iterdir()} == {name}
    if name == "out.json":
        assert len(json.loads(out.read_text())) == 36


def test_every_exported_column_is_documented(results_once: Path, tmp_path: Path) -> None:
    export(results_once, "-o", tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    (section,) = re.findall(r"^### `exported`.*?\n(.*?)(?=^##|\Z)", (ROOT / "docs/store.md").read_text(), re.M | re.S)
    assert [column for column in columns if f"`{column}`" not in section] == []


def test_a_file_for_each_run_with_that_runs_requests_only(results_once: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert export(results_once, "--per-run", "--format", "jsonl", "--suite", "json", "-o", folder) == 0
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [
        f"{run_id}.jsonl"
        for (run_id,) in ask(results_once, "SELECT run_id FROM runs WHERE suite = 'json' ORDER BY ALL")
    ]
    rows = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    assert [len(each) for each in rows] == [4, 8, 8]
    assert all({row["run_id"] for row in each} == {file.stem} for file, each in zip(files, rows, strict=True))


def command(db: Path, *words: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    arguments = [sys.executable, "-m", "structbench", "export", *words, "--db", str(db)]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, **more)


def test_standard_output_holds_the_rows_and_nothing_else(results_once: Path) -> None:
    done = command(results_once, "older", "--format", "jsonl")
    assert sorted(json.loads(line)["request_index"] for line in done.stdout.splitlines()) == [0, 1, 2, 3]
    assert done.stderr == b"1 run to standard output\n"


def test_a_reader_who_has_seen_enough_is_no_mistake(results_once: Path) -> None:
    line = f"{sys.executable} -m structbench export --db {results_once} | head -c 100 | wc -c"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), "Traceback" in done.stderr, "cannot write" in done.stderr) == ("100", False, False)


@pytest.mark.parametrize("format", ["csv", "benchstat"])
def test_a_place_that_cannot_be_written_is_refused_and_what_was_there_stays(
    results_once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    (tmp_path / "file").write_text("mine")
    for path, why in {
        tmp_path: "is a folder", tmp_path / "no" / "x": "does not exist", Path("/dev/full"): "cannot write",
    }.items():  # fmt: skip
        assert export(results_once, "--format", format, "-o", path) == 2
        assert re.fullmatch(rf"structbench: .*{why}.*\n", capsys.readouterr().err)
    assert export(results_once, "--format", format, "--per-run", "-o", tmp_path / "file") == 2
    assert export(results_once, "--format", format, "--per-run") == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert [each.read_text() for each in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("format", ["csv", "benchstat"])
def test_the_database_is_not_written_over(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    (run_id, *_), before = ask(results, "SELECT run_id FROM runs ORDER BY ALL")[0], results.read_bytes()
    named = Path(shutil.copy(results, tmp_path / f"{run_id}.{format.replace('benchstat', 'txt')}"))
    for db, words in ((results, ["-o", results]), (named, ["--per-run", "-o", tmp_path])):
        assert export(db, "--format", format, *words) == 2
        assert f"-o {db} is the database itself" in capsys.readouterr().err
        assert db.read_bytes() == before


LINE = re.compile(r"Benchmark[^\s]+ [1-9]\d*( \S+ [^\s\d]\S*)+")
OTHER = re.compile(r"(Unit \S+ better=(lower|higher)|# run_id=.*|)")


def test_benchstat_text_has_the_format_and_each_completed_request(results_once: Path, tmp_path: Path) -> None:
    assert export(results_once, "-o", tmp_path / "x.txt") == 0
    lines = (tmp_path / "x.txt").read_text().splitlines()
    results = [line for line in lines if line.startswith("Benchmark")]
    assert [line for line in results if not LINE.fullmatch(line)] == []
    assert [line for line in lines if not line.startswith("Benchmark") and not OTHER.fullmatch(line)] == []
    name = "BenchmarkStructbench/model=mixed/suite=json/load=c=2"
    completed = ask(results_once, "SELECT ttft_s FROM exported WHERE model = 'mixed' AND suite = 'json'"
                    " AND error_kind IS NULL AND ttft_s IS NOT NULL ORDER BY request_index")  # fmt: skip
    times = [float(line.split()[2]) for line in results if re.match(rf"{name}(/config=\w+)? 1 .*ttft-sec", line)]
    assert times == pytest.approx([ttft_s for (ttft_s,) in completed])
    units = {unit for line in results for unit in line.split()[3::2]}
    assert units <= {*PER_REQUEST.values(), *PER_RUN.values()}
    assert {"ttft-sec", "accuracy", "req/s"} <= units


def test_names_of_benchmarks_hold_no_sign_that_divides_them(results: Path, tmp_path: Path) -> None:
    with duckdb.connect(results) as con:
        con.execute(
            "UPDATE runs SET model = 'hf.co/some one/x', label = E'two\\nlines' WHERE label = 'first'"
        ).fetchall()
    export(results, "-o", tmp_path / "x.txt")
    text = (tmp_path / "x.txt").read_text()
    assert re.search(r"^BenchmarkStructbench/model=hf.co_some_one_x/suite=json/load=c=2(/config=\w{8})? 8 ", text, re.M)
    assert " label=two_lines server_version=" in text


def test_runs_of_different_configs_are_not_pooled_in_benchstat_text(tmp_path: Path) -> None:
    """Nothing but its name tells benchstat that a line is of something else."""
    path = tmp_path / "s.duckdb"
    with Store(path) as store:
        for run_id, suite, structured, config in (
            ("a", "json", "format", "s1:0"), ("b", "json", "prompt", "s1:1"), ("c", "json", "format", "s1:0"),
            ("d", "tools", "none", "s1:222222223"), ("e", "tools", "none", "s1:333333334"),
        ):  # fmt: skip
            run = {"model": "m", "suite": suite, "structured": structured, "config_hash": config, "concurrency": 1}
            store.append("runs", {"run_id": run_id, "load_kind": "closed", "status": "complete", **run})
            store.append("requests", {"run_id": run_id, "request_index": 0, "e2e_s": 1.0})
    assert export(path, "-o", tmp_path / "x.txt") == 0
    lines = (tmp_path / "x.txt").read_text().splitlines()
    names = [line.split()[0].removeprefix("BenchmarkStructbench/model=m/") for line in lines if "e2e-sec" in line]
    assert [name for name in names if name != "Unit"] == [
        "suite=json/load=c=1", "suite=json_prompt/load=c=1", "suite=json/load=c=1",
        "suite=tools/load=c=1/config=22222222", "suite=tools/load=c=1/config=33333333",
    ]  # fmt: skip


# Import.


@pytest.fixture
def other(results: Path, tmp_path: Path) -> Path:
    """The same file again, as if from another machine, with one run more."""
    path = Path(shutil.copy(results, tmp_path / "other.duckdb"))
    with Store(path) as store:
        store.append("runs", {"run_id": "more", "config_hash": "h", "model": "m", "status": "complete"})
        store.append("requests", {"run_id": "more", "request_index": 0, "chunk_offsets_us": [1, 2], "chunks": 2})
    return path


def test_runs_of_another_file_come_in_once(
    results: Path, other: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = other.read_bytes()
    arguments = ["import", str(other), "--db", str(results)]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{other}: 6 runs (1 new, 5 here already)\n"
    assert main(arguments) == 0
    assert "(6 here already)" in capsys.readouterr().out
    for table in ("runs", "segments", "requests", "samples", "run_gaps"):
        rows = f"FROM {table} ORDER BY ALL"
        assert ask(results, rows) == ask(other, rows), table
    assert other.read_bytes() == before
    new = tmp_path / "new.duckdb"
    assert main(["import", str(results), str(other), "--db", str(new)]) == 0
    assert ask(new, "SELECT count(*) FROM requests") == [(37,)]
    assert main(["verify", "--db", str(results)]) == 1, "the made up run has no segment"
    assert "requests: its segment is known (1x, e.g. run more" in capsys.readouterr().out


def test_a_run_under_way_there_comes_as_interrupted_and_is_completed_later(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "live.duckdb"
    state = "SELECT runs.status, segments.status, count(request_index) FROM runs JOIN segments USING (run_id)" \
            " JOIN requests USING (run_id) WHERE run_id = 'live' GROUP BY ALL"  # fmt: skip
    with Store(path) as store:
        store.append("runs", {"run_id": "live", "status": "running"})
        store.append("segments", {"run_id": "live", "segment": 0, "status": "running"})
        store.append("requests", {"run_id": "live", "request_index": 0})
        store.flush()
        assert main(["import", str(path), "--db", str(results)]) == 0
        assert ask(results, state) == [("interrupted", "interrupted", 1)]
        assert ask(path, state) == [("running", "running", 1)]
        for table, row in {"runs": {}, "segments": {"segment": 0}}.items():
            store.append(table, {"run_id": "live", "status": "complete", **row})
        store.append("requests", {"run_id": "live", "request_index": 1})
    assert main(["import", str(path), "--db", str(results)]) == 0
    assert "(1 completed)" in capsys.readouterr().out
    assert ask(results, state) == [("complete", "complete", 2)]


def test_what_is_kept_of_gaps_is_never_stale_after_an_import(results: Path, other: Path) -> None:
    with duckdb.connect(other) as con:
        con.execute("INSERT INTO run_gaps SELECT 'more', 5, 10, 8, 9, 9, 9, 9, 9").fetchall()
    assert main(["import", str(other), "--db", str(results)]) == 0
    with Reader(results) as reader:
        assert reader.query("SELECT gaps, p50 FROM gap_percentiles WHERE run_id = 'more'") == [{"gaps": 1, "p50": 1e-6}]


def test_notes_come_with_their_run_and_go_with_it(results: Path, other: Path) -> None:
    with Store(other) as store:
        store.append("runs", {"run_id": "more", "notes": [asdict(Note("slow", "it got slower", at_s=2.0))]})
    assert main(["import", str(other), "--db", str(results)]) == 0
    assert ask(results, "FROM notes WHERE run_id = 'more'") == [("more", "slow", None, 2.0, "it got slower")]
    assert main(["clean", "more", "--yes", "--db", str(results)]) == 0
    assert ask(results, "FROM notes WHERE run_id = 'more'") == []


def test_a_file_that_cannot_be_taken_in_leaves_all_as_it_was(
    results: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = Path(shutil.copy(other, tmp_path / "newer.duckdb"))
    with duckdb.connect(newer) as con:
        con.execute("INSERT INTO migrations VALUES (99, 'later', NULL, '7.0.0')").fetchall()
    before = results.read_bytes()
    for bad, why in {
        newer: "upgrade structbench",
        results: "the database to import into",
        tmp_path / "no": "does not exist",
    }.items():
        assert main(["import", str(other), str(bad), "--db", str(results)]) == 2
        assert why in capsys.readouterr().err
    assert results.read_bytes() == before
    assert main(["import", str(other), "--db", str(newer)]) == 2

"""Reading the file: what dead processes left is seen, nobody is kept waiting, a bad file is refused in one line."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from structbench.errors import BadInput
from structbench.store import Reader, Store, schema
from structbench.store.database import Database
from structbench.store.spool import Spool, is_alive
from structbench.store.upkeep import spool_of
from tests.support.databases import APPEND, RUN, held, python, request

SEGMENT = {"run_id": "killed", "segment": 0, "status": "running"}


def leave(path: Path, **rows: dict[str, Any]) -> Path:
    """A dead process's rows, a table each; the folder in which they wait."""
    dead = Spool(path.with_name(path.name + ".spool"))
    for table, row in rows.items():
        dead.append(table, row)
    dead.close()
    return dead.folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one complete run of three requests."""
    path = tmp_path / "db.duckdb"
    with Store(path) as store:
        store.append("runs", {**RUN, "status": "complete"})
        for index, ttft_s in enumerate((0.5, None, 1.5)):
            store.append("requests", request(index, ttft_s=ttft_s, case_id=None if index else "a", chunks=index))
    return path


def test_rows_of_a_killed_load_are_seen_and_its_run_is_interrupted(path: Path) -> None:
    with python(APPEND, path, "killed", 1000, 400) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(40)]
        process.send_signal(signal.SIGKILL)
        process.wait()
    leave(path, runs={**RUN, "run_id": "killed", "owner": "1-dead"}, segments=SEGMENT)
    with Reader(path) as reader:
        rows = reader.query("SELECT request_index FROM requests WHERE run_id = 'killed' ORDER BY ALL")
        assert [row["request_index"] for row in rows][: len(told)] == told
        assert reader.query("SELECT runs.status, segments.status AS s FROM runs JOIN segments USING (run_id)") == [
            {"status": "interrupted", "s": "interrupted"}
        ]
    assert list(path.parent.iterdir()) == [path]


def test_a_run_under_way_stays_running_and_its_rows_stay_its_own(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Store(path) as store:
        store.append("runs", {**RUN, "run_id": "live"})
        store.flush()
        with held(path, "read"):
            store.append("requests", {"run_id": "live", "request_index": 0})
            with Reader(path) as reader:
                (row,) = reader.query("SELECT status, owner FROM runs WHERE run_id = 'live'")
                assert row["status"] == "running"
                assert is_alive(spool_of(path), row["owner"])
                assert not is_alive(spool_of(path), "1-unknown")
            assert caplog.text == "", "a reader beside a load has nothing to write, and asks for nothing to write into"
        assert store.flush()
    with Reader(path) as reader:
        assert not is_alive(spool_of(path), row["owner"])
        assert reader.query("SELECT count(*) AS n FROM requests WHERE run_id = 'live'") == [{"n": 1}]
        assert reader.query("SELECT status FROM runs WHERE run_id = 'live'") == [{"status": "interrupted"}]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder of open descriptors")
def test_looking_at_a_load_again_and_again_leaves_nothing_open(path: Path) -> None:
    counts = []
    with Store(path) as store:
        store.append("runs", {**RUN, "run_id": "live"})
        store.flush()
        for _ in range(3):
            with Reader(path) as reader:
                assert reader.query("SELECT owner FROM runs WHERE run_id = 'live'") == [{"owner": store.owner}]
                assert is_alive(spool_of(path), store.owner)
            counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts[1] == counts[2], "the first look loads libraries"


def test_what_cannot_be_merged_for_now_is_told_and_kept(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = leave(path, requests=request(7))
    with held(path, "read"), Reader(path, patience_s=0.1) as reader:
        assert reader.query("SELECT count(*) AS n FROM requests") == [{"n": 3}]
    assert "rows of an earlier load wait in" in caplog.text
    with Reader(path) as reader:
        assert reader.query("SELECT count(*) AS n FROM requests") == [{"n": 4}]
    assert not spool.exists()


def test_the_file_is_free_between_queries_and_held_for_those_that_belong_together(path: Path) -> None:
    with Reader(path) as reader:
        reader.query("FROM runs")
        with Database(path).opened(read_only=False):
            pass
        with reader.together() as con:
            reader.query("FROM runs")
            assert con.execute("SELECT 1").fetchall() == [(1,)]
            with python("import duckdb, sys; duckdb.connect(sys.argv[1])", path) as other:
                assert other.wait() != 0, "a writer got in between"
        with Database(path).opened(read_only=False):
            pass


def test_columns_are_arrays_without_a_mask(path: Path) -> None:
    with Reader(path) as reader:
        found = reader.columns("SELECT chunks, ttft_s, case_id FROM requests WHERE run_id = $1 ORDER BY ALL", ["r"])
    assert found["chunks"].tolist() == [0, 1, 2]
    assert [None if math.isnan(value) else value for value in found["ttft_s"].tolist()] == [0.5, None, 1.5]
    assert found["case_id"].tolist() == ["a", None, None]


def test_a_reader_on_files_that_may_not_be_written_reads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = leave(path, requests=request(7))
    monkeypatch.setattr(os, "access", lambda _path, mode: mode == os.R_OK)
    with Reader(path) as reader:
        assert reader.query("SELECT count(*) AS n FROM requests") == [{"n": 3}]
    assert list(spool.glob("*.jsonl"))


def test_an_older_file_is_migrated_and_then_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later, sql_of = (*schema.MIGRATIONS, "9999-later"), schema.sql_of
    sql = "CREATE TABLE later (x INTEGER); INSERT INTO later VALUES (7)"
    monkeypatch.setattr(schema, "sql_of", lambda name: sql if name == "9999-later" else sql_of(name))
    for module in ("schema", "database", "inspection"):
        monkeypatch.setattr(f"structbench.store.{module}.MIGRATIONS", later)
        if module != "schema":
            monkeypatch.setattr(f"structbench.store.{module}.TABLES", (*schema.TABLES, "later"))
    with Reader(path) as reader:
        assert reader.query("FROM later") == [{"x": 7}]


def _newer(path: Path) -> None:
    with duckdb.connect(path) as con:
        con.execute("INSERT INTO migrations VALUES (99, 'later', NULL, '7.0.0')").fetchall()


def _foreign(path: Path) -> None:
    path.unlink()
    with duckdb.connect(path) as con:
        con.execute("CREATE TABLE runs (x INTEGER)").fetchall()


def _empty(path: Path) -> None:
    path.unlink()
    Store(path).close()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, r".* does not exist: run `structbench load`"),
        (_folder, "is a folder"),
        (lambda path: path.write_text("no database " * 1000), "not a DuckDB database"),
        (lambda path: path.write_bytes(path.read_bytes()[:20_000]), "cannot be opened"),
        (_foreign, "that structbench did not make"),
        (_newer, r"written by structbench 7\.0\.0 .*upgrade structbench"),
        (_empty, "is an empty database: run `structbench load`"),
    ],
)
def test_a_file_with_nothing_to_read_is_refused_in_one_line_and_unchanged(
    path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(path)
    before = [(each, each.read_bytes() if each.is_file() else None) for each in path.parent.iterdir()]
    with pytest.raises(BadInput, match=message) as caught:
        Reader(path)
    assert "--db" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [(each, each.read_bytes() if each.is_file() else None) for each in path.parent.iterdir()] == before


def test_a_file_held_for_writing_is_waited_for_and_then_refused(path: Path) -> None:
    with held(path, "write"), pytest.raises(BadInput, match=r"in use by another process \(PID \d+, \w+\): stop"):
        Reader(path, patience_s=0.1)


@pytest.mark.slow
def test_a_new_file_that_somebody_keeps_is_not_called_empty(tmp_path: Path) -> None:
    path = tmp_path / "db.duckdb"
    Store(path).close()
    spool = leave(path, runs=RUN)
    with held(path, "read"), pytest.raises(BadInput, match=r"has no runs yet: rows of an earlier load wait in") as told:
        Reader(path, patience_s=0.1)
    assert f"{spool}: the database is in use by another process (PID " in str(told.value)
    with Reader(path) as reader:
        assert reader.query("SELECT status FROM runs") == [{"status": "interrupted"}]

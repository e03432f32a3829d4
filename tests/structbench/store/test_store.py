"""The store: nothing lost, nothing counted twice, nobody kept waiting, every bad file refused in one line."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest

from structbench import store as store_module
from structbench.errors import BadInput, RunFailed
from structbench.store import Reader, Store, database, schema, upkeep
from structbench.store import reader as reader_module
from structbench.store.database import Database
from structbench.store.spool import Spool, is_alive
from structbench.store.upkeep import spool_of
from tests.support.databases import APPEND, RUN, held, python, read, request
from tests.support.loads import ask

NOTES = [{"kind": "k", "share": 0.5, "at_s": None, "text": "t"}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db.duckdb"


@pytest.mark.slow
def test_kill_9_loses_no_row_and_counts_none_twice(path: Path) -> None:
    with python(APPEND, path, "r", 100_000, 200) as process:
        assert process.stdout is not None
        told: list[int] = []
        while not told or not ask(path, "SELECT count(*) FROM requests")[0][0]:  # now some are in the database
            told += [int(process.stdout.readline()) for _ in range(50)]
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout.read().splitlines()]
    committed = read(path, "SELECT count(*), count(DISTINCT request_index) FROM requests")[0]
    assert committed[0] == committed[1]
    assert committed[0] > 0
    with Store(path) as store:
        rows = [row["request_index"] for row in store.query("SELECT request_index FROM requests ORDER BY ALL")]
    assert rows[: len(told)] == told
    assert rows == list(range(len(rows)))
    assert len(rows) - len(told) <= 1, "only the row that was being appended may be there untold"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_second_row_of_a_request_lacks_is_absent_and_of_a_run_stays(path: Path) -> None:
    with Store(path) as store:
        store.append("runs", RUN | {"label": "night", "verdict": "valid"})
        store.append("runs", {"run_id": RUN["run_id"], "verdict": None})
        store.append("requests", request(0, ttft_s=1.0))
        store.append("requests", request(0, ttft_s=None, e2e_s=2.0))
        assert store.query("SELECT ttft_s, e2e_s FROM requests") == [{"ttft_s": None, "e2e_s": 2.0}]
        assert store.query("SELECT label, verdict FROM runs") == [{"label": "night", "verdict": None}]


def test_duckdb_is_started_anew_now_and_then_and_finds_what_it_found(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    connect = duckdb.connect

    def counted(*args: Any, **how: Any) -> duckdb.DuckDBPyConnection:
        started.append(args)
        return connect(*args, **how)

    with Store(path) as store:
        monkeypatch.setattr(database, "_OPEN_S", 0.0)
        monkeypatch.setattr(duckdb, "connect", counted)
        for index in range(4):
            store.append("requests", request(index))
            assert store.query("SELECT count(*) AS n FROM requests") == [{"n": index + 1}]
            assert store.query("SELECT run_id FROM summary") == []
    assert len(started) >= 4


@pytest.mark.slow
def test_a_reader_that_holds_the_file_delays_no_append_and_loses_no_row(path: Path) -> None:
    with Store(path) as store:
        with held(path, "read") as release:
            for index in range(500):
                store.append("requests", request(index))
            assert store.backlog == 500
            assert not store.flush(0.3)
            assert store.query("SELECT count(*) AS n, count(ttft_s) AS t FROM requests", timeout_s=0.1) == [
                {"n": 500, "t": 0}
            ]
            store.append("requests", request(0, ttft_s=1.0))
            assert store.query("SELECT count(*) AS n, count(ttft_s) AS t FROM requests", timeout_s=0.1) == [
                {"n": 500, "t": 1}
            ]
            release()
        assert store.flush(10)
        assert store.backlog == 0
        assert store.query("SELECT count(*) AS n FROM requests") == [{"n": 500}]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["read", "write"])
def test_what_is_kept_from_the_file_is_read_from_the_spool_and_changes_what_the_file_says(path: Path, how: str) -> None:
    with Store(path) as store:
        store.append("runs", {**RUN, "label": "mine"})
        store.append("requests", request(0))
        assert store.flush()
        with held(path, how) as release:
            store.append("requests", request(1))
            store.append("runs", {"run_id": "r", "status": "complete", "verdict": "valid", "notes": NOTES})
            assert store.query("SELECT run_id, verdict FROM summary", timeout_s=0.1) == [
                {"run_id": "r", "verdict": "valid"}
            ]
            assert store.query("SELECT kind, text FROM notes", timeout_s=0.1) == [{"kind": "k", "text": "t"}]
            (row,) = store.query("SELECT label, (SELECT count(*) FROM requests) AS n FROM runs", timeout_s=0.1)
            assert row == ({"label": "mine", "n": 2} if how == "read" else {"label": None, "n": 1})
            assert "PID" in str(store.held_by)
            release()
        assert store.flush()
        assert store.query("SELECT label, requests FROM summary") == [{"label": "mine", "requests": 2}]
    assert read(path, "SELECT r.status, n.text FROM runs AS r JOIN notes AS n USING (run_id)") == [("complete", "t")]


@pytest.mark.slow
def test_what_got_into_the_file_between_two_readers_is_read_with_what_waits(path: Path) -> None:
    with Store(path) as store:
        store.append("runs", RUN)
        assert store.flush()
        with held(path, "read") as release:
            store.append("requests", request(0))
            assert store.query("SELECT label FROM runs", timeout_s=0.1) == [{"label": None}]
            release()
        store.append("runs", {"run_id": "r", "label": "between"})
        assert store.flush()
        with held(path, "read"):
            store.append("requests", request(1))
            assert store.query("SELECT label, requests FROM summary", timeout_s=0.1) == [
                {"label": "between", "requests": 2}
            ]


@pytest.mark.slow
def test_while_a_reader_has_the_file_the_writer_takes_in_what_waits_and_no_query_has_to(path: Path) -> None:
    with Store(path) as store, held(path, "read"):
        for index in range(100):
            store.append("requests", request(index))
        while not store._database._overlay._read:
            store.flush(0.1)
        with store._database.opened_with(list) as con:
            assert con.execute("SELECT count(*) FROM requests").fetchall() == [(100,)]


@pytest.mark.slow
def test_a_run_can_be_claimed_while_a_reader_has_the_file(path: Path) -> None:
    with Store(path) as store:
        store.append("runs", {**RUN, "status": "interrupted"})
        store.flush()
        with held(path, "read"):
            store.append("runs", {"run_id": "other", "config_hash": "h2", "status": "running"})
            (run,) = store.find(["h"]).values()
            assert store.claim(run)


def test_a_load_starts_while_a_reader_holds_a_current_file(path: Path) -> None:
    Store(path).close()
    with held(path, "read"), Store(path, patience_s=0.1) as store:
        assert store.find(["h"]) == {}


@pytest.mark.slow
def test_a_dead_process_run_can_go_on_while_a_reader_has_the_file(path: Path) -> None:
    Store(path).close()
    dead = Spool(spool_of(path))
    dead.append("runs", {**RUN, "owner": dead.owner})
    dead.append("requests", request(0))
    dead.close()
    with held(path, "read"), Store(path, patience_s=0.1) as store:
        assert store.backlog == 2
        (run,) = store.find(["h"]).values()
        assert (run.status, run.requests) == ("partial", 1)
        assert store.claim(run)
        (run,) = store.find(["h"]).values()
        assert run.status == "running", "by this process now"


def test_a_process_killed_before_its_first_line_leaves_nothing_that_stays(path: Path) -> None:
    with Store(path) as store:
        store.append("runs", RUN)
    spool = spool_of(path)
    spool.mkdir()
    (spool / "1-dead.00000000.jsonl").touch()
    (spool / "2-dead.00000000.jsonl").write_text('{"table":"reque')
    with Store(path) as store:
        assert [file.name for file in spool.iterdir()] == [f"{store.owner}.lock"]


@pytest.mark.slow
def test_two_processes_on_one_file_both_keep_everything(path: Path) -> None:
    with python(APPEND, path, "one", 300, 200) as one, python(APPEND, path, "two", 300, 200) as two:
        ends = [process.communicate(timeout=60)[0].splitlines()[-1] for process in (one, two)]
    assert ends == ["closed True", "closed True"]
    assert read(path, "SELECT run_id, count(*) FROM requests GROUP BY ALL ORDER BY ALL") == [("one", 300), ("two", 300)]


def test_another_program_reads_between_flushes(path: Path) -> None:
    with Store(path) as store:
        for index in range(3):
            store.append("requests", request(index))
            assert store.flush()
            assert read(path, "SELECT count(*) FROM requests") == [(index + 1,)]


@pytest.mark.slow
def test_rows_reach_the_file_without_a_flush(path: Path) -> None:
    with Store(path) as store:
        store.append("requests", request(0))
        deadline = time.monotonic() + 30
        while store.backlog and time.monotonic() < deadline:
            time.sleep(0.02)
        assert read(path, "SELECT count(*) FROM requests") == [(1,)]


def test_a_second_request_row_replaces_the_first_whole(path: Path) -> None:
    with Store(path) as store:
        store.append("requests", request(7, error_kind="cancelled", output_text="half", chunk_offsets_us=[1]))
        store.flush()
        store.append("requests", request(7, outcome="wrong_value", chunk_offsets_us=[1, 2]))
        store.append("requests", request(7, outcome="correct", chunk_offsets_us=[1, 2, 3]))
        rows = store.query("SELECT outcome, error_kind, output_text, chunk_offsets_us FROM requests")
    assert rows == [{"outcome": "correct", "error_kind": None, "output_text": None, "chunk_offsets_us": [1, 2, 3]}]


def test_a_second_run_row_changes_only_the_columns_it_names(path: Path) -> None:
    with Store(path) as store:
        store.append("runs", {**RUN, "verdict": "valid", "label": "x"})
        store.flush()
        store.append("runs", {"run_id": "r", "status": "interrupted"})
        store.append("runs", {**RUN, "status": "complete", "verdict": None})
        row = store.query("SELECT status, verdict, label, config_hash, owner FROM runs")
    assert row == [{"status": "complete", "verdict": None, "label": "x", "config_hash": "h", "owner": store.owner}]


@pytest.mark.slow
def test_much_to_write_is_written_bit_by_bit_so_that_others_get_the_file_in_between(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("structbench.store.HOLD_S", 0.0)
    monkeypatch.setattr("structbench.store.spool.CHUNK_ROWS", 10)
    sizes: list[int] = []
    opened = Database.opened

    @contextmanager
    def watched(self: Database, *, read_only: bool, **more: Any) -> Iterator[Any]:
        with opened(self, read_only=read_only, **more) as con:
            yield con
            if not read_only:
                sizes.append(con.execute("SELECT count(*) FROM requests").fetchall()[0][0])

    with Store(path) as store, monkeypatch.context() as patch:
        with held(path, "read") as release:
            for index in range(35):
                store.append("requests", request(index))
            patch.setattr(Database, "opened", watched)
            release()
        assert store.flush()
        assert read(path, "SELECT count(*) FROM requests") == [(35,)]
    grown = [later - earlier for earlier, later in pairwise([0, *sizes])]
    assert max(grown) <= 10, "more than one chunk in an opening that had no time for it"
    assert sum(grown) == 35


def test_ingesting_a_spool_file_again_after_a_crash_does_no_harm(path: Path) -> None:
    with Store(path) as store:
        for index in range(3):
            store.append("requests", request(index, repeat=0))
    again = "".join(
        f'{{"table":"requests","row":{{"run_id":"r","request_index":{index},"repeat":1}}}}\n' for index in (1, 2, 3)
    )
    spool = path.with_name(path.name + ".spool")
    spool.mkdir()
    (spool / "1-dead.00000000.jsonl").write_text(again + '{"table":"requests","row":{"run_id":"r","requ')
    with Store(path) as store:
        rows = store.query("SELECT request_index AS i, repeat AS r FROM requests ORDER BY i")
    assert [(row["i"], row["r"]) for row in rows] == [(0, 0), (1, 1), (2, 1), (3, 1)]
    assert not spool.exists()


def test_a_live_owners_spool_is_left_alone_and_a_dead_ones_is_taken(tmp_path: Path) -> None:
    live, other = Spool(tmp_path / "spool"), Spool(tmp_path / "spool")
    live.append("requests", {"run_id": "r"})
    assert other.adopt() == []
    assert is_alive(other.folder, live.owner)
    live.close()
    assert not is_alive(other.folder, live.owner)
    (file,) = other.adopt()
    third = Spool(tmp_path / "spool")
    assert third.adopt() == [], "one taker at a time"
    other.discard(file)
    other.close()
    third.close()
    assert not (tmp_path / "spool").exists()


def test_rows_that_could_not_be_flushed_at_close_are_merged_by_the_next_opening(path: Path) -> None:
    store = Store(path)
    with held(path, "read") as release:
        store.append("requests", request(0))
        assert store.close(0.2) is False
        release()
    with Store(path) as after:
        assert after.query("SELECT count(*) AS n FROM requests") == [{"n": 1}]


def test_a_failing_writer_is_told_and_its_rows_stay_on_disk(path: Path) -> None:
    with Store(path):
        pass
    store = Store(path)
    with duckdb.connect(path) as con:
        con.execute("DROP TABLE samples CASCADE").fetchall()
    store.append("samples", {"run_id": "r", "segment": 0, "sampled_at": "2026-01-01T00:00:00"})
    with pytest.raises(RunFailed, match="cannot write"):
        store.flush()
    with pytest.raises(RunFailed, match="cannot write"):
        store.close()
    (left,) = (path.with_name(path.name + ".spool")).glob("*.jsonl")
    assert '"samples"' in left.read_text()


def old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, duckdb.connect(path) as con:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        patch.setattr(schema, "views_sql", lambda: "CREATE VIEW summary AS SELECT 'older' AS run_id")
        schema.migrate(con, 0)
        con.execute("INSERT INTO runs (run_id, config_hash, status) VALUES ('old', 'h', 'complete')").fetchall()


def test_an_older_file_is_migrated_and_keeps_its_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_file(path, monkeypatch)
    assert read(path, "SELECT run_id FROM summary") == [("older",)]
    with Store(path) as store:
        assert [row["run_id"] for row in store.query("FROM summary")] == ["old"]
        versions = [row["version"] for row in store.query("FROM migrations ORDER BY version")]
    assert versions == list(range(1, len(schema.MIGRATIONS) + 1))
    assert read(path, "SELECT run_id FROM summary") == [("old",)]


@pytest.mark.slow
def test_views_of_another_version_are_replaced_in_a_file_that_is_written_and_never_read(path: Path) -> None:
    Store(path).close()
    with duckdb.connect(path) as con:
        con.execute("CREATE OR REPLACE VIEW summary AS SELECT 'other' AS run_id").fetchall()
        con.execute("INSERT INTO runs (run_id, config_hash, status) VALUES ('mine', 'h', 'complete')").fetchall()
    with Reader(path) as reader:
        assert [row["run_id"] for row in reader.query("FROM summary")] == ["mine"]
    with held(path, "read"), Store(path) as store:
        assert [row["run_id"] for row in store.query("FROM summary")] == ["mine"]
    assert read(path, "SELECT run_id FROM summary") == [("other",)]
    Store(path).close()
    assert read(path, "SELECT run_id FROM summary") == [("mine",)]


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_file(path, monkeypatch)
    texts = {name: schema.sql_of(name) for name in schema.MIGRATIONS} | {"9999-bad": "CREATE VIEW x AS FROM nowhere"}
    monkeypatch.setattr(schema, "sql_of", texts.__getitem__)
    monkeypatch.setattr(schema, "MIGRATIONS", tuple(texts))
    with duckdb.connect(path) as con, pytest.raises(duckdb.CatalogException):
        schema.migrate(con, 1)
    assert read(path, "SELECT max(version) FROM migrations") == [(1,)]


def test_a_newer_file_is_refused_and_unchanged(path: Path) -> None:
    with Store(path):
        pass
    with duckdb.connect(path) as con:
        con.execute("INSERT INTO migrations VALUES (99, 'later', NULL, '7.0.0')").fetchall()
    before = path.read_bytes()
    with pytest.raises(BadInput, match=r"written by structbench 7\.0\.0 .*upgrade structbench"):
        Store(path)
    assert path.read_bytes() == before


def _text_file(path: Path) -> None:
    path.write_text("no database " * 1000)


def _cut_file(path: Path) -> None:
    Store(path).close()
    path.write_bytes(path.read_bytes()[:20_000])


def _foreign_table(name: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with duckdb.connect(path) as con:
            con.execute(f"CREATE TABLE {name} (x INTEGER)").fetchall()

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.touch(), "not a DuckDB database"),
        (_text_file, "not a DuckDB database"),
        (_cut_file, "cannot be opened"),
        (_foreign_table("runs"), "that structbench did not make"),
        (_foreign_table("migrations"), "that structbench did not make"),
    ],
)
def test_a_path_that_is_no_database_of_ours_is_refused_in_one_line(
    path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(path)
    with pytest.raises(BadInput, match=message) as caught:
        Store(path)
    assert "--db" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist: create it"):
        Store(tmp_path / "no" / "db.duckdb")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder where even root cannot write")
def test_a_folder_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(BadInput, match="give another --db"):
        Store(Path("/proc/db.duckdb"))


def test_a_file_held_by_another_process_is_refused_with_its_pid(path: Path) -> None:
    Store(path).close()
    with held(path, "write"), pytest.raises(BadInput, match=r"in use by another process \(PID \d+, \w+\): stop"):
        Store(path, patience_s=0.2)


@pytest.mark.slow
def test_a_file_held_for_a_moment_is_waited_for(path: Path) -> None:
    Store(path).close()
    with held(path, "write") as release:
        later = threading.Timer(0.3, release)
        later.start()
        with Store(path, patience_s=10) as store:
            assert store.find([]) == {}
        later.join()


@pytest.mark.parametrize(
    ("table", "row", "error"),
    [
        ("nowhere", {"run_id": "r"}, ValueError),
        ("migrations", {"version": 3}, ValueError),
        ("requests", {"run_id": "r", "request_index": 1, "colour": 2}, ValueError),
        ("requests", {"run_id": "r"}, ValueError),
        ("requests", {"run_id": "r", "request_index": 1, "ttft_s": "fast"}, TypeError),
        ("requests", {"run_id": "r", "request_index": 1, "chunks": 1.5}, TypeError),
    ],
)
def test_a_row_that_does_not_fit_is_refused_before_it_reaches_the_spool(
    path: Path, table: str, row: dict[str, Any], error: type[Exception]
) -> None:
    with Store(path) as store:
        with pytest.raises(error):
            store.append(table, row)
        assert store.backlog == 0


def test_a_closed_store_takes_no_rows_and_closes_again(path: Path) -> None:
    store = Store(path)
    assert store.close()
    assert store.close()
    with pytest.raises(ValueError, match="closed"):
        store.append("requests", request(0))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_writing_into_the_database_yields_to_the_load_s_workers(tmp_path: Path) -> None:
    with Store(tmp_path / "s.duckdb") as store:
        store.append("runs", RUN)
        assert store.flush()
        own, writer = threading.get_native_id(), store._writer.native_id
        assert writer is not None
        least = 19  # of what the system knows
        expected = min(least, os.getpriority(os.PRIO_PROCESS, own) + 10)
        assert os.getpriority(os.PRIO_PROCESS, writer) == expected


ENDS = "SELECT status, verdict, verdict_reason AS why FROM runs WHERE run_id = 'r'"
JUDGED = {"status": "interrupted", "verdict": "invalid", "why": "no request completed"}
LEFT = {"status": "running", "verdict": None, "why": None}


def test_the_opening_of_a_load_ends_and_judges_what_a_dead_one_left_and_continues_it(path: Path) -> None:
    with Store(path) as dead:
        dead.append("runs", RUN)
        dead.append("segments", {"run_id": "r", "segment": 0, "status": "running"})
        dead.append("requests", request(0, error_kind="timeout"))
    waiting = Spool(spool_of(path))
    waiting.append("requests", request(1, error_kind="connect"))
    waiting.close()
    with Store(path) as store:
        assert store.query(ENDS) == [JUDGED]
        assert store.query("SELECT status FROM segments") == [{"status": "interrupted"}]
        run = store.find(["h"])["h"]
        assert (run.status, run.run_id, run.requests) == ("partial", "r", 2)
        assert store.claim(run)
        with Store(path) as other:
            assert other.query("SELECT status, owner FROM runs") == [{"status": "running", "owner": store.owner}]


@pytest.mark.slow
def test_what_a_dead_load_left_waits_while_a_reader_keeps_the_file(path: Path) -> None:
    with Store(path) as dead:
        dead.append("runs", RUN)
    with held(path, "read"), Store(path, patience_s=0.1) as store:
        assert store.query(ENDS) == [LEFT]
    with Store(path) as store:
        assert store.query(ENDS) == [JUDGED]


def test_a_load_begins_also_where_what_was_left_cannot_be_judged(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(path) as dead:
        dead.append("runs", RUN)

    def judge(*_: object) -> None:
        raise duckdb.OutOfMemoryException("Out of Memory Error: 512 MB\nadvice")

    with monkeypatch.context() as patch:
        patch.setattr(upkeep, "ending_of", judge)
        with Store(path) as store:
            assert store.query(ENDS) == [LEFT]
    assert caplog.messages == [f"structbench: {path}: killed runs have no verdict yet: Out of Memory Error: 512 MB"]


NO_ROOM = [
    duckdb.OutOfMemoryException("Out of Memory Error: could not allocate\nadvice"),
    duckdb.IOException('IO Error: Could not write file "t": No space left on device'),
    duckdb.InternalException("INTERNAL Error: invalidated"),
]


@pytest.mark.parametrize("error", NO_ROOM, ids=lambda error: type(error).__name__)
def test_no_room_for_a_question_is_one_line_in_a_load_and_in_a_command(
    path: Path, error: duckdb.Error, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> None:
        raise error

    line = re.escape(str(error).splitlines()[0]) + ": free some space, or choose fewer runs; nothing stored is lost$"
    with Store(path) as store:
        store.append("runs", RUN)
        assert store.flush()
        with monkeypatch.context() as patch, Reader(path) as reader:
            for module in (database, store_module, reader_module):
                patch.setattr(module, "fetched", asked)
                patch.setattr(module, "as_columns", asked, raising=False)
            for rows in (store, reader):
                for ask_it in (rows.query, rows.columns):
                    with pytest.raises(RunFailed, match=line):
                        ask_it("FROM runs")
            with pytest.raises(RunFailed, match=line), reader.together():
                reader.query("FROM runs")
        assert store.query("SELECT run_id FROM runs") == [{"run_id": "r"}]


def test_values_that_nobody_measured_are_one_line_and_a_mistake_of_ours_is_none(path: Path) -> None:
    with Store(path) as store:
        store.append("runs", RUN)
        assert store.flush()
        for rows in (store, Reader(path)):
            with pytest.raises(BadInput, match=r"holds values that structbench did not write .*: give another"):
                rows.query("SELECT model::BIGINT FROM runs")
            with pytest.raises(duckdb.BinderException):
                rows.query("SELECT colour FROM runs")

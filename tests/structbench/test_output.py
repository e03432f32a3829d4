"""An output that cannot be written is refused before anything is done; one that can is written whole."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from structbench.errors import BadInput, RunFailed
from structbench.output import check_output, writable_path, write_output


def test_what_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = tmp_path / "s.duckdb"
    db.touch()
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "x", "does not exist"),
        (db, "the database itself"),
    ):
        with pytest.raises(BadInput, match=f"-o {re.escape(str(path))}.*{said}"):
            check_output(path, "-o", [db])
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(BadInput, match="is not writable"):
        check_output(tmp_path / "x", "-o", [])
    assert list(tmp_path.iterdir()) == [db]


@pytest.mark.parametrize("exists", [True, False])
def test_no_database_is_written_over_by_whatever_name(tmp_path: Path, exists: bool) -> None:
    first, second = tmp_path / "a.duckdb", tmp_path / "b.duckdb"
    if exists:
        second.touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(second)
    for path in (second, tmp_path / "folder" / ".." / "b.duckdb", tmp_path / "link"):
        with pytest.raises(BadInput, match="is the database itself: give another path"):
            check_output(path, "--junit", [first, second])
    check_output(tmp_path / "c.duckdb", "--junit", [first, second])


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("before")
    check_output(path, "-o", [])
    write_output(path, "after ü")
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
    assert path.read_text(encoding="utf-8") == "after ü"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_output(pipe, "text")
    assert os.read(reading, 100) == b"text"
    os.close(reading)
    assert pipe.is_fifo()


def test_what_fails_at_the_end_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with pytest.raises(RunFailed, match="give another path"):
        write_output(folder / "x", "text")


def test_a_new_file_is_its_owners_only_and_one_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_output(tmp_path / "new.html", "prompts")
        (tmp_path / "old.html").touch(0o644)
        write_output(tmp_path / "old.html", "prompts")
        with writable_path(tmp_path / "new.csv", []) as made:
            made.write_text("answers")
    finally:
        os.umask(before)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {
        "new.html": "0o600", "old.html": "0o644", "new.csv": "0o600"
    }  # fmt: skip

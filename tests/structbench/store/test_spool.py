"""The spool: rows that wait on disk are whole, in order, taken by one process only, and cost no descriptors."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import resource
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from structbench.store.spool import Spool, count_lines, is_alive, orphaned_files, read_rows

Row = tuple[str, dict[str, Any]]


def descriptors() -> int:
    """How many this process has open; on Linux only."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def rows(*files: Path) -> list[Row]:
    return [(table, row) for file in files for table, row, _ in read_rows(file)]


def dead(folder: Path, *numbers: int) -> str:
    """A process that ended before its rows, a file each, were taken; its name."""
    spool = Spool(folder)
    for number in numbers:
        spool.append("requests", {"n": number})
        spool.rotate()
    spool.close()
    return spool.owner


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which file a descriptor is")
@pytest.mark.parametrize(
    ("fsync", "synced"), [(True, ["spool", "above", "row", "row", "spool", "above", "row"]), (False, [])]
)
def test_with_fsync_each_row_is_on_the_disk_and_so_are_the_names_above_a_new_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool, synced: list[str]
) -> None:
    names, seen = {folder: "spool", folder.parent: "above"}, list[str]()

    def note(file: int) -> None:
        seen.append(names.get(Path(f"/proc/self/fd/{file}").readlink(), "row"))

    monkeypatch.setattr(os, "fsync", note)
    spool = Spool(folder, fsync=fsync)
    spool.append("requests", {"a": 1})
    spool.append("requests", {"a": 2})
    spool.rotate()
    spool.append("requests", {"a": 3})
    assert seen == synced


def test_rows_come_back_as_they_were_file_by_file(folder: Path) -> None:
    spool = Spool(folder)
    assert spool.rotate() is None, "nothing was appended"
    spool.append("requests", {"a": 1, "text": "é\n"})
    spool.append("runs", {"b": None})
    first = spool.rotate()
    assert spool.rotate() is None
    spool.append("requests", {"c": [1.5]})
    second = spool.rotate()
    assert first is not None
    assert second is not None
    assert first.name < second.name
    assert rows(first) == [("requests", {"a": 1, "text": "é\n"}), ("runs", {"b": None})]
    assert rows(second) == [("requests", {"c": [1.5]})]
    assert sum(length for *_, length in read_rows(first)) == first.stat().st_size
    assert (count_lines(first), count_lines(second)) == (2, 1)
    spool.discard(first)
    spool.discard(first)
    assert list(folder.glob("*.jsonl")) == [second]
    spool.discard(second)
    assert is_alive(folder, spool.owner), "with nothing left to store it still lives"
    spool.close()
    assert not folder.exists()


def test_rows_are_there_at_once_and_each_process_has_files_of_its_own(folder: Path) -> None:
    spools = [Spool(folder), Spool(folder)]
    for number, spool in enumerate(spools):
        spool.append("requests", {"n": number})
        assert ("requests", {"n": number}) in rows(*folder.glob("*.jsonl"))
    assert len(list(folder.glob("*.jsonl"))) == 2
    assert spools[0].owner != spools[1].owner
    for spool in spools:
        spool.close()


def test_a_number_that_json_does_not_know_is_absent(folder: Path) -> None:
    spool = Spool(folder)
    spool.append("requests", {"x": math.nan})
    assert rows(*folder.glob("*.jsonl")) == [("requests", {"x": None})]
    spool.close()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files cannot grow beyond this, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_of_a_row_that_the_disk_does_not_take_whole_no_part_stays(folder: Path) -> None:
    spool = Spool(folder)
    spool.append("requests", {"n": 0})
    (file,) = folder.glob("*.jsonl")
    before = file.read_bytes()
    with largest_file(len(before) + 7), pytest.raises(OSError, match="no space left"):
        spool.append("requests", {"n": 1})
    assert file.read_bytes() == before
    spool.append("requests", {"n": 2})
    assert rows(file) == [("requests", {"n": 0}), ("requests", {"n": 2})]
    spool.close()


def test_what_was_cut_short_is_dropped_and_what_is_no_row_is_set_aside(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    file = folder / "1-dead.00000000.jsonl"
    good = json.dumps({"table": "runs", "row": {"a": 1}}).encode()
    bad = [b"[]", b"5", b"\xff\xfe", b'{"table":"runs"}', b'{"row":{}}', b""]
    file.write_bytes(b"\n".join([good, *bad, good, good[:-3]]))
    with caplog.at_level(logging.WARNING):
        assert rows(file) == [("runs", {"a": 1})] * 2
    assert len(caplog.records) == 2
    assert f"{file}: dropped a line of {len(good) - 3} bytes that was cut short" in caplog.text
    assert (folder / "1-dead.bad").read_bytes() == b"\n".join([*bad, b""])
    assert count_lines(file) == len(bad) + 2


def test_what_the_dead_left_is_taken_oldest_first_and_by_one_only(folder: Path) -> None:
    owners = sorted([dead(folder, 0, 1), dead(folder, 2)])
    late, early = (sorted(folder.glob(f"{owner}.*.jsonl")) for owner in owners)
    for file, at in [*((each, 20) for each in late), *((each, 10) for each in early)]:
        os.utime(file, (at, at))
    (folder / "notes.txt").write_text("mine")
    living = Spool(folder)
    living.append("requests", {"n": 3})
    first, second = Spool(folder), Spool(folder)
    assert orphaned_files(folder)
    assert first.adopt() == [*early, *late]
    assert first.adopt() == second.adopt() == []
    assert all(is_alive(folder, owner) for owner in owners), "who took its rows answers for it"
    assert not orphaned_files(folder), "what is taken needs nobody else"
    for file in (*early, *late):
        owner = file.name.split(".")[0]
        first.discard(file)
        assert (folder / f"{owner}.lock").exists() == any(folder.glob(f"{owner}.*.jsonl"))
    for spool in (living, first, second):
        spool.close()
    assert {path.name for path in folder.iterdir()} == {
        "notes.txt", f"{living.owner}.lock", f"{living.owner}.00000000.jsonl"
    }  # fmt: skip


def test_rows_that_were_taken_and_not_stored_wait_for_the_next(folder: Path) -> None:
    owner = dead(folder, 0)
    assert (folder / f"{owner}.lock").exists(), "two that came at once would else both take them"
    taker = Spool(folder)
    taken = taker.adopt()
    taker.close()
    assert not is_alive(folder, owner)
    assert (folder / f"{owner}.lock").exists()
    after = Spool(folder)
    assert after.adopt() == taken
    after.discard(taken[0])
    after.close()
    assert not folder.exists()


def test_a_name_without_rows_is_forgotten_and_rows_without_a_lock_are_taken(folder: Path) -> None:
    owner = dead(folder, 0)
    (folder / f"{owner}.lock").unlink()
    (folder / "1-dead.lock").touch()
    spool = Spool(folder)
    assert rows(*spool.adopt()) == [("requests", {"n": 0})]
    assert not (folder / "1-dead.lock").exists()
    assert not is_alive(folder, "1-dead")
    (folder / f"{spool.owner}.lock").unlink()
    spool.close()  # also where somebody has tidied up


def test_who_lives_is_told_without_a_trace(folder: Path) -> None:
    living = Spool(folder)
    gone = dead(folder, 0)
    before = set(folder.iterdir())
    assert is_alive(folder, living.owner) is True
    for owner in (gone, "1-unknown", None):
        assert is_alive(folder, owner) is False
    assert is_alive(folder / "nowhere", gone) is False
    assert set(folder.iterdir()) == before
    living.close()


def test_rows_of_the_living_are_not_those_of_the_dead(folder: Path) -> None:
    assert not orphaned_files(folder)
    spool = Spool(folder)
    (folder / "1-dead.lock").touch()
    assert not orphaned_files(folder)
    spool.append("requests", {"n": 0})
    assert not orphaned_files(folder)
    dead(folder, 1)
    assert orphaned_files(folder), "also beside those of a process that lives"
    spool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder of open descriptors")
def test_no_descriptor_is_left_open(folder: Path) -> None:
    before = descriptors()
    gone = dead(folder, 0, 1)
    (folder / "1-dead.lock").touch()
    assert descriptors() == before
    living = Spool(folder)
    living.append("requests", {"n": 2})
    held = descriptors()
    for _ in range(2):
        assert is_alive(folder, living.owner)
        assert not is_alive(folder, gone)
        assert orphaned_files(folder)
    assert descriptors() == held
    taker = Spool(folder)
    for file in taker.adopt():
        taker.discard(file)
    assert descriptors() == held + 1, "the lock of the taker's own name"
    taker.close()
    assert descriptors() == held
    living.rotate()
    assert descriptors() == held - 1
    living.append("requests", {"n": 3})
    living.close()
    assert descriptors() == before


def test_what_waits_is_its_owners_only(folder: Path) -> None:
    umask = os.umask(0)
    try:
        spool = Spool(folder)
        spool.append("requests", {"n": 0})
        dead(folder, 1)
    finally:
        os.umask(umask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    spool.close()


def test_a_name_that_another_took_for_dead_before_it_was_locked_is_claimed_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    claimed: list[int] = []

    def flock(file: int, how: int) -> None:
        if not claimed:
            (path,) = folder.iterdir()
            path.unlink()
            folder.rmdir()
        claimed.append(file)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    spool = Spool(folder)
    assert claimed == claimed[:1] * 2, "the first is closed, so that the second has its number"
    assert (folder / f"{spool.owner}.lock").exists()
    assert is_alive(folder, spool.owner)
    spool.close()

"""Changes to stored runs, made between loads: merging, removing, forgetting.

Invariant: each change is one transaction; runs and rows of a living process are left alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from structbench.store.database import (
    PATIENCE_S,
    Database,
    Locked,
    at_work,
    attached,
    fetched,
    files_of,
    first_line,
    interruptible,
    usable,
)
from structbench.store.ending import ending_of
from structbench.store.schema import FILE, MIGRATIONS, shape
from structbench.store.spool import Spool, insert, is_alive, keep_notes, orphaned_files, read_rows, set_aside
from structbench.store.steady import mark_steady

if TYPE_CHECKING:
    import duckdb

_OF_A_RUN = ("runs", "segments", "requests", "samples", "run_gaps", "nodes", "notes", "old_scores")
_WHICH = "WHERE run_id IN (SELECT unnest($1::VARCHAR[]))"
_SUITES = "SELECT config ->> '$.suite_hash' FROM runs WHERE config IS NOT NULL"
_COMPARED = """
SELECT theirs.run_id, CASE
    WHEN ours.run_id IS NULL THEN 'new'
    WHEN theirs.status = 'complete' AND ours.status = 'interrupted' THEN 'completed'
    ELSE 'present' END AS state
FROM other_file.runs AS theirs LEFT JOIN runs AS ours USING (run_id) ORDER BY theirs.started_at NULLS FIRST, run_id
"""
_AS_INTERRUPTED = "* REPLACE (CASE WHEN status = 'running' THEN 'interrupted' ELSE status END AS status)"
_LEFT = """
SELECT run_id, owner, status FROM runs WHERE status = 'running' OR (status = 'interrupted' AND verdict IS NULL)
"""
_SETTLED = """
UPDATE runs SET status = 'interrupted', verdict = $2, verdict_reason = $3 WHERE run_id = $1
"""


def spool_of(path: Path) -> Path:
    """Return the folder beside the database in which rows wait."""
    return path.with_name(path.name + ".spool")


def settle(database: Database, patience_s: float) -> None:
    """Merge the rows of dead processes, and end and judge their runs; raise Locked if the file is in use."""
    folder = spool_of(database.path)
    if orphaned_files(folder):
        _merge_spool(database, Spool(folder), patience_s)
    end_left(database, partial(is_alive, folder), patience_s)


def end_left(database: Database, is_alive: Callable[[str | None], bool], patience_s: float) -> None:
    """End and judge the runs of dead processes, whose rows are in the file; raise Locked if it is in use."""

    def left(con: duckdb.DuckDBPyConnection) -> list[str]:
        found = con.execute(_LEFT).fetchall()
        return [run_id for run_id, owner, status in found if status == "interrupted" or not is_alive(owner)]

    with database.opened(read_only=True, patience_s=patience_s) as con:
        if not left(con):
            return
    with database.opened(read_only=False, patience_s=patience_s) as con:
        for run_id in left(con):
            with transaction(con):
                mark_steady(con, run_id)
                ending = ending_of(partial(fetched, con), run_id)
                sql = "UPDATE segments SET status = 'interrupted' WHERE run_id = $1 AND status = 'running'"
                con.execute(sql, [run_id]).fetchall()
                con.execute(_SETTLED, [run_id, ending.verdict.word, ending.verdict.reason]).fetchall()
                keep_notes(con, run_id, ending.columns["notes"])


@dataclass(frozen=True, slots=True)
class Removed:
    """What ``remove`` removed, and the file's size before and after."""

    runs: int
    requests: int
    before_bytes: int
    after_bytes: int
    why_not_smaller: str | None


def remove(database: Database, run_ids: Sequence[str], patience_s: float = PATIENCE_S) -> Removed:
    """Delete runs with all their rows and shrink the file; keep runs that a load is continuing."""
    import duckdb

    before, why = database.path.stat().st_size, None
    with changing(database, patience_s) as con, transaction(con):
        idle = f"SELECT run_id FROM runs {_WHICH} AND status IS DISTINCT FROM 'running'"
        going = [run_id for (run_id,) in con.execute(idle, [list(run_ids)]).fetchall()]
        requests = con.execute(f"SELECT count(*) FROM requests {_WHICH}", [going]).fetchall()[0][0]
        for table in _OF_A_RUN:
            con.execute(f"DELETE FROM {table} {_WHICH}", [going]).fetchall()
        con.execute(f"DELETE FROM cases WHERE suite_hash NOT IN ({_SUITES})").fetchall()
    try:
        _compact(database, patience_s)
    except (Locked, OSError, duckdb.Error) as error:  # the runs are gone all the same
        why = first_line(error)
    return Removed(len(going), requests, before, database.path.stat().st_size, why)


def _compact(database: Database, patience_s: float) -> None:
    """Rewrite the file without the space of deleted rows, which DuckDB never gives back by itself.

    The old file is held for reading meanwhile, so that no process can write what would be lost; a process that waited
    for it finds the new one (``Database.opened`` checks that the file is still the one it attached).
    """
    path, made = database.path.resolve(), database.made
    try:
        with database.opened(read_only=True, patience_s=patience_s) as con:
            with attached(con, made, "made", read_only=False):
                con.execute(f"COPY FROM DATABASE {FILE} TO made").fetchall()
            shutil.copymode(path, made)
            made.replace(path)
    finally:
        made.unlink(missing_ok=True)


def forget(database: Database, run_ids: Sequence[str], patience_s: float = PATIENCE_S) -> None:
    """Make ``--skip-cached`` ignore these runs from now on; their rows stay."""
    with changing(database, patience_s) as con:
        con.execute(f"UPDATE runs SET forgotten = true {_WHICH}", [list(run_ids)]).fetchall()


@dataclass(frozen=True, slots=True)
class Merged:
    """Run ids that ``merge`` added, that replaced an unfinished run, and that were already present."""

    new: list[str]
    completed: list[str]
    present: list[str]


def merge(path: Path, other: Path, patience_s: float = PATIENCE_S) -> Merged:
    """Copy the runs of another file of the same version, each once; one still running there arrives as interrupted.

    A run that is already present stays, unless it is complete there and was interrupted here. The other file is one
    that a ``Reader`` has found to be ours.
    """
    database = Database(path, others=files_of(other))
    with usable(path), closing(database):
        settle(database, patience_s)
        with (
            database.opened(read_only=False, patience_s=patience_s) as con,
            attached(con, other, "other_file", read_only=True, patience_s=patience_s),
            at_work(path),
        ):
            return interruptible(con, partial(_copy_runs, con))


def _copy_runs(con: duckdb.DuckDBPyConnection) -> Merged:
    found = con.execute(_COMPARED).fetchall()
    new, completed, present = (
        [run_id for run_id, state in found if state == wanted] for wanted in ("new", "completed", "present")
    )
    with transaction(con):
        for table in _OF_A_RUN:
            con.execute(f"DELETE FROM {table} {_WHICH}", [completed]).fetchall()
            columns = _AS_INTERRUPTED if table in ("runs", "segments") else "*"
            source = f"SELECT {columns} FROM other_file.{table} {_WHICH}"
            con.execute(f"INSERT INTO {table} BY NAME {source}", [new + completed]).fetchall()
        theirs = f"SELECT * FROM other_file.cases WHERE suite_hash IN ({_SUITES})"
        con.execute(f"INSERT OR IGNORE INTO cases BY NAME {theirs}").fetchall()
    return Merged(new, completed, present)


@contextmanager
def changing(database: Database, patience_s: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the file for a change; raise BadInput if it cannot be opened, RunFailed if the change does not fit in."""
    with (
        usable(database.path),
        database.opened(read_only=False, patience_s=patience_s) as con,
        at_work(database.path),
    ):
        yield con


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit everything inside, or nothing."""
    con.execute("BEGIN").fetchall()
    try:
        yield
    except BaseException:
        con.execute("ROLLBACK").fetchall()
        raise
    con.execute("COMMIT").fetchall()


def _merge_spool(database: Database, spool: Spool, patience_s: float) -> None:
    try:
        files = spool.adopt()
        with database.opened(read_only=False, patience_s=patience_s) as con:
            columns = shape(MIGRATIONS).columns
            for file in files:
                insert(con, columns, read_rows(file, columns), aside=partial(set_aside, file))
        for file in files:
            spool.discard(file)
    finally:
        spool.close()

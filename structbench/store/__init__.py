"""The store: one DuckDB file with every run, request and sample. Nothing outside this package opens DuckDB.

Invariant: a row that ``append`` accepted is never lost and never counted twice, and ``append`` never waits for the
database: rows go to a spool on disk at once, and a thread moves them into DuckDB about once a second.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from structbench.errors import BadInput, RunFailed
from structbench.formatting import plural
from structbench.output import complain
from structbench.store.database import (
    BESIDE_A_LOAD,
    Database,
    Locked,
    as_columns,
    at_work,
    fetched,
    file_number,
    first_line,
    wait_a_little,
)  # fmt: skip
from structbench.store.lookup import StoredRun, find_runs, is_free, nearest_config
from structbench.store.overlay import Waiting
from structbench.store.reader import Reader
from structbench.store.rows import row_of, run_columns, storable_row
from structbench.store.schema import KEYS, UPDATED, Columns
from structbench.store.spool import (
    BESIDES,
    Spool,
    SpooledRow,
    count_lines,
    insert,
    read_rows,
    set_aside,
    written_rows,
)
from structbench.store.upkeep import end_left, spool_of
from structbench.store.views import GAPS_TO_KEEP

if TYPE_CHECKING:
    import duckdb
    import numpy

__all__ = ["Reader", "Store", "StoredRun", "row_of", "run_columns", "storing"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Query = Callable[..., list[dict[str, Any]]]

PAUSE_S = 0.9
PAUSE_MAX_S = 5.0
DUTY = 20
"""The file is open for at most one part in twenty of the time: others must be able to read it during a load."""
MANY = 10_000
"""Rows from which on it may be open for longer: the file must keep up with the load."""
HOLD_S = 0.3
"""How long the file is held at a time, before other processes get their turn."""
HELD_S = 1.0
"""How long another process may have the file before a query takes the rows from the spool instead of waiting."""
CLOSING_S = 3.0
"""The same at the end, after which the rows wait in the spool for the next command."""
TRIED_S = 5.0
"""For how long a query believes that the file is still taken: on a busy machine the writer's next try may take that."""
RECENT = 2
"""Runs of which the store keeps the rows of ``runs`` and ``segments``: the one that goes on, and the one before."""
NICENESS = 10
"""Lower priority of the writer: the load's workers need a core now, the database can wait."""


class Store:
    """One DuckDB file; safe to use from several threads and while other processes read or write it."""

    def __init__(self, path: Path, *, patience_s: float = 3.0, fsync: bool = False) -> None:
        """Open, create or migrate the file, and settle what dead processes left; raise BadInput if that fails.

        ``fsync``: rows outlive a loss of power too, at the price of a write to the disk for each.
        """
        self.path = Path(path)
        self._database = Database(self.path, config=BESIDE_A_LOAD, own=True)
        self._columns = self._database.prepare(patience_s)
        self._filled: dict[str, set[str]] = {}
        """The columns that any row of a table has had so far."""
        try:
            self._spool = Spool(spool_of(self.path), fsync=fsync)
        except OSError as error:
            raise BadInput(f"cannot write beside {self.path} ({error.strerror}): give another --db") from error
        self.owner = self._spool.owner
        # At least 1: what has no whole line, since its owner was killed at the first, is to be dealt with too.
        self._files = deque((file, max(1, count_lines(file))) for file in self._spool.adopt())
        self._rows: Iterator[SpooledRow] | None = None
        """The rest of the first file, if only a part of it is in DuckDB."""
        self._state = threading.Condition()
        self._appended = sum(count for _, count in self._files)
        self._stored = 0
        self._moved = 0
        """How often rows got into DuckDB."""
        self.held_by: str | None = None
        """Who last kept the file from being written."""
        self._held = (0.0, 0.0)
        """When the file was first and last found taken, since it was last written."""
        self._shown = 0.0
        """When the writer last took new rows into the overlay."""
        self._held_open = threading.local()
        """The connection of a thread that holds the file open, as ``con``."""
        self._recent: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
        self.file_number = file_number(self.path)
        """What tells the file from another that takes its place amid a load, to which cases are to be given again."""
        self._failure: BaseException | None = None
        self._closed = self._closing = False
        self._wake = threading.Event()
        self._writer = threading.Thread(target=self._write, name="structbench-store", daemon=True)
        self._writer.start()
        if self._files:
            try:
                self.flush(patience_s)  # a reader only delays it
            except RunFailed:
                self._spool.close()
                raise
        self._end_left()

    def _end_left(self) -> None:
        """End and judge the runs of dead processes, unless somebody keeps the file: then a later opening does it."""
        import duckdb

        if self.backlog:  # rows of theirs are not in the file yet
            return
        try:
            end_left(self._database, self._spool.is_alive, HOLD_S)
        except Locked:
            pass
        except duckdb.Error as error:  # no room
            log.warning("structbench: %s: killed runs have no verdict yet: %s", self.path, first_line(error))

    @property
    def backlog(self) -> int:
        """Rows that are safe on disk but not yet in DuckDB."""
        with self._state:
            return self._appended - self._stored

    def append(self, table: str, row: Mapping[str, Any]) -> None:
        """Store one row durably and at once; raise ValueError or TypeError if the table cannot hold it.

        A second row with the same key replaces the first (``requests``, ``samples``) or changes the columns that it
        names (``runs``, ``segments``). ``runs.owner`` is filled in; ``notes`` of ``runs`` take the place of the run's,
        and ``steady`` marks its requests.
        """
        besides = {}
        if table == "runs":
            besides = {name: row[name] for name in BESIDES if name in row}
            row = {name: value for name, value in row.items() if name not in besides}
        columns = self._columns.get(table, {}) if table in KEYS else {}
        missing = [name for name in KEYS.get(table, ()) if row.get(name) is None]
        if not columns or missing or not row.keys() <= columns.keys():
            unknown = [name for name in row if name not in columns]
            raise ValueError(f"table {table}: no column {unknown}, no value for {missing}")
        kept = storable_row(row, columns, absent=table in UPDATED)  # where an absent column means that it stays
        if table == "runs":
            kept["owner"] = self.owner
        kept |= besides
        with self._state:
            if self._closed:
                raise ValueError("the store is closed")
            try:
                self._spool.append(table, kept)
            except OSError as error:
                raise RunFailed(f"cannot write to {self._spool.folder}: {error}; free some space") from error
            self._appended += 1
            if self._appended - self._stored == MANY:
                self._wake.set()  # out of a pause that was meant for fewer
            if table in UPDATED:
                self._remember(table, kept)
            else:
                self._filled.setdefault(table, set()).update(kept)
        self._raise_failure()

    def _remember(self, table: str, row: dict[str, Any]) -> None:
        """Keep what the tables say of the newest runs, for a file that takes the place of this one."""
        of = self._recent.setdefault(row["run_id"], {})
        key = (table, *(row[name] for name in KEYS[table]))
        of[key] = {**of.get(key, {}), **row}
        while len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]

    def hasten(self) -> None:
        """Have the rows appended so far moved into DuckDB now, without waiting for that."""
        self._wake.set()

    def flush(self, timeout_s: float = 10.0, *, held_s: float = HELD_S, tried_s: float = 0.0) -> bool:
        """Wait until all rows appended so far are in DuckDB; return False if not (nothing is lost).

        That is if for ``timeout_s`` none got there, or if another process has kept the file for more than ``held_s``,
        as was found since now or up to ``tried_s`` ago.
        """
        began = time.monotonic() - tried_s
        with self._state:
            goal, deadline = self._appended, time.monotonic() + timeout_s
            self._wake.set()
            while self._stored < goal and self._failure is None and not self._is_held(began, held_s):
                moved = self._moved
                if not self._state.wait(max(0.0, deadline - time.monotonic())):
                    break
                if self._moved != moved:
                    deadline = time.monotonic() + timeout_s
            done = self._stored >= goal
        self._raise_failure()
        return done

    @property
    def is_held(self) -> bool:
        """Whether another process keeps the file, so that nothing waits for it: rows are read from the spool."""
        with self._state:
            return self._is_held(time.monotonic() - TRIED_S, HELD_S)

    def _is_held(self, began: float, held_s: float) -> bool:
        """Whether a try since ``began`` found the file taken, as it has been for longer than ``held_s``."""
        first, last = self._held
        return last > began and last - first > held_s

    def close(self, timeout_s: float = 10.0) -> bool:
        """Flush and close; return False if rows stay in the spool, which the next opening merges."""
        if self._closed:
            return self.backlog == 0
        with self._state:
            self._closed = True
        try:
            return self.flush(timeout_s, held_s=CLOSING_S)
        finally:
            self._closing = True
            self._wake.set()
            self._writer.join()
            self._spool.close()
            self._database.close()

    def query(
        self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None, *, timeout_s: float = 10.0
    ) -> list[dict[str, Any]]:
        """Return the rows of one SELECT, including all appended so far; instants are UTC without a zone.

        Raises RunFailed if another process holds the file for longer than ``timeout_s``, or there is no room to work.
        """
        return self.together(lambda query: query(sql, params), timeout_s)

    def together(self, work: Callable[[Query], T], timeout_s: float = 10.0) -> T:
        """Return what ``work`` makes of a function that does what ``query`` does, on the same rows each time."""

        def ask(
            con: duckdb.DuckDBPyConnection, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None
        ) -> list[dict[str, Any]]:
            self._database.make_views(con, sql)
            return fetched(con, sql, params)

        return self._read(lambda con: work(partial(ask, con)), timeout_s)

    def columns(
        self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> dict[str, numpy.ndarray[Any, Any]]:
        """Return the columns of one SELECT as arrays, as ``Reader.columns`` does."""

        def ask(con: duckdb.DuckDBPyConnection) -> dict[str, numpy.ndarray[Any, Any]]:
            self._database.make_views(con, sql)
            return as_columns(con, sql, params)

        return self._read(ask)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the file open for all that this thread asks within the block: to open it takes as long as to ask.

        What is appended meanwhile is not found, and reaches the file afterwards.
        """
        import duckdb

        with ExitStack() as stack:
            if self.flush(tried_s=TRIED_S):
                with suppress(Locked, duckdb.Error):  # each query then opens it, and says what is wrong
                    con = stack.enter_context(self._database.opened(read_only=True))
                    self._held_open.con = con
                    stack.callback(setattr, self._held_open, "con", None)
            yield

    def find(self, config_hashes: Sequence[str]) -> dict[str, StoredRun]:
        """Return each known hash's largest complete run, else the newest to continue, else one still running."""
        return self._read(lambda con: find_runs(con, config_hashes, self._spool.is_alive))

    def nearest(self, config: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
        """Return the stored config of the same suite and model that differs least, and its newest run."""
        return self._read(lambda con: nearest_config(con, config))

    def claim(self, run: StoredRun) -> bool:
        """Take over a run that no process works on; return False if another was quicker or has completed it."""

        mine = {"run_id": run.run_id, "status": "running", "owner": self.owner}

        def take(con: duckdb.DuckDBPyConnection) -> bool:
            free = is_free(con, run, self._spool.is_alive)
            if free:
                insert(con, self._columns, iter([("runs", mine, 0)]))
            return free

        if self.flush():
            return self._read(take, read_only=False)
        free = self._read(lambda con: is_free(con, run, self._spool.is_alive))
        if free:  # the claim waits with the rows; should two make it, each row is kept once
            self.append("runs", mine)
        return free

    def keep_gaps(self, run_id: str) -> None:
        """Store the gap percentiles of a complete run, slow to compute, for the view ``gap_percentiles``."""
        for row in self.query(GAPS_TO_KEEP, [run_id], timeout_s=60.0):
            self.append("run_gaps", row)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(
        self, work: Callable[[duckdb.DuckDBPyConnection], T], timeout_s: float = 10.0, *, read_only: bool = True
    ) -> T:
        """Return what ``work`` makes of the file, with all rows appended so far in it."""
        if read_only and (held := getattr(self._held_open, "con", None)) is not None:
            with at_work(self.path):
                return work(held)
        done = self._closed or self.flush(timeout_s, tried_s=TRIED_S)
        deadline = time.monotonic() + timeout_s
        while done or not read_only:
            if not done:
                raise RunFailed(f"{self.path} is in use by {self.held_by}: {self.backlog} rows wait in the spool")
            try:
                with at_work(self.path), self._database.opened(read_only=read_only) as con:
                    return work(con)
            except Locked as held:
                if time.monotonic() > deadline:
                    raise RunFailed(f"{self.path} is in use by {held}: stop that process and try again") from held
            wait_a_little()
        with at_work(self.path), self._database.opened_with(self._waiting) as con:
            return work(con)

    def _waiting(self) -> list[Waiting]:
        """Return the spool files that are not in DuckDB yet, the current one with them; no other is then written."""
        with self._state:
            self._rotate()
            return [(file, self._checks(file)) for file, _ in self._files]

    def _checks(self, file: Path) -> Columns | None:
        return None if file.name.startswith(self.owner) else self._columns

    def _rotate(self) -> None:
        file = self._spool.rotate()
        if file is not None:
            self._files.append((file, self._appended - self._stored - sum(count for _, count in self._files)))

    def _begin_anew(self) -> None:
        """Take the file that stands in the place of ours, or make one, and give it the runs that go on.

        What was moved into the old one is gone with it; `clean` puts a smaller file there, which has everything.
        """
        if not self.path.exists():
            complain(f"{self.path} was removed: it is made anew, and holds what comes from now on")
        self._database.make_current(0)
        with self._database.opened(read_only=False) as con:
            known = {run_id for (run_id,) in con.execute("SELECT run_id FROM runs").fetchall()}
            with self._state:
                rows = [(table, row, 0) for of in self._recent.values() for (table, *_), row in of.items()]
            insert(con, self._columns, (row for row in rows if row[1]["run_id"] not in known))
        self.file_number = file_number(self.path)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            why = first_line(self._failure)
            raise RunFailed(
                f"cannot write {self.path} ({why}); the rows wait in {self._spool.folder}"
            ) from self._failure

    def _write(self) -> None:
        """Move the spool into DuckDB again and again, pausing in proportion to the time it took (the writer thread)."""
        _yield_to_others()
        pause_s = PAUSE_S
        while not self._closing:
            self._wake.wait(pause_s)
            self._wake.clear()
            started = time.monotonic()
            try:
                goal = self._appended
                while self._stored < goal and not self._closing:
                    if not self._move():
                        self._show_what_waits()
                        wait_a_little()  # so that whoever waits for the file gets it
            except BaseException as error:  # handed to whoever appends or flushes next
                with self._state:
                    self._failure = error
                    self._state.notify_all()
                return
            took_s = time.monotonic() - started
            pause_s = PAUSE_S if self.backlog > MANY else min(max(PAUSE_S, DUTY * took_s), PAUSE_MAX_S)

    def _show_what_waits(self) -> None:
        """While another process keeps the file, take new rows into memory, so that no query has to take them all."""
        import duckdb

        first, last = self._held
        if last - first > HELD_S and time.monotonic() - self._shown > PAUSE_S:
            with suppress(duckdb.Error), self._database.opened_with(self._waiting):
                pass  # what went wrong, the next query will say
            self._shown = time.monotonic()

    def _move(self) -> bool:
        """Insert the oldest spool files, for ``HOLD_S`` at most; return False if more is left to do."""
        with self._state:
            if not self._files:
                self._rotate()
            files = [file for file, _ in self._files]
            filled = {
                table: {name: kind for name, kind in self._columns[table].items() if name in names}
                for table, names in self._filled.items()
            }
        done = 0
        try:
            if file_number(self.path) != self.file_number:
                self._begin_anew()
            with self._database.opened(read_only=False) as con:
                until = time.monotonic() + HOLD_S
                for file in files:
                    checks = self._checks(file)
                    self._rows = self._rows or (written_rows(file) if checks is None else read_rows(file, checks))
                    aside = partial(set_aside, file)
                    if not insert(con, self._columns, self._rows, until, aside, filled):
                        break
                    self._rows = None
                    done += 1
        except Locked as held:
            with self._state:
                now = time.monotonic()
                self.held_by, self._held = str(held), (self._held[0] or now, now)
                self._state.notify_all()
            return False
        # Only after the connection is closed: the rows must be committed and the file in order before the spool goes.
        for file in files[:done]:
            self._spool.discard(file)
            with self._state:
                self._stored += self._files.popleft()[1]
                self._state.notify_all()
        with self._state:
            self._held = (0.0, 0.0)
            self._moved += 1
            self._state.notify_all()
            return not self._files


@contextmanager
def storing(path: Path, *, fsync: bool = False) -> Iterator[Store]:
    """Keep a store open; at the end, say who keeps rows from getting into the file, if anybody does."""
    store = Store(path, fsync=fsync)
    try:
        yield store
    finally:
        if not store.close():
            complain(
                f"{path} is kept open by {store.held_by}: {plural(store.backlog, 'row')} wait in {spool_of(path)}, and"
                " the next structbench command takes them in"
            )


def _yield_to_others() -> None:
    """Lower the priority of the calling thread, where the system has one for each thread."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)

"""Reading a file that other processes may be writing, for ``runs``, ``report``, ``sql`` and the other commands.

Invariant: it changes only what the next load would change too (an older file is migrated, what dead processes left is
merged and their runs are marked interrupted), and only if that disturbs no other process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structbench.errors import BadInput
from structbench.output import spreadsheet_sql, sweep
from structbench.store.database import (
    Database,
    Locked,
    Params,
    as_columns,
    at_work,
    fetched,
    first_line,
    quoted,
    refuse_odd,
    usable,
)
from structbench.store.spool import orphaned_files
from structbench.store.upkeep import settle, spool_of

if TYPE_CHECKING:
    import duckdb
    import numpy

log = logging.getLogger(__name__)

_SETTLING_S = 1.0


class Reader:
    """One DuckDB file, read-only. Each query opens it anew (1 ms), so that a load can write in between; queries that
    must agree with each other go into one ``with reader.together():``."""

    def __init__(self, path: Path, *, patience_s: float = 3.0, target: Path | None = None) -> None:
        """Open the file and merge what dead processes left; raise BadInput if there is nothing to read.

        ``target`` is the one file that ``copy`` may write.
        """
        self.path = Path(path)
        self._patience_s = patience_s
        self._target = target
        self.database = Database(self.path, others=() if target is None else (target,))
        self._shared: duckdb.DuckDBPyConnection | None = None
        refuse_odd(self.path)
        if not self.path.exists():
            raise BadInput(f"{self.path} does not exist: run `structbench load` to create it, or give another --db")
        with usable(self.path), self.together():
            pass
        if not self.database.is_current:
            self.database.prepare(patience_s)
        unsettled = self._settle()
        if not self.query("SELECT 1 FROM runs LIMIT 1"):
            if unsettled is not None:
                raise BadInput(f"{self.path} has no runs yet: {unsettled}: try again later, or give another --db")
            raise BadInput(f"{self.path} is an empty database: run `structbench load` first, or give another --db")
        if unsettled is not None:
            log.warning("structbench: %s", unsettled)

    def query(self, sql: str, params: Params = None) -> list[dict[str, Any]]:
        """Return the rows of one statement; instants are UTC without a zone."""
        with self.together() as con:
            self.database.make_views(con, sql)
            return fetched(con, sql, params)

    def columns(self, sql: str, params: Params = None) -> dict[str, numpy.ndarray[Any, Any]]:
        """Return the columns as arrays, for a million rows: absent numbers are NaN, other absent values None."""
        with self.together() as con:
            self.database.make_views(con, sql)
            return as_columns(con, sql, params)

    def copy(self, view: str, run_ids: Sequence[str], how: str, *, spreadsheet: bool = False) -> None:
        """Write the rows of these runs to the target, with options of COPY; raise BadInput on failure.

        ``spreadsheet``: text that would be a formula there gets a ' in front.
        """
        import duckdb

        ids = ", ".join(quoted(run_id) for run_id in run_ids)
        with self.together() as con:
            self.database.make_views(con, view)
            columns = con.execute(f"DESCRIBE {view}").fetchall() if spreadsheet else []
            safe = ", ".join(spreadsheet_sql(f'"{name}"') for name, kind, *_ in columns if kind == "VARCHAR")
            source = f"SELECT * {f'REPLACE ({safe})' if safe else ''} FROM {view} WHERE run_id IN ({ids})"
            try:
                con.execute(f"COPY ({source}) TO {quoted(self._target)} ({how})").fetchall()
            except duckdb.IOException as error:
                raise BadInput(f"cannot write the file ({first_line(error)}): give another -o") from error

    @contextmanager
    def together(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Use one connection for all queries inside; meanwhile a load's rows wait in its spool.

        Raises RunFailed if DuckDB has no room for its work, and BadInput for values that cannot be worked with.
        """
        if self._shared is not None:
            yield self._shared
            return
        with ExitStack() as stack:
            with usable(self.path):
                opened = self.database.opened(read_only=True, patience_s=self._patience_s)
                self._shared = stack.enter_context(opened)
            stack.callback(setattr, self, "_shared", None)
            with at_work(self.path):
                yield self._shared

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()

    def _settle(self) -> str | None:
        """Merge what dead processes left, if the file is writable; else it waits, and their runs stay ``running``.

        Returns why that could not be done, where it was tried.
        """
        import duckdb

        try:
            if os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK | os.X_OK):
                sweep(self.path)
                settle(self.database, min(self._patience_s, _SETTLING_S))
        except Locked as held:
            why = f"the database is in use by {held}"
        except (duckdb.Error, OSError) as error:  # no room
            why = first_line(error)
        else:
            return None
        spool = spool_of(self.path)
        waiting = f"rows of an earlier load wait in {spool}"
        return f"{waiting if orphaned_files(spool) else 'a killed run has no verdict yet'}: {why}"

"""Rows that wait in the spool, in front of the file's: what a load has measured while another process keeps the file.

Invariant: a query finds the same rows as if they were in the file already, each once.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from structbench.store.schema import FILE, KEYS, MIGRATIONS, TABLES, Columns, shape
from structbench.store.spool import insert, read_rows

if TYPE_CHECKING:
    import duckdb

_WAITING = "waiting"
_WHOLE = ("runs", "segments", "notes")
"""Small tables, whose rows are changed: they are copied, so that a change finds the row, and so are the requests of
runs that go on."""
_RUNNING = f"SELECT run_id FROM {FILE}.main.runs WHERE status = 'running'"


Waiting = tuple[Path, Columns | None]
"""A spool file, and the columns with which its rows are to be compared, if another process wrote it."""


class Overlay:
    """Tables in memory that grow with the spool, and names that mean them and the file's together."""

    def __init__(self) -> None:
        self._read: set[Path] = set()
        self._is_made = self._with_file = False

    def show(self, con: duckdb.DuckDBPyConnection, files: Iterable[Waiting], *, with_file: bool) -> None:
        """Take in what these spool files hold; ``with_file``: whether the file is open too."""
        columns = shape(MIGRATIONS).columns
        if with_file and not self._with_file:
            self.drop(con)  # what was made without it lacks what the file says of these runs
        if not self._is_made:
            con.execute(f"ATTACH ':memory:' AS {_WAITING}").fetchall()
        con.execute(f"USE {_WAITING}").fetchall()
        if not self._is_made:
            for table, sql in shape(MIGRATIONS).tables.items():
                con.execute(sql).fetchall()
                if with_file and table in (*_WHOLE, "requests"):
                    which = "" if table in _WHOLE else f"WHERE run_id IN ({_RUNNING})"
                    con.execute(f"INSERT INTO {table} FROM {FILE}.main.{table} {which}").fetchall()
            self._is_made, self._with_file = True, with_file
        for file, checks in files:
            if file not in self._read:
                with suppress(FileNotFoundError):  # by now it is in the database
                    insert(con, columns, read_rows(file, checks, _later), aside=_later)
                self._read.add(file)
        con.execute("USE memory").fetchall()
        for table in TABLES:
            source = f"FROM {_WAITING}.main.{table}"
            if with_file and table not in _WHOLE:
                known = f"ANTI JOIN {_WAITING}.main.{table} USING ({', '.join(KEYS[table])})" if table in KEYS else ""
                source = f"FROM {FILE}.main.{table} {known} UNION ALL BY NAME {source}"
            con.execute(f"CREATE OR REPLACE VIEW {table} AS {source}").fetchall()

    def drop(self, con: duckdb.DuckDBPyConnection) -> None:
        """Free the memory: all rows are in the file, and names mean it alone again."""
        if self._is_made:
            con.execute(f"DETACH {_WAITING}").fetchall()
            self._read.clear()
            self._is_made = False


def _later(_line: bytes) -> None:
    """Leave out a line that does not fit: it is set aside when its file gets into the database."""

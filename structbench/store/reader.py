"""Reading a file that other processes may be writing, for ``runs``, ``report``, ``sql`` and the other commands.

Invariant: it changes only what the next load would change too (an older file is migrated, what dead processes left is
merged and their runs are marked interrupted), and only if that disturbs no other process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structbench.errors import BadInput
from structbench.store.database import (
    ALONE,
    PATIENCE_S,
    Database,
    Locked,
    Params,
    fetched,
    patiently,
    quoted,
    refuse_folder,
    usable,
)
from structbench.store.schema import MIGRATIONS, version_of
from structbench.store.upkeep import settle, spool_of

if TYPE_CHECKING:
    import duckdb
    import numpy

log = logging.getLogger(__name__)

_SETTLING_S = 1.0
_SEALED = {
    "enable_external_access": "false", "python_enable_replacements": "false", "lock_configuration": "true",
}  # fmt: skip


class Reader:
    """One DuckDB file, read-only. Each query opens it anew (1 ms), so that a load can write in between; queries that
    must agree with each other go into one ``with reader.together():``."""

    def __init__(self, path: Path, *, patience_s: float = 3.0) -> None:
        """Open the file and merge what dead processes left; raise BadInput if there is nothing to read."""
        self.path = Path(path)
        self._patience_s = patience_s
        self.database = Database(self.path)
        self._shared: duckdb.DuckDBPyConnection | None = None
        refuse_folder(self.path)
        if not self.path.exists():
            raise BadInput(f"{self.path} does not exist: run `structbench load` to create it, or give another --db")
        with usable(self.path), self.together() as con:
            older = version_of(con, self.path) < len(MIGRATIONS)
        if older:
            self.database.prepare(patience_s)
        self._settle()
        if not self.query("SELECT 1 FROM runs LIMIT 1"):
            raise BadInput(f"{self.path} is an empty database: run `structbench load` first, or give another --db")

    def query(self, sql: str, params: Params = None) -> list[dict[str, Any]]:
        """Return the rows of one statement; instants are UTC without a zone."""
        with self.together() as con:
            return fetched(con, sql, params)

    def columns(self, sql: str, params: Params = None) -> dict[str, numpy.ndarray[Any, Any]]:
        """Return the columns as arrays, for a million rows: absent numbers are NaN, other absent values None."""
        with self.together() as con:
            found = con.execute(sql, params).fetchnumpy()
        return {name: _filled(values) for name, values in found.items()}

    def copy(self, view: str, run_ids: Sequence[str], target: Path, how: str) -> None:
        """Write the rows of these runs to a file; ``how`` are options of DuckDB's COPY. Raise BadInput on failure."""
        import duckdb

        ids = ", ".join(quoted(run_id) for run_id in run_ids)
        with self.together() as con:
            try:
                con.execute(f"COPY (FROM {view} WHERE run_id IN ({ids})) TO {quoted(target)} ({how})").fetchall()
            except duckdb.IOException as error:
                raise BadInput(f"cannot write the file ({str(error).splitlines()[0]}): give another -o") from error

    @contextmanager
    def together(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Use one connection for all queries inside; meanwhile a load's rows wait in its spool."""
        if self._shared is not None:
            yield self._shared
            return
        with ExitStack() as stack:
            with usable(self.path):
                opened = self.database.opened(read_only=True, patience_s=self._patience_s)
                self._shared = stack.enter_context(opened)
            stack.callback(setattr, self, "_shared", None)
            yield self._shared

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()

    def _settle(self) -> None:
        """Merge what dead processes left, if the file is writable; else it waits, and their runs stay ``running``."""
        try:
            if os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK | os.X_OK):
                settle(self.database, min(self._patience_s, _SETTLING_S))
        except Locked as held:
            log.warning(
                "structbench: rows of a killed load wait in %s: the database is in use by %s", spool_of(self.path), held
            )


def _filled(values: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    """Return the values with NaN or None in place of the mask."""
    import numpy

    if not isinstance(values, numpy.ma.MaskedArray):
        return values
    absent: Any = numpy.nan if values.dtype.kind in "iufb" else None
    return numpy.where(values.mask, absent, values.data)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The rows of a statement; ``more`` if there are others."""

    names: list[str]
    rows: list[tuple[Any, ...]]
    more: bool = False


def ask(path: Path, sql: str, limit: int | None = None) -> QueryResult:
    """Run a statement that a user wrote and return at most ``limit`` rows; raise BadInput that says where it is wrong.

    It can read this file and nothing else (no other file, network, environment or Python variable), change nothing,
    and not lift these limits.
    """
    import duckdb

    config: dict[str, Any] = {**ALONE, **_SEALED}
    with ExitStack() as stack:
        with usable(path):
            connect = partial(duckdb.connect, path, read_only=True, config=config)
            con = stack.enter_context(patiently(connect, PATIENCE_S))
        try:
            return _execute(con, sql, limit)
        except duckdb.Error as error:
            raise BadInput(_one_line_error(str(error))) from error


def _execute(con: duckdb.DuckDBPyConnection, sql: str, limit: int | None) -> QueryResult:
    statements = con.extract_statements(sql)
    if len(statements) != 1:
        raise BadInput(f"give one statement at a time, not {len(statements)}")
    result = con.execute(statements[0])
    names = [column[0] for column in result.description or ()]
    if limit is None:
        return QueryResult(names, result.fetchall())
    rows = result.fetchmany(limit + 1)
    return QueryResult(names, rows[:limit], more=len(rows) > limit)


def _one_line_error(error: str) -> str:
    """Return DuckDB's message and hints, with the place that its caret points at: ``… (line 1, column 8)``."""
    lines = [line for line in error.splitlines() if line.strip()]
    for number, (line, below) in enumerate(pairwise(lines)):
        if line.startswith("LINE ") and set(below.strip()) == {"^"}:
            head, colon, _ = line.partition(": ")
            column = below.index("^") - len(head + colon) + 1
            return f"{' '.join(lines[:number])} (line {head.removeprefix('LINE ')}, column {column})"
    return " ".join(lines)

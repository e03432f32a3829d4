"""Opening the DuckDB file; the only caller of ``duckdb.connect``.

Invariant: the file is open only for moments, so that other processes get their turn. DuckDB itself stays running:
starting it takes 20 ms, attaching the file to it 1 ms.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structbench.errors import BadInput
from structbench.store.schema import (
    FILE,
    MIGRATIONS,
    TABLES,
    Columns,
    columns_of,
    has_todays_views,
    migrate,
    version_of,
    views,
)  # fmt: skip

if TYPE_CHECKING:
    import duckdb

_BESIDE_A_LOAD: Mapping[str, str] = {"threads": "1", "memory_limit": "512MB"}
_ALONE: Mapping[str, str] = {"memory_limit": "1GB"}
_SEALED: Mapping[str, str] = {
    **_ALONE,
    "enable_external_access": "false", "python_enable_replacements": "false", "lock_configuration": "true",
}  # fmt: skip

Params = Sequence[Any] | Mapping[str, Any] | None

PATIENCE_S = 10.0
"""How long a command waits for its turn."""


class Locked(Exception):
    """The file is in use for now; the message says by which process."""


class Database:
    """One file, and a DuckDB that opens it only for moments; several threads take turns."""

    def __init__(self, path: Path, *, beside_a_load: bool = False) -> None:
        """``beside_a_load``: one thread, the caller's, whose priority then counts, and less memory."""
        self.path = path
        self._config = {**(_BESIDE_A_LOAD if beside_a_load else _ALONE), "temp_directory": f"{path.absolute()}.tmp"}
        self._duckdb: duckdb.DuckDBPyConnection | None = None
        self._named: set[str] = set()
        """The tables and views that a reader can name by now: each takes a while to make."""
        self._turn = threading.Lock()

    @contextmanager
    def opened(
        self, *, read_only: bool, patience_s: float = 0.0, path: Path | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file (or the one at ``path``); raise Locked if others use it for longer than ``patience_s``.

        A reader sees the file's tables and views made of today's text: those in the file may be older, or foreign.
        """
        import duckdb  # late: takes 100 ms

        with self._turn:
            if self._duckdb is None:
                self._duckdb = duckdb.connect(config=dict(self._config))
            path = path or self.path
            with (
                attached(self._duckdb, path, FILE, read_only=read_only, patience_s=patience_s),
                self._duckdb.cursor() as con,
            ):
                con.execute(f"USE {FILE}").fetchall()
                if read_only:
                    self._use_tables(con)
                yield con

    def _use_tables(self, con: duckdb.DuckDBPyConnection) -> None:
        """Make the names of tables mean those of the file, whatever else is in it, if it is of today's version."""
        if not self._named:
            if version_of(con, self.path) < len(MIGRATIONS):
                return
            for table in TABLES:
                con.execute(f"CREATE VIEW memory.{table} AS FROM {FILE}.main.{table}").fetchall()
                self._named.add(table)
        con.execute("USE memory").fetchall()

    def make_views(self, con: duckdb.DuckDBPyConnection, sql: str) -> None:
        """Make the views that a statement names, and before each those that it reads, which stand before it."""
        needed: list[str] = []
        for name, text in reversed(views().items()):
            if re.search(rf"\b{name}\b", sql, re.IGNORECASE):
                sql += text
                needed.append(name)
        for name in reversed(needed):
            if name not in self._named:
                con.execute(views()[name]).fetchall()
                self._named.add(name)

    def close(self) -> None:
        """Stop DuckDB and free its memory."""
        with self._turn:
            if self._duckdb is not None:
                self._duckdb.close()
                self._duckdb = None
                self._named.clear()

    def prepare(self, patience_s: float) -> Columns:
        """Create or migrate the file and return its tables' columns; raise BadInput if it cannot be used."""
        _check_place(self.path)
        with usable(self.path):
            if self.path.exists():
                # Read-only first: a current file needs no writing, and so a reader does not keep a load from starting.
                with self.opened(read_only=True, patience_s=patience_s) as con:
                    current, finished = version_of(con, self.path) == len(MIGRATIONS), has_todays_views(con)
                    columns = columns_of(con)
                if current and not finished:  # the views are for other programs: they can wait for a reader
                    with suppress(Locked), self.opened(read_only=False) as con:
                        migrate(con, self.path)
                if current:
                    return columns
            else:
                self._create()
            with self.opened(read_only=False, patience_s=patience_s) as con:
                migrate(con, self.path)
                return columns_of(con)

    def _create(self) -> None:
        """Create the file elsewhere and move it into place, so that no process sees half a database."""
        made = self.path.with_name(f".{self.path.name}.{os.getpid()}-{threading.get_ident()}")
        with self.opened(read_only=False, path=made) as con:
            migrate(con, self.path)
        try:
            os.link(made, self.path)
        except FileExistsError:  # another process was quicker: its file is as good
            pass
        except OSError:  # a file system without hard links
            made.replace(self.path)
        finally:
            made.unlink(missing_ok=True)


def _patiently(get: Callable[[], duckdb.DuckDBPyConnection], patience_s: float) -> duckdb.DuckDBPyConnection:
    """Try again while another process, or another connection of this one, has the file open; then raise Locked."""
    import duckdb

    deadline = time.monotonic() + patience_s
    while True:
        try:
            return get()
        except duckdb.Error as error:
            text = str(error)
            if "Could not set lock" in text:
                holder = re.search(r"\(PID (\d+)\)", text)
                locked = Locked(f"another process (PID {holder[1]})" if holder else "another process")
            elif "different configuration" in text or "Unique file handle conflict" in text:
                locked = Locked("another connection of this process")
            else:
                raise
            if time.monotonic() >= deadline:
                raise locked from error
        wait_a_little()


def quoted(text: object) -> str:
    """Return the text as an SQL literal, where parameters are not allowed."""
    doubled = str(text).replace("'", "''")
    return f"'{doubled}'"


@contextmanager
def attached(
    con: duckdb.DuckDBPyConnection, path: Path, name: str, *, read_only: bool, patience_s: float = 0.0
) -> Iterator[None]:
    """Attach a file under this name; raise Locked if others use it for longer than ``patience_s``."""
    attach = f"ATTACH {quoted(path.absolute())} AS {name} ({'TYPE duckdb, READ_ONLY' if read_only else 'TYPE duckdb'})"
    detach = partial(con.execute, f"DETACH {name}")
    while True:
        before = _identity(path)
        _patiently(partial(con.execute, attach), patience_s)
        if before in (None, _identity(path)):
            break
        detach()  # `clean` put a smaller file in its place while we waited: what we hold has no name any more
    try:
        yield
    finally:
        detach()


def _identity(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def fetched(con: duckdb.DuckDBPyConnection, sql: str, params: Params = None) -> list[dict[str, Any]]:
    """Return the rows of one statement as mappings."""
    result = con.execute(sql, params)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, values, strict=True)) for values in result.fetchall()]


def wait_a_little() -> None:
    """Wait between two tries, for a random time, so that two processes do not keep colliding."""
    time.sleep(random.uniform(0.03, 0.1))


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Turn errors of DuckDB, and locks of other processes, into one line for the user (BadInput)."""
    import duckdb

    try:
        yield
    except Locked as held:
        raise BadInput(f"{path} is in use by {held}: stop that process or give another --db") from held
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        if "not a valid DuckDB" in reason:
            raise BadInput(f"{path} is not a DuckDB database: give another --db") from error
        raise BadInput(f"{path} cannot be opened as a DuckDB database ({reason}): give another --db") from error


def refuse_folder(path: Path) -> None:
    """Raise BadInput if the path is a folder."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder: give a file in it, e.g. --db {path / 'structbench.duckdb'}")


def _check_place(path: Path) -> None:
    parent = path.parent
    refuse_folder(path)
    if not parent.is_dir():
        raise BadInput(f"the folder {parent} does not exist: create it or give another --db")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise BadInput(f"the folder {parent} is not writable: change its permissions or give another --db")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise BadInput(f"{path} is not writable: change its permissions or give another --db")


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

    with usable(path):
        con = _patiently(partial(duckdb.connect, path, read_only=True, config=dict(_SEALED)), PATIENCE_S)
    with con:
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

"""Opening the DuckDB file and putting rows into it; the only caller of ``duckdb.connect``.

Invariant: a connection lives for milliseconds and is closed at once, so that other processes get their turn;
putting the same rows in twice leaves the file as putting them in once.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structbench.errors import BadInput
from structbench.store.schema import FIXED, KEYS, MIGRATIONS, UPDATED, Columns, columns_of, migrate, version_of

if TYPE_CHECKING:
    import duckdb

CHUNK_ROWS = 1000
CHUNK_BYTES = 4_000_000
"""What is held in memory at once, whichever comes first."""
_WRITING: Mapping[str, str] = {"threads": "1", "memory_limit": "512MB"}
_READING: Mapping[str, str] = {"memory_limit": "1GB"}
_SEALED: Mapping[str, str] = {
    "enable_external_access": "false", "python_enable_replacements": "false", "lock_configuration": "true",
}  # fmt: skip

Rows = list[dict[str, Any]]
Chunk = list[tuple[str, dict[str, Any]]]
"""Tables and their rows, in the order in which they were appended."""


class Locked(Exception):
    """The file is held by another process for now; the message says by which."""


@contextmanager
def connection(
    path: Path, *, read_only: bool, patience_s: float = 0.0, sealed: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """One short connection; Locked when another process (or a thread of ours) is in the way for longer than that.

    ``sealed``: for SQL that is not ours, which can then reach nothing but this database.
    """
    config = {**(_READING if read_only else _WRITING), **(_SEALED if sealed else {})}
    deadline = time.monotonic() + patience_s
    while True:
        try:
            con = _connect(path, read_only, config)
            break
        except Locked:
            if time.monotonic() >= deadline:
                raise
            wait_a_little()
    try:
        yield con
    finally:
        con.close()


def _connect(path: Path, read_only: bool, config: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
    import duckdb  # late: takes 100 ms

    try:
        return duckdb.connect(path, read_only=read_only, config=dict(config))
    except (duckdb.IOException, duckdb.ConnectionException) as error:
        text = str(error)
        if "Could not set lock" in text:
            holder = re.search(r"\(PID (\d+)\)", text)
            raise Locked(f"another process (PID {holder[1]})" if holder else "another process") from error
        if "different configuration" in text:
            raise Locked("another connection of this process") from error
        raise


def fetched(con: duckdb.DuckDBPyConnection, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> Rows:
    """The rows of one statement, each a mapping."""
    result = con.execute(sql, params)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, values, strict=True)) for values in result.fetchall()]


def wait_a_little() -> None:
    """Between two tries: random, so that two processes do not keep meeting."""
    time.sleep(random.uniform(0.03, 0.1))


def prepare(path: Path, patience_s: float) -> Columns:
    """Create or migrate the file, and return its tables' columns; BadInput says why it cannot be used."""
    _check_place(path)
    with usable(path):
        if path.exists():
            # Read-only first: a current file needs no writing, and so a reader does not keep a load from starting.
            with connection(path, read_only=True, patience_s=patience_s) as con:
                if version_of(con, path) == len(MIGRATIONS):
                    return columns_of(con)
        else:
            _create(path)
        with connection(path, read_only=False, patience_s=patience_s) as con:
            migrate(con, path)
            return columns_of(con)


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """What DuckDB and other processes have against the file, as one line for the user (BadInput)."""
    import duckdb

    try:
        yield
    except Locked as held:
        raise BadInput(f"{path} is held by {held}: end that process or give another --db") from held
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        if "not a valid DuckDB" in reason:
            raise BadInput(f"{path} is not a DuckDB database: give another --db") from error
        raise BadInput(f"{path} cannot be opened as a DuckDB database ({reason}): give another --db") from error


def refuse_folder(path: Path) -> None:
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


def _create(path: Path) -> None:
    """Make the file elsewhere and move it in place whole: nobody ever sees half a database."""
    made = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    with connection(made, read_only=False) as con:
        migrate(con, path)
    try:
        os.link(made, path)
    except FileExistsError:  # another process was quicker: its file is as good
        pass
    except OSError:  # a file system without hard links
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)


def insert(con: duckdb.DuckDBPyConnection, columns: Columns, rows: Iterable[tuple[str, dict[str, Any], int]]) -> None:
    """Put spooled rows in, a transaction for each chunk."""
    chunk: Chunk = []
    size = 0
    for table, row, length in rows:
        chunk.append((table, row))
        size += length
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            _insert_chunk(con, columns, chunk)
            chunk, size = [], 0
    _insert_chunk(con, columns, chunk)


def _insert_chunk(con: duckdb.DuckDBPyConnection, columns: Columns, chunk: Chunk) -> None:
    if not chunk:
        return
    con.execute("BEGIN").fetchall()
    for (table, names), rows in _grouped(columns, chunk).items():
        types = {name: columns[table][name] for name in names}
        con.execute(_statement(table, types), [json.dumps(rows), _structure(types)]).fetchall()
    con.execute("COMMIT").fetchall()


def _grouped(columns: Columns, chunk: Chunk) -> dict[tuple[str, tuple[str, ...]], Rows]:
    """Rows by table and columns; of rows with one key only the last stands (DuckDB would keep the first)."""
    last: dict[tuple[str, tuple[object, ...]], dict[str, Any]] = {}
    for table, row in chunk:
        key = (table, tuple(row[name] for name in KEYS[table]))
        last[key] = {**last.get(key, {}), **row} if table in UPDATED else row
    groups: dict[tuple[str, tuple[str, ...]], Rows] = {}
    for (table, _), row in last.items():
        names = tuple(row) if table in UPDATED else tuple(columns[table])
        groups.setdefault((table, names), []).append(row)
    return groups


def _structure(types: Mapping[str, str]) -> str:
    """The rows' structure for from_json; JSON columns travel as text."""
    transport: dict[str, str | list[str]] = {
        name: [kind[:-2]] if kind.endswith("[]") else "VARCHAR" if kind == "JSON" else kind
        for name, kind in types.items()
    }
    return json.dumps([transport])


def _statement(table: str, types: Mapping[str, str]) -> str:
    names = ", ".join(f'"{name}"' for name in types)
    values = ", ".join(f'r."{name}"::{kind}' for name, kind in types.items())
    source = "SELECT unnest(from_json($1::JSON, $2)) AS r"
    kept = (*KEYS[table], *FIXED.get(table, ()))
    changed = ", ".join(f'"{name}" = excluded."{name}"' for name in types if name not in kept)
    return (
        f"INSERT INTO {table} ({names}) SELECT {values} FROM ({source})"
        f" ON CONFLICT ({', '.join(KEYS[table])}) DO {f'UPDATE SET {changed}' if changed else 'NOTHING'}"
    )

"""The write-ahead spool: rows that are not yet in DuckDB, as JSON lines beside the database, and their insertion.

Invariant: a row is in a spool file from the moment ``append`` returns until its transaction is committed, so
``kill -9`` loses nothing; a process holds a lock (flock) on ``<owner>.lock`` exactly as long as it lives.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from structbench.output import private
from structbench.store.rows import storable
from structbench.store.schema import FIXED, KEYS, UPDATED, Columns
from structbench.store.steady import mark_steady

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

CHUNK_ROWS = 1000
CHUNK_BYTES = 4_000_000
"""Limits of one insertion, whichever comes first: about 0.15 s of work, of which the statement takes 0.02 s."""

_OURS = re.compile(r"\d+-\w+\.(\d{8}\.jsonl|lock|bad)")
"""The names of the spool's files: in somebody else's folder a link may lead to files that are none."""

BESIDES = ("notes", "steady")
"""What a row of ``runs`` may bring that is no column: it is done in the row's transaction."""

READ_LINES = "SELECT from_json(line, $2) AS r FROM (SELECT unnest(string_split($1, chr(10))) AS line)"
"""SQL: the rows of lines of JSON ($1), of a structure ($2). A list of rows in one text takes twice as long."""

_encoded = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

_WRITTEN = re.compile(rb'\{"table":"(\w+)","row":(.*)\}\n', re.DOTALL)
"""A line as ``append`` writes it."""

ReadRow = tuple[str, dict[str, Any]]
TableRow = tuple[str, dict[str, Any] | bytes]
SpooledRow = tuple[str, dict[str, Any] | bytes, int]
"""A table, a row and its size in bytes; a row that this process wrote is its JSON text where nobody reads it."""


class Spool:
    """The spool folder of one owner: its own files, and those that it took over from dead owners.

    Not thread-safe: the store calls ``append`` and ``rotate`` under its own lock.
    """

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        """``fsync``: each row is on the disk itself, and so outlives a loss of power."""
        self.folder = folder
        self._fsync = fsync
        self.owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._sequence = 0
        self._file: int | None = None
        self._claims = {self.owner: self._claim_own()}

    def append(self, table: str, row: dict[str, Any]) -> None:
        """Write one row; raise OSError if the disk does not take it, leaving no part of it behind."""
        line = orjson.dumps({"table": table, "row": row}, option=orjson.OPT_APPEND_NEWLINE)
        if self._file is None:
            self._file = os.open(self._current(), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
            if self._fsync:  # the file is new, and perhaps the folder: their names are to outlive it too
                for folder in (self.folder, self.folder.parent):
                    _sync_folder(folder)
        written = os.write(self._file, line)
        if written < len(line):
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise OSError("no space left on the disk")
        if self._fsync:
            os.fsync(self._file)

    def rotate(self) -> Path | None:
        """Close the current file, if there is one, and return its path."""
        if self._file is None:
            return None
        path = self._current()
        os.close(self._file)
        self._file = None
        self._sequence += 1
        return path

    def adopt(self) -> list[Path]:
        """Take over the files of dead owners, oldest first; other processes then leave them alone."""
        owners = {_owner_of(path) for path in self.folder.iterdir() if _is_own(path)}
        files: list[Path] = []
        for owner in owners - self._claims.keys():
            claim = _lock_file(self._lock_of(owner), os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if claim is not None:
                self._claims[owner] = claim
                files += self._files_of(owner) or self._release(owner)
        return sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def discard(self, path: Path) -> None:
        """Delete a file whose rows are committed, and a dead owner's lock with its last file."""
        path.unlink(missing_ok=True)
        owner = _owner_of(path)
        if owner != self.owner and not self._files_of(owner):
            self._release(owner)

    def is_alive(self, owner: str | None) -> bool:
        """Return whether a process, perhaps this one, works under this name: not of whom this one took over."""
        return owner == self.owner or (owner not in self._claims and is_alive(self.folder, owner))

    def close(self) -> None:
        """Release the locks; remaining files wait for the next process, an empty folder is removed."""
        self.rotate()
        for owner in list(self._claims):
            if self._files_of(owner):
                os.close(self._claims.pop(owner))
            else:
                self._release(owner)
        with contextlib.suppress(OSError):  # not empty: others still use it
            self.folder.rmdir()

    def _claim_own(self) -> int:
        path = self._lock_of(self.owner)
        while True:
            if self.folder.is_symlink():
                raise OSError(errno.ELOOP, "it is a link", str(self.folder))
            self.folder.mkdir(mode=0o700, exist_ok=True)
            # Between these steps another process may take us for dead or remove the empty folder: then try again.
            with contextlib.suppress(FileNotFoundError):
                claim = _lock_file(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)
                if claim is not None:
                    if path.exists():
                        return claim
                    os.close(claim)

    def _release(self, owner: str) -> list[Path]:
        self._lock_of(owner).unlink(missing_ok=True)
        os.close(self._claims.pop(owner))
        return []

    def _lock_of(self, owner: str) -> Path:
        return self.folder / f"{owner}.lock"

    def _files_of(self, owner: str) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"{owner}.*.jsonl") if _is_own(path))

    def _current(self) -> Path:
        return self.folder / f"{self.owner}.{self._sequence:08}.jsonl"


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def is_alive(folder: Path, owner: str | None) -> bool:
    """Return whether a process holds this owner's lock in the spool folder."""
    if owner is None:
        return False
    try:
        claim = _lock_file(folder / f"{owner}.lock", os.O_RDONLY, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's, who may well be at work
        return True
    if claim is not None:
        os.close(claim)
    return claim is None


def orphaned_files(folder: Path) -> list[Path]:
    """Return the files in which rows of dead processes wait."""
    files = [path for path in sorted(folder.glob("*.jsonl")) if _is_own(path)]
    alive = {owner: is_alive(folder, owner) for owner in {_owner_of(path) for path in files}}
    return [path for path in files if not alive[_owner_of(path)]]


def _owner_of(path: Path) -> str:
    return path.name.split(".")[0]


def _is_own(path: Path) -> bool:
    """Return whether it is a spool's file that this user made: what others put there is not taken in, nor links."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        is_file = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        return is_file and _OURS.fullmatch(path.name) is not None and not path.parent.is_symlink()
    return False


def _lock_file(path: Path, flags: int, how: int) -> int | None:
    """Return an open, locked file descriptor, or None if another process holds the lock, or a link stands there."""
    try:
        file = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def count_lines(path: Path) -> int:
    """Count the complete lines of a file."""
    with path.open("rb") as file:
        return sum(1 for line in file if line.endswith(b"\n"))


def read_rows(
    path: Path, columns: Columns | None = None, aside: Callable[[bytes], None] | None = None
) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Yield each row of a spool file as table, row, bytes; drop a line that the owner's end cut short.

    A whole line that is no row of ours is set aside (or ``aside`` takes it), and with ``columns`` one whose values
    these cannot hold: nobody has checked what another process left.
    """
    aside = aside or partial(set_aside, path)
    with path.open("rb") as file:
        for line in file:
            try:
                item = json.loads(line)
                table, row = item["table"], item["row"]
                if not isinstance(table, str) or not isinstance(row, dict):
                    raise TypeError
                if columns is not None:
                    for name in row.keys() - {*(BESIDES if table == "runs" else ())}:
                        storable(row[name], name, columns[table][name])
            except (ValueError, TypeError, KeyError, RecursionError):
                if line.endswith(b"\n"):
                    aside(line)
                else:
                    log.warning("structbench: %s: dropped a line of %d bytes that was cut short", path, len(line))
                continue
            yield table, row, len(line)


def written_rows(path: Path) -> Iterator[SpooledRow]:
    """Yield each row of a file that this process wrote, those of large tables as the text that they are."""
    with path.open("rb") as file:
        for line in file:
            found = _WRITTEN.fullmatch(line)
            assert found is not None
            table = found[1].decode()
            yield table, json.loads(found[2]) if table in UPDATED else found[2], len(line)


def set_aside(path: Path, line: bytes) -> None:
    """Keep a line that does not fit beside the spool file, so that it stops no other; warn of the first."""
    kept = path.parent / f"{path.name.split('.')[0]}.bad"
    if not _is_own(kept):
        kept.unlink(missing_ok=True)  # a link would lead the line anywhere
        log.warning("structbench: lines of %s do not fit and are kept in %s", path, kept)
    with open(kept, "ab", opener=private) as file:
        file.write(line if line.endswith(b"\n") else line + b"\n")


def insert(
    con: duckdb.DuckDBPyConnection, columns: Columns, rows: Iterator[SpooledRow], until: float = inf,
    aside: Callable[[bytes], None] | None = None, filled: Columns | None = None,
) -> bool:  # fmt: skip
    """Insert spooled rows, one transaction per chunk; return False if ``until`` (monotonic) came first.

    To insert the same rows twice has the same effect as once. ``aside`` takes a line whose values do not fit.
    ``filled`` are the columns that rows that are text have; None: all.
    """
    while chunk := _next_chunk(rows):
        _insert_chunk(con, columns, chunk, aside, filled or columns)
        if time.monotonic() >= until:
            return False
    return True


def _next_chunk(rows: Iterator[SpooledRow]) -> list[TableRow]:
    chunk: list[TableRow] = []
    size = 0
    for table, row, length in rows:
        chunk.append((table, row))
        size += length
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            break
    return chunk


def _insert_chunk(
    con: duckdb.DuckDBPyConnection, columns: Columns, chunk: list[TableRow], aside: Callable[[bytes], None] | None,
    filled: Columns,
) -> None:  # fmt: skip
    import duckdb

    try:
        _insert_rows(con, columns, chunk, filled)
    except (duckdb.DataError, duckdb.IntegrityError, duckdb.InvalidInputException, TypeError, KeyError):
        con.execute("ROLLBACK").fetchall()
        if any(isinstance(row, bytes) for _, row in chunk):  # perhaps the file has one of them already
            read: list[TableRow] = [(table, json.loads(row) if isinstance(row, bytes) else row) for table, row in chunk]
            return _insert_chunk(con, columns, read, aside, filled)
        if aside is None:
            raise
        if len(chunk) == 1:
            ((table, row),) = chunk
            return aside(json.dumps({"table": table, "row": row}).encode())
        for each in chunk:
            _insert_chunk(con, columns, [each], aside, filled)


def _insert_rows(con: duckdb.DuckDBPyConnection, columns: Columns, chunk: list[TableRow], filled: Columns) -> None:
    """Insert in one transaction: rows that are text as new ones, which takes a third of the time of the others."""
    con.execute("BEGIN").fetchall()
    texts: dict[str, list[bytes]] = {}
    read: list[ReadRow] = []
    for table, row in chunk:
        if isinstance(row, bytes):
            texts.setdefault(table, []).append(row)
        else:
            read.append((table, row))
    for table, lines in texts.items():
        types = filled[table]
        con.execute(_statement(table, types), [b"\n".join(lines).decode(), structure(types)]).fetchall()
    plain = [(table, _without_besides(row) if table == "runs" else row) for table, row in read]
    for table, row in plain:
        if not row.keys() <= columns[table].keys():
            raise KeyError(*(row.keys() - columns[table].keys()))
    for (table, names), rows in _grouped(columns, plain).items():
        types = {name: columns[table][name] for name in names}
        sql = _statement(table, types) + _conflict(table, types)
        con.execute(sql, ["\n".join(map(_encoded, rows)), structure(types)]).fetchall()
    for row in (row for table, row in read if table == "runs"):
        if row.get("steady"):
            mark_steady(con, row["run_id"])
        if "notes" in row:
            keep_notes(con, row["run_id"], row["notes"])
    con.execute("COMMIT").fetchall()


def _without_besides(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in BESIDES}


def keep_notes(con: duckdb.DuckDBPyConnection, run_id: str, notes: Iterable[Mapping[str, Any]]) -> None:
    """Store these notes on a run in place of those it has; the caller has begun a transaction."""
    con.execute("DELETE FROM notes WHERE run_id = $1", [run_id]).fetchall()
    for note in notes:
        row = [run_id, *(note[name] for name in ("kind", "share", "at_s", "text"))]
        con.execute("INSERT INTO notes VALUES ($1, $2, $3, $4, $5)", row).fetchall()


def _grouped(
    columns: Columns, chunk: list[tuple[str, dict[str, Any]]]
) -> dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]]:
    """Group rows by table and columns, with only the last of each key (DuckDB would keep the first)."""
    last: dict[tuple[str, tuple[object, ...]], dict[str, Any]] = {}
    for table, row in chunk:
        key = (table, tuple(row[name] for name in KEYS[table]))
        last[key] = {**last.get(key, {}), **row} if table in UPDATED else row
    groups: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = {}
    for (table, _), row in last.items():
        names = tuple(row) if table in UPDATED else tuple(columns[table])
        groups.setdefault((table, names), []).append(row)
    return groups


def structure(types: Mapping[str, str]) -> str:
    """Return a row's structure for ``READ_LINES``; JSON columns travel as text."""
    transport: dict[str, str | list[str]] = {
        name: [kind[:-2]] if kind.endswith("[]") else "VARCHAR" if kind == "JSON" else kind
        for name, kind in types.items()
    }
    return json.dumps(transport)


def _statement(table: str, types: Mapping[str, str]) -> str:
    names = ", ".join(f'"{name}"' for name in types)
    values = ", ".join(f'r."{name}"::{kind}' for name, kind in types.items())
    return f"INSERT INTO {table} ({names}) SELECT {values} FROM ({READ_LINES})"


def _conflict(table: str, types: Mapping[str, str]) -> str:
    """Return what a statement does with a row whose key the table has."""
    kept = (*KEYS[table], *FIXED.get(table, ()))
    changed = ", ".join(f'"{name}" = excluded."{name}"' for name in types if name not in kept)
    return f" ON CONFLICT ({', '.join(KEYS[table])}) DO {f'UPDATE SET {changed}' if changed else 'NOTHING'}"

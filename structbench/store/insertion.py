"""Inserting spooled rows into the open file.

Invariant: inserting the same rows twice has the same effect as once; little is held in memory at a time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from structbench.store.schema import FIXED, KEYS, UPDATED, Columns

if TYPE_CHECKING:
    import duckdb

CHUNK_ROWS = 1000
CHUNK_BYTES = 4_000_000
"""Limits of one chunk, whichever comes first: about 0.15 s of work, of which the statement takes 0.02 s."""

Rows = list[dict[str, Any]]
SpooledRow = tuple[str, dict[str, Any], int]
"""A table, a row and its size in bytes."""
Chunk = list[tuple[str, dict[str, Any]]]
"""Tables and rows, in the order in which they were appended."""


def insert(con: duckdb.DuckDBPyConnection, columns: Columns, rows: Iterator[SpooledRow], until: float = inf) -> bool:
    """Insert spooled rows, one transaction per chunk; return False if ``until`` (monotonic) came first."""
    while chunk := _next_chunk(rows):
        _insert_chunk(con, columns, chunk)
        if time.monotonic() >= until:
            return False
    return True


def _next_chunk(rows: Iterator[SpooledRow]) -> Chunk:
    chunk: Chunk = []
    size = 0
    for table, row, length in rows:
        chunk.append((table, row))
        size += length
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            break
    return chunk


def _insert_chunk(con: duckdb.DuckDBPyConnection, columns: Columns, chunk: Chunk) -> None:
    con.execute("BEGIN").fetchall()
    for (table, names), rows in _grouped(columns, chunk).items():
        types = {name: columns[table][name] for name in names}
        con.execute(_statement(table, types), [json.dumps(rows), _structure(types)]).fetchall()
    con.execute("COMMIT").fetchall()


def _grouped(columns: Columns, chunk: Chunk) -> dict[tuple[str, tuple[str, ...]], Rows]:
    """Group rows by table and columns, with only the last of each key (DuckDB would keep the first)."""
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
    """Return the rows' structure for from_json; JSON columns travel as text."""
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

"""The store's tables without a file: rows go in by INSERT, and queries come back as the store returns them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb

from structbench.store.schema import migrate

Row = dict[str, Any]


class Tables:
    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con

    def fill(self, **tables: Sequence[Mapping[str, Any]]) -> Tables:
        """Replace what is in ``runs``, ``segments``, ``requests`` by these rows."""
        for table in ("runs", "segments", "requests"):
            self.con.execute(f"DELETE FROM {table}").fetchall()
            self.put(table, *tables.get(table, ()))
        return self

    def put(self, table: str, *rows: Mapping[str, Any]) -> None:
        """Add rows; a column that one of them lacks is NULL in it."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        if names:
            values = ", ".join(f"unnest(${place})" for place in range(1, len(names) + 1))
            columns = [[row.get(name) for row in rows] for name in names]
            self.con.execute(f"INSERT INTO {table} ({', '.join(names)}) SELECT {values}", columns).fetchall()

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        found = self.con.execute(sql, list(params))
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def stored(row: Mapping[str, Any]) -> Row:
    """Return a row of ``row_of`` without its calls, which only the store writes as JSON."""
    return {name: value for name, value in row.items() if name != "tool_calls"}


@contextmanager
def tables() -> Iterator[Tables]:
    with duckdb.connect() as con:
        migrate(con, 0)
        yield Tables(con)

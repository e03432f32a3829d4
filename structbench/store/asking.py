"""Running SQL that users write.

Invariant: it can read this file and nothing else (no other file, no network, no environment, no Python variable),
change nothing, and not lift these limits.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structbench.errors import BadInput
from structbench.store.database import PATIENCE_S, sealed, usable

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The rows of a statement; ``more`` if there are others."""

    names: list[str]
    rows: list[tuple[Any, ...]]
    more: bool = False


def ask(path: Path, sql: str, limit: int | None = None) -> QueryResult:
    """Run one statement and return at most ``limit`` rows; raise BadInput that says where it is wrong."""
    import duckdb

    with ExitStack() as stack:
        with usable(path):
            con = stack.enter_context(sealed(path, PATIENCE_S))
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

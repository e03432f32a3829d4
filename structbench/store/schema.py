"""The versions of the schema, and the migration of older files.

Invariant: a released migration never changes: a test pins each by its hash. A new table or column is a new migration at
the end of MIGRATIONS. Views are not part of it: ``views.sql`` is today's text, for every file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from structbench import __version__
from structbench.formatting import json_object
from structbench.identity import canonical_json

if TYPE_CHECKING:
    import duckdb

Columns = dict[str, dict[str, str]]
"""Table -> column -> SQL type."""

KEYS: dict[str, tuple[str, ...]] = {
    "runs": ("run_id",),
    "segments": ("run_id", "segment"),
    "requests": ("run_id", "request_index"),
    "samples": ("run_id", "segment", "sampled_at"),
    "features": ("server_version", "server_address", "model", "model_digest", "probe"),
    "run_gaps": ("run_id",),
    "nodes": ("run_id", "segment", "node"),
    "lookups": ("looked_up_at", "config_hash"),
    "cases": ("suite_hash", "case_id"),
}
TABLES = (*KEYS, "notes", "old_scores", "migrations")
UPDATED = ("runs", "segments")
"""A second row with the same key changes the columns that it names; in the other tables it replaces the row."""
FIXED: dict[str, tuple[str, ...]] = {"runs": ("config_hash",)}
"""Indexed columns, which DuckDB cannot update: they keep the first row's value."""

FILE = "structbench_file"
"""What the open file is called in SQL."""

_COLUMNS = """
SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY table_name, column_index
"""
_HISTORY = """
CREATE TABLE IF NOT EXISTS migrations (
    version BIGINT PRIMARY KEY, name VARCHAR, applied_at TIMESTAMP, structbench_version VARCHAR
)
"""

_APPLIED = """
INSERT INTO migrations
SELECT unnest($1::BIGINT[]), unnest($2::VARCHAR[]), CAST(now() AT TIME ZONE 'UTC' AS TIMESTAMP), $3
"""

_STORED = """
SELECT config_hash, any_value(config), bool_or(suite = 'text' OR EXISTS (
    FROM requests WHERE requests.run_id = runs.run_id AND outcome = 'completed'
)) FROM runs WHERE config IS NOT NULL GROUP BY config_hash
"""

MIGRATIONS = (
    "0001-tables", "0002-views", "0003-identity", "0004-views", "0005-notes", "0006-client-lag", "0007-old-scores",
    "0008-steady", "0009-counts", "0010-away", "0011-prompts", "0012-machine", "0013-servers", "0014-limits",
    "0015-features", "0016-nodes", "0017-settled", "0018-cases", "0019-thinking",
    "0020-held", "0021-answered", "0022-possible",
)  # fmt: skip
"""The migrations, each an SQL file in ``migrations/``; the schema version is the number applied."""

KEPT = "tables.json"
"""What they end in; ``python -m tests.support.tables`` writes it anew."""


def sql_of(migration: str) -> str:
    """Return the SQL text of a migration."""
    return _text(f"migrations/{migration}.sql")


def views_sql() -> str:
    """Return the SQL text of all views, for a schema in which the tables can be named without more."""
    return _text("views.sql")


def _text(name: str) -> str:
    return (files("structbench.store") / name).read_text(encoding="utf-8")


@cache
def views() -> dict[str, str]:
    """Return the statement of each view by its name."""
    return {
        name: text for text, name in re.findall(r"^(CREATE OR REPLACE VIEW (\w+) AS\n.*?);$", views_sql(), re.M | re.S)
    }


@cache
def views_mark() -> str:
    """Return the comment that the view ``summary`` of a file carries, from which one sees what text made the views."""
    return f"views {hashlib.sha256(views_sql().encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Shape:
    """The tables of one version: the statement that makes each, their columns, and the statements of the indexes."""

    tables: Mapping[str, str]
    columns: Columns
    indexes: frozenset[str]


@cache
def shape(migrations: tuple[str, ...]) -> Shape:
    """Return the tables that these migrations make, in DuckDB's words.

    Those of all of them are kept in a file, as this DuckDB puts them: to make them takes 75 ms.
    """
    import duckdb

    if migrations == MIGRATIONS:
        kept = json.loads(_text(f"migrations/{KEPT}"))
        if (tuple(kept["migrations"]), kept["duckdb"]) == (migrations, duckdb.__version__):
            return Shape(kept["tables"], kept["columns"], frozenset(kept["indexes"]))
    return made(migrations)


def made(migrations: tuple[str, ...]) -> Shape:
    """Return the tables that these migrations make, by making them."""
    import duckdb

    columns: Columns = {}
    with duckdb.connect(config={"threads": "1"}) as con:
        con.execute(_HISTORY).fetchall()
        for name in migrations:
            if not name.endswith("-views"):
                _apply(con, name)
        tables = dict(con.execute("SELECT table_name, sql FROM duckdb_tables()").fetchall())
        indexes = frozenset(sql for (sql,) in con.execute("SELECT sql FROM duckdb_indexes()").fetchall())
        for table, column, sql_type in con.execute(_COLUMNS).fetchall():
            columns.setdefault(table, {})[column] = sql_type
    return Shape(tables, columns, indexes)


def migrate(con: duckdb.DuckDBPyConnection, version: int) -> None:
    """Migrate the open file from this version to today's and its views to today's, completely or not at all."""
    con.execute("BEGIN").fetchall()
    if version == 0:  # a new file gets the tables that the migrations end in, at a third of their cost
        today = shape(MIGRATIONS)
        made = [sql for table, sql in today.tables.items() if table != "migrations"]
        con.execute(";".join([_HISTORY, *made, *today.indexes])).fetchall()
    for migration in MIGRATIONS[version:] if version > 0 else ():
        _apply(con, migration)
    con.execute(_APPLIED, [[*range(version + 1, len(MIGRATIONS) + 1)], [*MIGRATIONS[version:]], __version__]).fetchall()
    con.execute(views_sql()).fetchall()
    con.execute(f"COMMENT ON VIEW summary IS '{views_mark()}'").fetchall()
    con.execute("COMMIT").fetchall()


def _apply(con: duckdb.DuckDBPyConnection, migration: str) -> None:
    if migration == "0003-identity":
        _prepare_identities(con)  # which SQL cannot compute
    con.execute(sql_of(migration)).fetchall()


def _prepare_identities(con: duckdb.DuckDBPyConnection) -> None:
    """Create the table ``identities`` (before, after, config): each stored hash and its replacement.

    Released, like the migration that uses it: the result for a stored config never changes.
    """
    con.execute("CREATE TEMP TABLE identities (before VARCHAR, after VARCHAR, config VARCHAR)").fetchall()
    for before, text, unscored in con.execute(_STORED).fetchall():
        config = without_amount(json_object(text), unscored=unscored)
        digest = hashlib.sha256(canonical_json(config).encode("utf-8", "surrogatepass")).hexdigest()
        row = [before, f"s1:{digest}", json.dumps(config)]
        con.execute("INSERT INTO identities VALUES ($1, $2, $3)", row).fetchall()


def without_amount(config: dict[str, Any], *, unscored: bool) -> dict[str, Any]:
    """Return the config without the requests and seconds asked for, and without a scorer if nothing is scored."""
    gone = ("requests", "scorer_version") if unscored else ("requests",)
    kept = {key: value for key, value in config.items() if key not in gone}
    load = config.get("load")
    return {**kept, "load": {k: v for k, v in load.items() if k != "duration_s"}} if isinstance(load, dict) else kept

"""The versions of the schema, and the migration of older files.

Invariant: a released migration never changes: a test pins each by its hash. A new table or column is a new migration at
the end of MIGRATIONS. Views are not part of it: ``views.sql`` is today's text, for every file.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from structbench import __version__
from structbench.errors import BadInput
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
    "features": ("server_version", "model", "model_digest", "probe"),
    "run_gaps": ("run_id",),
    "lookups": ("looked_up_at", "config_hash"),
}
TABLES = (*KEYS, "notes", "migrations")
UPDATED = ("runs", "segments")
"""A second row with the same key changes the columns that it names; in the other tables it replaces the row."""
FIXED: dict[str, tuple[str, ...]] = {"runs": ("config_hash",)}
"""Indexed columns, which DuckDB cannot update: they keep the first row's value."""

FILE = "structbench_file"
"""What the open file is called in SQL."""
_IN_FILE = f"""database_name = coalesce(
    (SELECT any_value(database_name) FROM duckdb_databases() WHERE database_name = '{FILE}'), current_database()
)"""

_HISTORY = """
CREATE TABLE IF NOT EXISTS migrations (
    version BIGINT PRIMARY KEY, name VARCHAR, applied_at TIMESTAMP, structbench_version VARCHAR
)
"""

_STORED = """
SELECT config_hash, any_value(config), bool_or(suite = 'text' OR EXISTS (
    FROM requests WHERE requests.run_id = runs.run_id AND outcome = 'completed'
)) FROM runs WHERE config IS NOT NULL GROUP BY config_hash
"""

MIGRATIONS = ("0001-tables", "0002-views", "0003-identity", "0004-views", "0005-notes")
"""The migrations, each an SQL file in ``migrations/``; the schema version is the number applied."""


def sql_of(migration: str) -> str:
    """Return the SQL text of a migration."""
    return (files("structbench.store") / "migrations" / f"{migration}.sql").read_text(encoding="utf-8")


def views_sql() -> str:
    """Return the SQL text of all views, for a schema in which the tables can be named without more."""
    return (files("structbench.store") / "views.sql").read_text(encoding="utf-8")


@cache
def views() -> dict[str, str]:
    """Return the statement of each view by its name."""
    return {
        name: text for text, name in re.findall(r"^(CREATE OR REPLACE VIEW (\w+) AS\n.*?);$", views_sql(), re.M | re.S)
    }


def has_todays_views(con: duckdb.DuckDBPyConnection) -> bool:
    """Return whether the views in the open file are those of ``views.sql``."""
    found = con.execute(f"SELECT comment FROM duckdb_views() WHERE view_name = 'summary' AND {_IN_FILE}").fetchall()
    return found == [(_views_mark(),)]


def _views_mark() -> str:
    """Return the comment that the view ``summary`` of a file carries, from which one sees what text made the views."""
    return f"views {hashlib.sha256(views_sql().encode()).hexdigest()}"


def version_of(con: duckdb.DuckDBPyConnection, path: object) -> int:
    """Return the schema version of the open file, 0 without our tables; raise BadInput if it is not ours."""
    columns = columns_of(con)
    history = columns.get("migrations")
    if history is None:
        foreign = sorted(set(columns) & set(KEYS))
        if foreign:
            raise BadInput(f"{path} has a table {foreign[0]!r} that structbench did not make: give another --db")
        return 0
    if not {"version", "structbench_version"} <= set(history):
        raise BadInput(f"{path} has a table 'migrations' that structbench did not make: give another --db")
    row = con.execute("SELECT max(version), max_by(structbench_version, version) FROM migrations").fetchall()[0]
    version, writer = row[0] if row[0] is not None else 0, row[1]
    if version > len(MIGRATIONS):
        raise BadInput(
            f"{path} was written by structbench {writer} (schema {version}; this is {__version__}, schema "
            f"{len(MIGRATIONS)}): upgrade structbench or give another --db"
        )
    return int(version)


def migrate(con: duckdb.DuckDBPyConnection, path: object) -> None:
    """Migrate the open file to the current version and to today's views, completely or not at all."""
    con.execute("BEGIN").fetchall()
    for number in range(version_of(con, path) + 1, len(MIGRATIONS) + 1):
        name = MIGRATIONS[number - 1]
        con.execute(_HISTORY).fetchall()
        if name == "0003-identity":
            _prepare_identities(con)  # which SQL cannot compute
        con.execute(sql_of(name)).fetchall()
        con.execute(
            "INSERT INTO migrations VALUES ($1, $2, CAST(now() AT TIME ZONE 'UTC' AS TIMESTAMP), $3)",
            [number, name, __version__],
        ).fetchall()
    con.execute(views_sql()).fetchall()
    con.execute(f"COMMENT ON VIEW summary IS '{_views_mark()}'").fetchall()
    con.execute("COMMIT").fetchall()


def _prepare_identities(con: duckdb.DuckDBPyConnection) -> None:
    """Create the table ``identities`` (before, after, config): each stored hash and its replacement.

    Released, like the migration that uses it: the result for a stored config never changes.
    """
    con.execute("CREATE TEMP TABLE identities (before VARCHAR, after VARCHAR, config VARCHAR)").fetchall()
    for before, text, unscored in con.execute(_STORED).fetchall():
        config = without_amount(json.loads(text), unscored=unscored)
        digest = hashlib.sha256(canonical_json(config).encode("utf-8", "surrogatepass")).hexdigest()
        row = [before, f"s1:{digest}", json.dumps(config)]
        con.execute("INSERT INTO identities VALUES ($1, $2, $3)", row).fetchall()


def without_amount(config: dict[str, Any], *, unscored: bool) -> dict[str, Any]:
    """Return the config without the requests and seconds asked for, and without a scorer if nothing is scored."""
    gone = ("requests", "scorer_version") if unscored else ("requests",)
    kept = {key: value for key, value in config.items() if key not in gone}
    load = config.get("load")
    return {**kept, "load": {k: v for k, v in load.items() if k != "duration_s"}} if isinstance(load, dict) else kept


def columns_of(con: duckdb.DuckDBPyConnection) -> Columns:
    """Return the columns and types of the open file's tables."""
    columns: Columns = {}
    found = con.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns()"
        f" WHERE {_IN_FILE} AND NOT internal AND table_oid IN"
        f" (SELECT table_oid FROM duckdb_tables() WHERE {_IN_FILE})"
        " ORDER BY table_name, column_index"
    ).fetchall()
    for table, column, sql_type in found:
        columns.setdefault(table, {})[column] = sql_type
    return columns

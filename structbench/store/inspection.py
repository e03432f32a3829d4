"""Whether a file is one of ours: asked before anything of it is read, since anybody may have made it.

Invariant: it is asked from outside the file, where no name of the file's can stand in for one of DuckDB's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from structbench import __version__
from structbench.errors import BadInput
from structbench.formatting import printable
from structbench.store.schema import FILE, MIGRATIONS, TABLES, shape, views, views_mark

if TYPE_CHECKING:
    import duckdb

_OURS = f"database_name = '{FILE}' AND schema_name = 'main'"
_WRITER = f"SELECT max(version), max_by(structbench_version, version) FROM {FILE}.main.migrations"
_BUILT_IN = "SELECT lower(function_name) FROM duckdb_functions() WHERE internal"
_TYPES = "SELECT lower(type_name) FROM (FROM duckdb_types() WHERE NOT internal)"
_BUILT_IN_TYPES = "SELECT lower(type_name) FROM duckdb_types() WHERE internal"
_ELSEWHERE = re.compile(
    r"\b(FROM|JOIN)[\s(]*(['\"]|(?!(unnest|values|select)\b)\w+\s*\()"
    r"|\b(read_\w+|\w+_scan|glob|sniff_\w+|parquet_\w+|getenv|query|query_table)\s*\(",
    re.IGNORECASE,
)
"""What no view of ours ever read: files, functions that return tables, the environment."""

_OF_COLUMNS = re.compile(r"""[^()]* ON "?\w+"?\(["\w, ]+\);""")


def version_of(con: duckdb.DuckDBPyConnection, path: object) -> int:
    """Return the schema version of the attached file, 0 without our tables; raise BadInput if it is not ours.

    Not ours is a table that is not to the letter the one we make (a default, a check or a generated column computes
    something), a trigger on one of them, and a view, a macro or a type in the place of a name that we use.
    """
    foreign = f"{path} has {{}} that structbench did not make: give another --db"
    if (what := _in_the_way(con)) is not None:
        raise BadInput(foreign.format(what))
    tables = {name: sql for name, sql in _found(con, "SELECT table_name, sql FROM duckdb_tables()") if name in TABLES}
    if not tables:
        return 0
    if tables.get("migrations") != shape(MIGRATIONS).tables["migrations"]:
        name = "migrations" if "migrations" in tables else min(tables)
        raise BadInput(foreign.format(f"a table {name!r}"))
    version, writer = con.execute(_WRITER).fetchall()[0]
    if version is not None and version > len(MIGRATIONS):
        raise BadInput(
            f"{path} was written by structbench {printable(str(writer))} (schema {version}; this is {__version__}, "
            f"schema {len(MIGRATIONS)}): upgrade structbench or give another --db"
        )
    expected = shape(MIGRATIONS[: max(0, version or 0)])
    for name in TABLES:
        if tables.get(name) != expected.tables.get(name):
            raise BadInput(foreign.format(f"a table {name!r}" if name in tables else f"no table {name!r}, but others"))
    for name, sql in _found(con, "SELECT index_name, sql FROM duckdb_indexes()"):
        if not _OF_COLUMNS.fullmatch(sql):
            raise BadInput(foreign.format(f"an index {name!r} on an expression"))
    return max(0, version or 0)


def _in_the_way(con: duckdb.DuckDBPyConnection) -> str | None:
    """Return what stands in the place of a name that we use, or is done when a table of ours changes."""
    import duckdb

    for name, sql in _found(con, "SELECT lower(view_name), sql FROM duckdb_views()"):
        if name in TABLES or (name in views() and _ELSEWHERE.search(sql)):
            return f"a view {name!r}"
    macros = {name for (name,) in _found(con, "SELECT lower(function_name) FROM duckdb_functions()")}
    if macros and (used := macros & {*TABLES, *views(), *(name for (name,) in con.execute(_BUILT_IN).fetchall())}):
        return f"a macro {min(used)!r}"
    types = {name for (name,) in _found(con, _TYPES)}
    if types and (used := types & {name for (name,) in con.execute(_BUILT_IN_TYPES).fetchall()}):
        return f"a type {min(used)!r}"  # of an extension, as JSON is: a file may put another in its place
    if not duckdb.__version__.startswith("1."):
        for name, table in _found(con, "SELECT trigger_name, lower(table_name) FROM duckdb_triggers()"):
            if table in TABLES:
                return f"a trigger {name!r} on {table}"
    return None


def has_todays_views(con: duckdb.DuckDBPyConnection) -> bool:
    """Return whether the views in the attached file are those of ``views.sql``."""
    return ("summary", views_mark()) in _found(con, "SELECT view_name, comment FROM duckdb_views()")


def _found(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[str, ...]]:
    return con.execute(f"{sql} WHERE {_OURS}").fetchall()

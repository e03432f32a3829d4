"""Replacing the scores of one stored run by those of another scorer, in one transaction; the old ones are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from structbench.store.database import PATIENCE_S, Database
from structbench.store.rows import SCORE_COLUMNS, storable
from structbench.store.schema import MIGRATIONS, shape
from structbench.store.spool import CHUNK_ROWS, READ_LINES, structure
from structbench.store.upkeep import changing, transaction

_REPLACED = ("error_kind", "outcome", *SCORE_COLUMNS)
_KEEP = f"""
INSERT INTO old_scores BY NAME
SELECT run_id, request_index, $2 AS scorer_version, config_hash,
    CAST(now() AT TIME ZONE 'UTC' AS TIMESTAMP) AS rescored_at, {", ".join(_REPLACED)}
FROM requests WHERE run_id = $1
ON CONFLICT DO NOTHING
"""
_REPLACE = f"""
UPDATE requests SET config_hash = $2, {", ".join(f"{name} = new_scores.{name}" for name in _REPLACED)}
FROM new_scores WHERE requests.run_id = $1 AND requests.request_index = new_scores.request_index
"""
_AS_SCORED = """
SELECT 1 FROM runs WHERE run_id = $1 AND config_hash = $2 AND status <> 'running'
    AND (SELECT count(*) FROM requests WHERE requests.run_id = $1) = $3
"""


def replace_scores(
    database: Database,
    run_id: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    scorer_version: int,
    before: str,
    after: str,
    config: Mapping[str, Any],
    patience_s: float = PATIENCE_S,
) -> bool:
    """Replace ``error_kind``, ``outcome`` and scores of all requests of a run, and its identity, or nothing.

    ``rows`` are all its requests by ``request_index``; ``scorer_version`` and ``before`` are the old scores' and the
    run's config hash, ``after`` and ``config`` the new identity. Returns False if the run has changed meanwhile.
    """
    with changing(database, patience_s) as con, transaction(con):
        if not con.execute(_AS_SCORED, [run_id, before, len(rows)]).fetchall():
            return False
        types = {name: shape(MIGRATIONS).columns["requests"][name] for name in ("request_index", *_REPLACED)}
        made = ", ".join(f"{name} {kind}" for name, kind in types.items())
        con.execute(f"CREATE OR REPLACE TEMP TABLE new_scores ({made})").fetchall()
        for start in range(0, len(rows), CHUNK_ROWS):
            part = rows[start : start + CHUNK_ROWS]
            written = [{name: storable(row[name], name, kind) for name, kind in types.items()} for row in part]
            lines = "\n".join(map(json.dumps, written))
            con.execute(f"INSERT INTO new_scores SELECT r.* FROM ({READ_LINES})", [lines, structure(types)]).fetchall()
        con.execute(_KEEP, [run_id, scorer_version]).fetchall()
        con.execute(_REPLACE, [run_id, after]).fetchall()
        con.execute("DROP INDEX runs_by_config").fetchall()  # DuckDB cannot update a column that is indexed
        con.execute(
            "UPDATE runs SET config_hash = $2, config = $3 WHERE run_id = $1", [run_id, after, json.dumps(config)]
        ).fetchall()
        con.execute("CREATE INDEX runs_by_config ON runs (config_hash)").fetchall()
        con.execute("DROP TABLE temp.new_scores").fetchall()
    return True

"""Which work is already done: runs of a config, and the stored config nearest to a new one.

Invariant: pure SQL on an open read-only connection; the request indices are fetched for partial runs only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from structbench.identity import canonical_json, differences

if TYPE_CHECKING:
    import duckdb

SENT_AGAIN = ("cancelled", "connect", "worker_died")
"""Error kinds after which a continued run sends the request again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the store knows of one config: its newest complete run, else the newest to continue, else one under way."""

    run_id: str
    status: Literal["complete", "partial", "running"]
    planned: int | None
    done: frozenset[int] = frozenset()
    """Partial runs: the request indices that need not be sent again."""
    errors: int = 0
    """Partial runs: how many of these failed."""
    next_segment: int
    label: str | None
    started_at: datetime | None


_RUNS = """
SELECT config_hash, run_id, status, planned, label, owner, started_at,
    (SELECT max(segment) FROM segments WHERE segments.run_id = runs.run_id) AS segment
FROM runs WHERE config_hash IN (SELECT unnest($1::VARCHAR[])) AND forgotten IS NOT true
ORDER BY started_at DESC NULLS LAST, run_id DESC
"""
_RANK = {"complete": 0, "partial": 1, "running": 2}


def find_runs(
    con: duckdb.DuckDBPyConnection, config_hashes: Sequence[str], is_alive: Callable[[str | None], bool]
) -> dict[str, Found]:
    """For each hash that has one: the run to use."""
    found: dict[str, Found] = {}
    for config_hash, run_id, status, planned, label, owner, started_at, segment in con.execute(
        _RUNS, [list(config_hashes)]
    ).fetchall():
        kind: Literal["complete", "partial", "running"] = (
            "complete" if status == "complete" else "running" if status == "running" and is_alive(owner) else "partial"
        )
        before = found.get(config_hash)
        if before is None or _RANK[kind] < _RANK[before.status]:
            found[config_hash] = Found(
                run_id=run_id,
                status=kind,
                planned=planned,
                next_segment=0 if segment is None else segment + 1,
                label=label,
                started_at=started_at,
            )
    return {key: _with_done(con, run) for key, run in found.items()}


def _with_done(con: duckdb.DuckDBPyConnection, run: Found) -> Found:
    if run.status != "partial":
        return run
    rows = con.execute(
        "SELECT request_index, error_kind FROM requests WHERE run_id = $1"
        " AND (error_kind IS NULL OR error_kind NOT IN (SELECT unnest($2::VARCHAR[])))",
        [run.run_id, list(SENT_AGAIN)],
    ).fetchall()
    failed = sum(kind is not None for _, kind in rows)
    return replace(run, done=frozenset(index for index, _ in rows), errors=failed)


def is_free(con: duckdb.DuckDBPyConnection, run_id: str, is_alive: Callable[[str | None], bool]) -> bool:
    """Whether a run is neither complete nor under way in a process that lives."""
    rows = con.execute("SELECT status, owner FROM runs WHERE run_id = $1", [run_id]).fetchall()
    return any(status != "complete" and not (status == "running" and is_alive(owner)) for status, owner in rows)


def nearest_config(con: duckdb.DuckDBPyConnection, config: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """The stored config of the same suite and model with the fewest fields that differ, the load counting most."""
    rows = con.execute(
        "SELECT any_value(config), max_by(run_id, started_at) FROM runs"
        " WHERE suite = $1 AND model = $2 AND config IS NOT NULL"
        " GROUP BY config_hash ORDER BY max(started_at) DESC LIMIT 500",
        [config["suite"], config["model"]],
    ).fetchall()
    stored = [(json.loads(text), run_id) for text, run_id in rows]
    load = canonical_json(config["load"])
    return min(
        stored,
        key=lambda item: (canonical_json(item[0].get("load")) != load, len(differences(item[0], config))),
        default=None,
    )

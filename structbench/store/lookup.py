"""Finding work that is already done: runs of a config, and the stored config nearest to a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from structbench.formatting import json_object
from structbench.identity import canonical_json, differences
from structbench.metrics import FAILED

if TYPE_CHECKING:
    import duckdb

SENT_AGAIN = ("cancelled", "connect", "worker_died", "node_died")
"""Error kinds after which a continued run sends the request again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """The run to use for one config: its largest complete one, else the newest to continue, else one still running."""

    run_id: str
    status: Literal["complete", "partial", "running"]
    requests: int = 0
    """How many requests it has, completed or failed."""
    asked_requests: int | None = None
    asked_duration_s: float | None = None
    done: frozenset[int] = frozenset()
    """Indices of requests that need not be sent again."""
    is_invalid: bool = False
    """Whether its measurement was judged invalid."""
    ended: bool = False
    """Whether it came to its end, also where that leaves something to be sent again: then it is partial."""
    lost: frozenset[int] = frozenset()
    """Indices of requests that have a row and are to be sent again."""
    errors: int = 0
    """How many requests in ``done`` failed."""
    next_segment: int
    label: str | None
    started_at: datetime | None

    @property
    def rank(self) -> tuple[int, int]:
        """Complete runs come first, the largest before smaller ones; among equal ranks the newest is to be used."""
        return _RANK[self.status], -self.requests if self.status == "complete" else 0

    @property
    def held(self) -> int:
        """Requests that a complete run was for, including second turns that never arose and so have no row."""
        all_asked = self.asked_duration_s is None and self.asked_requests is not None
        return self.asked_requests if all_asked and self.asked_requests is not None else self.requests


_RUNS = f"""
WITH asked AS (FROM runs WHERE config_hash IN (SELECT unnest($1::VARCHAR[])) AND forgotten IS NOT true)
SELECT config_hash, run_id, status, label, owner, started_at, asked_requests, asked_duration_s,
    (SELECT max(segment) FROM segments WHERE segments.run_id = asked.run_id) AS segment,
    requests, lost, answered, coalesce(verdict = 'invalid', false) AS is_invalid
FROM asked LEFT JOIN (
    SELECT run_id, count(*) AS requests, count(*) FILTER (error_kind IN (SELECT unnest($2::VARCHAR[]))) AS lost,
        count(*) FILTER (NOT {FAILED} AND error_kind IS DISTINCT FROM 'cancelled') AS answered
    FROM requests WHERE run_id IN (SELECT run_id FROM asked) GROUP BY run_id
) USING (run_id)
ORDER BY started_at DESC NULLS LAST, run_id DESC
"""
_DONE = f"""
SELECT run_id, coalesce(list(request_index) FILTER (NOT again), []), count(*) FILTER (NOT again AND {FAILED}),
    coalesce(list(request_index) FILTER (again), [])
FROM (
    SELECT *, coalesce(error_kind IN (SELECT unnest($2::VARCHAR[])), false) AS again FROM requests
    WHERE run_id IN (SELECT unnest($1::VARCHAR[]))
)
GROUP BY run_id
"""
_RANK = {"complete": 0, "partial": 1, "running": 2}


def find_runs(
    con: duckdb.DuckDBPyConnection, config_hashes: Sequence[str], is_alive: Callable[[str | None], bool]
) -> dict[str, StoredRun]:
    """Return the run to use for each hash that has one.

    A run that ended with requests to be sent again, or of which none was answered, is a partial one.
    """
    found: dict[str, StoredRun] = {}
    rows = con.execute(_RUNS, [list(config_hashes), list(SENT_AGAIN)]).fetchall()
    for config_hash, run_id, status, label, owner, started_at, asked, asked_s, segment, n, lost, answered, bad in rows:
        ended, whole = status == "complete", not lost and (answered or not n)
        kind: Literal["complete", "partial", "running"] = (
            "complete" if ended and whole else "running" if status == "running" and is_alive(owner) else "partial"
        )
        run = StoredRun(
            run_id=run_id, status=kind, requests=n or 0, asked_requests=asked, asked_duration_s=asked_s,
            next_segment=0 if segment is None else segment + 1, label=label, started_at=started_at,
            ended=ended and bool(whole or answered), is_invalid=bad,
        )  # fmt: skip
        before = found.get(config_hash)
        if before is None or run.rank < before.rank:
            found[config_hash] = run
    done = con.execute(_DONE, [[run.run_id for run in found.values()], list(SENT_AGAIN)]).fetchall()
    known = {run_id: (frozenset(indices), failed, frozenset(lost)) for run_id, indices, failed, lost in done}
    none = frozenset[int](), 0, frozenset[int]()
    return {key: _with_done(run, *known.get(run.run_id, none)) for key, run in found.items()}


def _with_done(run: StoredRun, indices: frozenset[int], failed: int, lost: frozenset[int]) -> StoredRun:
    if run.status == "partial" and run.requests and len(indices) == failed:
        return replace(run, done=frozenset(), errors=0, lost=indices | lost)  # nothing was answered
    whole = range(run.held) if run.ended and run.asked_duration_s is None else ()
    return replace(run, done=(indices | {*whole}) - lost, errors=failed, lost=lost)


def is_free(con: duckdb.DuckDBPyConnection, run: StoredRun, is_alive: Callable[[str | None], bool]) -> bool:
    """Return whether a run is still as it was found, and not being run by a living process."""
    sql = "SELECT status, owner, (SELECT count(*) FROM requests WHERE run_id = $1) FROM runs WHERE run_id = $1"
    rows = con.execute(sql, [run.run_id]).fetchall()
    return any(
        requests == run.requests
        and not (status == "complete" and not run.ended and not run.lost and run.status != "complete")
        and not (status == "running" and is_alive(owner))
        for status, owner, requests in rows
    )


def nearest_config(con: duckdb.DuckDBPyConnection, config: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """Return the stored config of the same suite and model with the fewest differences, load first."""
    rows = con.execute(
        "SELECT any_value(config), max_by(run_id, started_at) FROM runs"
        " WHERE suite = $1 AND model = $2 AND config IS NOT NULL"
        " GROUP BY config_hash ORDER BY max(started_at) DESC LIMIT 500",
        [config["suite"], config["model"]],
    ).fetchall()
    stored = [(json_object(text), run_id) for text, run_id in rows]
    load = canonical_json(config["load"])
    return min(
        stored,
        key=lambda item: (canonical_json(item[0].get("load")) != load, len(differences(item[0], config))),
        default=None,
    )

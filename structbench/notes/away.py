"""A note on a server that was away amid a run, as while it is restarted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadgen.types import NO_UPSTREAM
from structbench.formatting import plural
from structbench.notes.judge import Judge, Row
from structbench.types import Note

_FEWEST = 3
"""Requests in a row that found nobody, below which an open loop's server was not away."""
_FULL = "busy|queue|overload"
"""In what servers say with status 503 that are there, and full."""


def _away(rows: Sequence[Row]) -> Iterator[Note]:
    pauses = [(row["at_s"], row["away_s"]) for row in rows if row["away_s"] is not None]
    if not pauses:
        return
    failed = sum(row["failed"] for row in rows)
    lost = f"the {plural(failed, 'request')} due then failed" if failed else "the load waited, and figures leave it out"
    times = "" if len(pauses) == 1 else f" {len(pauses)} times, in all"
    yield Note(
        kind="server_away", at_s=pauses[0][0], share=failed / rows[0]["requests"] if failed else None,
        text=f"the server was away{times} for {sum(away_s for _, away_s in pauses):.1f} s, first {pauses[0][0]:.1f} s "
             f"after the start: {lost}",
    )  # fmt: skip


SERVER_AWAY = Judge(
    f"""
    WITH asked AS (
        SELECT segment, coalesce(due_ns, sent_ns) AS at_ns, coalesce(end_ns, at_ns) AS until_ns,
            coalesce(error_kind = 'connect' OR (error_kind = 'timeout' AND starts_with(error_message, 'connect:'))
                OR (error_kind = 'http' AND error_status IN {NO_UPSTREAM}
                    AND NOT regexp_matches(coalesce(error_message, ''), '{_FULL}', 'i')), false) AS lost
        FROM requests WHERE run_id = $1 AND coalesce(due_ns, sent_ns) IS NOT NULL
    ), parts AS (
        SELECT segment, min(at_ns) AS from_ns, (max(until_ns) - min(at_ns)) / 1e9 AS spent_s FROM asked GROUP BY segment
    ), stretches AS (
        SELECT *, coalesce(sum(spent_s) OVER (
            ORDER BY segment ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before_s
        FROM (SELECT segment, away_s FROM segments WHERE run_id = $1) LEFT JOIN parts USING (segment)
    ), islands AS (
        SELECT segment, min(at_ns) AS gone_ns, max(coalesce(next_ns, until_ns)) AS back_ns, count(*) AS failed FROM (
            SELECT *, lead(at_ns) OVER (PARTITION BY segment ORDER BY at_ns) AS next_ns,
                row_number() OVER (PARTITION BY segment ORDER BY at_ns)
                - row_number() OVER (PARTITION BY segment, lost ORDER BY at_ns) AS island
            FROM asked
        ) WHERE lost GROUP BY segment, island HAVING count(*) >= {_FEWEST}
    )
    SELECT before_s AS at_s, away_s, 0 AS failed, NULL AS requests FROM stretches WHERE away_s IS NOT NULL
    UNION ALL
    SELECT before_s + (gone_ns - from_ns) / 1e9, (back_ns - gone_ns) / 1e9, failed, (SELECT count(*) FROM asked)
    FROM islands JOIN stretches USING (segment)
    WHERE (SELECT load_kind FROM runs WHERE run_id = $1) = 'open'
    ORDER BY 1
    """,
    _away,
)

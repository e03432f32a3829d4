"""What a judge of notes is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from structbench.types import Note

Row = Mapping[str, Any]

PLACED = """
span AS (
    SELECT segment, min(coalesce(due_ns, sent_ns)) AS first_ns, max(coalesce(end_ns, due_ns, sent_ns)) AS last_ns
    FROM requests WHERE run_id = $1 GROUP BY segment
), origin AS (
    SELECT segment, first_ns - coalesce(sum(last_ns - first_ns) OVER (
        ORDER BY segment ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS origin_ns FROM span
), placed AS (
    SELECT requests.*, (coalesce(due_ns, sent_ns) - origin_ns) / 1e9 AS at_s, (end_ns - origin_ns) / 1e9 AS ended_s
    FROM requests JOIN origin USING (segment) WHERE run_id = $1
)
"""
"""SQL for WITH: ``placed``, the run's requests with the seconds from its start to when each was asked for, and ended.

Segments of a run that went on are placed as if there were no pause between them.
"""


class Judge(NamedTuple):
    """``sql`` selects what is judged of the run ``$1``; ``notes`` yields notes on it, at most one of a kind."""

    sql: str
    notes: Callable[[Sequence[Row]], Iterable[Note]]

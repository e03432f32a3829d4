"""Notes on a closed loop that was never as full as asked for: its figures are those of a lighter load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.notes.judge import Judge, Row
from structbench.types import Note
from structbench.verdict import FREE_NS

KIND = "load_not_reached"


def _not_reached(rows: Sequence[Row]) -> Iterator[Note]:
    for row in rows:
        most, asked = row["most"], row["concurrency"]
        if most is not None and asked is not None and 0 < most < asked:
            yield Note(
                KIND, f"at most {most:,} of {asked:,} requests were in flight, so the figures are of a lighter load: "
                f"give --requests {4 * asked} or more", share=most / asked,
            )  # fmt: skip


REACHED = Judge(
    f"""
    WITH steps AS (
        SELECT segment, sent_ns AS at_ns, 1 AS step FROM requests WHERE run_id = $1 AND sent_ns IS NOT NULL
        UNION ALL
        SELECT segment, {FREE_NS}, -1 FROM requests WHERE run_id = $1 AND sent_ns IS NOT NULL AND end_ns IS NOT NULL
    ), running AS (
        SELECT sum(step) OVER (PARTITION BY segment ORDER BY at_ns, step) AS in_flight FROM steps
    )
    SELECT concurrency, (SELECT max(in_flight)::BIGINT FROM running) AS most
    FROM runs WHERE run_id = $1 AND load_kind = 'closed'
        AND coalesce((SELECT count(*) FROM requests WHERE run_id = $1) >= planned, true)
    """,
    _not_reached,
)
"""Segments are apart, since each fills up anew; a run without all its requests has not come to its end."""

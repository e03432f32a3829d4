"""A note on requests that waited for the server to load the model, although it was loaded before the load began."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from structbench.formatting import plural, seconds_text
from structbench.notes.judge import PLACED, Judge, Row
from structbench.types import Note

_NOISE_S = 0.1
"""Servers report so many seconds of loading for a model that is loaded."""
_ABOVE_NOISE = 5
_CERTAIN_S = 0.25
"""Seconds that are a load whatever the other requests report."""


def _reload(rows: Sequence[Row]) -> Iterator[Note]:
    if not rows:
        return
    noise_s = min(rows[0]["usual_s"] * _ABOVE_NOISE, _CERTAIN_S)
    loads = [row for row in rows if row["load_s"] >= max(_NOISE_S, noise_s)]
    if loads:
        told = rows[0]["told"]
        yield Note(
            "reload", f"{loads and len(loads):,} of {plural(told, 'request')} made the server load the model again "
            f"({seconds_text(median(row['load_s'] for row in loads))} at the median, first after "
            f"{seconds_text(loads[0]['at_s'])}): their TTFT includes it, and others may have waited",
            len(loads) / told, loads[0]["at_s"],
        )  # fmt: skip


RELOAD = Judge(
    f"""
    WITH {PLACED}, told AS (
        SELECT load_s, at_s, count(*) OVER () AS told, quantile_cont(load_s, 0.1) OVER () AS usual_s
        FROM placed WHERE load_s IS NOT NULL
    )
    SELECT * FROM told WHERE load_s >= {_NOISE_S} ORDER BY at_s
    """,
    _reload,
)

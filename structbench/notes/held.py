"""A note on a server that ends its answers late: a stream of a closed loop cannot send the next request before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.formatting import plural, seconds_text
from structbench.notes.judge import Judge, Row
from structbench.types import Note

_LONG_S = 0.005
"""Seconds between the last message and the body's end that are no accident."""
_MATERIAL = 0.05
"""The share of the time that a stream was taken from which on they are worth a word."""


def _held(rows: Sequence[Row]) -> Iterator[Note]:
    (row,) = rows
    if row["held"] and row["held_s"] >= _MATERIAL * row["taken_s"]:
        yield Note(
            "held_after_answer", f"the body of {row['held']:,} of {plural(row['completed'], 'completed answer')} ended "
            f"{seconds_text(row['median_s'])} (median) after the last message: the server held the connection, "
            "which no latency includes and, in a closed loop, makes requests/s lower", row["held"] / row["completed"],
        )  # fmt: skip


HELD = Judge(
    f"""
    SELECT count(*) AS completed, sum((end_ns - sent_ns) / 1e9 + coalesce(held_s, 0)) AS taken_s,
        count(*) FILTER (WHERE held_s >= {_LONG_S}) AS held, sum(held_s) FILTER (WHERE held_s >= {_LONG_S}) AS held_s,
        median(held_s) FILTER (WHERE held_s >= {_LONG_S}) AS median_s
    FROM requests WHERE run_id = $1 AND error_kind IS NULL
    """,
    _held,
)

"""Notes on the part of a run that figures leave out: an opening wave, or that there was no steady part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.formatting import plural, seconds_text
from structbench.notes.judge import Judge, Row
from structbench.types import Note

_MATERIAL = 1.25
"""The ratio of TTFT in the opening and after it from which on the difference is worth a word."""
_UNUSUAL = 0.25
"""The share of the opening that must lie beyond the 5th or the 95th percentile of the steady part."""
_FEWEST = 4


def _opening(rows: Sequence[Row]) -> Iterator[Note]:
    (row,) = rows
    if row["steady"] is None:
        if row["completed"] and row["load_kind"] is not None and row["concurrency"] != 1:
            are = "is" if row["requests"] == 1 else "are"
            yield Note(
                "no_steady_part", f"{plural(row['requests'], 'request')} {are} too few for a steady part: figures "
                "include what was sent while the load began",
            )  # fmt: skip
        return
    unusual = max(row["above"], row["below"]) >= max(_FEWEST, _UNUSUAL * row["opening"])
    word = "p95" if row["above"] >= row["below"] else "p50"
    before, after = row[f"opening_{word}"], row[f"steady_{word}"]
    if unusual and not 1 / _MATERIAL < before / after < _MATERIAL:
        yield Note(
            "opening_wave", f"{plural(row['opening'], 'request')} sent while the load began had TTFT {word} "
            f"{seconds_text(before)}, the {row['steady']:,} steady ones {seconds_text(after)}: latencies and rates are "
            "of these", row["opening"] / row["requests"],
        )  # fmt: skip


OPENING = Judge(
    """
    WITH usual AS (
        SELECT quantile_cont(ttft_s, [0.05, 0.5, 0.95]) AS q FROM requests
        WHERE run_id = $1 AND error_kind IS NULL AND steady
    )
    SELECT count(*) AS requests, count(*) FILTER (WHERE error_kind IS NULL) AS completed,
        any_value((SELECT concurrency FROM runs WHERE run_id = $1 AND load_kind = 'closed')) AS concurrency,
        any_value((SELECT load_kind FROM runs WHERE run_id = $1)) AS load_kind,
        CASE WHEN count(steady) > 0 THEN count(*) FILTER (WHERE steady) END AS steady,
        count(*) FILTER (WHERE NOT steady) AS opening, any_value(q[2]) AS steady_p50, any_value(q[3]) AS steady_p95,
        quantile_cont(ttft_s, 0.5) FILTER (WHERE error_kind IS NULL AND NOT steady) AS opening_p50,
        quantile_cont(ttft_s, 0.95) FILTER (WHERE error_kind IS NULL AND NOT steady) AS opening_p95,
        count(*) FILTER (WHERE error_kind IS NULL AND NOT steady AND ttft_s > q[3]) AS above,
        count(*) FILTER (WHERE error_kind IS NULL AND NOT steady AND ttft_s < q[1]) AS below
    FROM requests LEFT JOIN usual ON true WHERE run_id = $1
    """,
    _opening,
)

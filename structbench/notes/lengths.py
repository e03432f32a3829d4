"""A note on answers far shorter than asked for: the figures are of another work than the one that was planned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.formatting import plural, share_text
from structbench.notes.judge import Judge, Row
from structbench.types import Note

_FAR_SHORTER = 0.5
"""An answer is far shorter than asked for below this share of it."""
MISSING = 16
"""Tokens that it must lack besides."""
_MANY = 0.05
"""The share of answers from which on a limit of the server's own is worth a word."""
_MOST = 0.5
"""The share of answers of the suite ``text`` that must end by themselves, far too early."""


def _lengths(rows: Sequence[Row]) -> Iterator[Note]:
    (row,) = rows
    completed = row["completed"]
    if row["capped"] and row["capped"] >= _MANY * completed:
        yield Note(
            "answers_capped", f"{row['capped']:,} of {plural(completed, 'answer')} were ended by a limit at "
            f"{row['capped_at']:,.0f} tokens (median), where they were allowed {row['allowed']:,.0f}: by a limit of "
            "the server's own, or its context; the figures are of shorter answers", row["capped"] / completed,
        )  # fmt: skip
    if row["short"] and row["short"] > _MOST * completed:
        yield Note(
            "answers_short", f"{share_text(row['short'] / completed, 0)} of the answers ended by themselves after "
            f"{row['short_at']:,.0f} tokens (median), where {row['asked']:,.0f} were asked for: the figures are of "
            "shorter answers", row["short"] / completed,
        )  # fmt: skip


LENGTHS = Judge(
    f"""
    WITH answers AS (
        SELECT coalesce(output_tokens, chunks) AS tokens, asked_output_tokens AS asked, suite = 'text' AS is_text,
            done_reason, tokens < {_FAR_SHORTER} * asked AND tokens <= asked - {MISSING} AS is_short
        FROM requests JOIN runs USING (run_id) WHERE run_id = $1 AND error_kind IS NULL AND chunks > 0
    )
    SELECT count(*) AS completed, count(*) FILTER (WHERE is_short AND done_reason = 'length') AS capped,
        median(tokens) FILTER (WHERE is_short AND done_reason = 'length') AS capped_at,
        median(asked) FILTER (WHERE is_short AND done_reason = 'length') AS allowed,
        count(*) FILTER (WHERE is_short AND done_reason = 'stop' AND is_text) AS short,
        median(tokens) FILTER (WHERE is_short AND done_reason = 'stop' AND is_text) AS short_at,
        median(asked) FILTER (WHERE is_text) AS asked
    FROM answers
    """,
    _lengths,
)

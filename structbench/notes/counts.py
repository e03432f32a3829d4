"""Notes on the server's token counts and on chunks: where they do not say what they seem to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.formatting import plural, share_text
from structbench.metrics import GOOD_OF_RUN, IS_EMPTY, IS_GATHERED, IS_UNLIKELY, LIMITS_OF_RUN, THINKING_IS_HIDDEN
from structbench.notes.judge import Judge, Row
from structbench.types import Note

_TEXTS = {
    "empty_answers": "{of} were empty (no text, no thinking, no call): not in e2e, requests/s, tokens/s and goodput",
    "uncounted": "{of} came without a token count: no tokens/s of the run, no TPOT of these",
    "partly_counted": "{of} had more chunks than output tokens, or took much longer than the server's evaluation: it "
    "counted a part of its work (as where thinking and format are two passes); TPOT is of the answer where that was "
    "counted, else absent",
    "overcounted": "{of} came with more output tokens than what came can hold: the server counted something else, or "
    "what it did not send (hidden thinking); no tokens/s of the run, no TPOT of these",
    "hidden_thinking": "{of} were thought about in tokens that the server counts and does not stream as it makes them "
    "({hidden}): TTFT contains that time, and TPOT is of the answer alone, or absent where the counts do not tell them "
    "apart",
    "faster_than_made": "{of} came faster than the server says it made the tokens: some were held back before the "
    "first chunk or left out; no TPOT of these",
    "few_chunks": "{of} came in a few chunks of many tokens each, and the server does not tell when it made them: no "
    "TPOT of these",
    "unlikely_durations": "{of} came with durations of the server that cannot be theirs (longer than the request "
    "took, or next to nothing): no server_tokens_per_s and queue_s of these, and the parts of TTFT leave them out",
    "gathered_chunks": "{share} of the chunks came together with the one before: the server or a gateway gathers them, "
    "not this client; no ITL and TPOT of {of}",
}
_TOOK_LONGER = "coalesce(e2e_s - ttft_s > eval_s AND first_thinking_s IS NOT NULL, false)"
"""SQL: whether that is why a count does not cover the stream, if there are no more chunks than tokens."""
_NO_PACE = (
    f"tpot_s IS NULL AND itl_mean_s IS NOT NULL AND coalesce(covered, chunks <= output_tokens)"
    f" AND output_tokens > 2 AND NOT {THINKING_IS_HIDDEN}"
)
"""SQL: whether tokens were counted and came spaced, and yet have no pace."""


def _of_counts(rows: Sequence[Row]) -> Iterator[Note]:
    (row,) = rows
    told = row["hidden_tokens"]
    hidden = f"{told:,} of {row['hidden_of']:,} output tokens" if told else "it does not tell how many"
    for kind, text in _TEXTS.items():
        if row[kind]:
            of = f"{row[kind]:,} of {plural(row['completed'], 'completed answer')}"
            share = row[kind] / row["completed"]
            yield Note(kind, text.format(of=of, share=share_text(row["gathered_share"]), hidden=hidden), share=share)


COUNTS = Judge(
    f"""
    SELECT count(*) AS completed, count(*) FILTER (WHERE {IS_EMPTY}) AS empty_answers,
        count(*) FILTER (WHERE output_tokens IS NULL) AS uncounted,
        count(*) FILTER (WHERE chunks > output_tokens OR (covered = false AND {_TOOK_LONGER})) AS partly_counted,
        count(*) FILTER (WHERE covered = false AND chunks <= output_tokens AND NOT {_TOOK_LONGER}) AS overcounted,
        count(*) FILTER (WHERE {_NO_PACE} AND eval_s > 0 AND NOT {IS_UNLIKELY}) AS faster_than_made,
        count(*) FILTER (WHERE {_NO_PACE} AND (coalesce(eval_s, 0) = 0 OR {IS_UNLIKELY})) AS few_chunks,
        count(*) FILTER (WHERE {THINKING_IS_HIDDEN}) AS hidden_thinking,
        (sum(thinking_tokens) FILTER (WHERE {THINKING_IS_HIDDEN}))::BIGINT AS hidden_tokens,
        (sum(output_tokens) FILTER (WHERE {THINKING_IS_HIDDEN}))::BIGINT AS hidden_of,
        count(*) FILTER (WHERE {IS_UNLIKELY}) AS unlikely_durations,
        count(*) FILTER (WHERE {IS_GATHERED}) AS gathered_chunks,
        sum(gathered_chunks) / nullif(sum(chunks), 0) AS gathered_share
    FROM requests WHERE run_id = $1 AND error_kind IS NULL
    """,
    _of_counts,
)


def _of_goodput(rows: Sequence[Row]) -> Iterator[Note]:
    (row,) = rows
    if row["unjudged"]:
        of = f"{row['unjudged']:,} of {plural(row['completed'], 'completed answer')}"
        text = f"goodput is unknown: {of} came in pieces without a TPOT or ITL to hold against its limits"
        yield Note("goodput_unknown", text, share=row["unjudged"] / row["completed"])


GOODPUT = Judge(
    f"""
    WITH limits AS (SELECT run_id, {LIMITS_OF_RUN} FROM runs)
    SELECT count(*) AS completed, count(*) FILTER (WHERE ({GOOD_OF_RUN}) IS NULL) AS unjudged
    FROM requests JOIN limits USING (run_id) WHERE run_id = $1 AND error_kind IS NULL
    """,
    _of_goodput,
)

"""Notes on the server's token counts and on chunks: where they do not say what they seem to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.formatting import plural, share_text
from structbench.metrics import GOOD_OF_RUN, IS_GATHERED, IS_UNLIKELY, LIMITS_OF_RUN, THINKING_IS_HIDDEN
from structbench.notes.judge import Judge, Row
from structbench.types import Note

_TEXTS = {
    "uncounted": "{of} came without a token count: no tokens/s of the run, no TPOT of these",
    "partly_counted": "{of} had more chunks than output tokens: the server counted a part of its work (as where "
    "thinking and format are two passes); TPOT is of the answer where that was counted, else absent",
    "hidden_thinking": "{of} were thought about in tokens that the server counts and does not stream as it makes them "
    "({hidden}): TTFT contains that time, and TPOT is of the answer alone, or absent where the counts do not tell them "
    "apart",
    "faster_than_made": "{of} came faster than the server says it made the tokens: some were held back before the "
    "first chunk or left out; no TPOT of these",
    "unlikely_durations": "{of} came with durations of the server that cannot be theirs (longer than the request "
    "took, or next to nothing): server_tokens_per_s and queue_s of these are wrong, the parts of TTFT leave them out",
    "gathered_chunks": "{share} of the chunks came together with the one before: the server or a gateway gathers them, "
    "not this client; no ITL and TPOT of {of}",
}


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
    SELECT count(*) AS completed, count(*) FILTER (WHERE output_tokens IS NULL) AS uncounted,
        count(*) FILTER (WHERE chunks > output_tokens) AS partly_counted,
        count(*) FILTER (
            WHERE chunks <= output_tokens AND tpot_s IS NULL AND itl_mean_s IS NOT NULL AND eval_s IS NOT NULL
                AND NOT {THINKING_IS_HIDDEN}
        ) AS faster_than_made,
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

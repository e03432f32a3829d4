"""A note on prompts that the server had in its prefix cache: told by it, or seen in what their evaluation took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.formatting import plural, seconds_text, share_text
from structbench.notes.judge import Judge, Row
from structbench.types import Note

_FEWEST = 5
"""Requests of a kind below which their times tell little."""
_WORTH_A_WORD = 0.05
"""The share of prompt tokens in the cache from which on it is worth a word."""
_EVALUATED = 0.6
"""The share of the time per prompt token, and of TTFT, below which a prompt was not evaluated whole."""
_CERTAIN = 0.3
"""The same where few askings are first ones; of TTFT, for most cases (two at least) and beyond the repeats of all."""
_TTFT = 0.8


def _cached(rows: Sequence[Row]) -> Iterator[Note]:
    (row,) = rows
    parts, share = [], None
    if row["told_tokens"] and row["cached_tokens"] / row["told_tokens"] >= _WORTH_A_WORD:
        share = row["cached"] / row["told"]
        parts.append(
            f"the server had {share_text(row['cached_tokens'] / row['told_tokens'])} of the prompt tokens in its cache "
            f"(in {row['cached']:,} of {plural(row['told'], 'request')})"
        )
    elif _is_faster(row["first_eval_s"], row["earlier_eval_s"], row["first"]):
        parts.append(
            "the server had seen the prompts in an earlier run: evaluating them took "
            f"{share_text(row['first_eval_s'] / row['earlier_eval_s'])} of what it took then"
        )
    few = row["first"] < _FEWEST
    most = row["in_order"] and row["faster"] > 1 and row["faster"] > row["cases"] / 2
    if (
        row["first"]
        and row["again"] >= _FEWEST
        and (
            _is_faster(row["again_eval_s"], row["first_eval_s"], row["again"], _CERTAIN if few else _EVALUATED)
            or (most if few else row["again_ttft_s"] < _TTFT * row["first_ttft_s"])
        )
    ):
        share = row["again"] / (row["first"] + row["again"]) if share is None else share
        parts.append(
            f"TTFT p50 is {seconds_text(row['first_ttft_s'])} where a case was asked first ({row['first']:,}) and "
            f"{seconds_text(row['again_ttft_s'])} where it was asked again ({row['again']:,})"
        )
    if parts:
        yield Note("cached_prompts", "; ".join(parts) + ": TTFT is partly the prefix cache's", share)


def _is_faster(seconds: float | None, before: float | None, n: int, limit: float = _EVALUATED) -> bool:
    return bool(n >= _FEWEST and seconds is not None and before and seconds < limit * before)


_A_TOKEN = "prompt_eval_s / nullif(prompt_tokens, 0)"
CACHED = Judge(
    f"""
    WITH this AS (SELECT * FROM runs WHERE run_id = $1), earlier AS (
        SELECT run_id, median({_A_TOKEN}) AS eval_s
        FROM requests JOIN runs AS r USING (run_id) CROSS JOIN this
        WHERE r.run_id <> $1 AND r.model_digest = this.model_digest AND error_kind IS NULL AND repeat = 0
            AND r.config ->> '$.suite_hash' = this.config ->> '$.suite_hash'
            AND r.config ->> '$.server_address' = this.config ->> '$.server_address'
            AND r.started_at < this.started_at AND r.finished_at > this.started_at - INTERVAL 1 HOUR
            AND this.suite <> 'text'
        GROUP BY run_id
    ), timed AS (
        SELECT *, repeat > 0 AS again, {_A_TOKEN} AS token_s FROM requests
        WHERE run_id = $1 AND error_kind IS NULL AND steady IS NOT FALSE AND ttft_s IS NOT NULL
    ), by_case AS (
        SELECT max(ttft_s) FILTER (WHERE NOT again) AS first_s, median(ttft_s) FILTER (WHERE again) AS again_s
        FROM timed GROUP BY case_id HAVING bool_or(again) AND NOT bool_and(again)
    )
    SELECT count(cached_prompt_tokens) AS told, count(*) FILTER (WHERE cached_prompt_tokens > 0) AS cached,
        sum(cached_prompt_tokens)::DOUBLE AS cached_tokens,
        sum(prompt_tokens) FILTER (WHERE cached_prompt_tokens IS NOT NULL)::DOUBLE AS told_tokens,
        count(*) FILTER (WHERE NOT again) AS first, count(*) FILTER (WHERE again) AS again,
        median(ttft_s) FILTER (WHERE NOT again) AS first_ttft_s, median(ttft_s) FILTER (WHERE again) AS again_ttft_s,
        median(token_s) FILTER (WHERE NOT again) AS first_eval_s, median(token_s) FILTER (WHERE again) AS again_eval_s,
        (SELECT max(eval_s) FROM earlier) AS earlier_eval_s,
        (SELECT count(*) FROM by_case) AS cases,
        (SELECT count(*) FROM by_case WHERE first_s * {_CERTAIN} > (SELECT max(again_s) FROM by_case)) AS faster,
        coalesce(bool_or(steady), false) OR any_value((SELECT concurrency FROM this)) = 1 AS in_order
    FROM timed
    """,
    _cached,
)

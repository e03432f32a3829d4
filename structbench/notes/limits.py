"""Notes on limits that a load met: the server's, on how often it may be asked, and the user's, on tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.formatting import plural, span_text
from structbench.notes.judge import PLACED, Judge, Row
from structbench.types import Note


def _rate_limited(rows: Sequence[Row]) -> Iterator[Note]:
    (row,) = rows
    if not row["limited"]:
        return
    wait_s = row["wait_s"]
    asks = "" if wait_s is None else f"; it asked to wait up to {span_text(wait_s)} (Retry-After)"
    spread = "" if row["limited"] == 1 else f", over {span_text(row['last_s'] - row['first_s'])}"
    how = "give a lower --rate or --concurrency"
    if row["used_up"] == row["limited"]:
        how = "by its words the account's quota is used up, which no lower --rate mends: see its plan and billing"
    yield Note(
        "rate_limited", share=row["limited"] / row["requests"], at_s=row["first_s"],
        text=f"the server's rate limit refused {row['limited']:,} of {plural(row['requests'], 'request')}, from "
             f"{span_text(row['first_s'])} after the start{spread}{asks}: the figures are of what it let through; "
             f"{how}",
    )  # fmt: skip


RATE_LIMITED = Judge(
    f"""
    WITH {PLACED} SELECT count(*) AS requests, count(*) FILTER (WHERE error_kind = 'rate_limited') AS limited,
        min(at_s) FILTER (WHERE error_kind = 'rate_limited') AS first_s,
        max(at_s) FILTER (WHERE error_kind = 'rate_limited') AS last_s, max(retry_after_s) AS wait_s,
        count(*) FILTER (WHERE error_kind = 'rate_limited' AND retry_after_s IS NULL
            AND regexp_matches(error_message, 'quota|billing|credit|balance', 'i')
            AND NOT regexp_matches(error_message, 'retry in|per (second|minute|hour|day)', 'i')) AS used_up
    FROM placed WHERE at_s IS NOT NULL
    """,
    _rate_limited,
)


def _token_limit(rows: Sequence[Row]) -> Iterator[Note]:
    for row in rows:
        if row["token_limit"] is not None:
            yield Note("token_limit", f"ended before another request could pass --max-tokens-total "
                                      f"{row['token_limit']:,}; --skip-cached continues it")  # fmt: skip


TOKEN_LIMIT = Judge(
    "SELECT token_limit FROM segments WHERE run_id = $1 ORDER BY segment DESC LIMIT 1",
    _token_limit,
)

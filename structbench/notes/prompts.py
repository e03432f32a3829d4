"""Notes on prompts: cut by the server's context, or counted only in part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.formatting import plural
from structbench.notes.judge import Judge, Row
from structbench.types import Note

MADE, ESTIMATED = 0.8, 0.5
"""A prompt has far fewer tokens than asked for below this share: of a length that it was made to have, or estimated."""
MISSING = 100
"""Tokens that a prompt must lack besides: of a short one the template's are a large and uncertain part."""
ALIKE = 0.9
"""Prompts that were cut are as long as the context left them: the shortest at least this share of the longest."""
SPREAD = 1.2
"""Prompts of one length that should differ by more than this were cut to it, unless one is too long by as much."""
AT_ONE_LENGTH = 3
LONG = 256
"""Tokens below which prompts of different texts may well have the same length."""

_TEXTS = {
    "prompt_cut": "{of} were cut: the server evaluated {seen:,.0f} tokens of about {asked:,.0f}; give it a larger "
    "context{how} or shorter prompts",
    "prompt_partly_counted": "{of} were counted with far fewer tokens than they have ({seen:,.0f} of about "
    "{asked:,.0f}), each differently: as where a cache held the rest, or a history was cut",
}


def _of_prompts(rows: Sequence[Row]) -> Iterator[Note]:
    found = {row["which"]: row for row in rows}

    def note(kind: str, which: str) -> Iterator[Note]:
        row = found[which]
        of = f"{row['n']:,} of {plural(row['of_all'], 'prompt')}"
        how = " (--option num_ctx=N)" if row["api"] in (None, "ollama") else ""
        text = _TEXTS[kind].format(of=of, seen=row["seen"], asked=row["asked"], how=how)
        yield Note(kind, text, share=row["n"] / row["of_all"])

    short, level = found.get("short"), found.get("level")
    if short is not None and short["least_seen"] < ALIKE * short["most_seen"]:
        yield from note("prompt_partly_counted", "short")
    elif short is not None:
        yield from note("prompt_cut", "short")
    elif "full" in found:
        yield from note("prompt_cut", "full")
    elif (
        level is not None
        and level["cases"] >= AT_ONE_LENGTH
        and level["seen"] >= LONG
        and level["most_asked"] > SPREAD * level["least_asked"]
    ):
        yield from note("prompt_cut", "level")


# Of each case the most tokens that any asking of it was counted with: a cache lowers the others.
PROMPTS = Judge(
    f"""
    WITH asked AS (
        SELECT case_id, count(*) AS n, max(prompt_tokens
                + CASE WHEN cached_prompt_tokens > prompt_tokens THEN cached_prompt_tokens ELSE 0 END) AS seen,
            max(asked_prompt_tokens) AS asked,
            CASE WHEN any_value(suite) = 'text' THEN {MADE} ELSE {ESTIMATED} END AS share,
            any_value(api) AS api, try_cast(any_value(config ->> '$.options.num_ctx') AS BIGINT) AS num_ctx
        FROM requests JOIN runs USING (run_id)
        WHERE run_id = $1 AND error_kind IS NULL AND prompt_tokens IS NOT NULL AND asked_prompt_tokens > 0
        GROUP BY case_id
    ), sorted AS (
        SELECT *, sum(n) OVER () AS of_all, [which FOR which IN [
            CASE WHEN seen < least(asked * share, asked - {MISSING}) THEN 'short' END,
            CASE WHEN seen >= num_ctx THEN 'full' END,
            CASE WHEN seen = max(seen) OVER () AND seen < asked AND NOT bool_or(seen > {SPREAD} * asked) OVER ()
                THEN 'level' END
        ] IF which IS NOT NULL] AS which
        FROM asked
    )
    SELECT which, sum(n)::BIGINT AS n, any_value(of_all)::BIGINT AS of_all, count(*) AS cases,
        any_value(api) AS api,
        median(seen) AS seen, median(asked) AS asked, min(seen) AS least_seen, max(seen) AS most_seen,
        min(asked) AS least_asked, max(asked) AS most_asked
    FROM (SELECT * REPLACE (unnest(which) AS which) FROM sorted) GROUP BY which
    """,
    _of_prompts,
)

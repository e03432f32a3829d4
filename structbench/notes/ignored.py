"""Notes on what a server was asked for and does not keep to, although it answers 200: a schema, a tool choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.formatting import plural
from structbench.notes.judge import Judge, Row
from structbench.strict_json import stored
from structbench.types import Note

_MOST = 0.5
"""The share of answers above which it is the server that does not keep to it, and not the model that failed."""
_WAYS = {"format": "in the API's own way", "tools": "as a tool's parameters"}
_FORCED = {"any", "required", "tool", "function"}
_FORBIDDEN = "none"
_BEYOND_GRAMMARS = (
    "format", "pattern", "patternProperties", "propertyNames", "uniqueItems", "multipleOf", "contains", "minContains",
    "maxContains", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "contentEncoding",
    "contentMediaType", "minProperties", "maxProperties",
)  # fmt: skip
"""Keywords that constrained decoding often leaves out: an answer that breaks these alone may well have been held."""
_HELD = f"coalesce(len(violated_keywords) > 0 AND list_has_all({list(_BEYOND_GRAMMARS)}, violated_keywords), false)"
"""SQL: whether an answer breaks these alone."""
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def _ignored(rows: Sequence[Row]) -> Iterator[Note]:
    (row,) = rows
    if row["answers"] and row["broken"] > _MOST * row["answers"]:
        way = _WAYS.get(row["structured"], f"as {row['structured']}")
        yield Note(
            "schema_ignored",
            f"{row['broken']:,} of {plural(row['answers'], 'answer')} are not JSON that satisfies the schema "
            f"({row['not_json']:,} no JSON at all), although it was sent {way}: the server seems to ignore it "
            "(`structbench matrix` tells which ways it knows)",
            row["broken"] / row["answers"],
        )
    choice = _choice(row["tool_choice"])
    against = row["with_call"] if choice == _FORBIDDEN else row["completed"] - row["with_call"]
    if (choice == _FORBIDDEN or choice in _FORCED) and against > _MOST * row["completed"]:
        does = "have a call" if choice == _FORBIDDEN else "have no call"
        yield Note(
            "tool_choice_ignored",
            f"{against:,} of {plural(row['completed'], 'answer')} {does}, although tool_choice was {choice}: the "
            "server seems to ignore it",
            against / row["completed"],
        )


def _thinking(rows: Sequence[Row]) -> Iterator[Note]:
    (row,) = rows
    thought, of = row["thought"], plural(row["completed"], "answer")
    if row["think"] == "false" and thought > _MOST * row["completed"]:
        text = f"{thought:,} of {of} were thought about, although --think is off: the server seems to ignore it"
        yield Note("think_ignored", text, thought / row["completed"])
    elif row["think"] == "true" and row["completed"] and not thought:
        text = f"no thinking came with any of {of}, although --think is on: the server ignores it, or hides it"
        yield Note("think_ignored", text, 1.0)


def _limit(rows: Sequence[Row]) -> Iterator[Note]:
    (row,) = rows
    if row["over"] > _MOST * row["reached"]:
        yield Note(
            "limit_ignored",
            f"{row['over']:,} of {plural(row['completed'], 'answer')} are longer than their limit (the longest has "
            f"{row['most']:,} tokens; {row['asked']:,} were asked for at most): the server seems to ignore it",
            row["over"] / row["completed"],
        )


def _choice(text: str | None) -> str | None:
    """Return the word of a tool choice, which is a text or an object with a type."""
    value = stored(text)
    found = value.get("type") if isinstance(value, dict) else value
    return found if isinstance(found, str) else None


_ANSWERED = (
    "error_kind IS NULL AND schema_valid IS NOT NULL AND outcome <> 'no_output'"
    r""" AND (outcome <> 'truncated' OR regexp_matches(output_text, '^\s*[^\s{\["0-9tfn-]'))"""
)
"""SQL: whether an answer tells of the schema; of those that were cut, only what does not begin as JSON does."""
IGNORED = Judge(
    f"""
    SELECT any_value(runs.structured) AS structured,
        any_value(CASE WHEN runs.structured = 'tools' AND api <> 'ollama' THEN '"tool"'
            ELSE (config -> '$.body.tool_choice')::VARCHAR END) AS tool_choice,
        count(*) FILTER ({_ANSWERED} AND runs.structured NOT IN ('prompt', 'none')) AS answers,
        count(*) FILTER ({_ANSWERED} AND runs.structured NOT IN ('prompt', 'none') AND NOT schema_valid
            AND NOT {_HELD}) AS broken,
        count(*) FILTER ({_ANSWERED} AND runs.structured NOT IN ('prompt', 'none') AND NOT json_valid) AS not_json,
        count(*) FILTER (error_kind IS NULL) AS completed,
        count(*) FILTER (error_kind IS NULL AND json_array_length(tool_calls) > 0) AS with_call
    FROM requests JOIN runs USING (run_id) WHERE run_id = $1
    """,
    _ignored,
)
THOUGHT = Judge(
    """
    SELECT any_value(runs.think) AS think, count(*) AS completed,
        count(*) FILTER (first_thinking_s IS NOT NULL OR thinking_tokens > 0 OR thinking_partial
            OR regexp_matches(output_text, '^\\s*<(think|thought)')) AS thought
    FROM requests JOIN runs USING (run_id) WHERE run_id = $1 AND error_kind IS NULL
    """,
    _thinking,
)
# On some servers the limit is of the answer without the thinking.
LIMITED = Judge(
    f"""
    WITH asked AS (
        SELECT coalesce({", ".join(f"try_cast(config ->> '$.body.{name}' AS BIGINT)" for name in _LIMITS)},
                asked_output_tokens) AS asked,
            output_tokens - coalesce(thinking_tokens, 0) AS said
        FROM requests JOIN runs USING (run_id)
        WHERE run_id = $1 AND error_kind IS NULL AND (first_thinking_s IS NULL OR thinking_tokens > 0)
    ), judged AS (SELECT *, said > 1.1 * asked + 2 AS is_over FROM asked WHERE asked > 0 AND said IS NOT NULL)
    SELECT count(*) AS completed, count(*) FILTER (said >= asked) AS reached, count(*) FILTER (is_over) AS over,
        max(said) FILTER (is_over) AS most, arg_max(asked, said) FILTER (is_over) AS asked
    FROM judged
    """,
    _limit,
)

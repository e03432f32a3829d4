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
        count(*) FILTER ({_ANSWERED} AND runs.structured NOT IN ('prompt', 'none') AND NOT schema_valid) AS broken,
        count(*) FILTER ({_ANSWERED} AND runs.structured NOT IN ('prompt', 'none') AND NOT json_valid) AS not_json,
        count(*) FILTER (error_kind IS NULL) AS completed,
        count(*) FILTER (error_kind IS NULL AND json_array_length(tool_calls) > 0) AS with_call
    FROM requests JOIN runs USING (run_id) WHERE run_id = $1
    """,
    _ignored,
)

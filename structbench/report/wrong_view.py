"""The listed wrong answers and failures as texts to read.

Invariant: a text of a model's is shown letter by letter: what would be invisible or turn the writing direction is
written as its code.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from structbench.report.lines import Line
from structbench.wording import ABSENT, printable

_PLAIN = "\n\t"


def wrong_view(wrong: Mapping[str, Any], lines: Sequence[Line]) -> dict[str, Any]:
    by_id = {line.id: line for line in lines}
    listed = [_entry(row, by_id[row["line"]]) for row in wrong["listed"]]
    total = wrong["total"]
    if not total:
        text = "None: every answer that was scored was correct, and no request failed."
    elif len(listed) == total:
        text = f"All {total:,}."
    else:
        text = f"{len(listed):,} of {total:,}: a few of each line and outcome, of different cases where there are."
    return {"text": text, "listed": listed}


def _entry(row: Mapping[str, Any], line: Line) -> dict[str, Any]:
    return {
        "line": {"id": line.id, "name": line.name, "marks": line.marks},
        "outcome": printable(str(row["outcome"])),
        "case": printable(str(row["case_id"] or f"request {row['request_index']}")),
        "texts": [(title, visible(text)) for title, text in _texts(row)],
    }


def _texts(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was asked, what was expected, what came, what was wrong with it."""
    asked = row["asked"]
    if asked is None:
        yield "Prompt", "(not at hand: the suite has changed, is not in this folder, or was fitted to the model)"
    else:
        for message in asked["messages"]:
            yield f"Prompt ({printable(message['role'])})", message["content"]
        for title, key in {"Schema": "schema", "Tools": "tools", "Expected": "expected"}.items():
            if asked[key] is not None:
                yield title, asked[key]
    for title, key in {"Thinking": "thinking", "Answer": "output"}.items():
        if row[f"{key}_text"]:
            yield title, _cut(row[f"{key}_text"], row[f"{key}_letters"])
    if row["tool_calls"] not in (None, "null", "[]"):
        yield "Tool calls", _cut(row["tool_calls"], row["tool_calls_letters"])
    if row["error_kind"] is None and not row["output_text"] and row["tool_calls"] in (None, "null", "[]"):
        yield "Answer", "(empty)"
    wrong = [*(row["validation_errors"] or ()), *([row["json_parse_error"]] if row["json_parse_error"] else [])]
    if wrong:
        yield "What was wrong", "\n".join(wrong)
    if row["error_kind"] is not None:
        status = "" if row["error_status"] is None else f" {row['error_status']}"
        yield "Failure", f"{row['error_kind']}{status}: {row['error_message'] or ABSENT}"


def _cut(text: str, letters: int) -> str:
    return text if len(text) >= letters else f"{text}\n… and {letters - len(text):,} more characters"


def visible(text: str) -> str:
    """The text with control and formatting characters (escapes, bidirectional marks) written as ⟨U+202E⟩."""
    return "".join(
        f"⟨U+{ord(c):04X}⟩" if c not in _PLAIN and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c
        for c in text
    )

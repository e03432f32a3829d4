"""The listed wrong answers and failures, as texts for the page.

Invariant: text from a model is shown character by character: invisible characters, and those that change the writing
direction, are written as their code.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from structbench.formatting import ABSENT, printable
from structbench.results.figures import Figures
from structbench.results.groups import RunGroup
from structbench.results.wrong_answers import RIGHT

_LINE_BREAKS = "\n\t"


def wrong_view(wrong: Mapping[str, Any], groups: Sequence[RunGroup], figures: Mapping[int, Figures]) -> dict[str, Any]:
    """Return ``text`` and, for each run group with wrong answers, ``line``, ``count`` and ``listed``."""
    listed: dict[int, list[dict[str, Any]]] = {}
    for row in wrong["listed"]:
        listed.setdefault(row["line"], []).append(_entry(row))
    shown, total = len(wrong["listed"]), wrong["total"]
    if not total:
        text = "None: every scored answer was correct and no request failed."
    elif shown == total:
        text = f"All {total:,} are listed."
    else:
        text = f"{shown:,} of {total:,}: a few of each run group and outcome, from different cases where possible."
    sections = [
        {"line": {"id": group.id, "name": group.name, "marks": group.marks}, "listed": listed[group.id],
         "count": f"{len(listed[group.id]):,} of {_count(figures[group.id]):,}"}
        for group in groups
        if group.id in listed
    ]  # fmt: skip
    return {"text": text, "groups": sections}


def _count(figures: Figures) -> int:
    return sum(n for outcome, _, n in figures.outcomes if outcome not in RIGHT)


def _entry(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "outcome": printable(str(row["outcome"])),
        "case": printable(str(row["case_id"] or f"request {row['request_index']}")),
        "texts": [(title, visible(text)) for title, text in _texts(row)],
    }


def _texts(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the prompt, what was expected, the answer, and what was wrong with it."""
    asked = row["asked"]
    if asked is None:
        yield "Prompt", "(not available: the suite has changed, is not in this folder, or was fitted to the model)"
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
    """Return the text with control and formatting characters (escapes, bidirectional marks) written as ⟨U+202E⟩."""
    return "".join(c if c.isprintable() or c in _LINE_BREAKS or _is_space(c) else f"⟨U+{ord(c):04X}⟩" for c in text)


def _is_space(c: str) -> bool:
    return unicodedata.category(c) == "Zs"

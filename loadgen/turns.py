"""The turn that follows from an answer: the tools' results are given back at once, as a request of its own. Pure.

Invariant: a request without ``tool_results``, a failed one and an answer without a call are followed by nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from loadgen.types import Request, RequestRecord

UNKNOWN_TOOL = "there is no such tool"


def follow_up(request: Request, record: RequestRecord) -> Request | None:
    """The next turn: the conversation, the model's own answer, and a result for each of its calls."""
    if request.tool_results is None or record.error is not None or not record.tool_calls:
        return None
    calls = [{"function": {"name": call["name"], "arguments": call["arguments"]}} for call in record.tool_calls]
    said: dict[str, Any] = {"role": "assistant", "content": record.output_text, "tool_calls": calls}
    if record.thinking_text:
        said["thinking"] = record.thinking_text
    results = [
        {
            "role": "tool",
            "tool_name": call["name"],
            "content": request.tool_results.get(call["name"], UNKNOWN_TOOL),
        }
        for call in record.tool_calls
    ]
    return replace(request, index=request.index + 1, messages=(*request.messages, said, *results), tool_results=None)

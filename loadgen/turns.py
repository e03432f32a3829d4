"""The turn that follows from an answer: the request that gives the tools' results back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from loadgen.types import Request, RequestRecord, is_broken

UNKNOWN_TOOL = "there is no such tool"


def follow_up(request: Request, record: RequestRecord) -> Request | None:
    """Return the next turn (the conversation, the answer, a result for each of its calls), or None if none follows."""
    if request.tool_results is None or record.error is not None or not record.tool_calls:
        return None
    if any(is_broken(call) for call in record.tool_calls):  # no server would take it back
        return None
    calls = [{"function": {"name": call["name"], "arguments": call["arguments"]}} for call in record.tool_calls]
    answer: dict[str, Any] = {"role": "assistant", "content": record.output_text, "tool_calls": calls}
    if record.thinking_text:
        answer["thinking"] = record.thinking_text
    results = [
        {"role": "tool", "tool_name": name, "content": request.tool_results.get(name, UNKNOWN_TOOL)}
        for name in (call["name"] for call in record.tool_calls)
    ]
    return replace(request, index=request.index + 1, messages=(*request.messages, answer, *results), tool_results=None)

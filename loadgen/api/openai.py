"""Bodies and answers of OpenAI's chat completions (/v1), for ``structbench.matrix``; not yet an API of a load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadgen.api.answer import CallPiece, Piece
from loadgen.types import Request

_OPTIONS = {"num_predict": "max_tokens"}
"""Ollama's name of an option -> OpenAI's."""
_EFFORT: Mapping[bool | str | None, str] = {True: "medium", False: "none"}


def body(request: Request, stream: bool = True) -> dict[str, Any]:
    """Return the body for /v1/chat/completions, without fields that are unset."""
    optional = {
        "messages": list(request.messages),
        "response_format": _response_format(request.format),
        "tools": list(request.tools) or None,
        "reasoning_effort": _EFFORT.get(request.think, request.think),
    }
    options = {_OPTIONS.get(name, name): value for name, value in request.options.items()}
    return {"model": request.model, "stream": stream} | {k: v for k, v in optional.items() if v is not None} | options


def _response_format(form: Mapping[str, Any] | str | None) -> dict[str, Any] | None:
    if form is None:
        return None
    if isinstance(form, str):
        return {"type": form}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form}}


def piece(part: Mapping[str, Any]) -> Piece:
    """Read a chunk of a stream, or a whole answer."""
    if not part["choices"]:  # the usage, after the answer
        return Piece()
    choice = part["choices"][0]
    said, finish = choice.get("delta") or choice.get("message") or {}, choice.get("finish_reason")
    facts = {} if finish is None else {"done_reason": finish or None}
    thinking = said.get("thinking") or said.get("reasoning") or ""
    return Piece(said.get("content") or "", thinking, _calls(said), finish is not None, facts)


def _calls(said: Mapping[str, Any]) -> list[CallPiece]:
    """Read tool calls: the arguments are JSON text in one or several pieces, of which only the first has the name."""
    return [
        CallPiece(call["function"].get("name"), call["function"].get("arguments") or "", call.get("index"))
        for call in said.get("tool_calls") or ()
    ]

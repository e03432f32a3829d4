"""Chat completions as OpenAI's API has them (/v1): a request written, an answer's parts read; nothing is sent here.

Used by ``structbench.matrix``, which asks what a server does there; it is no API of a load yet (``APIS``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadgen.api.answer import CallPiece, Piece
from loadgen.types import Request

_OPTIONS = {"num_predict": "max_tokens"}
"""Options that have another name here."""
_EFFORT: Mapping[bool | str | None, str] = {True: "medium", False: "none"}


def body(request: Request, stream: bool = True) -> dict[str, Any]:
    """The request in the words of /v1/chat/completions; what it lacks is absent."""
    asked = {
        "messages": list(request.messages),
        "response_format": _response_format(request.format),
        "tools": list(request.tools) or None,
        "reasoning_effort": _EFFORT.get(request.think, request.think),
    }
    options = {_OPTIONS.get(name, name): value for name, value in request.options.items()}
    return {"model": request.model, "stream": stream} | {k: v for k, v in asked.items() if v is not None} | options


def _response_format(form: Mapping[str, Any] | str | None) -> dict[str, Any] | None:
    if form is None:
        return None
    if isinstance(form, str):
        return {"type": form}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form}}


def piece(part: Mapping[str, Any]) -> Piece:
    """Read one part: a chunk of a stream, or an answer that came whole."""
    if not part["choices"]:  # the usage, after the answer
        return Piece()
    choice = part["choices"][0]
    said, finish = choice.get("delta") or choice.get("message") or {}, choice.get("finish_reason")
    facts = {} if finish is None else {"done_reason": finish or None}
    thinking = said.get("thinking") or said.get("reasoning") or ""
    return Piece(said.get("content") or "", thinking, _calls(said), finish is not None, facts)


def _calls(said: Mapping[str, Any]) -> list[CallPiece]:
    """Arguments are a JSON text, in one or several pieces; only the first has the name."""
    return [
        CallPiece(call["function"].get("name"), call["function"].get("arguments") or "", call.get("index"))
        for call in said.get("tool_calls") or ()
    ]

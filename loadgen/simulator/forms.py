"""How an answer is written in an API's form: here Ollama's own, in ``v1_forms`` those under /v1."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from loadgen.simulator.connection import JSON, NDJSON, encode, timestamp

Endpoint = Literal["chat", "generate"]
Message = Mapping[str, Any]
"""A piece of an answer, or the whole: ``content``, ``thinking``, and ``tool_calls``, each with ``index``, ``id``,
``name`` and ``arguments``; a piece of a call has no ``name`` and a part of the arguments' text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What the end of an answer tells."""

    reason: str
    prompt_tokens: int
    tokens: int
    cached: int | None
    """None: the server does not tell."""
    total_ns: int
    load_ns: int
    prompt_eval_ns: int
    eval_ns: int


class Form(Protocol):
    """One answer in the form of an API; it may remember what was written of it."""

    content_type: str
    """Of a stream."""
    whole_type: str
    calls_in_pieces: bool
    """Whether a stream has the arguments of a call token by token, not the calls whole after the last token."""
    ping: bytes
    """What keeps a silent connection alive; empty where there is nothing of the kind."""

    def begin(self, prompt_tokens: int, cached: int | None) -> None:
        """Note what some APIs tell with the first event."""

    def early(self) -> bytes:
        """Return what says nothing yet: what an answer begins with, or an empty piece."""

    def piece(self, message: Message) -> bytes:
        """Return a piece of a stream, the first with what a stream begins with."""

    def line(self, data: bytes) -> bytes:
        """Return these bytes as a stream's line or event."""

    def ending(self, end: Ending) -> Sequence[bytes]:
        """Return a stream's last HTTP chunks."""

    def whole(self, message: Message, end: Ending | None) -> bytes:
        """Return an answer that is not streamed; with ``end`` None it does not say that it is complete."""

    def error(self, text: str, named: bool) -> bytes:
        """Return what reports an error within a stream, ``named`` the API's second way to."""

    def refusal(self, status: int, text: str) -> bytes:
        """Return the body of an answer with an error status."""


class OllamaForm:
    """Ollama's own API: one JSON line after the other."""

    content_type, whole_type = NDJSON, JSON
    calls_in_pieces = False
    ping = b""

    def __init__(self, endpoint: Endpoint, model: str, fault: str | None, old: bool) -> None:
        self.endpoint, self.model, self.fault, self.old = endpoint, model, fault, old

    def begin(self, prompt_tokens: int, cached: int | None) -> None:
        """It tells nothing before the end."""

    def early(self) -> bytes:
        return self.piece({"content": ""})

    def piece(self, message: Message) -> bytes:
        return self.line(encode({**self._head(message), "done": False}))

    def line(self, data: bytes) -> bytes:
        return data + b"\n"

    def ending(self, end: Ending) -> Sequence[bytes]:
        return [self.line(encode(self._head({"content": ""}) | self._end(end)))]

    def whole(self, message: Message, end: Ending | None) -> bytes:
        return encode(self._head(message) | ({"done": False} if end is None else self._end(end)))

    def error(self, text: str, named: bool) -> bytes:  # noqa: ARG002 - there is one way
        return self.line(encode({"error": text}))

    def refusal(self, status: int, text: str) -> bytes:  # noqa: ARG002 - the body is the same for all
        return encode({"error": text})

    def _head(self, message: Message) -> dict[str, Any]:
        fields = dict(message)
        if "tool_calls" in fields:
            fields["tool_calls"] = [self._call(call) for call in fields["tool_calls"]]
        if self.endpoint == "chat":
            fields = {"message": {"role": "assistant", **fields}}
        else:
            fields = {"response" if name == "content" else name: value for name, value in fields.items()}
        return {"model": self.model, "created_at": timestamp(), **fields}

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        function = {"name": call["name"], "arguments": call["arguments"]}
        return {"function": function} if self.old else {
            "id": call["id"], "function": {"index": call["index"], **function}
        }  # fmt: skip

    def _end(self, end: Ending) -> dict[str, Any]:
        """Return the last message's fields without zeros, like Go's ``omitempty``."""
        reason = {} if self.fault == "no-done-reason" else {"done_reason": end.reason}
        done = {**reason, "done": True} if self.old and self.endpoint == "chat" else {"done": True, **reason}
        figures = {"total_duration": end.total_ns, "load_duration": end.load_ns,
                   "prompt_eval_count": end.prompt_tokens, "prompt_eval_duration": end.prompt_eval_ns,
                   "eval_count": end.tokens, "eval_duration": end.eval_ns}  # fmt: skip
        if self.old:  # whole milliseconds, in the names of nanoseconds
            figures |= {k: v // 1_000_000 * 1_000_000 for k, v in figures.items() if k.endswith("eval_duration")}
        if self.fault == "no-counts":
            figures = {name: value for name, value in figures.items() if not name.endswith("_count")}
        told = {} if end.cached is None else {"prompt_eval_cached_count": end.cached}
        context = {"context": list(range(1, end.prompt_tokens + end.tokens))} if self.endpoint == "generate" else {}
        return {**done, **context, **{name: value for name, value in figures.items() if value}, **told}


def arguments_text(arguments: Any) -> str:
    """Return a call's arguments as JSON text, which they may be already."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)

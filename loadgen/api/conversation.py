"""Conversations as other APIs want them: in a suite, they are in the words of Ollama's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A tool call in a conversation; ``id`` is what its result refers to."""

    id: str
    name: str
    arguments: Mapping[str, Any]

    @property
    def arguments_text(self) -> str:
        return json.dumps(self.arguments, ensure_ascii=False)


class Turn(NamedTuple):
    """One message; the role ``tool`` has the result of the call ``result_of``."""

    role: str
    text: str
    images: Sequence[str]
    """In base64."""
    calls: Sequence[Call]
    result_of: str | None


def turns(messages: Sequence[Mapping[str, Any]]) -> Iterator[Turn]:
    """Yield the messages with an id for each call; a result belongs to the first call of its tool that has none yet."""
    open_calls: list[Call] = []
    made = 0
    for message in messages:
        calls = []
        for call in message.get("tool_calls") or ():
            function = call["function"]
            calls.append(Call(call.get("id") or f"call_{made}", function["name"], function["arguments"]))
            made += 1
        result_of = None
        if message["role"] == "tool" and open_calls:
            named = message.get("tool_name") or message.get("name")
            answered = next((call for call in open_calls if call.name == named), open_calls[0])
            open_calls.remove(answered)
            result_of = message.get("tool_call_id") or answered.id
        elif message["role"] == "tool":
            result_of = message.get("tool_call_id") or "call"
        open_calls.extend(calls)
        yield Turn(message["role"], message.get("content") or "", message.get("images") or (), calls, result_of)


def data_url(image: str) -> str:
    """Return an image in base64 as a URL."""
    return f"data:{media_type(image)};base64,{image}"


def media_type(image: str) -> str:
    """Return the media type of an image in base64 by its first bytes."""
    begins = {"iVBOR": "image/png", "R0lGOD": "image/gif", "UklGR": "image/webp"}
    return next((kind for start, kind in begins.items() if image.startswith(start)), "image/jpeg")


_MERGED = ("stream_options", "text", "output_config", "reasoning")
"""Objects of a body of which one field says nothing of another, as of the schema."""


def with_body(said: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body with the user's fields, which replace ours."""
    merged = {
        name: {**said[name], **value}
        for name, value in more.items()
        if name in _MERGED and isinstance(value, Mapping) and isinstance(said.get(name), Mapping)
    }
    return {**said, **more, **merged}

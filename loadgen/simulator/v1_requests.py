"""Requests of the APIs under /v1 as Ollama's own, for which alone an answer is planned."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from loadgen.simulator.recorded import Refused

Api = Literal["chat", "completions", "responses", "messages"]
Kind = Literal["ollama", "llama.cpp"]
"""Whose server it is: what it refuses and ignores, and how it writes an answer."""
PATHS: Mapping[str, Api] = {
    "/v1/chat/completions": "chat", "/v1/completions": "completions", "/v1/responses": "responses",
    "/v1/messages": "messages",
}  # fmt: skip
_SAME = ("temperature", "top_p", "top_k", "seed", "stop", "presence_penalty", "frequency_penalty")
_OPTIONS: Mapping[str, str] = {
    **{name: name for name in _SAME}, "stop_sequences": "stop",
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens"), "num_predict"),
}  # fmt: skip
"""An option's name here -> its name in Ollama's own API."""


def parse(api: Api, kind: Kind, data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the body, and that of the same request to Ollama's own API; raise Refused if it is none.

    Its ``tool_choice``, which Ollama's own does not have, is ``required`` or a tool's name.
    """
    try:
        body = {name: value for name, value in json.loads(data).items() if value is not None}
        return body, _native(api, kind, body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(400, f"invalid request: {type(error).__name__} {error}") from error


def _native(api: Api, kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(body.get("model", ""), str) or (kind == "ollama" and not body.get("model")):
        raise Refused(400, "model is required")
    if api == "messages" and kind == "ollama" and not body.get("max_tokens"):
        raise Refused(400, "max_tokens is required and must be positive")
    asked = {
        "model": body.get("model", ""),
        "messages": list(_messages(api, body)) if api != "completions" else None,
        "prompt": str(body["prompt"]) if api == "completions" else None,
        "stream": bool(body.get("stream", False)),
        "format": _format(api, kind, body),
        "think": _think(body),
        **_tools(body),
        "options": {name: body[asked] for asked, name in _OPTIONS.items() if asked in body},
    }
    if not asked["messages"] and not asked["prompt"]:
        raise Refused(400, "[] is too short - 'messages'")
    return {name: value for name, value in asked.items() if value is not None and value != {}}


def _messages(api: Api, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if system := body.get("system") or body.get("instructions"):
        yield {"role": "system", "content": _text(system)}
    sent = body["input"] if api == "responses" else body["messages"]
    if isinstance(sent, str):
        yield {"role": "user", "content": sent}
        return
    for message in sent:
        yield from _message(message)


def _message(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a message or an item; blocks of one message may be several."""
    match message.get("type"):
        case "function_call":
            yield _calling("", [_call(message["name"], message["arguments"])])
            return
        case "function_call_output":
            yield {"role": "tool", "content": _text(message["output"])}
            return
    content = message.get("content") or ""
    blocks = content if isinstance(content, list) else ()
    results = [block for block in blocks if block["type"] == "tool_result"]
    for block in results:
        yield {"role": "tool", "content": _text(block.get("content") or "")}
    calls = [_call(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]
    calls += [_call(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or ()]
    if calls:
        yield _calling(_text(content), calls)
    elif not results:
        yield {"role": message["role"], "content": _text(content)}


def _calling(text: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "tool_calls": calls}


def _call(name: str, arguments: Any) -> dict[str, Any]:
    parsed = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    return {"function": {"name": name, "arguments": parsed}}


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def _format(api: Api, kind: Kind, body: Mapping[str, Any]) -> Any:
    """Return the schema that is asked for, in whichever form; llama.cpp ignores it in two of its APIs."""
    if kind == "llama.cpp" and api in ("responses", "messages"):
        return None
    if "json_schema" in body or "structured_outputs" in body:
        return body.get("json_schema") or body["structured_outputs"].get("json")
    form = body.get("response_format") or (body.get("text") or {}).get("format")
    form = form or (body.get("output_config") or {}).get("format") or {}
    schema = form.get("schema") or (form.get("json_schema") or {}).get("schema")
    return schema if schema is not None else "json" if form.get("type") == "json_object" else None


def _think(body: Mapping[str, Any]) -> bool | str | None:
    effort = body.get("reasoning_effort") or (body.get("reasoning") or {}).get("effort")
    effort = effort or (body.get("output_config") or {}).get("effort")
    if effort is not None:
        return False if effort == "none" else str(effort)
    kind = (body.get("thinking") or {}).get("type")
    return None if kind is None else bool(kind != "disabled")


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tools in the one form of Ollama and OpenAI's chat, and the choice, unless it is none."""
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, Mapping):
        choice = choice.get("name") or (choice.get("function") or {}).get("name") or choice["type"]
    if choice == "none" or not body.get("tools"):
        return {}
    chosen = {} if choice == "auto" else {"tool_choice": "required" if choice == "any" else choice}
    return {"tools": [_tool(tool) for tool in body["tools"]], **chosen}


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    if "function" in tool:
        return tool
    described = {"description": tool["description"]} if "description" in tool else {}
    schema = tool.get("parameters") or tool.get("input_schema") or {}
    return {"type": "function", "function": {"name": tool["name"], **described, "parameters": schema}}

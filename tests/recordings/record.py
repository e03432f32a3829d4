"""Record what a real server answers, byte for byte: ``python tests/recordings/record.py ADDRESS MODEL > FILE``.

A line is one exchange: ``request`` {method, path, body}, ``response`` {status, headers, headers_ms, chunks: [{ms,
text}]}; ``ms`` counts from the request, a chunk is one read of the socket.
"""

from __future__ import annotations

import http.client
import json
import sys
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

_USER = {"role": "user", "content": "Say hello to Ada in five words."}
_ASK_WEATHER = {"role": "user", "content": "What is the weather in Oslo? Use the tool."}
_ASK_PERSON = {"role": "user", "content": "Make up a person as JSON with name and age."}
_PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_FUNCTION = {"name": "get_weather", "description": "The weather of a city", "parameters": _PARAMETERS}
_SCHEMA = {
    "type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"], "additionalProperties": False,
}  # fmt: skip
_BAD_SCHEMA = {"type": "no such type"}


def exchanges(model: str) -> dict[str, tuple[str, str, Any]]:
    """Return name -> method, path, body."""
    chat = {"model": model, "stream": True, "stream_options": {"include_usage": True}, "temperature": 0, "seed": 1}
    respond = {"model": model, "stream": True, "temperature": 0, "store": False}
    message = {"model": model, "stream": True, "temperature": 0, "max_tokens": 48}
    chat_schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": _SCHEMA}}
    bad_schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": _BAD_SCHEMA}}
    chat_tool = {"type": "function", "function": _FUNCTION}
    return {
        "models": ("GET", "/v1/models", None),
        "props": ("GET", "/props", None),
        "version": ("GET", "/version", None),
        "chat": ("POST", "/v1/chat/completions", {**chat, "messages": [_USER], "max_tokens": 24}),
        "chat cut": ("POST", "/v1/chat/completions", {**chat, "messages": [_USER], "max_tokens": 3}),
        "chat again": ("POST", "/v1/chat/completions", {**chat, "messages": [_USER], "max_tokens": 3}),
        "chat whole": ("POST", "/v1/chat/completions", {**chat, "stream": False, "stream_options": None,
                                                        "messages": [_USER], "max_tokens": 3}),
        "chat schema": ("POST", "/v1/chat/completions", {**chat, "messages": [_ASK_PERSON], "max_tokens": 48,
                                                         "response_format": chat_schema}),
        "chat bad schema": ("POST", "/v1/chat/completions", {**chat, "messages": [_ASK_PERSON], "max_tokens": 8,
                                                             "response_format": bad_schema}),
        "chat tool": ("POST", "/v1/chat/completions", {**chat, "messages": [_ASK_WEATHER], "max_tokens": 48,
                                                       "tools": [chat_tool]}),
        "chat unknown model": ("POST", "/v1/chat/completions", {**chat, "model": "no-such-model", "max_tokens": 2,
                                                                "messages": [_USER]}),
        "completion": ("POST", "/v1/completions", {**chat, "prompt": "One, two,", "max_tokens": 4}),
        "responses": ("POST", "/v1/responses", {**respond, "input": [_USER], "max_output_tokens": 24}),
        "responses cut": ("POST", "/v1/responses", {**respond, "input": [_USER], "max_output_tokens": 3}),
        "responses schema": ("POST", "/v1/responses", {
            **respond, "input": [_ASK_PERSON], "max_output_tokens": 48,
            "text": {"format": {"type": "json_schema", "name": "answer", "schema": _SCHEMA}}}),
        "responses tool": ("POST", "/v1/responses", {
            **respond, "input": [_ASK_WEATHER], "max_output_tokens": 48, "tools": [{"type": "function", **_FUNCTION}]}),
        "messages": ("POST", "/v1/messages", {**message, "messages": [_USER]}),
        "messages cut": ("POST", "/v1/messages", {**message, "max_tokens": 3, "messages": [_USER]}),
        "messages tool": ("POST", "/v1/messages", {
            **message, "messages": [_ASK_WEATHER],
            "tools": [{"name": "get_weather", "description": _FUNCTION["description"], "input_schema": _PARAMETERS}]}),
        "messages schema": ("POST", "/v1/messages", {
            **message, "messages": [_ASK_PERSON],
            "output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}}}),
        "no such path": ("POST", "/v1/no/such/path", {}),
    }  # fmt: skip


def record(host: str, port: int, method: str, path: str, body: Any) -> dict[str, Any]:
    """Send one request on a connection of its own, and return the exchange."""
    connection = http.client.HTTPConnection(host, port, timeout=300)
    began = monotonic()
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {} if data is None else {"Content-Type": "application/json"})
    answer = connection.getresponse()
    headers_ms = (monotonic() - began) * 1e3
    chunks = []
    while part := answer.read1(1 << 16):
        chunks.append({"ms": round((monotonic() - began) * 1e3, 2), "text": part.decode()})
    connection.close()
    response = {
        "status": answer.status, "headers": dict(answer.getheaders()), "headers_ms": round(headers_ms, 2),
        "chunks": chunks,
    }  # fmt: skip
    return {"request": {"method": method, "path": path, "body": body}, "response": response}


if __name__ == "__main__":
    url = urlsplit(sys.argv[1])
    for name, (method, path, body) in exchanges(sys.argv[2]).items():
        exchange = record(url.hostname or "", url.port or 80, method, path, body)
        print(json.dumps({"name": name, **exchange}))
        print(f"{name}: HTTP {exchange['response']['status']}", file=sys.stderr)

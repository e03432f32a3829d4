"""What real servers answered, chunk by chunk, to the engine: the record holds what the recording holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from loadgen.types import Request
from tests.support.paths import ROOT
from tests.support.scripted_server import Peer, ask_script, chat

RECORDINGS = ROOT / "tests" / "recordings"


def exchanges() -> Iterator[Any]:
    for path in sorted(RECORDINGS.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            exchange = json.loads(line)
            if exchange["request"]["path"] in ("/api/chat", "/api/generate"):
                yield pytest.param(path.stem, exchange, id=f"{path.stem}: {exchange['name']}")


def as_request(path: str, body: Any) -> Request:
    if not isinstance(body, dict):
        return chat()
    fields = {name: body[name] for name in ("model", "format", "options", "keep_alive", "think") if name in body}
    if path == "/api/generate":
        return Request(index=3, prompt=body["prompt"], **fields)
    if fields.get("format") == "yaml":  # the official client does not let it through
        fields["format"] = "json"
    messages = body["messages"] if isinstance(body["messages"], list) else [{"role": "user", "content": "word " * 900}]
    return Request(index=3, messages=tuple(messages), tools=tuple(body.get("tools", ())), **fields)


def replay(response: dict[str, Any]) -> Any:
    def script(peer: Peer) -> None:
        peer.read()
        peer.head(response["status"], response["headers"])
        for chunk in response["chunks"]:
            data = chunk["text"].encode()
            if "Transfer-Encoding" in response["headers"]:
                peer.chunk(data)
            else:
                peer.sock.sendall(data)
        if "Transfer-Encoding" in response["headers"]:
            peer.chunk()
        peer.read()

    return script


ERRORS = {
    "error: tools unsupported": ("rejected", 400),
    "error: bad schema type": ("rejected", 400),
    "error: schema with unresolvable $ref": ("rejected", 400),
    "error: format is a string": ("rejected", 500),
    "error: think unsupported": ("http", 400),
    "error: body is not JSON": ("http", 400),
    "error: unknown model": ("http", 404),
}
OLD_ERRORS = {
    "error: bad schema type": ("rejected", 200),
    "error: schema with unresolvable $ref": ("rejected", 200),
    "error: format is a string": ("rejected", 200),
    "error: think unsupported": None,
    "chat format json": ("truncated", 200),  # the repeat guard ended it, without a done message
}


@pytest.mark.parametrize(("server", "exchange"), list(exchanges()))
def test_replayed_recording(server: str, exchange: dict[str, Any]) -> None:
    asked, response = exchange["request"], exchange["response"]
    (record,) = ask_script(replay(response), as_request(asked["path"], asked["body"]))
    errors = {**ERRORS, **OLD_ERRORS} if server == "ollama-0.5.4" else ERRORS
    expected = errors.get(exchange["name"])
    assert (record.error and (record.error.kind, record.error.status)) == expected
    text = "".join(chunk["text"] for chunk in response["chunks"])
    if expected is not None and expected[0] != "truncated":
        assert record.error is not None
        assert record.error.message == json.loads(text)["error"]
        assert (record.output_text, record.chunk_ns, record.output_tokens) == ("", (), None)
        return
    lines = [json.loads(line) for line in text.splitlines()]
    parts = [line.get("message", line) for line in lines]
    said_any = [any(part.get(k) for k in ("content", "response", "thinking", "tool_calls")) for part in parts]
    calls = [call["function"] for part in parts for call in part.get("tool_calls", ())]
    assert record.output_text == "".join(part.get("content") or part.get("response") or "" for part in parts)
    assert record.thinking_text == ""
    assert record.tool_calls == tuple({"name": call["name"], "arguments": call["arguments"]} for call in calls)
    assert len(record.chunk_ns) == sum(said_any)
    last = lines[-1]
    assert (
        record.prompt_tokens, record.output_tokens, record.load_ns, record.prompt_eval_ns, record.eval_ns,
        record.done_reason,
    ) == tuple(
        last.get(name) for name in ("prompt_eval_count", "eval_count", "load_duration", "prompt_eval_duration",
                                    "eval_duration", "done_reason")
    )  # fmt: skip
    assert record.index == 3


def test_the_recordings_are_all_there() -> None:
    assert len(list(exchanges())) == 2 * 19

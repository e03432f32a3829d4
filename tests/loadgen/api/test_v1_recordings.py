"""What real servers answered over /v1, event by event, to the engine: the record holds what the recording holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from loadgen.api.sending import chat_api
from loadgen.types import Request
from tests.loadgen.api.test_ollama_recordings import replay
from tests.support.paths import ROOT
from tests.support.scripted_server import ask_script

RECORDINGS = ROOT / "tests" / "recordings"
APIS = {
    "/v1/chat/completions": "openai", "/v1/completions": "openai", "/v1/responses": "responses",
    "/v1/messages": "anthropic",
}  # fmt: skip


def exchanges(*names: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(RECORDINGS.glob("*-v1.jsonl")):
        for line in path.read_text().splitlines():
            exchange = json.loads(line)
            asked = exchange["request"]
            if asked["path"] in APIS and asked["body"]["stream"] and (not names or exchange["name"] in names):
                yield path.stem, exchange


def replayed(exchange: dict[str, Any]) -> Any:
    api = chat_api(APIS[exchange["request"]["path"]])
    schema = {"type": "object"} if "schema" in exchange["name"] else None
    request = Request(index=3, model="m", messages=({"role": "user", "content": "x"},), format=schema,
                      prompt="x" if exchange["name"] == "completion" else None, options={"num_predict": 3})  # fmt: skip
    (record,) = ask_script(replay(exchange["response"]), request, api=api)
    return record


ERRORS = {
    ("llamacpp-v1", "chat bad schema"): ("rejected", 400),
    ("ollama-0.5.4-v1", "chat bad schema"): ("protocol", 200),  # one empty event, and the end
    ("ollama-0.5.4-v1", "chat unknown model"): ("http", 404),
}


@pytest.mark.parametrize(("server", "exchange"), [pytest.param(*e, id=f"{e[0]}: {e[1]['name']}") for e in exchanges()])
def test_replayed_recording(server: str, exchange: dict[str, Any]) -> None:
    record = replayed(exchange)
    expected = ERRORS.get((server, exchange["name"]))
    if exchange["response"]["status"] == 404:
        expected = ("http", 404)
    assert (record.error and (record.error.kind, record.error.status)) == expected
    if expected is None:
        text = "".join(chunk["text"] for chunk in exchange["response"]["chunks"])
        said = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        assert record.output_text == "".join(map(text_of, said))
        assert len(record.chunk_ns) == sum(bool(text_of(event)) or has_call(event) for event in said)
        assert record.output_tokens == max(tokens_of(event) for event in said)


def text_of(event: dict[str, Any]) -> str:
    if event.get("type") == "response.output_text.delta":
        return str(event["delta"])
    if "choices" in event:
        return "".join(
            choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in event["choices"]
        )
    return str(event.get("delta", {}).get("text", "")) if event.get("type") == "content_block_delta" else ""


def has_call(event: dict[str, Any]) -> bool:
    return any(choice.get("delta", {}).get("tool_calls") for choice in event.get("choices", ()))


def tokens_of(event: dict[str, Any]) -> int:
    usage = event.get("usage") or event.get("response", {}).get("usage") or {}
    return int(usage.get("completion_tokens") or usage.get("output_tokens") or 0)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("chat again", ("length", 16, 3, 15, 321_878_000, 1_063_402_000)),
        ("responses cut", ("length", 16, 3)),
        ("messages cut", ("length", 16, 3)),
    ],
)
def test_what_llama_cpp_tells_at_the_end(name: str, facts: tuple[Any, ...]) -> None:
    ((_, exchange),) = [found for found in exchanges(name) if found[0] == "llamacpp-v1"]
    record = replayed(exchange)
    told = (record.done_reason, record.prompt_tokens, record.output_tokens, record.cached_prompt_tokens,
            record.prompt_eval_ns, record.eval_ns)  # fmt: skip
    assert told[: len(facts)] == facts


def test_a_call_of_ollamas_chat_completions() -> None:
    ((_, exchange),) = [found for found in exchanges("chat tool") if found[0] == "ollama-0.5.4-v1"]
    assert replayed(exchange).tool_calls == ({"name": "get_weather", "arguments": {"city": "Oslo"}},)


def test_the_recordings_are_all_there() -> None:
    assert len(list(exchanges())) == 32

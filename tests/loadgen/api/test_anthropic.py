"""A request in the words of /v1/messages, and what its events bring."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen.api.answer import Answer, CallPiece, Piece
from loadgen.api.anthropic import DEFAULT_MAX_TOKENS, body, piece
from loadgen.types import Request
from tests.support.scripted_server import chat
from tests.support.simulators import WEATHER

USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object"}


def test_what_a_request_lacks_is_absent_but_the_limit_that_the_api_insists_on() -> None:
    assert body(chat()) == {"model": "m", "stream": True, "messages": [USER], "max_tokens": DEFAULT_MAX_TOKENS}


def test_everything_a_request_holds_has_its_word() -> None:
    function = WEATHER["function"]
    request = chat(format=SCHEMA, tools=(WEATHER,), think=True, body={"metadata": {"user_id": "u"}},
                   options={"num_predict": 4000, "stop": "END", "top_k": 3})  # fmt: skip
    tool = {"name": function["name"], "description": function["description"], "input_schema": function["parameters"]}
    assert body(request) == {
        "model": "m", "stream": True, "messages": [USER], "max_tokens": 4000, "stop_sequences": ["END"], "top_k": 3,
        "tools": [tool], "thinking": {"type": "enabled", "budget_tokens": 2000},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}, "metadata": {"user_id": "u"},
    }  # fmt: skip
    strict = {"type": "function", "function": {**function, "strict": True}}
    assert body(chat(tools=(strict,)))["tools"][0]["strict"] is True


@pytest.mark.parametrize(
    ("think", "said"),
    [
        (False, {"thinking": {"type": "disabled"}}),
        (True, {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        ("low", {"output_config": {"effort": "low"}}),
        (None, {}),
    ],
)
def test_how_thinking_is_asked_for(think: Any, said: Any) -> None:
    asked = body(chat(think=think, options={"num_predict": 100}))
    assert {name: asked[name] for name in ("thinking", "output_config") if name in asked} == said
    assert asked["max_tokens"] == (1124 if think is True else 100)  # above the budget, which the API insists on


def test_a_longer_limit_leaves_half_to_the_thinking() -> None:
    asked = body(chat(think=True, options={"num_predict": 4000}))
    assert (asked["max_tokens"], asked["thinking"]["budget_tokens"]) == (4000, 2000)


def test_a_field_of_an_object_leaves_the_schema_beside_it() -> None:
    schema = {"type": "object"}
    asked = body(chat(format=schema, body={"output_config": {"effort": "low"}}))
    assert asked["output_config"] == {"format": {"type": "json_schema", "schema": schema}, "effort": "low"}


def test_a_system_message_stands_beside_the_others() -> None:
    messages = ({"role": "system", "content": "be brief"}, USER)
    asked = body(Request(index=0, model="m", messages=messages))
    assert (asked["system"], asked["messages"]) == ("be brief", [USER])


def test_results_of_tools_are_blocks_of_one_message() -> None:
    calls = [{"function": {"name": name, "arguments": {"a": 1}}} for name in ("f", "g")]
    results = [{"role": "tool", "tool_name": name, "content": name} for name in ("f", "g")]
    messages = (USER, {"role": "assistant", "content": "ok", "tool_calls": calls}, *results)
    assert body(Request(index=0, model="m", messages=messages))["messages"] == [
        USER,
        {"role": "assistant", "content": [
            {"type": "text", "text": "ok"},
            {"type": "tool_use", "id": "call_0", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "call_1", "name": "g", "input": {"a": 1}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "call_0", "content": "f"},
            {"type": "tool_result", "tool_use_id": "call_1", "content": "g"},
        ]},
    ]  # fmt: skip


def test_an_image_goes_before_the_text() -> None:
    message = {"role": "user", "content": "what?", "images": ["iVBORw"]}
    (said,) = body(Request(index=0, model="m", messages=(message,)))["messages"]
    assert said["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw"}},
        {"type": "text", "text": "what?"},
    ]


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def delta(kind: str, **fields: Any) -> dict[str, Any]:
    return event("content_block_delta", index=1, delta={"type": kind, **fields})


@pytest.mark.parametrize(
    ("part", "brings"),
    [
        (event("message_start", message={"usage": {"input_tokens": 3, "output_tokens": 0}}),
         Piece(facts={"prompt_tokens": 3})),
        (event("message_start", message={}), Piece()),
        (event("content_block_start", index=0, content_block={"type": "text", "text": ""}), Piece()),
        (event("content_block_start", content_block={"type": "thinking", "thinking": "h"}), Piece(thinking="h")),
        (delta("text_delta", text="a"), Piece("a")),
        (delta("thinking_delta", thinking="hm"), Piece(thinking="hm")),
        (delta("signature_delta", signature="x" * 64), Piece()),
        (delta("signature_delta", signature="x" * 300), Piece(facts={"thinking_partial": True})),
        (event("content_block_start", content_block={"type": "redacted_thinking", "data": "x"}),
         Piece(facts={"thinking_partial": True})),
        (event("message_delta", delta={}, usage={"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 7}}),
         Piece(facts={"output_tokens": 9, "thinking_tokens": 7})),
        (delta("input_json_delta", partial_json=""), Piece()),
        (event("content_block_stop", index=0), Piece()),
        (event("message_delta", delta={"stop_reason": "max_tokens"}, usage={"output_tokens": 3}),
         Piece(done=True, facts={"output_tokens": 3, "done_reason": "max_tokens"})),
        (event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 3}),
         Piece(done=True, facts={"output_tokens": 3, "done_reason": "tool_use"})),
        (event("message_delta", delta={"stop_reason": "refusal"}), Piece(done=True, facts={"done_reason": "refusal"})),
        (event("message_stop"), Piece(done=True)),
    ],
)  # fmt: skip
def test_what_an_event_brings(part: dict[str, Any], brings: Piece) -> None:
    assert piece(part) == brings


def test_a_prompts_tokens_include_those_from_the_cache() -> None:
    usage = {"input_tokens": 1, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 8}
    facts = piece(event("message_start", message={"usage": usage})).facts
    assert facts == {"prompt_tokens": 39, "cached_prompt_tokens": 30}


def test_a_call_is_put_together_of_its_deltas() -> None:
    answer = Answer()
    for part in (
        event("content_block_start", index=1, content_block={"type": "tool_use", "id": "t", "name": "f", "input": {}}),
        delta("input_json_delta", partial_json='{"a"'),
        delta("input_json_delta", partial_json=": 1}"),
        event(
            "content_block_start",
            index=2,
            content_block={"type": "tool_use", "id": "u", "name": "g", "input": {"b": 2}},
        ),
    ):
        answer.add(piece(part), 1)
    assert answer.tool_calls == ({"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"b": 2}})
    assert piece(delta("input_json_delta", partial_json="{")).calls == (CallPiece(None, "{", 1, goes_on=True),)

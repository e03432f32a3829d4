"""A request in the words of /v1/chat/completions, and what its chunks bring."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen.api.answer import CallPiece, Piece
from loadgen.api.openai import body, piece
from loadgen.types import Request
from tests.support.scripted_server import chat
from tests.support.simulators import WEATHER

MESSAGES = [{"role": "user", "content": "hi"}]


def test_what_a_request_lacks_is_absent() -> None:
    usage = {"stream_options": {"include_usage": True}}
    assert body(chat()) == {"model": "m", "stream": True, "messages": MESSAGES, **usage}
    assert body(chat(), stream=False) == {"model": "m", "stream": False, "messages": MESSAGES}


def test_everything_a_request_holds_has_its_word() -> None:
    schema = {"type": "object"}
    request = chat(format=schema, tools=(WEATHER,), think=True, options={"num_predict": 9, "seed": 1})
    assert body(request) == {
        "model": "m", "stream": True, "messages": MESSAGES, "tools": [WEATHER], "reasoning_effort": "medium",
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        "max_tokens": 9, "seed": 1, "stream_options": {"include_usage": True},
    }  # fmt: skip


@pytest.mark.parametrize(("think", "effort"), [(True, "medium"), (False, "none"), ("high", "high")])
def test_thinking_is_an_effort(think: bool | str, effort: str) -> None:
    assert body(chat(think=think))["reasoning_effort"] == effort


def test_the_limit_of_an_answer_stands_in_the_field_that_the_server_takes() -> None:
    request = chat(options={"num_predict": 9}, limit_field="max_completion_tokens")
    assert {"max_tokens", "max_completion_tokens"} & body(request).keys() == {"max_completion_tokens"}
    assert body(request)["max_completion_tokens"] == 9
    assert "max_completion_tokens" not in body(chat(limit_field="max_completion_tokens"))
    prompt = Request(index=0, model="m", prompt="hi", options={"num_predict": 9}, limit_field="max_completion_tokens")
    assert body(prompt)["max_tokens"] == 9, "completions have no other field"


@pytest.mark.parametrize("ours", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("given", ["max_tokens", "max_completion_tokens"])
def test_a_limit_in_the_body_is_the_only_one(ours: str, given: str) -> None:
    asked = body(chat(options={"num_predict": 150}, limit_field=ours, body={given: 99}))
    assert {name: asked[name] for name in ("max_tokens", "max_completion_tokens") if name in asked} == {given: 99}


def test_an_option_of_the_stream_leaves_the_counts_on() -> None:
    asked = body(chat(body={"stream_options": {"include_obfuscation": False}}))
    assert asked["stream_options"] == {"include_usage": True, "include_obfuscation": False}


def delta(said: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": said, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("part", "brings"),
    [
        (delta({"role": "assistant", "content": None}), Piece()),
        (delta({"content": "a"}), Piece("a")),
        (delta({"reasoning": "hm"}), Piece(thinking="hm")),
        (delta({}, "length"), Piece(done=True, facts={"done_reason": "length"})),
        ({"choices": [], "usage": {"completion_tokens": 3}}, Piece(facts={"output_tokens": 3})),
        # A total that is less than its parts: the prompt is among the output. More: what was thought is in neither.
        ({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 12}},
         Piece(facts={"prompt_tokens": 9})),
        ({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 40}},
         Piece(facts={"prompt_tokens": 9, "output_tokens": 3, "total_tokens": 40})),
        ({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 40,
                                   "completion_tokens_details": {"reasoning_tokens": 28}}},
         Piece(facts={"prompt_tokens": 9, "output_tokens": 31, "thinking_tokens": 28})),
        ({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 31, "total_tokens": 40,
                                   "completion_tokens_details": {"reasoning_tokens": 28}}},
         Piece(facts={"prompt_tokens": 9, "output_tokens": 31, "thinking_tokens": 28})),
        (delta({"reasoning": "so", "reasoning_details": [{"type": "reasoning.summary", "summary": "so"}]}),
         Piece(thinking="so", facts={"thinking_partial": True})),
        (delta({"content": "", "reasoning_details": [{"type": "reasoning.text", "text": "so"}]}), Piece(thinking="so")),
        ({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]},
         Piece("a", done=True, facts={"done_reason": "stop"}, whole=True)),
    ],
)  # fmt: skip
def test_what_a_part_brings(part: dict[str, Any], brings: Piece) -> None:
    assert piece(part)._replace(calls=()) == brings


def test_a_call_comes_whole_or_in_pieces() -> None:
    calls = [
        {"index": 1, "function": {"name": "f", "arguments": '{"a"'}},
        {"index": 1, "function": {"arguments": ": 1}"}},
    ]
    assert piece(delta({"tool_calls": calls})).calls == [CallPiece("f", '{"a"', 1), CallPiece(None, ": 1}", 1)]

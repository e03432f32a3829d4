"""A request in the words of /v1/responses, and what its events bring."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen.api.answer import Answer, CallPiece, Piece
from loadgen.api.responses import body, piece
from loadgen.types import Request
from tests.support.scripted_server import chat
from tests.support.simulators import WEATHER

USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object"}


def test_what_a_request_lacks_is_absent() -> None:
    assert body(chat()) == {"model": "m", "stream": True, "store": False, "input": [USER]}


def test_everything_a_request_holds_has_its_word() -> None:
    request = chat(
        format=SCHEMA, tools=(WEATHER,), think="high", options={"num_predict": 9}, body={"metadata": {"a": "b"}}
    )
    assert body(request) == {
        "model": "m", "stream": True, "store": False, "input": [USER], "max_output_tokens": 9,
        "tools": [{"type": "function", **WEATHER["function"]}], "reasoning": {"effort": "high"},
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA}}, "metadata": {"a": "b"},
    }  # fmt: skip
    assert body(chat(format=SCHEMA, dialect="strict"))["text"]["format"]["strict"] is True
    assert body(chat(format="json_object"))["text"] == {"format": {"type": "json_object"}}


def test_calls_and_results_are_items_of_their_own() -> None:
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}]
    messages = (USER, {"role": "assistant", "content": "", "tool_calls": calls},
                {"role": "tool", "tool_name": "f", "content": "42"})  # fmt: skip
    assert body(Request(index=0, model="m", messages=messages))["input"] == [
        USER,
        {"type": "function_call", "call_id": "call_0", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "call_0", "output": "42"},
    ]


def test_an_image_goes_with_the_text() -> None:
    message = {"role": "user", "content": "what?", "images": ["iVBORw"]}
    assert body(Request(index=0, model="m", messages=(message,)))["input"] == [
        {"role": "user", "content": [
            {"type": "input_text", "text": "what?"},
            {"type": "input_image", "image_url": "data:image/png;base64,iVBORw"},
        ]}
    ]  # fmt: skip


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


@pytest.mark.parametrize(
    ("part", "brings"),
    [
        (event("response.created", response={}), Piece()),
        (event("response.output_text.delta", delta="a"), Piece("a")),
        (event("response.output_text.done", text="a"), Piece("a", whole=True)),
        (event("response.refusal.delta", delta="no"), Piece("no", facts={"refused": True})),
        (event("response.reasoning_text.delta", delta="hm"), Piece(thinking="hm")),
        (event("response.reasoning_summary_text.delta", delta="hm"),
         Piece(thinking="hm", facts={"thinking_partial": True})),
        (event("response.output_item.added", item={"type": "message"}), Piece()),
        (event("response.completed", response={"usage": None}),
         Piece(done=True, facts={"done_reason": "stop"}, whole=True)),
        (event("response.incomplete", response={"incomplete_details": {"reason": "max_output_tokens"}}),
         Piece(done=True, facts={"done_reason": "max_output_tokens"}, whole=True)),
        (event("response.incomplete", response={"incomplete_details": {"reason": "content_filter"}}),
         Piece(done=True, facts={"done_reason": "content_filter"}, whole=True)),
    ],
)  # fmt: skip
def test_what_an_event_brings(part: dict[str, Any], brings: Piece) -> None:
    assert piece(part)._replace(calls=()) == brings


def test_counts_and_durations_are_those_of_the_last_event() -> None:
    usage = {"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 8},
             "output_tokens_details": {"reasoning_tokens": 2}}  # fmt: skip
    timings = {"prompt_ms": 1.5, "predicted_ms": 20}
    assert piece(event("response.completed", response={"usage": usage}, timings=timings)).facts == {
        "done_reason": "stop", "prompt_tokens": 9, "output_tokens": 4, "cached_prompt_tokens": 8, "thinking_tokens": 2,
        "prompt_eval_ns": 1_500_000, "eval_ns": 20_000_000,
    }  # fmt: skip


def test_two_calls_at_once_are_told_apart_by_their_place() -> None:
    answer = Answer()
    for part in (
        event("response.output_item.added", output_index=0, item={"type": "function_call", "id": "a", "name": "f"}),
        event("response.output_item.added", output_index=1, item={"type": "function_call", "id": "b", "name": "g"}),
        event("response.function_call_arguments.delta", output_index=0, item_id="a", delta='{"x"'),
        event("response.function_call_arguments.delta", output_index=1, item_id="b", delta="{}"),
        event("response.function_call_arguments.delta", output_index=0, item_id="a", delta=": 1}"),
    ):
        answer.add(piece(part), 1)
    assert answer.tool_calls == ({"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": {}})


def test_calls_without_a_place_are_told_apart_by_their_ids() -> None:
    """llama.cpp gives no output_index."""
    answer = Answer()
    for part in (
        event(
            "response.output_item.added", item={"type": "function_call", "call_id": "a", "name": "f", "arguments": ""}
        ),
        event("response.function_call_arguments.delta", item_id="a", delta="{}"),
        event(
            "response.output_item.added", item={"type": "function_call", "call_id": "b", "name": "f", "arguments": ""}
        ),
    ):
        answer.add(piece(part), 1)
    assert answer.tool_calls == ({"name": "f", "arguments": {}}, {"name": "f", "arguments": {}})


def test_a_call_begun_is_the_instant_of_the_first_tool_call() -> None:
    added = event("response.output_item.added", output_index=0, item={"type": "function_call", "id": "a", "name": "f"})
    assert piece(added).calls == (CallPiece("f", "", 0, "a"),)

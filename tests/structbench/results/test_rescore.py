"""Scoring again by unchanged rules changes nothing: what is stored decides as the answer did when it came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.api import sending
from loadgen.api.answer import Answer, CallPiece, Piece
from loadgen.types import NOT_JSON, RequestError
from loadgen.wire.access import NO_ACCESS
from structbench.results import rescore
from structbench.store.rows import storable
from structbench.strict_json import stored
from structbench.suites.requests import request_of
from structbench.types import Case, Config

MESSAGES = ({"role": "user", "content": "?"},)
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CASES = (Case(id="s", messages=MESSAGES, schema={"type": "object"}), Case(id="t", messages=MESSAGES, tools=(WEATHER,)))
CONFIG = Config(
    suite="s", suite_hash="h", model="m", model_digest="d", server_version="1", server_address="here", endpoint="chat",
    structured="format", think=None, options={}, keep_alive=None, load={"kind": "closed", "concurrency": 1}, seed=0,
    warmup=None, timeout_s=300.0, scorer_version=1,
)  # fmt: skip
WORDS = st.sampled_from(
    ["x" * 480, "'", '"', "raw='", "{", "}", '{"error": "', "token repeat limit reached", "invalid format", "m ", ". ",
     "does not support tools", "error parsing tool call: ", "model said ", "has terminated", "Failed to parse input "]
)  # fmt: skip
NUMBERS = st.sampled_from(["1e999", "-1e999", "9" * 300, "9" * 301, "9" * 310, "NaN", "Infinity", "1.5", "-0.0", "7"])
TEXTS = st.recursive(
    NUMBERS | st.text(st.characters(exclude_categories=["Cs"]), max_size=3).map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=2).map(lambda each: f"[{','.join(each)}]")
        | st.lists(inner, max_size=2).map(lambda each: "{" + ",".join(f'"a":{one}' for one in each) + "}")
    ),
    max_leaves=4,
)


@given(
    words=st.lists(WORDS, max_size=5),
    status=st.sampled_from([200, 400, 429, 500]),
    said=st.sampled_from([None, "", "a"]),
    case=st.sampled_from(CASES),
    wait=st.sampled_from(["", "20"]),
)
def test_an_error_judged_again_is_of_the_same_kind(words: Any, status: int, said: Any, case: Case, wait: str) -> None:
    answer = Answer()
    if said is not None:
        answer.add(Piece(said), 1)
    error = RequestError("stream" if status == 200 else "http", "".join(words), status)
    told = sending._told(error, NO_ACCESS, wait, request_of(case, CONFIG, 0), answer)
    row = {
        "request_index": 0, "error_kind": told.kind, "error_status": status, "error_message": told.message,
        "retry_after_s": told.retry_after_s, "chunks": len(answer.chunk_ns),
    }  # fmt: skip
    assert rescore._kind(row, case, CONFIG) == told.kind


@pytest.mark.parametrize(
    ("message", "status", "kind"),
    [
        ("The value '" + "x" * 600 + "' in the schema of format is invalid", 400, "http"),
        ("model said '" + "x" * 600 + "': token repeat limit reached", 500, "http"),
        ("token repeat limit reached: '" + "x" * 600, 500, "truncated"),
    ],
)
def test_a_message_is_judged_as_far_as_it_is_kept(message: str, status: int, kind: str) -> None:
    error = RequestError("http", message, status)
    assert sending._told(error, NO_ACCESS, "", request_of(CASES[0], CONFIG, 0), Answer()).kind == kind


@given(arguments=TEXTS)
def test_arguments_read_from_a_results_file_are_those_that_were_scored(arguments: str) -> None:
    answer = Answer()
    answer.add(Piece(calls=(CallPiece("weather", arguments),)), 1)
    calls = list(answer.tool_calls)
    assert stored(storable(calls, "tool_calls", "JSON")) == calls


@pytest.mark.parametrize(("depth", "kept"), [(97, True), (98, False), (100_000, False)])
def test_arguments_that_a_results_file_cannot_give_back_are_kept_as_text(depth: int, kept: bool) -> None:
    text = '{"a":' + "[" * (depth - 1) + "1" + "]" * (depth - 1) + "}"
    answer = Answer()
    answer.add(Piece(calls=(CallPiece("weather", text),)), 1)
    calls = list(answer.tool_calls)
    assert (NOT_JSON not in calls[0]["arguments"]) is kept
    assert stored(storable(calls, "tool_calls", "JSON")) == calls

"""Checking suite files: every problem is told, nothing sound is called one, and checking ends in time."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import ollama
import pytest

from structbench.errors import BadInput
from structbench.suites import fields as suite_fields
from structbench.suites.catalog import check_suite, load_suite
from structbench.suites.generated import TextShape

CASE: dict[str, Any] = {"id": "a", "prompt": "hello"}
OBJECT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
WITH_SCHEMA = {"schema": OBJECT}
PARAMETERS = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}
TOOL = {"type": "function", "function": {"name": "look", "description": "Look it up", "parameters": PARAMETERS}}


def problems(file: Path) -> list[str]:
    """What the check tells of a file of one line, without the place."""
    return [problem.split(": ", 1)[1] for line in check_suite(str(file)) for problem in line.problems]


def told_of(tmp_path: Path, case: dict[str, Any]) -> list[str]:
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps({**CASE, **case}))
    return problems(file)


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        (
            {"schema": {"type": "objekt", "required": "x", "properties": 5}},
            ["schema.properties", "schema.type", "schema.required"],
        ),
        ({"tools": [TOOL], "expected_calls": [{"name": "see", "arguments": {}}], "tags": 3},
         ["tags", "expected_calls[0].name"]),
        ({**WITH_SCHEMA, "expected": 5, "example": {"n": "x"}}, ["expected", "example.n"]),
        ({"schema": {"type": 5}, "expected": {"/n": 1}, "example": {"n": 2}}, ["schema.type", "example"]),
        ({"tools": 5, "then": {"results": {}, "mention": 1}}, ["tools", "then.mention", "then"]),
        ({**WITH_SCHEMA, "expected": {"/n": 1}, "compare": {"/n": {"tolerance": "x"}}, "example": {"n": 2}},
         ['compare["/n"].tolerance']),
        ({**WITH_SCHEMA, "expected": [], "compare": {"/n": {"tolerance": 1}}}, ["expected"]),
    ],
)  # fmt: skip
def test_what_is_broken_hides_nothing_that_is_sound_by_itself(
    tmp_path: Path, case: dict[str, Any], fields: list[str]
) -> None:
    assert [problem.split(": ")[0] for problem in told_of(tmp_path, case)] == fields


SUB = {"$id": "https://example.org/sub", "$defs": {"y": {"type": "string"}}, "items": {"$ref": "#/$defs/y"}}


@pytest.mark.parametrize(
    "schema",
    [
        {"const": {"$ref": "foo"}},
        {"enum": [{"$ref": "foo"}], "default": {"$ref": "foo"}, "examples": [{"$ref": "foo"}]},
        {"properties": {"$ref": {"type": "string"}}},
        {"properties": {"a": SUB, "b": {"$ref": "https://example.org/sub#/$defs/y"}}},
        {"$defs": {"a": {"$anchor": "here"}}, "$ref": "#here"},
        {"$ref": "#/parts/a", "parts": {"a": {"items": {"$ref": "#"}}}},
    ],
    ids=str,
)
def test_a_reference_that_leads_somewhere_and_what_is_none_are_no_problem(
    tmp_path: Path, schema: dict[str, Any]
) -> None:
    assert told_of(tmp_path, {"schema": schema}) == []


@pytest.mark.parametrize(
    ("schema", "reference"),
    [
        ({"properties": {"a": {**SUB, "$defs": {}}}, "$defs": SUB["$defs"]}, "#/$defs/y"),
        ({"$ref": "#/parts/a", "parts": {"a": {"items": {"$ref": "#/parts/b"}}}}, "#/parts/b"),
        ({"$ref": "#/type/x", "type": "string"}, "#/type/x"),
        ({"$ref": "#/required/x", "required": ["a"]}, "#/required/x"),
        ({"$ref": "#/const", "const": 5}, "#/const"),
        ({"$ref": "#/const", "const": {"properties": 5}}, "#/const"),
    ],
    ids=str,
)
def test_a_reference_that_leads_to_no_schema_is_named(tmp_path: Path, schema: dict[str, Any], reference: str) -> None:
    lost = f'schema: "$ref": "{reference}" does not resolve: define it in the schema (nothing is fetched)'
    assert told_of(tmp_path, {"schema": schema}) == [lost]


ENDLESS = {"type": "string", "pattern": "^(a+)+$"}
ENDLESS_PARAMETERS = {"type": "object", "properties": {"what": ENDLESS}}
ENDLESS_TOOL = {"type": "function", "function": {"name": "look", "parameters": ENDLESS_PARAMETERS}}


@pytest.mark.parametrize(
    ("case", "field"),
    [
        ({"schema": ENDLESS, "example": "a" * 60 + "!"}, "example"),
        (
            {"tools": [ENDLESS_TOOL], "expected_calls": [{"name": "look", "arguments": {"what": ["a" * 60 + "!"]}}]},
            "expected_calls",
        ),
    ],
)
@pytest.mark.slow
def test_a_pattern_without_end_is_given_up_and_the_rest_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: dict[str, Any], field: str
) -> None:
    monkeypatch.setattr(suite_fields, "CHECK_LIMIT_S", 0.2)
    rung: list[int] = []
    before = signal.signal(signal.SIGPROF, lambda number, _frame: rung.append(number))
    try:
        told = told_of(tmp_path, {**case, "tags": 3})
        signal.raise_signal(signal.SIGPROF)
    finally:
        signal.signal(signal.SIGPROF, before)
    assert told == [
        "tags: must be an array, not a number",
        f"{field}: takes more than 0.2 s of CPU time to check: simplify the pattern",
    ]
    assert rung == [signal.SIGPROF], "the handler of before is back, and nothing rings late"


def test_in_another_thread_the_check_has_no_limit_and_works(tmp_path: Path) -> None:
    found: list[list[str]] = []
    case = {"schema": OBJECT, "example": {"n": "x"}}
    thread = threading.Thread(target=lambda: found.append(told_of(tmp_path, case)))
    thread.start()
    thread.join()
    assert found == [["example.n: breaks the schema: 'x' is not of type 'integer'"]]


def test_a_schema_too_deep_to_be_checked_is_called_that(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"properties": {"a": deep}}
    file = tmp_path / "deep.jsonl"
    file.write_text(json.dumps({**CASE, "schema": deep, "tags": "x"}))
    assert problems(file) == [
        "schema: nested too deeply to check: make it flatter", "tags: must be an array, not a string",
    ]  # fmt: skip
    (tmp_path / "deep.json").write_text(json.dumps(deep))
    with pytest.raises(BadInput, match=r"deep\.json: schema: nested too deeply to check"):
        load_suite(str(tmp_path), text=TextShape(), seed=0)


SAID = {"role": "assistant", "content": "x"}


def told_of_messages(tmp_path: Path, message: dict[str, Any]) -> list[str]:
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps({"id": "a", "messages": [{"role": "user", "content": "Go."}, message]}))
    return problems(file)


def call_of(**function: Any) -> list[Any]:
    return [{"function": {"name": "f", "arguments": {}, **function}}]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"thinking": 5}, "thinking: must be a string, not a number"),
        ({"tool_name": 7}, "tool_name: must be a string, not a number"),
        ({"tool_calls": "nonsense"}, "tool_calls: must be an array, not a string"),
        ({"tool_calls": ["f"]}, "tool_calls[0]: must be an object, not a string"),
        ({"tool_calls": [{}]}, "tool_calls[0].function: must be an object, not null"),
        ({"tool_calls": call_of(name=5)}, "tool_calls[0].function.name: must be a string, not a number"),
        ({"tool_calls": call_of(arguments="{}")}, "tool_calls[0].function.arguments: must be an object, not a string"),
    ],
    ids=str,
)
def test_what_the_official_client_refuses_in_a_message_is_a_problem(
    tmp_path: Path, more: dict[str, Any], problem: str
) -> None:
    message = {"role": "assistant", "content": "x", **more}
    with pytest.raises(ValueError, match="validation error"):
        ollama.Message.model_validate(message)
    assert told_of_messages(tmp_path, message) == [f"messages[1].{problem}"]


def test_what_the_official_client_would_leave_out_of_a_call_is_a_problem(tmp_path: Path) -> None:
    calls = [{"id": "1", **call_of(index=0)[0]}, {"name": "f"}]
    assert [problem.split(": ")[:2] for problem in told_of_messages(tmp_path, {**SAID, "tool_calls": calls})] == [
        ["messages[1].tool_calls[0].id", "unknown key"],
        ["messages[1].tool_calls[0].function.index", "unknown key"],
        ["messages[1].tool_calls[1].name", "unknown key"],
        ["messages[1].tool_calls[1].function", "must be an object, not null"],
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"thinking": "hm", "tool_calls": call_of(arguments={"a": [1]})},
        {"thinking": None, "tool_calls": None, "tool_name": None},
        {"role": "tool", "tool_name": "f"},
    ],
    ids=str,
)
def test_what_the_official_client_takes_is_no_problem(tmp_path: Path, message: dict[str, Any]) -> None:
    ollama.Message.model_validate({**SAID, **message})
    assert told_of_messages(tmp_path, {**SAID, **message}) == []

"""A schema or a tool choice that a server ignores with status 200 is told by the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from structbench.notes import ignored
from tests.support.in_memory import Row, Tables, tables


@pytest.fixture(scope="module")
def store() -> Iterator[Tables]:
    with tables() as opened:
        yield opened


def told(store: Tables, rows: Sequence[Row], body: Any = None, **run: Any) -> dict[str, tuple[float | None, str]]:
    config = json.dumps({} if body is None else {"body": body})
    store.fill(
        runs=[{"run_id": "r", "structured": "format", "api": "openai", "config": config, **run}],
        requests=[{"run_id": "r", "request_index": index, **row} for index, row in enumerate(rows)],
    )
    return {
        note.kind: (note.share, note.text) for note in ignored.IGNORED.notes(store.query(ignored.IGNORED.sql, ["r"]))
    }


RIGHT = {"outcome": "correct", "json_valid": True, "schema_valid": True}
OTHER = {"outcome": "schema_violation", "json_valid": True, "schema_valid": False}
PROSE = {"outcome": "invalid_json", "json_valid": False, "schema_valid": False}
CUT = {"outcome": "truncated", "json_valid": False, "schema_valid": False}
EMPTY = {"outcome": "no_output", "json_valid": False, "schema_valid": False}
CALL = {"tool_calls": '[{"name": "f", "arguments": {}}]'}
TEXT = {"tool_calls": "[]"}


def test_a_cut_answer_tells_of_the_schema_where_it_does_not_begin_as_json_does(store: Tables) -> None:
    cut = [{**CUT, "output_text": text} for text in ("Sure! Here", "```json\n{", '{"a": [', '"tex', "12", "null", " {")]
    assert told(store, cut)["schema_ignored"][1].startswith("2 of 2 answers are not JSON")


def test_answers_that_mostly_break_a_schema_that_was_sent_are_told(store: Tables) -> None:
    share, text = told(store, [PROSE, PROSE, OTHER, RIGHT])["schema_ignored"]
    assert share == 0.75
    assert text.startswith("3 of 4 answers are not JSON that satisfies the schema (2 no JSON at all), although it was")


@pytest.mark.parametrize(
    ("rows", "run"),
    [
        ([PROSE, RIGHT], {}),
        ([PROSE, PROSE], {"structured": "prompt"}),
        ([CUT, CUT, EMPTY, RIGHT], {}),
        ([{**PROSE, "error_kind": "rejected"}] * 2, {}),
        ([{"outcome": "completed"}] * 2, {"structured": "none"}),
        ([], {}),
    ],
    ids=["half of them", "only in the prompt", "cut or empty", "refused", "no schema", "nothing"],
)
def test_nothing_is_told_where_the_model_may_have_failed(
    store: Tables, rows: Sequence[Row], run: dict[str, Any]
) -> None:
    assert told(store, rows, **run) == {}


@pytest.mark.parametrize("structured", ["strict", "json_schema", "structured_outputs", "tools"])
def test_a_dialect_is_named(store: Tables, structured: str) -> None:
    _, text = told(store, [PROSE], structured=structured, api="ollama")["schema_ignored"]
    assert ("as a tool's parameters" if structured == "tools" else f"sent as {structured}") in text


@pytest.mark.parametrize(
    ("choice", "rows", "share"),
    [
        ("required", [TEXT, TEXT, CALL], 2 / 3),
        ({"type": "any"}, [TEXT], 1.0),
        ({"type": "function", "function": {"name": "f"}}, [TEXT], 1.0),
        ("none", [CALL, CALL, TEXT], 2 / 3),
        ({"type": "none"}, [CALL], 1.0),
        ("required", [CALL, TEXT], None),
        ("none", [TEXT], None),
        ("auto", [TEXT], None),
        ({"type": "auto"}, [CALL], None),
        (7, [CALL], None),
        (None, [TEXT], None),
    ],
)
def test_a_tool_choice_that_is_not_kept_is_told(
    store: Tables, choice: Any, rows: Sequence[Row], share: float | None
) -> None:
    body = {} if choice is None else {"tool_choice": choice}
    found = told(store, rows, body, structured="none").get("tool_choice_ignored")
    assert (found and found[0]) == share


@pytest.mark.parametrize(
    ("keywords", "is_told"),
    [(["format"], False), (["pattern", "uniqueItems"], False), (["format", "type"], True), (["required"], True),
     ([], True), (None, True)],
)  # fmt: skip
def test_what_grammars_leave_out_does_not_make_a_schema_ignored(
    store: Tables, keywords: list[str] | None, is_told: bool
) -> None:
    assert ("schema_ignored" in told(store, [{**OTHER, "violated_keywords": keywords}] * 3)) is is_told


def others(store: Tables, judge: Any, rows: Sequence[Row], **run: Any) -> list[tuple[str, float | None]]:
    store.fill(
        runs=[{"run_id": "r", **run}],
        requests=[{"run_id": "r", "request_index": index, **row} for index, row in enumerate(rows)],
    )
    return [(note.kind, note.share) for note in judge.notes(store.query(judge.sql, ["r"]))]


THOUGHT, HID, INLINE, NOT = (
    {"first_thinking_s": 0.1}, {"thinking_tokens": 9}, {"output_text": "<think>so"}, {"thinking_tokens": 0}
)  # fmt: skip


@pytest.mark.parametrize(
    ("think", "rows", "share"),
    [
        ("false", [THOUGHT, HID, INLINE, NOT], 0.75), ("false", [THOUGHT, NOT], None), ("false", [NOT], None),
        ("true", [NOT, NOT], 1.0), ("true", [HID, NOT], None), ("true", [{"thinking_partial": True}], None),
        ("true", [], None), ("low", [NOT], None), (None, [THOUGHT], None),
        ("true", [{**NOT, "error_kind": "http"}], None),
    ],
)  # fmt: skip
def test_thinking_that_is_not_as_it_was_asked_for_is_told(
    store: Tables, think: str | None, rows: Sequence[Row], share: float | None
) -> None:
    assert others(store, ignored.THOUGHT, rows, think=think) == ([] if share is None else [("think_ignored", share)])


LONG, EVEN, SHORT = ({"output_tokens": n, "asked_output_tokens": 10} for n in (61, 10, 4))


@pytest.mark.parametrize(
    ("rows", "body", "share"),
    [
        ([LONG, LONG, SHORT, SHORT], None, 0.5), ([LONG, EVEN], None, None), ([EVEN, SHORT], None, None),
        ([{**LONG, "output_tokens": 12}], None, None), ([{**LONG, "thinking_tokens": 55}], None, None),
        ([{**LONG, "first_thinking_s": 0.1}], None, None), ([{"output_tokens": 61}], None, None),
        ([LONG], {"max_tokens": 100}, None), ([{"output_tokens": 61}], {"max_completion_tokens": 9}, 1.0),
    ],
)  # fmt: skip
def test_a_limit_that_is_not_kept_is_told(store: Tables, rows: Sequence[Row], body: Any, share: float | None) -> None:
    config = json.dumps({"body": body})
    assert others(store, ignored.LIMITED, rows, config=config) == ([] if share is None else [("limit_ignored", share)])


def test_a_schema_as_a_tools_parameters_has_a_tool_choice_where_the_api_knows_one(store: Tables) -> None:
    assert told(store, [{**RIGHT, **TEXT}], structured="tools").keys() == {"tool_choice_ignored"}
    assert told(store, [{**RIGHT, **TEXT}], structured="tools", api="ollama") == {}

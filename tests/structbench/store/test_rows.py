"""What is written of a request and of a run, and which values a column takes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest

from loadgen.types import RequestError, RequestRecord
from structbench.identity import config_dict, config_hash
from structbench.store import row_of, run_columns
from structbench.store.rows import storable
from structbench.types import Score
from tests.support.comparisons import CONFIG

MS = 1_000_000
RECORD = RequestRecord(
    index=8, worker=3, due_ns=1_000 * MS, sent_ns=1_007 * MS, connected_ns=1_009 * MS,
    chunk_ns=(1_020 * MS, 1_033 * MS + 999, 1_050 * MS), end_ns=1_077 * MS, clock="kernel", merged_chunks=2,
    sent_off_ns=500_000, chunk_early_ns=(2_000_999, 0, 0), processor_wait_ns=300_000, resent_segments=1,
    out_of_order_segments=2, cached_prompt_tokens=7, thinking_tokens=4, thinking_partial=True, gathered_chunks=1,
    answered_by="m-1", fingerprint="fp",
    read_lag_max_ns=4_000_100, prompt_tokens=11, output_tokens=5, load_ns=1 * MS, prompt_eval_ns=2 * MS, eval_ns=3 * MS,
    done_reason="stop", output_text="yes", thinking_text="hm", tool_calls=({"name": "f", "arguments": {}},),
)  # fmt: skip
SCORE = Score(
    outcome="schema_violation", accuracy_score=0.25, json_valid=True, schema_valid=False, json_valid_lenient=True,
    violated_keywords=("minimum",),
)  # fmt: skip


def test_a_row_says_whose_it_is_what_was_measured_and_what_the_answer_was_worth() -> None:
    row = row_of("r", "h", 2, "case 1", 4, RECORD, SCORE)
    assert row["chunk_offsets_us"] == [13_000, 26_000, 43_000], "whole microseconds that had passed"
    own = {"run_id": "r", "config_hash": "h", "request_index": 8, "segment": 2, "case_id": "case 1", "repeat": 4}
    assert {name: row[name] for name in own} == own
    assert (row["chunks"], row["read_lag_max_s"], row["tool_calls"]) == (3, 0.0040001, RECORD.tool_calls)
    assert (row["chunk_early_us"], row["processor_wait_s"]) == ([2_000, 0, 0], 0.0003)
    assert (row["turn"], row["parent_index"], row["semantic_similarity"]) == (None, None, None)
    assert (row["steady"], row["ended_steady"]) == (None, None)
    assert {name: row[f"error_{name}"] for name in ("kind", "status", "message")} == dict.fromkeys(
        ("kind", "status", "message")
    )
    assert {field.name: row[field.name] for field in fields(Score)} == {
        field.name: getattr(SCORE, field.name) for field in fields(Score)
    }
    others = row.keys() - own.keys() - {field.name for field in fields(Score)} - {
        "chunk_offsets_us", "chunks", "covered", "read_lag_max_s", "chunk_early_us", "processor_wait_s", "turn",
        "parent_index", "asked_prompt_tokens", "asked_output_tokens", "semantic_similarity", "steady", "ended_steady",
        "error_kind", "error_status", "error_message", "retry_after_s",
    }  # fmt: skip
    assert len(others) == 40
    assert {name: row[name] for name in others} == {name: getattr(RECORD, name) for name in others}


def test_a_row_of_a_failed_request_says_how_it_failed_and_has_no_score() -> None:
    failed = replace(RECORD, sent_ns=None, read_lag_max_ns=None, error=RequestError("http", "too busy", 503))
    row = row_of("r", "h", 0, None, 0, failed, SCORE)
    assert [row[f"error_{name}"] for name in ("kind", "status", "message")] == ["http", 503, "too busy"]
    assert (row["outcome"], row["chunk_offsets_us"], row["read_lag_max_s"], row["case_id"]) == ("http", *[None] * 3)
    assert {row[field.name] for field in fields(Score) if field.name != "outcome"} == {None}


@pytest.mark.parametrize(("turn", "parent"), [(None, None), (1, None), (2, 7)])
def test_the_second_turn_follows_from_the_request_before_it(turn: int | None, parent: int | None) -> None:
    row = row_of("r", "h", 0, "case", 0, RECORD, None, turn)
    assert (row["turn"], row["parent_index"], row["outcome"]) == (turn, parent, "completed")


def test_a_run_s_columns_are_those_of_its_config() -> None:
    open_loop = {"kind": "open", "rate": 2.5, "arrival": "poisson"}
    used = replace(CONFIG, load=open_loop, model_digest="sha", endpoint="generate", structured="prompt")
    assert run_columns(used) == {
        "config_hash": config_hash(used), "config": config_dict(used), "model": "m:1b", "model_digest": "sha",
        "server_version": "0.5.4", "suite": "json", "endpoint": "generate", "structured": "prompt", "think": None,
        "load_kind": "open", "concurrency": None, "rate": 2.5, "arrival": "poisson",
    }  # fmt: skip
    assert run_columns(CONFIG)["concurrency"] == 1


@pytest.mark.parametrize(("think", "text"), [(None, None), ("low", "low"), (True, "true"), (False, "false")])
def test_thinking_is_stored_as_a_word(think: bool | str | None, text: str | None) -> None:
    assert run_columns(replace(CONFIG, think=think))["think"] == text


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine nine hours ahead of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XYZ-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_away")
@pytest.mark.parametrize(
    "instant",
    [
        "2026-01-01T02:00:00.000005", "2026-01-01 04:00:00.000005+02:00", datetime(2026, 1, 1, 2, 0, 0, 5),
        datetime(2026, 1, 1, 2, 0, 0, 5, UTC), datetime(2026, 1, 1, 0, 0, 0, 5, timezone(timedelta(hours=-2))),
    ],
)  # fmt: skip
def test_instants_are_utc_wherever_the_machine_stands(instant: Any) -> None:
    """Without a zone they are meant to be."""
    assert storable(instant, "started_at", "TIMESTAMP") == "2026-01-01 02:00:00.000005"


@pytest.mark.parametrize(
    ("sql_type", "value", "kept"),
    [
        *((kind, None, None) for kind in ("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP", "JSON", "BIGINT[]")),
        ("VARCHAR", "a\x00b", "a\x00b"), ("VARCHAR", "é\ud83d\ude00\ud83d", "é😀\ufffd"),
        ("BIGINT", 2**63 - 1, 2**63 - 1), ("BIGINT", 2**63, None), ("BIGINT", -(2**63), -(2**63)),
        ("BIGINT", -(2**63) - 1, None), ("BIGINT[]", [1, 2**63], [1, None]), ("BIGINT[]", (), []),
        ("DOUBLE", 3, 3.0), ("DOUBLE", 0.1, 0.1), ("DOUBLE", math.inf, None), ("DOUBLE", math.nan, None),
        ("DOUBLE", 10**400, None), ("BOOLEAN", False, False), ("BOOLEAN", True, True),
        ("VARCHAR[]", ["a", "\udc00"], ["a", "\ufffd"]),
        ("JSON", MappingProxyType({"a": MappingProxyType({"b": (1, "é")})}), '{"a": {"b": [1, "\\u00e9"]}}'),
        ("JSON", {"a": [1.5, math.nan, -math.inf, None, True, 10**30]},
         '{"a": [1.5, null, null, null, true, 1000000000000000000000000000000]}'),
        ("JSON", MappingProxyType({"a": (math.inf, "\ud800", MappingProxyType({1: "b"}))}),
         '{"a": [null, "\\ufffd", {"1": "b"}]}'),
        ("JSON", "text", '"text"'), ("JSON", "\ud800", '"\\ufffd"'), ("JSON", False, "false"),
    ],
)  # fmt: skip
def test_a_column_takes_what_its_type_can_hold(sql_type: str, value: Any, kept: Any) -> None:
    stored = storable(value, "t.c", sql_type)
    assert (stored, type(stored)) == (kept, type(kept))


@pytest.mark.parametrize(
    ("sql_type", "value", "why"),
    [
        ("VARCHAR", 1, "not a string"), ("VARCHAR", b"a", "not a string"), ("VARCHAR[]", ["a", 1], "not a string"),
        ("BIGINT", 1.0, "not an integer"), ("BIGINT", "1", "not an integer"), ("BIGINT", True, "not an integer"),
        ("BIGINT[]", 5, "not iterable"), ("BIGINT[]", [1, True], "not an integer"),
        ("DOUBLE", "1.5", "not a number"), ("DOUBLE", True, "not a number"), ("DOUBLE", 1j, "not a number"),
        ("BOOLEAN", 1, "not a boolean"), ("BOOLEAN", "true", "not a boolean"),
        ("TIMESTAMP", date(2026, 1, 1), "not a date and time"), ("TIMESTAMP", 5, "not a date and time"),
        ("TIMESTAMP", "yesterday", "isoformat"), ("JSON", {"a": {"bc"}}, "no JSON for set"),
        ("JSON", object(), "no JSON for object"),
    ],
)  # fmt: skip
def test_a_column_refuses_what_its_type_cannot_hold(sql_type: str, value: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why) as refused:
        storable(value, "t.c", sql_type)
    assert str(refused.value).startswith(f"column t.c ({sql_type}) cannot hold {type(value).__name__}: ")


def test_json_that_is_nested_too_deeply_is_told_of_and_not_stored() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert json.loads(storable(deep, "t.c", "JSON")) == "(nested too deeply to be stored)"


def test_json_that_was_cleaned_is_still_json() -> None:
    kept = storable({"\ud800": [math.nan, {"b": "\udfff"}]}, "t.c", "JSON")
    assert json.loads(kept) == {"\ufffd": [None, {"b": "\ufffd"}]}

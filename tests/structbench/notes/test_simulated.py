"""Each note from end to end: what the simulated server does, as it is received, stored and said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from loadgen.simulator import PROFILES, Profile, Simulator
from loadgen.types import Request, RequestRecord
from structbench.notes.counts import COUNTS
from structbench.notes.prompts import PROMPTS
from structbench.store import row_of
from tests.support.in_memory import stored, tables
from tests.support.scripted_server import ask, chat

SCHEMA = {"type": "object", "properties": {"names": {"type": "array", "items": {"type": "string"}, "minItems": 6}},
          "required": ["names"]}  # fmt: skip
STEADY = Profile(load_s=0.0, prompt_tokens_per_s=1e6, tokens_per_s=200.0, jitter=0.0,
                 capabilities=("completion", "tools", "thinking"))  # fmt: skip
BUSY = {"gathered_chunks"}
"""What a server without a processor for a while does, too."""
FAULTS = ("no-counts", "held-back", "gathered")


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator({**PROFILES, "m": STEADY, **{f"fault:{name}": STEADY for name in FAULTS}}) as server:
        yield server


def kinds(records: list[RequestRecord], **more: Any) -> set[str]:
    """The kinds of notes on a run of these."""
    rows = [
        row_of("r", "h", 0, f"case {index}", 0, replace(record, index=index, tool_calls=()), None, **more)
        for index, record in enumerate(records)
    ]
    with tables() as made:
        made.fill(runs=[{"run_id": "r", "suite": "text", "config": "{}"}], requests=[stored(row) for row in rows])
        judges = (COUNTS, PROMPTS)
        return {note.kind for judge in judges for note in judge.notes(made.query(judge.sql, ["r"]))}


def asked(sim: Simulator, model: str, tokens: int = 40, **more: Any) -> list[RequestRecord]:
    options = {"num_predict": tokens} if tokens else {}
    request = Request(index=0, model=model, messages=chat("Say something.").messages, options=options, **more)
    records = ask(sim.url, request)
    assert [record.error for record in records] == [None]
    return records


def test_of_a_steady_stream_nothing_is_said(sim: Simulator) -> None:
    (record,) = records = asked(sim, "m")
    assert kinds(records) <= BUSY
    assert (len(record.chunk_ns), record.output_tokens) == (40, 40)
    assert record.is_gathered == (record.tpot_s is None)


def test_thinking_and_format_are_two_passes_of_which_the_second_is_counted(sim: Simulator) -> None:
    (record,) = records = asked(sim, "m", 0, think=True, format=SCHEMA)
    answer = [chunk_ns for chunk_ns in record.chunk_ns if chunk_ns >= (record.first_answer_ns or 0)]
    assert record.thinking_text
    assert record.output_tokens is not None
    assert len(answer) < len(record.chunk_ns)
    read_together = answer.count(answer[0]) - 1  # of these, any may be the last of the thinking
    assert len(answer) + 1 - record.output_tokens in range(read_together + 1)
    assert record.is_gathered or record.tpot_s == pytest.approx((answer[-1] - answer[0]) / 1e9 / (len(answer) - 1))
    assert record.queue_s is None
    assert "partly_counted" in kinds(records)
    (entry,) = [each for each in sim.truth()["requests"] if each["tokens"] == record.output_tokens]
    assert entry["chunks"] == len(record.chunk_ns)


def test_tokens_held_back_leave_no_pace(sim: Simulator) -> None:
    (record,) = records = asked(sim, "fault:held-back")
    assert (len(record.chunk_ns), record.output_tokens, record.tpot_s) == (20, 40, None)
    assert record.is_gathered or "faster_than_made" in kinds(records)


def test_what_a_gateway_gathers_has_no_spacing_and_is_not_this_client_s(sim: Simulator) -> None:
    (record,) = records = asked(sim, "fault:gathered")
    assert (len(record.chunk_ns), record.tpot_s, record.itl_mean_s) == (40, None, None)
    assert record.gathered_chunks + record.merged_chunks == 36
    assert kinds(records) == {"gathered_chunks"}


def test_answers_without_counts_are_said_to_have_none(sim: Simulator) -> None:
    (record,) = records = asked(sim, "fault:no-counts")
    assert (record.output_tokens, record.prompt_tokens, record.tpot_s) == (None, None, None)
    assert kinds(asked(sim, "m") + records) - BUSY - {"faster_than_made"} == {"uncounted"}


def test_a_prompt_beyond_the_context_was_cut(sim: Simulator) -> None:
    long = chat("word " * 900, model="m", options={"num_predict": 4, "num_ctx": 256})
    records = ask(sim.url, long)
    assert records[0].prompt_tokens == 256
    assert kinds(records, asked_tokens=900) - BUSY == {"prompt_cut"}

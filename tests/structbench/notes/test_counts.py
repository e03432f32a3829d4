"""What is said of token counts and of chunks, from the rows of a run as they are stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from loadgen.types import RequestError, RequestRecord
from structbench.notes.counts import COUNTS, GOODPUT
from structbench.store import row_of
from structbench.types import Note
from tests.support.in_memory import Tables, stored, tables

MS = 1_000_000


@pytest.fixture(scope="module")
def memory() -> Iterator[Tables]:
    with tables() as made:
        yield made


def noted(memory: Tables, *records: RequestRecord) -> list[Note]:
    """The notes on a run of these."""
    rows = [row_of("r", "h", 0, "case", 0, replace(record, index=i), None) for i, record in enumerate(records)]
    memory.fill(requests=[stored(row) for row in rows])
    return list(COUNTS.notes(memory.query(COUNTS.sql, ["r"])))


FINE = RequestRecord(
    index=0, due_ns=0, sent_ns=0, chunk_ns=tuple(range(30 * MS, 230 * MS, 10 * MS)), end_ns=240 * MS, clock="kernel",
    first_answer_ns=30 * MS, output_tokens=21, done_reason="stop", prompt_eval_ns=10 * MS, eval_ns=200 * MS,
)  # fmt: skip


def test_nothing_is_said_of_counts_that_cover_what_was_streamed_nor_of_what_failed(
    memory: Tables,
) -> None:
    failed = replace(FINE, output_tokens=None, error=RequestError("timeout", "late"))
    whole = replace(FINE, chunk_ns=FINE.chunk_ns[:1])  # as of tool calls
    summary = replace(FINE, thinking_partial=True, output_tokens=21)  # by name alone
    streamed = replace(FINE, output_tokens=41, thinking_tokens=20, first_thinking_ns=FINE.chunk_ns[0], eval_ns=None)
    assert noted(memory, FINE, whole, failed, summary, streamed) == []
    assert noted(memory) == []


@pytest.mark.parametrize(
    ("record", "kind", "text"),
    [
        (replace(FINE, output_tokens=None), "uncounted",
         "1 of 4 completed answers came without a token count: no tokens/s of the run, no TPOT of these"),
        (replace(FINE, output_tokens=9), "partly_counted",
         "1 of 4 completed answers had more chunks than output tokens"),
        (replace(FINE, due_ns=-600 * MS, sent_ns=-600 * MS, output_tokens=80, eval_ns=800 * MS), "faster_than_made",
         "1 of 4 completed answers came faster than the server says it made the tokens"),
        (replace(FINE, due_ns=-600 * MS, sent_ns=-600 * MS, output_tokens=20, done_reason="length", eval_ns=800 * MS),
         "faster_than_made", "1 of 4 completed answers came faster"),
        (replace(FINE, eval_ns=1), "unlikely_durations",
         "1 of 4 completed answers came with durations of the server that cannot be theirs"),
        (replace(FINE, output_tokens=9, first_thinking_ns=30 * MS, eval_ns=50 * MS), "partly_counted",
         "1 of 4 completed answers had more chunks"),
        (replace(FINE, output_tokens=60, first_thinking_ns=30 * MS, eval_ns=55 * MS), "partly_counted",
         "1 of 4 completed answers had more chunks than output tokens, or took much longer than the server's"),
        (replace(FINE, chunk_ns=(), output_tokens=1, first_answer_ns=None, eval_ns=1000), "empty_answers",
         "1 of 4 completed answers were empty (no text, no thinking, no call): not in e2e, requests/s, tokens/s"),
        (replace(FINE, output_tokens=1021, output_text="x" * 20), "overcounted",
         "1 of 4 completed answers came with more output tokens than what came can hold"),
        (replace(FINE, output_tokens=1021, output_text="x" * 20, eval_ns=None), "overcounted", "1 of 4 completed"),
        (replace(FINE, chunk_ns=(30 * MS, 34 * MS), output_tokens=30, eval_ns=None), "few_chunks",
         "1 of 4 completed answers came in a few chunks of many tokens each, and the server does not tell when"),
        (replace(FINE, prompt_eval_ns=10_000 * MS), "unlikely_durations", "1 of 4 completed answers came with"),
        (replace(FINE, output_tokens=1021, thinking_tokens=1000, eval_ns=None), "hidden_thinking",
         "1 of 4 completed answers were thought about in tokens that the server counts and does not stream as it makes "
         "them (1,000 of 1,021 output tokens): TTFT contains that time"),
        (replace(FINE, output_tokens=1021, thinking_partial=True, eval_ns=None), "hidden_thinking",
         "1 of 4 completed answers were thought about in tokens that the server counts and does not stream as it makes "
         "them (it does not tell how many)"),
        (replace(FINE, gathered_chunks=18), "gathered_chunks",
         "22.5 % of the chunks came together with the one before: the server or a gateway gathers them, not this "
         "client; no ITL and TPOT of 1 of 4 completed answers"),
    ],
)  # fmt: skip
def test_what_leaves_a_figure_out_is_said_with_how_many_it_concerns(
    memory: Tables, record: RequestRecord, kind: str, text: str
) -> None:
    (note,) = noted(memory, FINE, record, FINE, FINE)
    assert (note.kind, note.share) == (kind, 0.25)
    assert note.text.startswith(text)
    assert (record.tpot_s is None) is (kind != "unlikely_durations" and not record.thinking_tokens)


@pytest.mark.parametrize(
    ("limits", "share"), [({"tpot_s": 0.05}, 0.5), ({"itl_mean_s": 0.05}, 0.25), ({"ttft_s": 0.05}, None), (None, None),
                          ({"tpot_s": 0.05, "ttft_s": 0.001}, None)],
)  # fmt: skip
def test_limits_that_nobody_can_hold_some_answers_against_are_said(
    memory: Tables, limits: dict[str, float] | None, share: float | None
) -> None:
    gathered, uncounted = replace(FINE, gathered_chunks=18), replace(FINE, output_tokens=None)
    noted(memory, FINE, gathered, uncounted, replace(FINE, chunk_ns=FINE.chunk_ns[:1]))
    memory.put("runs", {"run_id": "r", "goodput_limits": json.dumps(limits) if limits else None})
    notes = list(GOODPUT.notes(memory.query(GOODPUT.sql, ["r"])))
    assert [(note.kind, note.share) for note in notes] == ([] if share is None else [("goodput_unknown", share)])
    assert all(note.text.startswith(f"goodput is unknown: {4 * note.share:.0f} of 4 completed") for note in notes)

"""Answers far shorter than asked for are another load than the one that was planned."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from structbench.notes.lengths import LENGTHS
from tests.support.in_memory import Tables, tables


@pytest.fixture(scope="module")
def memory() -> Iterator[Tables]:
    with tables() as made:
        yield made


@pytest.mark.parametrize(
    ("suite", "answers", "kind", "text"),
    [
        (
            "text",
            [(6, "stop")] * 8,
            "answers_short",
            "100 % of the answers ended by themselves after 6 tokens (median), where 150 were asked for",
        ),
        (
            "text",
            [(5, "length")] * 8,
            "answers_capped",
            "8 of 8 answers were ended by a limit at 5 tokens (median), where they were allowed 150",
        ),
        ("text", [(60, "stop")] * 5 + [(150, "length")] * 3, "answers_short", "62 % of the answers"),
        ("text", [(60, "stop")] * 4 + [(150, "length")] * 4, None, ""),
        ("text", [(100, "stop")] * 8, None, ""),
        ("text", [(150, "length")] * 8, None, ""),
        ("json", [(6, "stop")] * 8, None, ""),  # an answer in JSON is as long as it is
        ("json", [(5, "length")] + [(40, "stop")] * 7, "answers_capped", "1 of 8 answers were ended by a limit"),
        ("json", [(5, "tool_calls")] * 8, None, ""),
        ("json", [(140, "length")] * 8, None, ""),
    ],
)
def test_answers_far_shorter_than_asked_for_are_noted(
    memory: Tables, suite: str, answers: list[tuple[int, str]], kind: str | None, text: str
) -> None:
    memory.fill(runs=[{"run_id": "r", "suite": suite}], requests=[
        {"run_id": "r", "request_index": i, "asked_output_tokens": 150, "output_tokens": tokens, "chunks": tokens,
         "done_reason": reason}
        for i, (tokens, reason) in enumerate(answers)
    ])  # fmt: skip
    notes = list(LENGTHS.notes(memory.query(LENGTHS.sql, ["r"])))
    assert [note.kind for note in notes] == ([] if kind is None else [kind])
    assert all(note.text.startswith(text) for note in notes)
    ended = "length" if kind == "answers_capped" else "stop"
    few = [tokens for tokens, reason in answers if reason == ended and tokens < 75]
    assert all(note.share == len(few) / len(answers) for note in notes)


@pytest.mark.parametrize(("tokens", "noted"), [(14, True), (15, False)])
def test_an_answer_must_lack_half_of_its_tokens_and_a_few_more(memory: Tables, tokens: int, noted: bool) -> None:
    rows = [{"run_id": "r", "request_index": i, "asked_output_tokens": 30, "output_tokens": n, "chunks": n,
             "done_reason": reason}
            for i, (n, reason) in enumerate([(tokens, "stop"), (tokens, "stop"), (29, "stop")])]  # fmt: skip
    memory.fill(runs=[{"run_id": "r", "suite": "text"}], requests=rows)
    notes = list(LENGTHS.notes(memory.query(LENGTHS.sql, ["r"])))
    assert [note.text.partition(" tokens")[0] for note in notes] == (
        [f"67 % of the answers ended by themselves after {tokens}"] if noted else []
    )


@pytest.mark.parametrize("unknown", ["asked_output_tokens", "chunks"])
def test_nothing_is_said_where_nothing_was_asked_for_or_nothing_came(memory: Tables, unknown: str) -> None:
    row = {"run_id": "r", "asked_output_tokens": 150, "output_tokens": 5, "chunks": 5, "done_reason": "length"}
    row[unknown] = 0 if unknown == "chunks" else None
    memory.fill(runs=[{"run_id": "r", "suite": "text"}], requests=[{**row, "request_index": i} for i in range(8)])
    assert not list(LENGTHS.notes(memory.query(LENGTHS.sql, ["r"])))

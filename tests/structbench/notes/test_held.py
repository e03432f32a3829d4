"""A server that ends its answers late is told from this client and from the network."""

from __future__ import annotations

import pytest

from structbench.notes.held import HELD
from tests.support.in_memory import tables


@pytest.mark.parametrize(
    ("held_s", "error_kind", "noted"),
    [
        ([0.1] * 4, None, "4 of 4 completed answers ended 100 ms (median)"), ([None] * 4, None, ""),
        ([0.0001] * 4, None, ""), ([0.1, 0.1, None, 0.0], None, "2 of 4 completed answers ended 100 ms (median)"),
        ([0.006] * 4, None, ""), ([0.1] * 4, "rate_limited", ""),
    ],
    ids=["late", "unknown", "at once", "half", "of long answers", "a pause after a refusal"],
)  # fmt: skip
def test_bodies_that_end_long_after_the_last_message_are_noted(
    held_s: list[float | None], error_kind: str | None, noted: str
) -> None:
    with tables() as memory:
        memory.fill(requests=[
            {"run_id": "r", "request_index": i, "sent_ns": 0, "end_ns": 200_000_000, "held_s": each,
             "error_kind": error_kind}
            for i, each in enumerate(held_s)
        ])  # fmt: skip
        notes = list(HELD.notes(memory.query(HELD.sql, ["r"])))
    assert [noted in note.text and note.kind == "held_after_answer" for note in notes] == [True] * bool(noted)

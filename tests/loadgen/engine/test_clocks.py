"""From a worker's clock to the caller's: every instant moves, no duration does."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.engine.clocks import on_callers_clock
from loadgen.types import RequestRecord

DURATIONS = {"read_lag_max_ns", "load_ns", "prompt_eval_ns", "eval_ns"}
WHOLE = RequestRecord(
    index=7, due_ns=1000, sent_ns=1010, connected_ns=1012, chunk_ns=(1100, 1150, 1300), first_thinking_ns=1100,
    first_answer_ns=1150, first_tool_call_ns=1300, end_ns=1310, read_lag_max_ns=3, output_text="a", output_tokens=5,
    load_ns=20, prompt_eval_ns=50, eval_ns=200,
)  # fmt: skip
DERIVED = [name for name, value in vars(RequestRecord).items() if isinstance(value, property) and name != "first_ns"]


def test_every_instant_moves_and_nothing_else() -> None:
    moved = on_callers_clock(WHOLE, 10**15)
    for name in (field.name for field in fields(RequestRecord)):
        before, after = getattr(WHOLE, name), getattr(moved, name)
        if name == "chunk_ns":
            assert after == tuple(10**15 + at_ns for at_ns in before)
        elif name.endswith("_ns") and name not in DURATIONS:
            assert after == before + 10**15, name
        else:
            assert after == before, name


@given(offset_ns=st.integers(-(10**18), 10**18), absent=st.sets(st.sampled_from(["due_ns", "connected_ns", "end_ns"])))
def test_no_duration_changes_and_what_is_absent_stays_absent(offset_ns: int, absent: set[str]) -> None:
    record = replace(WHOLE, **dict.fromkeys(absent))
    moved = on_callers_clock(record, offset_ns)
    assert [getattr(moved, name) for name in DERIVED] == [getattr(record, name) for name in DERIVED]
    assert {name for name in absent if getattr(moved, name) is not None} == set()
    assert on_callers_clock(moved, -offset_ns) == record


def test_a_record_on_the_same_clock_is_not_made_anew() -> None:
    assert on_callers_clock(WHOLE, 0) is WHOLE


@pytest.mark.parametrize("name", sorted(DURATIONS))
def test_what_the_server_measured_is_no_instant(name: str) -> None:
    assert getattr(on_callers_clock(WHOLE, 5), name) == getattr(WHOLE, name)

"""What a record derives from its instants: each formula, and that the absent stays absent."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.types import NS, ClosedLoop, OpenLoop, Request, RequestError, RequestRecord, Timeouts

MS = 1_000_000
WHOLE = RequestRecord(
    index=7, due_ns=1000 * MS, sent_ns=1010 * MS, sent_off_ns=1 * MS, connected_ns=1012 * MS,
    chunk_ns=(1100 * MS, 1150 * MS, 1300 * MS), chunk_early_ns=(4 * MS, 0, 0), first_thinking_ns=1100 * MS,
    first_answer_ns=1150 * MS, first_tool_call_ns=1300 * MS, end_ns=1310 * MS,
    prompt_tokens=30, output_tokens=5, load_ns=20 * MS, prompt_eval_ns=50 * MS, eval_ns=200 * MS,
)  # fmt: skip
FAILED = RequestError("stream", "broken")
DERIVED = [name for name, value in vars(RequestRecord).items() if isinstance(value, property)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("completed", True),
        ("first_ns", 1100 * MS),
        ("ttft_s", 0.09),
        ("ttft_off_s", 0.005),
        ("ttft_due_s", 0.1),
        ("first_thinking_s", 0.09),
        ("first_answer_s", 0.14),
        ("first_tool_call_s", 0.29),
        ("e2e_s", 0.3),
        ("e2e_due_s", 0.31),
        ("send_lag_s", 0.01),
        ("connect_s", 0.002),
        ("gaps_s", (0.05, 0.15)),
        ("itl_mean_s", 0.1),
        ("tpot_s", 0.05),
        ("client_tokens_per_s", 20.0),
        ("server_tokens_per_s", 25.0),
        ("load_s", 0.02),
        ("prompt_eval_s", 0.05),
        ("eval_s", 0.2),
        ("queue_s", 0.3 - 0.002 - 0.02 - 0.05 - 0.2),
    ],
)
def test_formula(name: str, value: Any) -> None:
    assert getattr(WHOLE, name) == pytest.approx(value, abs=1e-12)


def test_every_property_has_its_formula_tested() -> None:
    (mark,) = test_formula.pytestmark  # type: ignore[attr-defined]
    assert sorted(name for name, _ in mark.args[1]) == sorted(DERIVED)


def test_of_a_request_never_sent_everything_is_absent_and_nothing_is_zero() -> None:
    dropped = RequestRecord(index=0, due_ns=5, error=RequestError("dropped", "full"))
    derived = {name: getattr(dropped, name) for name in DERIVED}
    assert derived == dict.fromkeys(DERIVED) | {"completed": False, "gaps_s": ()}


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"error": FAILED}, {"e2e_s", "e2e_due_s", "queue_s"}),
        (
            {"chunk_ns": ()},
            {"first_ns", "ttft_s", "ttft_off_s", "ttft_due_s", "itl_mean_s", "tpot_s", "client_tokens_per_s"},
        ),
        ({"sent_off_ns": None}, {"ttft_off_s"}),
        ({"chunk_early_ns": None}, {"ttft_off_s"}),
        ({"chunk_ns": (1100 * MS,)}, {"itl_mean_s", "tpot_s", "client_tokens_per_s"}),
        ({"output_tokens": 1}, {"tpot_s", "client_tokens_per_s"}),
        ({"output_tokens": 0}, {"tpot_s", "client_tokens_per_s"}),
        ({"output_tokens": None}, {"tpot_s", "client_tokens_per_s", "server_tokens_per_s"}),
        ({"chunk_ns": (1100 * MS, 1100 * MS)}, {"itl_mean_s", "tpot_s", "client_tokens_per_s"}),
        ({"eval_ns": None}, {"eval_s", "server_tokens_per_s", "queue_s"}),
        ({"eval_ns": 0}, {"server_tokens_per_s"}),
        ({"prompt_eval_ns": None}, {"prompt_eval_s", "queue_s"}),
        ({"load_ns": None}, {"load_s"}),
        ({"due_ns": None}, {"ttft_due_s", "e2e_due_s", "send_lag_s"}),
        ({"first_thinking_ns": None}, {"first_thinking_s"}),
        ({"first_answer_ns": None}, {"first_answer_s"}),
        ({"first_tool_call_ns": None}, {"first_tool_call_s"}),
        ({"end_ns": None}, {"e2e_s", "e2e_due_s", "queue_s"}),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_absent_and_the_rest_stays(changes: dict[str, Any], absent: set[str]) -> None:
    record = replace(WHOLE, **changes)
    assert {name for name in DERIVED if getattr(record, name) is None} == absent


def test_a_reused_connection_costs_nothing_but_an_unsent_request_has_no_connect_time() -> None:
    assert replace(WHOLE, connected_ns=None).connect_s == 0.0
    assert replace(WHOLE, connected_ns=None, sent_ns=None).connect_s is None


@pytest.mark.parametrize(("early", "off_s"), [((), 0.001), ((0, 9, 9), 0.001), ((10**12, 0, 0), 0.09)])
def test_ttft_may_be_off_by_what_the_send_and_the_first_chunk_may_and_never_by_more_than_itself(
    early: tuple[int, ...], off_s: float
) -> None:
    assert replace(WHOLE, chunk_early_ns=early).ttft_off_s == pytest.approx(off_s)


def test_queue_without_load_counts_it_as_none() -> None:
    assert replace(WHOLE, load_ns=None).queue_s == pytest.approx(0.048)


instants = st.lists(st.integers(0, 10**13), min_size=2, max_size=50).map(sorted).map(tuple)


@given(chunks=instants, tokens=st.integers(2, 5000), sent=st.integers(0, 10**12))
def test_gaps_add_up_to_the_stream(chunks: tuple[int, ...], tokens: int, sent: int) -> None:
    record = RequestRecord(index=0, sent_ns=sent, chunk_ns=chunks, output_tokens=tokens)
    assert len(record.gaps_s) == len(chunks) - 1
    assert min(record.gaps_s) >= 0
    stream_s = (chunks[-1] - chunks[0]) / NS
    assert sum(record.gaps_s) == pytest.approx(stream_s, abs=1e-6)
    assert record.itl_mean_s == (pytest.approx(stream_s / (len(chunks) - 1)) if stream_s else None)
    assert (record.tpot_s or 0.0) * (tokens - 1) == pytest.approx(stream_s)
    assert (record.tpot_s is None) == (stream_s == 0)
    assert (record.client_tokens_per_s is None) == (stream_s == 0)


@given(
    due=st.integers(0, 10**13), lag=st.integers(0, 10**9), connect=st.integers(0, 10**9), rest=st.integers(0, 10**9),
    load=st.integers(0, 10**9), prompt=st.integers(0, 10**9), evaluation=st.integers(0, 10**9),
)  # fmt: skip
def test_the_parts_add_up_to_the_whole(
    due: int, lag: int, connect: int, rest: int, load: int, prompt: int, evaluation: int
) -> None:
    sent = due + lag
    record = RequestRecord(
        index=0, due_ns=due, sent_ns=sent, connected_ns=sent + connect, load_ns=load, prompt_eval_ns=prompt,
        eval_ns=evaluation, end_ns=sent + connect + load + prompt + evaluation + rest,
    )  # fmt: skip
    assert record.queue_s == pytest.approx(rest / NS, abs=1e-6)
    assert record.e2e_due_s == pytest.approx((record.send_lag_s or 0) + (record.e2e_s or 0))


@pytest.mark.parametrize(("total_s", "connect_s"), [(300.0, 10.0), (2.5, 2.5)])
def test_all_limits_follow_from_one(total_s: float, connect_s: float) -> None:
    assert Timeouts.of(total_s) == Timeouts(
        connect_s=connect_s, first_chunk_s=total_s, between_chunks_s=total_s, total_s=total_s
    )


def test_what_nobody_set_is_as_documented() -> None:
    assert Timeouts() == Timeouts(connect_s=10.0, first_chunk_s=300.0, between_chunks_s=300.0, total_s=300.0)
    assert Timeouts() == Timeouts.of(300.0)
    assert OpenLoop(rate=1.0) == OpenLoop(
        rate=1.0, arrival="constant", burstiness=1.0, max_in_flight=None, duration_s=None, seed=0
    )
    assert ClosedLoop(concurrency=1) == ClosedLoop(concurrency=1, duration_s=None)
    assert (RequestRecord(index=0).merged_chunks, RequestRecord(index=0).completed, NS) == (0, True, 10**9)


@pytest.mark.parametrize("value", [Request(index=1, model="m"), WHOLE, FAILED, Timeouts()])
def test_plain_data_cannot_be_changed(value: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, 1)

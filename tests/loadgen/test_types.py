"""What a record derives from its instants: each formula, and that the absent stays absent."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.types import NS, ClosedLoop, OpenLoop, Request, RequestError, RequestRecord, Timeouts

MS = 1_000_000
WHOLE = RequestRecord(
    index=7, due_ns=1000 * MS, sent_ns=1010 * MS, sent_off_ns=1 * MS, connected_ns=1012 * MS,
    chunk_ns=(1100 * MS, 1150 * MS, 1300 * MS), chunk_early_ns=(4 * MS, 0, 0), first_thinking_ns=1100 * MS,
    first_answer_ns=1150 * MS, first_tool_call_ns=1300 * MS, end_ns=1310 * MS, held_ns=1 * MS,
    prompt_tokens=30, output_tokens=5, load_ns=20 * MS, prompt_eval_ns=50 * MS, eval_ns=200 * MS,
)  # fmt: skip
FAILED = RequestError("stream", "broken")
DERIVED = [name for name, value in vars(RequestRecord).items() if isinstance(value, property)]


def test_what_goes_to_another_process_arrives_as_it_was() -> None:
    for sent in (WHOLE, replace(WHOLE, error=FAILED), Request(index=1, model="m", options={"seed": 1})):
        arrived = pickle.loads(pickle.dumps(sent))
        assert (arrived, type(arrived)) == (sent, type(sent))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("completed", True),
        ("failed", False),
        ("first_ns", 1100 * MS),
        ("ttft_s", 0.09),
        ("ttft_off_s", 0.005),
        ("ttft_due_s", 0.1),
        ("first_thinking_s", 0.09),
        ("first_answer_s", 0.14),
        ("first_tool_call_s", 0.29),
        ("e2e_s", 0.3),
        ("e2e_due_s", 0.31),
        ("held_s", 0.001),
        ("send_lag_s", 0.01),
        ("connect_s", 0.002),
        ("gaps_s", (0.05, 0.15)),
        ("is_gathered", False),
        ("is_covered", True),
        ("is_overcounted", False),
        ("is_of_second_pass", False),
        ("is_timed", True),
        ("thinking_is_hidden", False),
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
    assert derived == dict.fromkeys(DERIVED) | {
        "completed": False, "failed": True, "gaps_s": (), "is_gathered": False, "thinking_is_hidden": False,
        "is_overcounted": False, "is_of_second_pass": False, "is_timed": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"error": FAILED}, {"e2e_s", "e2e_due_s", "queue_s"}),
        (
            {"chunk_ns": ()},
            {"first_ns", "ttft_s", "ttft_off_s", "ttft_due_s", "itl_mean_s", "tpot_s", "client_tokens_per_s",
             "e2e_s", "e2e_due_s", "queue_s"},
        ),
        ({"sent_off_ns": None}, {"ttft_off_s"}),
        ({"chunk_early_ns": None}, {"ttft_off_s"}),
        ({"chunk_ns": (1100 * MS,)}, {"itl_mean_s", "tpot_s", "client_tokens_per_s"}),
        ({"output_tokens": 1}, {"tpot_s", "client_tokens_per_s", "queue_s"}),
        ({"output_tokens": 0}, {"tpot_s", "client_tokens_per_s", "queue_s"}),
        ({"output_tokens": None}, {"tpot_s", "client_tokens_per_s", "server_tokens_per_s", "is_covered"}),
        ({"gathered_chunks": 1}, {"itl_mean_s", "tpot_s", "client_tokens_per_s"}),
        ({"output_tokens": 3, "first_thinking_ns": None}, {"first_thinking_s"}),
        (
            {"output_tokens": 2, "first_thinking_ns": None},
            {"first_thinking_s", "tpot_s", "client_tokens_per_s", "queue_s"},
        ),
        ({"chunk_ns": (1100 * MS, 1100 * MS)}, {"itl_mean_s", "tpot_s", "client_tokens_per_s"}),
        ({"eval_ns": None}, {"eval_s", "server_tokens_per_s", "queue_s"}),
        ({"eval_ns": 0}, {"server_tokens_per_s", "queue_s"}),
        ({"prompt_eval_ns": None}, {"prompt_eval_s", "queue_s"}),
        ({"load_ns": None}, {"load_s"}),
        ({"due_ns": None}, {"ttft_due_s", "e2e_due_s", "send_lag_s"}),
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


@given(chunks=instants, more=st.integers(0, 5000), stop=st.booleans(), sent=st.integers(0, 10**12))
def test_gaps_and_the_pace_of_the_tokens_add_up_to_the_stream(
    chunks: tuple[int, ...], more: int, stop: bool, sent: int
) -> None:
    """``more`` tokens than chunks: a chunk may hold several, and the one that ends an answer is in none."""
    reason = "stop" if stop else "length"
    record = RequestRecord(index=0, sent_ns=sent, chunk_ns=chunks, output_tokens=len(chunks) + more, done_reason=reason)
    assert len(record.gaps_s) == len(chunks) - 1
    assert min(record.gaps_s) >= 0
    stream_s = (chunks[-1] - chunks[0]) / NS
    assert sum(record.gaps_s) == pytest.approx(stream_s, abs=1e-6)
    assert record.itl_mean_s == (pytest.approx(stream_s / (len(chunks) - 1)) if stream_s else None)
    carried = len(chunks) + more - (stop and more > 0)
    is_lumped = len(chunks) < 8 and carried > 8 * len(chunks)
    assert (record.tpot_s or 0.0) * (carried - 1) == (0 if is_lumped else pytest.approx(stream_s))
    assert (record.tpot_s is None) == (stream_s == 0 or is_lumped)
    assert (record.client_tokens_per_s is None) == (stream_s == 0 or is_lumped)


@given(chunks=instants, fewer=st.integers(1, 60), thinking=st.integers(0, 50), evaluation=st.integers(0, 10**13))
def test_a_count_of_fewer_tokens_than_chunks_is_at_most_one_of_the_answer(
    chunks: tuple[int, ...], fewer: int, thinking: int, evaluation: int
) -> None:
    chunks = tuple(sorted(set(chunks)))
    thinking = min(thinking, len(chunks) - 1)
    record = RequestRecord(
        index=0, sent_ns=0, end_ns=chunks[-1], chunk_ns=chunks, output_tokens=max(0, len(chunks) - fewer),
        first_thinking_ns=chunks[0], first_answer_ns=chunks[thinking], prompt_eval_ns=0, eval_ns=evaluation,
    )  # fmt: skip
    assert record.is_covered is False
    assert record.queue_s is None
    answer = chunks[thinking:]
    if record.tpot_s is not None:
        assert 2 <= len(answer) <= len(chunks) - fewer
        stream_s = (answer[-1] - answer[0]) / NS
        assert record.tpot_s == pytest.approx(stream_s / (len(chunks) - fewer - 1))


MS_10 = 10 * MS


def stream(*gaps_ms: float, start_ms: float = 0.0, **more: Any) -> RequestRecord:
    """Chunks after these pauses."""
    instants_ns = [round(ms * MS) for ms in accumulate((start_ms, *gaps_ms))][1:]
    return RequestRecord(index=0, sent_ns=0, chunk_ns=tuple(instants_ns), **more)


def test_the_token_that_ends_an_answer_is_in_no_chunk() -> None:
    """As Ollama counts: 26 chunks and the end are 27 tokens, 48 chunks cut off are 48."""
    ended = stream(30, *[10] * 25, output_tokens=27, done_reason="stop")
    assert ended.tpot_s == pytest.approx(0.010)
    cut = stream(30, *[10] * 47, output_tokens=48, done_reason="length")
    assert cut.tpot_s == pytest.approx(0.010)
    assert stream(30, *[10] * 25, output_tokens=26, done_reason="stop").tpot_s == pytest.approx(0.010)  # not counted
    assert stream(30, *[10] * 25, output_tokens=27).tpot_s == pytest.approx(0.25 / 26)  # nobody says why it ended


def test_of_two_passes_the_pace_is_of_the_answer_that_was_counted() -> None:
    """Thinking without a grammar, then the answer with it, and the counts of the second pass alone."""
    twice = stream(10, *[10] * 39, 30, *[10] * 7, output_tokens=9, eval_ns=80 * MS, prompt_eval_ns=20 * MS,
                   load_ns=5 * MS, done_reason="stop", end_ns=520 * MS, first_thinking_ns=MS_10)  # fmt: skip
    record = replace(twice, first_answer_ns=twice.chunk_ns[40])
    assert len(record.chunk_ns) == 48
    assert (record.tpot_s, record.client_tokens_per_s) == (pytest.approx(0.010), pytest.approx(100))
    assert (record.queue_s, record.is_covered) == (None, False)
    assert record.itl_mean_s == pytest.approx(0.49 / 47)
    assert twice.tpot_s is None  # without an answer


@pytest.mark.parametrize(
    ("told", "tpot_s"),
    [
        ({"output_tokens": 520, "thinking_tokens": 500}, 0.01),  # 20 chunks of 20 tokens, as OpenAI counts
        ({"output_tokens": 521, "thinking_tokens": 500}, 0.01),  # and the end
        ({"output_tokens": 540, "thinking_tokens": 500}, 0.19 / 38),  # two tokens a chunk
        ({"output_tokens": 20, "thinking_tokens": 500}, 0.01),  # counted without the thinking
        ({"output_tokens": 510, "thinking_tokens": 500}, None),  # fewer than chunks
        ({"output_tokens": 520}, 0.19 / 518),  # nobody says that it thought
        ({"output_tokens": 520, "thinking_tokens": 0}, 0.19 / 518),
        (
            {"output_tokens": 520, "thinking_tokens": 500, "output_text": f"<think>{'so ' * 200}</think> yes"},
            0.19 / 518,
        ),
        ({"output_tokens": 520, "thinking_partial": True}, None),
        ({"output_tokens": 20, "thinking_partial": True}, 0.01),  # a summary by name, and all of it by its chunks
    ],
)
def test_thinking_that_is_not_streamed_is_in_no_pace(told: dict[str, Any], tpot_s: float | None) -> None:
    record = stream(3000, *[10] * 19, done_reason="stop", **told)
    assert record.tpot_s == (None if tpot_s is None else pytest.approx(tpot_s))
    assert record.client_tokens_per_s == (None if tpot_s is None else pytest.approx(1 / tpot_s))


@pytest.mark.parametrize("first", ["first_answer_ns", "first_tool_call_ns"])
def test_beside_a_summary_of_the_thinking_the_pace_is_of_what_follows(first: str) -> None:
    record = stream(100, *[300] * 4, *[10] * 20, output_tokens=521, thinking_tokens=500, thinking_partial=True,
                    first_thinking_ns=100 * MS, done_reason="stop")  # fmt: skip
    assert record.thinking_is_hidden
    assert replace(record, **{first: record.chunk_ns[5]}).tpot_s == pytest.approx(0.010)
    assert record.tpot_s is None  # with nothing after it
    full = replace(record, thinking_partial=None, first_answer_ns=record.chunk_ns[5])
    assert (full.thinking_is_hidden, full.tpot_s) == (False, pytest.approx(1.4 / 519))


def test_a_stream_that_came_faster_than_the_server_made_it_has_no_pace() -> None:
    """Tokens were held back before its first chunk."""
    held = stream(600, *[10] * 19, output_tokens=80, eval_ns=800 * MS, done_reason="stop")
    assert (held.tpot_s, held.client_tokens_per_s) == (None, None)
    assert (held.server_tokens_per_s, held.itl_mean_s) == (pytest.approx(100), pytest.approx(0.010))
    fair = stream(30, *[10] * 77, output_tokens=80, eval_ns=790 * MS, done_reason="stop")
    assert fair.tpot_s == pytest.approx(0.77 / 78)


SAID = stream(30, *[10] * 19, output_tokens=21, done_reason="stop", output_text="x" * 20, prompt_eval_ns=20 * MS)


@pytest.mark.parametrize(
    ("told", "over"),
    [
        ({}, False),
        ({"output_tokens": 36}, False),
        ({"output_tokens": 37}, True),
        ({"output_tokens": 1021}, True),
        ({"output_tokens": 1021, "output_text": "x" * 1005}, False),
        ({"output_tokens": 1021, "output_text": "ä" * 503}, False),  # by its bytes
        ({"output_tokens": 61, "thinking_text": "t" * 60}, False),
        ({"output_tokens": 81, "tool_calls": ({},)}, True),
        ({"output_tokens": 81, "tool_calls": ({"name": "f", "arguments": {"x": "y" * 40}},)}, False),
        ({"output_tokens": 81, "thinking_tokens": 60}, False),
        ({"output_tokens": 98, "thinking_tokens": 60}, True),
        ({"output_tokens": 1021, "output_text": ""}, False),  # a row without its text
    ],
)
def test_more_tokens_than_the_bytes_of_an_answer_are_a_count_of_something_else(
    told: dict[str, Any], over: bool
) -> None:
    """A server that counted all tokens of its session made TPOT 50 times shorter."""
    record = replace(SAID, **told, end_ns=250 * MS, eval_ns=200 * MS)
    assert record.is_overcounted == over
    assert record.is_covered is not over
    if over:
        assert (record.tpot_s, record.server_tokens_per_s, record.queue_s) == (None, None, None)


def test_a_few_chunks_of_many_tokens_have_no_pace_but_that_of_the_server() -> None:
    """As where a call's name comes first, and all of its arguments together."""
    call = {"tool_calls": ({"name": "get_weather", "arguments": {"city": "Oslo"}},), "end_ns": 310 * MS}
    lumped = stream(300, 4, output_tokens=30, done_reason="tool_calls", **call)
    assert (lumped.tpot_s, lumped.is_covered, lumped.itl_mean_s) == (None, True, pytest.approx(0.004))
    timed = replace(lumped, chunk_ns=(10 * MS, 300 * MS), eval_ns=295 * MS)
    assert timed.tpot_s == pytest.approx(0.01)
    assert replace(timed, eval_ns=1).tpot_s is None
    assert stream(30, *[80] * 8, output_tokens=73, done_reason="stop", output_text="x" * 90).tpot_s is not None


def test_thinking_and_answer_that_took_much_longer_than_what_the_server_counts_were_two_passes() -> None:
    """A gateway gathered the thinking, so that there are fewer chunks than tokens of the answer."""
    twice = stream(50, *[40] * 9, 30, *[10] * 7, output_tokens=19, done_reason="stop", eval_ns=180 * MS, load_ns=5 * MS,
                   prompt_eval_ns=20 * MS, first_thinking_ns=50 * MS, first_answer_ns=440 * MS,
                   end_ns=510 * MS)  # fmt: skip
    assert (twice.tpot_s, twice.queue_s, twice.is_covered, twice.is_of_second_pass) == (None, None, False, True)
    once = replace(twice, eval_ns=460 * MS)
    assert (once.tpot_s, once.queue_s, once.is_covered) == (pytest.approx(0.46 / 17), pytest.approx(0.025), True)
    stalled = replace(twice, first_thinking_ns=None)
    assert stalled.tpot_s == pytest.approx(0.46 / 17), "a pause in one answer is this stream's pace"


@pytest.mark.parametrize(
    ("told", "timed"),
    [
        ({"eval_ns": 200 * MS}, True), ({"eval_ns": 1 * MS}, True), ({"eval_ns": 200_000}, False),
        ({"eval_ns": 0}, False),
        ({"eval_ns": None}, True), ({"eval_ns": 0, "output_tokens": 1}, True), ({"eval_ns": 250 * MS}, False),
        ({"eval_ns": 200 * MS, "load_ns": 50 * MS}, False),
    ],
)  # fmt: skip
def test_durations_that_cannot_be_those_of_the_request_leave_no_figure(told: dict[str, Any], timed: bool) -> None:
    """Microseconds instead of nanoseconds made 105,000 tokens/s of 100."""
    record = replace(SAID, end_ns=250 * MS, **told)
    assert record.is_timed == timed
    if not timed:
        assert (record.server_tokens_per_s, record.queue_s) == (None, None)


def test_gathered_chunks_leave_no_pace_and_a_few_of_them_do_no_harm() -> None:
    assert stream(100, *[10] * 19, output_tokens=20, gathered_chunks=4).tpot_s == pytest.approx(0.010)
    many = stream(100, *[10] * 19, output_tokens=20, gathered_chunks=5)
    assert (many.tpot_s, many.itl_mean_s, many.ttft_s) == (None, None, pytest.approx(0.1))


@given(
    due=st.integers(0, 10**13), lag=st.integers(0, 10**9), connect=st.integers(0, 10**9), rest=st.integers(0, 10**9),
    load=st.integers(0, 10**9), prompt=st.integers(0, 10**9), evaluation=st.integers(0, 10**9),
)  # fmt: skip
def test_the_parts_add_up_to_the_whole(
    due: int, lag: int, connect: int, rest: int, load: int, prompt: int, evaluation: int
) -> None:
    sent = due + lag
    record = RequestRecord(
        index=0, due_ns=due, sent_ns=sent, chunk_ns=(sent,), connected_ns=sent + connect, load_ns=load,
        prompt_eval_ns=prompt, eval_ns=evaluation, end_ns=sent + connect + load + prompt + evaluation + rest,
    )  # fmt: skip
    assert record.queue_s == pytest.approx(rest / NS, abs=1e-6)
    assert record.e2e_due_s == pytest.approx((record.send_lag_s or 0) + (record.e2e_s or 0))


@pytest.mark.parametrize(("total_s", "connect_s"), [(300.0, 10.0), (2.5, 2.5)])
def test_all_limits_follow_from_one(total_s: float, connect_s: float) -> None:
    assert Timeouts.of(total_s) == Timeouts(
        connect_s=connect_s, first_chunk_s=total_s, between_chunks_s=total_s, total_s=total_s
    )


@pytest.mark.parametrize(
    ("error", "nobody"),
    [
        (RequestError("connect", "refused"), True),
        (RequestError("timeout", "connect: nothing within 10 s"), True),
        (RequestError("timeout", "first_chunk: nothing within 10 s"), False),
        *((RequestError("http", "", status), True) for status in (502, 503, 504, 521)),
        *((RequestError("http", "", status), False) for status in (401, 404, 500, 501, 529)),
        (RequestError("stream", "", 503), False),
    ],
)
def test_nobody_is_there_where_a_gateway_says_so_too(error: RequestError, nobody: bool) -> None:
    assert (error.nobody_there, error.wants_a_pause) == (nobody, nobody and error.status != 503)
    assert RequestError("rate_limited", "", 429).wants_a_pause


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


def test_a_full_server_is_asked_on_and_one_that_is_not_there_is_not() -> None:
    asked_on = [RequestError("http", "busy", 503), RequestError("http", "no", 500), RequestError("timeout", "late")]
    assert [error.wants_a_pause for error in asked_on] == [False] * 3
    paused = [RequestError("connect", "no"), RequestError("http", "no", 502), RequestError("rate_limited", "no", 429)]
    assert [error.wants_a_pause for error in paused] == [True] * 3

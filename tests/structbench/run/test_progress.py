"""A cell's live figures are true of real requests over real time, and take bounded memory."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.types import RequestError, RequestRecord
from structbench.run.progress import Progress
from structbench.types import Score
from tests.support.records import CORRECT, WRONG, Clock, record


def test_before_anything_is_known_nothing_is_claimed() -> None:
    progress = Progress(Clock())
    assert (progress.done, progress.errors) == (0, 0)
    assert progress.requests_per_s is progress.tokens_per_s is progress.ttft_p50_s is progress.share_correct is None
    assert progress.elapsed_s is None


def test_counts_and_first_rates() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.start()
    clock.now += 2
    for _ in range(4):
        progress.add(record())
    assert (progress.done, progress.errors) == (4, 0)
    assert progress.requests_per_s == pytest.approx(2)
    assert progress.tokens_per_s == pytest.approx(100)
    assert progress.ttft_p50_s == pytest.approx(0.084)


def test_failures_count_as_done_but_not_as_throughput_and_have_no_ttft() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.start()
    clock.now += 1
    progress.add(record(ttft_s=0.1))
    progress.add(record(ttft_s=9.0, tokens=7, failed=True))
    assert (progress.done, progress.errors) == (2, 1)
    assert progress.requests_per_s == pytest.approx(1)
    assert progress.tokens_per_s == pytest.approx(50)
    assert progress.done_per_s == pytest.approx(2)
    assert progress.ttft_p50_s == pytest.approx(0.1)


def test_loading_the_model_before_the_first_request_lowers_no_rate() -> None:
    clock = Clock()
    progress = Progress(clock)
    clock.now += 60
    progress.add(record(e2e_s=2.0))
    assert progress.elapsed_s == pytest.approx(2)
    assert progress.requests_per_s == pytest.approx(0.5)


def test_rates_forget_what_is_older_than_ten_seconds() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.start()
    for rate in (10, 2):
        for _ in range(30 * rate):
            clock.now += 1 / rate
            progress.add(record())
    assert progress.requests_per_s == pytest.approx(2, rel=0.05)


def test_slow_requests_widen_the_window_instead_of_showing_zero() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.start()
    for _ in range(40):
        clock.now += 30
        progress.add(record())
    clock.now += 15
    assert progress.requests_per_s == pytest.approx(1 / 30, rel=0.1)


def test_a_server_that_hangs_is_seen_in_a_falling_rate() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.start()
    for _ in range(1000):
        clock.now += 0.01
        progress.add(record())
    assert progress.requests_per_s == pytest.approx(100, rel=0.02)
    clock.now += 100
    rate = progress.requests_per_s
    assert rate is not None
    assert rate < 10


def test_after_the_end_rates_are_those_of_the_whole_cell_and_stay() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.start()
    for rate in (10, 2):
        for _ in range(30 * rate):
            clock.now += 1 / rate
            progress.add(record())
    progress.stop()
    clock.now += 1000
    assert progress.requests_per_s == pytest.approx(6)
    assert progress.tokens_per_s == pytest.approx(300)
    assert progress.elapsed_s == pytest.approx(60)


@given(st.lists(st.floats(0, 40), min_size=1, max_size=80))
def test_window_rate_is_a_count_of_real_requests_over_real_time(steps: list[float]) -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.start()
    ends = []
    for step in steps:
        clock.now += step
        ends.append(clock.now)
        progress.add(record())
    clock.now += 0.5
    rate = progress.requests_per_s
    assert rate is not None
    spans = [(n + 1, clock.now - begin) for n, begin in enumerate([*ends[::-1][1:], 1000.0])]
    assert any(rate == pytest.approx(n / span) for n, span in spans)


def test_memory_is_bounded_over_a_long_cell() -> None:
    clock = Clock()
    progress = Progress(clock)
    for _ in range(50_000):
        clock.now += 0.05
        progress.add(record())
    assert len(progress._recent) <= 22
    assert len(progress._ttfts) == 1000


def test_ttft_is_the_median_of_recent_requests_only() -> None:
    progress = Progress(Clock())
    for _ in range(2000):
        progress.add(record(ttft_s=5.0, e2e_s=6.0))
    for _ in range(1000):
        progress.add(record(ttft_s=0.1))
    assert progress.ttft_p50_s == pytest.approx(0.1)


def test_share_correct_is_of_scored_answers_only() -> None:
    progress = Progress(Clock())
    for score in (None, Score(outcome="unscored"), CORRECT, CORRECT, WRONG):
        progress.add_score(score)
    assert progress.share_correct == pytest.approx(2 / 3)


def test_dropped_request_without_instants_is_counted() -> None:
    progress = Progress(Clock())
    progress.add(RequestRecord(index=0, error=RequestError("dropped", "8 requests were in flight")))
    assert (progress.done, progress.errors, progress.requests_per_s) == (1, 1, None)


def test_reading_while_another_thread_adds() -> None:
    progress = Progress()

    def add() -> None:
        for _ in range(20_000):
            progress.add(record())

    adding = threading.Thread(target=add)
    adding.start()
    while adding.is_alive():
        assert progress.ttft_p50_s in (None, pytest.approx(0.084))
        rate = progress.requests_per_s
        assert rate is None or rate >= 0
    adding.join()
    assert progress.done == 20_000


def test_tokens_per_s_are_not_known_while_an_answer_without_a_count_is_in_the_window() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.start()
    for tokens in (50, None, *[50] * 20):
        clock.now += 1
        progress.add(record(tokens=tokens))
        if tokens is None:
            assert progress.requests_per_s == 1.0
            assert progress.tokens_per_s is None
    assert progress.tokens_per_s == pytest.approx(50)
    progress.stop()
    assert progress.tokens_per_s is None  # of the whole cell

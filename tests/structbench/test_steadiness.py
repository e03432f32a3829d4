"""When the opening of a load is over."""

from __future__ import annotations

from typing import Any

import pytest

from structbench.steadiness import asked_ns, opening_end_ns, opening_size, steady_rows

S = 1_000_000_000


def row(sent_s: float, ttft_s: float | None, took_s: float, **more: Any) -> dict[str, Any]:
    sent_ns = round(sent_s * S)
    return {"due_ns": None, "sent_ns": sent_ns, "end_ns": sent_ns + round(took_s * S), "ttft_s": ttft_s,
            "error_kind": None, **more}  # fmt: skip


def test_a_wave_is_over_when_its_last_request_has_its_first_chunk() -> None:
    wave = [row(0.0, 0.3, 5.0), row(0.1, 1.2, 5.0), row(0.2, 0.3, 5.0)]
    assert opening_end_ns(3, wave) == round(1.3 * S)


def test_a_request_of_the_wave_that_failed_is_over_when_it_ended() -> None:
    assert opening_end_ns(2, [row(0.0, 0.3, 5.0), row(0.1, None, 2.0, error_kind="timeout")]) == round(2.1 * S)


def test_a_wave_that_never_was_is_never_over() -> None:
    assert opening_end_ns(3, [row(0.0, 0.3, 5.0), row(0.1, 0.3, 5.0)]) is None
    assert opening_end_ns(2, []) is None


def test_one_request_at_a_time_has_no_opening() -> None:
    assert opening_end_ns(1, [row(2.0, 0.3, 5.0)]) == 2 * S


def test_an_open_loop_opens_for_as_long_as_its_first_answers_take() -> None:
    first = [row(9.9, 0.1, took, due_ns=10 * S + i * S) for i, took in enumerate((0.5, 4.0, 2.0))]
    first = [{**each, "end_ns": each["due_ns"] + took * S} for each, took in zip(first, (1, 4, 2), strict=True)]
    assert opening_end_ns(None, first) == 12 * S
    assert opening_end_ns(None, [{**each, "error_kind": "http"} for each in first]) is None


@pytest.mark.parametrize(("concurrency", "size"), [(None, 10), (1, 1), (32, 32)])
def test_how_many_first_requests_tell(concurrency: int | None, size: int) -> None:
    assert opening_size(concurrency) == size


def test_a_request_is_asked_for_when_it_is_due_else_when_it_is_sent() -> None:
    assert [asked_ns(row(1.0, None, 1.0)), asked_ns(row(1.0, None, 1.0, due_ns=5))] == [S, 5]


@pytest.mark.parametrize(("count", "steady"), [(70, [None] * 70), (81, [False] * 41 + [True] * 40)])
def test_an_open_loop_is_steady_for_as_long_as_it_opened_or_not_at_all(count: int, steady: list[bool | None]) -> None:
    rows = [row(at / 10, 0.1, 4.0, due_ns=at * S // 10, segment=0, turn=None) for at in range(count)]
    assert steady_rows(None, rows) == steady

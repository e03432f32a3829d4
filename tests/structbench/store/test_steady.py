"""Rows that are marked as steady, and the time that rates count answers in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from structbench.steadiness import steady_rows
from structbench.store.steady import mark_steady
from tests.support.in_memory import Row, Tables, tables

S = 1_000_000_000
Marks = list[Any]


def closed(index: int, sent_s: float, ttft_s: float | None, took_s: float, **more: Any) -> Row:
    sent_ns = round(sent_s * S)
    return {"run_id": "r", "request_index": index, "segment": 0, "sent_ns": sent_ns, "ttft_s": ttft_s,
            "end_ns": sent_ns + round(took_s * S), "e2e_s": took_s, **more}  # fmt: skip


def rounds(count: int, concurrency: int = 4, **more: Any) -> list[Row]:
    """Each stream sends every second, TTFT 0.2 s; answers take 1 s; streams start 0.1 s apart."""
    return [
        closed(turn * concurrency + stream, turn + stream / 10, 0.2, 1.0, **more)
        for turn in range(count)
        for stream in range(concurrency)
    ]


@pytest.fixture(scope="module")
def con() -> Iterator[Tables]:
    with tables() as opened:
        yield opened


def marked(con: Tables, rows: Sequence[Row], **run: Any) -> tuple[Marks, list[Any]]:
    """(steady, ended_steady) of each row, and (steady_from_ns, steady_to_ns) of each segment."""
    segments = [{"run_id": "r", "segment": segment} for segment in sorted({row["segment"] for row in rows})]
    con.fill(runs=[{"run_id": "r", "status": "complete", **run}], segments=segments, requests=rows)
    mark_steady(con.con, "r")
    marks = con.query("SELECT steady, ended_steady FROM requests ORDER BY segment, request_index")
    concurrency = run["concurrency"] if run["load_kind"] == "closed" else None
    known = con.query("SELECT * FROM requests ORDER BY segment, request_index")
    assert steady_rows(concurrency, known) == [row["steady"] for row in marks], "as a load that goes on sees it"
    spans = con.query("SELECT steady_from_ns, steady_to_ns FROM segments ORDER BY segment")
    return [tuple(row.values()) for row in marks], [tuple(row.values()) for row in spans]


def test_in_a_closed_loop_what_is_sent_after_the_wave_is_steady(con: Tables) -> None:
    marks, spans = marked(con, rounds(5), load_kind="closed", concurrency=4)
    assert [steady for steady, _ in marks] == [False] * 4 + [True] * 16
    # The wave is over at 0.5 s, and the last request is sent at 4.3 s: from no completion before to that at 4.3 s.
    assert spans == [(500_000_000, 4_300_000_000)]
    assert [counted for _, counted in marks] == [True] * 16 + [False] * 4


def test_rates_count_from_one_completion_to_another(con: Tables) -> None:
    slow = [closed(0, 0.0, 0.2, 1.0), closed(1, 0.1, 2.5, 3.0)]
    later = [closed(2 + i, 1.0 + i, 0.2, 1.0) for i in range(20)]
    marks, spans = marked(con, [*slow, *later], load_kind="closed", concurrency=2)
    assert [steady for steady, _ in marks] == [False] * 4 + [True] * 18, "until the wave has its chunks at 2.6 s"
    assert spans == [(2 * S, 20 * S)]
    assert sum(counted is True for _, counted in marks) == 19, "one a second, in 18 s, and the slow one"


def test_all_is_steady_where_one_request_at_a_time_is_in_flight(con: Tables) -> None:
    marks, spans = marked(con, rounds(3, 1), load_kind="closed", concurrency=1)
    assert marks == [(True, True)] * 3
    assert spans == [(None, None)]


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_is_known_to_be_steady_in_a_short_run(con: Tables, count: int) -> None:
    marks, _ = marked(con, rounds(count), load_kind="closed", concurrency=4)
    assert marks == [(None, None)] * (4 * count)


def test_second_turns_after_the_last_first_one_are_in_the_drain(con: Tables) -> None:
    rows = [*rounds(5), closed(20, 5.0, 0.2, 1.0, turn=2)]
    marks, _ = marked(con, rows, load_kind="closed", concurrency=4)
    assert [steady for steady, _ in marks] == [False] * 4 + [True] * 16 + [False]


def test_in_an_open_loop_what_is_due_after_the_first_answers_is_steady(con: Tables) -> None:
    rows = [{**closed(i, i + 0.001, 0.2, 2.0), "due_ns": i * S} for i in range(20)]
    marks, spans = marked(con, rows, load_kind="open", concurrency=None)
    assert [steady for steady, _ in marks] == [False] * 3 + [True] * 17, "due after 2.001 s"
    assert spans == [(2_001_000_000, 18_001_000_000)]
    assert sum(counted is True for _, counted in marks) == 16, "one a second"


def test_an_open_loop_shorter_than_two_answers_has_no_steady_part(con: Tables) -> None:
    rows = [{**closed(i, i / 10, 0.2, 2.0), "due_ns": i * S // 10} for i in range(20)]
    assert marked(con, rows, load_kind="open", concurrency=None)[0] == [(None, None)] * 20


def test_what_was_never_sent_is_not_steady_where_others_are(con: Tables) -> None:
    rows = [*rounds(5), closed(20, 3.0, None, 0.0, sent_ns=None, end_ns=None, error_kind="cancelled")]
    assert marked(con, rows, load_kind="closed", concurrency=4)[0][-1] == (False, False)


def test_a_segment_without_a_steady_part_counts_for_nothing_where_another_has_one(
    con: Tables,
) -> None:
    late = [{**row, "segment": 1, "request_index": 20 + row["request_index"]} for row in rounds(1)]
    marks, spans = marked(con, [*rounds(5), *late], load_kind="closed", concurrency=4)
    assert marks[20:] == [(False, False)] * 4
    assert spans[1] == (None, None)


def test_marks_made_before_a_run_went_on_are_made_anew(con: Tables) -> None:
    marked(con, rounds(1), load_kind="closed", concurrency=4)
    con.put("requests", *rounds(5)[4:])
    mark_steady(con.con, "r")
    counts = "SELECT count(*) FILTER (steady) AS yes, count(*) FILTER (NOT steady) AS no FROM requests"
    assert con.query(counts) == [{"yes": 16, "no": 4}]

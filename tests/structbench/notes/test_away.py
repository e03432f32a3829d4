"""A server that was away is noted: when, for how long, and what became of the requests of that time."""

from __future__ import annotations

from typing import Any

import pytest

from structbench.notes.away import SERVER_AWAY
from structbench.types import Note
from tests.support.in_memory import tables

S = 1_000_000_000


def pause(at_s: float, away_s: float | None, failed: int = 0) -> dict[str, Any]:
    return {"at_s": at_s, "away_s": away_s, "failed": failed, "requests": 200 if failed else None}


@pytest.mark.parametrize(
    ("rows", "notes"),
    [
        ([], []),
        ([pause(0.0, None)], []),
        (
            [pause(0.0, None), pause(12.34, 4.25)],
            [Note("server_away", "the server was away for 4.2 s, first 12.3 s after the start: the load waited, and "
                  "figures leave it out", at_s=12.34)],
        ),
        (
            [pause(1.0, 4.0), pause(9.0, 2.5)],
            [Note("server_away", "the server was away 2 times, in all for 6.5 s, first 1.0 s after the start: the load "
                  "waited, and figures leave it out", at_s=1.0)],
        ),
        (
            [pause(5.0, 2.0, 40), pause(9.0, 1.0, 10)],
            [Note("server_away", "the server was away 2 times, in all for 3.0 s, first 5.0 s after the start: the 50 "
                  "requests due then failed", share=0.25, at_s=5.0)],
        ),
    ],
)  # fmt: skip
def test_the_note_says_when_and_for_how_long(rows: list[dict[str, Any]], notes: list[Note]) -> None:
    assert list(SERVER_AWAY.notes(rows)) == notes


@pytest.mark.parametrize(
    ("message", "away"),
    [("Loading model", True), (None, True), ("no healthy upstream", True), ("server busy, please try again", False),
     ("The request queue is full.", False), ("Model is overloaded", False)],
)  # fmt: skip
def test_a_server_that_is_full_was_not_away(message: str | None, away: bool) -> None:
    rows = [{"run_id": "r", "segment": 0, "request_index": at, "due_ns": at * S, "end_ns": (1 + at) * S,
             "error_kind": "http", "error_status": 503, "error_message": message} for at in range(4)]  # fmt: skip
    with tables() as store:
        store.fill(runs=[{"run_id": "r", "load_kind": "open"}], requests=rows,
                   segments=[{"run_id": "r", "segment": 0, "away_s": None}])  # fmt: skip
        assert [row["failed"] for row in store.query(SERVER_AWAY.sql, ["r"])] == ([4] if away else [])


def test_when_an_open_loop_found_nobody_and_when_a_closed_one_waited() -> None:
    failed = {2: {"error_kind": "connect"}, 3: {"error_kind": "timeout", "error_message": "connect: no answer"},
              4: {"error_kind": "http", "error_status": 502}, 7: {"error_kind": "connect"}}  # fmt: skip
    rows = [{"run_id": "r", "segment": 0, "request_index": at, "due_ns": (5 + at) * S, "end_ns": (6 + at) * S,
             **failed.get(at, {})} for at in range(10)]  # fmt: skip
    later = [{"run_id": "r", "segment": 1, "request_index": 10, "due_ns": 100 * S, "end_ns": 101 * S}]
    segments = [{"run_id": "r", "segment": 0, "away_s": None}, {"run_id": "r", "segment": 1, "away_s": 2.5}]
    with tables() as store:
        store.fill(runs=[{"run_id": "r", "load_kind": "open"}], segments=segments, requests=[*rows, *later])
        waited = {"at_s": 10.0, "away_s": 2.5, "failed": 0, "requests": None}
        assert store.query(SERVER_AWAY.sql, ["r"]) == [
            {"at_s": 2.0, "away_s": 3.0, "failed": 3, "requests": 11},
            waited,
        ]
        store.fill(runs=[{"run_id": "r", "load_kind": "closed"}], segments=segments, requests=[*rows, *later])
        assert store.query(SERVER_AWAY.sql, ["r"]) == [waited]

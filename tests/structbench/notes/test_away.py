"""A server that was away is noted: when, for how long, and what became of the requests of that time."""

from __future__ import annotations

from typing import Any

import pytest

from structbench.notes.away import SERVER_AWAY
from structbench.types import Note


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

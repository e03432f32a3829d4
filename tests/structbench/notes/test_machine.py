"""Notes on lost segments and busy processors: only where there were any, and of a shared machine only if it is."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from structbench.notes.judge import Judge
from structbench.notes.machine import LOST, PRESSED
from structbench.types import Note

NAMES = ("run_id", "sent_ns", "resent_segments", "out_of_order_segments", "processor_wait_s")
SAMPLED = ("run_id", "processor_pressure", "machine_resent_segments", "machine_tcp_timeouts", "machine_listen_drops")


@pytest.fixture(scope="module")
def con() -> Any:
    with duckdb.connect() as opened:
        yield opened


def notes(
    con: duckdb.DuckDBPyConnection, judge: Judge, requests: list[tuple[Any, ...]], samples: list[tuple[Any, ...]]
) -> list[Note]:
    con.execute("CREATE OR REPLACE TABLE requests (run_id VARCHAR, sent_ns BIGINT, resent_segments BIGINT, "
                "out_of_order_segments BIGINT, processor_wait_s DOUBLE)")  # fmt: skip
    con.execute("CREATE OR REPLACE TABLE samples (run_id VARCHAR, processor_pressure DOUBLE, machine_resent_segments "
                "BIGINT, machine_tcp_timeouts BIGINT, machine_listen_drops BIGINT)")  # fmt: skip
    con.executemany("INSERT INTO requests VALUES ('r', ?, ?, ?, ?)", [*requests, (None, 9, 9, None)])
    con.execute("INSERT INTO requests VALUES ('other', 1, 9, 9, 9)")
    con.executemany("INSERT INTO samples VALUES ('r', ?, ?, ?, ?)", [*samples, (None, None, None, None)])
    con.execute("INSERT INTO samples VALUES ('other', 1, 9, 9, 9)")
    answer = con.execute(judge.sql, ["r"])
    names = [column[0] for column in answer.description or ()]
    return list(judge.notes([dict(zip(names, row, strict=True)) for row in answer.fetchall()]))


def test_lost_segments_of_requests_are_counted(con: Any) -> None:
    requests = [(1, 0, 0, None), (1, 2, 0, None), (1, 0, 1, None), (1, None, None, None)]
    (note,) = notes(con, LOST, requests, [(0.9, 5, 5, 5)])
    assert (note.kind, note.share) == ("lost_segments", 0.5)
    assert note.text == "TCP segments of 2 of 4 requests were lost or late on the way: their times include that"


def test_of_a_machine_that_the_server_shares_its_own_counters_tell(con: Any) -> None:
    found = notes(con, LOST, [(1, 0, 0, 0.001)], [(0.1, 1200, 1, 0), (0.1, 34, 2, 6), *[(0.1, 0, 0, 0)] * 3])
    assert notes(con, LOST, [(1, 0, 0, 0.001)], [(0.1, 34, 2, 6)]) == [], "too short to say"
    assert notes(con, LOST, [(1, 0, 0, None)], [(0.1, 34, 2, 6)] * 9) == [], "the server is elsewhere"
    assert [note.kind for note in found] == ["machine_lost_segments", "listen_drops"]
    assert found[0].text.startswith("this machine, which the server shares, sent 1,234 TCP segments again, 3 after")
    assert found[1].text.startswith("a server on this machine refused 6 connections for a while")


@pytest.mark.parametrize(
    ("pressures", "share"),
    [
        ([], None),
        ([None] * 9, None),
        ([0.2, 0.3, 0.25, 0.25, 0.25], None),
        ([0.2, 0.4, 0.3, 0.3, 0.3], 0.3),
        ([1.0] * 4, None),
        ([1.0] * 5, 1.0),
        ([1.0] * 4 + [None], None),
    ],
)
def test_pressure_is_told_above_a_quarter_of_the_time(con: Any, pressures: list[Any], share: float | None) -> None:
    found = notes(con, PRESSED, [], [(each, 0, 0, 0) for each in pressures])
    assert [note.share for note in found] == ([] if share is None else [pytest.approx(share)])
    if found:
        assert found[0].text == f"processes of this machine waited for a processor {100 * share:.0f} % of the time"

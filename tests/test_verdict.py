"""The verdict judges this client, in plain words, and never the server."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen.telemetry.instruments import LAG_BUCKETS
from loadgen.types import RequestError, RequestRecord
from structbench.verdict import READ_LAG_S, SEND_LAG_S, VerdictSoFar, judge

GOOD: dict[str, Any] = {
    "requests": 100, "completed": 100, "send_lag_p99_s": 0.0004, "read_lag_p99_s": 0.002, "merged_share": 0.0,
    "in_flight_mean": 15.9, "concurrency": 16, "rejected": 0, "read_clock": 0, "died": 0, "no_more_files": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "word", "reasons"),
    [
        ({}, "valid", []),
        ({"send_lag_p99_s": None, "read_lag_p99_s": None, "in_flight_mean": None, "concurrency": None}, "valid", []),
        ({"completed": 1}, "valid", []),
        ({"in_flight_mean": 14.5}, "valid", []),
        ({"in_flight_mean": 14.3}, "degraded", ["14.3 of 16 requests were in flight"]),
        ({"in_flight_mean": 5.3}, "invalid", ["5.3 of 16 requests were in flight"]),
        ({"in_flight_mean": 5.3, "completed": 89}, "valid", []),
        ({"send_lag_p99_s": 0.010}, "valid", []),
        ({"send_lag_p99_s": 0.011}, "degraded", ["sent 11 ms late"]),
        ({"send_lag_p99_s": 0.101}, "invalid", ["sent 101 ms late"]),
        ({"read_lag_p99_s": 0.050}, "valid", []),
        ({"read_lag_p99_s": 0.060}, "degraded", ["60 ms behind"]),
        ({"read_lag_p99_s": 0.501}, "invalid", ["501 ms behind"]),
        ({"merged_share": 0.02}, "valid", []),
        ({"merged_share": 0.05}, "degraded", ["5% of the chunks"]),
        ({"merged_share": 0.21}, "invalid", ["21% of the chunks"]),
        ({"no_more_files": 7}, "invalid", ["7 requests failed because this client may open no more files"]),
        ({"died": 2}, "degraded", ["2 requests were lost"]),
        ({"read_clock": 1}, "degraded", ["client's reads"]),
        ({"died": 1, "read_clock": 9}, "degraded", ["1 requests were lost", "client's reads"]),
        ({"requests": 0, "completed": 0}, "invalid", ["no request completed"]),
        ({"completed": 0, "rejected": 99}, "invalid", ["no request completed"]),
        ({"completed": 0, "rejected": 100}, "invalid", ["the server refused every request"]),
    ],
)
def test_facts_word_reason(changed: dict[str, Any], word: str, reasons: list[str]) -> None:
    verdict = judge({**GOOD, **changed})
    assert verdict.word == word
    assert (verdict.reason is None) is (not reasons)
    assert all(reason in (verdict.reason or "") for reason in reasons)


def test_the_worst_word_wins_and_only_its_reasons_are_told() -> None:
    verdict = judge({**GOOD, "send_lag_p99_s": 0.2, "merged_share": 0.5, "died": 1})
    assert verdict.word == "invalid"
    assert verdict.reason is not None
    assert [part.split()[0] for part in verdict.reason.split("; ")] == ["p99", "50%"]


def records(n: int, late_ns: int = 0, **more: Any) -> list[RequestRecord]:
    return [
        RequestRecord(index=i, due_ns=0, sent_ns=late_ns, chunk_ns=(1, 2), end_ns=3, clock="kernel", **more)
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("taken", "word"),
    [
        (records(100), "valid"),
        (records(100) + records(1, late_ns=11_000_000), "valid"),
        (records(98) + records(2, late_ns=11_000_000), "degraded"),
        (records(98) + records(2, late_ns=101_000_000), "invalid"),
        (records(100, read_lag_max_ns=50_000_000), "valid"),
        (records(100, read_lag_max_ns=51_000_000), "degraded"),
        (records(100, read_lag_max_ns=501_000_000), "invalid"),
        (records(90) + records(10, merged_chunks=1), "degraded"),
        (records(100, merged_chunks=1), "invalid"),
        (records(3, error=RequestError("http", "", 500)), "invalid"),
        (records(3) + records(1, error=RequestError("worker_died", "")), "degraded"),
    ],
)
def test_the_verdict_so_far_is_the_one_that_will_be_stored(taken: list[RequestRecord], word: str) -> None:
    so_far = VerdictSoFar()
    assert so_far.verdict() is None
    for record in taken:
        so_far.add(record)
    verdict = so_far.verdict()
    assert verdict is not None
    assert verdict.word == word


def test_limits_are_bounds_of_the_buckets() -> None:
    """Else a percentile from buckets could fall on the wrong side of a limit."""
    assert {*SEND_LAG_S, *READ_LAG_S} <= set(LAG_BUCKETS)

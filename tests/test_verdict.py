"""The verdict judges this client, in plain words, and never the server."""

from __future__ import annotations

from typing import Any

import pytest

from structbench.verdict import judge

GOOD: dict[str, Any] = {
    "requests": 100, "completed": 100, "send_lag_p99_s": 0.0004, "read_lag_p99_s": 0.002, "merged_share": 0.0,
    "in_flight_mean": 15.9, "concurrency": 16, "rejected": 0, "read_clock": 0, "died": 0,
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

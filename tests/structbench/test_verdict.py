"""The verdict judges this client, in plain words, and never the server."""

from __future__ import annotations

import random
from collections.abc import Iterable
from errno import EMFILE
from itertools import product
from os import strerror
from typing import Any

import duckdb
import pytest

from loadgen.telemetry.instruments import LAG_BUCKETS
from loadgen.types import RequestError, RequestRecord
from structbench.verdict import FACTS, READ_LAG_S, SEND_LAG_S, Verdict, VerdictSoFar, judge

GOOD: dict[str, Any] = {
    "requests": 100, "completed": 100, "send_lag_p99_s": 0.0004, "read_lag_p99_s": 0.002, "merged_share": 0.0,
    "in_flight_mean": 15.9, "concurrency": 16, "rejected": 0, "read_clock": 0, "died": 0, "no_more_files": 0,
}  # fmt: skip


LATE = "requests were sent {} ms late (p99): use more cores or a lower rate"
BEHIND = "this client was {} ms behind (p99): use more cores or fewer streams"
MERGED = "{} of the chunks were read together with later ones, so ITL is coarse"
SHORT = "{} of 10 requests were in flight on average: use more cores or fewer streams"
DIED = "{} requests were lost when a worker process died"
FILES = "{} requests failed because this client could not open more files: raise `ulimit -n`"
READS = "times are those of the client's reads, not of arrival (TLS, a proxy, or no kernel stamps)"


def full(in_flight: float, completed: int = 100) -> dict[str, Any]:
    return {"in_flight_mean": in_flight, "concurrency": 10, "completed": completed}


@pytest.mark.parametrize(
    ("changed", "word", "reason"),
    [
        ({}, "valid", None),
        ({"send_lag_p99_s": None, "read_lag_p99_s": None, "in_flight_mean": None, "concurrency": None}, "valid", None),
        ({"completed": 1}, "valid", None),
        ({"requests": 101}, "valid", None),
        (full(10.0), "valid", None),
        (full(9.0), "valid", None),
        (full(8.99), "degraded", SHORT.format("9.0")),
        (full(6.0), "degraded", SHORT.format("6.0")),
        (full(5.99), "invalid", SHORT.format("6.0")),
        (full(0.0), "invalid", SHORT.format("0.0")),
        (full(5.5, completed=90), "invalid", SHORT.format("5.5")),
        (full(5.5, completed=89), "valid", None),
        ({"send_lag_p99_s": 0.010}, "valid", None),
        ({"send_lag_p99_s": 0.0101}, "degraded", LATE.format("10")),
        ({"send_lag_p99_s": 0.100}, "degraded", LATE.format("100")),
        ({"send_lag_p99_s": 0.1001}, "invalid", LATE.format("100")),
        ({"read_lag_p99_s": 0.050}, "valid", None),
        ({"read_lag_p99_s": 0.0506}, "degraded", BEHIND.format("51")),
        ({"read_lag_p99_s": 0.500}, "degraded", BEHIND.format("500")),
        ({"read_lag_p99_s": 0.5006}, "invalid", BEHIND.format("501")),
        ({"merged_share": 0.02}, "valid", None),
        ({"merged_share": 0.021}, "degraded", MERGED.format("2%")),
        ({"merged_share": 0.20}, "degraded", MERGED.format("20%")),
        ({"merged_share": 0.201}, "invalid", MERGED.format("20%")),
        ({"no_more_files": 1}, "invalid", FILES.format(1)),
        ({"died": 1}, "degraded", DIED.format(1)),
        ({"read_clock": 1}, "degraded", READS),
        ({"rejected": 99}, "valid", None),
        ({"requests": 0, "completed": 0}, "invalid", "no request completed"),
        ({"completed": 0}, "invalid", "no request completed"),
        ({"completed": 0, "rejected": 99}, "invalid", "no request completed"),
        ({"completed": 0, "rejected": 100}, "invalid", "the server refused every request"),
        ({"completed": 0, "died": 100, "no_more_files": 100, "read_clock": 100}, "invalid", "no request completed"),
    ],
)
def test_facts_word_reason(changed: dict[str, Any], word: str, reason: str | None) -> None:
    verdict = judge({**GOOD, **changed})
    assert (verdict.word, verdict.reason) == (word, reason)


FINE: tuple[dict[str, Any], str, str] = ({}, "valid", "")
EACH: list[list[tuple[dict[str, Any], str, str]]] = [
    [FINE, ({"send_lag_p99_s": 0.05}, "degraded", LATE.format(50)),
     ({"send_lag_p99_s": 0.5}, "invalid", LATE.format(500))],
    [FINE, ({"read_lag_p99_s": 0.3}, "degraded", BEHIND.format(300)),
     ({"read_lag_p99_s": 3.0}, "invalid", BEHIND.format(3000))],
    [FINE, ({"merged_share": 0.1}, "degraded", MERGED.format("10%")),
     ({"merged_share": 1.0}, "invalid", MERGED.format("100%"))],
    [FINE, (full(8.0), "degraded", SHORT.format("8.0")), (full(1.0), "invalid", SHORT.format("1.0"))],
    [FINE, ({"died": 2}, "degraded", DIED.format(2))],
    [FINE, ({"no_more_files": 7}, "invalid", FILES.format(7))],
    [FINE, ({"read_clock": 9}, "degraded", READS)],
]  # fmt: skip


def test_the_worst_word_wins_and_all_its_reasons_are_told_and_no_others() -> None:
    for together in product(*EACH):
        facts = dict(GOOD)
        for changed, _, _ in together:
            facts.update(changed)
        words = {word for _, word, _ in together}
        worst = next(word for word in ("invalid", "degraded", "valid") if word in words or word == "valid")
        reasons = [reason for _, word, reason in together if word == worst and reason]
        verdict = judge(facts)
        assert (verdict.word, verdict.reason) == (worst, "; ".join(reasons) or None)


# The facts of a run, from its rows

COLUMNS = {
    "run_id": "VARCHAR", "segment": "INTEGER", "request_index": "INTEGER", "sent_ns": "BIGINT", "end_ns": "BIGINT",
    "error_kind": "VARCHAR", "error_message": "VARCHAR", "send_lag_s": "DOUBLE", "read_lag_max_s": "DOUBLE",
    "merged_chunks": "INTEGER", "chunks": "INTEGER", "clock": "VARCHAR",
}  # fmt: skip
NO_MORE_FILES = f"no connection to 127.0.0.1:11434: {strerror(EMFILE)}"


def facts_of(rows: Iterable[dict[str, Any]], concurrency: int | None = 4) -> dict[str, Any]:
    """The facts of run r with these rows, beside a run that has everything wrong."""
    wrong = {"run_id": "other", "segment": 0, "send_lag_s": 9.0, "read_lag_max_s": 9.0, "merged_chunks": 9, "chunks": 9}
    others = [
        {**wrong, "request_index": 900 + i, "sent_ns": i, "end_ns": 10**9, "clock": "read", "error_kind": kind,
         "error_message": NO_MORE_FILES}
        for i, kind in enumerate((None, "rejected", "worker_died"))
    ]  # fmt: skip
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE requests ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})")
        con.execute("CREATE TABLE runs AS SELECT unnest(['other', 'r']) AS run_id, unnest([1, $1]) AS concurrency",
                    [concurrency])  # fmt: skip
        values = [
            [{"run_id": "r", "segment": 0, "chunks": 1, "merged_chunks": 0, **row}.get(name) for name in COLUMNS]
            for row in (*others, *rows)
        ]
        con.executemany(f"INSERT INTO requests VALUES ({', '.join('?' * len(COLUMNS))})", values)
        answer = con.execute(FACTS, ["r"])
        (facts,) = answer.fetchall()
        return dict(zip((column[0] for column in answer.description or ()), facts, strict=True))


NO_FACTS = {
    "requests": 0, "reached": 0, "completed": 0, "send_lag_p99_s": None, "read_lag_p99_s": None, "merged_share": 0,
    "in_flight_mean": None, "concurrency": 4, "rejected": 0, "no_more_files": 0, "read_clock": 0, "died": 0,
}  # fmt: skip


def test_a_run_without_a_request_has_no_facts_and_no_request_completed() -> None:
    assert facts_of([]) == NO_FACTS
    assert judge(facts_of([])) == Verdict("invalid", "no request completed")


def test_what_became_of_the_requests_is_counted() -> None:
    kinds = [None] * 7 + ["rejected"] * 4 + ["worker_died"] * 3 + ["connect"] * 2 + ["dropped"]
    rows: list[dict[str, Any]] = [
        {"request_index": 2 * i, "error_kind": kind, "error_message": kind and NO_MORE_FILES * (kind == "connect"),
         "clock": "read" if i < 5 else "kernel", "chunks": 0}
        for i, kind in enumerate(kinds)
    ]  # fmt: skip
    counted = {"requests": 17, "reached": 33, "completed": 7, "rejected": 4, "died": 3, "no_more_files": 2}
    assert facts_of(rows) == {**NO_FACTS, **counted, "read_clock": 5}


def test_lags_are_judged_at_their_99th_percentile_and_merged_chunks_by_their_share() -> None:
    rows = [
        {"request_index": i, "send_lag_s": i / 100, "read_lag_max_s": 2 + i / 100, "chunks": 8, "merged_chunks": i % 2}
        for i in range(101)
    ]
    unsent: dict[str, Any] = {"request_index": 101, "error_kind": "dropped", "chunks": 0}
    facts = facts_of([*rows, unsent])
    assert (facts["send_lag_p99_s"], facts["read_lag_p99_s"]) == (pytest.approx(0.99), pytest.approx(2.99))
    assert facts["merged_share"] == pytest.approx(50 / 808)


def held(rows: list[dict[str, Any]], n: int) -> tuple[int, int]:
    """Nanoseconds of requests in flight, and of time, from the Nth request sent to the last one sent."""
    sent = sorted(row["sent_ns"] for row in rows)
    from_ns, to_ns = sent[n - 1], sent[-1]
    spans = [min(row["end_ns"], to_ns) - max(row["sent_ns"], from_ns) for row in rows]
    return sum(max(0, span) for span in spans), to_ns - from_ns


@pytest.mark.parametrize("seed", range(3))
def test_requests_in_flight_are_those_of_the_full_part_of_each_segment(seed: int) -> None:
    draw = random.Random(seed)
    segments = [
        [{"segment": number, "request_index": i, "sent_ns": (sent := draw.randrange(1000)),
          "end_ns": sent + draw.randrange(300)} for i in range(count)]
        for number, count in enumerate((12, 40, 11))
    ]  # fmt: skip
    unsent: dict[str, Any] = {"request_index": 99, "error_kind": "dropped", "end_ns": 10**9}
    parts = [held(rows, 4) for rows in segments[:2]]  # too few requests for a full part in the third
    mean = sum(part[0] for part in parts) / sum(part[1] for part in parts)
    facts = facts_of([*(row for rows in segments for row in rows), unsent, {**unsent, "segment": 2}])
    assert facts["in_flight_mean"] == pytest.approx(mean)


def test_requests_sent_at_one_instant_have_no_full_part() -> None:
    assert facts_of({"request_index": i, "sent_ns": 5, "end_ns": 9} for i in range(40))["in_flight_mean"] is None


# The verdict while the load runs


def records(n: int, late_ns: int = 0, **more: Any) -> list[RequestRecord]:
    return [
        RequestRecord(**{"index": i, "due_ns": 0, "sent_ns": late_ns, "chunk_ns": (1, 2), "end_ns": 3,
                         "clock": "kernel", **more})
        for i in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("taken", "word", "reason"),
    [
        (records(100), "valid", ""),
        (records(100) + records(1, late_ns=11_000_000), "valid", ""),
        (records(98) + records(2, late_ns=11_000_000), "degraded", LATE.format(18)),
        (records(98) + records(2, late_ns=101_000_000), "invalid", LATE.format(175)),
        (records(100, read_lag_max_ns=50_000_000), "valid", ""),
        (records(100, read_lag_max_ns=51_000_000), "degraded", BEHIND.format(100)),
        (records(100, read_lag_max_ns=501_000_000), "invalid", BEHIND.format(995)),
        (records(48) + records(2, merged_chunks=1), "valid", ""),
        (records(90) + records(10, merged_chunks=1), "degraded", MERGED.format("5%")),
        (records(100, merged_chunks=1), "invalid", MERGED.format("50%")),
        (records(3, chunk_ns=()), "valid", ""),
        (records(3, due_ns=None), "valid", ""),
        (records(3, error=RequestError("http", "", 500)), "invalid", "no request completed"),
        (records(3, error=RequestError("rejected", "", 400)), "invalid", "the server refused every request"),
        (records(3, error=RequestError("rejected", "", 400)) + records(1), "valid", ""),
        (records(2, error=RequestError("rejected", "", 400)) + records(1, error=RequestError("connect", "")),
         "invalid", "no request completed"),
        (records(3) + records(2, error=RequestError("worker_died", "")), "degraded", DIED.format(2)),
        (records(3) + records(2, error=RequestError("connect", NO_MORE_FILES)), "invalid", FILES.format(2)),
        (records(3) + records(2, error=RequestError("connect", "Connection refused")), "valid", ""),
        (records(3) + records(1, clock="read"), "degraded", READS),
    ],
)  # fmt: skip
def test_the_verdict_so_far_is_the_one_that_will_be_stored(taken: list[RequestRecord], word: str, reason: str) -> None:
    so_far = VerdictSoFar()
    assert so_far.verdict() is None
    for record in taken:
        so_far.add(record)
    verdict = so_far.verdict()
    assert verdict is not None
    assert (verdict.word, verdict.reason or "") == (word, reason)


def test_limits_are_bounds_of_the_buckets() -> None:
    """Else a percentile from buckets could fall on the wrong side of a limit."""
    assert {*SEND_LAG_S, *READ_LAG_S} <= set(LAG_BUCKETS)

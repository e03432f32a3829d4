"""The verdict judges this client, in plain words, and never the server."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from errno import EMFILE
from itertools import pairwise, product
from os import strerror
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.types import RequestError, RequestRecord
from structbench import verdict as verdict_module
from structbench.verdict import Verdict, VerdictSoFar, judge

MS = 1_000_000
GOOD: dict[str, Any] = {
    "requests": 400, "completed": 400, "firsts": 400, "ttft": [0.1, 0.2, 0.4], "ttft_low": [0.1, 0.2, 0.4],
    "ttft_due": [0.1, 0.2, 0.4], "processor_wait": [0.0001, 0.001, 0.002], "in_flight_mean": 15.9, "concurrency": 16,
    "of_model": 0, "unknown": 0, "stepped": 0, "died": 0, "no_more_files": 0, "gaps": 9000, "gap_mean": 0.01,
    "itl": [0.01, 0.02, 0.04], "itl_low": [0.01, 0.02, 0.04], "itl_high": [0.01, 0.02, 0.04],
}  # fmt: skip


CORES = "use more cores or fewer streams"
FIRST = "TTFT {} may be off by {}: this client sent or read late: " + CORES
MACHINE = ("TTFT {} may be off by {}: processes waited {} ms for a processor of this machine, and so may have the "
           "server on it: use more cores, or stop what else runs")  # fmt: skip
DUE = "TTFT from due {} may be off by {}: requests were sent {} ms late: use more cores or a lower rate"
ITL = "ITL {} may be off by {}: this client read chunks late, together with later ones: " + CORES
SHORT = "{} of 10 requests were in flight on average: " + CORES
DIED = "{} requests were lost when a worker process died"
FILES = "{} requests failed because this client could not open more files: raise `ulimit -n`"
READS = "times are those of the client's reads, and nothing tells how late these were"
STEPPED = "the wall clock was set during {} requests: some of their times are those of the client's reads"


def full(in_flight: float, completed: int = 400) -> dict[str, Any]:
    return {"in_flight_mean": in_flight, "concurrency": 10, "completed": completed}


@pytest.mark.parametrize(
    ("changed", "word", "reason"),
    [
        ({}, "valid", None),
        ({"in_flight_mean": None, "concurrency": None, "processor_wait": None}, "valid", None),
        ({"completed": 1, "firsts": 1}, "valid", None),
        ({"completed": 1, "firsts": 0, "ttft": None, "ttft_low": None, "ttft_due": None}, "valid", None),
        ({"requests": 401}, "valid", None),
        (full(10.0), "valid", None),
        (full(9.0), "valid", None),
        (full(8.99), "degraded", SHORT.format("9.0")),
        (full(6.0), "degraded", SHORT.format("6.0")),
        (full(5.99), "invalid", SHORT.format("6.0")),
        (full(0.0), "invalid", SHORT.format("0.0")),
        (full(5.5, completed=360), "invalid", SHORT.format("5.5")),
        (full(5.5, completed=359), "valid", None),
        ({"ttft_low": [0.0954, 0.2, 0.4]}, "valid", None),
        ({"ttft_low": [0.095, 0.2, 0.4]}, "degraded", FIRST.format("p50", "5%")),
        ({"ttft_low": [0.081, 0.2, 0.4]}, "degraded", FIRST.format("p50", "23%")),
        ({"ttft_low": [0.079, 0.2, 0.4]}, "invalid", FIRST.format("p50", "27%")),
        ({"ttft_low": [0.1, 0.18, 0.3]}, "degraded", FIRST.format("p99", "33%")),
        ({"ttft_low": [0.1, 0.11, 0.3]}, "degraded", FIRST.format("p95", "82%")),
        ({"ttft_low": [0.1, 0.2, 0.19]}, "invalid", FIRST.format("p99", "111%")),
        ({"ttft_low": [0.079, 0.2, 0.3]}, "invalid", FIRST.format("p50", "27%")),
        ({"ttft_low": [0.1, 0.2, 0.0]}, "invalid", FIRST.format("p99", "more than its size")),
        ({"ttft_low": [0.1, 0.2, 0.1], "firsts": 367}, "valid", None),
        ({"ttft_low": [0.1, 0.1, 0.1], "firsts": 71}, "valid", None),
        ({"ttft_low": [0.1, 0.15, 0.1], "firsts": 72}, "degraded", FIRST.format("p95", "33%")),
        ({"ttft_low": [0.081, 0.1, 0.1], "firsts": 1}, "degraded", FIRST.format("p50", "23%")),
        ({"ttft": [0.0001, 0.2, 0.4], "ttft_low": [0.00001, 0.2, 0.4], "ttft_due": [0.0001, 0.2, 0.4],
          "processor_wait": None}, "valid", None),
        ({"processor_wait": [0.001, 0.002, 0.015]}, "valid", None),
        ({"processor_wait": [0.001, 0.002, 0.020]}, "degraded", MACHINE.format("p99", "5%", "20.0")),
        ({"processor_wait": [0.09, 0.19, 0.5]}, "degraded", MACHINE.format("p99", "more than its size", "500.0")),
        ({"ttft_low": [0.096, 0.2, 0.4], "processor_wait": [0.003, 0.0, 0.0]}, "degraded",
         MACHINE.format("p50", "8%", "3.0")),
        ({"ttft_due": [0.105, 0.2, 0.4]}, "valid", None),
        ({"ttft_due": [0.106, 0.2, 0.4]}, "degraded", DUE.format("p50", "6%", "6.0")),
        ({"ttft_due": [0.126, 0.2, 0.4]}, "invalid", DUE.format("p50", "26%", "26.0")),
        ({"ttft_due": [0.1, 0.2, 0.7]}, "degraded", DUE.format("p99", "75%", "300.0")),
        ({"ttft_due": [0.1, 0.2, 0.9]}, "invalid", DUE.format("p99", "125%", "500.0")),
        ({"itl_low": [0.0096, 0.02, 0.04]}, "valid", None),
        ({"itl_low": [0.009, 0.02, 0.04]}, "degraded", ITL.format("p50", "10%")),
        ({"itl_high": [0.011, 0.02, 0.04]}, "degraded", ITL.format("p50", "10%")),
        ({"itl_high": [0.013, 0.02, 0.04]}, "invalid", ITL.format("p50", "30%")),
        ({"itl_low": [0.01, 0.02, 0.01]}, "degraded", ITL.format("p99", "300%")),
        ({"itl": [0.0, 0.0, 0.04], "itl_low": [0.0, 0.0, 0.04], "itl_high": [0.0004, 0.0005, 0.04]}, "valid", None),
        ({"itl": [0.0, 0.0, 0.04], "itl_low": [0.0, 0.0, 0.04], "itl_high": [0.002, 0.0, 0.04]}, "degraded",
         ITL.format("p50", "20%")),
        ({"gaps": 0, "itl": None, "itl_low": None, "itl_high": None}, "valid", None),
        ({"no_more_files": 1}, "invalid", FILES.format(1)),
        ({"died": 1}, "degraded", DIED.format(1)),
        ({"unknown": 1}, "degraded", READS),
        ({"stepped": 3}, "degraded", STEPPED.format(3)),
        ({"of_model": 99}, "valid", None),
        ({"requests": 0, "completed": 0}, "invalid", "no request completed"),
        ({"completed": 0}, "invalid", "no request completed"),
        ({"completed": 0, "of_model": 1, "firsts": 0, "gaps": 0}, "valid", None),
        ({"completed": 0, "died": 100, "no_more_files": 100, "unknown": 100}, "invalid", "no request completed"),
    ],
)  # fmt: skip
def test_facts_word_reason(changed: dict[str, Any], word: str, reason: str | None) -> None:
    verdict = judge({**GOOD, **changed})
    assert (verdict.word, verdict.reason) == (word, reason)


FINE: tuple[dict[str, Any], str, str] = ({}, "valid", "")
EACH: list[list[tuple[dict[str, Any], str, str]]] = [
    [FINE, ({"ttft_low": [0.1, 0.2, 0.36]}, "degraded", FIRST.format("p99", "11%"))],
    [FINE, ({"ttft_due": [0.2, 0.2, 0.4]}, "invalid", DUE.format("p50", "100%", "100.0"))],
    [FINE, ({"itl_low": [0.009, 0.02, 0.04]}, "degraded", ITL.format("p50", "11%")),
     ({"itl_low": [0.001, 0.02, 0.04]}, "invalid", ITL.format("p50", "90%"))],
    [FINE, (full(8.0), "degraded", SHORT.format("8.0")), (full(1.0), "invalid", SHORT.format("1.0"))],
    [FINE, ({"died": 2}, "degraded", DIED.format(2))],
    [FINE, ({"no_more_files": 7}, "invalid", FILES.format(7))],
    [FINE, ({"unknown": 9}, "degraded", READS)],
]  # fmt: skip


def test_the_worst_word_wins_and_all_its_reasons_are_told_and_no_others() -> None:
    for together in product(*EACH):
        facts = {**GOOD, "processor_wait": None}
        for changed, _, _ in together:
            facts.update(changed)
        words = {word for _, word, _ in together}
        worst = next(word for word in ("invalid", "degraded", "valid") if word in words or word == "valid")
        reasons = [reason for _, word, reason in together if word == worst and reason]
        verdict = judge(facts)
        told = [each.split(" may be off")[0] for each in (verdict.reason or "").split("; ") if each]
        assert (verdict.word, told) == (worst, [reason.split(" may be off")[0] for reason in reasons])


# The facts of a run, from its rows

COLUMNS = {
    "run_id": "VARCHAR", "segment": "INTEGER", "request_index": "INTEGER", "sent_ns": "BIGINT", "end_ns": "BIGINT",
    "held_s": "DOUBLE",
    "error_kind": "VARCHAR", "error_message": "VARCHAR", "ttft_s": "DOUBLE", "ttft_off_s": "DOUBLE",
    "send_lag_s": "DOUBLE", "processor_wait_s": "DOUBLE", "chunks": "INTEGER", "chunk_offsets_us": "BIGINT[]",
    "chunk_early_us": "BIGINT[]", "clock": "VARCHAR",
}  # fmt: skip
NO_MORE_FILES = f"no connection to 127.0.0.1:11434: {strerror(EMFILE)}"


def facts_of(
    rows: Iterable[dict[str, Any]], concurrency: int | None = 4, nodes: Sequence[tuple[Any, ...]] = ()
) -> dict[str, Any]:
    """The facts of run r with these rows, beside a run that has everything wrong."""
    wrong = {"run_id": "other", "segment": 0, "send_lag_s": 9.0, "ttft_s": 9.0, "processor_wait_s": 9.0, "chunks": 2,
             "chunk_offsets_us": [0, 900], "chunk_early_us": [9, 9]}  # fmt: skip
    others = [
        {**wrong, "request_index": 900 + i, "sent_ns": i, "end_ns": 10**9, "clock": "read", "error_kind": kind,
         "error_message": NO_MORE_FILES}
        for i, kind in enumerate((None, "rejected", "worker_died"))
    ]  # fmt: skip
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE requests ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})")
        con.execute("CREATE TABLE nodes (run_id VARCHAR, segment INTEGER, died BOOLEAN, clock_error_ns BIGINT,"
                    " start_lag_s DOUBLE); INSERT INTO nodes VALUES ('other', 0, true, 9000000, 9), "
                    "('other', 0, true, 0, 0)")  # fmt: skip
        for node in nodes:
            con.execute("INSERT INTO nodes VALUES ('r', ?, ?, ?, ?)", node)
        con.execute("CREATE TABLE runs AS SELECT unnest(['other', 'r']) AS run_id, unnest([1, $1]) AS concurrency",
                    [concurrency])  # fmt: skip
        values = [
            [{"run_id": "r", "segment": 0, "chunks": 1, **row}.get(name) for name in COLUMNS]
            for row in (*others, *rows)
        ]
        con.executemany(f"INSERT INTO requests VALUES ({', '.join('?' * len(COLUMNS))})", values)

        def query(sql: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
            answer = con.execute(sql, parameters)
            names = [column[0] for column in answer.description or ()]
            return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

        return verdict_module.facts_of(query, "r")


NO_FACTS = {
    "requests": 0, "reached": 0, "completed": 0, "firsts": 0, "ttft": None, "ttft_low": None, "ttft_due": None,
    "processor_wait": None, "chunks": None, "with_early_chunks": 0, "in_flight_mean": None, "concurrency": 4,
    "of_model": 0, "no_more_files": 0, "stepped": 0, "unknown": 0, "died": 0,
    "lost_with_nodes": 0, "nodes_died": 0, "clock_error_s": None, "start_apart_s": None,
}  # fmt: skip


def test_a_run_without_a_request_has_no_facts_and_no_request_completed() -> None:
    assert facts_of([]) == NO_FACTS
    assert judge(facts_of([])) == Verdict("invalid", "no request completed")


@pytest.mark.parametrize(
    ("nodes", "reasons"),
    [
        ([], []),
        ([(0, False, 1_000_000, 0.001), (0, False, 80_000, -0.004), (1, False, 0, 9.0)], []),
        ([(0, False, 1_250_000, 0.0)], ["the clocks of the nodes are known to 1.2 ms: rates and what was in flight are "
                                        "as uncertain, latencies are not"]),
        ([(0, False, 0, 0.001), (0, False, 0, None), (0, False, 0, 0.0066)], ["the nodes began 5.6 ms apart"]),
        ([(0, True, 0, None), (0, False, 0, 0.0)], ["1 node died, with 2 requests in flight: the load was smaller from "
                                                    "then on"]),
    ],
)  # fmt: skip
def test_nodes_that_died_and_clocks_and_starts_that_are_apart_degrade_a_run(
    nodes: list[tuple[Any, ...]], reasons: list[str]
) -> None:
    rows = [{"request_index": i, "sent_ns": i, "end_ns": i + 10**8, "ttft_s": 0.1, "ttft_off_s": 0.0, "send_lag_s": 0.0}
            for i in range(5)]  # fmt: skip
    rows += [{"request_index": 5 + i, "error_kind": "node_died"} for i in range(2)]
    verdict = judge(facts_of(rows, None, nodes))
    assert verdict == (Verdict("degraded", "; ".join(reasons)) if reasons else Verdict("valid"))


def test_a_load_that_a_nodes_death_halved_says_whose_doing_that_is() -> None:
    rows = [{"request_index": i, "sent_ns": i * 10**8, "end_ns": (i + 1) * 10**8, "ttft_s": 0.1, "ttft_off_s": 0.0,
             "send_lag_s": 0.0} for i in range(40)]  # fmt: skip
    died = judge(facts_of(rows, 2, [(0, True, 0, None)]))
    assert died == Verdict("invalid", "1.0 of 2 requests were in flight on average: 1 node died")


def test_what_became_of_the_requests_is_counted() -> None:
    kinds = [None] * 7 + ["rejected"] * 4 + ["worker_died"] * 3 + ["connect"] * 2 + ["dropped"]
    rows: list[dict[str, Any]] = [
        {"request_index": 2 * i, "error_kind": kind, "error_message": kind and NO_MORE_FILES * (kind == "connect"),
         "clock": "stepped" if i < 5 else "kernel", "chunks": 0}
        for i, kind in enumerate(kinds)
    ]  # fmt: skip
    counted = {"requests": 17, "reached": 33, "completed": 7, "of_model": 4, "died": 3, "no_more_files": 2}
    assert facts_of(rows) == {**NO_FACTS, **counted, "stepped": 5, "chunks": 0}


def test_percentiles_of_what_was_measured_and_of_what_may_be_true_are_over_completed_requests() -> None:
    rows = [
        {"request_index": i, "ttft_s": 1 + i / 100, "ttft_off_s": 0.5 if i >= 90 else 0.0, "send_lag_s": 0.25,
         "processor_wait_s": i / 1000}
        for i in range(101)
    ]  # fmt: skip
    failed = {"request_index": 101, "error_kind": "stream", "ttft_s": 900.0, "ttft_off_s": 0.0}
    dropped: dict[str, Any] = {"request_index": 102, "error_kind": "dropped", "chunks": 0}
    facts = facts_of([*rows, failed, dropped, {"request_index": 103, "ttft_s": 1.5}])
    assert (facts["firsts"], facts["unknown"]) == (102, 1)
    measured = [*(row["ttft_s"] for row in rows), 1.5]
    low = [*(row["ttft_s"] - row["ttft_off_s"] for row in rows), 1.5]
    assert facts["ttft"] == pytest.approx(list(np.quantile(measured, (0.5, 0.95, 0.99))))
    assert facts["ttft_low"] == pytest.approx(list(np.quantile(low, (0.5, 0.95, 0.99))))
    assert facts["ttft_due"] == pytest.approx(
        list(np.quantile([each + 0.25 for each in measured[:-1]], (0.5, 0.95, 0.99)))
    )
    assert facts["processor_wait"] == pytest.approx([0.05, 0.095, 0.099])


def test_first_chunks_that_were_read_late_are_not_diluted_among_all_chunks() -> None:
    """1 % of the first chunks, of requests with 1,000 chunks: no percentile of gaps moves, and TTFT p99 may be off."""
    late = {"chunk_offsets_us": [80_000 + 10_000 * i for i in range(1000)], "chunk_early_us": [20_000] + [0] * 999,
            "ttft_s": 0.08, "ttft_off_s": 0.02, "chunks": 1000}  # fmt: skip
    fine = {"chunk_offsets_us": [60_000 + 10_000 * i for i in range(1000)], "chunk_early_us": [], "ttft_s": 0.06,
            "ttft_off_s": 0.0, "chunks": 1000}  # fmt: skip
    rows = [{"request_index": i, **(late if i % 50 == 0 else fine)} for i in range(400)]
    assert judge(facts_of(rows)) == Verdict("degraded", FIRST.format("p99", "33%"))


@pytest.mark.slow
def test_chunks_that_a_server_sends_together_are_not_this_clients_doing() -> None:
    together = [60_000 + 100_000 * (i // 10) for i in range(100)]
    own = {
        "chunk_offsets_us": together,
        "chunk_early_us": [60] * 100,
        "ttft_s": 0.06,
        "ttft_off_s": 6e-5,
        "chunks": 100,
    }
    rows = [{"request_index": i, **own} for i in range(400)]
    assert judge(facts_of(rows)) == Verdict("valid")
    read_late = {**own, "chunk_early_us": [0, *(90_000 * (i % 10 < 9) for i in range(1, 100))]}
    verdict = judge(facts_of({"request_index": i, **read_late} for i in range(400)))
    assert (verdict.word, (verdict.reason or "")[:17]) == ("invalid", "ITL p50 may be of")


@settings(max_examples=12)
@given(st.data())
def test_the_true_percentiles_lie_between_those_that_are_judged(data: st.DataObject) -> None:
    """Whatever the true instants were within what the client knows of its own delay."""
    requests, truth = [], []
    for _ in range(data.draw(st.integers(1, 4))):
        real = data.draw(st.lists(st.integers(0, 2000), min_size=2, max_size=9).map(sorted))
        read: list[int] = []
        for instant in real:  # what is read together has the last one's stamp
            read.append(max([instant, *read[-1:]]))
        while data.draw(st.booleans()) and len(read) > 1:
            begin = data.draw(st.integers(0, len(read) - 2))
            read[begin] = read[begin + 1]
            for before in range(begin - 1, -1, -1):
                read[before] = min(read[before], read[before + 1])
        read = [max(pair) for pair in zip(read, real, strict=True)]
        requests.append({"request_index": len(requests), "chunks": len(real), "chunk_offsets_us": read,
                         "chunk_early_us": [b - a for a, b in zip(real, read, strict=True)]})  # fmt: skip
        truth += [(b - a) / 1e6 for a, b in pairwise(real)]
    facts = facts_of(requests)
    for place, p in enumerate((0.5, 0.95, 0.99)):
        true = float(np.quantile(truth, p))
        low, high = (facts[key][place] for key in ("itl_low", "itl_high")) if "itl" in facts else (true, true)
        assert low - 1e-12 <= true <= high + 1e-12


def test_no_more_gaps_are_judged_than_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"request_index": i, "chunks": 3, "chunk_offsets_us": [0, 5, 9], "chunk_early_us": [1, 0, 0]}
            for i in range(40)]  # fmt: skip
    assert facts_of(rows)["gaps"] == 80
    monkeypatch.setattr(verdict_module, "_GAPS", 30)
    assert facts_of(rows)["gaps"] == 16


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


@pytest.mark.parametrize(("held_s", "mean"), [(None, 0.4), (1.2e-6, 1.6), (1.6e-6, 2.0)])
def test_a_stream_that_the_server_holds_after_its_answer_is_as_good_as_in_flight(
    held_s: float | None, mean: float
) -> None:
    """Of a server that ends each body late, and where rate limits make streams pause, the client was blamed."""
    rows = [{"request_index": i, "sent_ns": 1000 * i, "end_ns": 1000 * i + 400, "held_s": held_s} for i in range(40)]
    assert facts_of(rows)["in_flight_mean"] == pytest.approx(mean, rel=0.06)


def test_requests_sent_at_one_instant_have_no_full_part() -> None:
    assert facts_of({"request_index": i, "sent_ns": 5, "end_ns": 9} for i in range(40))["in_flight_mean"] is None


# The verdict while the load runs


def records(n: int, late_ns: int = 0, **more: Any) -> list[RequestRecord]:
    return [
        RequestRecord(**{"index": i, "due_ns": 0, "sent_ns": late_ns, "sent_off_ns": 0, "clock": "kernel",
                         "chunk_ns": (late_ns + 10 * MS, late_ns + 20 * MS), "chunk_early_ns": (),
                         "end_ns": late_ns + 30 * MS, **more})
        for i in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("taken", "word", "reason"),
    [
        (records(100), "valid", ""),
        (records(90) + records(1, late_ns=MS), "valid", ""),
        (records(90) + records(10, late_ns=MS), "degraded", DUE.format("p95", "10%", "1.0")),
        (records(10, late_ns=4 * MS), "invalid", DUE.format("p50", "40%", "4.0")),
        (records(10, chunk_early_ns=(MS, 0)), "degraded",
         f"{FIRST.format('p50', '11%')}; {ITL.format('p50', '10%')}"),
        (records(10, chunk_early_ns=(0, MS)), "degraded", ITL.format("p50", "10%")),
        (records(10, chunk_early_ns=(4 * MS, 0)), "invalid",
         f"{FIRST.format('p50', '67%')}; {ITL.format('p50', '40%')}"),
        (records(10, sent_off_ns=MS), "degraded", FIRST.format("p50", "11%")),
        (records(10, processor_wait_ns=MS), "degraded", MACHINE.format("p50", "11%", "1.0")),
        (records(3, chunk_ns=(), chunk_early_ns=None), "valid", ""),
        (records(3, due_ns=None), "valid", ""),
        (records(3, error=RequestError("http", "", 500)), "invalid", "no request completed"),
        (records(3, error=RequestError("rejected", "", 400)), "valid", ""),
        (records(3, error=RequestError("rejected", "", 400)) + records(1), "valid", ""),
        (records(2, error=RequestError("broken_call", "", 500)) + records(1, error=RequestError("connect", "")),
         "valid", ""),
        (records(3) + records(2, error=RequestError("worker_died", "")), "degraded", DIED.format(2)),
        (records(3) + records(2, error=RequestError("connect", NO_MORE_FILES)), "invalid", FILES.format(2)),
        (records(3) + records(2, error=RequestError("connect", "Connection refused")), "valid", ""),
        (records(3) + records(1, clock="read", chunk_early_ns=None), "degraded", READS),
        (records(3) + records(1, clock="stepped"), "degraded", STEPPED.format(1)),
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


def test_a_long_run_is_judged_by_a_sample_spread_evenly_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_module, "_KEPT", 64)
    so_far = VerdictSoFar()
    for number, record in enumerate(records(1) * 10_000):
        so_far.add(replace(record, sent_off_ns=number * 1000))
    assert so_far.firsts.seen == 10_000
    kept = [round((high - low) * 1e6) for high, low, *_ in so_far.firsts.values]
    assert 32 <= len(kept) <= 64
    assert {b - a for a, b in pairwise(kept)} == {so_far.firsts.every}

"""One load, held against the server's own stamps: who was off, who was late, who else used the machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loadgen.types import NS, RequestError, RequestRecord
from structbench.calibration.measuring import Machine, Measurement, judged

MS = 1_000_000


def record(ttft_ms: float, index: int = 0, **more: Any) -> RequestRecord:
    return RequestRecord(index=index, due_ns=0, sent_ns=0, chunk_ns=(round(ttft_ms * MS),), end_ns=NS, **more)


def entry(ttft_ms: float, prompt_tokens: int = 100, chunks: int = 64, late_ms: float = 0.0) -> dict[str, Any]:
    first_ns = 5 * NS + round(ttft_ms * MS)
    return {"received_ns": 5 * NS, "first_ns": first_ns, "prompt_tokens": prompt_tokens, "chunks": chunks,
            "last_ns": first_ns + (chunks - 1) * 20 * MS + round(late_ms * MS)}  # fmt: skip


def judge(client: list[float], server: list[dict[str, Any]], **more: Any) -> Measurement:
    given = {"server_cores": 0.2, "others_cores": 0.0, "doubt": None} | more
    return judged([record(ms, i) for i, ms in enumerate(client)], server, **given)


@pytest.mark.parametrize(
    ("client", "server", "more", "good", "server_gave_out"),
    [
        ([100.0] * 9, [entry(100)] * 9, {}, True, False),
        ([104.9] * 9, [entry(100)] * 9, {}, True, False),
        ([105.1] * 9, [entry(100)] * 9, {}, False, False),
        ([94.0] * 9, [entry(100)] * 9, {}, False, False),
        ([106.0] * 9, [entry(106)] * 9, {}, False, True),
        ([100.0] * 9, [entry(100, late_ms=6)] * 9, {}, False, True),
        ([100.0] * 9, [entry(100, late_ms=4)] * 9, {}, True, False),
        ([100.0] * 9, [entry(100)] * 9, {"server_cores": 0.95}, False, True),
        ([100.0] * 9, [entry(100)] * 9, {"doubt": "this client read late"}, False, False),
        ([100.0] * 90 + [190.0] * 10, [entry(100)] * 100, {}, False, False),
        ([100.0] * 40 + [190.0] * 10, [entry(100)] * 50, {}, True, False),
        ([100.0] * 394 + [190.0] * 6, [entry(100)] * 400, {}, False, False),
        ([100.0] * 9, [], {}, False, False),
        ([], [], {}, False, False),
    ],
)
def test_a_load_is_measured_well_where_client_and_server_agree_and_neither_was_late(
    client: list[float], server: list[dict[str, Any]], more: dict[str, Any], good: bool, server_gave_out: bool
) -> None:
    """A percentile counts from as many requests on as it needs."""
    measured = judge(client, server, **more)
    assert (measured.is_good, measured.server_gave_out, measured.requests) == (good, server_gave_out, len(client))


@pytest.mark.parametrize(("gap_ms", "good"), [(20.0, True), (20.9, True), (21.1, False), (18.9, False)])
def test_the_pace_of_the_streams_is_held_against_the_server_s_too(gap_ms: float, good: bool) -> None:
    instants = tuple(round((100 + place * gap_ms) * MS) for place in range(64))
    records = [replace(record(100, index), chunk_ns=instants, end_ns=2 * NS) for index in range(9)]
    measured = judged(records, [entry(100)] * 9, server_cores=0.2, others_cores=0.0, doubt=None)
    assert measured.is_good is good
    assert measured.off == pytest.approx(abs(gap_ms / 20 - 1))


def test_a_load_with_a_failed_request_is_not_measured_well_and_says_why() -> None:
    failed = record(100, 1, error=RequestError("connect", "full"))
    measured = judged([record(100), failed], [entry(100)], server_cores=0, others_cores=0.2, doubt=None)
    assert (measured.is_good, measured.doubt, measured.is_disturbed) == (False, "1 requests failed", True)
    assert not judge([100.0], [entry(100)], others_cores=0.15).is_disturbed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["streams", "rate"])
def test_a_small_load_is_measured_on_a_real_server(kind: Any) -> None:
    with Machine(seconds=0.5) as machine:
        for _ in range(2):  # the second knows nothing of the first
            measured = machine.measure(kind, 4)
            assert 1 <= measured.requests < 20
            assert measured.server_late < 20
            assert 0 <= measured.server_cores < 2

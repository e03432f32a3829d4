"""Two trees are measured in turn, and the made-up records are those of a stream."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import earlier
from benchmarks.made_up import Engine
from loadgen.types import Request, RequestRecord

BEFORE = Path("before")


def test_both_trees_are_measured_in_turn_and_each_is_first_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier, "settle", lambda: None)
    costs = iter([80.0, 40.0, 60.0, 100.0])
    seen = []

    def measure(tree: Path) -> earlier.Measured:
        seen.append(tree)
        return {"processor time per token": (next(costs), "µs"), "requests/s": (1.0, "")}

    figures = {figure.name: figure for figure in earlier.paired("token", measure, BEFORE, pairs=2)}
    assert seen == [BEFORE, earlier.ROOT, earlier.ROOT, BEFORE]
    assert figures["processor time per token, before"].value == 90.0
    assert figures["processor time per token, now"].value == 50.0
    ratio = figures["processor time per token, now / before"]
    assert (ratio.value, ratio.at_most) == (pytest.approx(5 / 9), 0.65)
    assert [name for name in figures if "/ before" in name] == [ratio.name]


def test_the_made_up_engine_answers_every_request_with_a_stream() -> None:
    readings = SimpleNamespace(started_ns=None)
    records = list(Engine()((Request(index=index, model="m") for index in (3, 4)), readings=readings))
    assert [record.index for record in records] == [3, 4]
    for record in records:
        assert isinstance(record, RequestRecord)
        assert (record.sent_ns, record.ttft_s, record.send_lag_s) == (readings.started_ns, 0.1, 0.0)
        assert (len(record.chunk_ns), record.itl_mean_s, record.e2e_s) == (64, pytest.approx(0.01), 0.74)

"""Both packages as a library, as documented."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import loadgen
import structbench
from loadgen.simulator import Simulator
from structbench.errors import BadInput
from structbench.suites.answer_book import answer_book
from tests.support.loads import FAST, MODELS, inferences

pytestmark = pytest.mark.slow


def test_one_call_measures_scores_and_returns_every_request(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Simulator(MODELS, answers=answer_book()) as sim:
        summary = structbench.load(models=["sim:fast"], suites=["numbers"], requests=4, host=sim.url, db="mine.duckdb")
        assert len(inferences(sim)) == 4
        planned = structbench.load(models=["sim:fast"], suites=["json"], host=sim.url, db="mine.duckdb", dry_run=True)
    assert isinstance(summary, structbench.Summary)
    assert [(row["suite"], row["requests"], row["accuracy"]) for row in summary.rows] == [("numbers", 4, 1.0)]
    records = summary.records()
    assert [record["request_index"] for record in records] == [0, 1, 2, 3]
    assert {record["outcome"] for record in records} == {"correct"}
    assert {record["run_id"] for record in records} == {row["run_id"] for row in summary.rows}
    assert set(summary.records("case_id, ttft_s")[0]) == {"case_id", "ttft_s"}
    assert len(planned.planned) == 1
    assert capfd.readouterr() == ("", ""), "a library does not talk"


def test_a_load_while_another_error_is_handled_is_complete_all_the_same(tmp_path: Path) -> None:
    with Simulator(MODELS, answers=answer_book()) as sim:
        try:
            raise KeyError("the caller's own")
        except KeyError:
            options = {"suites": ["numbers"], "requests": 2, "host": sim.url, "metrics_port": 0}
            summary = structbench.load(models=["sim:fast"], db=tmp_path / "x.duckdb", **options)
    assert [row["status"] for row in summary.rows] == ["complete"]


def test_bad_input_is_an_exception_of_the_package(tmp_path: Path) -> None:
    with pytest.raises(structbench.StructbenchError, match="--requests 0") as caught:
        structbench.load(requests=0, db=tmp_path / "x.duckdb")
    assert isinstance(caught.value, BadInput)
    with pytest.raises(TypeError, match="modles"):
        structbench.load(modles=["a"])
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_public_are_there_and_no_others() -> None:
    assert all(getattr(structbench, name) is not None for name in structbench.__all__)
    assert all(getattr(loadgen, name) is not None for name in loadgen.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = structbench.nothing


def test_load_without_suites_or_a_store() -> None:
    with Simulator({"m": replace(FAST, text_tokens=(3, 3))}) as sim:
        requests = [
            loadgen.Request(index=i, model="m", messages=({"role": "user", "content": f"Hello {i}"},)) for i in range(5)
        ]
        readings = loadgen.Readings()
        load = loadgen.generate_load(requests, loadgen.ClosedLoop(concurrency=2), host=sim.url, readings=readings)
        records = {record.index: record for record in load}
        opened = list(loadgen.generate_load(requests, loadgen.OpenLoop(rate=200.0), host=sim.url))
    assert sorted(records) == list(range(5))
    assert all(record.completed and record.output_tokens == 4 for record in records.values())
    assert all(record.ttft_s is not None and record.ttft_s > 0 for record in records.values())
    assert readings.started_ns is not None
    assert sorted(record.index for record in opened) == list(range(5))
    assert all(record.send_lag_s is not None for record in opened)

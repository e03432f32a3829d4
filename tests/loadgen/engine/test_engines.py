"""The door of the engines: another one is a module with ``records``, and a name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from loadgen import ClosedLoop, OpenLoop, Orders, Readings, RequestRecord, Timeouts, generate_load
from loadgen.arrivals import due_offsets
from loadgen.engine import ENGINES, Job, default_warmup, default_workers
from tests.support.paths import ROOT
from tests.support.scripted_server import chat


class MadeUp(ModuleType):
    """An engine that answers at once, and remembers what it was given."""

    def records(self, requests: Any, due: list[int] | None, job: Job, *more: Any) -> Iterator[RequestRecord]:
        self.due, self.job, self.more = due, job, more
        return (RequestRecord(index=request.index) for request in requests)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    made = MadeUp("made_up_engine")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setitem(ENGINES, "made up", made.__name__)  # type: ignore[arg-type]
    return made


def test_another_engine_is_given_the_whole_load_by_its_name(engine: MadeUp) -> None:
    orders, readings, warmup = Orders(), Readings(), [chat(index=-1)]
    load = OpenLoop(rate=10.0, arrival="poisson", seed=3)
    found = generate_load(
        [chat(index=i) for i in range(4)], load, host="h:1", workers=5, warmup=warmup, timeouts=Timeouts.of(7),
        grace_s=2.5, orders=orders, readings=readings, engine="made up",
    )  # fmt: skip
    assert [record.index for record in found] == [0, 1, 2, 3]
    assert engine.due == due_offsets(load, 4)
    assert engine.job == Job(load=load, workers=5, api="ollama", host="h:1", timeouts=Timeouts.of(7),
                             warmup=tuple(warmup), grace_s=2.5)  # fmt: skip
    assert engine.more[0] is orders
    assert engine.more[1] is readings


def test_an_engine_need_not_know_what_was_left_out(engine: MadeUp) -> None:
    list(generate_load([chat()], ClosedLoop(concurrency=1), engine="made up"))
    assert engine.due is None
    assert engine.job == Job(
        load=ClosedLoop(concurrency=1), workers=1, api="ollama", host=None, timeouts=Timeouts(), warmup=()
    )
    assert engine.more == (Orders(), Readings())


def test_nothing_is_imported_or_started_before_the_first_record_is_asked_for() -> None:
    code = "import sys, loadgen; loadgen.generate_load([], loadgen.ClosedLoop(concurrency=1)); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"asyncio", "subprocess", "httpx", "ollama", *ENGINES.values()} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("load", "wanted"),
    [(ClosedLoop(concurrency=1), 1), (ClosedLoop(concurrency=64), 1), (ClosedLoop(concurrency=100), 2),
     (ClosedLoop(concurrency=9999), 3), (OpenLoop(rate=50.0), 1), (OpenLoop(rate=50.1), 2), (OpenLoop(rate=1e6), 4)],
)  # fmt: skip
def test_default_workers(monkeypatch: pytest.MonkeyPatch, load: Any, wanted: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert default_workers(load) == wanted


@pytest.mark.parametrize(("stream_tokens_per_s", "wanted"), [(5.0, 1), (100.0, 15), (50.0, 8), (400.0, 15)])
def test_a_closed_loop_has_a_worker_for_so_many_tokens_a_second(
    monkeypatch: pytest.MonkeyPatch, stream_tokens_per_s: float, wanted: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    assert default_workers(ClosedLoop(concurrency=1024), stream_tokens_per_s) == wanted
    assert default_workers(OpenLoop(rate=99.0), stream_tokens_per_s) == 2, "by its rate alone"
    assert default_workers(ClosedLoop(concurrency=2), 1e6) == 2, "none without a stream"


@pytest.mark.parametrize(
    ("load", "wanted"), [(ClosedLoop(concurrency=64), 1), (ClosedLoop(concurrency=9999), 32), (OpenLoop(rate=101.0), 3)]
)
def test_what_warms_up_does_not_depend_on_the_machine(load: Any, wanted: int) -> None:
    assert default_warmup(load) == wanted


@pytest.mark.parametrize(("cores", "wanted"), [(3, 2), (None, 1)])
def test_where_affinity_is_not_known_the_cores_are_counted(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, wanted: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert default_workers(ClosedLoop(concurrency=1000)) == wanted

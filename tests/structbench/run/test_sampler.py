"""Samples tell what client and server use; one that cannot be taken is left out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from typing import Any

import httpx
import pytest

from loadgen.api.server import Server
from loadgen.engine import Readings
from loadgen.simulator import Simulator
from structbench.run import sampler
from structbench.run.machine import COUNTERS
from structbench.run.sampler import Sampler
from tests.support.loads import FAST

COLUMNS = {
    "t_s", "sampled_at", "client_cpu_percent", "client_rss_bytes", "in_flight", "loop_lag_max_s", "store_backlog",
    "server_size_bytes", "server_vram_bytes", "vram_share", "workers", "model_expiry_s",
    "processor_pressure", *COUNTERS,
}  # fmt: skip


def samples(address: str, readings: Readings, monkeypatch: pytest.MonkeyPatch, count: int = 2) -> list[dict[str, Any]]:
    monkeypatch.setattr(sampler, "PERIOD_S", 0.02)
    kept: list[dict[str, Any]] = []
    enough = threading.Event()
    ticks: list[int] = []

    def keep(sample: Any) -> None:
        kept.append(dict(sample))
        if len(kept) >= count:
            enough.set()

    def tick() -> None:
        ticks.append(len(kept))
        if readings.started_ns is None and len(ticks) > 3:
            enough.set()

    with Sampler(Server(address, "1", {}), "one", readings, lambda: 7, keep, tick):
        assert enough.wait(30)
    assert len(ticks) >= len(kept)
    taken = len(kept)
    assert threading.Event().wait(0.06) is False
    assert len(kept) == taken, "samples after the end"
    return kept


def test_a_sample_has_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Simulator({"one": replace(FAST, size=4000, vram_share=0.25)}) as sim,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker,
    ):
        httpx.post(sim.url + "/api/generate", json={"model": "one"})
        readings = Readings(started_ns=1, in_flight=3, loop_lag_s=0.5, pids=(worker.pid, 2**22 + 1))
        first, second = samples(sim.url, readings, monkeypatch)[:2]
        alone = samples(sim.url, replace(readings, pids=()), monkeypatch)[0]
        worker.communicate(b"\n")
    assert set(first) == COLUMNS
    assert first["t_s"] < second["t_s"]
    assert (first["in_flight"], first["loop_lag_max_s"], first["store_backlog"]) == (3, 0.5, 7)
    assert first["vram_share"] == first["server_vram_bytes"] / first["server_size_bytes"] == 0.25
    assert first["client_rss_bytes"] > alone["client_rss_bytes"] > 1_000_000, "the worker's memory counts too"
    assert (first["workers"], alone["workers"]) == (1, 0), "a process that is gone is not alive"
    assert 0 < second["model_expiry_s"] < first["model_expiry_s"] <= 300
    assert os.getpid() not in readings.pids


def test_nothing_is_kept_before_the_common_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert samples("http://127.0.0.1:9", Readings(), monkeypatch) == []


def test_a_server_that_does_not_answer_leaves_its_half_out(monkeypatch: pytest.MonkeyPatch) -> None:
    first = samples("http://127.0.0.1:9", Readings(started_ns=1), monkeypatch)[0]
    assert set(first) == COLUMNS
    assert {first[name] for name in ("server_size_bytes", "server_vram_bytes", "vram_share", "model_expiry_s")} == {
        None
    }
    assert first["client_rss_bytes"] > 0

"""Samples of what this client and the server use, once a second while a cell runs: rows of ``samples``."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic_ns
from typing import Any

import psutil

from loadgen.api.server import Server
from loadgen.engine import Readings
from loadgen.types import NS
from structbench.run.machine import Machine

PERIOD_S = 1.0


@dataclass
class Sampler:
    """A thread that, inside ``with``, calls ``tick`` and passes a row to ``keep`` each second."""

    server: Server
    model: str
    readings: Readings
    backlog: Callable[[], int]
    keep: Callable[[Mapping[str, Any]], None]
    tick: Callable[[], None]

    def __post_init__(self) -> None:
        self._watcher = self.server.api.ModelWatcher(self.server.address, self.server.access)
        self._ended = threading.Event()
        self._processes: dict[int, psutil.Process] = {}
        self._machine = Machine()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._watcher.close()

    def _run(self) -> None:
        self._client()  # CPU percentages count from the call before
        while not self._ended.wait(PERIOD_S):
            self.tick()
            started_ns = self.readings.started_ns
            if started_ns is not None:
                self.keep({"t_s": (monotonic_ns() - started_ns) / NS, **self._sample()})

    def _sample(self) -> dict[str, Any]:
        cpu, rss, workers = self._client()
        loaded = self._watcher.loaded(self.model)
        return {
            "sampled_at": datetime.now(UTC),
            "client_cpu_percent": cpu,
            "client_rss_bytes": rss,
            "in_flight": self.readings.in_flight,
            "loop_lag_max_s": self.readings.loop_lag_s,
            "store_backlog": self.backlog(),
            "workers": workers,
            "server_size_bytes": None if loaded is None else loaded.size_bytes,
            "server_vram_bytes": None if loaded is None else loaded.vram_bytes,
            "vram_share": None if loaded is None or not loaded.size_bytes else loaded.vram_bytes / loaded.size_bytes,
            "model_expiry_s": None if loaded is None else loaded.expiry_s,
            **self._machine.since(),
        }

    def _client(self) -> tuple[float, int, int]:
        """Return CPU percent (100: one core) and resident bytes of this process and its workers, and how many live."""
        cpu, rss, workers = 0.0, 0, -1
        for pid in (os.getpid(), *self.readings.pids):
            try:
                process = self._processes.setdefault(pid, psutil.Process(pid))
                cpu += process.cpu_percent()
                rss += process.memory_info().rss
                workers += 1
            except psutil.Error:
                self._processes.pop(pid, None)
        return cpu, rss, workers

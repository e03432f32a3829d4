"""One load against the simulated server in a process of its own: how far this client was off, and the server late."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import psutil

from loadgen.engine import Readings, generate_load
from loadgen.simulator import Profile, SimulatorProcess
from loadgen.types import NS, ClosedLoop, Load, OpenLoop, Request, RequestRecord
from structbench.stats import needed, percentile
from structbench.verdict import VerdictSoFar

Kind = Literal["streams", "rate"]

TOKENS_PER_S = 50
"""Speed of each stream."""
LIMIT = 0.05
"""Share of a percentile that it may be off by."""
QUIET_CORES = 0.15
"""Cores that other processes may use without disturbing a measurement."""
_BUSY_CORES = 0.9
_SECONDS = 3.0
_STREAMED, _SHORT = 64, 2
"""Tokens of an answer: of streams, and where requests a second are counted."""
_PROMPT = "one two three four five six seven eight nine ten " * 8
_PROMPT_TOKENS_PER_S = 1000.0
_PROFILE = Profile(
    load_s=0.0, prompt_tokens_per_s=_PROMPT_TOKENS_PER_S, tokens_per_s=TOKENS_PER_S, jitter=0.0, parallel=100_000,
    max_queue=100_000, text_tokens=(_STREAMED, _STREAMED),
)  # fmt: skip
_MODEL = "calibration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One load; shares are of the server's own TTFT."""

    requests: int
    off: float
    """How far the worst percentile of TTFT, or of the mean ITL of requests, was off the server's own."""
    server_late: float
    """How late the server was by its own stamps."""
    server_cores: float
    others_cores: float
    """Cores that processes used which are neither client nor server."""
    doubt: str | None
    """What the verdict says of the client, unless that is *valid*."""

    @property
    def is_good(self) -> bool:
        return self.doubt is None and not self.server_gave_out and self.off <= LIMIT

    @property
    def server_gave_out(self) -> bool:
        return self.server_late > LIMIT or self.server_cores > _BUSY_CORES

    @property
    def is_disturbed(self) -> bool:
        return self.others_cores > QUIET_CORES


class Machine:
    """Measures loads on this machine, as a context manager that runs the server."""

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._server = SimulatorProcess({_MODEL: _PROFILE})

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.close()

    def measure(self, kind: Kind, size: int) -> Measurement:
        """Send ``size`` streams, or short requests a second, for a few seconds."""
        load: Load = (
            ClosedLoop(concurrency=size, duration_s=self._seconds) if kind == "streams"
            else OpenLoop(rate=float(size), arrival="poisson", duration_s=self._seconds)
        )  # fmt: skip
        tokens = _STREAMED if kind == "streams" else _SHORT
        readings, so_far, records = Readings(), VerdictSoFar(), list[RequestRecord]()
        before, began_s = _cpu_s(self._server.pid), os.times().elapsed
        for record in generate_load(_requests(tokens), load, host=self._server.url, readings=readings):
            so_far.add(record)
            records.append(record)
        own_s, server_s, all_s = (now - then for now, then in zip(_cpu_s(self._server.pid), before, strict=True))
        took_s = os.times().elapsed - began_s
        verdict = so_far.verdict()
        return judged(
            records, self._truth(readings.started_ns or 0), server_cores=server_s / took_s,
            others_cores=max(0.0, all_s - own_s - server_s) / took_s,
            doubt=None if verdict is None or verdict.word == "valid" else verdict.reason,
        )  # fmt: skip

    def _truth(self, since_ns: int) -> list[dict[str, Any]]:
        """Return what the server did since then, and have it forget that."""
        with urllib.request.urlopen(f"{self._server.url}/truth", timeout=30) as answer:
            entries = json.load(answer)["requests"]
        urllib.request.urlopen(f"{self._server.url}/truth/reset", data=b"", timeout=30).close()
        return [entry for entry in entries if entry["received_ns"] >= since_ns and entry["outcome"] == "completed"]


def judged(
    records: Sequence[RequestRecord], entries: Sequence[dict[str, Any]], *, server_cores: float, others_cores: float,
    doubt: str | None,
) -> Measurement:  # fmt: skip
    """Hold what this client measured against the server's own entries of the same requests."""
    measured = [record.ttft_due_s for record in records if record.completed and record.ttft_due_s is not None]
    own = [(entry["first_ns"] - entry["received_ns"]) / NS for entry in entries]
    if not measured or len(measured) < len(records) or not own:
        missing = len(records) - len(measured)
        return Measurement(requests=len(records), off=1.0, server_late=0.0, server_cores=server_cores,
                           others_cores=others_cores, doubt=doubt or f"{missing} requests failed")  # fmt: skip
    planned_s = max(entry["prompt_tokens"] for entry in entries) / _PROMPT_TOKENS_PER_S
    paces = [record.itl_mean_s for record in records if record.itl_mean_s is not None]
    own_paces = [(entry["last_ns"] - entry["first_ns"]) / NS / (entry["chunks"] - 1) for entry in entries
                 if entry["chunks"] > 1]  # fmt: skip
    off = late = 0.0
    for p in (0.5, 0.95, 0.99):
        if p == 0.5 or len(measured) >= needed(p):
            true_s = percentile(own, p) or planned_s
            off = max(off, abs((percentile(measured, p) or 0.0) / true_s - 1))
            if (pace_s := percentile(paces, p)) and (own_s := percentile(own_paces, p)):
                off = max(off, abs(pace_s / own_s - 1))
            late = max(late, true_s / planned_s - 1, _worst_token(entries, p) / planned_s)
    return Measurement(requests=len(records), off=off, server_late=late, server_cores=server_cores,
                       others_cores=others_cores, doubt=doubt)  # fmt: skip


def _worst_token(entries: Sequence[dict[str, Any]], p: float) -> float:
    """Return how late the last token was by the server's timetable, in seconds, at that percentile."""
    return max(0.0, percentile((
        (entry["last_ns"] - entry["first_ns"]) / NS - (entry["chunks"] - 1) / TOKENS_PER_S for entry in entries
    ), p) or 0.0)  # fmt: skip


def _requests(tokens: int) -> Iterator[Request]:
    for index in count():
        messages = ({"role": "user", "content": f"{index:07} {_PROMPT}"},)
        yield Request(index=index, model=_MODEL, messages=messages, options={"num_predict": tokens, "seed": index})


def _cpu_s(server_pid: int) -> tuple[float, float, float]:
    """Return the processor time of this process and the workers that ended, of the server, and of everything."""
    own, server, everything = os.times(), psutil.Process(server_pid).cpu_times(), psutil.cpu_times()
    idle = everything.idle + getattr(everything, "iowait", 0.0)
    busy = sum(everything) - idle - getattr(everything, "guest", 0.0) - getattr(everything, "guest_nice", 0.0)
    return sum(own[:4]), server.user + server.system, busy

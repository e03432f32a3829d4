"""The cost of TLS: the same load over https and over plain TCP, in alternating runs against two simulated servers.

Both servers run all the time, so that what is compared differs in the bytes alone; their processor time is in no
figure, nor are the handshakes, which are done before all streams run. It needs the program openssl, for a certificate.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import NS, Usage
from benchmarks.servers import Server, simulate
from benchmarks.table import Figure
from benchmarks.timing import OTHERS, SCENARIOS, settle, timed_load

NAME = "TLS against plain TCP at 32 streams"
_SCENARIO = next(scenario for scenario in SCENARIOS if scenario.concurrency == 32)
_ORDER = (False, True, True, False, False, True)
_SETTLED_NS = NS
"""From then on all streams run and all handshakes are done."""
_MAX_CPU_RATIO = 1.15


@dataclass(frozen=True, slots=True)
class _Load:
    per_token_us: float
    """Processor time of all processes of the client, while all streams run."""
    ttft_off_ms: float
    """TTFT p50 as stored - as measured by the server."""
    read_lag_ms: float
    others: float


def measure(seconds: float) -> list[Figure]:
    """Run plain and TLS in turns; return both costs per token, their ratio, and how far each TTFT is off."""
    found: dict[bool, list[_Load]] = {False: [], True: []}
    settle()
    with tempfile.TemporaryDirectory() as folder:
        certificate = _certificate(Path(folder))
        with simulate(_SCENARIO.timetable) as plain, simulate(_SCENARIO.timetable, certificate) as secure:
            for tls in _ORDER:
                how = ("--ca", certificate[0]) if tls else ()
                found[tls].append(_load(seconds, secure if tls else plain, *how))
    without, over_tls = found[False], found[True]
    cost = [median(load.per_token_us for load in loads) for loads in (without, over_tls)]
    return [
        _figure("processor time per token, plain TCP", cost[0], "µs"),
        _figure("processor time per token, TLS", cost[1], "µs"),
        _figure("processor time per token, TLS / plain TCP", cost[1] / cost[0], at_most=_MAX_CPU_RATIO),
        *(
            _figure(f"TTFT p50, off by, {name}", median(load.ttft_off_ms for load in loads), "ms")
            for name, loads in (("plain TCP", without), ("TLS", over_tls))
        ),
        _figure("read lag p99, TLS", max(load.read_lag_ms for load in over_tls), "ms"),
        _figure(OTHERS, max(load.others for load in without + over_tls)),
    ]


def _load(seconds: float, server: Server, *more: str) -> _Load:
    usage, facts, truth = timed_load(_SCENARIO, seconds, server, "--metrics-port", "0", *more)
    assert facts["read_lag_p99_s"] is not None, "the kernel's stamps are missing"
    return _Load(
        per_token_us=_per_token_us(usage, facts),
        ttft_off_ms=(facts["ttft_p50_s"] - truth.ttft_p50_s) * 1e3, read_lag_ms=facts["read_lag_p99_s"] * 1e3,
        others=usage.others_cores,
    )  # fmt: skip


def _per_token_us(usage: Usage, facts: Mapping[str, Any]) -> float:
    """Return the processor time a token between the first and the last sample of the time when all streams run."""
    first_ns, last_ns = facts["first_ns"], facts["last_ns"]
    within = [each for each in usage.samples if first_ns + _SETTLED_NS <= each.at_ns <= last_ns]
    tokens: float = facts["tokens"] * (within[-1].at_ns - within[0].at_ns) / (last_ns - first_ns)
    return (within[-1].cpu_s - within[0].cpu_s) / tokens * 1e6


def _certificate(folder: Path) -> tuple[str, str]:
    """Make a certificate for 127.0.0.1; return its file and its key's."""
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
         "-out", cert, "-days", "2", "-subj", "/CN=benchmark", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def _figure(name: str, value: float, unit: str = "", *, at_most: float | None = None) -> Figure:
    return Figure(benchmark=NAME, name=name, value=value, unit=unit, at_most=at_most)

"""The cost of OpenAI's API beside Ollama's own: the same load over both, in alternating runs against one server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import Server, serve
from benchmarks.table import Figure
from benchmarks.timing import OTHERS, SCENARIOS, settle, timed_load

NAME = "OpenAI's API against Ollama's own at 128 streams"
_SCENARIO = next(scenario for scenario in SCENARIOS if scenario.concurrency == 128)
_ORDER = ("ollama", "openai", "openai", "ollama")
_MAX_CPU_RATIO = 1.4
_TTFT_P50_OFF_MS, _TTFT_P99_OFF_MS = 0.3, 5.0


@dataclass(frozen=True, slots=True)
class _Load:
    per_token_us: float
    """Processor time of all processes of the client, from the first request on."""
    p50_off_ms: float
    """TTFT as stored - as measured by the server."""
    p99_off_ms: float
    others: float


def measure(seconds: float, truthserver: Path | None) -> list[Figure]:
    """Run Ollama's, OpenAI's, OpenAI's, Ollama's; return both costs per token, their ratio, and how far TTFT is off."""
    found: dict[str, list[_Load]] = {"ollama": [], "openai": []}
    settle()
    with serve(_SCENARIO.timetable, truthserver) as server:
        for api in _ORDER:
            found[api].append(_load(seconds, server, api))
    cost = {api: sum(load.per_token_us for load in loads) / len(loads) for api, loads in found.items()}
    ratio = cost["openai"] / cost["ollama"]
    late = truthserver is None  # the simulator itself may be
    return [
        *(_figure(f"processor time per token, {api}", each, "µs") for api, each in cost.items()),
        _figure("processor time per token, openai / ollama", ratio, at_most=_MAX_CPU_RATIO),
        *(figure for api, loads in found.items() for figure in _offs(api, loads, late)),
        _figure(OTHERS, max(load.others for loads in found.values() for load in loads)),
    ]


def _offs(api: str, loads: list[_Load], late: bool) -> list[Figure]:
    p50 = sum(load.p50_off_ms for load in loads) / len(loads)
    p99 = sum(load.p99_off_ms for load in loads) / len(loads)
    judged = api == "openai" and not late
    return [
        _figure(f"TTFT p50, off by, {api}", p50, "ms", at_most=_TTFT_P50_OFF_MS if judged else None),
        _figure(f"TTFT p99, off by, {api}", p99, "ms", at_most=_TTFT_P99_OFF_MS if judged else None),
    ]


def _load(seconds: float, server: Server, api: str) -> _Load:
    usage, facts, truth = timed_load(_SCENARIO, seconds, server, "--metrics-port", "0", "--api", api)
    return _Load(
        per_token_us=(usage.cpu_s - usage.cpu_before_s(facts["first_ns"])) / facts["tokens"] * 1e6,
        p50_off_ms=(facts["ttft_p50_s"] - truth.ttft_p50_s) * 1e3,
        p99_off_ms=(facts["ttft_p99_s"] - truth.ttft_p99_s) * 1e3, others=usage.others_cores,
    )  # fmt: skip


def _figure(name: str, value: float, unit: str = "", *, at_most: float | None = None) -> Figure:
    return Figure(benchmark=NAME, name=name, value=value, unit=unit, at_most=at_most)

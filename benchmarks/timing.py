"""The whole program, ``structbench load`` with store, scoring and metrics on, against a server that knows the truth.

What is compared was measured in the same run: stored TTFT against the server's own, requests/s against the ideal at
the server's own TTFT.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.machine import NS, Usage
from benchmarks.servers import Server, ServerTiming, Timetable, free_port, serve
from benchmarks.table import Figure
from structbench.store import Store

ROOT = Path(__file__).parent.parent
ANSWERS = Path(__file__).parent / "answers.jsonl"
STREAM = Timetable(ttft_s=0.1, itl_s=0.01, tokens=64)
SHORT = Timetable(ttft_s=0.005, itl_s=0.01, tokens=1)
"""A request that ends with its first token."""
OTHERS = "cores used by others meanwhile"
_QUIET_LIMIT_S = 120.0
_MAX_OUTPUT = 2000
"""Characters shown of a failed command's output."""
_FACTS = """
SELECT count(*) AS requests, count(*) FILTER (WHERE error_kind IS NOT NULL) AS errors, sum(output_tokens) AS tokens,
    count(*) FILTER (WHERE outcome <> 'completed') AS scored,
    quantile_cont(ttft_s, 0.5) AS ttft_p50_s, quantile_cont(ttft_s, 0.99) AS ttft_p99_s,
    quantile_cont(send_lag_s, 0.5) AS send_lag_p50_s, quantile_cont(send_lag_s, 0.99) AS send_lag_p99_s,
    quantile_cont(read_lag_max_s, 0.99) AS read_lag_p99_s, min(sent_ns) AS first_ns, max(end_ns) AS last_ns,
    sum(merged_chunks) / sum(chunks) AS merged_share,
    (SELECT max(busy) FROM (SELECT sum(step) OVER (ORDER BY moment, step) AS busy FROM (
        SELECT sent_ns AS moment, 1 AS step FROM requests UNION ALL SELECT end_ns, -1 FROM requests))) AS most_in_flight
FROM requests
"""
_NODES = "SELECT max(start_lag_s) * 1e3 AS start_lag_ms, max(clock_error_ns) / 1e6 AS clock_error_ms FROM nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A load and the targets for it; ``rate`` set means an open loop."""

    name: str
    timetable: Timetable = STREAM
    tokens: int = 64
    suite: str = "text"
    concurrency: int = 0
    rate: float | None = None
    requests: int | None = None
    """None: as many as the timetable allows in the given seconds."""
    ttft_p50_off_ms: float | None = None
    ttft_p99_off_ms: float | None = None
    requests_per_s: float | None = None
    cpu_us_per_token: float | None = None
    send_lag_ms: float | None = None
    baseline: bool = False
    is_flat: bool = False
    """Whether memory must not grow."""

    def count(self, seconds: float) -> int:
        """Return the requests of a run of about this length; all streams of a closed loop get the same number."""
        if self.requests is not None:
            return self.requests
        if self.rate is not None:
            return round(self.rate * seconds)
        each = self.timetable.ttft_s + (self.tokens - 1) * self.timetable.itl_s
        return self.concurrency * max(1, round(seconds / each))

    def ideal_per_s(self, ttft_s: float) -> float:
        """Return the requests/s of a client without cost: concurrency / (TTFT + gaps), or the rate."""
        if self.rate is not None:
            return self.rate
        return self.concurrency / (ttft_s + (self.tokens - 1) * self.timetable.itl_s)

    def arguments(self, seconds: float) -> list[str]:
        load = ["--concurrency", str(self.concurrency)] if self.rate is None else ["--rate", f"{self.rate:g}"]
        return [
            "--suites", self.suite, *load, "--requests", str(self.count(seconds)),
            "--option", f"num_predict={self.tokens}",
        ]  # fmt: skip


SCENARIOS = (
    Scenario(
        name="32 streams x 100 tokens/s", concurrency=32, ttft_p50_off_ms=0.2, ttft_p99_off_ms=5.0,
        requests_per_s=42.5, cpu_us_per_token=130.0, baseline=True,
    ),
    Scenario(
        name="128 streams x 100 tokens/s, scored", concurrency=128, suite=str(ANSWERS), ttft_p50_off_ms=0.3,
        ttft_p99_off_ms=20.0, requests_per_s=165.0, cpu_us_per_token=130.0, baseline=True,
    ),
    Scenario(name="open loop, 200 requests/s constant", rate=200.0, tokens=8, send_lag_ms=1.0),
    Scenario(
        name="20,000 short requests", concurrency=16, requests=20_000, tokens=1, timetable=SHORT, is_flat=True,
    ),
)  # fmt: skip


def measure(scenario: Scenario, seconds: float, truthserver: Path | None) -> list[Figure]:
    """Run the scenario once and return its figures, without targets if the server itself may be late."""
    if truthserver is None:
        scenario = replace(scenario, ttft_p50_off_ms=None, ttft_p99_off_ms=None, requests_per_s=None)
    settle()
    with serve(scenario.timetable, truthserver) as server:
        usage, facts, truth = timed_load(scenario, seconds, server, "--metrics-port", str(free_port()))
        baseline = _baseline(scenario, seconds, server) if scenario.baseline else None
    figures = [*_truthful(scenario, facts, truth), *_costs(scenario, usage, facts)]
    if baseline is not None:
        figures += _against(scenario, baseline, figures)
    return figures


def settle() -> None:
    """Wait until the machine is quiet, or print that it is not."""
    if not machine.wait_until_quiet(_QUIET_LIMIT_S):
        print("the machine is not quiet: other processes are using it", file=sys.stderr)


def timed_load(
    scenario: Scenario, seconds: float, server: Server, *more: str, tree: Path = ROOT
) -> tuple[Usage, dict[str, Any], ServerTiming]:
    """Run one load of ``tree``'s program with ``more`` options; return its usage, stored figures, the server's own."""
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "benchmark.duckdb"
        command = [
            sys.executable, "-m", "structbench", "load", "--host", server.url, "--models", server.model,
            *scenario.arguments(seconds), "--db", str(db), *more, "--json",
        ]  # fmt: skip
        server.forget()
        usage = machine.run(command, server_pid=server.pid, cwd=tree)
        if usage.exit_code != 0:
            raise SystemExit(f"{' '.join(command)} ended with {usage.exit_code}:\n{usage.output[-_MAX_OUTPUT:]}")
        truth = server.truth()
        with Store(db) as store:
            facts = store.query(_FACTS)[0] | store.query("SELECT verdict, verdict_reason FROM runs")[0]
            facts |= store.query("SELECT max(workers) AS workers FROM segments")[0] | store.query(_NODES)[0]
            facts["notes"] = [row["text"] for row in store.query("SELECT text FROM notes ORDER BY kind")]
    if facts["errors"]:
        raise SystemExit(f"{facts['errors']} of {facts['requests']} requests failed: the benchmark is not valid")
    if facts["verdict"] != "valid":
        print(f"{scenario.name}: {facts['verdict']}: {facts['verdict_reason']}", file=sys.stderr)
    return usage, facts, truth


def off_ms(facts: dict[str, Any], truth: ServerTiming) -> tuple[float, float]:
    """Return how far p50 and p99 of the stored TTFT are off the server's own."""
    return (facts["ttft_p50_s"] - truth.ttft_p50_s) * 1e3, (facts["ttft_p99_s"] - truth.ttft_p99_s) * 1e3


def requests_per_s(facts: dict[str, Any]) -> float:
    """Return the requests of a load over the time from the first sent to the last end."""
    per_s: float = facts["requests"] / ((facts["last_ns"] - facts["first_ns"]) / NS)
    return per_s


def _truthful(scenario: Scenario, facts: dict[str, Any], truth: ServerTiming) -> list[Figure]:
    """Return the figures of TTFT, throughput and lags."""
    figures = []
    limits = (scenario.ttft_p50_off_ms, scenario.ttft_p99_off_ms)
    owns = (truth.ttft_p50_s, truth.ttft_p99_s)
    for p, own, off, limit in zip(("p50", "p99"), owns, off_ms(facts, truth), limits, strict=True):
        figures += [
            _figure(scenario, f"TTFT {p}, server's own", own * 1e3, "ms"),
            _figure(scenario, f"TTFT {p}, stored", facts[f"ttft_{p}_s"] * 1e3, "ms"),
            _figure(scenario, f"TTFT {p}, off by", off, "ms", at_most=limit),
        ]
    per_s = requests_per_s(facts)
    figures += [
        _figure(scenario, "requests/s", per_s, at_least=scenario.requests_per_s),
        _figure(scenario, "of the ideal", per_s / scenario.ideal_per_s(truth.ttft_p50_s) * 100, "%"),
    ]
    if scenario.rate is not None:
        figures += [
            _figure(scenario, "send lag p50", facts["send_lag_p50_s"] * 1e3, "ms"),
            _figure(scenario, "send lag p99", facts["send_lag_p99_s"] * 1e3, "ms", at_most=scenario.send_lag_ms),
        ]
    lag = facts["read_lag_p99_s"]
    return [*figures, *([] if lag is None else [_figure(scenario, "read lag p99", lag * 1e3, "ms")])]


def _costs(scenario: Scenario, usage: Usage, facts: dict[str, Any]) -> list[Figure]:
    """Return the figures of processor time, memory and start."""
    tokens, first_ns = facts["tokens"], facts["first_ns"]
    after_start_s = usage.cpu_s - usage.cpu_before_s(first_ns)
    figures = [
        _figure(scenario, "processor time per token, all", usage.cpu_s / tokens * 1e6, "µs",
                at_most=scenario.cpu_us_per_token),
        _figure(scenario, "processor time per token, from the first request on", after_start_s / tokens * 1e6, "µs"),
        _figure(scenario, "resident memory, all processes", usage.rss_max_bytes / 1e6, "MB", at_most=350.0),
        _figure(scenario, "first request after the command", (first_ns - usage.started_ns) / NS, "s", at_most=2.5),
    ]  # fmt: skip
    if scenario.is_flat:
        first, second, last = usage.rss_thirds(first_ns, facts["last_ns"])
        figures += [
            _figure(scenario, "memory, last third / first third, medians", median(last) / median(first), at_most=1.05),
            _figure(scenario, "memory, last third / second third, minima", min(last) / min(second)),
        ]
    return [*figures, _figure(scenario, OTHERS, usage.others_cores)]


def _baseline(scenario: Scenario, seconds: float, server: Server) -> dict[str, float]:
    """Run the plain client against the same server and return its figures."""
    server.forget()
    numbers = (scenario.concurrency, scenario.count(seconds / 2), scenario.tokens)
    command = [
        sys.executable,
        "-m",
        "benchmarks.baseline",
        server.url,
        server.model,
        scenario.suite,
        *map(str, numbers),
    ]
    usage = machine.run(command, server_pid=server.pid, cwd=ROOT)
    if usage.exit_code != 0:
        raise SystemExit(f"the plain client failed:\n{usage.output[-_MAX_OUTPUT:]}")
    found: dict[str, float] = json.loads(usage.output.splitlines()[-1])
    return plain_figures(found, server.truth(), usage.cpu_s)


def plain_figures(found: dict[str, float], truth: ServerTiming, cpu_s: float) -> dict[str, float]:
    """Return the plain client's figures under the names of our own."""
    return {
        "TTFT p50, off by": (found["ttft_p50_s"] - truth.ttft_p50_s) * 1e3,
        "TTFT p99, off by": (found["ttft_p99_s"] - truth.ttft_p99_s) * 1e3,
        "requests/s": found["requests_per_s"],
        "processor time per token, all": cpu_s / found["tokens"] * 1e6,
    }


def _against(scenario: Scenario, plain: dict[str, float], ours: Sequence[Figure]) -> list[Figure]:
    by_name = {figure.name: figure for figure in ours}
    found = []
    for name, value in plain.items():
        found.append(_figure(scenario, f"plain client: {name}", value, by_name[name].unit))
        found.append(_figure(scenario, f"structbench / plain client: {name}", by_name[name].value / value))
    return found


def _figure(
    scenario: Scenario, name: str, value: float, unit: str = "", *,
    at_most: float | None = None, at_least: float | None = None,
) -> Figure:  # fmt: skip
    return Figure(benchmark=scenario.name, name=name, value=value, unit=unit, at_most=at_most, at_least=at_least)

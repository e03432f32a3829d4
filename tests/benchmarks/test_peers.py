"""What is read of each tool, and the figures that stand beside one another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.machine import NS, TreeSample, Usage
from benchmarks.servers import ServerTiming
from benchmarks.timing import Scenario

LOAD = Scenario(name="2 streams", concurrency=2, requests=10, tokens=64)
TRUTH = ServerTiming(requests=10, ttft_p50_s=0.1, ttft_p99_s=0.102, first_ns=5 * NS)
USED = Usage(
    started_ns=4 * NS, wall_s=6.0, cpu_s=0.64, others_cores=0.0, samples=(TreeSample(5 * NS, 0.3, 250_000_000),),
    exit_code=0, output="",
)  # fmt: skip


def test_figures_are_of_what_the_tool_says_against_the_server() -> None:
    found = peers.figures(LOAD, USED, peers.Reported(0.115, 0.17, 2.7), TRUTH)
    assert found == {
        "TTFT p50 off": pytest.approx(15.0), "p99 off": pytest.approx(68.0), "a token": pytest.approx(1000.0),
        "requests/s": 2.7, "memory": 250.0, "first request after": 1.0,
    }  # fmt: skip


def test_a_row_says_how_many_times_our_figure_it_is() -> None:
    ours = dict.fromkeys(peers.HEAD[2:], 2.0)
    theirs = dict.fromkeys(ours, 5.0)
    assert peers.row(LOAD, peers.STRUCTBENCH, ours, ours).startswith(
        "| 2 streams | structbench | 2.00 ms | 2.00 ms | 2.00 | 2.00 µs"
    )
    assert "| 5.00 ms (2.50 times) | 5.00 ms (2.50 times) | 5.00 (2.50 times) |" in peers.row(
        LOAD, peers.AIPERF, theirs, ours
    )
    assert "(" not in peers.row(LOAD, peers.AIPERF, theirs, dict.fromkeys(ours, 0.0))


def test_ttft_is_read_from_the_files_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "a" / "run").mkdir(parents=True)
    summary = {"time_to_first_token": {"unit": "ms", "p50": 115.5, "p99": 168.0}, "request_throughput": {"avg": 38.5}}
    (tmp_path / "a" / "run" / "profile_export_aiperf.json").write_text(json.dumps(summary))
    ttft = {"successful": {"percentiles": {"p50": 110.0, "p99": 136.0}}}
    metrics = {"time_to_first_token_ms": ttft, "requests_per_second": {"successful": {"mean": 39.9}}}
    (tmp_path / "g.json").write_text(json.dumps({"benchmarks": [{"metrics": metrics}]}))
    assert peers.AIPERF.read(tmp_path) == (0.1155, 0.168, 38.5)
    assert peers.GUIDELLM.read(tmp_path) == (0.11, 0.136, 39.9)

"""End to end against a real Ollama server: what a simulator cannot prove.

STRUCTBENCH_REAL_OLLAMA=http://127.0.0.1:11434 names a server with smollm2:135m and qwen2.5-coder:0.5b;
without it these tests are skipped.
"""

from __future__ import annotations

import os
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import structbench
from tests.support.loads import load

HOST = os.environ.get("STRUCTBENCH_REAL_OLLAMA")
pytestmark = [
    pytest.mark.ollama,
    pytest.mark.skipif(not HOST, reason="STRUCTBENCH_REAL_OLLAMA names no server"),
]
CASES = {"json": 10, "text": 6, "tools": 8}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Every suite once, with the model it suits: suite -> its rows."""
    db = tmp_path_factory.mktemp("real") / "real.duckdb"
    shared: dict[str, Any] = {"host": HOST, "db": db, "concurrency": [2], "option": ["temperature=0"]}
    lengths = {"mean_input_tokens": 150, "stddev_input_tokens": 30, "mean_output_tokens": 32, "stddev_output_tokens": 4}
    rows: dict[str, list[dict[str, Any]]] = {}
    for suite, model in {"json": "smollm2:135m", "text": "smollm2:135m", "tools": "qwen2.5-coder:0.5b"}.items():
        summary = structbench.load(models=[model], suites=[suite], requests=CASES[suite], **lengths, **shared)
        assert summary.exit_code == 0
        assert [row["status"] for row in summary.rows] == ["complete"]
        assert summary.rows[0]["verdict"] in ("valid", "degraded")
        rows[suite] = summary.records()
    return rows


@pytest.mark.parametrize("suite", ["json", "text", "tools"])
def test_every_request_has_its_row_and_the_servers_durations(results: Any, suite: str) -> None:
    rows = results[suite]
    assert [row["request_index"] for row in rows] == list(range(CASES[suite]))
    answered = [row for row in rows if row["error_kind"] is None]
    # This old server ends some streams without a done message; everything else must have arrived.
    assert len(answered) >= len(rows) - 2
    for row in answered:
        assert row["clock"] == "kernel"
        assert row["prompt_tokens"] > 0
        assert row["output_tokens"] > 0
        assert row["ttft_s"] >= row["prompt_eval_s"]
        assert row["e2e_s"] >= row["ttft_s"]
        assert row["done_reason"] in ("stop", "length")


@pytest.mark.parametrize("suite", ["json", "text", "tools"])
def test_the_parts_of_the_latency_add_up_to_the_whole(results: Any, suite: str) -> None:
    for row in results[suite]:
        if row["error_kind"] is None:
            parts = row["connect_s"] + (row["load_s"] or 0) + row["prompt_eval_s"] + row["eval_s"] + row["queue_s"]
            assert parts == pytest.approx(row["e2e_s"], abs=1e-6)
            # What is left for queueing and the network is not negative but for the server's own rounding.
            assert row["queue_s"] > -0.02


def test_constrained_answers_are_json_and_scored(results: Any) -> None:
    rows = [row for row in results["json"] if row["error_kind"] is None and row["done_reason"] == "stop"]
    assert rows
    assert all(row["json_valid"] for row in rows)
    assert {row["outcome"] for row in rows} <= {"correct", "wrong_value", "schema_violation"}


def test_tool_calls_are_seen_and_scored(results: Any) -> None:
    rows = results["tools"]
    assert any(row["num_tool_calls"] for row in rows)
    assert any(row["outcome"] == "correct" for row in rows)
    for row in rows:
        if row["num_tool_calls"] and row["error_kind"] is None:
            assert row["first_tool_call_s"] is not None


def test_prompts_have_the_length_asked_for(results: Any) -> None:
    """Calibrated from the server's own count: mean 150, standard deviation 30, six draws."""
    counts = [row["prompt_tokens"] for row in results["text"]]
    assert 100 < sum(counts) / len(counts) < 200


def test_a_tokens_gap_is_what_the_server_says_of_its_speed(results: Any) -> None:
    for row in results["text"]:
        if row["chunks"] > 5:
            assert row["client_tokens_per_s"] == pytest.approx(row["server_tokens_per_s"], rel=0.5)


def test_metrics_agree_with_the_rows(tmp_path: Path) -> None:
    seen: list[str] = []

    def scrape(_summary: Any) -> None:
        with urllib.request.urlopen("http://127.0.0.1:9479/metrics", timeout=5) as answer:
            seen.append(answer.read().decode())

    options = structbench.LoadOptions(
        models=["smollm2:135m"], suites=["text"], requests=3, host=HOST, db=tmp_path / "m.duckdb", metrics_port=9479,
        mean_input_tokens=80, stddev_input_tokens=5, mean_output_tokens=12, stddev_output_tokens=1,
    )  # fmt: skip
    summary = load(options, report=scrape)
    rows = summary.records()
    counted = re.findall(r"^structbench_requests_total\{.*\} (\d+\.\d+)$", seen[0], re.MULTILINE)
    assert sum(map(float, counted)) == len(rows) == 3
    first = re.findall(r"^gen_ai_client_operation_time_to_first_chunk_seconds_sum\{.*\} (\S+)$", seen[0], re.MULTILINE)
    assert sum(map(float, first)) == pytest.approx(sum(row["ttft_s"] for row in rows))

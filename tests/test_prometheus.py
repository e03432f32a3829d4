"""A real Prometheus scrapes a load and agrees with the rows in DuckDB; skipped where there is no prometheus."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import structbench
from loadgen.simulator import Simulator
from structbench.runner import Summary, load

pytestmark = [
    pytest.mark.prometheus,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus binary is installed"),
]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Its URL, and the port that it scrapes twice a second."""
    metrics, own = free_port(), free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 400ms}\n"
        f"scrape_configs: [{{job_name: structbench, static_configs: [{{targets: ['127.0.0.1:{metrics}']}}]}}]\n"
    )
    log = (tmp_path / "prometheus.log").open("w")
    server = subprocess.Popen(
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
         f"--web.listen-address=127.0.0.1:{own}",
         "--enable-feature=exemplar-storage"], stdout=log, stderr=log,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{own}", metrics
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def api(url: str, name: str, **query: str) -> Any:
    with urllib.request.urlopen(f"{url}/api/v1/{name}?{urllib.parse.urlencode(query)}", timeout=5) as got:
        return json.load(got)["data"]


def ask(url: str, query: str) -> float | None:
    """The sum of an instant query; None as long as there is nothing."""
    try:
        result = api(url, "query", query=query)["result"]
    except OSError:
        return None
    return float(result[0]["value"][1]) if result else None


def wait_for(url: str, query: str, value: float) -> float | None:
    """Ask until the value is there or half a minute has passed."""
    seen: float | None = None
    for _ in range(60):
        seen = ask(url, query)
        if seen == value:
            break
        time.sleep(0.5)
    return seen


def test_prometheus_counts_what_the_database_counts(prometheus: tuple[str, int], tmp_path: Path) -> None:
    url, metrics_port = prometheus
    seen: dict[str, Any] = {}
    led: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def compare(summary: Summary) -> None:
        rows = summary.records()
        done = [row for row in rows if row["error_kind"] is None]
        seen["requests"] = (wait_for(url, "sum(structbench_requests_total)", len(rows)), len(rows))
        for name, column in {
            "gen_ai_client_operation_time_to_first_chunk_seconds": "ttft_s",
            "structbench_accuracy": "accuracy_score",
        }.items():
            values = [row[column] for row in done if row[column] is not None]
            seen[f"{name} count"] = (wait_for(url, f"sum({name}_count)", len(values)), len(values))
            seen[f"{name} sum"] = (ask(url, f"sum({name}_sum)"), pytest.approx(sum(values)))
        led.extend(exemplars_with_rows(url, rows))

    with Simulator() as sim:
        options = structbench.LoadOptions(
            models=["llama3.2:1b"], suites=["json", "tools"], requests=20, concurrency=[4], host=sim.url,
            db=tmp_path / "p.duckdb", metrics_port=metrics_port,
        )  # fmt: skip
        load(options, report=compare)
    assert {name: found for name, (found, _) in seen.items()} == {name: right for name, (_, right) in seen.items()}
    assert len(seen) == 5
    assert led, "no exemplar reached Prometheus"
    for exemplar, row in led:
        assert float(exemplar["value"]) == pytest.approx(row["ttft_s"])


def exemplars_with_rows(url: str, rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each exemplar of the TTFT's buckets, and the stored request that its labels name."""
    by_key = {(row["run_id"], str(row["request_index"])): row for row in rows}
    name = "gen_ai_client_operation_time_to_first_chunk_seconds_bucket"
    now = time.time()
    series = api(url, "query_exemplars", query=name, start=f"{now - 300}", end=f"{now + 300}")
    found = [exemplar for each in series for exemplar in each["exemplars"]]
    return [(e, by_key[e["labels"]["run_id"], e["labels"]["request_index"]]) for e in found]

"""Load the simulated server from Python and look at single requests.

python examples/load.py
"""

import tempfile
from pathlib import Path

import structbench

with tempfile.TemporaryDirectory() as folder:
    summary = structbench.load(
        simulate=True,
        models=["llama3.2:1b"],
        suites=["json"],
        requests=12,
        concurrency=[4],
        db=Path(folder) / "example.duckdb",
    )
    for row in summary.rows:
        print(f"{row['model']} {row['suite']}: {row['requests_per_s']:.1f} requests/s, {row['accuracy']:.0%} accurate, "
              f"TTFT p50 {row['ttft_p50_s'] * 1000:.0f} ms, verdict {row['verdict']}")  # fmt: skip
    slowest = max(summary.records(), key=lambda record: record["ttft_s"])
    print(f"slowest: {slowest['case_id']} after {slowest['ttft_s'] * 1000:.0f} ms, outcome {slowest['outcome']}")

"""What each node of a cluster sent and measured, in every form of the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from structbench.reports.document import to_json
from structbench.reports.html import to_html
from structbench.reports.markdown import to_markdown
from structbench.reports.terminal import print_document
from structbench.store import Store
from tests.support.reports import document, requests, run, write

NEAR, FAR = "10.0.0.2", "10.0.0.3"
TOLD = {"run_id": "r", "segment": 0, "workers": 2, "cores": 4, "requests": 30, "loop_lag_max_s": 0.002, "cpu_s": 5.0,
        "server_rtt_s": 0.0002, "start_lag_s": 0.0004, "clock_offset_ns": 7, "clock_error_ns": 40_000,
        "clock_drift_ppm": 0.1, "died": False}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nodes") / "s.duckdb"
    rows = [{**row, "node": FAR if row["request_index"] % 3 == 0 else NEAR} for row in requests("r", 60, failed=3)]
    write(path, [run("r"), run("other")], [*rows, *requests("other", 3)])
    with Store(path) as store:
        store.append("nodes", {**TOLD, "node": NEAR})
        store.append("nodes", {**TOLD, "node": FAR, "died": True, "server_rtt_s": 0.04, "clock_error_ns": 1_200_000})
    return path


def test_each_node_stands_beside_the_pooled_figures(file: Path) -> None:
    near, far = to_json(document(file))["nodes"]
    assert (near["node"], near["requests"], near["errors"], near["died"]) == (NEAR, 40, 2, False)
    assert (far["node"], far["requests"], far["errors"], far["died"]) == (FAR, 20, 1, True)
    assert near["ttft_p50_s"] == pytest.approx(0.0295)
    assert (far["server_rtt_s"], far["clock_error_s"], far["cpu_cores"]) == (0.04, 0.0012, 0.5)
    assert near["line"] == far["line"]


def test_every_form_of_the_report_has_the_table(file: Path) -> None:
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as shown:
        print_document(document(file), console)
    texts = [shown.get(), to_markdown(document(file)), to_html(document(file, details=True))]
    for text in texts:
        assert f"{FAR} (died)" in text
        assert "1.2 ms" in text
    assert f"| {NEAR} | 40 | 2 |" in texts[1]


def test_a_load_from_one_machine_has_none(file: Path) -> None:
    other = document(file, "other")
    assert other.nodes == []
    assert "Nodes" not in to_markdown(other)

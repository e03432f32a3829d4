"""After a load and in a report, a figure of a run has the same value and interval, and a limit the same judgement."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from structbench.gates.expressions import parse_slo
from structbench.gates.slo import judgement
from structbench.metrics import METRICS, Metric
from structbench.results.figures import figures_of
from structbench.results.groups import run_groups
from structbench.results.intervals import estimates_of
from structbench.store import Reader
from tests.support.comparisons import database, requests

LIMITS = {"ttft_s": 0.11}
METRIC = [
    figure
    for row in METRICS.values()
    if row.kind != "score"
    for figure in ([row.at("p50"), row.at("p95")] if row.kind == "latency" else [row])
    if row.base in ("ttft", "itl") or row.kind != "latency"
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    path = database(
        tmp_path_factory.mktemp("intervals") / "s.duckdb", few=(requests(12), {}),
        many=(requests(400, seed=3, wrong=range(0, 400, 9), failed=(7, 30)), {"goodput_limits": LIMITS}),
    )  # fmt: skip
    with Reader(path) as opened, opened.together():
        yield opened


@pytest.mark.parametrize("metric", METRIC, ids=lambda metric: metric.name)
def test_a_load_and_a_report_say_the_same(reader: Reader, metric: Metric) -> None:
    for group in run_groups(reader, ["few", "many"], pool=False):
        limits = json.loads(json.dumps(LIMITS)) if group.run_ids == ("many",) else None
        told = estimates_of(reader, group.run_ids[0], [metric], limits)[metric.name]
        shown = figures_of(reader, [group], None)[group.id].of(metric)
        assert (told.low, told.high) == (pytest.approx(shown.low), pytest.approx(shown.high))
        assert shown.value is None or told.value == pytest.approx(shown.value)
        for value in (0.001, 0.1, 1):
            limit = parse_slo(f"{metric.name}<={value}")
            assert judgement(limit, told) == judgement(limit, shown)

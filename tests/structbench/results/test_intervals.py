"""After a load and in a report, a figure of a run has the same value and interval, and a limit the same judgement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from structbench.gates.expressions import parse_slo
from structbench.gates.slo import judge_groups, judgement
from structbench.metrics import METRICS, Metric, metric_of
from structbench.reports.headline import headline_of
from structbench.results.figures import Figures, figures_of, runs_of
from structbench.results.groups import run_groups
from structbench.results.intervals import estimates_of, gap_counts
from structbench.stats import Estimate
from structbench.store import Reader
from tests.support.comparisons import database, requests

LIMITS = {"ttft_s": 0.11}
PACE = {"tpot_s": 0.015}
GIVEN = {"few": None, "many": LIMITS, "partly": PACE, "never": PACE}
UNPACED = [
    {**row, "tpot_s": None, "itl_mean_s": None, "gathered_chunks": 4} if row["request_index"] % 10 == 0 else row
    for row in requests(400, seed=5)
]
"""A tenth came gathered by a gateway: in pieces, and nobody knows their pace."""
UNCOUNTED = [{**row, "tpot_s": None, "output_tokens": None} for row in requests(400, seed=6)]
METRIC = [
    figure
    for row in METRICS.values()
    if row.kind != "score"
    for figure in ([row.at("p50"), row.at("p95")] if row.kind == "latency" else [row])
    if row.base in ("ttft", "itl", "tpot") or row.kind != "latency"
]
UNLISTED = [
    metric
    for name in (
        "ttft_mean",
        "ttft_p42",
        "ttft_p100",
        "itl_mean",
        "itl_p42",
        "itl_p100",
        "tpot_mean",
        "semantic_similarity",
    )
    if (metric := metric_of(name)) is not None
]
"""What no table of a report has, and a rule may be on."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    path = database(
        tmp_path_factory.mktemp("intervals") / "s.duckdb", few=(requests(12), {}),
        many=(requests(400, seed=3, wrong=range(0, 400, 9), failed=(7, 30)), {"goodput_limits": LIMITS}),
        partly=(UNPACED, {"goodput_limits": PACE}), never=(UNCOUNTED, {"goodput_limits": PACE}),
    )  # fmt: skip
    with Reader(path) as opened, opened.together():
        yield opened


@pytest.fixture(scope="module")
def after_load(reader: Reader) -> dict[str, dict[str, Estimate]]:
    return {name: estimates_of(reader, name, METRIC + UNLISTED, limits) for name, limits in GIVEN.items()}


@pytest.fixture(scope="module")
def in_report(reader: Reader) -> dict[str, Figures]:
    groups = run_groups(reader, [*GIVEN], pool=False)
    found = figures_of(reader, groups, None, UNLISTED)
    return {group.run_ids[0]: found[group.id] for group in groups}


@pytest.mark.parametrize("metric", METRIC + UNLISTED, ids=lambda metric: metric.name)
def test_a_load_and_a_report_say_the_same(
    after_load: dict[str, dict[str, Estimate]], in_report: dict[str, Figures], metric: Metric
) -> None:
    for name in GIVEN:
        told, shown = after_load[name][metric.name], in_report[name].judged(metric)
        assert (told.low, told.high, told.why) == (pytest.approx(shown.low), pytest.approx(shown.high), shown.why)
        assert shown.value is None or told.value == pytest.approx(shown.value)
        for value in (0.001, 0.1, 1):
            limit = parse_slo(f"{metric.name}<={value}")
            assert judgement(limit, told) == judgement(limit, shown)


def test_pooled_runs_have_the_figures_of_a_rule_too(reader: Reader, in_report: dict[str, Figures]) -> None:
    (group,) = groups = run_groups(reader, ["many"], pool=True)
    found = figures_of(reader, groups, gap_counts(reader, runs_of(groups)), UNLISTED)[group.id]
    assert found.asked == pytest.approx(in_report["many"].asked)
    both = figures_of(reader, [replace(group, run_ids=("many", "few"))], {}, UNLISTED)[group.id]
    assert both.asked["ttft_mean"].n == 398 + 12


def test_goodput_of_answers_that_nobody_can_judge_lies_between_none_and_all_of_them(reader: Reader) -> None:
    (summary,) = reader.query("SELECT goodput, correct_goodput, rate_s FROM summary WHERE run_id = 'partly'")
    assert (summary["goodput"], summary["correct_goodput"]) == (None, None)
    known = sum(row["tpot_s"] is not None and row["tpot_s"] <= PACE["tpot_s"] for row in UNPACED)
    found = estimates_of(reader, "partly", [METRICS["goodput"], METRICS["correct_goodput"]], PACE)
    for rate in found.values():
        assert rate.value is None
        assert rate.low is not None
        assert rate.high is not None
        assert rate.low < known / summary["rate_s"] < (known + 40) / summary["rate_s"] < rate.high
    words = [judgement(parse_slo(f"goodput>={value}"), found["goodput"]) for value in (1, 6, 100)]
    assert words == ["met", "not decided", "not met"]


def test_a_limit_on_what_no_answer_tells_is_not_decided(reader: Reader) -> None:
    (never,) = run_groups(reader, ["never"], pool=False)
    figures = figures_of(reader, [never], None)
    (tpot, good) = judge_groups([parse_slo("tpot_p50<50ms"), parse_slo("goodput>=1/s")], [never], figures)
    assert (tpot.outcome, tpot.text) == ("not decided", "TPOT of 400 answers is unknown")
    assert (good.outcome, good.value) == ("not decided", None)
    rule = [parse_slo("correct>=90%"), parse_slo("tpot_p50<50ms")]
    assert headline_of([never], figures, rule).state == "not decided"

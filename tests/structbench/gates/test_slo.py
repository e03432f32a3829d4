"""SLOs judged against what a cell measured."""

from __future__ import annotations

from typing import Any

import pytest

from structbench.gates.expressions import parse_slo
from structbench.gates.slo import CellResult, Gate, GateOutcome, judge, needed_beyond, settle
from structbench.metrics import metric_of
from structbench.results.measures import Measured

STOPPED = {"status": "interrupted", "verdict": "valid", "completed": 9}
GOOD_RUN = {"status": "complete", "verdict": "valid", "completed": 20}


@pytest.mark.parametrize(
    ("slo", "measured", "run", "outcome", "text"),
    [
        ("ttft_p95<0.5", Measured(0.084, 30), GOOD_RUN, "pass", "84.0 ms, n = 30 requests"),
        ("ttft_p95<0.05", Measured(0.084, 30), GOOD_RUN, "fail", "84.0 ms, n = 30 requests"),
        ("itl_p99<0.1", Measured(0.084, 3000), GOOD_RUN, "pass", "84.0 ms, n = 3,000 gaps"),
        ("schema_valid>=95%", Measured(0.95, 20), GOOD_RUN, "pass", "95.00 %, n = 20 scored answers"),
        ("error_rate<=5%", Measured(0.05, 20), GOOD_RUN, "pass", "5.00 %, n = 20 requests"),
        ("correct_goodput>1", Measured(1.5, 1), GOOD_RUN, "pass", "1.50/s, n = 1 scored answer"),
        ("requests_per_s>2", Measured(1.5, 20), GOOD_RUN, "fail", "1.50/s, n = 20 requests"),
        ("requests_per_s>2", Measured(0.0, 0), {**GOOD_RUN, "completed": 0}, "fail", "0/s, n = 0 requests"),
        ("ttft_mean<0.5", Measured(0.084, 1), GOOD_RUN, "pass", "84.0 ms, n = 1 request"),
        ("ttft_p99<0.5", Measured(0.084, 99), GOOD_RUN, "pass",
         "84.0 ms, n = 99 requests (too few to expect one beyond p99: that takes 100)"),
        ("ttft_p99<0.5", Measured(0.084, 100), GOOD_RUN, "pass", "84.0 ms, n = 100 requests"),
        ("ttft_p50<0.5", Measured(0.08, 9), STOPPED, "undecided", "80.0 ms, n = 9 requests; the run is interrupted"),
        ("ttft_p50<0.01", Measured(0.08, 9), STOPPED, "fail", "80.0 ms, n = 9 requests; the run is interrupted"),
        ("ttft_p50<0.5", Measured(0.08, 9), {**GOOD_RUN, "verdict": "invalid", "verdict_reason": "late\x1b"},
         "undecided", "80.0 ms, n = 9 requests; the run is invalid: late�"),
        ("ttft_p50<0.5", Measured(0.08, 90), {**GOOD_RUN, "verdict": "degraded", "verdict_reason": "slow"}, "pass",
         "80.0 ms, n = 90 requests; degraded: slow"),
        ("ttft_p50<0.5", Measured(0.08, 9), {**STOPPED, "verdict": "degraded", "verdict_reason": "slow"}, "undecided",
         "80.0 ms, n = 9 requests; the run is interrupted"),
        ("ttft_p95<0.5", Measured(None, 0), None, "undecided", "the cell was not run"),
        ("schema_valid>=95%", Measured(None, 0), GOOD_RUN, "skip",
         "does not apply: no answer here has this score"),
        ("correct_goodput>1", Measured(None, 0), GOOD_RUN, "skip",
         "does not apply: no answer here has this score"),
        ("itl_p50<1", Measured(None, 0), GOOD_RUN, "skip", "does not apply: no answer here has two chunks"),
        ("tpot_p50<1", Measured(None, 0), {**GOOD_RUN, "verdict": "degraded"}, "skip",
         "does not apply: no answer here has this latency"),
        ("schema_valid>=95%", Measured(None, 0), {**GOOD_RUN, "completed": 0}, "undecided",
         "needs at least 1 scored answer, but there is none"),
        ("correct>=95%", Measured(None, 4), GOOD_RUN, "undecided", "needs at least 1 scored answer, but there is none"),
        ("goodput>1", Measured(None, 20), GOOD_RUN, "undecided", "needs at least 1 request, but there is none"),
        ("itl_p99<1", Measured(None, 0), STOPPED, "undecided", "needs at least 1 gap, but there is none"),
        ("tpot_p50<1", Measured(None, 0), {**GOOD_RUN, "verdict": "invalid"}, "undecided",
         "needs at least 1 request, but there is none"),
    ],
)  # fmt: skip
def test_nothing_passes_that_was_not_measured(
    slo: str, measured: Measured, run: dict[str, Any] | None, outcome: GateOutcome, text: str
) -> None:
    gate = judge("m json c=1", parse_slo(slo), measured, run)
    assert gate == Gate("m json c=1", slo, outcome, *measured, text)
    assert gate.line == f"{'FAIL' if outcome == 'fail' else outcome}: m json c=1: {slo}: {text}"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("ttft_p95", 0.0842, "84.2 ms"), ("itl_p99", 0.000_42, "0.420 ms"), ("e2e_mean", 1.24, "1.24 s"),
        ("requests_per_s", 4.12, "4.12/s"), ("tokens_per_s", 1234.5, "1,234/s"), ("goodput", 0.04, "0.0400/s"),
        ("correct_goodput", 0.0, "0/s"), ("json_valid", 0.93, "93.0 %"), ("schema_valid", 1.0, "100.0 %"),
        ("tool_calls_right", 0.999_99, "99.9 %"), ("accuracy", 0.5, "50.0 %"), ("correct", 2 / 3, "66.7 %"),
        ("error_rate", 1e-6, "0.1 %"), ("first_answer_p95", 1.5, "1.50 s"), ("semantic_similarity", -0.25, "-0.25"),
    ],
)  # fmt: skip
def test_each_metric_is_written_in_its_unit(name: str, value: float, text: str) -> None:
    metric = metric_of(name)
    assert metric is not None
    assert metric.text(value) == text


@pytest.mark.parametrize(
    ("slo", "value", "shown"),
    [
        ("requests_per_s>=0.16", 0.152, "0.152/s"), ("tokens_per_s>1234", 1233.96, "1,233.96/s"),
        ("ttft_p95<1.02", 1.04, "1.04 s"), ("ttft_p95<1", 1.0004, "1.0004 s"), ("ttft_p95<1", 1.0, "1.00 s"),
        ("ttft_p95<1", 1.000_000_000_000_000_2, "1.0000000000000002 s"),
        ("e2e_p95<=100", 100.04, "100.04 s"), ("schema_valid>=95%", 0.949_96, "94.996 %"),
        ("error_rate<=0", 1e-6, "0.01 %"), ("correct>=1", 0.999_999, "99.99 %"),
    ],
)  # fmt: skip
def test_no_rounding_makes_a_line_contradict_itself(slo: str, value: float, shown: str) -> None:
    gate = judge("m json c=1", parse_slo(slo), Measured(value, 200), GOOD_RUN)
    assert (gate.outcome, gate.text.split(", n =")[0]) == ("fail", shown)


def test_an_slo_that_applies_nowhere_is_undecided_everywhere() -> None:
    def gate(slo: str, outcome: Any) -> Gate:
        return Gate("c", slo, outcome, None, 0, "")

    outcomes = [CellResult("one", gates=[gate("a", "skip"), gate("b", "skip")]),
                CellResult("two", gates=[gate("a", "pass"), gate("b", "skip")])]  # fmt: skip
    settle(outcomes)
    assert [[each.outcome for each in outcome.gates] for outcome in outcomes] == [
        ["skip", "undecided"], ["pass", "undecided"]
    ]  # fmt: skip


@pytest.mark.parametrize(("p", "n"), [(0.5, 2), (0.9, 10), (0.95, 20), (0.99, 100), (0.999, 1000), (1.0, 1)])
def test_how_many_values_a_percentile_wants(p: float, n: int) -> None:
    assert needed_beyond(p) == n

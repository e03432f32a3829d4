"""SLOs judged against what a cell measured."""

from __future__ import annotations

from typing import Any

import pytest

from structbench.gates.expressions import parse_slo
from structbench.gates.slo import CellResult, Gate, GateOutcome, Looked, judge, settle
from structbench.metrics import metric_of
from structbench.stats import Estimate, wilson

STOPPED = {"status": "interrupted", "verdict": "valid", "completed": 9}
GOOD_RUN = {"status": "complete", "verdict": "valid", "completed": 20}


def sure(value: float, n: int = 200) -> Estimate:
    """A figure whose interval is 10 % of it on each side."""
    return Estimate(n, value, value * 0.9, value * 1.1)


FEW = Estimate(30, 0.084, 0.05, None, needs=72)
ALIKE = Estimate(1000, 0.084, 0.05, None, needs=2300, why="no interval yet: neighbours alike")
NONE = Estimate(0)
UNJUDGED = Estimate(90, None, 2.0, 3.0, why="nobody knows")


@pytest.mark.parametrize(
    ("slo", "estimate", "run", "outcome", "text", "needs"),
    [
        ("ttft_p95<0.5", sure(0.084), GOOD_RUN, "met", "84.0 ms (75.6–92.4 ms), n = 200 requests", None),
        ("ttft_p95<0.05", sure(0.084), GOOD_RUN, "not met", "84.0 ms (75.6–92.4 ms), n = 200 requests", None),
        ("ttft_p95>0.05", sure(0.084), GOOD_RUN, "met", "84.0 ms (75.6–92.4 ms), n = 200 requests", None),
        ("ttft_p95<0.088", sure(0.084), GOOD_RUN, "not decided", "84.0 ms (75.6–92.4 ms), n = 200 requests: "
         "the 95 % interval contains the limit; needs about 883 if it stays as it is", 883),
        ("ttft_p95<0.084", sure(0.084), GOOD_RUN, "not decided", "84.0 ms (75.6–92.4 ms), n = 200 requests: "
         "the 95 % interval contains the limit", None),
        ("itl_p99<0.1", sure(0.084, 3000), GOOD_RUN, "met", "84.0 ms (75.6–92.4 ms), n = 3,000 gaps", None),
        ("ttft_p95<2", FEW, GOOD_RUN, "not decided",
         "84.0 ms, n = 30 requests: too few for an interval; needs 72 requests", 72),
        ("ttft_p95<0.01", FEW, GOOD_RUN, "not met", "84.0 ms (at least 50.0 ms), n = 30 requests", None),
        ("ttft_p95>0.01", FEW, GOOD_RUN, "met", "84.0 ms, n = 30 requests", None),
        ("ttft_p95<2", ALIKE, GOOD_RUN, "not decided",
         "84.0 ms, n = 1,000 requests: no interval yet: neighbours alike; needs about 2,300 requests", 2300),
        ("ttft_p95<0.01", ALIKE, GOOD_RUN, "not met", "84.0 ms (at least 50.0 ms), n = 1,000 requests", None),
        ("ttft_p100<0.5", Estimate(9, 0.084, 0.08), GOOD_RUN, "met", "84.0 ms, n = 9 requests", None),
        ("schema_valid>=95%", wilson(20, 20), GOOD_RUN, "not decided", "100.00 % (83.9–100.0 %), n = 20 scored "
         "answers: the 95 % interval contains the limit; needs about 73 if it stays as it is", 73),
        ("schema_valid>=95%", wilson(73, 73), GOOD_RUN, "met", "100.00 % (95.0–100.0 %), n = 73 scored answers", None),
        ("schema_valid>=100%", wilson(20, 20), GOOD_RUN, "met", "100.00 %, n = 20 scored answers", None),
        ("correct>=100%", wilson(19, 20), GOOD_RUN, "not met", "95.00 %, n = 20 scored answers", None),
        ("error_rate<=5%", wilson(0, 30), GOOD_RUN, "not decided", "0.00 % (0.0–11.4 %), n = 30 requests: "
         "the 95 % interval contains the limit; needs about 73 if it stays as it is", 73),
        ("error_rate<=0", wilson(0, 30), GOOD_RUN, "met", "0.00 %, n = 30 requests", None),
        ("error_rate<=0%", wilson(1, 30), GOOD_RUN, "not met", "3.33 %, n = 30 requests", None),
        ("correct_goodput>0", Estimate(1, 1.5), GOOD_RUN, "met", "1.50/s, n = 1 scored answer", None),
        ("requests_per_s>2", Estimate(9, 1.5, needs=20), GOOD_RUN, "not decided",
         "1.50/s, n = 9 requests: too few for an interval; needs 20 requests", 20),
        ("ttft_mean<0.5", Estimate(1, 0.084), GOOD_RUN, "not decided",
         "84.0 ms, n = 1 request: no interval is known for this figure", None),
        ("goodput>=2/s", UNJUDGED, GOOD_RUN, "met", "at least 2.00/s, at most 3.00/s, n = 90 requests", None),
        ("goodput>=3.5/s", UNJUDGED, GOOD_RUN, "not met", "at least 2.00/s, at most 3.00/s, n = 90 requests", None),
        ("goodput>=2.5/s", UNJUDGED, GOOD_RUN, "not decided",
         "at least 2.00/s, at most 3.00/s, n = 90 requests: nobody knows", None),
        ("tpot_p50<1", Estimate(0, why="TPOT of 9 answers is unknown"), GOOD_RUN, "not decided",
         "TPOT of 9 answers is unknown", None),
        ("ttft_p50<0.5", sure(0.08), STOPPED, "not decided",
         "80.0 ms (72.0–88.0 ms), n = 200 requests; the run is interrupted", None),
        ("ttft_p50<0.01", sure(0.08), STOPPED, "not met",
         "80.0 ms (72.0–88.0 ms), n = 200 requests; the run is interrupted", None),
        ("ttft_p50<0.5", sure(0.08), {**GOOD_RUN, "verdict": "invalid", "verdict_reason": "late\x1b"}, "not decided",
         "80.0 ms (72.0–88.0 ms), n = 200 requests; the run is invalid: late�", None),
        ("ttft_p50<0.5", sure(0.08), {**GOOD_RUN, "verdict": "degraded", "verdict_reason": "slow"}, "met",
         "80.0 ms (72.0–88.0 ms), n = 200 requests; degraded: slow", None),
        ("ttft_p95<0.5", NONE, None, "not decided", "the cell was not run", None),
        ("schema_valid>=95%", NONE, GOOD_RUN, "skip", "does not apply: no answer here has this score", None),
        ("itl_p50<1", NONE, GOOD_RUN, "skip", "does not apply: no answer here has two chunks", None),
        ("tpot_p50<1", NONE, {**GOOD_RUN, "verdict": "degraded"}, "skip",
         "does not apply: no answer here has this latency", None),
        ("schema_valid>=95%", NONE, {**GOOD_RUN, "completed": 0}, "not decided",
         "needs at least 1 scored answer, but there is none", None),
        ("correct>=95%", Estimate(4), GOOD_RUN, "not decided",
         "needs at least 1 scored answer, but there is none", None),
        ("itl_p99<1", NONE, STOPPED, "not decided", "needs at least 1 gap, but there is none", None),
        ("tpot_p50<1", NONE, {**GOOD_RUN, "verdict": "invalid"}, "not decided",
         "needs at least 1 request, but there is none", None),
    ],
)  # fmt: skip
def test_a_limit_is_met_not_met_or_not_decided_by_the_whole_interval(
    slo: str, estimate: Estimate, run: dict[str, Any] | None, outcome: GateOutcome, text: str, needs: int | None
) -> None:
    gate = judge("m json c=1", parse_slo(slo), estimate, run)
    assert (gate.outcome, gate.text, gate.needs) == (outcome, text, needs)
    assert gate.line == f"{'NOT MET' if outcome == 'not met' else outcome}: m json c=1: {slo}: {text}"
    assert gate.is_missed is (outcome in ("not met", "not decided"))


def test_few_requests_have_no_interval_of_a_strict_look() -> None:
    """Of nine: 'the 99.9 % interval contains the limit; needs about 1'."""
    looked = Looked(("ttft_p50<=1s",), 9, 0.999)
    gate = judge("m", parse_slo("ttft_p50<=1s"), Estimate(9, 0.084, 0.08, 0.09), GOOD_RUN, looked)
    assert gate.text == (
        "84.0 ms (80.0–90.0 ms), n = 9 requests: too few for the 99.9 % interval of this look; needs about 11 if it "
        "stays as it is"
    )
    assert gate.needs == 11


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
    gate = judge("m json c=1", parse_slo(slo), Estimate(200, value, value, value), GOOD_RUN)
    assert (gate.outcome, gate.text.split(", n =")[0]) == ("not met", shown)


def test_an_slo_that_applies_nowhere_is_not_decided_everywhere() -> None:
    def gate(slo: str, outcome: Any) -> Gate:
        return Gate("c", slo, outcome, None, 0, "")

    outcomes = [CellResult("one", gates=[gate("a", "skip"), gate("b", "skip")]),
                CellResult("two", gates=[gate("a", "met"), gate("b", "skip")])]  # fmt: skip
    settle(outcomes)
    assert [[each.outcome for each in outcome.gates] for outcome in outcomes] == [
        ["skip", "not decided"], ["met", "not decided"]
    ]  # fmt: skip

"""SLOs judged, and given up during a load only when nothing that can still come would save them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structbench.expressions import LATENCIES, Condition, parse_slo
from structbench.gates import Gate, Outcome, Watch, is_good, judge, needed_beyond, settle
from structbench.measures import Measured
from structbench.stats import percentile

STOPPED = {"status": "interrupted", "verdict": "valid", "completed": 9}
GOOD_RUN = {"status": "complete", "verdict": "valid", "completed": 20}
NOTHING: dict[str, Any] = {
    **dict.fromkeys(LATENCIES.values()), "error_kind": None, "outcome": "completed", "accuracy_score": None,
    "json_valid": None, "schema_valid": None, "tool_call_accuracy": None,
}  # fmt: skip


def row(**more: Any) -> dict[str, Any]:
    return {**NOTHING, **more}


@pytest.mark.parametrize(
    ("slo", "measured", "run", "outcome", "text"),
    [
        ("ttft_p95<0.5", Measured(0.084, 30), GOOD_RUN, "pass", "84.0 ms, n = 30 requests"),
        ("ttft_p95<0.05", Measured(0.084, 30), GOOD_RUN, "fail", "84.0 ms, n = 30 requests"),
        ("itl_p99<0.1", Measured(0.084, 3000), GOOD_RUN, "pass", "84.0 ms, n = 3,000 gaps"),
        ("schema_valid>=95%", Measured(0.95, 20), GOOD_RUN, "pass", "95.00 %, n = 20 scored answers"),
        ("requests_per_s>2", Measured(1.5, 20), GOOD_RUN, "fail", "1.50/s, n = 20 requests"),
        ("ttft_p99<0.5", Measured(0.084, 30), GOOD_RUN, "pass", "few: a request beyond p99 takes 100"),
        ("ttft_p95<0.5", Measured(0.08, 9), STOPPED, "undecided", "the run is interrupted"),
        ("ttft_p95<0.01", Measured(0.08, 9), STOPPED, "fail", "the run is interrupted"),
        ("ttft_p95<0.5", Measured(0.08, 9), {**GOOD_RUN, "verdict": "invalid", "verdict_reason": "late"}, "undecided",
         "the run is invalid: late"),
        ("ttft_p95<0.5", Measured(0.08, 90), {**GOOD_RUN, "verdict": "degraded", "verdict_reason": "slow"}, "pass",
         "degraded: slow"),
        ("ttft_p95<0.5", Measured(None, 0), None, "undecided", "the cell was not run"),
        ("schema_valid>=95%", Measured(None, 0), GOOD_RUN, "skip", "does not apply"),
        ("schema_valid>=95%", Measured(None, 0), {**GOOD_RUN, "completed": 0}, "undecided", "needs 1 scored answer"),
        ("correct>=95%", Measured(None, 4), GOOD_RUN, "undecided", "needs 1 scored answer"),
        ("itl_p99<1", Measured(None, 0), STOPPED, "undecided", "needs 1 gap"),
    ],
)  # fmt: skip
def test_nothing_passes_that_was_not_measured(
    slo: str, measured: Measured, run: dict[str, Any] | None, outcome: str, text: str
) -> None:
    gate = judge("m json c=1", parse_slo(slo), measured, run)
    assert gate.outcome == outcome
    assert text in gate.text
    assert gate.line.startswith(f"{'FAIL' if outcome == 'fail' else outcome}: m json c=1: {slo}: ")


@pytest.mark.parametrize(
    ("slo", "value", "shown"),
    [
        ("requests_per_s>=0.16", 0.152, "0.152/s"), ("tokens_per_s>1234", 1233.96, "1,233.96/s"),
        ("ttft_p95<1.02", 1.04, "1.04 s"), ("ttft_p95<1", 1.0004, "1.0004 s"), ("ttft_p95<1", 1.0, "1.00 s"),
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

    outcomes = [Outcome("one", gates=[gate("a", "skip"), gate("b", "skip")]),
                Outcome("two", gates=[gate("a", "pass"), gate("b", "skip")])]  # fmt: skip
    settle(outcomes)
    assert [[each.outcome for each in outcome.gates] for outcome in outcomes] == [
        ["skip", "undecided"], ["pass", "undecided"]
    ]  # fmt: skip


@pytest.mark.parametrize(("p", "n"), [(0.5, 2), (0.9, 10), (0.95, 20), (0.99, 100), (0.999, 1000), (1.0, 1)])
def test_how_many_values_a_percentile_wants(p: float, n: int) -> None:
    assert needed_beyond(p) == n


@pytest.mark.parametrize(
    ("values", "good"),
    [({"ttft_s": 0.5, "tpot_s": 0.05}, True), ({"ttft_s": 0.51, "tpot_s": 0.01}, False), ({"ttft_s": 0.1}, True),
     ({"tpot_s": 0.01}, False)],
)  # fmt: skip
def test_an_answer_in_one_piece_breaks_no_limit_on_its_pace_but_one_without_a_first_token_does(
    values: dict[str, float], good: bool
) -> None:
    assert is_good(row(**values), {"ttft_s": 0.5, "tpot_s": 0.05}) is good


def broken(slo: Condition, rows: Sequence[dict[str, Any]], planned: int | None, elapsed_s: float = 1.0) -> bool:
    watch = Watch([slo], planned)
    for each in rows:
        watch.add(each)
    return bool(watch.broken(elapsed_s))


LATENCY = st.one_of(st.none(), st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.floats(0, 1))


@given(
    st.lists(LATENCY, min_size=1, max_size=40), st.integers(0, 39), st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0, 0.07]),
    st.sampled_from([0.1, 0.2, 0.3, 0.5]), st.sampled_from(["<", "<="]),
)  # fmt: skip
def test_a_percentile_is_given_up_exactly_when_it_is_lost(
    values: list[float | None], seen: int, p: float, limit: float, op: str
) -> None:
    """None: a failed request, which has no latency."""
    slo = parse_slo(f"ttft_p{p * 100:g}{op}{limit}")
    rows = [row(ttft_s=value, error_kind="http" if value is None else None) for value in values]
    now, planned = rows[:seen], len(rows)
    if seen >= planned:
        return
    came = [value for value in values[:seen] if value is not None]
    best = percentile([*came, *[0.0] * (planned - seen)], p)
    lost = bool(came) and best is not None and not slo.holds(best)
    if best is None or abs(best - limit) > 1e-12:  # at the limit itself, rounding decides
        assert broken(slo, now, planned) is lost
    final = percentile([value for value in values if value is not None], p)
    if lost and final is not None:
        assert not slo.holds(final), "given up too early"


@given(
    st.lists(st.sampled_from([None, True, False]), min_size=2, max_size=30), st.integers(1, 29),
    st.sampled_from([0.0, 0.5, 0.9, 0.95, 1.0]), st.sampled_from(["<", "<=", ">", ">="]),
)  # fmt: skip
def test_a_share_is_given_up_exactly_when_it_is_lost(
    scores: list[bool | None], seen: int, limit: float, op: str
) -> None:
    """None: a case that does not ask for it, or a request that failed."""
    slo = parse_slo(f"schema_valid{op}{limit}")
    if seen >= len(scores):
        return
    now, remaining = scores[:seen], len(scores) - seen
    counted = [score for score in now if score is not None]
    futures = [(sum(counted) + right, len(counted) + n) for n in range(remaining + 1) for right in range(n + 1)]
    can_hold = any(slo.holds(right / n) for right, n in futures if n)
    rows = [row(schema_valid=score) for score in now]
    assert broken(slo, rows, len(scores)) is (bool(counted) and not can_hold)


@pytest.mark.parametrize(
    ("slo", "rows", "planned", "elapsed_s", "lost"),
    [
        # Of 0, 0.1, 0.9, 0.9 the median is halfway.
        ("ttft_p50<0.4", [row(ttft_s=value) for value in (0.1, 0.9, 0.9)], 4, 1, True),
        ("ttft_p50<0.6", [row(ttft_s=value) for value in (0.1, 0.9, 0.9)], 4, 1, False),
        ("error_rate<=10%", [row(error_kind="http")] * 2, 10, 1, True),
        ("error_rate<=20%", [row(error_kind="http")] * 2, 10, 1, False),
        ("ttft_mean<0.1", [row(ttft_s=1.1)], 10, 1, True), ("ttft_mean<0.1", [row(ttft_s=0.9)], 10, 1, False),
        ("requests_per_s>=20", [row()] * 5, 10, 0.4, False), ("requests_per_s>=20", [row()] * 5, 10, 0.6, True),
        ("correct_goodput>1", [row(outcome="correct", accuracy_score=1.0)] * 2, 10, 11, True),
        ("correct_goodput>1", [row(outcome="correct", accuracy_score=1.0)] * 2, 10, 9, False),
        ("correct_goodput>1", [row()] * 9, 10, 99, False),  # a suite without scores
        ("correct>=90%", [row(outcome="wrong_value", accuracy_score=0.9)] * 2, 10, 1, True),
        ("accuracy>=90%", [row(outcome="wrong_value", accuracy_score=0.9)] * 2, 10, 1, False),
        # Nothing bounds these: an answer may have any number of gaps or tokens, and wait as long as it likes.
        ("itl_p50<1ms", [row(itl_mean_s=9.0)] * 9, 10, 1, False), ("tokens_per_s>9", [row()] * 9, 10, 99, False),
        ("ttft_p50>1", [row(ttft_s=0.1)] * 9, 10, 1, False), ("requests_per_s<1", [row()] * 9, 10, 1, False),
        # Only a duration bounds the cell; and when all is over, the judgement is the rows'.
        ("ttft_p50<1ms", [row(ttft_s=9.0)] * 9, None, 1, False), ("ttft_p50<1ms", [row(ttft_s=9.0)] * 9, 9, 1, False),
    ],
)  # fmt: skip
def test_only_what_is_certain_ends_a_load(
    slo: str, rows: list[dict[str, Any]], planned: int | None, elapsed_s: float, lost: bool
) -> None:
    assert broken(parse_slo(slo), rows, planned, elapsed_s) is lost

"""A load that goes on until its rule is decided: when it is looked at, and how often it is wrong."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

import pytest

import structbench
from structbench.gates.expressions import parse_slo
from structbench.gates.settled import FIRST, confidence_at, decide, looks, next_look
from structbench.gates.slo import DEFAULT_RULE
from structbench.stats import Estimate, exact_rate, wilson

sys.path.insert(0, str(Path(structbench.__file__).parents[1]))  # benchmarks/ is not installed

from benchmarks.settled import MODELS, decisions

RULE = [parse_slo(text) for text in DEFAULT_RULE]


def figures(right: int, n: int, confidence: float, errors: int = 0, ttft_s: float = 0.3) -> Mapping[str, Estimate]:
    return {"correct": wilson(right, n, confidence), "error_rate": wilson(errors, n, confidence),
            "ttft_p95": Estimate(n, ttft_s, ttft_s / 2, ttft_s * 2)}  # fmt: skip


def test_looks_come_early_then_at_80_and_then_a_quarter_later_each_time() -> None:
    assert [*takewhile(lambda at: at < 250, looks())] == [10, 20, 40, 80, 100, 125, 156, 195, 244]
    assert next_look(0) == 10
    assert next_look(80) == 100


def test_the_look_at_80_is_by_the_ordinary_interval_and_the_others_are_stricter() -> None:
    assert [confidence_at(n) for n in (0, 10, 79, 80, 99, 100, 2000, 5000)] == [
        0.999, 0.999, 0.999, 0.95, 0.95, 0.99, 0.99, 0.999
    ]  # fmt: skip


@pytest.mark.parametrize(("right", "n", "errors", "state"), [
    (80, 80, 0, "met"), (40, 40, 0, "not decided"), (0, 10, 0, "not met"), (75, 80, 0, "not decided"),
    (55, 80, 0, "not met"), (80, 80, 12, "not met"),
])  # fmt: skip
def test_a_rule_is_met_by_all_of_its_conditions_and_missed_by_one(right: int, n: int, errors: int, state: str) -> None:
    assert decide(RULE, n, lambda level: figures(right, n, level, errors)).state == state


def test_what_is_left_open_is_named() -> None:
    assert decide(RULE, 80, lambda level: figures(75, 80, level)).open == ("correct>=90%",)


def test_a_condition_that_applies_to_no_answer_decides_nothing() -> None:
    found = decide(RULE, 80, lambda level: {**figures(0, 80, level), "correct": Estimate(0)})
    assert (found.state, found.open) == ("met", ())


def test_an_exact_condition_is_not_met_by_the_first_few_requests() -> None:
    rule = [parse_slo("error_rate<=0%")]
    assert decide(rule, 10, lambda level: figures(10, 10, level)).state == "not decided"
    assert decide(rule, 10, lambda level: figures(10, 10, level, 1)).state == "not met"
    assert decide(rule, FIRST, lambda level: figures(80, FIRST, level)).state == "met"


def test_the_exact_interval_is_that_of_clopper_and_pearson() -> None:
    found = exact_rate(8, 10)
    assert (found.low, found.high) == (pytest.approx(0.443905, abs=1e-6), pytest.approx(0.974789, abs=1e-6))
    assert (exact_rate(0, 72).high or 1) < 0.05 < (exact_rate(0, 71).high or 1)


def test_few_decisions_are_wrong_even_at_a_limit() -> None:
    states, requests = decisions(next(model for model in MODELS if model.name == "correct just below it"), 12)
    assert states["met"] <= 2
    assert requests > 300
    assert FIRST <= decisions(MODELS[0], 4)[1] < 100

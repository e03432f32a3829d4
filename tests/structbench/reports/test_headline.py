"""A model is called correct and fast enough only when the whole interval says so, in every suite that was run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from structbench.errors import BadInput
from structbench.gates.slo import rule_of
from structbench.metrics import LATENCIES, PERCENTILES, of_kind
from structbench.reports.headline import Headline, headline_of
from structbench.results.figures import Figures
from structbench.results.groups import RunGroup
from structbench.stats import Estimate, wilson

RULE = rule_of(())


def group(number: int, model: str = "m", suite: str = "json", concurrency: int = 1, **more: Any) -> RunGroup:
    load = f"c={concurrency}"
    config = {"suite": suite, "structured": "format" if suite == "json" else "none", **more.pop("config", {})}
    server = {"server": "ollama at h", "server_kind": "ollama", "api": "ollama", "quantization": None,
              "parameters": None, "context_tokens": None, "server_slots": None}  # fmt: skip
    return RunGroup(
        id=number, name=f"{model} {suite} {load}", model=model, suite=suite, load=load, load_kind="closed",
        level=concurrency, run_ids=(f"r{number}",), config_hash=None, labels=(), config=config,
        model_digest=None, server_version=None, planned=None, duration_s=10.0, rate_s=10.0,
        model_load_s=None, finished_at=None, notes=(),
        **{**server,
           "status": "complete", "verdict": "valid", "reasons": (), "simulated": False, "goodput_limits": (),
           "environment": {}, "started_at": None, **more},
    )  # fmt: skip


def figures(correct: int, n: int = 200, ttft_s: float = 0.3, scored: bool = True, failed: int = 0) -> Figures:
    """``correct`` of n answers, all with this TTFT; p95 with its interval where n allows."""
    p95 = Estimate(n, ttft_s, ttft_s * 0.9, ttft_s * 1.1) if n >= 72 else Estimate(n, needs=72)
    none: Mapping[str, Estimate] = {name: Estimate(0) for name in PERCENTILES}
    shares = {name: wilson(0, 0) for name in (metric.name for metric in of_kind("share"))}
    shares |= {"correct": wilson(correct, n) if scored else wilson(0, 0), "error_rate": wilson(failed, n + failed)}
    return Figures(
        counts={"requests": n + failed, "completed": n, "scored": n if scored else 0},
        latencies={**{metric.key: dict(none) for metric in LATENCIES.values()}, "ttft_s": {**none, "p95": p95}},
        shares=shares,
        such_cases={},
        rates={"correct_goodput": Estimate(n, correct / 10) if scored else Estimate(0), "goodput": Estimate(n),
               "requests_per_s": Estimate(n, n / 10, n / 10, n / 10), "tokens_per_s": Estimate(n)},
        stream_tokens_per_s=None, outcomes=[],
    )  # fmt: skip


def headline(*pairs: tuple[RunGroup, Figures]) -> Headline:
    return headline_of([each for each, _ in pairs], {each.id: own for each, own in pairs}, RULE)


def test_the_most_correct_answers_a_second_win_and_other_models_are_named() -> None:
    found = headline(
        (group(0, "a", concurrency=1), figures(195)), (group(1, "a", concurrency=4), figures(392, n=400)),
        (group(2, "b", concurrency=1), figures(198)), (group(3, "b", concurrency=4), figures(200, n=400)),
    )  # fmt: skip
    assert found.state == "met"
    assert found.text.startswith("a at c=4 is correct and fast enough. json: correct 98.0 % (")
    assert found.text.endswith("Also correct and fast enough: b at c=1.")


@pytest.mark.parametrize(
    ("right", "said"),
    [
        (199, "a at c=1 meets the rule. json: correct 99.5 % ("), (183, "shown to meet the rule; a at c=1 may. Not "),
        (20, "No model meets the rule at any load measured. The nearest is a at c=1"),
    ],
)  # fmt: skip
def test_a_rule_that_does_not_ask_for_both_calls_nobody_correct_and_fast_enough(right: int, said: str) -> None:
    """A model of which 14 % of the answers were right met a limit on the schema, and was called correct."""
    found = headline_of([group(0, "a")], {0: figures(right)}, rule_of(["correct>=90%"]))
    assert said in found.text
    assert "correct and fast" not in found.text


def test_a_percentile_of_which_one_end_alone_is_known_is_told_as_that() -> None:
    """Of 8 requests each took longer than the limit: 'misses TTFT p95 needs 72 requests' said nothing."""
    own = figures(8, n=8)
    slow = {**own.latencies["ttft_s"], "p95": Estimate(8, low=1.1, needs=72)}
    found = headline((group(0), replace(own, latencies={**own.latencies, "ttft_s": slow})))
    assert "misses json: TTFT p95 1.10 s or more where at most 1.00 s is required" in found.text


def test_who_else_meets_such_a_rule_is_named() -> None:
    pairs = ((group(0, "a"), figures(199)), (group(1, "b"), figures(198)))
    found = headline_of([each for each, _ in pairs], {each.id: own for each, own in pairs}, rule_of(["correct>=90%"]))
    assert found.text.endswith(". So does b at c=1.")


@pytest.mark.parametrize(
    ("own", "state", "said"),
    [
        (figures(199), "met", "m at c=1 is correct and fast enough."),
        (figures(183), "not decided", "correct 91.5 % (86.8–94.6 %) where at least 90.0 % is required"),
        (figures(30, n=30), "not decided", "TTFT p95 needs 72 requests where at most 1.00 s is required"),
        (
            figures(199, ttft_s=1.05),
            "not decided",
            "TTFT p95 1.05 s (945 ms – 1.16 s) where at most 1.00 s is required",
        ),
        (figures(100), "not met", "correct 50.0 % ("),
        (figures(199, ttft_s=3), "not met", "TTFT p95 3.00 s (2.70–3.30 s) where at most 1.00 s is required"),
        (figures(199, failed=60), "not met", "errors 23.1 % ("),
    ],
)
def test_the_whole_interval_decides(own: Figures, state: str, said: str) -> None:
    found = headline((group(0), own))
    assert found.state == state
    assert said in found.text


def test_one_suite_that_misses_is_enough() -> None:
    found = headline((group(0), figures(199)), (group(1, suite="tools"), figures(50)))
    assert found.state == "not met"
    assert "which misses tools: correct 25.0 %" in found.text
    assert "json" not in found.text


def test_text_without_scores_is_judged_by_its_speed_alone() -> None:
    slow = figures(0, scored=False, ttft_s=5)
    assert headline((group(0), figures(199)), (group(1, suite="text"), figures(0, scored=False))).state == "met"
    assert headline((group(0), figures(199)), (group(1, suite="text"), slow)).state == "not met"


def test_a_limit_on_time_between_tokens_is_not_asked_of_answers_that_come_whole() -> None:
    rule = rule_of(["correct>=0.9", "itl_p99<=0.1"])
    assert headline_of([group(0, suite="tools")], {0: figures(199)}, rule).state == "met"


def test_an_invalid_measurement_supports_no_claim_and_is_named() -> None:
    found = headline((group(0, verdict="invalid"), figures(199)))
    assert found.state == "unjudged"
    assert found.notes == ("Excluded: invalid measurement: m json c=1.",)


def test_a_degraded_or_interrupted_run_is_said_to_be() -> None:
    found = headline((group(0, verdict="degraded", status="interrupted"), figures(199)))
    assert found.notes == ("Read with care: m json c=1 (degraded, interrupted).",)


def test_another_config_of_the_same_model_is_another_candidate() -> None:
    thinking, plain = {"think": True}, {"think": False}
    found = headline(
        (group(0, config=thinking), figures(199)), (group(1, config=plain), figures(50)),
        (group(2, suite="tools", config=thinking), figures(198)),
    )  # fmt: skip
    assert [(len(each.groups), each.state) for each in found.candidates] == [(2, "met"), (1, "not met")]
    assert [each.name for each in found.candidates] == ["m at c=1 (think=on)", "m at c=1 (think=off)"]


def test_suites_that_were_run_with_different_configs_are_judged_together() -> None:
    """Else the one that misses would be another candidate, and hidden."""
    long, short = {"options": {"num_predict": 300}}, {"options": {"num_predict": 200}}
    pairs = [(group(0, config=long), figures(199)), (group(1, suite="tools", config=short), figures(88))]
    found = headline(*pairs)
    assert [(each.name, len(each.groups), each.state) for each in found.candidates] == [("m at c=1", 2, "not met")]
    assert "which misses tools: correct 44.0 %" in found.text
    assert found.notes == (
        "Not all suites were run with the same config: json: num_predict=300; tools: num_predict=200.",
    )
    prompt = (group(2, config={**long, "structured": "prompt"}), figures(199))
    assert [each.state for each in headline(*pairs, prompt).candidates] == ["not met", "not met"]


def test_a_suite_that_another_config_misses_is_told_beside_the_answer() -> None:
    found = headline(
        (group(0, config={"think": True}), figures(199)), (group(1, config={"think": False}), figures(199)),
        (group(2, suite="tools", config={"think": False}), figures(88)),
    )  # fmt: skip
    assert found.text.startswith("m at c=1 (think=on) is correct and fast enough.")
    (note,) = found.notes
    assert note.startswith("Not shown for other suites, which were run as m at c=1 (think=off): tools: correct 44.0 %")


def test_a_schema_in_the_prompt_is_another_candidate_than_as_a_format_and_tools_go_with_both() -> None:
    found = headline(
        (group(0), figures(199)), (group(1, config={"structured": "prompt"}), figures(50)),
        (group(2, suite="tools"), figures(198)),
    )  # fmt: skip
    assert [[each.id for each in candidate.groups] for candidate in found.candidates] == [[0, 2], [1, 2]]
    assert [each.variant for each in found.candidates] == ["structured format", "structured prompt"]


def test_a_suite_that_was_measured_badly_leaves_its_model_open() -> None:
    """It was told as one that was not run so, and the model was called correct without it."""
    kept = {"environment": {"command": ["--models", "m", "--suites", "json"]}}
    bad = group(0, verdict="invalid", **kept)
    found = headline((bad, figures(50)), (group(1, suite="tools"), figures(199)))
    assert found.state == "not decided"
    assert found.text == (
        "No model has been shown to be correct and fast enough; m at c=1 may be. Not settled: json was measured badly "
        "(invalid). To settle it (10 s here): structbench load --models m --suites json"
    )
    assert found.rule.endswith("in tools (200 requests); json was measured badly (invalid).")
    assert headline((bad, figures(50)), (group(1, suite="tools"), figures(50))).state == "not met"
    other = headline((bad, figures(50)), (group(1, suite="tools"), figures(199)), (group(2, "b"), figures(190)))
    assert other.text.startswith("No model has been shown") is False
    assert other.rule.endswith("in json (200 requests); tools was not run so.")
    alone = headline((bad, figures(199)))
    assert alone.settled_by == ("To settle it (10 s here): structbench load --models m --suites json",)


def test_of_a_cell_that_was_measured_again_the_newest_counts_and_is_named() -> None:
    """Both were judged as if they were two suites: 'in json (200 requests), json (200)'."""
    days = [{"started_at": datetime(2026, 9, day)} for day in (1, 2, 3)]
    old, new, bad = figures(50), figures(199), figures(100)
    found = headline((group(0, **days[0]), old), (group(1, **days[1]), new))
    assert found.state == "met"
    assert found.text.count("correct 99.5 %") == 1
    assert found.rule.endswith("in json (200 requests, the newest of 2 runs).")
    assert headline((group(0, **days[1]), old), (group(1, **days[0]), new)).state == "not met"
    found = headline(
        (group(0, **days[0]), old), (group(1, **days[1]), new), (group(2, verdict="invalid", **days[2]), bad)
    )
    assert (found.state, found.candidates[0].invalid) == ("met", ())


@pytest.mark.parametrize(("ttft_s", "n", "said"), [
    (0.3, 200, "m at c=1 is fast enough (text; answers are not scored). text: TTFT p95 300 ms (270–330 ms), errors 0"),
    (1.05, 200, "No model has been shown to be fast enough; m at c=1 may be (text; answers are not scored). Not sett"),
    (5.0, 200, "No model is fast enough at any load measured (text; answers are not scored). The nearest is m at c=1"),
])  # fmt: skip
def test_who_has_no_scores_is_judged_by_speed(ttft_s: float, n: int, said: str) -> None:
    """A question of speed alone got no answer: 'no validly measured run has scored answers'."""
    found = headline((group(0, suite="text"), figures(0, n, ttft_s, scored=False)))
    assert found.text.startswith(said)
    assert found.rule.startswith("Rule: ttft_p95<=1s and error_rate<=5%, for the whole 95 % interval, in text (")
    assert found.rule.endswith("; correct>=90% does not apply.")
    scored = headline((group(0, suite="text"), figures(0, scored=False)), (group(1, "b"), figures(50)))
    assert [each.judged for each in scored.candidates] == [True, False]


def test_an_answer_about_correctness_is_not_had_from_speed() -> None:
    found = headline_of([group(0, suite="text")], {0: figures(0, scored=False)}, rule_of(["correct>=90%"]))
    assert (found.state, found.settled_by) == ("unjudged", ())


@pytest.mark.parametrize(("rule", "said"), [
    (["correct>=90%", "ttft_p95<=1s"], "m at c=1 is correct and fast enough."),
    (["correct<=99%", "ttft_p95<=1s"], "m at c=1 meets the rule."),
    (["correct>=90%", "ttft_p95>=1ms"], "m at c=1 meets the rule."),
])  # fmt: skip
def test_who_is_right_and_fast_kept_limits_that_ask_for_it(rule: list[str], said: str) -> None:
    found = headline_of([group(0)], {0: figures(190)}, rule_of(rule))
    assert found.sentences[0] == said


@pytest.mark.parametrize(("rule", "by"), [
    (["correct>=90%"], ", for the whole 95 % interval, in json"),
    (["error_rate<=0%"], ", by what was measured itself, in json"),
    (["ttft_p95<=1s"], ", by single requests, since there is no interval yet, in json"),
    (["correct>=90%", "error_rate<=0%"],
     "; correct>=90% for the whole 95 % interval; error_rate<=0% by what was measured itself, in json"),
])  # fmt: skip
def test_the_rule_says_by_what_it_was_decided(rule: list[str], by: str) -> None:
    own = figures(199)
    alike = Estimate(200, 0.3, 0.2, None, why="no interval yet: neighbours alike", seen=(0.1, 0.4))
    own = replace(own, latencies={**own.latencies, "ttft_s": {**own.latencies["ttft_s"], "p95": alike}})
    found = headline_of([group(0)], {0: own}, rule_of(rule))
    assert found.state == "met"
    assert found.rule == f"Rule: {' and '.join(rule)}{by} (200 requests)."


@pytest.mark.parametrize(("text", "state"), [
    ("ttft_mean<=1ms", "not met"), ("ttft_p42<=1s", "met"), ("ttft_p100<=300ms", "not decided"),
    ("semantic_similarity>=0.5", "met"),
])  # fmt: skip
def test_a_rule_is_judged_by_figures_that_no_table_has(text: str, state: str) -> None:
    """They were left out of the rule without a word, and where none was left the default rule took their place."""
    asked = {"ttft_mean": Estimate(200, 0.3, 0.2, 0.4), "ttft_p42": Estimate(200, 0.3, 0.2, 0.4),
             "ttft_p100": Estimate(0), "semantic_similarity": Estimate(9, 0.7, 0.6, 0.8)}  # fmt: skip
    found = headline_of([group(0)], {0: replace(figures(199), asked=asked)}, rule_of([text]))
    assert (found.state, [each.text for each in found.conditions]) == (state, [text])


def test_nothing_measured_is_no_answer() -> None:
    assert headline().state == "unjudged"


@pytest.mark.parametrize("text", ["ttft<1", "ttft_p101<1", "e2e_max<1"])
def test_a_limit_on_what_is_no_figure_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        rule_of([text])


@pytest.mark.parametrize(
    "text",
    ["itl_p99<100ms", "ttft_due_p95<1", "tool_calls_right>=0.9", "correct_goodput>1", "requests_per_s>3", "goodput>1"],
)
def test_limits_on_what_a_report_has(text: str) -> None:
    (condition,) = rule = rule_of([text])
    found = headline_of([group(0)], {0: figures(199)}, rule)
    assert condition.text == text
    assert found.rule.startswith(f"Rule: {text}")

"""What limits, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from structbench.capacity.limits import limits, sentences
from structbench.capacity.search import Found, Step
from structbench.commands import capacity
from structbench.commands.capacity import Options, next_command
from structbench.errors import BadInput
from structbench.gates.slo import Gate, Judgement


def gate(slo: str, outcome: Any) -> Gate:
    return Gate("m json", slo, outcome, 1.2, 24, "1.20 s (1.10–1.30 s), n = 24 requests")


def step(level: float, state: Judgement, slo: str = "ttft_p95<=1s", rate: float = 5.0, **facts: Any) -> Step:
    return Step(level=level, state=state, requests=80, correct_per_s=rate, gates=(gate(slo, state),), facts=facts)


def found(*steps: Step, complete: bool = True) -> Found:
    return Found(steps, complete)


def test_the_answer_names_the_load_the_throughput_and_the_slots() -> None:
    told = " ".join(
        sentences(found(step(4, "met", rate=11.7), step(5, "not met", rate=11.8, served=0.8)), "concurrency")
    )
    assert told == (
        "the rule holds up to 4 in flight (not at 5 in flight: ttft_p95<=1s: 1.20 s (1.10–1.30 s), n = 24 requests). "
        "There it gives 11.7 correct answers/s. More than about 4 in flight brings no more. The server answers 4 at a "
        "time (OLLAMA_NUM_PARALLEL), and requests wait 20 % of their time for their turn."
    )


@pytest.mark.parametrize(("facts", "text"), [
    ({"served": 0.5, "slots": 2, "kind": "llama.cpp"}, "the server answers 2 at a time (--parallel)"),
    ({"vram_share": 0.4}, "partly on the processor (40 % on the GPU)"),
    ({"vram_share": 0.0}, "the model runs on the processor"),
    ({"verdict": "invalid", "verdict_reason": "late"}, "this client is invalid there: late"),
    ({"notes": {"reload": "3 of 9 requests made the server load"}}, "3 of 9 requests made the server load"),
    ({"notes": {"prompt_cut": "prompts were cut"}}, "prompts were cut"),
    ({}, "what limits is not seen from here"),
])  # fmt: skip
def test_each_limit_has_its_words(facts: dict[str, Any], text: str) -> None:
    assert any(text in each for each in limits(found(step(1, "met"), step(2, "not met", **facts)), "concurrency"))


def test_nothing_is_said_to_limit_where_nothing_was_missed() -> None:
    """A search without time, and one of a single load: "What limits is not seen from here", "still grows"."""
    assert [*limits(found(step(2, "not decided"), complete=False), "concurrency")] == []
    told = [*sentences(found(step(1, "met", rate=3)), "concurrency")]
    assert told == ["the rule holds up to 1 in flight at least, the highest load that was measured.",
                    "There it gives 3.00 correct answers/s."]  # fmt: skip


def test_a_server_that_answers_nothing_is_told_by_its_errors_and_not_by_this_clients_verdict() -> None:
    facts = {"completed": 0, "failures": ["9 × http 500: nope\x1b", "1 × timeout: total"], "verdict": "invalid",
             "verdict_reason": "no request completed"}  # fmt: skip
    searched = found(step(1, "not met", slo="error_rate<=5%", **facts))
    assert searched.is_unanswered
    assert [*sentences(searched, "concurrency")][1:] == ["Requests fail: 9 × http 500: nope\ufffd; 1 × timeout: total."]
    assert next_command(Options(models=["m"]), searched) is None
    assert not found(step(1, "met", completed=9), step(2, "not met", **facts)).is_unanswered


@pytest.mark.parametrize("given", [
    {"option": ["num_ctx=2048,4096"]}, {"body": ["x=1", "x=2"]}, {"think": ["on", "off"]}, {"within": 0.0},
    {"within": float("nan")}, {"host": ["a", "b"]}, {"structured": ["format", "prompt"]},
])  # fmt: skip
def test_a_search_is_of_one_setting_and_takes_time(given: dict[str, Any]) -> None:
    """Two values were a traceback once load had been sent."""
    with pytest.raises(BadInput):
        capacity.run(Options(models=["m"], **given))


def test_wrong_answers_are_not_the_loads_doing() -> None:
    told = [*sentences(found(step(1, "not met", slo="correct>=90%")), "concurrency")]
    assert told[0].startswith("the rule is not met even at 1 in flight: correct>=90%")
    assert told[1] == "It is not the load: the answers are not right often enough."


def test_a_rule_that_never_breaks_holds_at_least_so_far() -> None:
    told = [*sentences(found(step(1, "met", rate=1), step(2, "met", rate=2), complete=False), "rate")]
    assert told[0] == "the rule holds up to 2.00 requests/s at least, the highest load that was measured."
    assert told[2] == "Throughput still grows at the highest load that was measured."
    assert told[-1].endswith("give it more by --within.")


def test_what_is_open_above_is_said() -> None:
    told = [*sentences(found(step(4, "met"), step(8, "not decided")), "concurrency")]
    assert told[0] == "the rule holds up to 4 in flight at least; 8 in flight is not decided."


@pytest.mark.parametrize(("what", "more"), [
    (found(step(1, "met"), step(2, "not met")), None),
    (found(step(1, "not met")), None),
    (found(step(1, "met"), step(2, "not decided"), step(3, "not met")), "--max-requests 800"),
    (found(step(2, "not decided")), "--max-requests 800"),
    (found(step(1, "not decided"), step(2, "met"), step(3, "not met")), None),
    (found(step(1, "met"), complete=False), "--within 600"),
    (found(replace(step(2, "not decided"), requests=80, requests_per_s=2.0, gates=(replace(gate("ttft_p95<=1s",
     "not decided"), needs=2080),))), "--max-requests 3120 --within 1500"),
    (found(step(1, "met"), step(2, "not decided"), complete=False), "--max-requests 800 --within 600"),
])  # fmt: skip
def test_what_is_left_open_comes_with_the_command_that_goes_on(what: Found, more: str | None) -> None:
    options = Options(models=["m:1b"], suites=["json"], slo=["ttft_p50<=3s"])
    told = next_command(options, what)
    begin = "structbench capacity --models m:1b --suites json --slo 'ttft_p50<=3s' --skip-cached"
    assert told is None if more is None else sorted(told.split()) == sorted(f"{begin} {more}".split())

"""Suites: what ships is right, what is generated is what was drawn."""

from __future__ import annotations

import json
import os
import pickle
import re
import statistics
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from structbench.errors import BadInput
from structbench.gates.settled import FIRST
from structbench.scoring import Answer, score
from structbench.suites.answer_book import answer_book
from structbench.suites.catalog import SHIPPED, cases_of_run, check_suite, describe_suites, load_suite, shipped_lines
from structbench.suites.generated import (
    LEAD_INS,
    GeneratedCases,
    TextShape,
    _lead_in,
    calibrate,
    calibration_prompts,
    number_case,
    number_words,
    text_case,
    word_count,
)
from structbench.types import Case, Suite

SHAPE = TextShape()


def load(name: str, *, seed: int = 0, text: TextShape = SHAPE) -> Suite:
    return load_suite(name, text=text, seed=seed)


def question(case: Case) -> str:
    return str(case.messages[-1]["content"])


@pytest.mark.parametrize("name", [name for name, shipped in SHIPPED.items() if not shipped.generated])
def test_the_shipped_suites_have_no_problem_and_load_does_not_ask_again(name: str) -> None:
    checked = [*check_suite(name)]
    assert [line.problems for line in checked] == [()] * len(checked)
    assert [*shipped_lines(name)] == checked


def all_acceptable(case: Case) -> Iterator[tuple[dict[str, Any], ...]]:
    """The expected calls with each acceptable value of each argument in turn."""

    def made(call: Mapping[str, Any], name: str = "", value: Any = "") -> dict[str, Any]:
        chosen = {each: value if each == name else values[0] for each, values in call["arguments"].items()}
        return {"name": call["name"], "arguments": {each: given for each, given in chosen.items() if given != ""}}

    calls = case.expected_calls or ()
    yield tuple(map(made, calls))
    for place, call in enumerate(calls):
        for name, values in call["arguments"].items():
            for value in values:
                yield (*map(made, calls[:place]), made(call, name, value), *map(made, calls[place + 1 :]))


def at(document: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


# --- what ships


def test_each_shipped_json_answer_satisfies_schema_and_expectations() -> None:
    book = answer_book()
    for case in load("json").cases:
        assert case.schema is not None
        answer = book[question(case)]["json"]
        checker = Draft202012Validator.FORMAT_CHECKER
        assert list(Draft202012Validator(dict(case.schema), format_checker=checker).iter_errors(answer)) == [], case.id
        for pointer, value in (case.expected or {}).items():
            assert at(answer, pointer) == value, (case.id, pointer)


def test_each_shipped_tool_answer_is_what_the_case_expects() -> None:
    book = answer_book()
    for case in load("tools").cases:
        parameters = {t["function"]["name"]: t["function"]["parameters"] for t in case.tools}
        calls = book[question(case)]["calls"]
        assert case.expected_calls is not None
        assert [call["name"] for call in calls] == [call["name"] for call in case.expected_calls]
        for call, expected in zip(calls, case.expected_calls, strict=True):
            assert Draft202012Validator(parameters[call["name"]]).is_valid(call["arguments"]), case.id
            for name, acceptable in expected["arguments"].items():
                assert call["arguments"].get(name, "") in acceptable


def test_the_shipped_suites_cover_what_the_issue_lists() -> None:
    json_cases = load("json").cases
    for tag in ("person", "books", "catalog"):
        assert sum(tag in case.tags for case in json_cases) >= 8
    assert sum(case.expected is not None for case in json_cases) >= 9
    tool_cases = load("tools").cases
    assert len(tool_cases) >= 30
    for tag in ("weather", "tip", "email", "parallel", "choice", "optional", "none"):
        assert sum(tag in case.tags for case in tool_cases) >= 5, tag
    assert all((case.expected_calls == ()) == ("none" in case.tags) for case in tool_cases)
    assert all((len(case.expected_calls or ()) > 1) == ("parallel" in case.tags) for case in tool_cases)
    kinds = {name: load(name).cases[0].kind for name in SHIPPED}
    assert kinds == {"text": "text", "json": "json", "tools": "tools", "turns": "tools", "numbers": "answer"}


@pytest.mark.parametrize("name", ["json", "tools"])
def test_a_perfect_model_is_settled_before_a_case_is_asked_again(name: str) -> None:
    assert len(load(name).cases) >= FIRST


@pytest.mark.parametrize("name", ["json", "tools"])
def test_no_two_cases_are_alike(name: str) -> None:
    cases = load(name).cases
    assert len({case.id for case in cases}) == len(cases)
    asking = [case for case in cases if "none" not in case.tags]
    wanted = [json.dumps([case.expected_calls, case.expected, case.schema]) for case in asking]
    assert len(set(wanted)) == len(wanted)
    words = [frozenset(question(case).lower().split()) for case in cases]
    for place, one in enumerate(words):
        alike = max(len(one & other) / len(one | other) for other in words[:place] + words[place + 1 :])
        assert alike < 0.8, cases[place].id


def test_every_expected_answer_is_right_by_the_scorer_itself() -> None:
    """Also by the rules of the case: what is expected at a place is what the schema allows there."""
    book = answer_book()
    for case in load("json").cases:
        found = score(case, Answer(json.dumps(book[question(case)]["json"]), (), "stop", None))
        assert found.outcome == "correct", (case.id, found)
    for case in load("tools").cases:
        for calls in all_acceptable(case):
            assert score(case, Answer("", calls, "stop", None)).outcome == "correct", (case.id, calls)


def test_no_small_model_can_run_for_ever_and_no_answer_is_cut() -> None:
    book = answer_book()
    for name in ("json", "tools"):
        for case in load(name).cases:
            limit = case.options["num_predict"]
            # Dense JSON has no fewer than about 2.5 characters a token.
            assert len(json.dumps(book[question(case)])) / 2.5 < limit <= 700, case.id


def test_json_prompts_name_every_field_so_that_a_schema_in_the_prompt_makes_sense() -> None:
    def fields(node: Any) -> set[str]:
        if isinstance(node, list):
            return {name for item in node for name in fields(item)}
        if not isinstance(node, dict):
            return set()
        return set(node.get("properties", {})) | {name for value in node.values() for name in fields(value)}

    for case in load("json").cases:
        assert {name for name in fields(case.schema) if name not in question(case)} == set(), case.id


def test_answers_are_found_by_question_so_questions_are_unique() -> None:
    cases = [*load("json").cases, *load("tools").cases]
    assert len({question(case) for case in cases}) == len(cases)


def test_the_answer_book_knows_numbers_of_its_seed() -> None:
    book = answer_book(seed=7)
    for case in load("numbers", seed=7).cases[:1000]:
        assert book[question(case)] == {"text": case.expected_text}


def test_the_list_of_suites_counts_what_is_loaded() -> None:
    rows = {name: count for name, count, _ in describe_suites()}
    assert list(rows) == ["text", "json", "tools", "turns", "numbers"]
    for name, count in rows.items():
        asked = "generated" if SHIPPED[name].generated else sum(not case.follows for case in load(name).cases)
        assert count == asked


# --- text


def test_no_two_prompts_share_their_first_words() -> None:
    prompts = [question(case) for case in load("text").cases[:2000]]
    assert len({prompt[:12] for prompt in prompts}) == 2000
    assert len({" ".join(prompt.split()[1:3]) for prompt in prompts}) == 2000
    assert len({prompt[:3] for prompt in prompts}) > 800


def test_the_beginning_alone_differs_by_run_and_a_run_that_goes_on_asks_the_same() -> None:
    first, second, again = (cases_of_run(load("text"), run, 1.3, 40)[:50] for run in ("one", "two", "one"))
    assert again == first
    for case, other in zip(first, second, strict=True):
        here, there = question(case), question(other)
        assert (here[:12] + there[:12]).isdigit()
        assert here[:12] != there[:12]
        assert here[12:] == there[12:]
        assert replace(case, messages=()) == replace(other, messages=())
    assert question(first[0])[:12] != question(first[1])[:12]


@given(st.integers(0, LEAD_INS - 1), st.integers(0, LEAD_INS - 1), st.integers())
def test_lead_ins_never_collide_within_a_seed(first: int, second: int, seed: int) -> None:
    assert (_lead_in(seed, first) == _lead_in(seed, second)) == (first == second)


@given(st.integers(0, 10**9 - 1), st.integers(), st.floats(1, 4000), st.floats(0, 500))
def test_a_case_depends_on_seed_and_index_alone(i: int, seed: int, mean: float, stddev: float) -> None:
    shape = TextShape(mean_input_tokens=mean, mean_output_tokens=mean / 4, stddev_output_tokens=stddev)
    case = text_case(i, shape=shape, seed=seed)
    assert case == load("text", seed=seed, text=shape).cases[i]
    assert case.options["num_predict"] >= 4
    assert f"at least {case.options['num_predict']} words" in question(case)


def test_prompts_have_the_drawn_length_in_words() -> None:
    shape = TextShape(mean_input_tokens=430, stddev_input_tokens=0, mean_output_tokens=99, stddev_output_tokens=0)
    cases = cases_of_run(load("text", text=shape), "a run", 2.0, 30)[:200]
    assert {word_count(question(case)) for case in cases} == {200}
    assert {case.options["num_predict"] for case in cases} == {99}


def test_drawn_lengths_follow_mean_and_stddev() -> None:
    words = [word_count(question(case)) for case in cases_of_run(load("text"), "a run", 1.0, 0)[:2000]]
    assert statistics.mean(words) == pytest.approx(550, abs=15)
    assert statistics.stdev(words) == pytest.approx(150, abs=10)


def test_what_changes_the_cases_changes_the_hash() -> None:
    hashes = [
        load("text").content_hash,
        load("text", seed=1).content_hash,
        load("text", text=replace(SHAPE, mean_output_tokens=151)).content_hash,
        load("numbers").content_hash,
        load("numbers", seed=1).content_hash,
        load("json").content_hash,
    ]
    assert len(set(hashes)) == len(hashes)
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in hashes)
    whole = load("text", text=replace(SHAPE, mean_input_tokens=550.0))
    assert whole.content_hash == load("text", text=replace(SHAPE, mean_input_tokens=550)).content_hash


def test_an_unchanged_generator_keeps_its_first_words_and_hash() -> None:
    assert question(load("text").cases[0]).startswith(
        "196053304984 Rasari Zezeze wrote these notes. The price of a painted"
    )
    assert load("numbers").cases[1].expected_text == "157494"
    assert load("text").content_hash == "484f614d0e6e5a3714debb8dc5edb2a555baab69deb4f0d7fcc98e273f1b39a0"


@given(st.floats(0.6, 5), st.integers(0, 200))
def test_calibration_finds_the_line_that_made_the_counts(tokens_per_word: float, overhead: int) -> None:
    words = [word_count(prompt) for prompt in calibration_prompts(3, "a run")]
    found, found_overhead = calibrate([(count, round(tokens_per_word * count + overhead)) for count in words])
    assert found == pytest.approx(tokens_per_word, abs=0.02)
    assert abs(found_overhead - overhead) <= 2


@pytest.mark.parametrize("samples", [[], [(60, 90)], [(60, 90), (60, 91)], [(60, 12), (150, 12), (270, 12)]])
def test_counts_that_tell_nothing_leave_the_defaults(samples: list[tuple[int, int]]) -> None:
    assert calibrate(samples) == (1.1, 35)


def test_calibration_prompts_differ_in_length_and_warm_no_cache_for_the_run() -> None:
    prompts = calibration_prompts(0, "a run")
    assert [word_count(prompt) for prompt in prompts] == [60, 150, 270]
    names = {" ".join(question(case).split()[1:3]) for case in load("text").cases[:2000]}
    assert not names & {" ".join(prompt.split()[1:3]) for prompt in prompts}
    assert not {prompt[:12] for prompt in prompts} & {prompt[:12] for prompt in calibration_prompts(0, "another")}


def test_generated_cases_are_a_sequence_that_can_go_to_another_process() -> None:
    cases = load("text").cases
    assert len(cases) == 10**9
    assert cases[-1].id == "text-999999999"
    assert [case.id for case in cases[2:5]] == ["text-2", "text-3", "text-4"]
    with pytest.raises(IndexError):
        cases[10**9]
    assert pickle.loads(pickle.dumps(cases))[5] == cases[5]


def test_a_generated_case_is_made_once_while_its_request_is_under_way() -> None:
    made: list[int] = []

    def make(index: int) -> Case:
        made.append(index)
        return number_case(index, seed=0)

    cases = GeneratedCases(make)
    for _ in range(3):
        assert [cases[index].id for index in range(1000)] == [f"numbers-{index}" for index in range(1000)]
    assert made == list(range(1000))


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"mean_input_tokens": 0}, "--mean-input-tokens"),
        ({"stddev_input_tokens": -1}, "--stddev-input-tokens"),
        ({"mean_output_tokens": float("nan")}, "--mean-output-tokens"),
        ({"stddev_output_tokens": float("inf")}, "--stddev-output-tokens"),
    ],
)
def test_impossible_lengths_are_refused_by_the_name_of_their_option(change: dict[str, float], option: str) -> None:
    with pytest.raises(BadInput, match=option):
        load("text", text=replace(SHAPE, **change))
    assert load("json", text=replace(SHAPE, **change)).name == "json"


# --- numbers


SMALL_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
TENS_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORD_VALUES = {word: value for value, word in enumerate(SMALL_WORDS.split())} | {
    word: 10 * tens for tens, word in enumerate(TENS_WORDS.split(), start=2)
}


def digits_of(words: str) -> int:
    """An independent parser: value of English number words."""
    total = group = 0
    for word in words.replace("-", " ").split():
        if word == "thousand":
            total, group = group * 1000, 0
        elif word == "hundred":
            group *= 100
        elif word != "and":
            group += WORD_VALUES[word]
    return total + group


@given(st.integers(0, 999_999))
def test_number_words_read_back_as_the_number(value: int) -> None:
    assert digits_of(number_words(value)) == value


def test_number_words_as_people_say_them() -> None:
    assert number_words(712_000) == "seven hundred and twelve thousand"
    assert number_words(1_005) == "one thousand and five"
    assert number_words(40_321) == "forty thousand three hundred and twenty-one"
    with pytest.raises(ValueError, match="1000000"):
        number_words(1_000_000)


@given(st.integers(0, 10**9 - 1), st.integers())
def test_a_numbers_case_expects_the_digits_of_its_own_words(index: int, seed: int) -> None:
    case = number_case(index, seed=seed)
    words = question(case).split(".")[0].lower()
    assert case.expected_text == str(digits_of(words))


# --- against a real server

REAL = os.environ.get("STRUCTBENCH_REAL_OLLAMA")
real_ollama = pytest.mark.skipif(REAL is None, reason="STRUCTBENCH_REAL_OLLAMA names no server")


def ask_real(prompt: str, **fields: Any) -> dict[str, Any]:
    body = {"model": "smollm2:135m", "stream": False, "messages": [{"role": "user", "content": prompt}], **fields}
    request = urllib.request.Request(f"{REAL}/api/chat", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=120) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


@pytest.mark.ollama
@real_ollama
def test_a_real_server_counts_the_tokens_that_were_drawn() -> None:
    one = {"num_predict": 1}
    samples = [(word_count(p), ask_real(p, options=one)["prompt_eval_count"]) for p in calibration_prompts(0, "a run")]
    shape = TextShape(mean_input_tokens=200, stddev_input_tokens=0)
    cases = cases_of_run(load("text", text=shape), "a run", *calibrate(samples))
    counts = [ask_real(question(case), options=one)["prompt_eval_count"] for case in cases[:12]]
    assert statistics.mean(counts) == pytest.approx(200, rel=0.05)
    assert all(count == pytest.approx(200, rel=0.15) for count in counts)


@pytest.mark.ollama
@real_ollama
def test_a_real_server_refuses_no_shipped_schema() -> None:
    for case in load("json").cases:
        answer = ask_real(question(case), format=case.schema, options={"num_predict": 4})
        assert answer["done"], case.id

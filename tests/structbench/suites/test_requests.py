"""From a case to the request: pure, repeatable, and no two text prompts alike."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.api.server import Server
from structbench.options import LoadOptions
from structbench.run.cells import build_cells
from structbench.run.settings import settings_of
from structbench.suites.requests import as_prompt, case_of, request_of, requests_of, warmup_requests, with_schema
from structbench.types import Case, Config

SCHEMA = {"type": "object", "properties": {"naïve": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
TALK = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who?"},
)
SERVER = Server("http://127.0.0.1:1", "0.33.0", {"m:latest": "d"})
GIVEN: dict[str, Any] = {"models": ["m"], "suites": ["json"]}


def config(**given: Any) -> Config:
    return build_cells(settings_of(LoadOptions(**{**GIVEN, **given})), [SERVER])[0].config


JSON = config()


def test_cases_repeat_in_turn() -> None:
    cases = [Case(id=name, messages=TALK) for name in "abc"]
    assert [(case.id, repeat) for case, repeat in (case_of(cases, i) for i in range(7))] == [
        ("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1), ("c", 1), ("a", 2)
    ]  # fmt: skip
    assert [request.index for request in requests_of(cases, JSON, [5, 1])] == [5, 1]


def test_requests_are_made_as_they_are_needed() -> None:
    def endless() -> Any:
        index = 0
        while True:
            yield index
            index += 1

    made = requests_of([Case(id="a", messages=TALK)], JSON, endless())
    assert [request.index for request in islice(made, 3)] == [0, 1, 2]


def test_the_command_line_wins_over_the_case_and_the_case_over_the_seed() -> None:
    case = Case(id="a", messages=TALK, options={"num_predict": 9, "top_k": 3})
    sent = request_of(case, config(seed=7, option=["top_k=1", "temperature=0"]), 5)
    assert sent.options == {"seed": 12, "num_predict": 9, "top_k": 1, "temperature": 0}
    assert request_of(case, config(option=["seed=3"]), 5).options["seed"] == 3
    assert request_of(Case(id="a", messages=TALK, options={"seed": 4}), config(seed=7), 5).options["seed"] == 4


def test_the_schema_goes_as_format_or_into_the_prompt_but_not_both() -> None:
    case = Case(id="a", messages=TALK, schema=SCHEMA)
    formatted = request_of(case, JSON, 0)
    assert (formatted.format, formatted.messages) == (SCHEMA, TALK)
    asked = request_of(case, config(structured="prompt"), 0)
    assert asked.format is None
    assert asked.messages[0] == TALK[0]
    text = asked.messages[1]["content"]
    assert text.startswith("Who?\n\n")
    assert text.endswith('{"type": "object", "properties": {"naïve": {"type": "string"}}}')
    assert TALK[1]["content"] == "Who?"


def test_the_schema_stands_in_the_users_last_message_whoever_speaks_last() -> None:
    begun = {"role": "assistant", "content": "Sure:"}
    case = Case(id="a", messages=(*TALK, begun), schema=SCHEMA)
    asked = request_of(case, config(structured="prompt"), 0)
    assert (asked.messages[0], asked.messages[2]) == (TALK[0], begun)
    assert asked.messages[1]["content"].startswith("Who?\n\nAnswer with one JSON value only")
    assert with_schema(asked.messages, SCHEMA) == asked.messages


def test_no_format_without_a_schema() -> None:
    assert request_of(Case(id="a", messages=TALK), JSON, 0).format is None


def test_what_passes_through() -> None:
    case = Case(id="a", messages=TALK, tools=(TOOL,))
    sent = request_of(case, config(think="high", keep_alive="10m"), 3)
    assert (sent.index, sent.model, sent.tools, sent.think, sent.keep_alive) == (3, "m", (TOOL,), "high", "10m")
    assert (sent.prompt, sent.messages) == (None, TALK)
    assert request_of(case, config(think="off"), 3).think is False
    assert request_of(case, config(), 3).think is None


def test_generate_gets_the_conversation_as_one_text() -> None:
    sent = request_of(Case(id="a", messages=TALK, schema=SCHEMA), config(endpoint="generate", think="on"), 3)
    assert (sent.prompt, sent.messages, sent.tools) == ("system: Be brief.\n\nuser: Who?", (), ())
    assert (sent.format, sent.think) == (SCHEMA, True)
    assert as_prompt(TALK[1:]) == "Who?"


@pytest.mark.parametrize("endpoint", ["chat", "generate"])
def test_warm_up_is_marked_and_short_and_asks_for_nothing_that_is_measured(endpoint: str) -> None:
    asked = config(endpoint=endpoint, option=["num_ctx=512", "num_predict=900"], keep_alive="1h")
    warm = warmup_requests(asked, 3, {"num_ctx": 512, "num_batch": 64})
    assert [request.index for request in warm] == [-1, -2, -3]
    assert {request.options["num_predict"] for request in warm} == {4}
    assert {request.options["num_batch"] for request in warm} == {64}, "as the cases have the model loaded"
    assert {(request.options["num_ctx"], request.keep_alive, request.format) for request in warm} == {(512, "1h", None)}
    assert [request.prompt is None for request in warm] == [endpoint == "chat"] * 3


def test_no_warm_up_is_none() -> None:
    assert warmup_requests(config(), 0, {}) == []


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 5))
def test_text_prompts_differ_from_their_first_words_on(one: int, two: int, seed: int) -> None:
    options = LoadOptions(models=["m"], suites=["text"], seed=seed, mean_input_tokens=60, stddev_input_tokens=5)
    (cell,) = build_cells(settings_of(options), [SERVER])
    suite = cell.suite
    texts = [request.messages[0]["content"] for request in requests_of(suite.cases, cell.config, [one, two])]
    assert (texts[0].split()[:2] == texts[1].split()[:2]) is (one == two)
    again = request_of(case_of(suite.cases, one)[0], cell.config, one)
    assert again.messages[0]["content"] == texts[0]


def test_another_seed_makes_other_prompts() -> None:
    def first(seed: int) -> str:
        options = LoadOptions(models=["m"], suites=["text"], seed=seed)
        return str(settings_of(options).suites[0].cases[0].messages[0]["content"])

    assert first(0) == first(0)
    assert first(0) != first(1)

"""--max-tokens-total: what counts, what may still be sent, and how a load ends for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.simulator import Simulator
from loadgen.types import Request, RequestError, RequestRecord
from structbench.errors import BadInput
from structbench.options import LoadOptions
from structbench.run.budget import TokenBudget
from structbench.run.settings import settings_of
from tests.support.loads import ask, load, small

HELLO = ({"role": "user", "content": "x" * 349},)
"""400 bytes of JSON with what is around it: 100 tokens."""


def asked(index: int = 0, **more: Any) -> Request:
    return Request(index=index, model="m", messages=HELLO, **{"options": {"num_predict": 50}, **more})


def record(index: int = 0, prompt: int | None = 80, output: int | None = 20, **more: Any) -> RequestRecord:
    return RequestRecord(index=index, sent_ns=1, prompt_tokens=prompt, output_tokens=output, **more)


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({}, 150), ({"body": {"max_tokens": 7}}, 107), ({"body": {"max_completion_tokens": 8}}, 108),
        ({"body": {"max_output_tokens": 6}}, 106),
        ({"body": {"options": {"num_predict": 9}}}, 109), ({"options": {"num_predict": -1}}, 100 + 4096),
        ({"options": {}}, 100 + 4096), ({"format": {"type": "object", "n": "y" * 377}}, 250),
    ],
)  # fmt: skip
def test_a_request_asks_for_its_prompt_and_the_limit_of_its_answer(more: Any, tokens: int) -> None:
    assert TokenBudget(0).asks(asked(**more)) == tokens


def test_without_a_limit_an_answer_may_be_as_long_as_the_longest_so_far() -> None:
    budget = TokenBudget(10_000)
    budget.settle(record(output=300))
    budget.settle(record(output=20))
    assert budget.asks(asked(options={})) == 100 + 300


@pytest.mark.parametrize(
    ("ended", "used"),
    [
        (record(), 100),
        (replace(record(), total_tokens=1100), 1100),  # thinking that is in neither count
        (replace(record(), total_tokens=90), 100),
        (record(output=None), 150),
        (record(prompt=None), 150),
        (record(prompt=None, output=None, error=RequestError("timeout", "")), 150),
        (record(prompt=None, output=None, error=RequestError("stream", "")), 150),
        (record(prompt=None, output=None, error=RequestError("rate_limited", "", 429)), 0),
        (record(prompt=None, output=None, error=RequestError("connect", "")), 0),
        (RequestRecord(index=0, error=RequestError("cancelled", "")), 0),
        (record(prompt=5, output=6, error=RequestError("protocol", "")), 11),
    ],
)
def test_what_the_server_tells_counts_or_else_what_was_asked_for(ended: RequestRecord, used: int) -> None:
    budget = TokenBudget(1000)
    assert list(budget.admit([asked()])) == [asked()]
    budget.settle(ended)
    assert budget.used == used


def test_a_request_may_use_as_much_beyond_its_limit_as_another_did() -> None:
    budget = TokenBudget(3000)
    handed = budget.admit(map(asked, range(4)))
    assert next(handed) == asked(0)
    budget.settle(replace(record(), total_tokens=1150))
    assert next(handed) == asked(1)  # 1,150 used, and as many held
    budget.settle(replace(record(), index=1, total_tokens=1150))
    assert next(handed) is None
    assert budget.used == 2300


def test_requests_in_flight_count_as_what_they_ask_for() -> None:
    budget = TokenBudget(420)
    handed = budget.admit(map(asked, range(4)))
    assert [each and each.index for each in (next(handed), next(handed), next(handed), next(handed))] == [
        0, 1, None, None
    ]  # fmt: skip
    budget.settle(record(0))
    assert next(handed) == asked(2), "100 used and 300 asked for"
    budget.settle(record(1))
    budget.settle(record(2))
    assert next(handed) is None, "300 used: 120 are too few"


def test_what_just_fits_may_be_sent_and_what_was_not_sent_no_longer_counts() -> None:
    budget = TokenBudget(150)
    assert next(budget.admit([asked()])) == asked()
    assert next(budget.admit([asked()])) is None
    budget.begin()
    assert next(budget.admit([asked()])) == asked()
    assert next(TokenBudget(149).admit([asked()])) is None


def test_a_warm_up_counts_as_what_it_asks_for() -> None:
    budget = TokenBudget(1000)
    budget.spend([asked(), asked(1)])
    assert budget.used == 300


def test_a_conversation_needs_room_for_both_of_its_turns() -> None:
    first = asked(0, tool_results={})
    assert next(TokenBudget(299).admit([first])) is None
    budget = TokenBudget(301)
    assert next(budget.admit([first])) == first
    budget.settle(record(0, following=asked(1)))
    assert next(budget.admit([asked(2, options={"num_predict": 1})])) is None, "100 used and 150 asked for"


@given(
    st.integers(0, 2000), st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50)), max_size=30), st.integers(1, 9)
)
def test_no_more_is_used_than_allowed_if_no_request_uses_more_than_it_asks_for(
    limit: int, told: list[tuple[int, int]], most: int
) -> None:
    budget, open_now = TokenBudget(limit), []
    for request in budget.admit(map(asked, range(len(told)))):
        if request is not None:
            open_now.append(request.index)
        if request is None and not open_now:
            break
        if request is None or len(open_now) == most:
            index = open_now.pop(0)
            budget.settle(record(index, *told[index]))
    for index in open_now:
        budget.settle(record(index, *told[index]))
    assert budget.used <= limit


def test_numbers_below_one_and_facts_without_a_value_are_refused() -> None:
    with pytest.raises(BadInput, match="--max-tokens-total 0: give more than 0"):
        settings_of(LoadOptions(max_tokens_total=0))
    with pytest.raises(BadInput, match="--metadata 'gpu' has no '='"):
        settings_of(LoadOptions(metadata=["gpu"]))
    assert settings_of(LoadOptions(metadata=["gpu=L4", "x=a=b"])).metadata == {"gpu": "L4", "x": "a=b"}


@pytest.mark.slow
def test_a_load_ends_at_its_tokens_says_so_and_goes_on_another_day(sim: Simulator, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    options: dict[str, Any] = {"requests": 30, "concurrency": [2], "option": ["num_predict=16"], "metadata": ["gpu=L4"]}
    options |= {"suites": ["numbers", "json"], "max_tokens_total": 700}
    ended = load(small(sim, db, **options))
    ((rows, used),) = ask(db, "SELECT count(*), sum(prompt_tokens + output_tokens) FROM requests")
    assert 3 < rows < 30
    assert 700 - 200 < used <= 700
    assert ended.exit_code == 1
    assert "--max-tokens-total 700 (used: " in ended.failures[0]
    assert ask(db, "SELECT status, metadata ->> 'gpu' FROM runs") == [("interrupted", "L4")], "no second cell"
    assert ask(db, "SELECT kind FROM notes WHERE kind = 'token_limit'") == [("token_limit",)]
    more = load(small(sim, db, **{**options, "max_tokens_total": 100_000, "suites": ["numbers"], "skip_cached": True}))
    assert (more.exit_code, more.rows[0]["requests"]) == (0, 30)
    assert ask(db, "SELECT kind FROM notes WHERE kind = 'token_limit'") == []
    assert ask(db, "SELECT token_limit FROM segments ORDER BY segment") == [(700,), (None,)]


@pytest.mark.slow
def test_a_load_that_nothing_may_be_sent_of_sends_nothing(sim: Simulator, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    ended = load(small(sim, db, max_tokens_total=40, rate=[50.0]))
    assert ended.exit_code == 1
    assert ask(db, "SELECT count(*) FROM requests") == [(0,)]

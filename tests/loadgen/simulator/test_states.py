"""What makes a simulated model faster or slower: a prefix cache, loading options, slow stretches, a fixed service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from loadgen.simulator import Profile, Simulator
from loadgen.simulator.answers import prompt_pieces
from loadgen.simulator.models import FAST, PROFILES, Model
from tests.support.simulators import post, user

PROMPT = "A long question about boats and harbours, " * 20


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    quick = {"load_s": 0.0, "tokens_per_s": 5000.0, "jitter": 0.0}
    models = {
        "told": Profile(prefix_cache="told", prompt_tokens_per_s=20_000, **quick),
        "untold": Profile(prefix_cache="untold", prompt_tokens_per_s=20_000, **quick),
        "reloads": Profile(reloads=True, prompt_tokens_per_s=1e6, load_s=0.12, tokens_per_s=5000.0),
        "keeps": Profile(prompt_tokens_per_s=1e6, load_s=0.12, tokens_per_s=5000.0),
        "served": Profile(service_s=0.02, load_s=0.0),
    }  # fmt: skip
    with Simulator(models) as running:
        yield running


def ask(sim: Simulator, model: str, text: str = PROMPT, **options: Any) -> dict[str, Any]:
    sent = {"model": model, "messages": user(text), "stream": False, "options": {"num_predict": 2, **options}}
    answer: dict[str, Any] = post(sim, sent).json()
    return answer


def test_what_a_prompt_shares_with_an_earlier_one_is_told_and_costs_nothing(sim: Simulator) -> None:
    first, again, other, longer = (
        ask(sim, "told", text) for text in (PROMPT, PROMPT, "Nothing alike", PROMPT + "more")
    )
    assert (first["prompt_eval_cached_count"], other["prompt_eval_cached_count"]) == (0, 0)
    assert 0.95 * first["prompt_eval_count"] < again["prompt_eval_cached_count"] < again["prompt_eval_count"]
    assert longer["prompt_eval_cached_count"] > 0.9 * first["prompt_eval_count"]
    assert again["prompt_eval_count"] == first["prompt_eval_count"], "the whole prompt counts"
    assert again["prompt_eval_duration"] < first["prompt_eval_duration"]


def test_a_cache_may_be_untold(sim: Simulator) -> None:
    first, again = (ask(sim, "untold") for _ in range(2))
    assert "prompt_eval_cached_count" not in again
    assert again["prompt_eval_duration"] < first["prompt_eval_duration"]


def test_other_loading_options_load_the_model_again(sim: Simulator) -> None:
    loads = [ask(sim, "reloads", num_ctx=n, seed=n)["load_duration"] > 100_000_000 for n in (2048, 2048, 8192, 2048)]
    assert loads == [True, False, True, True]
    assert "load_duration" not in (late := ask(sim, "reloads", num_ctx=2048, temperature=1)) or (
        late["load_duration"] < 100_000_000
    )
    assert [ask(sim, "keeps", num_ctx=n)["load_duration"] > 100_000_000 for n in (2048, 8192)] == [True, False]


def test_a_service_of_a_fixed_length_is_that_long_whatever_is_asked(sim: Simulator) -> None:
    for tokens in (2, 30):
        took = ask(sim, "served", num_predict=tokens)
        assert took["total_duration"] >= 20_000_000
        assert took["prompt_eval_duration"] + took["eval_duration"] >= 20_000_000 * 0.99


def test_a_stretch_of_requests_is_slow() -> None:
    model = Model("m", Profile(slow_requests=(2, 4), slow_factor=1.5))
    assert [model.slowness() for _ in range(6)] == [1, 1, 1.5, 1.5, 1, 1]
    assert {Model("m", FAST).slowness() for _ in range(3)} == {1}


def test_the_last_piece_of_a_prompt_is_never_cached_and_only_the_last_prompts_are_kept() -> None:
    model = Model("m", PROFILES["sim:cache"])
    assert [model.cached(("a", "b", "c")) for _ in range(2)] == [0, 2]
    for place in range(64):
        model.cached((f"{place}", "x"))
    assert model.cached(("a", "b", "c")) == 0
    assert Model("m", FAST).cached(("a", "b")) == 0


def test_a_prompt_is_tools_then_messages() -> None:
    body = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}], "tools": [1]}
    assert "".join(prompt_pieces(body)) == "[1] Be brief. Who?"
    assert "".join(prompt_pieces({"prompt": "Who?"})) == "Who?"

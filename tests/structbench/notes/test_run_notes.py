"""What the rows of a run say: the opening, reloads, cached prompts, slow-downs, a growing queue."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pytest

from structbench.notes import cache, opening, reload, stationary
from structbench.notes.judge import Judge
from structbench.types import Note
from tests.support.in_memory import Row, Tables, tables

S = 1_000_000_000
START = datetime(2026, 3, 1, 12)


@pytest.fixture(scope="module")
def store() -> Iterator[Tables]:
    with tables() as opened:
        yield opened


def request(index: int, **more: Any) -> Row:
    """One a second, TTFT 0.1 s, 1 s in all."""
    return {"run_id": "r", "request_index": index, "segment": 0, "sent_ns": index * S, "end_ns": (index + 1) * S,
            "ttft_s": 0.1, "tpot_s": 0.01, "case_id": f"case {index}", "repeat": 0, "steady": True, **more}  # fmt: skip


def told(store: Tables, judge: Judge, rows: Sequence[Row], *others: Row, **run: Any) -> Note | None:
    given = {"run_id": "r", "load_kind": "closed", "concurrency": 4, "suite": "json", **run}
    store.fill(runs=[given, *others], requests=rows)
    found = list(judge.notes(store.query(judge.sql, ["r"])))
    assert len(found) <= 1
    return found[0] if found else None


# Opening


def test_an_opening_wave_is_told_where_it_waited_longer(store: Tables) -> None:
    rows = [request(i, steady=i >= 16, ttft_s=1.2 if i < 8 else 0.3) for i in range(64)]
    note = told(store, opening.OPENING, rows)
    assert note == Note(
        "opening_wave", "16 requests sent while the load began had TTFT p95 1.20 s, the 48 steady ones 300 ms: "
        "latencies and rates are of these", 0.25,
    )  # fmt: skip


def test_an_opening_that_waited_less_is_told_too(store: Tables) -> None:
    note = told(store, opening.OPENING, [request(i, steady=i >= 10, ttft_s=0.1 if i < 10 else 0.9) for i in range(60)])
    assert note is not None
    assert "10 requests sent while the load began had TTFT p50 100 ms, the 50 steady ones 900 ms" in note.text


@pytest.mark.parametrize("opened", [0.1, 0.11])
def test_an_opening_like_the_rest_needs_no_word(store: Tables, opened: float) -> None:
    rows = [request(i, steady=i >= 16, ttft_s=opened if i < 16 else 0.1) for i in range(64)]
    assert told(store, opening.OPENING, rows) is None


@pytest.mark.parametrize(("concurrency", "said"), [(4, True), (1, False)])
def test_a_run_too_short_for_a_steady_part_says_that_figures_are_of_all(
    store: Tables, concurrency: int, said: bool
) -> None:
    note = told(store, opening.OPENING, [request(i, steady=None) for i in range(6)], concurrency=concurrency)
    assert (note is not None and note.kind == "no_steady_part") is said


# Reloads


def test_a_reload_is_told_with_its_share_and_when(store: Tables) -> None:
    rows = [request(i, load_s=1.5 if i in (7, 9) else 0.02) for i in range(20)]
    note = told(store, reload.RELOAD, rows)
    assert note is not None
    assert (note.kind, note.share, note.at_s) == ("reload", 0.1, 7.0)
    assert "2 of 20 requests made the server load the model again (1.50 s at the median" in note.text


def test_every_request_may_be_a_reload(store: Tables) -> None:
    note = told(store, reload.RELOAD, [request(i, load_s=0.3) for i in range(20)])
    assert note is not None
    assert note.share == 1


@pytest.mark.parametrize("load_s", [None, 0.0, 0.03, 0.13])
def test_what_a_loaded_model_reports_is_no_reload(store: Tables, load_s: float | None) -> None:
    assert told(store, reload.RELOAD, [request(i, load_s=load_s) for i in range(20)]) is None


# Cached prompts


def test_cached_tokens_are_told_where_the_server_tells_them(store: Tables) -> None:
    rows = [request(i, prompt_tokens=100, cached_prompt_tokens=90 if i < 10 else 0) for i in range(20)]
    note = told(store, cache.CACHED, rows)
    assert note is not None
    assert (note.kind, note.share) == ("cached_prompts", 0.5)
    assert "the server had 45.0 % of the prompt tokens in its cache (in 10 of 20 requests)" in note.text
    assert told(store, cache.CACHED, [{**row, "cached_prompt_tokens": 2} for row in rows]) is None, "the template"


def test_first_askings_and_repeats_are_told_apart(store: Tables) -> None:
    rows = [request(i, repeat=i // 10, ttft_s=0.5 if i < 10 else 0.05) for i in range(30)]
    note = told(store, cache.CACHED, rows)
    assert note is not None
    assert "TTFT p50 is 500 ms where a case was asked first (10) and 50.0 ms where it was asked again (20)" in note.text
    assert told(store, cache.CACHED, [{**row, "ttft_s": 0.5} for row in rows]) is None


def test_repeats_evaluated_in_less_time_are_told_though_the_server_counts_all_tokens(store: Tables) -> None:
    rows = [request(i, repeat=i // 10, prompt_tokens=100, prompt_eval_s=0.2 if i < 10 else 0.02) for i in range(20)]
    note = told(store, cache.CACHED, rows)
    assert note is not None
    assert "asked again (10)" in note.text


def test_one_case_asked_again_and_again_is_told_where_only_the_first_was_evaluated(store: Tables) -> None:
    rows = [request(i, repeat=i, prompt_tokens=43, prompt_eval_s=0.07 if i else 1.5) for i in range(14)]
    note = told(store, cache.CACHED, rows)
    assert note is not None
    assert "asked first (1)" in note.text
    assert (
        told(store, cache.CACHED, [{**row, "prompt_eval_s": 0.07 if row["repeat"] else 0.15} for row in rows]) is None
    )


@pytest.mark.parametrize(
    ("first", "again", "concurrency", "steady", "said"),
    [
        ([0.2, 0.3, 0.25], 0.02, 1, None, True), ([0.3, 0.3, 0.02], 0.02, 1, None, True),
        ([0.3, 0.02, 0.02], 0.02, 1, None, False),  # a slow beginning
        ([0.05, 0.05, 0.05], 0.02, 1, None, False), ([0.2, 0.3, 0.25], 0.02, 4, None, False),  # or an opening wave
        ([0.2, 0.3, 0.25], 0.02, 4, True, True), ([0.3], 0.02, 1, None, False),
    ],
)  # fmt: skip
def test_of_a_few_cases_each_is_held_against_its_own_first_asking(
    store: Tables, first: list[float], again: float, concurrency: int, steady: bool | None, said: bool
) -> None:
    cases = len(first)
    rows = [request(i, case_id=f"c{i % cases}", repeat=i // cases, steady=steady,
                    ttft_s=first[i] if i < cases else again + 0.001 * (i % 3)) for i in range(24)]  # fmt: skip
    note = told(store, cache.CACHED, rows, concurrency=concurrency)
    assert (note is not None) is said
    assert note is None or f"where a case was asked first ({cases})" in note.text


def test_prompts_that_an_earlier_run_asked_are_told_by_how_long_they_took_then(store: Tables) -> None:
    same = {"model_digest": "d", "suite": "json",
            "config": json.dumps({"suite_hash": "h", "server_address": "here"})}  # fmt: skip
    earlier = {**same, "run_id": "earlier", "started_at": START.replace(hour=11, minute=30),
               "finished_at": START.replace(hour=11, minute=50)}  # fmt: skip
    mine = [request(i, prompt_tokens=100, prompt_eval_s=0.02) for i in range(10)]
    before = [request(i, run_id="earlier", prompt_tokens=100, prompt_eval_s=0.2) for i in range(10)]
    note = told(store, cache.CACHED, [*mine, *before], earlier, **same, started_at=START)
    assert note is not None
    assert "the server had seen the prompts in an earlier run: evaluating them took 10.0 % of what it took" in note.text
    other = {**earlier, "config": json.dumps({"suite_hash": "another", "server_address": "here"})}
    assert told(store, cache.CACHED, [*mine, *before], other, **same, started_at=START) is None


# Slow-downs


def timed(n: int, slow: range, **more: Any) -> list[Row]:
    draw = random.Random(1)
    return [request(i, tpot_s=0.01 * draw.uniform(0.95, 1.05) * (1.3 if i in slow else 1.0), **more) for i in range(n)]


def test_a_server_slower_from_half_way_on_is_told(store: Tables) -> None:
    note = told(store, stationary.STATIONARY, timed(100, range(50, 100)), suite="text")
    assert note is not None
    assert (note.kind, note.share, note.at_s) == ("slow_down", 0.5, 50.0)
    assert note.text.startswith("from 50.0 s on, the time per token was 31 % longer (p50 13.1 ms instead of 9.95 ms)")


def test_a_server_slower_for_a_while_is_told_with_its_end(store: Tables) -> None:
    note = told(store, stationary.STATIONARY, timed(200, range(80, 120)), suite="text")
    assert note is not None
    assert note.text.startswith("from 80.0 s to 119 s, the time per token was 3")


def test_a_server_that_gets_faster_is_told(store: Tables) -> None:
    note = told(store, stationary.STATIONARY, timed(100, range(0, 50)), suite="text")
    assert note is not None
    assert (note.kind, note.at_s) == ("drift", 50.0)


def test_first_tokens_that_come_later_are_told_where_answers_have_no_pace(store: Tables) -> None:
    draw = random.Random(2)
    rows = [request(i, tpot_s=None, ttft_s=0.1 * draw.uniform(0.9, 1.1) * (1.5 if i >= 50 else 1)) for i in range(100)]
    note = told(store, stationary.STATIONARY, rows, suite="text")
    assert note is not None
    assert "TTFT was" in note.text


def test_long_cases_in_a_file_s_second_half_are_no_slow_down(store: Tables) -> None:
    draw = random.Random(3)
    rows = [
        request(i, case_id=f"c{i % 40}", repeat=i // 40,
                ttft_s=(0.1 if i % 40 < 20 else 0.4) * draw.uniform(0.9, 1.1) * (2 if i < 40 else 1))
        for i in range(160)
    ]  # fmt: skip
    assert told(store, stationary.STATIONARY, rows) is None
    slow = [{**row, "ttft_s": row["ttft_s"] * (1.4 if index >= 100 else 1)} for index, row in enumerate(rows)]
    assert told(store, stationary.STATIONARY, slow) is not None


# Saturation


def due(i: int, took_s: float, **more: Any) -> Row:
    return {**request(i, due_ns=i * S, end_ns=i * S + round(took_s * S)), **more}


def test_a_queue_that_only_grows_is_told(store: Tables) -> None:
    note = told(store, stationary.SATURATION, [due(i, 1 + i / 2) for i in range(100)], load_kind="open")
    assert note is not None
    assert note.kind == "saturation"
    assert "2 were in flight after 4.95 s" in note.text
    assert "at the end" in note.text


@pytest.mark.parametrize("took_s", [0.5, 20.0])
def test_a_queue_of_one_length_is_none(store: Tables, took_s: float) -> None:
    assert told(store, stationary.SATURATION, [due(i, took_s) for i in range(400)], load_kind="open") is None


def test_dropped_requests_are_told(store: Tables) -> None:
    rows = [due(i, 5.0, **({"error_kind": "dropped", "end_ns": None} if i % 4 == 3 else {})) for i in range(100)]
    note = told(store, stationary.SATURATION, rows, load_kind="open")
    assert note is not None
    assert "25 of 100 requests were dropped" in note.text


def test_a_closed_loop_is_never_saturated(store: Tables) -> None:
    assert told(store, stationary.SATURATION, [request(i) for i in range(100)]) is None

"""Loads of a server in several states, end to end: what is sent, and the notes on what came back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from loadgen.simulator import PROFILES, Simulator
from structbench.run.display import Display
from structbench.run.runner import Summary
from structbench.suites.answer_book import answer_book
from structbench.types import Note
from tests.support.loads import FAST, ask, listening, load, small

pytestmark = pytest.mark.slow
TEXT: dict[str, Any] = {
    "suites": ["text"], "mean_input_tokens": 100, "stddev_input_tokens": 0, "mean_output_tokens": 12,
    "stddev_output_tokens": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    models = {
        **PROFILES, "heat": replace(FAST, tokens_per_s=50.0, slow_requests=(80, 10**9), slow_factor=2.0),
        "neighbour": replace(FAST, tokens_per_s=50.0, slow_requests=(60, 120), slow_factor=2.0),
        "untold": replace(PROFILES["sim:cache"], prefix_cache="untold", tokens_per_s=2000.0),
        "slots": replace(FAST, parallel=4, prompt_tokens_per_s=1000.0, tokens_per_s=100.0),
    }  # fmt: skip
    with Simulator(models, answers=answer_book()) as server:
        yield server


def notes(summary: Summary, row: int = 0) -> dict[str, Note]:
    return {note.kind: note for note in summary.rows[row]["notes"]}


def test_a_server_that_heats_up_is_told_with_when_and_how_much(sim: Simulator, tmp_path: Path) -> None:
    found = notes(load(small(sim, tmp_path / "s.duckdb", models=["heat"], requests=160, concurrency=[8], **TEXT)))
    assert found["slow_down"].share == pytest.approx(0.5, abs=0.15)
    assert "from" in found["slow_down"].text
    assert "longer" in found["slow_down"].text


def test_a_neighbour_is_told(sim: Simulator, tmp_path: Path) -> None:
    found = notes(load(small(sim, tmp_path / "s.duckdb", models=["neighbour"], requests=200, concurrency=[8], **TEXT)))
    assert found["slow_down"].share == pytest.approx(0.3, abs=0.15)


def test_an_overload_is_told_and_a_load_within_reach_is_not(sim: Simulator, tmp_path: Path) -> None:
    shared = {"models": ["sim:queue"], "requests": 150, "concurrency": [], "arrival": "poisson", **TEXT}
    found = [
        notes(load(small(sim, tmp_path / f"{rate:g}.duckdb", rate=[rate], **shared))) for rate in (70.0, 25.0)
    ]  # fmt: skip
    assert "saturation" in found[0]
    assert not found[1].keys() & {"saturation", "slow_down", "drift"}


def test_figures_leave_the_opening_wave_out_and_all_rows_stay(sim: Simulator, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    summary = load(small(sim, db, models=["slots"], requests=80, concurrency=[16], **TEXT))
    (row,) = summary.rows
    assert 16 <= row["steady"] < row["requests"] == 80
    assert ask(db, "SELECT count(*), count(*) FILTER (steady) FROM requests") == [(80, row["steady"])]
    (p50,) = ask(db, "SELECT median(ttft_s) FROM requests WHERE steady")[0]
    assert row["ttft_p50_s"] == pytest.approx(p50)


def test_a_short_run_says_that_its_figures_are_of_all(sim: Simulator, tmp_path: Path) -> None:
    summary = load(small(sim, tmp_path / "s.duckdb", requests=6, concurrency=[4]))
    assert notes(summary)["no_steady_part"].kind == "no_steady_part"
    assert summary.rows[0]["steady"] is None


@pytest.mark.parametrize(("model", "told"), [("sim:cache", True), ("untold", False)])
def test_a_cell_s_cached_prompts_are_told_and_those_of_text_are_in_no_cache(
    sim: Simulator, tmp_path: Path, model: str, told: bool
) -> None:
    db, few = tmp_path / "s.duckdb", tmp_path / "few.jsonl"
    cases = (files("structbench.suites") / "data" / "json.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    few.write_text("".join(cases[:20]), encoding="utf-8")  # each is asked twice
    summary = load(small(sim, db, models=[model], suites=[str(few)], requests=40, concurrency=[1, 2]))
    first, second = notes(summary, 0), notes(summary, 1)
    assert "asked again" in first["cached_prompts"].text
    assert ("of the prompt tokens in its cache" in second["cached_prompts"].text) is told
    cached = ask(db, "SELECT count(cached_prompt_tokens) FROM requests")
    assert cached == [(80 if told else 0,)]
    text = load(small(sim, db, models=[model], requests=20, concurrency=[1, 2], **TEXT))
    assert not any("cached_prompts" in notes(text, cell) for cell in (0, 1))


def test_models_are_loaded_and_warmed_up_with_the_options_of_the_cases(sim: Simulator, tmp_path: Path) -> None:
    suite = tmp_path / "s.jsonl"
    suite.write_text(json.dumps({"id": "a", "prompt": "Hi", "options": {"num_ctx": 2048, "num_predict": 4}}))
    with listening(sim) as heard:
        summary = load(small(sim, tmp_path / "s.duckdb", models=["sim:reload"], suites=[str(suite)], requests=12))
    assert {body["options"].get("num_ctx") for _, body in heard} == {2048}
    assert "reload" not in notes(summary)


class Said(Display):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def print(self, text: str) -> None:
        self.lines.append(text)


def test_cases_that_fight_over_the_model_are_told_first_and_their_reloads_after(sim: Simulator, tmp_path: Path) -> None:
    suite, display = tmp_path / "s.jsonl", Said()
    suite.write_text("\n".join(
        json.dumps({"id": f"{n}", "prompt": "Hi", "options": {"num_ctx": n, "num_predict": 4}}) for n in (2048, 8192)
    ))  # fmt: skip
    asked = small(sim, tmp_path / "s.duckdb", models=["sim:reload"], suites=[str(suite)], requests=6)
    summary = load(asked, display=display)
    assert display.lines[0].startswith(
        "warning: sim:reload s.jsonl c=1: its cases load the model with different options"
    )
    assert notes(summary)["reload"].share == pytest.approx(5 / 6)
    explained = load(replace(asked, explain=True))
    assert explained.planned[-1] == display.lines[0]


def test_no_warm_up_is_none(sim: Simulator, tmp_path: Path) -> None:
    sim.reset_truth()
    load(small(sim, tmp_path / "s.duckdb", requests=3, warmup=0))
    assert [entry["kind"] for entry in sim.truth()["requests"]] == ["load", "correct", "correct", "correct"]


def test_a_run_that_goes_on_asks_the_same_prompts_and_the_next_run_does_not(sim: Simulator, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    with listening(sim) as heard:
        load(small(sim, db, requests=4, warmup=0, **TEXT))
        ask_again = "UPDATE requests SET error_kind = 'connect' WHERE request_index = 2"
        _change(db, ask_again)
        load(small(sim, db, requests=4, warmup=0, skip_cached=True, **TEXT))
        load(small(sim, db, requests=4, warmup=0, **TEXT))
    prompts = [body["messages"][0]["content"] for _, body in heard if body.get("options", {}).get("num_predict") == 12]
    first, again, other = prompts[:4], prompts[4:5], prompts[5:]
    assert again == [first[2]]
    assert len(other) == 4
    assert not {prompt[:12] for prompt in first} & {prompt[:12] for prompt in other}
    assert [prompt[12:] for prompt in first] == [prompt[12:] for prompt in other]


def _change(db: Path, sql: str) -> None:
    import duckdb

    with duckdb.connect(db) as con:
        con.execute(sql).fetchall()
        con.execute("UPDATE runs SET status = 'interrupted'").fetchall()

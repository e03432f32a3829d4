"""Prompts that were cut are told from those whose rest a cache held, and from those that are as long as asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from structbench.notes.prompts import PROMPTS
from structbench.store.schema import migrate
from structbench.types import Note


@pytest.fixture(scope="module")
def memory() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        migrate(con, 0)
        yield con


def noted(
    con: duckdb.DuckDBPyConnection, counts: list[tuple[int, int]], suite: str = "text", cases: int = 1000,
    num_ctx: int | None = None, cached: int | None = None,
) -> list[Note]:  # fmt: skip
    """The notes on a run whose requests had (tokens asked for, tokens counted), ``cases`` in turn."""
    options = "{}" if num_ctx is None else f'{{"num_ctx": {num_ctx}}}'
    con.execute("DELETE FROM requests; DELETE FROM runs").fetchall()
    config = f'{{"options": {options}}}'
    con.execute("INSERT INTO runs (run_id, suite, config) VALUES ('r', $1, $2)", [suite, config]).fetchall()
    for index, (asked, seen) in enumerate(counts):
        con.execute(
            "INSERT INTO requests (run_id, request_index, case_id, asked_prompt_tokens, prompt_tokens,"
            " cached_prompt_tokens) VALUES ('r', $1, $2, $3, $4, $5)",
            [index, f"c{index % cases}", asked, seen, cached],
        ).fetchall()
    found = con.execute(PROMPTS.sql, ["r"])
    names = [column[0] for column in found.description or ()]
    rows: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return list(PROMPTS.notes(rows))


def test_prompts_of_which_a_quarter_was_evaluated_were_cut(memory: duckdb.DuckDBPyConnection) -> None:
    (note,) = noted(memory, [(8000 + 10 * place, 2050) for place in range(9)])
    assert note == Note(
        "prompt_cut", "9 of 9 prompts were cut: the server evaluated 2,050 tokens of about 8,040; give it a "
        "larger context (--option num_ctx=N) or shorter prompts", share=1.0,
    )  # fmt: skip
    (some,) = noted(memory, [(550, 560)] * 6 + [(8000, 2050)] * 2)
    assert (some.kind, some.share) == ("prompt_cut", 0.25)


@pytest.mark.parametrize(
    ("counts", "more"),
    [
        ([(550, 540), (300, 310), (800, 790)], {}),
        ([(550, 460)] * 9, {}),
        ([(58, 44), (58, 40), (61, 60)], {}),  # real ones, of a tokenizer fitted at greater lengths
        ([(550, 300)] * 9, {"suite": "json"}),  # an estimate may be off by more than a length that was made
        ([(40, 50), (60, 50), (80, 50)], {"suite": "numbers"}),
        ([(550, 550), (550, 12), (550, 12)], {"cases": 1}),  # a cache had the rest of what was asked before
        ([(8000, 50)] * 9, {"cached": 7950}),
        ([(4000, 4010)] * 9, {"num_ctx": 8192}),
        ([(540, 600)] * 6, {}),
        ([(n, 600) for n in (410, 540, 605, 650, 740)], {}),  # one number for all
        ([(n, 600) for n in (400, 450, 500, 550)], {}),
        ([], {}),
    ],
)  # fmt: skip
def test_nothing_is_said_of_prompts_that_were_whole(
    memory: duckdb.DuckDBPyConnection, counts: list[tuple[int, int]], more: dict[str, Any]
) -> None:
    assert noted(memory, counts, **more) == []


@pytest.mark.parametrize(
    ("counts", "more", "share"),
    [
        ([(5000, 4096)] * 3, {"num_ctx": 4096}, 1.0),
        ([(5000, 4096), (3000, 3010)], {"num_ctx": 4096}, 0.5),
        ([(4200, 4096), (4800, 4096), (5100, 4096), (3000, 3000)], {}, 0.75),  # all end at one length
        ([(9000, 2050)] * 2, {"suite": "mine"}, 1.0),
    ],
)
def test_a_context_that_is_full_is_told_however_the_server_cuts(
    memory: duckdb.DuckDBPyConnection, counts: list[tuple[int, int]], more: dict[str, Any], share: float
) -> None:
    (note,) = noted(memory, counts, **more)
    assert (note.kind, note.share) == ("prompt_cut", share)


def test_counts_of_what_a_cache_lacked_are_not_taken_for_cut_prompts(memory: duckdb.DuckDBPyConnection) -> None:
    (note,) = noted(memory, [(2000, 30), (2100, 180), (1900, 90)])
    assert (note.kind, note.share) == ("prompt_partly_counted", 1.0)
    assert note.text.startswith("3 of 3 prompts were counted with far fewer tokens than they have (90 of about 2,000)")

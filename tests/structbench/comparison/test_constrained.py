"""Constrained against free: the same requests are paired, and too few are said to be too few."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import structbench
from loadgen.simulator import Simulator
from structbench.comparison.constrained import (
    ROWS,
    PairedDifference,
    compare,
    medians,
    new_schemas,
    print_pairs,
    shares,
)
from structbench.run.runner import pair_up, schema_of
from structbench.store import Reader
from structbench.suites.answer_book import answer_book
from structbench.types import Case
from tests.support.comparisons import database
from tests.support.loads import FAST, ask, load, small
from tests.support.signature import keywords


def row(index: int, ttft_s: float | None = 0.1, **more: Any) -> dict[str, Any]:
    return {"request_index": index, "segment": 0, "sent_ns": index, "error_kind": None, "schema_valid": True,
            "correct": True, "ttft_s": ttft_s, "client_tokens_per_s": 50.0, "steady": None, **more}  # fmt: skip


def once(pairs: Iterable[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Each pair as a case that was asked once."""
    return [[pair] for pair in pairs]


def test_shares_have_the_published_interval() -> None:
    gained = shares(once([(False, True)] * 17 + [(True, True)] * 10 + [(False, False)] * 3))
    assert (gained.n, gained.before, gained.after, gained.difference) == (30, 10 / 30, 27 / 30, 17 / 30)
    assert (gained.low, gained.high) == (pytest.approx(0.3379, abs=1e-4), pytest.approx(0.7246, abs=1e-4))
    same = shares(once([(True, True)] * 30))
    assert same.low is not None
    assert same.low < same.difference == 0 < (same.high or 0), "30 equal pairs do not prove equality"


def test_the_interval_of_a_median_is_the_exact_one() -> None:
    pairs = once((1.0, 1.0 + i) for i in range(1, 31))
    found = medians(pairs)
    assert (found.difference, found.low, found.high) == (
        15.5,
        10.0,
        21.0,
    ), "ranks 10 and 21: tables of the sign test"
    six = medians(pairs[:6])
    assert (six.low, six.high) == (1.0, 6.0)
    five = medians(pairs[:5])
    assert (five.n, five.difference, five.low, five.high) == (5, 3.0, None, None)
    assert medians([]) == shares([]) == PairedDifference(0)


def test_repeats_of_a_case_make_no_interval_narrower() -> None:
    pairs: list[tuple[float, float]] = [(False, True)] * 4 + [(True, True)] * 3 + [(False, False)] * 3
    few, many = shares(once(pairs)), shares([[pair] * 10 for pair in pairs])
    assert (few.n, few.before, few.after, few.difference) == (10, 0.3, 0.7, 0.4)
    assert (few.low, few.high) == (pytest.approx(-0.0195, abs=1e-4), pytest.approx(0.6862, abs=1e-4))
    assert (many.n, many.difference, many.low, many.high) == pytest.approx((10, 0.4, few.low, few.high))
    times = [(1.0, 1.0 + i) for i in range(1, 11)]
    assert medians([[pair] * 10 for pair in times]) == medians(once(times))
    assert medians([times]).low is None, "ten repeats of one case"


def test_repeats_that_differ_count_as_a_part_of_their_case() -> None:
    cases: list[list[tuple[float, float]]] = [[(0, 1), (0, 0)], [(0, 0)], [(1, 1), (0, 1)], [(1, 0)], [(0, 1)] * 3]
    found = shares(cases)
    assert (found.n, found.before, found.after) == (5, pytest.approx(2 / 9), pytest.approx(6 / 9))
    sums, sizes = (1, 0, 1, -1, 3, 1.8, -1.8), (2, 1, 2, 1, 3, 1.8, 1.8)  # and two made-up cases of the mean size
    middle = 4 / 12.6
    error = sum((total - middle * size) ** 2 for total, size in zip(sums, sizes, strict=True)) ** 0.5 / 12.6
    assert (found.difference, found.low) == (pytest.approx(4 / 9), pytest.approx(middle - 1.959964 * error))
    assert found.high == pytest.approx(min(middle + 1.959964 * error, 1))
    assert medians([[(1, 2), (1, 4), (1, 9)], [(1, 8)]]).difference == 5, "the median of 3 and 7"


def test_a_case_is_the_same_however_often_the_suite_begins_anew() -> None:
    told = compare([row(i, 0.2) for i in range(12)], [row(i) for i in range(12)], lambda _: None, 4)
    assert {told[name]["n"] for name in ("schema_valid", "correct", "ttft_s", "tokens_per_s")} == {4}


def test_schemas_are_the_same_when_their_text_is() -> None:
    schemas: list[dict[str, Any]] = [{"a": {}, "b": {}}, {"b": {}, "a": {}}, {"a": {}, "b": {}}]
    cases = [Case(id=str(i), messages=(), schema=schema) for i, schema in enumerate(schemas)]
    first, turned, again = (schema_of(cases, index) for index in range(3))
    assert first == again != turned
    assert schema_of(cases, 3) == first, "the suite begins anew"
    assert schema_of([Case(id="text", messages=())], 0) is None, "no schema is not one that came twice"


PAIRS = st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=6, max_size=25)


@settings(max_examples=50)
@given(PAIRS)
def test_an_interval_holds_its_estimate_and_turns_with_it(pairs: list[tuple[float, float]]) -> None:
    halves = [pairs[start : start + 2] for start in range(0, len(pairs), 2)]
    shared = [[(a > 4, b > 4) for a, b in case] for case in halves]
    for estimate, of in ((medians, once(pairs)), (shares, shared)):
        there, back = estimate(of), estimate([[(b, a) for a, b in case] for case in of])  # type: ignore[operator]
        assert there.low <= there.difference <= there.high
        assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))


def test_failed_requests_have_no_time_but_a_rejected_one_is_not_valid() -> None:
    rejected = row(0, None, error_kind="rejected", schema_valid=False, correct=False, client_tokens_per_s=None)
    lost = row(1, 0.5, error_kind="timeout", schema_valid=None, correct=None)
    told = compare([rejected, lost, row(2, 0.3)], [row(0), row(1), row(2), row(3)], lambda _: None, 9)
    assert (told["schema_valid"]["n"], told["schema_valid"]["difference"]) == (2, -0.5)
    assert (told["ttft_s"]["n"], told["ttft_s"]["difference"]) == (1, pytest.approx(0.2))
    told = compare([row(0), row(1), row(2, 0.3)], [rejected, lost, row(2)], lambda _: None, 9)
    assert [(told[name]["n"], told[name]["difference"]) for name in ("schema_valid", "correct", "ttft_s")] == [
        (2, 0.5), (2, 0.5), (1, pytest.approx(0.2))
    ]  # fmt: skip
    assert (told["tokens_per_s"]["n"], told["tokens_per_s"]["before"]) == (1, 50.0)


def test_pairing_is_by_index_whatever_the_order() -> None:
    told = compare([row(1, 0.4), row(0, 0.2)], [row(0, 0.1), row(1, 0.1)], lambda _: None, 9)
    assert told["ttft_s"]["difference"] == pytest.approx(0.2)


def test_a_new_schema_is_the_first_of_its_run() -> None:
    rows = [row(9, 5.0, sent_ns=None), row(0, 0.5), row(1, 0.9), row(2, 0.1), row(3, 0.3), row(4, 7.0),
            row(5, 3.0, error_kind="timeout"), row(8, 0.2), row(6, 4.0), row(7, 9.0, error_kind="timeout")]  # fmt: skip
    schemas = {9: "a", 0: "a", 2: "a", 3: "a", 1: "b", 4: None, 5: "c", 8: "c", 6: "d", 7: "d"}
    assert new_schemas(rows, schemas.get) == [(pytest.approx(0.2), 0.5)]


@pytest.mark.slow
def test_a_load_of_both_kinds_says_what_the_database_says(tmp_path: Path) -> None:
    model = replace(FAST, prompt_shares={"invalid_json": 0.3, "fenced": 0.2}, json_shares={"wrong_value": 0.2})
    db = tmp_path / "x.duckdb"
    with Simulator({"m": model}, answers=answer_book()) as sim:
        options = small(sim, db, models=["m"], suites=["json", "numbers"], structured=["format", "prompt"], requests=90)
        summary = load(options)
        again = {each.name: given for each in keywords() if (given := getattr(options, each.name)) != []}
        alone = structbench.load(**{**again, "suites": ["json"], "structured": "prompt", "skip_cached": True})
    assert [(row["suite"], row["structured"]) for row in summary.rows] == [
        ("json", "format"), ("json", "prompt"), ("numbers", "none"),
    ]  # fmt: skip
    (pair,) = summary.pairs
    assert (pair["model"], pair["suite"], pair["load"]) == ("m", "json", "c=1")
    by_run = {
        run: ask(db, f"SELECT schema_valid, ttft_s FROM requests WHERE run_id = '{run}' ORDER BY request_index")
        for run in (pair["format_run_id"], pair["prompt_run_id"])
    }
    free, constrained = by_run[pair["prompt_run_id"]], by_run[pair["format_run_id"]]
    assert pair["schema_valid"]["after"] == sum(valid for valid, _ in constrained) / 90 == 1
    assert pair["schema_valid"]["before"] == sum(valid for valid, _ in free) / 90 < 0.8
    assert pair["schema_valid"]["low"] > 0
    differences = [after - before for (_, before), (_, after) in zip(free, constrained, strict=True)]
    by_case = [median(differences[index::82]) for index in range(82)]  # the suite has 82 cases, eight came twice
    assert pair["ttft_s"]["difference"] == pytest.approx(median(by_case))
    assert pair["schema_valid"]["n"] == pair["ttft_s"]["n"] == 82
    assert (pair["new_schema_ttft_s"]["n"], pair["new_schema_ttft_s"]["low"] is None) == (8, False)
    assert [row["cache"] for row in alone.rows] == ["skipped"], "one mode alone is the same cell as in the pair"
    assert alone.pairs == []


PRINTED = """\
Constrained (format) vs free (prompt)
m json c=1           prompt   format  difference          95 % interval  n
──────────────────────────────────────────────────────────────────────────
schema valid         25.0 %  100.0 %    +75.0 pp  +18.9 pp to +100.0 pp  8
correct             100.0 %  100.0 %     +0.0 pp   -27.7 pp to +27.7 pp  8
TTFT p50             150 ms   100 ms      -50 ms       -50 ms to -50 ms  8
tok/s stream           50.0     50.0        +0.0           +0.0 to +0.0  8
new schema, prompt                             –                too few  0
new schema, format                             –                too few  0
0 schemas came twice; the cost of a new schema needs 6: give more --requests
than the suite has cases, and a suite with that many schemas.

Constrained (format) vs free (prompt)
[m] json c=2         prompt   format  difference         95 % interval   n
──────────────────────────────────────────────────────────────────────────
schema valid        100.0 %  100.0 %     +0.0 pp  -19.8 pp to +19.8 pp  12
correct             100.0 %   33.3 %    -66.7 pp  -89.8 pp to -24.5 pp  12
TTFT p50             150 ms   200 ms      +50 ms   +0.00 ms to +100 ms  12
tok/s stream           50.0     45.5        -4.5          -8.0 to -1.0  12
new schema, prompt                       +100 ms    +100 ms to +100 ms   6
new schema, format                       +200 ms    +200 ms to +200 ms   6

Constrained (format) vs free (prompt)
m x c=1              prompt   format  difference         95 % interval  n
─────────────────────────────────────────────────────────────────────────
schema valid        100.0 %  100.0 %     +0.0 pp  -92.4 pp to +92.4 pp  1
correct             100.0 %  100.0 %     +0.0 pp  -92.4 pp to +92.4 pp  1
TTFT p50             200 ms   200 ms    +0.00 ms               too few  1
tok/s stream           50.0     50.0        +0.0               too few  1
new schema, prompt                       +200 ms               too few  1
new schema, format                       +200 ms               too few  1
1 schema came twice; the cost of a new schema needs 6: give more --requests than
the suite has cases, and a suite with that many schemas.

n: cases (repeats count once); for a new schema, schemas
new schema: TTFT of the first request with a schema minus that of later ones

"""


def test_a_person_reads_points_signs_and_what_is_too_few() -> None:
    few = [row(i, 0.1) for i in range(8)], [row(i, 0.15, schema_valid=i < 2) for i in range(8)]
    slower = [row(i, 0.3 if i < 6 else 0.1, client_tokens_per_s=40.0 + i, correct=i % 3 == 0) for i in range(12)]
    many = slower, [row(i, 0.2 if i < 6 else 0.1) for i in range(12)]
    once_again = [row(0, 0.3), row(1, 0.1)]
    pairs: list[dict[str, Any]] = [
        {"model": "m", "suite": "json", "load": "c=1", **compare(*few, str, 8)},
        {"model": "[m]", "suite": "json", "load": "c=2", **compare(*many, lambda i: str(i % 6), 12)},
        {"model": "m", "suite": "x", "load": "c=1", **compare(once_again, once_again, lambda _: "s", 1)},
    ]
    assert [line.rstrip() for line in shown(pairs).splitlines()] == PRINTED.splitlines()
    assert shown([]) == "", "nothing to compare"


def shown(pairs: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    print_pairs(pairs, Console(file=out, width=80, color_system=None))
    return out.getvalue()


def cell(
    structured: str, model: str = "m", suite: str = "json", load: str = "c=1", content: str = "h", address: str = "x"
) -> Any:
    cases = [Case(id=name, messages=(), schema={"title": name}) for name in "ab"]
    return SimpleNamespace(
        model=model, load_name=load, variant="", config=SimpleNamespace(structured=structured),
        suite=SimpleNamespace(name=suite, content_hash=content, cases=cases), server=SimpleNamespace(address=address),
    )  # fmt: skip


def test_runs_of_the_same_model_suite_and_load_are_paired_whichever_came_first() -> None:
    rows = {"with": [row(i, 0.3) for i in range(4)], "without": [row(i, 0.1 * (i + 1)) for i in range(4)]}
    runs = [(cell("prompt"), "without"), (cell("none"), "neither"), (cell("format"), "with")]
    (pair,) = pair_up(runs, rows.__getitem__)
    assert {name: pair[name] for name in ("model", "suite", "load", "format_run_id", "prompt_run_id")} == {
        "model": "m", "suite": "json", "load": "c=1", "format_run_id": "with", "prompt_run_id": "without"
    }  # fmt: skip
    assert (pair["ttft_s"]["n"], pair["ttft_s"]["before"]) == (2, pytest.approx(0.25)), "the suite has two cases"
    assert pair["new_schema_ttft_free_s"]["difference"] == pytest.approx(-0.2)
    assert (pair["new_schema_ttft_s"]["n"], pair["new_schema_ttft_s"]["difference"]) == (2, 0)
    for other in ({"model": "n"}, {"suite": "tools"}, {"load": "c=2"}, {"content": "i"}, {}):
        lone = cell("format" if other else "prompt", **other)
        assert pair_up([(cell("prompt"), "without"), (lone, "with")], rows.__getitem__) == []


def test_the_rows_of_a_run_come_as_they_were_sent(tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "error_kind": None,
        "schema_valid": True,
        "ttft_s": 0.1,
        "client_tokens_per_s": 5.0,
        "steady": True,
    }
    rows = [
        {**told, "request_index": index, "segment": segment, "sent_ns": sent_ns, "end_ns": 9, "outcome": outcome,
         "accuracy_score": score}
        for index, segment, sent_ns, outcome, score in (
            (0, 1, 1, "correct", 1.0), (1, 0, 7, "wrong_value", 0.5), (2, 0, 5, "unscored", None),
            (3, 0, 6, "correct", 1.0),
        )
    ]  # fmt: skip
    other = [{**row, "ttft_s": 9.0} for row in rows]
    with Reader(database(tmp_path / "s.duckdb", r=(rows, {}), other=(other, {}))) as reader:
        assert reader.query(ROWS, ["r"]) == [
            {**told, "request_index": index, "segment": segment, "sent_ns": sent_ns, "correct": correct}
            for index, segment, sent_ns, correct in (
                (2, 0, 5, None),
                (3, 0, 6, True),
                (1, 0, 7, False),
                (0, 1, 1, True),
            )
        ]

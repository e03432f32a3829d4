"""The rows of two cells as samples: the figures are the documentation's, the intervals those of blocks and cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from structbench.comparison.comparison import Compared
from structbench.comparison.pairing import pair
from structbench.comparison.samples import compared
from structbench.comparison.significance import (
    Difference,
    Quantile,
    Ratio,
    difference,
    paired_by_case,
    quantile,
    without_variation,
)
from structbench.gates.expressions import metric_of
from structbench.results.groups import run_groups
from structbench.results.intervals import stretches
from structbench.store import Reader
from tests.support.comparisons import NS, database, fewer_resamples, requests

Rows = Sequence[Mapping[str, Any]]
LIMITS = {"ttft_s": 0.11, "tpot_s": 0.012}
SCORES = {"json_valid": "json_valid", "schema_valid": "schema_valid", "tool_call_accuracy": "tool_call_accuracy",
          "accuracy": "accuracy_score"}  # fmt: skip
OVERHANG_S = 0.7
"""A load's clock runs on after the last answer."""


def motley(n: int, seed: int, first: int = 0) -> list[dict[str, Any]]:
    """Rows in which every column tells something of its own, and not every row has it."""
    found = requests(n, seed=seed, wrong=range(1, n, 9), failed=range(5, n, 14 - seed))
    for index, row in enumerate(found):
        row["request_index"] += first
        if "error_kind" in row:
            row |= {"chunk_offsets_us": [1000, 900_000, 1_900_000], "ttft_s": 9.0, "json_valid": False}
            continue
        row |= {"ttft_due_s": row["ttft_s"] + 0.03, "e2e_due_s": row["e2e_s"] * 1.5, "tpot_s": row["tpot_s"] * 1.2,
                "due_ns": None if index % 4 == 3 else row["sent_ns"] - 30_000_000, "output_tokens": 6 + index % 5,
                "json_valid": index % 7 != 0, "tool_call_accuracy": index % 3 / 2 if index % 4 else None}  # fmt: skip
        if index % 10 == 6:  # an answer in one piece, which is not scored either
            row |= {"chunk_offsets_us": row["chunk_offsets_us"][:1], "tpot_s": None, "itl_mean_s": None,
                    "accuracy_score": None, "outcome": "unscored"}  # fmt: skip
    found[5]["end_ns"] = None  # its worker died
    return found


def shifted(rows: Rows, by_ns: int, segment: int) -> list[dict[str, Any]]:
    times = ("due_ns", "sent_ns", "end_ns")
    return [
        {**row, "segment": segment, **{name: row[name] + by_ns for name in times if row[name] is not None}}
        for row in rows
    ]


def lasted(rows: Rows) -> float:
    """From the first request to the last record."""
    begins = (row["sent_ns"] if row["due_ns"] is None else row["due_ns"] for row in rows)
    return float(max(row["end_ns"] or 0 for row in rows) - min(begins)) / NS


ONE, OTHER = motley(90, 1), motley(90, 2)
LATER = shifted(motley(40, 3, first=90), 500 * NS, 1)
KILLED = shifted(motley(30, 4, first=130)[:2], 900 * NS, 2)
LONG_S = lasted(ONE) + OVERHANG_S
RUNS: dict[str, tuple[Rows, dict[str, Any]]] = {
    "one": (ONE, {"segments": [{"duration_s": LONG_S}]}),
    "other": (OTHER, {"segments": [{"duration_s": lasted(OTHER) + OVERHANG_S}]}),
    # An interrupted segment's clock ran on until what was in flight had ended; a killed one's was never read.
    "resumed": ([*ONE, *LATER, *KILLED],
                {"segments": [{"duration_s": LONG_S}, {"duration_s": 999.0, "status": "interrupted"},
                              {"duration_s": None, "status": "running"}, {"duration_s": 0.5}]}),
    "nothing": ([], {}),
    "no_time": ([{**row, "due_ns": None, "sent_ns": 7, "end_ns": 7} for row in requests(30)],
                {"segments": [{"duration_s": 0.0}]}),
    "elsewhere": ([{**row, "case_id": f"x{row['case_id']}"} for row in requests(30)], {}),
    "unscored": ([{**row, "accuracy_score": None, "outcome": "unscored", "json_valid": None, "schema_valid": None}
                  for row in requests(30)], {}),
    **{f"n{n}": (requests(n, seed=n), {}) for n in (19, 20, 71, 72, 74)},
    "cases19": (requests(60, cases=19), {}), "cases20": (requests(60, cases=20), {}),
    "whole": ([{**row, "chunk_offsets_us": row["chunk_offsets_us"][:1]} for row in requests(20)], {}),
    "first": (requests(10), {}), "rest": ([{**row, "request_index": i + 10} for i, row in enumerate(requests(10))], {}),
    "untrue": (requests(30), {"verdict": "invalid"}), "lies": (requests(30), {"verdict": "invalid"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with fewer_resamples(), Reader(database(tmp_path_factory.mktemp("sides") / "s.duckdb", **RUNS)) as opened:
        yield opened


def held(
    reader: Reader, a: str, b: str, names: Sequence[str], limits: Mapping[str, float] | None = LIMITS
) -> dict[str, Compared]:
    pairing = pair(run_groups(reader, a.split(), pool=True), run_groups(reader, b.split(), pool=True))
    metrics = [metric for name in names if (metric := metric_of(name)) is not None]
    assert len(metrics) == len(names)
    return {row.metric.name: row for row in compared((reader, reader), pairing.pairs[0], metrics, limits)}


def completed(rows: Rows) -> list[Mapping[str, Any]]:
    return [row for row in rows if "error_kind" not in row]


def counts_for(name: str, row: Mapping[str, Any]) -> float:
    """What a request adds to a rate."""
    good = row.get("ttft_s", 9.0) <= LIMITS["ttft_s"] and (row.get("tpot_s") or 0.0) <= LIMITS["tpot_s"]
    return {
        "requests_per_s": "error_kind" not in row, "goodput": good and "error_kind" not in row,
        "tokens_per_s": 0 if "error_kind" in row else row["output_tokens"] or 0,
        "correct_goodput": good and row["outcome"] == "correct",
    }[name]  # fmt: skip


def blocks(rows: Rows) -> list[int]:
    return [place * stretches(len(rows)) // len(rows) for place in range(len(rows))]


def values_of(name: str, rows: Rows) -> tuple[list[float], list[int]]:
    """The values that a latency or the share of errors is of, and the block of each."""
    base = name.rsplit("_", 1)[0]
    if name == "error_rate":
        return [float("error_kind" in row) for row in rows], blocks(rows)
    placed = [(row, block) for row, block in zip(rows, blocks(rows), strict=True) if "error_kind" not in row]
    if base == "itl":
        found = [((b - a) / 1e6, block) for row, block in placed for a, b in pairwise(row["chunk_offsets_us"])]
    else:
        found = [(row[f"{base}_s"], block) for row, block in placed if row[f"{base}_s"] is not None]
    return [value for value, _ in found], [block for _, block in found]


def sample(name: str, rows: Rows, at_s: Sequence[float | None] = (), total_s: float = 0.0) -> Quantile | Ratio:
    """By hand, from the rows of a side; ``at_s``: when each request ended, of the time that all took together."""
    metric = metric_of(name)
    assert metric is not None
    if metric.kind == "rate":
        slices = stretches(sum(at is not None for at in at_s))
        above = np.zeros(slices)
        for row, at in zip(rows, at_s, strict=True):
            if at is not None:
                above[min(int(at / total_s * slices), slices - 1)] += counts_for(name, row)
        return Ratio(above, np.full(slices, total_s / slices))
    values, of = values_of(name, rows)
    if metric.p is not None:
        return quantile(np.array(values), np.ones(len(of)), np.array(of), stretches(len(rows)), metric.p)
    above: Any
    below: Any
    above, below = (np.bincount(of, weights, stretches(len(rows))) for weights in (values, np.ones(len(of))))
    return Ratio(above, below)


def ends(rows: Rows) -> list[float | None]:
    """Seconds after the start of the (only) segment."""
    start = min(row["sent_ns"] if row["due_ns"] is None else row["due_ns"] for row in rows)
    return [None if row["end_ns"] is None else (row["end_ns"] - start) / NS for row in rows]


def assert_same(found: Difference | None, wanted: Difference) -> None:
    assert found is not None
    for name in ("a", "b", "low", "high", "p_value"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-6, abs=1e-9), name
    assert found.method == wanted.method


TIMES = ("ttft_p50", "ttft_mean", "ttft_due_p50", "tpot_mean", "tpot_p50", "e2e_p50", "e2e_due_mean", "itl_mean",
         "itl_p50", "error_rate")  # fmt: skip
RATES = ("requests_per_s", "tokens_per_s", "goodput", "correct_goodput")


def test_the_same_requests_are_compared_block_by_block_and_rates_slice_by_slice(reader: Reader) -> None:
    found = held(reader, "one", "other", [*TIMES, *RATES])
    for name in TIMES:
        samples = [sample(name, rows) for rows in (ONE, OTHER)]
        assert_same(found[name].difference, difference(*samples, paired=True, relative=name != "error_rate"))
        assert found[name].why is None
    for name in RATES:
        samples = [sample(name, rows, ends(rows), lasted(rows) + OVERHANG_S) for rows in (ONE, OTHER)]
        assert_same(found[name].difference, difference(*samples, paired=False, relative=True))
    gapped = sum(len(row["chunk_offsets_us"]) > 1 for row in completed(ONE))
    assert {name: row.n_a for name, row in found.items() if row.n_a != 83} == {
        **dict.fromkeys(("tpot_mean", "tpot_p50", "itl_mean", "itl_p50"), gapped), "error_rate": 90
    }  # fmt: skip
    assert {row.n_b for name, row in found.items() if name in ("ttft_p50", "e2e_due_mean", *RATES)} == {82}


def test_a_resumed_run_is_all_its_segments_one_after_another(reader: Reader) -> None:
    """What the summary and the documentation call its duration: of an interrupted segment, what its rows show."""
    rows = RUNS["resumed"][0]
    found = held(reader, "resumed", "other", [*TIMES, *RATES])
    for name in TIMES:
        samples = [sample(name, each) for each in (rows, OTHER)]
        assert_same(found[name].difference, difference(*samples, paired=False, relative=name != "error_rate"))
    seconds = [LONG_S, lasted(LATER), lasted(KILLED)]
    before = [0.0, seconds[0], sum(seconds[:2])]
    at_s = [
        None if end is None else end + start
        for part, start in zip((ONE, LATER, KILLED), before, strict=True)
        for end in ends(part)
    ]
    for name in RATES:
        ours = sample(name, rows, at_s, sum(seconds) + 0.5)
        theirs = sample(name, OTHER, ends(OTHER), lasted(OTHER) + OVERHANG_S)
        assert_same(found[name].difference, difference(ours, theirs, paired=False, relative=True))
    (told,) = reader.query("SELECT requests_per_s, tokens_per_s FROM summary WHERE run_id = 'resumed'")
    assert (found["requests_per_s"].a, found["tokens_per_s"].a) == pytest.approx(tuple(told.values()))


def test_pooled_runs_stand_one_after_another(reader: Reader) -> None:
    """The requests of two runs have the same indices, and are still other blocks than those of one run."""
    found = held(reader, "one other", "n74", ["ttft_p50", "itl_mean", "requests_per_s"])
    rows, last = [*ONE, *OTHER], RUNS["n74"][0]
    for name in ("ttft_p50", "itl_mean"):
        assert_same(found[name].difference,
                    difference(sample(name, rows), sample(name, last), paired=False, relative=True))  # fmt: skip
    at_s = [*ends(ONE), *(None if end is None else end + LONG_S for end in ends(OTHER))]
    ours = sample("requests_per_s", rows, at_s, LONG_S + lasted(OTHER) + OVERHANG_S)
    theirs = sample("requests_per_s", last, ends(last), lasted(last))
    assert_same(found["requests_per_s"].difference, difference(ours, theirs, paired=False, relative=True))
    two = held(reader, "n19 n20", "n20 n19", ["ttft_p50"])["ttft_p50"].difference
    assert two is not None
    assert (two.method, two.value) == ("paired block bootstrap", 0.0)


@pytest.mark.parametrize(
    ("a", "b", "paired"),
    [("n20", "whole", True), ("first rest", "n20", False), ("first n20", "rest n20", False)],
)
def test_only_the_same_requests_of_the_same_runs_are_drawn_together(
    reader: Reader, a: str, b: str, paired: bool
) -> None:
    """As many are not enough: other indices are other prompts."""
    found = held(reader, a, b, ["ttft_p50"])["ttft_p50"].difference
    assert found is not None
    assert found.method == ("paired block bootstrap" if paired else "block bootstrap")


def test_scores_are_compared_case_by_case(reader: Reader) -> None:
    found = held(reader, "resumed", "other", [*SCORES, "correct"])
    for name, row in found.items():
        column = SCORES.get(name, "accuracy_score")
        scored = [[each for each in rows if each.get(column) is not None] for rows in (RUNS["resumed"][0], OTHER)]
        both = set.intersection(*({each["case_id"] for each in side} for side in scored))
        kept = [[each for each in side if each["case_id"] in both] for side in scored]
        values = [
            np.array([each["outcome"] == "correct" if name == "correct" else each[column] for each in side], float)
            for side in kept
        ]
        cases = [np.array([each["case_id"] for each in side]) for side in kept]
        assert_same(row.difference, paired_by_case(values[0], values[1], *cases))
        assert (row.n_a, row.n_b) == (len(kept[0]), len(kept[1]))
        alone = sum(map(len, scored)) - row.n_a - row.n_b
        assert row.why == (f"excludes {alone} answers without a counterpart" if alone else None)


EXTREME = ("not comparable", "the extreme of a sample has no interval")
FEW = ("too few", "needs 20 requests")


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ("n19", "n74", dict.fromkeys(("ttft_p50", "ttft_mean", "itl_p99", "error_rate", "requests_per_s"), FEW)),
        ("n74", "n19", dict.fromkeys(("ttft_p50", "itl_p99", "error_rate"), FEW)),
        ("n20", "n74", {**dict.fromkeys(("ttft_p50", "itl_mean", "itl_p95", "error_rate", "requests_per_s"), None),
                        "itl_p96.37": None, "itl_p96.38": ("too few", "needs 101 gaps"), "ttft_p100": EXTREME,
                        "ttft_p0": EXTREME}),
        ("whole", "n20", {"ttft_p50": None}),
        ("n71", "n74", {"e2e_p95": ("too few", "needs 72 requests")}),
        ("n72", "n74", {"e2e_p95": None, "itl_p99": ("too few", "needs 368 gaps")}),
        ("n74", "n72", {"itl_p99": ("too few", "needs 368 gaps")}), ("n74", "n74 n20", {"itl_p99": None}),
        ("cases19", "n74", {"correct": ("too few", "needs 20 cases")}), ("n20", "cases20", {"correct": None}),
        ("n20", "elsewhere", {"correct": ("not comparable", "no case was scored on both sides")}),
        ("untrue", "n20", {"ttft_p50": ("not comparable", "the measurement of A is invalid"),
                           "error_rate": None}),
        ("n20", "untrue", {"goodput": ("not comparable", "the measurement of B is invalid"),
                           "json_valid": (None, "excludes 10 answers without a counterpart")}),
        ("untrue", "lies", {"itl_p50": ("not comparable", "the measurement of A and B is invalid")}),
    ],
)  # fmt: skip
def test_where_there_is_no_interval_it_is_said_why(
    reader: Reader, a: str, b: str, said: dict[str, tuple[str | None, str] | None]
) -> None:
    found = held(reader, a, b, [*said])
    assert {name: (row.untested, row.why) for name, row in found.items()} == {
        name: told or (None, None) for name, told in said.items()
    }
    for row in found.values():
        assert (row.difference is None) is (row.untested is not None)
        assert None not in (row.a, row.b)


def test_what_a_side_does_not_have_is_absent(reader: Reader) -> None:
    for names, a in ((("ttft_p50", "tpot_mean", "itl_p50", "itl_mean", "error_rate", *RATES, *SCORES), "nothing"),
                     (RATES, "no_time"), (("correct_goodput", *SCORES), "unscored")):  # fmt: skip
        for x, y in ((a, "n20"), ("n20", a)):
            for name, row in held(reader, x, y, names).items():
                values = {x: row.a, y: row.b}
                assert values[a] is None, name
                assert (values["n20"] is None) is (name == "tool_call_accuracy"), name
                assert (row.difference, row.untested, row.word) == (None, None, "not comparable")
    assert held(reader, "n20", "n19", ["goodput"], None)["goodput"].a is None
    alone = held(reader, "elsewhere", "n19", ["accuracy"])["accuracy"]
    assert (alone.a, alone.b, alone.n_a, alone.n_b) == (1.0, 1.0, 30, 19)


def test_that_nothing_failed_on_either_side_is_no_certainty(reader: Reader) -> None:
    row = held(reader, "n72", "n74", ["error_rate"])["error_rate"]
    none = Ratio(np.zeros(8), np.ones(8))
    assert_same(row.difference, without_variation(difference(none, none, paired=True, relative=False), 72, 74))

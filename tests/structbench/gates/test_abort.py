"""SLOs given up during a load only when nothing that can still come would save them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structbench.gates.abort import AbortWatch
from structbench.gates.expressions import Condition, parse_slo
from structbench.gates.slo import judgement
from structbench.metrics import LATENCIES, is_good, of_kind
from structbench.stats import mean_estimate, percentile, percentile_estimate, wilson

Row = dict[str, Any]
NOTHING: Row = {
    **dict.fromkeys(metric.column for metric in LATENCIES.values()), "error_kind": None, "output_tokens": None,
    "outcome": "completed", "accuracy_score": None,
    "json_valid": None, "schema_valid": None, "tool_call_accuracy": None,
}  # fmt: skip


def row(**more: Any) -> dict[str, Any]:
    return {**NOTHING, **more}


IN_PIECES: dict[str, Any] = {"chunks": 9, "gathered_chunks": 0, "merged_chunks": 0}
GATHERED: dict[str, Any] = {"chunks": 45, "gathered_chunks": 43, "merged_chunks": 0}


@pytest.mark.parametrize(
    ("values", "good"),
    [({"ttft_s": 0.5, "tpot_s": 0.05, "first_answer_s": 1.0}, True), ({"ttft_s": 0.51, "tpot_s": 0.01}, False),
     ({"ttft_s": 0.1, "tpot_s": 0.06, "first_answer_s": 0.2}, False), ({"tpot_s": 0.01, "first_answer_s": 0.2}, False),
     ({"ttft_s": 0.1, "first_answer_s": 1.1}, False),
     # No text: a tool call is the answer; after thinking alone none ever came.
     ({"ttft_s": 0.1, "first_tool_call_s": 0.1, "chunks": 1}, True), ({"ttft_s": 0.1, "chunks": 1}, False),
     # Whole: in one chunk, in one burst, at one instant. In pieces and without a pace: nobody knows.
     ({"ttft_s": 0.1, "first_answer_s": 0.1, "chunks": 40, "gathered_chunks": 39}, True),
     ({"ttft_s": 0.1, "first_answer_s": 0.1, "chunks": 40, "itl_mean_s": None}, True),
     ({"ttft_s": 0.1, "first_answer_s": 0.1, "chunks": 40, "merged_chunks": 39}, None),
     ({"ttft_s": 0.1, "first_answer_s": 0.1, **IN_PIECES, "itl_mean_s": 0.01}, None),
     ({"ttft_s": 0.1, "first_answer_s": 0.1, **GATHERED}, None), ({"ttft_s": 0.6, **GATHERED}, False),
     ({"ttft_s": 0.1, "first_answer_s": 0.1, **GATHERED, "error_kind": "stream"}, False)],
)  # fmt: skip
def test_a_pace_that_is_absent_is_kept_by_an_answer_in_one_piece_and_unknown_of_one_in_pieces(
    values: dict[str, Any], good: bool | None
) -> None:
    assert is_good(row(**values), {"ttft_s": 0.5, "tpot_s": 0.05, "first_answer_s": 1.0}) is good


def test_an_answer_without_anything_keeps_limits_on_its_pace_only() -> None:
    assert [column for column in (each.column for each in LATENCIES.values()) if is_good(row(), {column: 1.0})] == [
        "itl_mean_s", "tpot_s"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pace", "elapsed_s", "lost"),
    [({"tpot_s": 0.06}, 9, True), ({"tpot_s": None}, 9, False), ({"tpot_s": None}, 11, True)],
)
def test_an_answer_that_cannot_be_judged_may_have_been_good(pace: Row, elapsed_s: float, lost: bool) -> None:
    rows = [row(**IN_PIECES, itl_mean_s=0.01, **pace)] * 9
    assert broken(parse_slo("goodput>=1"), rows, 10, elapsed_s, {"tpot_s": 0.05}) is lost


def broken(
    slo: Condition, rows: Sequence[dict[str, Any]], planned: int | None, elapsed_s: float | None = 1.0,
    limits: Mapping[str, float] | None = None,
) -> bool:  # fmt: skip
    watch = AbortWatch([slo], planned, limits or {})
    for each in rows:
        watch.add(each)
    assert watch.seen == len(rows)
    lost = watch.broken(elapsed_s)
    assert lost in ([], [slo])
    return bool(lost)


@pytest.mark.parametrize(
    ("slo", "rows", "planned", "elapsed_s", "lost"),
    [
        # Of 0, 0.1, 0.9, 0.9 the median is halfway.
        ("ttft_p50<0.4", [row(ttft_s=value) for value in (0.1, 0.9, 0.9)], 4, 1, True),
        ("ttft_p50<0.6", [row(ttft_s=value) for value in (0.1, 0.9, 0.9)], 4, 1, False),
        ("ttft_p50<0", [row(ttft_s=0.1)], 10, 1, True),  # not even what takes no time keeps this
        ("error_rate<=10%", [row(error_kind="http")] * 2, 10, 1, True),
        ("error_rate<=20%", [row(error_kind="http")] * 2, 10, 1, False),
        ("ttft_mean<0.1", [row(ttft_s=1.1)], 10, 1, True), ("ttft_mean<0.1", [row(ttft_s=0.9)], 10, 1, False),
        # What failed has no latency, however long it took.
        ("ttft_mean<1", [row(ttft_s=0.5), *[row(ttft_s=99.0, error_kind="timeout")] * 8], 10, 1, False),
        ("requests_per_s>=20", [row()] * 5, 10, 0.4, False), ("requests_per_s>=20", [row()] * 5, 10, 0.6, True),
        ("correct_goodput>1", [row(outcome="correct", accuracy_score=1.0)] * 2, 10, 11, True),
        ("correct_goodput>1", [row(outcome="correct", accuracy_score=1.0)] * 2, 10, 9, False),
        ("correct_goodput>1", [row()] * 9, 10, 99, False),  # a suite without scores
        ("correct>=90%", [row(outcome="wrong_value", accuracy_score=0.9)] * 2, 10, 1, True),
        ("accuracy>=90%", [row(outcome="wrong_value", accuracy_score=0.9)] * 2, 10, 1, False),
        # Nothing bounds these: an answer may have any number of gaps or tokens, and wait as long as it likes.
        ("itl_p50<1ms", [row(itl_mean_s=9.0)] * 9, 10, 1, False),
        ("tokens_per_s>9", [row(output_tokens=9)] * 9, 10, 99, False),
        ("ttft_p50>1", [row(ttft_s=0.1)] * 9, 10, 1, False), ("requests_per_s<1", [row()] * 9, 10, 1, False),
        ("tokens_per_s<1", [row(output_tokens=9)] * 9, 10, 99, False), ("goodput<1", [row()] * 9, 10, 1, False),
        # Before the load's clock runs there is no rate.
        ("requests_per_s>=20", [row()] * 5, 10, None, False), ("requests_per_s>=20", [row()] * 5, 10, 0, False),
        ("requests_per_s>=20", [row()] * 9, 10, 0.5, False), ("requests_per_s>20", [row()] * 9, 10, 0.5, True),
        ("requests_per_s>=20", [row(error_kind="http"), *[row()] * 8], 10, 0.5, True),
        # Only a duration bounds the cell; and when all is over, the judgement is the rows'.
        ("ttft_p50<1ms", [row(ttft_s=9.0)] * 9, None, 1, False), ("ttft_p50<1ms", [row(ttft_s=9.0)] * 9, 9, 1, False),
    ],
)  # fmt: skip
def test_only_what_is_certain_ends_a_load(
    slo: str, rows: list[dict[str, Any]], planned: int | None, elapsed_s: float, lost: bool
) -> None:
    assert broken(parse_slo(slo), rows, planned, elapsed_s) is lost


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.75, 0.9, 1.0])
def test_a_percentile_is_given_up_when_all_to_come_in_no_time_would_not_save_it(p: float) -> None:
    for kept, slow, remaining, limit in product(range(4), range(5), range(1, 5), (0.25, 0.4, 0.55)):
        came = [*(0.1, 0.2, 0.2)[:kept], *(0.9, 0.6, 0.6, 0.6)[:slow]]
        best = percentile([*came, *[0.0] * remaining], p)
        assert best is not None
        slo, rows = parse_slo(f"ttft_p{p * 100:g}<{limit}"), [row(ttft_s=value) for value in came]
        assert broken(slo, rows, len(rows) + remaining) is (bool(came) and not slo.holds(best)), (came, remaining)


LATENCY = st.one_of(st.none(), st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.floats(0, 1))


@given(
    st.lists(LATENCY, min_size=1, max_size=40), st.integers(0, 39), st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0, 0.07]),
    st.sampled_from([0.1, 0.2, 0.3, 0.5]), st.sampled_from(["<", "<="]),
)  # fmt: skip
def test_a_percentile_is_given_up_exactly_when_it_is_lost(
    values: list[float | None], seen: int, p: float, limit: float, op: str
) -> None:
    """None: a failed request, which has no latency."""
    slo = parse_slo(f"ttft_p{p * 100:g}{op}{limit}")
    rows = [row(ttft_s=value, error_kind="http" if value is None else None) for value in values]
    now, planned = rows[:seen], len(rows)
    if seen >= planned:
        return
    came = [value for value in values[:seen] if value is not None]
    best = percentile([*came, *[0.0] * (planned - seen)], p)
    lost = bool(came) and best is not None and not slo.holds(best)
    if best is None or abs(best - limit) > 1e-12:  # at the limit itself, rounding decides
        assert broken(slo, now, planned) is lost
    final = percentile([value for value in values if value is not None], p)
    if lost and final is not None:
        assert not slo.holds(final), "given up too early"


LIMITS = {"ttft_s": 0.5, "tpot_s": 0.25}
RIGHT = row(
    outcome="correct", accuracy_score=1.0, json_valid=True, schema_valid=True, tool_call_accuracy=1.0,
    **{metric.column: 0.0 for metric in LATENCIES.values()},
)  # fmt: skip
"""As good as a request can be."""
KINDS = {
    "right": RIGHT, "slow": {**RIGHT, "ttft_s": 2.0, "e2e_s": 4.0}, "unscored": {**NOTHING, "ttft_s": 0.5},
    "wrong": {**RIGHT, "outcome": "wrong_value", "accuracy_score": 0.5, "tpot_s": 0.5},
    "not valid": {**RIGHT, "outcome": "schema_violation", "accuracy_score": 0.0, "schema_valid": False, "e2e_s": 1.0},
    "no json": {**RIGHT, "outcome": "invalid_json", "accuracy_score": 0.0, "json_valid": False, "schema_valid": False,
                "tool_call_accuracy": 0.0},
    "wrong call": {**RIGHT, "outcome": "wrong_value", "accuracy_score": 0.5, "tool_call_accuracy": 0.5},
    "failed": {**NOTHING, "error_kind": "timeout", "ttft_s": 4.0},
    "rejected": {**RIGHT, "error_kind": "rejected", "outcome": "rejected", "accuracy_score": 0.0, "json_valid": False},
}  # fmt: skip


def figure(name: str, rows: Sequence[dict[str, Any]], elapsed_s: float) -> float | None:
    """docs/methods.md, on rows; None: nothing counts there."""
    done = [each for each in rows if each["error_kind"] is None]
    scored = [each for each in rows if each["accuracy_score"] is not None]
    good = [each for each in done if (each["ttft_s"] or 0) <= 0.5 and (each["tpot_s"] or 0) <= 0.25]
    counted: Mapping[str, tuple[float, float]] = {
        "error_rate": (sum(each["error_kind"] == "timeout" for each in rows), len(rows)),
        "correct": (sum(each["outcome"] == "correct" for each in scored), len(scored)),
        "requests_per_s": (len(done), elapsed_s if rows else 0), "goodput": (len(good), elapsed_s if rows else 0),
        "correct_goodput": (sum(each["outcome"] == "correct" for each in good), elapsed_s if scored else 0),
    }  # fmt: skip
    if name in counted:
        above, below = counted[name]
    else:
        column = {"tool_calls_right": "tool_call_accuracy", "accuracy": "accuracy_score"}.get(name, name)
        column = column.replace("_mean", "_s")
        values = [each[column] for each in (done if name.endswith("_mean") else rows) if each[column] is not None]
        above, below = sum(values), len(values)
    return above / below if below else None


BOUNDED = [metric.name for metric in of_kind("rate", "share") if metric.name != "tokens_per_s"]


@pytest.mark.parametrize("name", [*BOUNDED, "ttft_mean", "e2e_mean"])
def test_an_slo_is_given_up_exactly_when_no_end_of_the_load_would_keep_it(name: str) -> None:
    """Every end that these requests can have is tried, those in which some are never sent too."""
    ends = [[KINDS[kind] for kind in kinds] for n in range(3) for kinds in combinations_with_replacement(KINDS, n)]
    elapsed_s, only = 0.5, {"rate": ">", "latency": "<"}.get(parse_slo(f"{name}>0").metric.kind)
    for came in ends:
        figures = [found for more in ends if (found := figure(name, [*came, *more], elapsed_s)) is not None]

        def lost(op: str, value: float, rows: Sequence[dict[str, Any]] = came) -> bool:
            return broken(parse_slo(f"{name}{op}{value!r}"), rows, len(rows) + 2, elapsed_s, LIMITS)

        for op, best in ((">", max(figures)), ("<", min(figures))):
            if figure(name, came, elapsed_s) is None:  # nothing came that says whether the SLO applies
                assert not lost(op, best)
            else:  # of a rate and of a latency, time alone can still mend one side
                assert (lost(f"{op}=", best), lost(op, best)) == (False, only in (None, op)), (came, best)


# The opening of a load


def sent(index: int, sent_s: float, ttft_s: float, **more: Any) -> dict[str, Any]:
    sent_ns = round(sent_s * 1e9)
    return row(request_index=index, due_ns=None, sent_ns=sent_ns, end_ns=sent_ns + round((ttft_s + 1) * 1e9),
               ttft_s=ttft_s, **more)  # fmt: skip


def opened(slo: str, rows: Sequence[dict[str, Any]], planned: int = 20, elapsed_s: float = 9.0) -> bool:
    watch = AbortWatch([parse_slo(slo)], planned, concurrency=4, opening=frozenset(range(4)))
    for each in rows:
        watch.add(each)
    return bool(watch.broken(elapsed_s))


WAVE = [sent(i, i / 10, 2.0) for i in range(4)]


def test_a_wave_that_will_not_count_ends_no_load() -> None:
    assert not opened("ttft_p95<1", WAVE)
    assert not opened("ttft_p95<1", [*WAVE, *[sent(4 + i, 1.0, 5.0) for i in range(4)]]), "sent before the wave is over"


def test_what_is_sent_after_the_wave_ends_a_load_whichever_ended_first() -> None:
    late = [sent(8 + i, 2.5, 5.0) for i in range(4)]
    assert opened("ttft_p95<1", [*WAVE, *late])
    assert opened("ttft_p95<1", [*late, *WAVE])
    assert not opened("ttft_p95<1", [*WAVE[:3], *late]), "not known yet whether the wave is over"


def test_the_wave_counts_for_scores_and_errors() -> None:
    assert opened("error_rate<=10%", [{**each, "error_kind": "http"} for each in WAVE])
    wrong = [{**each, "outcome": "wrong_value", "accuracy_score": 0.0} for each in WAVE]
    assert opened("correct>=90%", wrong)


def test_a_rate_has_the_time_after_the_wave() -> None:
    rows = [*WAVE, *[sent(4 + i, 3.0, 0.1) for i in range(4)]]
    assert not opened("requests_per_s>=2.8", rows, elapsed_s=9.0), "16 more in the 6.7 s after the wave: 2.99/s"
    assert opened("requests_per_s>=3.1", rows, elapsed_s=9.0)


def test_rows_of_earlier_segments_count_where_they_are_steady() -> None:
    earlier = [sent(i, 0.0, 5.0, steady=True) for i in range(8)]
    assert opened("ttft_p95<1", earlier)
    assert not opened("ttft_p95<1", [{**each, "request_index": 9, "steady": None} for each in earlier])


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.01, 1)), min_size=1, max_size=90), st.integers(0, 89),
    st.sampled_from(["correct>=90%", "correct>=100%", "error_rate<=5%", "error_rate<=0%", "ttft_p50<0.4",
                     "ttft_p95<0.4", "ttft_mean<0.4", "ttft_p100<=0.5"]),
)  # fmt: skip
def test_what_is_given_up_is_never_met_by_the_one_rule(came: list[tuple[bool, float]], seen: int, slo: str) -> None:
    """Whatever the rest is like: not met or, where the interval contains the limit, not decided. Both end with 99."""
    limit = parse_slo(slo)
    failing = limit.metric.name == "error_rate"
    rows = [
        row(ttft_s=ttft_s, accuracy_score=float(right), outcome="correct" if right else "wrong_value",
            error_kind="http" if failing and not right else None)
        for right, ttft_s in came
    ]  # fmt: skip
    if seen >= len(rows) or not broken(limit, rows[:seen], len(rows)):
        return
    added = [value for each in rows if (value := limit.metric.adds(each, True)) is not None]
    values = np.array(added)
    if limit.metric.kind == "share":
        estimate = wilson(sum(added), len(added))
    elif limit.metric.p is None:
        estimate = mean_estimate(values, 0.0)
    else:
        estimate = percentile_estimate(values, limit.metric.p)
    assert judgement(limit, estimate) != "met"

"""Percentiles agree with Python's, DuckDB's and their own definition; intervals with scipy's, and they cover."""

from __future__ import annotations

import math
import statistics

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, bootstrap, quantile_test, ttest_1samp

from structbench.stats import (
    DEPENDENT_FACTOR,
    MIN_CLUSTERS,
    RESAMPLES,
    TAIL_CLUSTERS,
    TOO_ALIKE,
    Estimate,
    gap_percentiles,
    gaps_by_moment,
    interval_ranks,
    mean_estimate,
    needed,
    percentile,
    percentile_estimate,
    percentile_of_counts,
    ratio_estimate,
    such_cases,
    wilson,
)
from tests.support.paths import ROOT

VALUES = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=60)
P = st.floats(0, 1)


def close(a: float | None, b: float) -> bool:
    return a is not None and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-6)


def test_nothing_measured_has_no_percentile() -> None:
    assert percentile([], 0.5) is None


@pytest.mark.parametrize("p", [-0.01, 1.01, 50, math.nan])
def test_percent_instead_of_share_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        percentile([1.0, 2.0], p)


@pytest.mark.parametrize(("p", "expected"), [(0, 1), (0.25, 1.75), (0.5, 2.5), (0.75, 3.25), (0.9, 3.7), (1, 4)])
def test_interpolates_between_neighbours_of_unsorted_values(p: float, expected: float) -> None:
    assert percentile([4, 1, 3, 2], p) == pytest.approx(expected)


@given(VALUES)
def test_agrees_with_statistics(values: list[float]) -> None:
    assert close(percentile(values, 0.5), statistics.median(values))
    if len(values) > 1:
        for i, cut in enumerate(statistics.quantiles(values, n=20, method="inclusive"), 1):
            assert close(percentile(values, i / 20), cut)


@given(VALUES, P)
def test_lies_between_the_two_values_around_its_place(values: list[float], p: float) -> None:
    place, ordered = p * (len(values) - 1), sorted(values)
    found = percentile(values, p)
    assert found is not None
    assert ordered[math.floor(place)] - 1e-6 <= found <= ordered[math.ceil(place)] + 1e-6


@settings(max_examples=30)
@given(VALUES, P)
def test_agrees_with_duckdb_so_that_live_and_stored_figures_do(values: list[float], p: float) -> None:
    sql = f"SELECT quantile_cont(v, {p!r}::DOUBLE) FROM unnest($1::DOUBLE[]) AS t(v)"
    with duckdb.connect() as con:
        row = con.execute(sql, [values]).fetchone()
    assert row is not None
    assert close(percentile(values, p), row[0])


# Intervals of percentiles


@pytest.mark.parametrize(("p", "n"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368), (0.01, 368)])
def test_a_percentile_needs_so_many_values_and_not_one_less(p: float, n: int) -> None:
    assert needed(p) == n
    assert None in interval_ranks(n - 1, p)
    low, high = interval_ranks(n, p)
    assert low is not None
    assert high is not None
    assert 1 <= low < high <= n
    few = percentile_estimate(np.random.default_rng(n).random(n - 1), p)
    assert (few.n, few.value, few.needs, few.has_interval) == (n - 1, None, n, False)


def test_too_few_values_still_bound_a_percentile_on_one_side() -> None:
    """Of 30 values, more than 2.5 % of the time none lies above the true p95, but surely some lie below it."""
    values = np.random.default_rng(1).permutation(30).astype(float)
    high, low = percentile_estimate(values, 0.95), percentile_estimate(values, 0.05)
    assert (high.low, high.high) == (binom.ppf(0.025, 30, 0.95) - 1, None)
    assert (low.low, low.high) == (None, binom.ppf(0.975, 30, 0.05))
    assert percentile_estimate(np.array([]), 0.5) == Estimate(0, needs=6)


@given(st.integers(6, 5000), st.sampled_from([0.5, 0.75, 0.9, 0.95, 0.99]))
def test_the_ranks_enclose_the_true_percentile_as_often_as_promised(n: int, p: float) -> None:
    low, high = interval_ranks(n, p)
    assert (low is None or high is None) == (n < needed(p))
    if low is not None and high is not None:
        assert (low, high - 1) == (binom.ppf(0.025, n, p), binom.ppf(0.975, n, p))
        assert binom.cdf(low - 1, n, p) <= 0.025  # the true one is below the lower end
        assert binom.sf(high - 1, n, p) <= 0.025  # above the upper end
        assert low <= p * (n - 1) + 1 <= high


def test_a_confidence_that_ranks_keep_exactly_takes_no_further_rank() -> None:
    """Of six values one or none is below the median with chance 7/64, and at most four with 57/64."""
    assert interval_ranks(6, 0.5, confidence=1 - 2 * 7 / 64) == (1, 5)


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1e3, allow_subnormal=False), min_size=40, max_size=200, unique=True))
def test_percentile_estimate_is_that_of_scipy(values: list[float]) -> None:
    for p in (0.5, 0.9):
        # An order of neighbours that differ: its memory is none, whatever the values.
        mixed = np.sort(np.array(values))[np.argsort(np.arange(len(values)) * 0.618 % 1)]
        found = percentile_estimate(mixed, p)
        assert found.value is not None
        assert close(percentile(values, p), found.value)
        theirs = quantile_test(values, q=0, p=p).confidence_interval(0.95)
        assert (found.low, found.high) == (theirs.low, theirs.high)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 5)), min_size=1, max_size=20, unique_by=lambda x: x[0]), P)
def test_percentile_of_counts_is_that_of_the_values_written_out(pairs: list[tuple[int, int]], p: float) -> None:
    pairs.sort()
    written_out = [float(value) for value, count in pairs for _ in range(count)]
    found = percentile_of_counts(np.array([v for v, _ in pairs]), np.array([c for _, c in pairs]), p)
    assert close(found, percentile(written_out, p) or 0.0)


def test_percentile_of_no_counts() -> None:
    assert percentile_of_counts(np.array([]), np.array([], dtype=int), 0.5) is None


def test_the_documentation_says_the_same() -> None:
    text = (ROOT / "docs/methods.md").read_text()
    p50, p90, p95, p99 = (needed(p) for p in (0.5, 0.9, 0.95, 0.99))
    assert f"| {p50}, {p90}, {p95}, {p99} requests; more where neighbours are alike |" in text
    assert f"{p50} for the median, {p90} for p90, {p95} for p95, {p99} for p99" in text
    assert (
        f"| {MIN_CLUSTERS} requests, and {p50}, {p90}, {p95}, {p99} gaps; p90 and beyond: {TAIL_CLUSTERS} moments |"
        in text
    )
    more = (p50, p90, p95, p99)
    assert f"({', '.join(f'{DEPENDENT_FACTOR * n:,}' for n in more)})" in text
    assert f"comes to {needed(0.99, confidence=0.90)} for p99" in text
    assert f"{RESAMPLES} times" in text
    low = 100 * (wilson(30, 30).low or 0)
    assert f"30 of 30 is {low:.1f} % to 100 %" in text


# Rates


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_scipy(counts: tuple[int, int]) -> None:
    successes, n = counts
    found, theirs = wilson(successes, n), binomtest(successes, n).proportion_ci(method="wilson")
    assert found.value == successes / n
    assert close(found.low, max(theirs.low, 0))
    assert close(found.high, theirs.high)
    assert 0 <= (found.low or 0) <= successes / n <= (found.high or 0) <= 1


@pytest.mark.parametrize("p", [0.5, 0.8, 0.95])
def test_wilson_covers_about_as_often_as_it_says(p: float) -> None:
    for n in (20, 50, 200):
        hit = [k for k in range(n + 1) if (wilson(k, n).low or 0) <= p <= (wilson(k, n).high or 0)]
        assert sum(binom.pmf(hit, n, p)) > 0.92


def test_a_rate_of_nothing_has_no_value() -> None:
    assert wilson(0, 0) == Estimate(0, needs=1, unit="answers")


@pytest.mark.parametrize(("successes", "n"), [(2, 1), (-1, 5), (math.nan, 3)])
def test_more_successes_than_tries_are_refused(successes: float, n: int) -> None:
    with pytest.raises(ValueError, match="of"):
        wilson(successes, n)


def test_a_ratio_of_sums_has_students_interval_over_stretches() -> None:
    """Of equally long slices, it is scipy's interval of a mean."""
    counts = np.array([9.0, 12, 7, 11, 10, 13, 8, 10])
    found = ratio_estimate(counts, np.full(8, 2.0), 80)
    theirs = ttest_1samp(counts / 2, 0).confidence_interval(0.95)
    assert (found.n, found.value) == (80, 5.0)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert ratio_estimate(np.eye(8)[0], np.ones(8), 40, 0.0).low == 0.0
    assert ratio_estimate(counts, np.full(8, 2.0), 19) == Estimate(19, 5.0, needs=20)
    assert ratio_estimate(np.ones(7), np.ones(7), 80).has_interval is False
    assert ratio_estimate(np.zeros(8), np.zeros(8), 0) == Estimate(0, needs=20)


def test_a_mean_has_no_interval_where_neighbours_are_alike() -> None:
    generator = np.random.default_rng(4)
    plain = mean_estimate(generator.random(200))
    assert (plain.low or 0) < (plain.value or 0) < (plain.high or 0)
    assert mean_estimate(np.arange(200.0)) == Estimate(200, 99.5, why=TOO_ALIKE)
    assert mean_estimate(np.array([])) == Estimate(0, needs=20)


def test_repeats_of_a_case_make_a_rate_of_such_cases_no_more_certain() -> None:
    once = such_cases(np.repeat((1.0, 0.0), 15), np.ones(30))
    often = such_cases(np.repeat((10.0, 0.0), 15), np.full(30, 10.0))
    assert (once.n, once.value, once.unit) == (30, 0.5, "cases")
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=0.01)
    exact = binomtest(15, 30).proportion_ci(method="exact")
    assert (once.low, once.high) == pytest.approx((exact.low, exact.high), abs=0.01)
    alike = such_cases(np.tile((4.0, 6.0), 15), np.full(30, 10.0))
    assert (alike.high or 0) - (alike.low or 0) < 0.13, "300 answers, alike in no case, are at least as good as 300"
    all_right = such_cases(np.full(30, 10.0), np.full(30, 10.0))
    assert (all_right.low, all_right.high) == (pytest.approx(0.025 ** (1 / 30)), 1.0)
    none = such_cases(np.zeros(30), np.full(30, 10.0))
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 30)))
    assert such_cases(np.ones(19), np.ones(19)) == Estimate(19, needs=20, unit="cases")


# Gaps


def test_gaps_of_too_few_requests_have_no_percentile() -> None:
    gaps = [np.full(1000, 0.01)] * (MIN_CLUSTERS - 1) + [np.array([])]
    n = MIN_CLUSTERS - 1
    assert gap_percentiles(gaps, [0.5, 0.99]) == [Estimate(n, needs=MIN_CLUSTERS), Estimate(n, needs=TAIL_CLUSTERS)]
    assert gap_percentiles([], [0.5]) == [Estimate(0, needs=MIN_CLUSTERS)]


def test_few_moments_of_many_requests_have_a_percentile_without_an_interval() -> None:
    few = gap_percentiles([np.full(1000, 0.01)] * 25, [0.5, 0.95], requests=100)
    assert few == [Estimate(100, 0.01, 0.01, 0.01), Estimate(100, 0.01, needs=200, why=TOO_ALIKE)]


def test_gaps_are_grouped_by_the_moment_they_came() -> None:
    """Two streams of ten answers each, one after another: the stall of the fifth second is one moment of both."""
    starts = np.repeat(np.arange(10.0), 2)
    offsets = [np.array([0.1, 0.2, 0.9, 1.0]) if start == 5 else np.array([0.1, 0.4, 0.7, 1.0]) for start in starts]
    moments = gaps_by_moment(starts, offsets)
    assert [len(each) for each in moments] == [6] * 10 or [len(each) for each in moments][4:7] == [6, 6, 6]
    stalled = [place for place, each in enumerate(moments) if (each > 0.5).any()]
    assert (len(stalled), sum(map(len, moments))) == (1, 60)
    assert gaps_by_moment(np.array([]), []) == []
    assert [each.tolist() for each in gaps_by_moment(np.zeros(1), [np.zeros(3)])] == [[0.0, 0.0]]


def test_the_shortest_and_the_longest_gap_are_those_that_were_seen() -> None:
    """An SLO on itl_p100 ended in a ZeroDivisionError, after the whole load."""
    assert needed(0) == needed(1) == 1
    for moments in (3, 60):
        gaps = [np.array([5.0, 1.0 + at, 2.0]) for at in range(moments)]
        assert gap_percentiles(gaps, [0, 1]) == [
            Estimate(moments, 1.0), Estimate(moments, max(5.0, float(moments))),
        ]  # fmt: skip
    assert [each.value for each in gap_percentiles([], [0, 1])] == [None, None]


def test_too_few_gaps_have_no_high_percentile() -> None:
    median, p99 = gap_percentiles([np.arange(1.0, 11)] * MIN_CLUSTERS, [0.5, 0.99])
    assert median.value == 5.5
    assert 5 <= (median.low or 0) <= 5.5 <= (median.high or 0) <= 6
    assert p99 == Estimate(10 * MIN_CLUSTERS, needs=368, unit="gaps")
    gaps = [np.full(7, 1.0)] * 52
    assert gap_percentiles([*gaps, np.full(3, 1.0)], [0.99]) == [Estimate(367, needs=368, unit="gaps")]
    assert gap_percentiles([*gaps, np.full(4, 1.0)], [0.99]) == [Estimate(53, 1.0, 1.0, 1.0)]


def test_equal_gaps_have_an_interval_without_width() -> None:
    found = gap_percentiles([np.full(10, 0.01)] * 40, [0.5])[0]
    assert (found.n, found.value, found.low, found.high) == (40, 0.01, 0.01, 0.01)


def test_the_sample_s_interval_encloses_the_known_percentile() -> None:
    found = gap_percentiles([np.arange(1.0, 11)] * 40, [0.5], known=[9.0])[0]
    assert (found.value, found.high) == (9.0, 9.0)


def test_one_request_with_a_third_of_all_gaps_can_shift_their_median_far() -> None:
    """Drawn three times, it carries the median further than the interval reaches: to its end, then."""
    found = gap_percentiles([*(np.array([float(i)]) for i in range(999)), np.full(428, 9999.0)], [0.5])[0]
    assert found.value == 713.0
    assert (found.low or 0) < 713 < (found.high or 0) < 999


def naive(gaps: list[np.ndarray], p: float) -> tuple[float, float]:
    """The same by scipy: draw requests, put their gaps together, sort."""

    def quantile(drawn: np.ndarray) -> float:
        return float(np.quantile(np.concatenate([gaps[i] for i in drawn]), p))

    found = bootstrap((np.arange(len(gaps)),), quantile, vectorized=False, method="percentile", rng=7, n_resamples=999)
    return found.confidence_interval.low, found.confidence_interval.high


@pytest.mark.parametrize("p", [0.5, 0.95])
def test_gap_intervals_are_those_of_scipy_s_bootstrap_over_requests(p: float) -> None:
    """Requests of different pace: an interval that took gaps as independent would be several times too narrow."""
    rng = np.random.default_rng(3)
    gaps = [rng.exponential(rng.uniform(0.005, 0.02), size=rng.integers(20, 80)) for _ in range(60)]
    found, (low, high) = gap_percentiles(gaps, [p])[0], naive(gaps, p)
    assert found.low == pytest.approx(low, rel=0.03)
    assert found.high == pytest.approx(high, rel=0.03)
    assert (found.high or 0) - (found.low or 0) == pytest.approx(high - low, rel=0.2)

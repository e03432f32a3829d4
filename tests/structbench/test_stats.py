"""Percentiles agree with Python's, DuckDB's and their own definition; intervals with scipy's, and they cover."""

from __future__ import annotations

import math
import statistics

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, bootstrap, quantile_test

from structbench.stats import (
    MIN_CLUSTERS,
    RESAMPLES,
    Estimate,
    gap_percentiles,
    interval_ranks,
    needed,
    percentile,
    percentile_estimate,
    percentile_of_counts,
    ranks_around,
    rate_per_s,
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


@settings(max_examples=30, deadline=None)
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
    assert interval_ranks(n - 1, p) is None
    low, high = interval_ranks(n, p) or (0, 0)
    assert 1 <= low < high <= n
    assert percentile_estimate(n - 1, p, ranks_around(n - 1, p)) == Estimate(n - 1, needs=n)


@settings(deadline=None)
@given(st.integers(6, 5000), st.sampled_from([0.5, 0.75, 0.9, 0.95, 0.99]))
def test_the_ranks_enclose_the_true_percentile_as_often_as_promised(n: int, p: float) -> None:
    ranks = interval_ranks(n, p)
    assert (ranks is None) == (n < needed(p))
    if ranks is not None:
        low, high = ranks
        assert (low, high - 1) == (binom.ppf(0.025, n, p), binom.ppf(0.975, n, p))
        assert binom.cdf(low - 1, n, p) <= 0.025  # the true one is below the lower end
        assert binom.sf(high - 1, n, p) <= 0.025  # above the upper end
        assert low <= p * (n - 1) + 1 <= high


def test_a_confidence_that_ranks_keep_exactly_takes_no_further_rank() -> None:
    """Of six values one or none is below the median with chance 7/64, and at most four with 57/64."""
    assert interval_ranks(6, 0.5, confidence=1 - 2 * 7 / 64) == (1, 5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1e3, allow_subnormal=False), min_size=40, max_size=200, unique=True))
def test_percentile_estimate_is_that_of_scipy(values: list[float]) -> None:
    ordered, n = sorted(values), len(values)
    for p in (0.5, 0.9):
        found = percentile_estimate(n, p, [ordered[rank - 1] for rank in ranks_around(n, p) or ()])
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
    text = (ROOT / "docs/statistics.md").read_text()
    p50, p90, p95, p99 = (needed(p) for p in (0.5, 0.9, 0.95, 0.99))
    assert f"| {p50}, {p90}, {p95}, {p99} requests |" in text
    assert f"{p50} for the median, {p90} for p90, {p95} for p95, {p99} for p99" in text
    assert f"| {MIN_CLUSTERS} requests, and {p50}, {p90}, {p95}, {p99} gaps |" in text
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


def test_goodput_is_the_share_times_the_speed_at_which_answers_came() -> None:
    found = rate_per_s(wilson(30, 40), 20.0)
    assert found.value == pytest.approx(1.5)
    assert found.low == pytest.approx(2 * (wilson(30, 40).low or 0))
    assert found.high == pytest.approx(2 * (wilson(30, 40).high or 0))
    assert rate_per_s(wilson(30, 40), None).value is None
    assert rate_per_s(wilson(0, 0), 20.0) == Estimate(0, needs=1, unit="answers")


# Gaps


def test_gaps_of_too_few_requests_have_no_percentile() -> None:
    gaps = [np.full(1000, 0.01)] * (MIN_CLUSTERS - 1) + [np.array([])]
    assert gap_percentiles(gaps, [0.5, 0.99]) == [Estimate(MIN_CLUSTERS - 1, needs=MIN_CLUSTERS)] * 2


def test_too_few_gaps_have_no_high_percentile() -> None:
    median, p99 = gap_percentiles([np.arange(1.0, 11)] * MIN_CLUSTERS, [0.5, 0.99])
    assert median.value == 5.5
    assert 5 <= (median.low or 0) <= 5.5 <= (median.high or 0) <= 6
    assert p99 == Estimate(10 * MIN_CLUSTERS, needs=368, unit="gaps")
    gaps = [np.full(16, 1.0)] * 22
    assert gap_percentiles([*gaps, np.full(15, 1.0)], [0.99]) == [Estimate(367, needs=368, unit="gaps")]
    assert gap_percentiles([*gaps, np.full(16, 1.0)], [0.99]) == [Estimate(23, 1.0, 1.0, 1.0)]


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

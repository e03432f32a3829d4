"""Differences with intervals: no more false alarms than promised, and true ones found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from structbench.comparison.significance import (
    MAX_DISTINCT,
    Difference,
    Quantile,
    Ratio,
    blocks_of,
    difference,
    difference_of_runs,
    holm,
    min_n,
    paired_by_case,
    quantile,
    without_variation,
)
from structbench.results.intervals import stretches
from structbench.stats import percentile, wilson
from tests.support.comparisons import fewer_resamples

COMPARISONS = 200
"""By chance alone, the share of false alarms among so many lies within 5 % ± 4 % nearly always."""


def quantile_of(values: Any, p: float) -> Quantile:
    n = len(values)
    return quantile(np.asarray(values, float), np.ones(n), blocks_of(n, stretches(n)), stretches(n), p)


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    with fewer_resamples():
        yield


def false_alarms(make: Callable[[np.random.Generator], Difference]) -> float:
    generator = np.random.default_rng(20260101)
    return sum(make(generator).p_value < 0.05 for _ in range(COMPARISONS)) / COMPARISONS


def latencies(generator: np.random.Generator, n: int, memory: float) -> Any:
    """Skewed, and each like the one before it, as in a queue."""
    noise = generator.standard_normal(n)
    if memory:
        noise[1:] *= np.sqrt(1 - memory**2)
        noise = np.fromiter(accumulate(noise, lambda before, new: memory * before + new), float)
    return np.exp(0.5 * noise)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("n", "p", "memory"), [(40, 0.5, 0.0), (100, 0.95, 0.0), (100, 0.5, 0.4)])
def test_equal_runs_are_called_different_in_about_one_of_twenty(n: int, p: float, memory: float) -> None:
    def make(generator: np.random.Generator) -> Difference:
        return difference(*(quantile_of(latencies(generator, n, memory), p) for _ in "ab"), paired=False, relative=True)

    assert 0.005 <= false_alarms(make) <= 0.09


@pytest.mark.usefixtures("quick")
def test_equal_pairs_are_called_different_in_about_one_of_twenty() -> None:
    def make(generator: np.random.Generator) -> Difference:
        prompts = generator.standard_normal(80)
        return difference(
            *(quantile_of(np.exp(0.5 * (prompts + generator.standard_normal(80))), 0.5) for _ in "ab"),
            paired=True,
            relative=True,
        )

    assert 0.005 <= false_alarms(make) <= 0.09


@pytest.mark.usefixtures("quick")
def test_equal_rates_are_called_different_in_about_one_of_twenty() -> None:
    """A closed loop of four: each stream's answers follow one another."""

    def rate(generator: np.random.Generator) -> Ratio:
        ends = np.concatenate([np.cumsum(latencies(generator, 25, 0.0)) for _ in range(4)])
        slices, total = stretches(len(ends)), ends.max()
        place = np.minimum(ends / total * slices, slices - 1).astype(int)
        return Ratio(np.bincount(place, minlength=slices).astype(float), np.full(slices, total / slices))

    assert (
        false_alarms(lambda generator: difference(rate(generator), rate(generator), paired=False, relative=True))
        <= 0.09
    )


@pytest.mark.parametrize(("runs", "most"), [((3, 3), 0.06), ((5, 5), 0.06), ((3, 6), 0.06)])
def test_runs_that_differ_by_themselves_are_called_different_in_about_one_of_twenty(
    runs: tuple[int, int], most: float
) -> None:
    """Each run has a speed of its own (sd 5 %), which no interval within two single runs can know."""
    generator = np.random.default_rng(7)

    def make() -> Difference:
        of_a, of_b = (np.exp(0.05 * generator.standard_normal(n)) for n in runs)
        return difference_of_runs(of_a.mean(), of_b.mean(), of_a, of_b, relative=True)

    alarms = np.mean([make().p_value < 0.05 for _ in range(1000)])
    assert 0.015 <= alarms <= most


def test_welchs_test_of_runs_is_scipys_on_logarithms() -> None:
    of_a, of_b = np.array([0.10, 0.11, 0.105]), np.array([0.13, 0.12, 0.14, 0.125])
    found = difference_of_runs(0.105, 0.13, of_a, of_b, relative=True)
    own = scipy_stats.ttest_ind(np.log(of_b), np.log(of_a), equal_var=False)
    low, high = own.confidence_interval(0.95)
    assert found.p_value == pytest.approx(own.pvalue)
    assert (found.low, found.high) == pytest.approx((0.105 * np.expm1(low), 0.105 * np.expm1(high)))
    assert (found.value, found.method) == (pytest.approx(0.025), "Welch's t over runs")
    shares = difference_of_runs(0.1, 0.2, np.array([0.0, 0.1, 0.2]), np.array([0.1, 0.2, 0.3]), relative=False)
    assert shares.p_value == pytest.approx(
        scipy_stats.ttest_ind([0.1, 0.2, 0.3], [0, 0.1, 0.2], equal_var=False).pvalue
    )
    assert difference_of_runs(1.0, 1.0, np.ones(3), np.ones(3), relative=True).p_value == 1.0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("repeats", [(1, 1), (3, 3), (1, 2), (4, 1)])
def test_equal_answers_are_called_different_in_at_most_one_of_twenty(repeats: tuple[int, int]) -> None:
    def make(generator: np.random.Generator) -> Difference:
        easy = generator.beta(2, 1, 40)
        cases = [np.repeat(np.arange(40), times) for times in repeats]
        ours, theirs = ((generator.random(len(each)) < easy[each]).astype(float) for each in cases)
        return paired_by_case(ours, theirs, *cases)

    assert false_alarms(make) <= 0.082


def by_case(a: Any, b: Any, cases: Any) -> Difference:
    return paired_by_case(a, b, cases, cases)


def test_a_case_counts_with_the_mean_of_its_answers_on_each_side() -> None:
    cases = np.arange(30)
    once, twice = np.ones(30), np.concatenate((np.ones(30), np.zeros(30)))
    found = paired_by_case(once, twice, cases, np.tile(cases, 2))
    assert (found.a, found.b) == (1.0, 0.5)
    assert found.p_value < 1e-6
    some = np.append(cases, range(10))  # ten cases were asked twice, on both sides: the means are those of all answers
    scores = np.random.default_rng(1).random((2, 40))
    found = by_case(*scores, some)
    assert (found.a, found.b) == pytest.approx(scores.mean(axis=1))


def test_an_answer_that_repeats_word_for_word_counts_once() -> None:
    """Temperature 0: asking three cases ten times each is evidence of three, not of thirty."""
    cases = np.repeat(np.arange(3), 10)
    once = by_case(np.ones(3), np.zeros(3), np.arange(3))
    assert by_case(np.ones(30), np.zeros(30), cases).p_value == once.p_value == 0.25


def test_a_true_difference_is_found_and_measured() -> None:
    generator = np.random.default_rng(7)
    a, b = latencies(generator, 400, 0.3), latencies(generator, 400, 0.3) * 1.5
    found = difference(quantile_of(a, 0.95), quantile_of(b, 0.95), paired=False, relative=True)
    assert found.p_value < 0.01
    assert found.low < np.quantile(b, 0.95) - np.quantile(a, 0.95) < found.high
    assert found.low > 0


def test_an_interval_of_a_ratio_never_takes_away_more_than_there_is() -> None:
    generator = np.random.default_rng(11)
    wild = [np.exp(3 * generator.standard_normal(20)) for _ in "ab"]
    found = difference(*(quantile_of(each, 0.5) for each in wild), paired=False, relative=True)
    assert -found.a < found.low < found.value < found.high
    none = Ratio(np.zeros(8), np.ones(8))
    one = Ratio(np.eye(8)[0], np.ones(8))  # of some draws it is 0
    lost = difference(one, none, paired=False, relative=True)
    assert (lost.low, lost.value) == (-lost.a, -lost.a)
    assert lost.high > lost.value
    from_nothing = difference(none, Ratio(np.arange(8.0), np.ones(8)), paired=False, relative=True)
    assert (from_nothing.a, from_nothing.value) == (0.0, 3.5)
    assert from_nothing.low < 3.5 < from_nothing.high
    assert difference(none, one, paired=False, relative=True).low < 0, "that there was nothing in A is no certainty"


def test_an_interval_of_a_share_is_no_wider_than_all() -> None:
    some = np.repeat((0.0, 1.0), (5, 3))
    few, many = (Ratio(each, np.ones(8)) for each in (some, 1 - some))
    up, down = (difference(*pair, paired=True, relative=False) for pair in ((few, many), (many, few)))
    assert (up.value, up.high, down.value, down.low) == (0.25, 1.0, -0.25, -1.0)
    rare = Ratio(np.eye(8)[0], np.ones(8))
    found = difference(Ratio(np.zeros(8), np.ones(8)), rare, paired=False, relative=False)
    assert found.low < 0, "that nothing failed in A is no certainty"


def test_pairs_tell_what_two_samples_cannot() -> None:
    generator = np.random.default_rng(3)
    a = np.exp(generator.standard_normal(100))
    b = a * (1.1 + 0.01 * generator.standard_normal(100))
    assert difference(quantile_of(a, 0.5), quantile_of(b, 0.5), paired=True, relative=True).p_value < 0.05
    assert difference(quantile_of(a, 0.5), quantile_of(b, 0.5), paired=False, relative=True).p_value > 0.2


def test_one_answer_a_case_is_mcnemars_exact_test() -> None:
    generator = np.random.default_rng(1)
    a, b = (generator.integers(0, 2, 60).astype(float) for _ in "ab")
    gained, lost = int((b > a).sum()), int((a > b).sum())
    found = by_case(a, b, np.arange(60))
    assert found.p_value == scipy_stats.binomtest(gained, gained + lost).pvalue
    assert found.method == "McNemar"
    # Bonett and Price (2012): one more of each kind.
    up, down = (gained + 1) / 62, (lost + 1) / 62
    reach = 1.959963985 * np.sqrt((up + down - (up - down) ** 2) / 62)
    assert (found.low, found.high) == pytest.approx((up - down - reach, up - down + reach))


def test_partly_right_answers_are_tested_by_swapping_cases() -> None:
    generator = np.random.default_rng(2)
    a = generator.random(40)
    found = by_case(a, np.clip(a + 0.3 * generator.random(40), 0, 1), np.arange(40))
    assert (found.method, found.p_value < 0.01, found.low > 0) == ("permutation by case", True, True)


def test_no_disagreement_is_no_certainty() -> None:
    found = by_case(np.ones(20), np.ones(20), np.arange(20))
    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.low < -0.05
    assert found.high > 0.05
    none = Ratio(np.zeros(8), np.full(8, 10.0))
    plain = difference(none, none, paired=True, relative=False)
    assert (plain.low, plain.high, plain.p_value) == (0.0, 0.0, 1.0)
    wide = without_variation(plain, 80, 80)
    assert (-wide.low, wide.high) == pytest.approx((wilson(0, 80).high, wilson(0, 80).high))


@pytest.mark.parametrize(
    ("b", "n_b", "a", "n_a", "low", "high"),
    [
        (56 / 70, 70, 48 / 80, 80, 0.0524, 0.3339), (9 / 10, 10, 3 / 10, 10, 0.1705, 0.8090),
        (5 / 56, 56, 0, 29, -0.0381, 0.1926), (0, 10, 0, 20, -0.1611, 0.2775), (1, 10, 0, 20, 0.6791, 1.0),
        (0, 20, 1, 10, -1.0, -0.6791),
    ],
)  # fmt: skip
def test_shares_without_variation_have_newcombes_published_interval(
    b: float, n_b: int, a: float, n_a: int, low: float, high: float
) -> None:
    """Table II of the paper, method 10."""
    found = without_variation(Difference(a, b, 0.0, 0.0, 0.5, ""), n_a, n_b)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert (found.a, found.b, found.p_value, found.method) == (a, b, 0.5, "Newcombe")
    for sizes in ((n_a, 0), (0, n_b)):
        with pytest.raises(ValueError, match="nothing"):
            without_variation(found, *sizes)


def test_block_bootstraps_are_students_and_welchs_tests_of_the_blocks() -> None:
    """Of a mean they have formulas, so scipy knows the answer but for the noise of the resamples."""
    generator = np.random.default_rng(17)
    reaches: dict[bool, list[float]] = {True: [], False: []}
    p_values: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(40):
        for paired, sizes in ((True, (8, 8)), (False, (8, 14))):
            of_a, of_b = (0.1 + 0.001 * generator.standard_normal(n) * n for n in sizes)
            found = difference(*(Ratio(each, np.ones(len(each))) for each in (of_a, of_b)), paired=paired,
                               relative=False)  # fmt: skip
            theirs = scipy_stats.ttest_rel(of_b, of_a) if paired else scipy_stats.ttest_ind(of_b, of_a, equal_var=False)
            low, high = theirs.confidence_interval(0.95)
            assert (found.low + found.high) / 2 == pytest.approx(found.value)
            reaches[paired].append((found.high - found.low) / (high - low))
            p_values[paired].append(found.p_value - theirs.pvalue)
    for paired in (True, False):
        assert np.mean(reaches[paired]) == pytest.approx(1, abs=0.015)
        assert np.mean(p_values[paired]) == pytest.approx(0, abs=0.01)


def test_relative_differences_are_tested_as_ratios() -> None:
    generator = np.random.default_rng(23)
    of_a, of_b = (np.exp(0.2 * generator.standard_normal(10)) for _ in "ab")
    a, b = (Ratio(each, np.ones(10)) for each in (of_a, of_b))
    found = difference(a, b, paired=True, relative=True)
    low, high = np.log1p((found.low / found.a, found.high / found.a))
    assert (low + high) / 2 == pytest.approx(np.log(found.b / found.a))
    error = (high - low) / 2 / scipy_stats.t.ppf(0.975, 9)
    assert found.p_value == pytest.approx(2 * scipy_stats.t.sf(abs(low + high) / 2 / error, 9))
    turned = difference(b, a, paired=True, relative=True)
    assert turned.p_value == pytest.approx(found.p_value)
    assert 1 + turned.low / turned.a == pytest.approx(1 / (1 + found.high / found.a))


@pytest.mark.parametrize("paired", [True, False])
def test_figures_that_no_block_varies_in_are_equal_or_certainly_not(paired: bool) -> None:
    one, two = (Ratio(np.full(8, each), np.ones(8)) for each in (1.0, 2.0))
    for relative in (True, False):
        found = difference(one, two, paired=paired, relative=relative)
        assert (found.low, found.high) == pytest.approx((1.0, 1.0))
        assert found.p_value < 1e-100
        assert difference(one, one, paired=paired, relative=relative).p_value == 1.0


def test_draws_that_hold_no_value_are_left_out_and_no_end_is_infinite() -> None:
    few = quantile(np.arange(1.0, 6), np.ones(5), np.array([0, 0, 0, 3, 3]), 8, 0.5)
    assert np.isnan(few.estimates(np.array([[0.0, 2, 2, 0, 2, 2, 0, 0]]))).all()
    for paired in (True, False):
        found = difference(few, few, paired=paired, relative=True)
        assert -3 <= found.low <= 0 <= found.high < np.inf
    wild = quantile(np.repeat((1e-250, 1.0), 20), np.ones(40), blocks_of(40, 8), 8, 0.5)
    assert np.isfinite(difference(wild, wild, paired=False, relative=True).high)
    with pytest.raises(ValueError, match="nothing"):
        quantile(np.array([]), np.array([]), np.array([], int), 8, 0.5)


@given(
    st.lists(st.integers(0, 9), min_size=8, max_size=30), st.lists(st.integers(0, 3), min_size=8, max_size=8),
    st.sampled_from([0.0, 0.3, 0.5, 0.95, 1.0]),
)  # fmt: skip
@settings(max_examples=50)
def test_what_is_drawn_is_the_figure_of_the_drawn_blocks(values: list[int], drawn: list[int], p: float) -> None:
    blocks, weights = blocks_of(len(values), stretches(len(values))), np.array([drawn], float)
    repeated = np.repeat(np.array(values, float), np.array(drawn)[blocks])
    found = quantile_of(values, p).estimates(weights)[0]
    assert found == pytest.approx(percentile(repeated, p) if len(repeated) else np.nan, nan_ok=True)
    above, below = (np.bincount(blocks, each, 8) for each in (values, np.ones(len(values))))
    ratio = Ratio(above, below)
    mean = repeated.mean() if len(repeated) else np.nan
    assert ratio.estimates(weights)[0] == pytest.approx(mean, nan_ok=True)
    assert (ratio.value, ratio.blocks) == (pytest.approx(np.mean(values)), 8)


def test_few_partly_right_answers_are_tested_by_all_their_swaps() -> None:
    changes = np.array([0.5, -0.25, 0.75, 0.5, 1.0, -0.5, 0.25, 0.0])
    found = by_case(np.maximum(-changes, 0), np.maximum(changes, 0), np.arange(8))
    swapped = np.array([changes @ signs for signs in product((-1, 1), repeat=8)])
    assert found.p_value == pytest.approx(2 * (swapped >= changes.sum()).mean())
    lost = by_case(np.ones(25), np.zeros(25), np.arange(25))
    assert (lost.low, lost.value) == (-1.0, -1.0)
    assert lost.high == pytest.approx(-25 / 27 + 1.959964 * np.sqrt((26 / 27 + 1 / 27 - (25 / 27) ** 2) / 27))


def test_the_same_data_give_the_same_result() -> None:
    generator = np.random.default_rng(5)
    a, b = (quantile_of(latencies(generator, 60, 0), 0.5) for _ in "ab")
    assert difference(a, b, paired=False, relative=True) == difference(a, b, paired=False, relative=True)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5)), min_size=1, max_size=50), st.floats(0, 1))
@settings(max_examples=50)
def test_the_figure_is_the_percentile_of_all_values(pairs: list[tuple[float, int]], p: float) -> None:
    values, times = (np.array(each, float) for each in zip(*pairs, strict=True))
    n = len(values)
    found = quantile(values, times, blocks_of(n, stretches(n)), stretches(n), p)
    expanded = [value for value, count in pairs for _ in range(count)]
    assert found.value == pytest.approx(percentile(expanded, p))
    assert found.estimates(np.ones((1, found.blocks)))[0] == pytest.approx(found.value)


def test_many_distinct_values_are_put_together_and_stay_near() -> None:
    values = np.random.default_rng(0).lognormal(size=3 * MAX_DISTINCT)
    found = quantile_of(values, 0.95)
    assert len(found.places) <= MAX_DISTINCT
    assert found.value == pytest.approx(np.quantile(values, 0.95))
    assert found.estimates(np.ones((1, found.blocks)))[0] == pytest.approx(found.value, rel=0.01)


def test_two_values_to_a_bin_where_they_are_twice_too_many() -> None:
    exactly, twice = (np.random.default_rng(0).permutation(n).astype(float) for n in (MAX_DISTINCT, 2 * MAX_DISTINCT))
    assert quantile_of(exactly, 0.5).places.tolist() == list(range(MAX_DISTINCT))
    found = quantile_of(twice, 0.5)
    assert found.places.tolist() == list(range(0, 2 * MAX_DISTINCT, 2))
    assert found.counts.sum(axis=0).tolist() == [2.0] * MAX_DISTINCT
    more = quantile_of(np.append(exactly, MAX_DISTINCT), 0.5)
    assert len(more.places) == MAX_DISTINCT, "one too many"


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_is_monotone_and_between_the_plain_and_bonferronis(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, corrected in zip(p_values, adjusted, strict=True):
        assert p <= corrected <= min(1.0, p * len(p_values)) + 1e-15
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.5, 0.9]) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("p", "n"), [(None, 20), (0.5, 20), (0.95, 72), (0.99, 368)])
def test_how_many_values_an_interval_takes(p: float | None, n: int) -> None:
    assert min_n(p) == n


@given(st.integers(1, 5000))
def test_blocks_are_stretches_of_neighbours_of_about_equal_length(n: int) -> None:
    blocks = blocks_of(n, stretches(n))
    sizes = np.bincount(blocks, minlength=stretches(n))
    assert list(blocks) == sorted(blocks)
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1
    assert stretches(n) <= 20


@pytest.mark.parametrize(
    ("n", "blocks"), [(0, 1), (1, 1), (7, 7), (8, 8), (44, 8), (45, 9), (99, 19), (100, 20), (5000, 20)]
)
def test_there_are_8_to_20_blocks_of_five_or_more(n: int, blocks: int) -> None:
    assert (stretches(n), len(blocks_of(n, blocks))) == (blocks, n)

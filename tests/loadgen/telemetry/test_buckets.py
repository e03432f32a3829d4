"""What is read from buckets is what Prometheus would read, and lies within one bucket of the exact value."""

from __future__ import annotations

from bisect import bisect_left
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.telemetry.histogram import Buckets
from loadgen.telemetry.instruments import GAP_BUCKETS, LATENCY_BUCKETS
from structbench.stats import percentile

BOUNDS = (1.0, 2.0, 5.0, inf)
values = st.lists(st.floats(0, 400, allow_nan=False), min_size=1, max_size=60)


def filled(observed: list[float], bounds: tuple[float, ...] = (*LATENCY_BUCKETS, inf)) -> Buckets:
    counts = tuple(float(sum(value <= bound for value in observed)) for bound in bounds)
    return Buckets(bounds, counts)


@pytest.mark.parametrize(
    ("counts", "q", "value"),
    [
        ((0, 0, 0, 0), 0.5, None),
        ((4, 4, 4, 4), 0.5, 0.5),  # the first bucket begins at 0
        ((4, 4, 4, 4), 1.0, 1.0),
        ((0, 10, 10, 10), 0.5, 1.5),
        ((0, 10, 10, 10), 0.0, 1.0),  # where the first of them may lie
        ((0, 1, 1, 1), 0.5, 1.5),  # one alone is taken for the middle of its bucket, as Prometheus does
        ((2, 2, 4, 4), 0.5, 1.0),  # at the edge of a bucket, not in the empty one after it
        ((2, 2, 4, 4), 0.75, 3.5),
        ((0, 0, 0, 3), 0.5, 5.0),  # above the last finite bound: that bound
        ((0, 0, 1, 100), 0.99, 5.0),
    ],
)
def test_quantiles_by_table(counts: tuple[float, ...], q: float, value: float | None) -> None:
    assert Buckets(BOUNDS, tuple(map(float, counts))).quantile(q) == (value if value is None else pytest.approx(value))


@given(values, st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0]), st.sampled_from([LATENCY_BUCKETS, GAP_BUCKETS]))
def test_a_percentile_is_within_one_bucket_of_the_exact_one(
    observed: list[float], q: float, finite: tuple[float, ...]
) -> None:
    read, exact = filled(observed, (*finite, inf)).quantile(q), percentile(observed, q)
    assert read is not None
    assert exact is not None
    ordered = sorted(observed)
    # The exact one is between two observations; ranks of the two definitions differ by at most one of them.
    place = q * (len(ordered) - 1)
    near = ordered[max(0, int(place) - 1)], ordered[min(len(ordered) - 1, int(place) + 1)]
    edges = (0.0, *finite)
    low, high = edges[max(0, bisect_left(finite, near[0]))], finite[min(len(finite) - 1, bisect_left(finite, near[1]))]
    assert min(low, finite[-1]) <= read <= high


@given(values, st.floats(0, 1), st.floats(0, 1))
def test_percentiles_rise(observed: list[float], p: float, q: float) -> None:
    histogram = filled(observed)
    low, high = histogram.quantile(min(p, q)), histogram.quantile(max(p, q))
    assert low is not None
    assert high is not None
    assert low <= high


@given(values, values)
def test_the_window_between_two_readings_holds_what_came_between(first: list[float], later: list[float]) -> None:
    window = filled(first + later).since(filled(first))
    assert window.counts == filled(later).counts


def test_a_new_process_begins_anew() -> None:
    assert filled([1.0]).since(filled([2.0, 3.0])) == filled([1.0])
    assert filled([1.0]).since(None) == filled([1.0])


def test_without_observations_nothing_is_known() -> None:
    empty = filled([])
    assert empty.quantile(0.5) is None


@pytest.mark.parametrize(("bounds", "counts"), [((), ()), ((1.0,), (1.0,)), ((1.0, inf), (1.0,))])
def test_no_histogram_without_its_last_bucket(bounds: tuple[float, ...], counts: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="infinite"):
        Buckets(bounds, counts)


@pytest.mark.parametrize("q", [-0.1, 1.1])
def test_a_share_beyond_all_is_a_mistake(q: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        filled([1.0]).quantile(q)

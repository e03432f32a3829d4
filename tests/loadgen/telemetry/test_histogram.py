"""Buckets: every value in exactly one, explicit and exponential, as OpenTelemetry's own would count them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.telemetry.histogram import (
    MAX_BUCKETS,
    SCALE,
    ZERO,
    Exemplar,
    Histogram,
    buckets_of,
    cumulative,
    explicit,
    exponential,
    exponential_index,
    fitted,
    gaps_of,
)
from loadgen.telemetry.instruments import GAP_BUCKETS, INSTRUMENTS, LAG_BUCKETS

values = st.lists(st.floats(1e-7, 1e6) | st.sampled_from([0.0, 1.0, 0.005, 2**-10]), min_size=1, max_size=40)


def filled(histogram: Histogram, numbers: Sequence[float]) -> Histogram:
    """One by one."""
    for number in numbers:
        histogram.add(np.array([number]))
    return histogram


@given(values)
def test_every_value_is_in_exactly_the_buckets_at_or_above_it(numbers: list[float]) -> None:
    got = {bound: n for bound, n, _ in cumulative(filled(explicit(GAP_BUCKETS), numbers), GAP_BUCKETS)}
    for bound in GAP_BUCKETS:
        assert got[str(bound)] == sum(number <= bound for number in numbers)
    assert got["+Inf"] == len(numbers)


@given(values)
def test_many_at_once_are_the_same_as_one_by_one(numbers: list[float]) -> None:
    for make in (exponential, lambda: explicit(GAP_BUCKETS)):
        one, all_ = filled(make(), numbers), make()
        all_.add(np.array(numbers))
        assert (one.counts, one.n, one.low, one.high) == (all_.counts, all_.n, all_.low, all_.high)
        assert one.total == pytest.approx(all_.total)


@given(st.floats(1e-9, 1e9))
def test_an_exponential_bucket_holds_its_value(number: float) -> None:
    index = exponential_index(number)
    base = 2 ** (2**-SCALE)
    assert base**index * (1 - 1e-9) < number <= base ** (index + 1) * (1 + 1e-9)


@given(values)
def test_what_is_pushed_fits_and_loses_nothing(numbers: list[float]) -> None:
    histogram = filled(exponential(), numbers)
    scale, first, counts = fitted(histogram)
    assert len(counts) <= MAX_BUCKETS
    assert sum(counts) + histogram.counts[ZERO] == len(numbers)
    for number in numbers:
        if number > 0:
            place = math.ceil(math.log2(number) * 2.0**scale) - 1 - first
            assert counts[place] > 0


def test_a_narrow_histogram_keeps_its_finest_buckets() -> None:
    scale, first, counts = fitted(filled(exponential(), [1.0, 1.5, 2.0]))
    assert (scale, first, sum(counts)) == (SCALE, -1, 3)


@pytest.mark.parametrize("numbers", [[0.0001, 0.3, 0.3, 250.0], [1.0, 2.0, 4.0], [0.0, 0.0, 5e-3], [7.7]])
def test_opentelemetry_would_count_the_same(numbers: list[float]) -> None:
    """Its histogram starts finer and ends as coarse as it must; brought to one scale the buckets are the same."""
    from opentelemetry.sdk.metrics import Histogram as Instrument
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import ExponentialHistogramDataPoint, InMemoryMetricReader
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

    reader = InMemoryMetricReader(preferred_aggregation={Instrument: ExponentialBucketHistogramAggregation()})
    provider = MeterProvider([reader], shutdown_on_exit=False)
    theirs = provider.get_meter("t").create_histogram("x")
    for number in numbers:
        theirs.record(number)
    data = reader.get_metrics_data()
    assert data is not None
    (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert isinstance(point, ExponentialHistogramDataPoint)
    ours = filled(exponential(), numbers)
    scale, first, counts = fitted(ours)

    def at(coarse: int, own_scale: int, offset: int, buckets: Sequence[int]) -> dict[int, int]:
        found: dict[int, int] = {}
        for place, n in enumerate(buckets):
            if n:
                index = (place + offset) >> (own_scale - coarse)
                found[index] = found.get(index, 0) + n
        return found

    coarse = min(scale, point.scale)
    assert at(coarse, scale, first, counts) == at(
        coarse, point.scale, point.positive.offset, point.positive.bucket_counts
    )
    assert (ours.n, ours.counts[ZERO], ours.low, ours.high) == (point.count, point.zero_count, point.min, point.max)
    assert ours.total == pytest.approx(point.sum)
    provider.shutdown()


def test_a_bucket_shows_its_latest_request_that_is_known() -> None:
    histogram = explicit((1.0, 2.0))
    first, second = Exemplar("r", 1, 0), Exemplar("r", 2, 0)
    histogram.exemplify(np.array([0.5, 1.5, 0.6]), [second, first, None])
    histogram.exemplify(np.array([0.4, 0.7]), [first, second])
    assert [found for _, _, found in cumulative(histogram, (1.0, 2.0))] == [(0.7, second), (1.5, first), None]


@given(st.lists(st.lists(st.integers(0, 10**12), min_size=2, max_size=9).map(sorted), min_size=1, max_size=9))
def test_gaps_are_within_streams_and_the_longest_is_each_stream_s(streams: list[list[int]]) -> None:
    gaps_s, longest_s = gaps_of([tuple(chunks) for chunks in streams])
    expected = [[(b - a) / 1e9 for a, b in pairwise(chunks)] for chunks in streams]
    assert gaps_s.tolist() == [gap for gaps in expected for gap in gaps]
    assert longest_s.tolist() == [max(gaps) for gaps in expected]


@given(st.lists(st.floats(0, 9.0), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_a_quantile_is_in_the_bucket_of_the_value_it_stands_for(numbers: list[float], p: float) -> None:
    found = buckets_of(filled(explicit(LAG_BUCKETS), numbers), LAG_BUCKETS).quantile(p)
    exact = sorted(numbers)[max(0, math.ceil(p * len(numbers) - 1e-9) - 1)]
    upper = next(bound for bound in LAG_BUCKETS if exact <= bound)
    lower = max((bound for bound in LAG_BUCKETS if bound < upper), default=0.0)
    assert found is not None
    assert lower * (1 - 1e-9) <= found <= upper * (1 + 1e-9)


def test_a_quantile_of_nothing_is_absent_and_of_the_endless_bucket_its_lower_end() -> None:
    assert buckets_of(explicit(LAG_BUCKETS), LAG_BUCKETS).quantile(0.99) is None
    assert buckets_of(filled(explicit(LAG_BUCKETS), [99.0]), LAG_BUCKETS).quantile(0.99) == LAG_BUCKETS[-1]


def test_buckets_serve_a_world_of_5_ms_and_one_of_5_min() -> None:
    """Between neighbours of the latency buckets at most a factor of 2, from below 5 ms to above 5 min."""
    for instrument in INSTRUMENTS:
        if instrument.unit == "s" and instrument.kind == "histogram":
            bounds = instrument.buckets
            assert list(bounds) == sorted(set(bounds))
    latency = next(i.buckets for i in INSTRUMENTS if i.name == "gen_ai.client.operation.duration")
    assert latency[0] < 0.005
    assert latency[-1] > 300
    assert max(b / a for a, b in pairwise(latency)) <= 2

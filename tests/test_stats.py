"""Percentiles agree with Python's, with DuckDB's, and with their own definition."""

from __future__ import annotations

import math
import statistics

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structbench.stats import percentile

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
    row = duckdb.execute(sql, [values]).fetchone()
    assert row is not None
    assert close(percentile(values, p), row[0])

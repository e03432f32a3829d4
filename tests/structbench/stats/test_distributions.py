"""Quantiles are scipy's, whose import the end of a load does without."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, t

from structbench.stats.distributions import binomial_quantile, student_quantile

CHANCES = st.sampled_from([0.005, 0.025, 0.05, 0.5, 0.95, 0.975, 0.995]) | st.floats(1e-4, 1 - 1e-4)


@given(CHANCES, st.integers(1, 50) | st.integers(1, 200_000), st.sampled_from([0.0, 0.05, 0.5, 0.9, 0.95, 0.99, 1.0]))
def test_a_binomial_quantile_is_that_of_scipy(q: float, n: int, p: float) -> None:
    found = binomial_quantile(q, n, p)
    assert binom.cdf(found, n, p) >= q * (1 - 1e-9)
    assert binom.cdf(found - 1, n, p) < q
    assert found - binom.ppf(q, n, p) in (0, -1), "of scipy, one more where rounding hides that a chance is reached"


@given(st.floats(0.5, 0.9999), st.integers(1, 150) | st.integers(1, 10**7))
def test_students_quantile_is_that_of_scipy(q: float, df: int) -> None:
    assert student_quantile(q, df) == pytest.approx(t.ppf(q, df), rel=1e-8, abs=1e-8)


def test_the_intervals_at_the_end_of_a_load_need_no_scipy() -> None:
    code = (
        "import sys, numpy; from structbench.stats import mean_estimate, percentile_estimate, wilson; "
        "values = numpy.random.default_rng(1).random(500); "
        "print(percentile_estimate(values, 0.5), mean_estimate(values), wilson(9, 10), 'scipy' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.endswith("False\n")

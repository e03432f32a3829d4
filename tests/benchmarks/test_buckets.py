"""What is read from live buckets is as near the truth as docs/live-metrics.md says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.buckets import KINDS, found


@pytest.mark.parametrize("kind", KINDS)
def test_percentiles_read_from_buckets_are_off_by_less_than_a_bucket_is_wide(kind: str) -> None:
    assert found(kind, "within 0.5 %", 10).max() <= 0.1
    spread = found(kind, "log-normal, 50 %", 10)
    assert spread.max() <= 0.1
    assert np.median(spread) <= 0.02

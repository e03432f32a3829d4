"""How requests failed: counted by kind and status, runs by themselves and together."""

from __future__ import annotations

from structbench.results.failures import Failure, together


def test_failures_of_several_runs_are_counted_together_by_kind_and_status() -> None:
    first = [Failure("http", 503, 3, "busy"), Failure("timeout", None, 1, "300 s")]
    second = [Failure("timeout", None, 4, "200 s"), Failure("http", 500, 1, "broken"), Failure("http", 503, 1, "later")]
    assert together([first, [], second]) == [
        Failure("timeout", None, 5, "300 s"), Failure("http", 503, 4, "busy"), Failure("http", 500, 1, "broken"),
    ]  # fmt: skip
    assert together([]) == []

"""Each "not decided" comes with the command that settles it, and how long that takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from structbench.gates.next_command import Settles, settles_of, together
from structbench.gates.slo import Gate

ROW: dict[str, Any] = {"status": "complete", "verdict": "valid", "requests": 30, "duration_s": 15.0,
                       "suite": "json", "scored": 30}  # fmt: skip
WORDS = ["--models", "m", "--suites", "json"]


def gate(slo: str = "error_rate<=5%", outcome: Any = "not decided", needs: int | None = 73, **more: Any) -> Gate:
    return Gate("m json c=1", slo, outcome, 0.0, 30, "", needs=needs, **more)


@pytest.mark.parametrize(("needs", "more", "seconds", "bounds"), [
    (73, 70, 35.0, ""),
    (2000, 2812, 1406.0, " --max-requests 2842 --max-time 29m"),
])  # fmt: skip
def test_it_goes_on_to_the_next_look_after_what_is_needed(needs: int, more: int, seconds: float, bounds: str) -> None:
    """What the default bounds do not allow is asked for."""
    found = settles_of([gate(needs=needs), gate("correct>=90%", "met")], ROW, WORDS)
    command = "structbench load --models m --suites json --slo 'error_rate<=5%' 'correct>=90%' --skip-cached"
    assert found == Settles(command + bounds, more, seconds)


def test_requests_that_a_figure_does_not_count_are_asked_for_too() -> None:
    """Of 80 requests 50 were steady: 20 more made 70 of the 72 that a p95 takes."""
    found = settles_of([replace(gate("ttft_p95<=1s", needs=72), n=50)], {**ROW, "requests": 80}, WORDS)
    assert found is not None
    assert found.more == 45


def test_what_is_exact_is_decided_at_the_first_ordinary_look() -> None:
    found = settles_of([gate("error_rate<=0", needs=None)], ROW, WORDS)
    assert found is not None
    assert (found.more, found.at_most) == (70, False)


def test_it_says_how_many_and_how_long() -> None:
    assert (
        Settles("structbench load", 70, 35.0).text == "about 70 more requests (35 s here) settle it: structbench load"
    )
    assert Settles("x", 970, 300.0, at_most=True).text == "up to 970 more requests (5 min 00 s here) may settle it: x"
    assert Settles("x", None, 15.0).text == "to settle it (15 s here): x"
    assert Settles(None, None, None).text == "to settle it: the same load with --skip-cached --until settled"


def test_a_decided_rule_needs_no_command() -> None:
    assert settles_of([gate(outcome="met"), gate(outcome="skip")], ROW, WORDS) is None
    assert settles_of([gate(outcome="not met"), gate()], ROW, WORDS) is None


def test_no_load_decides_a_rule_that_does_not_apply() -> None:
    assert settles_of([gate(outcome="skip", applies=False)], ROW, WORDS) is None
    assert settles_of([gate(needs=None, applies=False), gate("itl_p50<1", "met")], ROW, WORDS) is None
    assert settles_of([gate(needs=None, applies=False), gate("itl_p50<1")], ROW, WORDS) is not None


@pytest.mark.parametrize(("has", "more", "seconds", "bounds"), [
    (30, 970, 300.0, " --max-time 6m"), (1000, 1000, 15.0, " --max-requests 2000"), (3, 997, None, ""),
])  # fmt: skip
def test_where_nothing_tells_how_many_it_takes_the_bounds_do(
    has: int, more: int, seconds: float | None, bounds: str
) -> None:
    """Neighbours that are alike: the same command would be skipped where the run has as many as its default."""
    row = {**ROW, "requests": has, "duration_s": None if seconds is None else 15.0}
    found = settles_of([gate(needs=None)], row, WORDS)
    command = "structbench load --models m --suites json --slo 'error_rate<=5%' --skip-cached"
    assert found == Settles(command + bounds, more, seconds, at_most=True)


def test_an_invalid_measurement_is_made_again() -> None:
    found = settles_of([gate()], {**ROW, "verdict": "invalid"}, WORDS)
    assert found == Settles("structbench load --models m --suites json --slo 'error_rate<=5%'", None, 15.0)


def test_what_is_settled_is_the_rule_that_is_judged_and_not_the_one_of_the_load() -> None:
    """Files hold commands with the rule of the load that made the run, and with what ends it early."""
    kept = ["--models", "m", "--slo", "correct>=99%", "ttft_p50<=1s", "--abort-on-slo", "--label=-x", "--label=y"]
    found = settles_of([gate()], ROW, kept, Path("my results.duckdb"))
    assert found is not None
    assert found.command == (
        "structbench load --models m --label=-x --label=y --slo 'error_rate<=5%' --db 'my results.duckdb' --skip-cached"
    )
    default = [gate("correct>=90%"), gate("ttft_p95<=1s", "met"), gate("error_rate<=5%", "met")]
    found = settles_of(default, ROW, kept)
    assert found is not None
    assert found.command == "structbench load --models m --label=-x --label=y --skip-cached"


@pytest.mark.parametrize(("suite", "scored", "until"), [
    ("mine", 0, " --until settled"), ("mine", 30, ""), ("text", 0, ""),
])  # fmt: skip
def test_a_suite_that_ends_by_itself_is_told_to_go_on(suite: str, scored: int, until: str) -> None:
    """A file of one's own without scores asks for one request a case: the command was skipped as complete."""
    found = settles_of([gate()], {**ROW, "suite": suite, "scored": scored}, WORDS)
    assert found is not None
    assert found.command == f"structbench load --models m --suites json --slo 'error_rate<=5%'{until} --skip-cached"


LOAD = "structbench load --models m --suites"


def test_suites_and_loads_are_settled_by_one_command_with_the_largest_bounds() -> None:
    one = Settles(f"{LOAD} json --concurrency 1 --skip-cached", 50, 5.0)
    two = Settles(f"{LOAD} tools --concurrency 1 --skip-cached", 20, 1.0)
    more = [Settles(f"{LOAD} {suite} --concurrency 4 --skip-cached", 5, 1.0) for suite in ("json", "tools")]
    assert together([one, two]) == [Settles(f"{LOAD} json tools --concurrency 1 --skip-cached", 70, 6.0)]
    assert together([one, two, *more]) == [Settles(f"{LOAD} json tools --concurrency 1 4 --skip-cached", 80, 8.0)]
    # Not four cells of the three that are open.
    assert len(together([one, two, more[0]])) == 2
    long = Settles(f"{LOAD} tools --concurrency 1 --skip-cached --max-requests 2000 --max-time 90m", 9, 1.0)
    longer = Settles(f"{LOAD} text --concurrency 1 --skip-cached --max-requests 1500 --max-time 2h", 9, 1.0, True)
    assert together([one, long, longer]) == [Settles(
        f"{LOAD} json tools text --concurrency 1 --skip-cached --max-requests 2000 --max-time 2h", 68, 7.0, True
    )]  # fmt: skip
    again = Settles(f"{LOAD} tools --concurrency 1", None, 9.0)
    assert together([one, again, one]) == [one, again]
    assert together([one, Settles(None, None, None)]) == [one, Settles(None, None, None)]

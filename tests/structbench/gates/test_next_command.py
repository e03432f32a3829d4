"""Each "not decided" comes with the command that settles it, and how long that takes."""

from __future__ import annotations

from typing import Any

from structbench.gates.next_command import Settles, settles_of, together
from structbench.gates.slo import Gate

ROW: dict[str, Any] = {"status": "complete", "verdict": "valid", "requests": 30, "duration_s": 15.0}
WORDS = ["--models", "m", "--suites", "json"]


def gate(outcome: Any = "not decided", needs: int | None = 73) -> Gate:
    return Gate("m json c=1", "error_rate<=5%", outcome, 0.0, 30, "", needs=needs)


def test_it_goes_on_to_the_next_look_after_what_is_needed() -> None:
    found = settles_of([gate(), gate("met")], ROW, WORDS)
    assert found == Settles("structbench load --models m --suites json --skip-cached", 70, 35.0)
    assert found.text == (
        "about 70 more requests (35 s here) settle it: structbench load --models m --suites json --skip-cached"
    )


def test_what_the_default_bounds_do_not_allow_is_asked_for() -> None:
    found = settles_of([gate(needs=2000)], ROW, WORDS)
    assert found is not None
    assert found.command == (
        "structbench load --models m --suites json --skip-cached --max-requests 2842 --max-time 29m"
    )


def test_a_decided_rule_needs_no_command() -> None:
    assert settles_of([gate("met"), gate("skip")], ROW, WORDS) is None
    assert settles_of([gate("not met"), gate()], ROW, WORDS) is None


def test_where_nothing_tells_how_many_the_load_goes_on_by_itself() -> None:
    assert settles_of([gate(needs=None)], ROW, WORDS) == Settles(
        "structbench load --models m --suites json --skip-cached", None, None
    )


def test_an_invalid_measurement_is_made_again() -> None:
    found = settles_of([gate()], {**ROW, "verdict": "invalid"}, WORDS)
    assert found == Settles("structbench load --models m --suites json", None, None)


def test_a_run_that_did_not_keep_its_command_is_told_so() -> None:
    found = settles_of([gate()], ROW, None)
    assert found is not None
    assert found.text.endswith("the same load with --skip-cached --until settled")


def test_suites_of_one_load_are_settled_by_one_command() -> None:
    one = Settles("structbench load --models m --suites json --skip-cached", 50, 5.0)
    two = Settles("structbench load --models m --suites tools --skip-cached", 20, 1.0)
    assert together([one, two]) == Settles("structbench load --models m --suites json tools --skip-cached", 70, 6.0)
    longer = Settles("structbench load --models m --suites tools --skip-cached --max-requests 2000", 9, 1.0)
    assert together([one, longer]) == one
    assert together([one, Settles(None, None, None)]) == one
    assert together([one]) == one

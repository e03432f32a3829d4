"""A load that ends once its rule is decided: when it is looked at, and what ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.engine import Orders
from loadgen.simulator import PROFILES, Simulator
from structbench.errors import RunFailed
from structbench.gates.expressions import parse_slo
from structbench.gates.settled import Decision
from structbench.gates.slo import DEFAULT_RULE, Judgement
from structbench.options import LoadOptions
from structbench.run.settling import Settling, column_of
from structbench.suites.answer_book import answer_book
from tests.support.loads import ask, load


def settling(states: Sequence[Judgement], **more: float) -> tuple[Settling, list[int]]:
    """Looks that say this one after another, and a list that grows with each."""
    looked: list[int] = []

    def look() -> Decision:
        looked.append(1)
        return Decision(states[min(len(looked), len(states)) - 1], (), 80)

    rule = [parse_slo("requests_per_s>1")]
    made = Settling(rule, 1, look, more.get("most_s", 100.0), int(more.get("least", 0)))
    made.rows |= {index: {} for index in range(int(more.get("rows", 0)))}
    made.begin(Orders())
    return made, looked


def told(made: Settling, rows: int) -> None:
    for index in range(len(made.rows), rows):
        made.note({"request_index": index})
        if made._busy is not None:
            made._busy.join()


def test_it_looks_when_there_are_rows_enough_and_ends_once_decided() -> None:
    made, looked = settling(["not decided", "not decided", "met"])
    told(made, 19)
    assert (len(looked), made.orders.enough) == (1, False)
    told(made, 100)
    assert (len(looked), made.orders.enough) == (3, True)


def test_a_run_that_goes_on_is_looked_at_again_later_than_it_was() -> None:
    made, looked = settling(["not decided"], rows=80)
    told(made, 99)
    assert not looked
    told(made, 100)
    assert looked


def test_nothing_is_looked_at_before_there_is_a_steady_part() -> None:
    made, looked = settling(["met"], least=48)
    told(made, 47)
    assert not looked
    told(made, 48)
    assert made.orders.enough


def test_it_ends_when_its_time_is_up() -> None:
    made, _ = settling(["not decided"], most_s=-1.0)
    made.watch_time()
    assert made.orders.enough


def test_a_look_is_at_the_rows_as_they_come() -> None:
    def look() -> Decision:
        raise AssertionError("not asked")

    made = Settling([parse_slo(text) for text in DEFAULT_RULE], 1, look, 100.0)
    made.begin(Orders())
    answered = {"error_kind": None, "outcome": "correct", "accuracy_score": 1.0}
    for index in range(80):
        assert not made.orders.enough
        made.note({"request_index": index, "ttft_s": 0.1 + index * 37 % 80 / 1000, **answered})
    assert made.orders.enough


def test_a_database_in_use_delays_the_look_only() -> None:
    def look() -> Decision:
        raise RunFailed("held")

    made = Settling([parse_slo("requests_per_s>1")], 1, look, 100.0)
    made.begin(Orders())
    told(made, 10)
    assert not made.orders.enough


def test_what_is_kept_says_what_is_open_and_by_which_interval() -> None:
    assert column_of(Decision("not decided", ("correct>=90%",), 100)) == {
        "open": ["correct>=90%"], "requests": 100, "state": "not decided", "confidence": 0.99
    }  # fmt: skip


STATES = "SELECT model, settled ->> '$.state', (settled ->> '$.requests')::INT FROM runs ORDER BY model"
PACED = replace(PROFILES["sim:fast"], service_s=0.02)


@pytest.mark.slow
def test_a_perfect_model_takes_80_requests_and_a_hopeless_one_10(tmp_path: Path) -> None:
    """By its figures: whether the client was quick enough on this machine is the verdict's business."""
    models = {"right": PACED, "wrong": replace(PACED, json_shares={"invalid_json": 1.0})}
    db = tmp_path / "s.duckdb"
    with Simulator(models, answers=answer_book()) as simulator:
        options = LoadOptions(models=[*models], suites=["json"], host=simulator.url, db=db, metrics_port=0,
                              slo=["correct>=90%", "error_rate<=5%"], skip_cached=True)  # fmt: skip
        load(options)
        (_, right, held), (_, wrong, few) = ask(db, STATES)
        assert (right, wrong) == ("met", "not met")
        assert 80 <= held < 200
        assert 10 <= few < 80
        assert [row["cache"] for row in load(options).rows] == ["skipped", "skipped"]


@pytest.mark.slow
def test_30_requests_are_added_to_until_they_decide(tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"

    def run(**more: object) -> list[tuple[int, ...]]:
        load(LoadOptions(**{"models": ["paced"], "suites": ["numbers"], "host": simulator.url, "db": db,
                            "metrics_port": 0, "skip_cached": True, "slo": ["correct>=90%", "error_rate<=5%"],
                            **more}))  # fmt: skip
        return ask(db, "SELECT count(*)::INT, count(DISTINCT run_id)::INT FROM requests")

    with Simulator({"paced": PACED}, answers=answer_book()) as simulator:
        assert run(requests=30) == [(30, 1)]
        assert run(requests=60) == [(60, 1)]
        ((held, runs),) = run()
        assert 80 <= held < 200
        assert runs == 1
        assert run() == [(held, 1)]

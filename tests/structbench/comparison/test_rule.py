"""Load, report and compare judge one rule with one result, also what the looks at a load left open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from structbench.comparison.pairing import pair
from structbench.comparison.rule import rule_note
from structbench.gates.expressions import parse_slo
from structbench.gates.slo import DEFAULT_RULE, CellResult, judge_all, state_of
from structbench.reports.headline import headline_of
from structbench.results.figures import Figures, figures_of
from structbench.results.groups import RunGroup, run_groups
from structbench.store import Reader
from tests.support.comparisons import database, requests

RULE = [parse_slo(text) for text in DEFAULT_RULE]
OPEN = {"state": "not decided", "open": ["correct>=90%"], "requests": 100, "confidence": 0.99}
RUNS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "right": (requests(100), {}, "met"),
    "wrong": (requests(100, wrong=range(60)), {}, "not met"),
    "few": (requests(30), {}, "not decided"),
    "interrupted": (requests(100), {"status": "interrupted"}, "not decided"),
    "looked": (requests(100, wrong=range(3)), {"settled": OPEN}, "not decided"),
    "looked-and-more": (requests(100, wrong=range(3)), {"settled": {**OPEN, "requests": 80}}, "met"),
}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    runs = {name: (rows, run) for name, (rows, run, _) in RUNS.items()}
    with Reader(database(tmp_path_factory.mktemp("rule") / "a.duckdb", other=(requests(80), {}), **runs)) as opened:
        yield opened


@pytest.fixture(scope="module")
def groups(reader: Reader) -> dict[str, RunGroup]:
    return {group.run_ids[0]: group for group in run_groups(reader, [*RUNS, "other"], pool=False)}


@pytest.fixture(scope="module")
def figures(reader: Reader, groups: dict[str, RunGroup]) -> dict[int, Figures]:
    return figures_of(reader, [*groups.values()], None)


@pytest.mark.parametrize("name", RUNS)
def test_one_rule_has_one_result_everywhere(
    name: str, reader: Reader, groups: dict[str, RunGroup], figures: dict[int, Figures]
) -> None:
    state, group, other = RUNS[name][2], groups[name], groups["other"]
    (row,) = reader.query("SELECT * FROM summary WHERE run_id = $1", [name])
    after_load = CellResult(name, row)
    judge_all([], reader, [after_load])
    assert after_load.state == state
    assert not after_load.gates, "the default rule fails nothing"
    judge_all(RULE, reader, [after_load])
    assert state_of(after_load.gates) == state
    headline = headline_of([group], figures, RULE)
    assert headline.state == state
    assert bool(headline.candidates[0].settles) == (state == "not decided")
    (found,) = pair([group], [other]).pairs
    said = {"met": ("is met by A", "is met by both sides"), "not met": ("is not met by A", "is met by neither side"),
            "not decided": ("is not decided for A", "is decided for neither")}[state]  # fmt: skip
    note = rule_note((reader, reader), found, RULE)
    assert any(each in note for each in said)

"""Our verdicts against those of BFCL's own checker, on BFCL's own data: skipped without the bfcl-eval wheel."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from structbench.scoring.validation import schema_problem
from structbench.suites.bfcl import CATEGORIES, _files, _installed, load_bfcl
from structbench.suites.reading import lines_of, read_bytes
from structbench.types import Case
from tests.support.bfcl_peer import Call, installed, load_checker, mutants, recorded, verdict_of_ours, verdict_of_peer

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(installed() is None, reason="needs `pip install --no-deps bfcl-eval`"),
]

SCORED = [category for category in CATEGORIES if not category.endswith("relevance")]
IMPOSSIBLE = {
    "live_simple_106-63-0": "a required argument has no acceptable value",
    "live_simple_112-68-0": "required arguments have no acceptable value",
    "live_multiple_862-181-3": "an argument must be given that the function does not have",
    "live_multiple_964-207-0": "an argument must be given that the function does not have",
}
"""Cases of which BFCL itself takes no call for right (docs/scoring.md)."""
STEP = 4
"""Of so many cases one is changed: together still more than 3,000 calls."""

Work = list[tuple[Case, dict[str, Any], Any]]


@pytest.fixture(scope="module")
def check() -> Callable[..., Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_checker()


@pytest.fixture(scope="module")
def work() -> Work:
    """Each case with its entry and its ground truth as BFCL has them."""
    folder = _installed()
    found: Work = []
    for category in SCORED:
        file = _files(folder)[category]
        entries = [json.loads(line) for _, line in lines_of(read_bytes(file))]
        truths = [json.loads(line)["ground_truth"] for _, line in lines_of(read_bytes(_answers(folder, file)))]
        found += zip(load_bfcl(category).cases, entries, truths, strict=True)
    return found


def _answers(folder: Any, file: Any) -> Any:
    return folder / "possible_answer" / file.name


def test_every_recorded_answer_is_correct_but_for_those_that_cannot_be(check: Any, work: Work) -> None:
    assert len(work) == 2351
    wrong = {case.id for case, _, _ in work if not verdict_of_ours(case, recorded(case))}
    assert wrong == set(IMPOSSIBLE)
    for case, entry, truth in work:
        if case.id in IMPOSSIBLE:
            assert not verdict_of_peer(check, entry, truth, recorded(case))


def test_cases_without_a_call_to_be_made_are_scored_by_whether_one_was() -> None:
    for category in ("irrelevance", "live_irrelevance", "live_relevance"):
        for case in load_bfcl(category).cases[:50]:
            assert verdict_of_ours(case, []) is (category != "live_relevance")
            call = {"name": "anything", "arguments": {}}
            assert verdict_of_ours(case, [call]) is (category == "live_relevance")


def test_changed_calls_get_the_peers_verdict(check: Any, work: Work) -> None:
    """At least 99.5 % of more than 3,000 calls; what differs is of a kind that is explained."""
    rng = Random(20250323)
    compared: Counter[str] = Counter()
    peers_right: Counter[bool] = Counter()
    differing: list[tuple[str, str, list[Call]]] = []
    for case, entry, truth in work[::STEP]:
        for kind, calls in mutants(case, rng):
            ours, theirs = verdict_of_ours(case, calls), verdict_of_peer(check, entry, truth, calls)
            compared[kind] += 1
            peers_right[theirs] += 1
            if ours is not theirs:
                differing.append((kind, case.id, calls))
    total = compared.total()
    assert total > 3000
    assert min(peers_right.values()) > 1000, "one of the two verdicts is hardly tested"
    assert len(differing) <= 0.005 * total, differing
    assert {kind for kind, _, _ in differing} == {"5.0 as 5"}, differing


def functions(**properties: Any) -> list[dict[str, Any]]:
    parameters = {"type": "dict", "properties": properties, "required": []}
    return [{"name": "f", "description": "", "parameters": parameters}]


def case_of(entry: dict[str, Any], truth: list[dict[str, Any]]) -> Case:
    from structbench.suites.bfcl import _tools

    tools, names = _tools(entry["function"], "here")
    expected = tuple({"name": name, "arguments": args} for call in truth for name, args in call.items())
    return Case(id="x", messages=(), tools=tools, function_names=names, expected_calls=expected, matching="bfcl")


def departures() -> Iterator[Any]:
    """The examples of docs/scoring.md: functions, ground truth, calls, our verdict, the peer's."""
    yield pytest.param(
        functions(a={"type": "string"}), [{"f": {"a": ["x", "y"]}}, {"f": {"a": ["x"]}}], [{"a": "x"}, {"a": "y"}],
        True, False, id="greedy pairing",
    )  # fmt: skip
    yield pytest.param(
        functions(a={"type": "array", "items": {"type": "float"}}), [{"f": {"a": [[5.0, 2.5]]}}], [{"a": [5, 2.5]}],
        True, False, id="whole numbers in a list of floats",
    )  # fmt: skip
    yield pytest.param(
        functions(a={"type": "dict"}), [{"f": {"a": [{"n": [1]}]}}], [{"a": {"n": True}}], False, True,
        id="true for 1 in an object",
    )  # fmt: skip
    yield pytest.param(
        functions(a={"type": "array", "items": {"type": "dict"}}), [{"f": {"a": [["v"]]}}], [{"a": ["v"]}],
        False, None, id="no object where one is due",
    )  # fmt: skip


@pytest.mark.parametrize(("described", "truth", "arguments", "ours", "theirs"), [*departures()])
def test_each_documented_departure_is_one(
    check: Any, described: Any, truth: Any, arguments: Any, ours: bool, theirs: bool | None
) -> None:
    entry = {"id": "parallel_0", "function": described}
    calls = [{"name": "f", "arguments": each} for each in arguments]
    assert verdict_of_ours(case_of(entry, truth), calls) is ours
    if theirs is None:
        with pytest.raises(AttributeError):
            check(described, [{"f": each} for each in arguments], truth, "parallel")
    else:
        assert verdict_of_peer(check, entry, truth, calls) is theirs


def test_every_tool_that_is_sent_has_a_sound_schema_and_a_name_that_servers_take() -> None:
    for category in CATEGORIES:
        for case in load_bfcl(category).cases[::16]:
            for tool in case.tools:
                function = tool["function"]
                assert schema_problem(function["parameters"]) is None, case.id
                assert len(function["name"]) <= 64
                assert function["name"].replace("_", "").replace("-", "").isalnum()

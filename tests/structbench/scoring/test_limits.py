"""Hostile schemas and answers: each ends in a verdict or in ``unscored`` with the reason, and scoring goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from structbench.scoring import Answer, score
from structbench.scoring.process import Scorer
from structbench.types import Case, Score

LIMIT_S = 60.0
"""Of CPU time: far more than any of these takes that is not endless."""
SHORT_LIMIT_S = 0.2
TREE = {"$ref": "#/$defs/t", "$defs": {"t": {"type": "object", "properties": {"a": {"$ref": "#/$defs/t"}}}}}
FORK = {
    "$ref": "#/$defs/t",
    "$defs": {
        "t": {
            "anyOf": [
                {"properties": {"a": {"$ref": "#/$defs/t"}}, "required": [name]} for name in ("never", "nowhere")
            ],
        },
    },
}
"""Each level is tried twice."""


def nested(depth: int) -> str:
    return '{"a":' * depth + "{}" + "}" * depth


def submitted(scorer: Scorer, schema: Any, text: str) -> Score:
    """The score that comes back from the scoring process, and that of an answer after it."""
    scores.clear()
    scorer.submit("hostile", Case(id="x", messages=(), schema=schema), Answer(text, (), "stop"))
    scorer.submit("next", Case(id="y", messages=(), expected_text="7"), Answer("7", (), "stop"))
    assert scorer.drain(60)
    assert scores["next"].outcome == "correct"
    return scores["hostile"]


scores: dict[str, Any] = {}


def running(time_limit_s: float) -> Iterator[Scorer]:
    with Scorer(scores.__setitem__, time_limit_s=time_limit_s) as running:
        assert running.wait_ready(60)
        yield running


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    yield from running(LIMIT_S)


@pytest.fixture(scope="module")
def impatient() -> Iterator[Scorer]:
    yield from running(SHORT_LIMIT_S)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"pattern": "^(a+)+$"}, json.dumps("a" * 60 + "!")),
        ({"patternProperties": {"^(a|a)*$": {}}}, json.dumps({"a" * 60 + "!": 1})),
        (FORK, nested(60)),
        ({"items": {"enum": [*range(5000)]}}, json.dumps([*range(5000)])),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.slow
def test_what_takes_too_long_to_judge_is_unscored(impatient: Scorer, schema: Any, text: str) -> None:
    assert_unscored(impatient, schema, text, "scoring took longer than 0.2 s of CPU time")


@pytest.mark.parametrize(
    ("schema", "text", "reason"),
    [
        ({"$ref": "#"}, "1", "the schema cannot be applied: RecursionError"),
        ({"properties": {"a": 1}}, "{}", "/properties/a: type: in the schema: 1 is not of type 'object', 'boolean'"),
        ({"pattern": "("}, '"x"', "in the schema: '(' is not a 'regex'"),
        ({"$ref": "http://127.0.0.1:9/x"}, "1", "Unresolvable: http://127.0.0.1:9/x"),
        ({}, json.dumps("x" * 4_000_000), "the answer is larger than 4000000 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_judged_within_the_limits_is_unscored(
    scorer: Scorer, schema: Any, text: str, reason: str
) -> None:
    assert_unscored(scorer, schema, text, reason)


def assert_unscored(scorer: Scorer, schema: Any, text: str, reason: str) -> None:
    child = scorer._child
    result = submitted(scorer, schema, text)
    assert (result.outcome, result.accuracy_score, result.schema_valid) == ("unscored", None, None)
    assert reason in result.validation_errors[0]
    assert scorer._child is child, "the process had to be replaced"


def test_a_schema_too_deep_to_be_handed_over_is_unscored(scorer: Scorer) -> None:
    schema: dict[str, Any] = {}
    for _ in range(2000):
        schema = {"not": schema}
    result = submitted(scorer, schema, "1")
    assert result.outcome == "unscored"
    # Python 3.13 hands it over, and it is the validator that gives up.
    assert re.search("RecursionError|nested too deeply", result.validation_errors[0])


OBJECTS = [{"id": i, "tags": [i, True, str(i)]} for i in range(10_000)]


@pytest.mark.parametrize(
    ("schema", "text", "outcome", "about"),
    [
        (TREE, nested(99), "correct", ""),
        (TREE, nested(101), "invalid_json", "nested deeper than 100 levels"),
        (TREE, '{"a":' * 100_000, "invalid_json", "nested deeper than 100 levels"),
        ({"minLength": 9}, json.dumps("x" * 1_000_000), "correct", ""),
        ({"type": "array", "anyOf": [{"required": ["a"]}] * 9}, json.dumps("x" * 1_000_000), "schema_violation", ""),
        ({"items": {"type": "object"}}, json.dumps([*range(100_000)]), "schema_violation", "/0: type: 0 is not of"),
        ({"uniqueItems": True}, json.dumps(OBJECTS), "correct", ""),
        ({"uniqueItems": True}, json.dumps([*OBJECTS, OBJECTS[0]]), "schema_violation", "has non-unique elements"),
        ({"uniqueItems": True}, json.dumps([1, True, "1", [1], [True], 0, False]), "correct", ""),
        ({"uniqueItems": True}, "[[1], [true], [1.0]]", "schema_violation", "has non-unique elements"),
        ({}, '{"a": NaN}', "invalid_json", "NaN is not JSON"),
        ({}, '{"a": 1, "a": 2}', "invalid_json", 'duplicate member name "a"'),
        ({"maxLength": 1}, '"\\ud800"', "correct", ""),
        ({"additionalProperties": False}, '{"\\udfff": 1}', "schema_violation", "'\\udfff' was unexpected"),
        ({"multipleOf": 1e-300}, "1e300", "correct", ""),
        ({"multipleOf": 7e-300}, "1e300", "schema_violation", "is not a multiple of 7e-300"),
        ({"multipleOf": 7}, "1" * 302, "schema_violation", "is not a multiple of 7"),
        ({"format": "date-time"}, json.dumps("2" * 1_000_000), "schema_violation", "is not a 'date-time'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_only_large_or_odd_is_judged(schema: Any, text: str, outcome: str, about: str) -> None:
    result = score(Case(id="x", messages=(), schema=schema), Answer(text, (), "stop"))
    assert result is not None
    assert result.outcome == outcome
    assert about in " ".join((*result.validation_errors, str(result.json_parse_error)))

"""Instances made to fit a schema are valid; one that breaks a single keyword is caught, and that keyword named.

The strategies are our own: hypothesis-jsonschema (0.23.1, of 2024) does not work with today's hypothesis.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_specifications import REGISTRY

from structbench.scoring import Answer, score
from structbench.scoring.validation import schema_problem
from structbench.types import Case, Score

integers, letters, names = st.integers(-99, 99), st.text("abcä ", max_size=6), st.text("xyz", min_size=1, max_size=3)
scalars = st.none() | st.booleans() | integers | letters
OBJECT: dict[str, Any] = {"type": "object"}
ARRAY: dict[str, Any] = {"type": "array"}
NUMBER: dict[str, Any] = {"type": "number"}
STRING: dict[str, Any] = {"type": "string"}


def one_more(value: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {**value, **members}


KEYWORDS: dict[str, tuple[dict[str, Any], st.SearchStrategy[Any], Callable[[Any], Any]]] = {
    "type": ({"type": ["integer", "null"]}, st.none() | integers, str),
    "enum": ({"enum": ["a", "b", 3]}, st.sampled_from(["a", "b", 3, 3.0]), lambda _: "c"),
    "const": ({"const": {"a": 1}}, st.just({"a": 1.0}), lambda _: {"a": True}),
    "minimum": ({**NUMBER, "minimum": 5}, st.integers(5, 99), lambda _: 4.999),
    "maximum": ({**NUMBER, "maximum": 5}, st.integers(-9, 5), lambda _: 5.000001),
    "exclusiveMinimum": ({**NUMBER, "exclusiveMinimum": 0}, st.floats(0.001, 9), lambda _: 0),
    "exclusiveMaximum": ({**NUMBER, "exclusiveMaximum": 7}, st.floats(-9, 6.9), lambda _: 7.0),
    "multipleOf": ({**NUMBER, "multipleOf": 3}, integers.map(lambda n: 3 * n), lambda value: value + 1),
    "minLength": ({**STRING, "minLength": 3}, st.text("aä\U0001f600", min_size=3), lambda value: value[:2]),
    "maxLength": ({**STRING, "maxLength": 8}, st.text("aä\U0001f600", max_size=8), lambda value: value + "too much!"),
    "pattern": ({**STRING, "pattern": "^[a-z]{2,5}$"}, st.from_regex("[a-z]{2,5}", fullmatch=True), str.upper),
    "format": ({**STRING, "format": "date"}, st.dates().map(str), lambda value: value[:8] + "32"),
    "minItems": ({**ARRAY, "minItems": 2}, st.lists(scalars, min_size=2, max_size=4), lambda value: value[:1]),
    "maxItems": ({**ARRAY, "maxItems": 4}, st.lists(scalars, max_size=4), lambda value: [*value, *range(5)]),
    "uniqueItems": (
        {**ARRAY, "uniqueItems": True}, st.lists(letters, min_size=1, max_size=4, unique=True),
        lambda value: [*value, value[0]],
    ),
    "contains": (
        {**ARRAY, "contains": {"const": 7}}, st.lists(scalars, max_size=3).map(lambda v: [*v, 7]), lambda _: [6],
    ),
    "maxContains": ({**ARRAY, "contains": {"const": 7}, "maxContains": 1}, st.just([7, 8]), lambda value: [*value, 7]),
    "required": (
        {**OBJECT, "required": ["a"]}, st.dictionaries(names, scalars).map(lambda v: one_more(v, a=1)),
        lambda value: {name: member for name, member in value.items() if name != "a"},
    ),
    "additionalProperties": (
        {**OBJECT, "properties": {"a": NUMBER}, "additionalProperties": False}, st.just({}) | st.just({"a": 1}),
        lambda value: one_more(value, b=1),
    ),
    "unevaluatedProperties": (
        {**OBJECT, "allOf": [{"properties": {"a": NUMBER}}], "unevaluatedProperties": False}, st.just({"a": 1}),
        lambda value: one_more(value, b=1),
    ),
    "minProperties": ({**OBJECT, "minProperties": 1}, st.dictionaries(names, scalars, min_size=1), lambda _: {}),
    "maxProperties": (
        {**OBJECT, "maxProperties": 2}, st.dictionaries(names, scalars, max_size=2),
        lambda value: one_more(value, a=1, b=2, c=3),
    ),
    "dependentRequired": (
        {**OBJECT, "dependentRequired": {"a": ["b"]}}, st.just({"b": 1}) | st.just({"a": 1, "b": 2}),
        lambda _: {"a": 1},
    ),
    "anyOf": ({"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, integers | st.booleans(), lambda _: "x"),
    "oneOf": ({"oneOf": [NUMBER, {"const": 0}]}, st.integers(1, 9), lambda _: 0),
    "not": ({"not": {"minimum": 10}}, st.integers(-9, 9), lambda _: 11),
}  # fmt: skip
"""Keyword -> a schema with it, values that fit, and how to change one so that this keyword alone is broken."""
Inside = tuple[Any, Callable[[Any], Any], str]
"""A schema around another one, what makes an inner value an outer one, and the JSON pointer from one to the other."""


def placed(schema: Any) -> st.SearchStrategy[Inside]:
    """The schema somewhere inside objects and arrays."""

    def around(inner: st.SearchStrategy[Inside]) -> st.SearchStrategy[Inside]:
        def member(one: Inside) -> Inside:
            outer = {"type": "object", "properties": {"it/": one[0]}, "required": ["it/"]}
            return outer, lambda value: {"other": 1, "it/": one[1](value)}, f"/it~1{one[2]}"

        def item(one: Inside) -> Inside:
            return {"items": one[0], "maxItems": 1}, lambda value: [one[1](value)], f"/0{one[2]}"

        return inner.map(member) | inner.map(item)

    bare: Inside = (schema, lambda value: value, "")
    return st.recursive(st.just(bare), around, max_leaves=3)


def judged(schema: Any, value: Any) -> Score:
    result = score(Case(id="x", messages=(), schema=schema), Answer(json.dumps(value), (), "stop"))
    assert result is not None
    return result


@pytest.mark.parametrize("keyword", KEYWORDS)
@settings(max_examples=15, database=None)
@given(data=st.data())
def test_an_instance_is_valid_and_breaking_one_keyword_names_it(keyword: str, data: st.DataObject) -> None:
    inner, fitting, broken = KEYWORDS[keyword]
    schema, wrap, pointer = data.draw(placed(inner))
    value = data.draw(fitting)
    valid = judged(schema, wrap(value))
    assert (valid.outcome, valid.schema_valid, valid.violated_keywords) == ("correct", True, ())
    result = judged(schema, wrap(broken(value)))
    assert (result.outcome, result.violated_keywords) == ("schema_violation", (keyword,))
    assert result.validation_errors[0].startswith(f"{pointer if pointer else '(root)'}: {keyword}: ")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2, width=16) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=2),
    max_leaves=4,
)


def equal(one: Any, other: Any) -> bool:
    """Equality as JSON Schema has it, the slow way."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    return bool(one == other)


@settings(max_examples=200, database=None)
@given(st.lists(values, max_size=6))
def test_unique_items_are_those_that_differ_pairwise(items: list[Any]) -> None:
    unique = not any(equal(one, other) for i, one in enumerate(items) for other in items[:i])
    assert judged({"uniqueItems": True}, items).schema_valid is unique


def test_a_schema_is_sound_when_the_drafts_own_description_of_schemas_says_so() -> None:
    """Ours is the same description in one piece: each keyword with values that it may and may not have, also deep."""
    draft = jsonschema.Draft202012Validator
    parts = [REGISTRY.contents(urljoin(draft.META_SCHEMA["$id"], part["$ref"])) for part in draft.META_SCHEMA["allOf"]]
    words = {word for part in parts for word in part["properties"]}
    reference = draft(draft.META_SCHEMA, format_checker=draft.FORMAT_CHECKER)
    assert len(words) > 50
    verdicts = {True: 0, False: 0}
    for word in sorted((words - {"$schema"}) | {"definitions", "dependencies", "unknown"}):  # ours knows the drafts
        for value in (1, "x", [], {"a": 1}, ["a", "a"], [{"type": 1}], {"a": {"minimum": "1"}}):
            schema = {"$defs": {"inner": {"items": {word: value}}}}
            sound = schema_problem(schema) is None
            verdicts[sound] += 1
            assert sound is reference.is_valid(schema), schema
    assert min(verdicts.values()) > 50

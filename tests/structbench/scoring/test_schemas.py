"""Schemas that their metaschema allows and that are wrong all the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from structbench.scoring.schemas import lost_references, odd_keywords, why_inapplicable, why_never
from structbench.scoring.values import pointer_to

DRAFT_3, DRAFT_4 = "http://json-schema.org/draft-03/schema#", "http://json-schema.org/draft-04/schema#"
STRICT = {"properties": {"a": {"type": "string"}, "b": {"items": {"enum": [1, 2]}}}, "additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://json-schema.org/draft-07/schema#"},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"$schema": DRAFT_4, "$ref": "http://json-schema.org/draft-04/schema#"},
        {"$schema": DRAFT_3, "extends": {"$ref": "#/definitions/a"}, "definitions": {"a": {}}},
        {"$schema": DRAFT_4, "$dynamicRef": "#nope"},
    ],
    ids=str,
)
def test_what_the_scorer_can_judge_is_no_lost_reference(schema: dict[str, Any]) -> None:
    assert list(lost_references(schema)) == []
    assert why_inapplicable(schema) is None


@pytest.mark.parametrize(
    ("schema", "lost"),
    [
        ({"$schema": DRAFT_3, "extends": {"$ref": "#/definitions/b"}}, ("$ref", "#/definitions/b")),
        ({"properties": {"a": {"$dynamicRef": "#nope"}}}, ("$dynamicRef", "#nope")),
        ({"$ref": "http://json-schema.org/draft-05/schema#"}, ("$ref", "http://json-schema.org/draft-05/schema#")),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(schema: dict[str, Any], lost: tuple[str, str]) -> None:
    assert list(lost_references(schema)) == [lost]


@pytest.mark.parametrize(
    ("schema", "odd"),
    [
        ({"typ": "object", "requried": ["a"]}, {"typ": 'did you mean "type"?', "requried": 'did you mean "required"?'}),
        ({"properties": {"a": {"maxlength": 1}}}, {"maxlength": 'did you mean "maxLength"?'}),
        ({"dependencies": {"a": ["b"]}}, {"dependencies": "of draft-07: name that draft"}),
        ({"$schema": DRAFT_4, "if": {}}, {"if": "of a later draft"}),
        ({"nullable": True}, {"nullable": 'list "null" among the types'}),
        ({"items": {"minLength": 5, "maxLength": 2}}, {"minLength": "5 is above maxLength, 2"}),
        ({"title": "t", "x-note": 1, "example": 1, "then": {}, "properties": {"typ": {}, "nullable": {}}}, {}),
        ({"$schema": DRAFT_4, "minimum": 1, "exclusiveMinimum": True, "exclusiveMaximum": False}, {}),
        ({"$schema": DRAFT_4, "dependencies": {"a": ["b"]}, "minimum": 2, "maximum": 2}, {}),
    ],
)
def test_keywords_that_bind_nothing_are_told(schema: dict[str, Any], odd: dict[str, str]) -> None:
    found = odd_keywords(schema)
    assert found.keys() == odd.keys()
    assert all(odd[keyword] in hint for keyword, hint in found.items())


@pytest.mark.parametrize(
    ("schema", "pointer", "value", "why"),
    [
        (STRICT, "/a", 1, "is not of type 'string'"),
        (STRICT, "/c", "x", "Additional properties"),
        (STRICT, "/b/1", 3, "is not one of"),
        (STRICT, "/b/1", 2, None),
        ({"properties": {"a": STRICT}}, "/a/a", 1, "is not of type 'string'"),
        ({"allOf": [{"$ref": "#/$defs/s"}], "$defs": {"s": STRICT}}, "/a", 1, "is not of type 'string'"),
        ({"type": "object", "patternProperties": {"^[0-9]$": {"type": "string"}}}, "/0", "x", None),
        ({"type": "object", "patternProperties": {"^[0-9]$": {"type": "string"}}}, "/0", 1, "is not of type 'string'"),
        ({"type": "array"}, "/a", 1, "is not of type 'array'"),
        ({"type": "string"}, "", 1, "is not of type 'string'"),
        ({"properties": {"a~/b": {"type": "string"}}}, "/a~0~1b", 1, "is not of type 'string'"),
        ({"if": {"properties": {"k": {"const": 1}}}, "then": {"properties": {"a": False}}}, "/a", 1, None),
        ({"anyOf": [{"required": ["a", "b"]}, {"type": "array"}]}, "/a", 1, None),
    ],
)
def test_a_value_that_no_schema_of_its_place_allows_is_told(
    schema: dict[str, Any], pointer: str, value: Any, why: str | None
) -> None:
    found = why_never(schema, pointer, value)
    assert (found is None) if why is None else (found is not None and why in found)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str, Any]]:
    yield pointer_to(path), value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        yield from places(item, (*path, step))


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        (STRICT, {"a": "x", "b": [1, 2, 2]}),
        ({"required": ["a"], "minProperties": 2, "not": {"required": ["c"]}}, {"a": {"0": [[]]}, "b": 1}),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "dependentRequired": {"a": ["c"]}}, {"a": 1, "c": 2}),
        ({"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2}, ["a", 1]),
        ({"if": {"required": ["k"]}, "then": {"properties": {"a": {"minimum": 5}}}, "else": False}, {"k": 1, "a": 7}),
        ({"properties": {"a": {}}, "unevaluatedProperties": False, "contains": {}}, {"a": [{"b": {}}]}),
    ],
)
def test_no_value_of_a_valid_answer_is_refused(schema: dict[str, Any], example: Any) -> None:
    assert [found for at, value in places(example) if (found := why_never(schema, at, value)) is not None] == []

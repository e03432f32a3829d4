"""The answers of the simulated server: right ones, ones that are wrong in a known way, JSON from schemas."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.simulator import Profile
from loadgen.simulator import answers as planning
from loadgen.simulator.models import JSON_KINDS, TOOL_KINDS, seconds_of
from loadgen.simulator.patterns import matching
from loadgen.simulator.schemas import alter, instance, invalid_json, violations
from tests.support.simulators import ANSWERS, CALL, FAST, PERSON, WEATHER, body


def plan_of(kind: str, text: str, **request: Any) -> planning.Plan:
    shares = {kind: 1.0} if kind != "correct" else {}
    profile = replace(
        FAST,
        json_shares=shares if kind in JSON_KINDS else {},
        prompt_shares=shares if kind in JSON_KINDS else {},
        tool_shares=shares if kind in TOOL_KINDS else {},
    )
    sent = body(text=text, **request)
    return planning.plan(sent, profile, ANSWERS.get(text), planning.seeded(0, sent))


@pytest.mark.parametrize("text", ["Ada?", "anybody"])
@pytest.mark.parametrize("kind", sorted(JSON_KINDS))
def test_json_answers_are_wrong_in_the_way_that_was_asked(kind: str, text: str) -> None:
    made = plan_of(kind, text, format=PERSON)
    answer = "".join(made.pieces)
    expected = "correct" if kind == "wrong_value" and text == "anybody" else kind
    assert made.kind == expected
    match expected:
        case "correct":
            jsonschema.validate(json.loads(answer), PERSON)
            assert text == "anybody" or json.loads(answer) == ANSWERS["Ada?"]["json"]
        case "wrong_value":
            value = json.loads(answer)
            jsonschema.validate(value, PERSON)
            assert value["name"] != "Ada"
            assert value["age"] != 36
        case "schema_violation":
            assert not jsonschema.Draft202012Validator(PERSON).is_valid(json.loads(answer))
        case "fenced":
            assert re.fullmatch(r"```json\n.*\n```", answer, flags=re.S)
        case "no_output":
            assert answer == ""
        case _:
            assert made.done_reason == ("length" if kind == "truncated" else "stop")
            with pytest.raises(json.JSONDecodeError):
                json.loads(answer)


def test_json_without_format_is_known_from_the_prompt_only() -> None:
    assert json.loads("".join(plan_of("correct", "Ada?").pieces)) == ANSWERS["Ada?"]["json"]
    assert isinstance(json.loads("".join(plan_of("schema_violation", "Ada?").pieces)), list)
    assert plan_of("correct", "anybody").kind == "text"
    assert isinstance(json.loads("".join(plan_of("correct", "anybody", format="json").pieces)), dict)


@pytest.mark.parametrize("kind", sorted(TOOL_KINDS - {"unwanted_call"}))
def test_tool_calls_are_wrong_in_the_way_that_was_asked(kind: str) -> None:
    made = plan_of(kind, "Paris?", tools=[WEATHER])
    assert made.kind == kind
    calls = list(made.calls)
    arguments = calls[0]["arguments"] if calls else {}
    parameters: Any = WEATHER["function"]["parameters"]  # type: ignore[index]
    right: Any = CALL["arguments"]
    checks = {
        "correct": calls == [CALL],
        "no_call": not calls and bool(made.pieces),
        "no_output": not calls and not made.pieces,
        "truncated": not calls and made.done_reason == "length",
        "wrong_count": calls == [CALL, CALL],
        "wrong_function": bool(calls) and calls[0]["name"] != "get_weather",
        "missing_argument": "city" not in arguments,
        "unexpected_argument": arguments.keys() > right.keys(),
        "schema_violation": arguments.keys() == right.keys()
        and not jsonschema.Draft202012Validator(parameters).is_valid(arguments),
        "wrong_value": arguments.keys() == right.keys() and all(arguments[k] != right[k] for k in right)
        and jsonschema.Draft202012Validator(parameters).is_valid(arguments),
    }  # fmt: skip
    assert checks[kind]


def test_an_unwanted_call_only_where_none_is_due() -> None:
    assert plan_of("unwanted_call", "hello?", tools=[WEATHER]).calls
    assert plan_of("unwanted_call", "Paris?", tools=[WEATHER]).kind == "correct"
    assert plan_of("no_call", "hello?", tools=[WEATHER]).kind == "correct"


def test_num_predict_truncates_a_right_answer() -> None:
    made = plan_of("correct", "Ada?", format=PERSON, options={"num_predict": 4})
    assert (made.kind, made.done_reason, made.tokens) == ("truncated", "length", 4)
    lost = plan_of("correct", "Paris?", tools=[WEATHER], options={"num_predict": 4})
    assert (lost.kind, lost.calls, lost.tokens) == ("truncated", (), 4)


def test_shares_come_out_and_depend_on_the_request_alone() -> None:
    profile = replace(FAST, json_shares={"invalid_json": 0.3, "schema_violation": 0.2})

    def kinds(seed: int, order: list[int]) -> list[str]:
        made = {}
        for i in order:
            sent = body(text=f"case {i}", format=PERSON)
            made[i] = planning.plan(sent, profile, None, planning.seeded(seed, sent)).kind
        return [made[i] for i in range(500)]

    forwards = kinds(0, list(range(500)))
    assert forwards == kinds(0, list(reversed(range(500))))
    assert forwards != kinds(1, list(range(500)))
    assert 110 < forwards.count("invalid_json") < 190
    assert 65 < forwards.count("schema_violation") < 135


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"json_shares": {"nonsense": 1.0}}, "unknown kind"), ({"tool_shares": {"no_call": 1.2}}, "add up"),
     ({"jitter": 1.0}, "jitter"), ({"parallel": 0}, "positive")],
)  # fmt: skip
def test_a_profile_that_cannot_be_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Profile(**wrong)


_FORMATS = ["date", "time", "date-time", "email", "uri", "uuid", "ipv4", "ipv6", "hostname", "duration"]
_PATTERNS = ["^[A-Z]{3}-\\d{2,4}$", "^(red|green|blue)$", "\\w+@\\w+", "^#[0-9a-fA-F]{6}$", "^[^0-9]+$", "a.c?"]
_LEAVES = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({}),
    st.just(True),
    st.builds(lambda v: {"const": v}, st.sampled_from(["x", 1, None, [1]])),
    st.builds(lambda v: {"enum": v}, st.lists(st.sampled_from(["a", "b", 3, None, True]), min_size=1)),
    st.builds(lambda f: {"type": "string", "format": f}, st.sampled_from(_FORMATS)),
    st.builds(lambda p: {"type": "string", "pattern": p}, st.sampled_from(_PATTERNS)),
    st.builds(
        lambda a, b: {"type": "string", "minLength": a, "maxLength": a + b}, st.integers(0, 30), st.integers(0, 9)
    ),
    st.builds(
        lambda kind, low, high, a, b: {"type": kind, low: a, high: a + b},
        st.sampled_from(["integer", "number"]),
        st.sampled_from(["minimum", "exclusiveMinimum"]),
        st.sampled_from(["maximum", "exclusiveMaximum"]),
        st.integers(-1000, 1000),
        st.integers(2, 50),
    ),
    st.builds(
        lambda kind, step, a: {"type": kind, "multipleOf": step, "minimum": a},
        st.just("number"),
        st.sampled_from([0.01, 0.5, 0.1, 5, 7]),
        st.integers(-50, 50),
    ),
    st.just({"type": "integer", "multipleOf": 3, "maximum": 20}),
    st.just({"type": ["string", "null"]}),
    st.just({"$ref": "#/$defs/node"}),
    st.just({"$ref": "#/$defs/money", "minimum": 5}),
)


def _objects(sub: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def build(properties: dict[str, Any], required: list[str], more: dict[str, Any]) -> dict[str, Any]:
        return {"type": "object", "properties": properties,
                "required": sorted(set(required) & set(properties)), **more}  # fmt: skip

    more = st.sampled_from([{}, {"additionalProperties": False}, {"minProperties": 1}, {"additionalProperties": {}}])
    names = st.sampled_from(["a", "b", "c", "d/e"])
    return st.builds(build, st.dictionaries(names, sub, min_size=1, max_size=4), st.lists(names, max_size=3), more)


def _nested(sub: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    arrays = st.builds(lambda i, a, b: {"type": "array", "items": i, "minItems": a, "maxItems": a + b}, sub,
                       st.integers(0, 3), st.integers(0, 3))  # fmt: skip
    unique = st.just({"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "minItems": 3})
    pairs = st.builds(lambda a, b: {"type": "array", "prefixItems": [a, b], "items": False}, sub, sub)
    maps = st.builds(lambda s: {"type": "object", "additionalProperties": s}, sub)
    either = st.builds(lambda a, b: {"anyOf": [a, b]}, sub, sub)
    one = st.just({"oneOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]})
    both = st.builds(
        lambda a: {"allOf": [{"type": "object", "properties": {"x": a}, "required": ["x"]}, {"required": ["y"]}]}, sub
    )
    return st.one_of(_objects(sub), arrays, unique, pairs, maps, either, one, both)


_DEFS = {
    "node": {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
        "required": ["value", "next"],
    },
    "money": {"type": "number", "minimum": 0, "maximum": 100},
}
SCHEMAS = st.recursive(_LEAVES, _nested, max_leaves=8).map(
    lambda s: {**s, "$defs": _DEFS} if isinstance(s, dict) else {"allOf": [s], "$defs": _DEFS}
)


def validator(schema: Any) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


@settings(max_examples=300)
@given(SCHEMAS, st.integers(0, 1000))
def test_instances_are_valid(schema: dict[str, Any], seed: int) -> None:
    value = instance(schema, Random(seed))
    assert [e.message for e in validator(schema).iter_errors(value)] == []
    assert json.dumps(value) == json.dumps(instance(schema, Random(seed)))


@settings(max_examples=200)
@given(SCHEMAS, st.integers(0, 1000))
def test_violations_are_invalid_and_alterations_valid(schema: dict[str, Any], seed: int) -> None:
    value = instance(schema, Random(seed))
    wrong = list(violations(value, schema, schema))
    assert [w for w in wrong if validator(schema).is_valid(w)] == []
    if isinstance(value, (dict, list)) and value:
        with pytest.raises(json.JSONDecodeError):
            json.loads(invalid_json(value))


def test_alterations_stay_valid_and_change_every_part() -> None:
    schema = {**PERSON, "properties": {**PERSON["properties"], "kind": {"enum": ["a", "b"]}}}  # type: ignore[dict-item]
    value = {"name": "Ada", "age": 36, "born": "1815-12-10", "kind": "a"}
    for seed in range(50):
        changed = alter(value, schema, schema, Random(seed))
        jsonschema.validate(changed, schema)
        assert all(changed[key] != value[key] for key in value)


@pytest.mark.slow
@given(st.text())
def test_pieces_add_up_to_the_text(text: str) -> None:
    assert "".join(planning.split(text)) == text


@pytest.mark.parametrize("pattern", ["(?<=x)y", "(a", "[", "\\b", "(?P<n>a)", "a{2"])
def test_a_pattern_that_is_too_hard_gives_none_or_a_match(pattern: str) -> None:
    made = matching(pattern, Random(0))
    assert made is None or re.search(pattern, made)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("300ms", 0.3), (0, 0), ("0", 0), (-1, float("inf")), ("-1m", float("inf")),
     (None, 300), ("abc", None), ("", None), ("5", None)],
)  # fmt: skip
def test_keep_alive_is_read_as_go_does(text: Any, seconds: float | None) -> None:
    assert seconds_of(text) == seconds

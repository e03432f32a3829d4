"""Scores: each test is named after the trap it guards."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
import urllib.request
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structbench.scoring import Answer, score
from structbench.scoring.answer import MAX_EXPLANATIONS, MAX_LINE
from structbench.scoring.parsing import find_json, parse_json
from structbench.scoring.rules import best_assignment
from structbench.scoring.validation import errors_of, import_jsonschema, schema_errors, schema_problem
from structbench.scoring.values import ABSENT, at_pointer, json_equal, pointer_to
from structbench.types import Case, Score

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "email": {"type": "string", "format": "email"},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
RIGHT_PERSON = '{"name": "Ada", "age": 36}'


def json_case(schema: Any = PERSON, expected: Any = None) -> Case:
    return Case(id="j", messages=(), schema=schema, expected=expected)


def scored(case: Case, text: str = "", **answer: Any) -> Score:
    result = score(case, Answer(output_text=text, **answer))
    assert result is not None
    return result


# --- the JSON ladder ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer", "outcome"),
    [
        (RIGHT_PERSON, {"failure": "rejected"}, "rejected"),
        (" \n\t ", {}, "no_output"),
        ("", {"done_reason": "length"}, "truncated"),
        ("", {"done_reason": "repeat"}, "truncated"),
        (RIGHT_PERSON, {"failure": "broken_call"}, "broken_call"),
        (RIGHT_PERSON, {"failure": "truncated"}, "truncated"),
        ('{"name": "Ad', {"done_reason": "length"}, "truncated"),
        ('{"name": "Ad', {"done_reason": "stop"}, "invalid_json"),
        ('{"name": "Ada"}', {}, "schema_violation"),
        ('{"name": "Ada", "age": 37}', {}, "wrong_value"),
        (RIGHT_PERSON, {}, "correct"),
        (RIGHT_PERSON, {"done_reason": "length"}, "correct"),
        ("\r\n" + RIGHT_PERSON + "\n", {}, "correct"),
    ],
)
def test_json_ladder(text: str, answer: dict[str, Any], outcome: str) -> None:
    result = scored(json_case(expected={"/age": 36}), text, **answer)
    assert result.outcome == outcome
    assert result.accuracy_score == (1.0 if outcome == "correct" else 0.0)
    assert result.json_valid is (outcome in ("schema_violation", "wrong_value", "correct"))
    assert result.schema_valid is (outcome in ("wrong_value", "correct"))
    assert (result.json_parse_error is None) is (result.json_valid or "failure" in answer)
    assert result.tool_call_success is None


def test_fence_and_prose_are_only_leniently_valid() -> None:
    fenced = scored(json_case(), f"```json\n{RIGHT_PERSON}\n```")
    assert (fenced.outcome, fenced.json_valid, fenced.json_valid_lenient) == ("invalid_json", False, True)
    assert (fenced.schema_valid, fenced.schema_valid_lenient, fenced.json_source) == (False, True, "fenced")
    assert fenced.accuracy_score == 0.0
    prose = scored(json_case(), f"Here you are: {RIGHT_PERSON} Enjoy!")
    assert (prose.json_source, prose.schema_valid_lenient, prose.outcome) == ("prose", True, "invalid_json")
    plain = scored(json_case(), RIGHT_PERSON)
    assert (plain.json_source, plain.json_valid, plain.schema_valid_lenient) == ("plain", True, True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('```\n{"a": 1}\n```', ({"a": 1}, "fenced")),
        ("Sure!\n~~~json\n[1,\n2]\n~~~\nBye", ([1, 2], "fenced")),
        ('```json {"a": 1}```', ({"a": 1}, "fenced")),
        ('```json\n{"a": 1}```', ({"a": 1}, "fenced")),
        ('```json\n{"a": 1}', ({"a": 1}, "fenced")),
        ('  ```python\nprint({})\n```\n```json\n{"a": 1}\n```', ({"a": 1}, "fenced")),
        ('```json\n// a comment\n{"a": 1}\n```', ({"a": 1}, "prose")),
        ('```\n{"code": "```"}\n```', ({"code": "```"}, "fenced")),
        ('Use {a, b}: {"a": 1}.', ({"a": 1}, "prose")),
        ('It\'s "quoted" [sic] {"a": "}"} and {"b": 2}', ({"a": "}"}, "prose")),
        ('{"a": 1,} is wrong, {"b": 2} is right', ({"b": 2}, "prose")),
        ("null and true", (None, None)),
        ("", (None, None)),
    ],
)
def test_json_is_found(text: str, found: Any) -> None:
    assert find_json(text) == found


@pytest.mark.parametrize("text", ['{"items": [{"a": 1}, {"b"', '{"tags": ["x"], "n": 01}', "[[1], [2], nope]"])
def test_a_piece_of_broken_json_is_no_answer(text: str) -> None:
    assert find_json(text) == (None, None)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"a": NaN}', "NaN is not JSON"),
        ("-Infinity", "-Infinity is not JSON"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', 'duplicate member name "c"'),
        ('{"a":\n 1 2}', "line 2 column 4"),
        ("{'a': 1}", "line 1 column 2"),
        ("[1] tail", "Extra data: line 1 column 5"),
        ("\ufeff{}", "line 1 column 1"),
        ("\u00a0{}", "line 1 column 1"),
        ("1e999", "out of the range"),
        ("-" + "9" * 400, "out of the range"),
        ("9" * 5000, "out of range"),
        ("[" * 101 + "]" * 101, "nested deeper than 100 levels"),
        ("[" * 500_000, "nested deeper than 100 levels"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "nested deeper than 100 levels"),
        ('"\x00"', "Invalid control character"),
    ],
)
def test_python_json_is_laxer_than_the_rfc(text: str, error: str) -> None:
    assert error in str(parse_json(text).error)


def test_depth_100_is_judged_by_a_recursive_schema() -> None:
    schema = {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
    assert scored(json_case(schema), "[" * 100 + "]" * 100).outcome == "correct"
    assert scored(json_case(schema), "[" * 100 + "1" + "]" * 100).outcome == "schema_violation"


def test_lone_surrogates_cannot_reach_the_store() -> None:
    result = scored(json_case(), '{"name": "\\ud800", "age": "\\udfff", "\\ud801": 1}')
    assert result.outcome == "schema_violation"
    assert all(line.encode("utf-8") for line in result.validation_errors)
    in_pointer = scored(json_case({"additionalProperties": {"type": "null"}}), '{"\\ud800\\n": 1}')
    assert in_pointer.validation_errors == ("/\\ud800\\n: type: 1 is not of type 'null'",)
    assert scored(json_case(), '{"a": \ud800').json_valid is False
    assert scored(json_case({"format": "iri"}), '"http://\\ud800/"').outcome == "schema_violation"


@pytest.mark.parametrize(
    "text",
    [
        "{" * 500_000,
        "[" * 500_000 + "]" * 500_000,
        '{"a":' * 150_000,
        '{"' * 400_000,
        '["\\"' + '\\"' * 400_000,
        "[1,[" * 250_000,
        "```\n" * 250_000,
        "`" * 1_000_000,
        "[ " + " " * 1_000_000,
        "[{] " * 250_000,
        '{"a": 1,}' * 100_000,
    ],
    ids=range(11),
)
def test_hostile_megabytes_are_read_in_linear_time(text: str) -> None:
    """A quadratic reading of any of these takes minutes."""
    assert find_json(text) == (None, None)


# --- values ------------------------------------------------------------------------------------


def test_accuracy_is_the_share_of_expected_values() -> None:
    case = json_case(schema=None, expected={"/a": 1, "/b/0": "x", "/c~1d": None, "/missing": 0})
    result = scored(case, '{"a": 1.0, "b": ["x"], "c/d": false}')
    assert (result.outcome, result.accuracy_score, result.schema_valid) == ("wrong_value", 0.5, None)
    assert result.validation_errors == (
        "/c~1d: expected: None, found False",
        "/missing: expected: 0, found nothing",
    )
    assert scored(json_case(None, {"": [1, 2]}), "[1, 2]").outcome == "correct"
    assert scored(json_case(None, {"": [1, 2]}), "[2, 1]").accuracy_score == 0.0


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (1, 1.0, True), (1, True, False), (0, False, False), (None, False, False), ("1", 1, False),
        ({"a": 1, "b": [1]}, {"b": [1.0], "a": 1}, True), ({"a": 1}, {"a": 1, "b": 2}, False), (" a", "a", False),
        ([True], [1], False), (2**60 + 1, float(2**60), False),
    ],
)  # fmt: skip
def test_json_equality(left: Any, right: Any, equal: bool) -> None:
    assert json_equal(left, right) is equal
    assert json_equal(right, left) is equal


def test_pointers() -> None:
    document = {"": 0, "a": [10, {"~": 1, "/": 2}], "01": 3}
    assert at_pointer(document, "") is document
    assert [at_pointer(document, p) for p in ("/", "/a/0", "/a/1/~0", "/a/1/~1", "/01")] == [0, 10, 1, 2, 3]
    for nowhere in ("a", "/a/2", "/a/-", "/a/00", "/a/-1", "/a/x", "/a/0/0", "/b", "/a/" + "9" * 5000, "/a/²"):
        assert at_pointer(document, nowhere) is ABSENT


# --- schemas -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("email", "a@b.c", "ab.c"), ("date", "2026-02-28", "2026-02-30"), ("date-time", "2026-02-28T10:00:00Z", "soon"),
        ("uri", "http://a/b", "a b"), ("iri", "http://é.fr/ü", "http://é fr"), ("iri-reference", "/ü#é", "ü ü"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"), ("ipv4", "1.2.3.4", "1.2.3.400"),
        ("time", "10:00:00Z", "10"), ("duration", "P1D", "1 day"), ("regex", "a+", "a("), ("hostname", "a.b", "a b"),
        ("json-pointer", "/a", "a"), ("uri-template", "/{a}", "/{a"),
    ],
)  # fmt: skip
def test_formats_are_checked(name: str, good: str, bad: str) -> None:
    case = json_case({"type": "string", "format": name})
    assert scored(case, json.dumps(good)).outcome == "correct"
    assert scored(case, json.dumps(bad)).outcome == "schema_violation"


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("joe.bloggs@example.com", True), ("te~st+tag@localhost", True), ('"joe @ \\" bloggs"@example.com', True),
        ("joe@[127.0.0.1]", True), ("joe@[IPv6:::1]", True), ("A_B@X-1.Example", True), (7, True),
        ("hello @ world", False), ("@", False), ("a@", False), ("@b", False), (".a@b", False), ("a.@b", False),
        ("a..b@c", False), ("a@b@c", False), ("a@b=c.com", False), ("a@-b.com", False), ("a@b..com", False),
        ("a@[127.0.0.300]", False), ("a@[IPv6:x]", False), ("a@b.com\n", False), ("joe@exämple.com", False),
        ("Joe <joe@example.com>", False), ("ſ@b.com", False), ("a" * 100_000, False),
        ("a@" + "b" * 100_000 + "!", False),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_an_email_is_a_mailbox_of_rfc_5321(address: object, is_one: bool) -> None:
    assert scored(json_case({"format": "email"}), json.dumps(address)).schema_valid is is_one


@pytest.mark.parametrize(
    ("schema", "answer", "keyword"),
    [
        ({"properties": {"x": False}}, {"x": 1}, "properties"),
        ({"patternProperties": {"x": False}}, {"x": 1}, "patternProperties"),
        ({"allOf": [False]}, 1, "allOf"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"x": False}},
            {"x": 1},
            "dependencies",
        ),
        ({"properties": {"x": {"$ref": "#/$defs/no"}}, "$defs": {"no": False}}, {"x": 1}, "properties"),
        ({"$ref": "#/$defs/no", "$defs": {"no": False}}, 1, "false"),
    ],
)
def test_a_schema_of_false_is_named_after_what_holds_it(schema: Any, answer: Any, keyword: str) -> None:
    result = scored(json_case(schema), json.dumps(answer))
    assert result.violated_keywords == (keyword,)
    assert f" {keyword}: False schema does not allow" in result.validation_errors[0]


def test_a_multiple_is_one_in_decimals() -> None:
    cents = {"items": {"multipleOf": 0.01}}
    assert scored(json_case(cents), json.dumps([cent / 100 for cent in range(-2000, 2000)])).outcome == "correct"
    assert scored(json_case(cents), "[7, 1e22, 1e300, true, 123456789012345678901234567890.5]").outcome == "correct"
    for value in ("19.995", "1e-3", "0.0100000001"):
        wrong = scored(json_case(cents), f"[{value}]")
        assert wrong.validation_errors == (f"/0: multipleOf: {float(value)} is not a multiple of 0.01",)
    assert scored(json_case({"multipleOf": 3}), "1e22").outcome == "schema_violation"
    draft3 = {"$schema": "http://json-schema.org/draft-03/schema#", "divisibleBy": 0.1, "multipleOf": 0}
    assert scored(json_case(draft3), "0.3").outcome == "correct"


def test_explanations_are_few_short_ordered_and_the_telling_ones() -> None:
    schema = {
        "properties": {"list": {"items": {"type": "integer"}}, "long": {"maxLength": 3}},
        "required": ["gone"],
    }
    answer = json.dumps({"list": ["x"] * 50, "long": "y" * 5000})
    result = scored(json_case(schema), answer)
    assert len(result.validation_errors) == MAX_EXPLANATIONS
    assert result.validation_errors[0] == "(root): required: 'gone' is a required property"
    assert result.validation_errors[1].startswith("/long: maxLength: 'yyy")
    assert result.validation_errors[1].endswith("' is too long")
    assert result.validation_errors[2] == "/list/0: type: 'x' is not of type 'integer'"
    assert max(map(len, result.validation_errors)) == MAX_LINE
    backwards = dict(reversed(schema.items()))
    assert scored(json_case(backwards), answer) == result


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "no such type"}, "in the schema"),
        ({"$ref": "#/nowhere"}, "cannot be applied"),
        ({"pattern": "(?P<a>x)"}, "/pattern: format: in the schema"),
        ({"$ref": "#"}, "cannot be applied: RecursionError"),
        ({"$ref": "http://127.0.0.1:9/remote.json"}, "cannot be applied"),
        ({"const": {1, 2}}, "the schema is not JSON"),
        ({"$schema": ["x"]}, "/$schema: type: in the schema: ['x'] is not of type 'string'"),
    ],
)
def test_a_broken_schema_is_not_the_models_fault(schema: Any, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_: pytest.fail("the network was asked"))
    result = scored(json_case(schema), '"x"')
    assert result.outcome == "unscored"
    assert result.accuracy_score is None
    assert result.json_valid is None
    assert reason in result.validation_errors[0]


def test_schema_problem_names_the_place() -> None:
    assert schema_problem(PERSON) is None
    assert "/properties/a/type" in str(schema_problem({"properties": {"a": {"type": "strin"}}}))
    assert schema_problem(nested_in_not(400)) == "the schema is nested too deeply"


def nested_in_not(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


def test_all_that_is_wrong_with_a_schema_is_told_by_its_cause() -> None:
    schema = {"required": [5], "properties": {"a": {"minLength": -1}}, "minItems": 1}
    told = {pointer_to(error.absolute_path): error.message for error in schema_errors(schema)}
    assert told == {
        "/required/0": "5 is not of type 'string'",
        "/properties/a/minLength": "-1 is less than the minimum of 0",
    }
    assert schema_errors(PERSON) == []


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"multipleOf": 2}, "x"), ({"multipleOf": 2}, True), ({"uniqueItems": False}, [1, 1]),
        ({"uniqueItems": True}, "aa"), ({"uniqueItems": True}, 11),
        ({"format": "iri"}, 5), ({"format": "email"}, None), ({"minLength": 3}, 5),
    ],
)  # fmt: skip
def test_a_keyword_says_nothing_of_values_of_another_type(schema: Any, value: Any) -> None:
    assert scored(json_case(schema), json.dumps(value)).outcome == "correct"


@pytest.mark.parametrize(
    "draft", ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"]
)
def test_a_schema_that_names_its_draft_is_judged_alike_where_it_refers_to_itself(draft: str) -> None:
    schema = {"$schema": draft, "properties": {"n": {"$ref": "#"}}, "multipleOf": 0.01}
    assert scored(json_case(schema), '{"n": {"n": 19.99}}').outcome == "correct"
    assert scored(json_case(schema), '{"n": {"n": 19.995}}').violated_keywords == ("multipleOf",)


@pytest.mark.parametrize("combined", ["anyOf", "oneOf"])
def test_the_cause_stands_before_the_choice_that_it_failed(combined: str) -> None:
    result = scored(json_case({combined: [{"type": "null"}, {"type": "array"}], "required": ["b", "a"]}), "{}")
    assert result.violated_keywords == (combined, "required")
    assert result.validation_errors == (
        "(root): required: 'a' is a required property", "(root): required: 'b' is a required property",
        f"(root): {combined}: {{}} is not valid under any of the given schemas",
    )  # fmt: skip


def test_a_thousand_violations_are_looked_at_whatever_the_order_of_the_schemas_keys() -> None:
    schema = {"maxItems": 1, "items": {"type": "integer"}}
    assert len(errors_of(schema, ["x"] * 1500)) == 1000
    answer = json.dumps(["x"] * 1500)
    one, other = (scored(json_case(dict(order)), answer) for order in (schema.items(), reversed(schema.items())))
    assert one == other


def test_keywords_of_old_drafts_are_named() -> None:
    draft3 = {"$schema": "http://json-schema.org/draft-03/schema#", "items": {"divisibleBy": 0.1}}
    assert scored(json_case(draft3), "[0.3, 0.35]").violated_keywords == ("divisibleBy",)


def test_a_program_that_uses_rfc3987_syntax_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ModuleType("rfc3987_syntax")
    monkeypatch.setitem(sys.modules, "rfc3987_syntax", own)
    import_jsonschema.cache_clear()
    import_jsonschema()
    assert sys.modules["rfc3987_syntax"] is own


def test_importing_scoring_leaves_the_heavy_libraries_out() -> None:
    names = "'jsonschema', 'lark', 'rfc3987_syntax'"
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from structbench.scoring import Answer, score\nfrom structbench.scoring.validation import schema_problem\n"
        "import structbench.scoring.process\n"
        f"assert not [n for n in ({names}) if n in sys.modules]\n"
        "assert schema_problem({'format': 'iri'}) is None\n"
        f"assert [n for n in ({names}) if n in sys.modules] == ['jsonschema'], sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code, *sys.path], check=True)


# --- tool calls --------------------------------------------------------------------------------


def tool(name: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = (
    tool("weather", {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}}, ["city"]),
    tool("tip", {"bill": {"type": "number"}, "percent": {"type": "number"}}, ["bill", "percent"]),
)


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def tool_case(*expected: dict[str, Any]) -> Case:
    return Case(id="t", messages=(), tools=TOOLS, expected_calls=expected)


PARIS = call("weather", city=["Paris"], unit=["C", ""])
TIP = call("tip", bill=[50], percent=[20])


@pytest.mark.parametrize(
    ("expected", "made", "outcome", "accuracy"),
    [
        ([PARIS], [], "no_call", 0),
        ([PARIS], [call("tip", bill=1, percent=2)], "wrong_function", 0),
        ([PARIS], [call("no_such_tool")], "wrong_function", 0),
        ([PARIS], [call("weather", unit="C")], "missing_argument", 0),
        ([call("weather")], [call("weather")], "missing_argument", 0),
        ([call("weather", city=["Paris"])], [call("weather", city="Paris", unit="C")], "unexpected_argument", 0),
        ([PARIS], [call("weather", city="Paris", zip="75001")], "unexpected_argument", 0),
        ([PARIS], [call("weather", city="Paris", unit="K")], "schema_violation", 0),
        ([PARIS], [call("weather", city="Paris", unit=None)], "schema_violation", 0),
        ([TIP], [call("tip", bill="50", percent=20)], "schema_violation", 0),
        ([PARIS], [call("weather", city="paris")], "wrong_value", 0),
        ([PARIS], [call("weather", city="Paris", unit="F")], "wrong_value", 0),
        ([PARIS, TIP], [call("weather", city="Paris")], "wrong_count", 0.5),
        ([PARIS], [call("weather", city="Paris")] * 4, "wrong_count", 0.25),
        ([PARIS, TIP], [call("weather", city="Rome")], "wrong_value", 0),
        ([], [call("weather", city="Paris")], "unwanted_call", 0),
        ([], [], "correct", 1),
        ([PARIS], [call("weather", city=" Paris\n", unit="C")], "correct", 1),
        ([TIP], [call("tip", bill=50.0, percent=20)], "correct", 1),
        ([PARIS, TIP], [call("tip", bill=50, percent=20), call("weather", city="Paris")], "correct", 1),
    ],
)
def test_tool_ladder(expected: list[Any], made: list[Any], outcome: str, accuracy: float) -> None:
    result = scored(tool_case(*expected), tool_calls=tuple(made))
    assert (result.outcome, result.tool_call_accuracy, result.accuracy_score) == (outcome, accuracy, accuracy)
    assert result.num_tool_calls == len(made)
    assert result.tool_call_success is (bool(made) == bool(expected))
    assert (result.validation_errors == ()) is (outcome in ("correct", "no_call"))


def test_true_is_not_the_number_one() -> None:
    tools = ({"type": "function", "function": {"name": "f", "parameters": {}}},)
    case = Case(id="t", messages=(), tools=tools, expected_calls=(call("f", x=[1]),))
    assert scored(case, tool_calls=(call("f", x=True),)).outcome == "wrong_value"
    assert scored(case, tool_calls=(call("f", x=1.0),)).outcome == "correct"


def test_greedy_matching_would_reject_a_right_answer() -> None:
    either, paris = call("weather", city=["Paris", "Rome"]), call("weather", city=["Paris"])
    made = (call("weather", city="Paris"), call("weather", city="Rome"))
    assert scored(tool_case(either, paris), tool_calls=made).outcome == "correct"
    assert scored(tool_case(paris, either), tool_calls=made).outcome == "correct"


def test_one_right_call_outweighs_any_partial_credit() -> None:
    expected = (call("weather", city=["a"], unit=["C", ""]), call("weather", city=["b"], unit=["C"]))
    made = (call("weather", city="a", unit="C"), call("weather", city="x"))
    result = scored(tool_case(*expected), tool_calls=made)
    assert (result.tool_call_accuracy, result.outcome) == (0.5, "missing_argument")


def test_without_expected_calls_the_tools_schema_decides() -> None:
    case = Case(id="t", messages=(), tools=TOOLS)
    good, bad = call("weather", city="Oslo"), call("weather", city=1)
    assert scored(case).outcome == "no_call"
    assert scored(case, tool_calls=(good,)).outcome == "correct"
    assert scored(case, tool_calls=(call("weather"),)).outcome == "missing_argument"
    mixed = scored(case, tool_calls=(good, bad, call("other")))
    assert (mixed.outcome, mixed.tool_call_accuracy) == ("wrong_function", pytest.approx(1 / 3))
    assert mixed.validation_errors == (
        "/1/arguments/city: type: 1 is not of type 'string'",
        "/2/name: wrong_function: no such tool, found 'other'",
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "weather", "arguments": {"city": "Paris"}}',
        '```json\n{"name": "weather", "arguments": {"city": "Paris"}}\n```',
        'I call [{"function": {"name": "weather"}}]',
        "<tool_call>\n{",
    ],
)
def test_a_call_written_into_the_text_is_no_call(text: str) -> None:
    result = scored(tool_case(PARIS), text)
    assert result.outcome == "no_call"
    assert result.validation_errors == ("(root): no_call: a tool call stands in the text",)
    assert scored(tool_case(), text).validation_errors == ()
    assert scored(tool_case(PARIS), '{"name": "Ada"}').validation_errors == ()


def test_silence_because_of_the_token_limit_earns_nothing() -> None:
    assert scored(tool_case(PARIS), "Let me", done_reason="length").outcome == "truncated"
    assert scored(tool_case(), "No tool is needed bec", done_reason="length").outcome == "correct"
    silent = scored(tool_case(), "", done_reason="length")
    assert (silent.outcome, silent.accuracy_score, silent.tool_call_success) == ("truncated", 0.0, False)


def test_rejected_tools_are_wrong_even_where_no_call_was_due() -> None:
    for case in (tool_case(), tool_case(PARIS)):
        result = scored(case, failure="rejected")
        assert (result.outcome, result.tool_call_success, result.accuracy_score) == ("rejected", False, 0.0)


@pytest.mark.parametrize("arguments", ["city=Paris", None, [1], {"city": float("nan")}])
def test_arguments_that_are_no_json_object(arguments: Any) -> None:
    result = scored(tool_case(PARIS), tool_calls=({"name": "weather", "arguments": arguments},))
    assert result.outcome == "schema_violation"
    assert result.validation_errors[0].startswith("/0/arguments: type:")


def test_fifty_calls_in_reverse_order() -> None:
    expected = [call("tip", bill=[number], percent=[number, number + 1]) for number in range(50)]
    made = tuple(call("tip", bill=number, percent=number) for number in reversed(range(50)))
    assert scored(tool_case(*expected), tool_calls=made).outcome == "correct"


def test_no_assignment_is_better() -> None:
    random = Random(1)
    for _ in range(400):
        rows, columns, top = random.randint(1, 5), random.randint(1, 5), random.choice((1, 5, 99))
        weights = [[random.randint(0, top) for _ in range(columns)] for _ in range(rows)]
        chosen = best_assignment(weights)
        used = [column for column in chosen if column is not None]
        assert len(set(used)) == len(used) == min(rows, columns)
        turned = weights if rows <= columns else [list(column) for column in zip(*weights, strict=True)]
        tries = itertools.permutations(range(max(rows, columns)), min(rows, columns))
        best = max(sum(turned[short][long] for short, long in enumerate(order)) for order in tries)
        assert sum(weights[row][column] for row, column in enumerate(chosen) if column is not None) == best


# --- text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer", "outcome"),
    [
        (" 1234\n", {}, "correct"),
        ("1,234", {}, "wrong_value"),
        ("The number is 1234.", {}, "wrong_value"),
        ("123", {"done_reason": "length"}, "truncated"),
        ("1234", {"done_reason": "length"}, "correct"),
        (" ", {}, "no_output"),
        ("1234", {"failure": "rejected"}, "rejected"),
    ],
)
def test_text_is_compared_exactly(text: str, answer: dict[str, Any], outcome: str) -> None:
    result = scored(Case(id="n", messages=(), expected_text="1234 "), text, **answer)
    assert (result.outcome, result.accuracy_score) == (outcome, 1.0 if outcome == "correct" else 0.0)


def test_a_case_with_nothing_to_check_has_no_score() -> None:
    assert score(Case(id="x", messages=()), Answer(output_text="anything")) is None


# --- any answer --------------------------------------------------------------------------------

any_text = st.text(alphabet=st.one_of(st.sampled_from('{}[]",:\\ \n`0-e\ud800nul'), st.characters()), max_size=60)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), any_text)
any_json = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(any_text, inner, max_size=4)),
    max_leaves=8,
)  # fmt: skip
FORMATS = ["date-time", "idn-hostname", "hostname", "email", "iri", "uri-reference", "duration", "uri-template",
           "regex", "json-pointer", "relative-json-pointer", "ipv6", "time", "date", "uuid", "idn-email"]  # fmt: skip
CASES = (
    json_case(expected={"/age": 1}),
    json_case({"anyOf": [{"format": name, "minLength": 99, "multipleOf": 0.01} for name in FORMATS]}),
    json_case(None, {"": {}}),
    tool_case(PARIS, TIP),
    tool_case(),
    Case(id="t", messages=(), tools=TOOLS),
    Case(id="n", messages=(), expected_text="1"),
    Case(id="x", messages=()),
)


def check_any(case: Case, answer: Answer) -> None:
    result = score(case, answer)
    assert pickle.loads(pickle.dumps(answer)).output_text == answer.output_text
    if case.kind == "text":
        assert result is None
        return
    assert result is not None
    assert result.outcome != "unscored"
    assert result.accuracy_score is not None
    assert 0.0 <= result.accuracy_score <= 1.0
    assert (result.accuracy_score == 1.0) is (result.outcome == "correct")
    assert not (result.schema_valid and not result.json_valid)
    assert not (result.json_valid and not result.json_valid_lenient)
    assert all(len(line.encode("utf-8")) > 0 and len(line) <= MAX_LINE for line in result.validation_errors)


@settings(max_examples=150)
@given(st.sampled_from(CASES), any_text, any_json, st.sampled_from([None, "stop", "length"]), st.booleans())
def test_no_text_makes_scoring_fail(case: Case, text: str, value: Any, reason: str | None, dump: bool) -> None:
    check_any(case, Answer(output_text=json.dumps(value) if dump else text, done_reason=reason))


@settings(max_examples=150)
@given(
    st.sampled_from(CASES),
    st.lists(st.fixed_dictionaries({}, optional={"name": st.sampled_from(["weather", "tip", "x", 7, None]),
                                                 "arguments": any_json}), max_size=4),
    st.dictionaries(st.sampled_from(["city", "unit", "bill", "percent"]), scalars),
)  # fmt: skip
def test_no_tool_call_makes_scoring_fail(case: Case, calls: list[Any], arguments: dict[str, Any]) -> None:
    check_any(case, Answer(tool_calls=(*calls, {"name": "weather", "arguments": arguments})))

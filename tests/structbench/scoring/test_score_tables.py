"""Answer by answer the whole score: no field of it says anything else."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from structbench.scoring import Answer, score
from structbench.scoring.answer import as_line, quoted
from structbench.scoring.bfcl import judge
from structbench.scoring.parsing import find_json, parse_json
from structbench.scoring.rules import matches
from structbench.scoring.values import ABSENT, at_pointer, limit_error, pointer_to
from structbench.types import Case, Score

# --- explanations ------------------------------------------------------------------------------

ALPHABET = "".join(map(chr, range(0x100, 0x100 + 400)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "'x'"), ("it's", '"it\'s"'), (5, "5"), (None, "None"), ([1, "a"], "[1, 'a']"),
        (ALPHABET[:100], f"'{ALPHABET[:100]}'"),
        (ALPHABET[:101], f"'{ALPHABET[:70]}…{ALPHABET[72:101]}'"),
        (ALPHABET, f"'{ALPHABET[:70]}…{ALPHABET[-29:]}'"),
        (10**99, "1" + "0" * 99),
        (10**100 + 7, "1" + "0" * 69 + "…" + "0" * 28 + "7"),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_a_value_is_shown_short(value: object, text: str) -> None:
    assert quoted(value) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ALPHABET[:300], ALPHABET[:300]),
        (ALPHABET[:301], f"{ALPHABET[:170]}…{ALPHABET[172:301]}"),
        ("a\n\x00\x85\u2028b", "a\\n\\x00\\x85\\u2028b"),
        ("\ud800é", "\\ud800é"),
        ("\n" * 150, "\\n" * 150),
        ("\n" * 151, "\\n" * 85 + "…" + "n" + "\\n" * 64),
    ],
    ids=range(6),
)
def test_an_explanation_is_one_line_of_300_characters(text: str, told: str) -> None:
    assert as_line(text) == told


# --- JSON --------------------------------------------------------------------------------------

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}
BROKEN = (
    "(root): additionalProperties: Additional properties are not allowed ('b' was unexpected)",
    "(root): required: 'name' is a required property",
    "/age: type: 'x' is not of type 'integer'",
)
KEYWORDS = ("additionalProperties", "required", "type")
NO_VALUE = "Expecting value: line 1 column 1 (char 0)"
CUT = "Unterminated string starting at: line 1 column 10 (char 9)"


def json_score(
    outcome: str, *, valid: bool = False, source: Any = None, fits: bool = False, error: str | None = None, **more: Any
) -> Score:
    """``fits``: what was found, strictly or leniently, is as the schema wants it."""
    return Score(
        outcome=outcome,
        **{
            "accuracy_score": 0.0,
            "json_valid": valid,
            "json_valid_lenient": source is not None,
            "json_source": source,
            "json_parse_error": error,
            "schema_valid": valid and fits,
            "schema_valid_lenient": fits,
            **more,
        },
    )


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer("x", failure="rejected"), json_score("rejected")),
        (Answer("{}", done_reason="length", failure="rejected"), json_score("rejected")),
        (Answer(" \n"), json_score("no_output", error="empty answer")),
        (Answer("no idea"), json_score("invalid_json", error=NO_VALUE)),
        (Answer('{"name": "A', done_reason="stop"), json_score("invalid_json", error=CUT)),
        (Answer('{"name": "A', done_reason="length"), json_score("truncated", error=CUT)),
        (
            Answer('```json\n{"name": "Ada", "age": 36}\n```'),
            json_score("invalid_json", source="fenced", fits=True, error=NO_VALUE),
        ),
        (
            Answer('So: {"name": "Ada", "age": 37}', done_reason="length"),
            json_score("truncated", source="prose", fits=True, error=NO_VALUE),
        ),
        (
            Answer('So: {"age": "x", "b": 1}'),
            json_score(
                "invalid_json", source="prose", error=NO_VALUE, validation_errors=BROKEN, violated_keywords=KEYWORDS
            ),
        ),
        (
            Answer('{"age": "x", "b": 1}', done_reason="length"),
            json_score(
                "schema_violation", valid=True, source="plain", validation_errors=BROKEN, violated_keywords=KEYWORDS
            ),
        ),
        (
            Answer('{"name": "Ada", "age": 37}'),
            json_score(
                "wrong_value", valid=True, source="plain", fits=True,
                validation_errors=("/age: expected: 36, found 37",),
            ),
        ),
        (
            Answer('{"name": "Ada", "age": 36}', done_reason="length"),
            json_score("correct", valid=True, source="plain", fits=True, accuracy_score=1.0),
        ),
    ],
)  # fmt: skip
def test_every_field_of_a_json_score(answer: Answer, expected: Score) -> None:
    assert score(Case(id="j", messages=(), schema=PERSON, expected={"/age": 36}), answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(failure="rejected"), {"outcome": "rejected"}),
        (Answer(""), {"outcome": "no_output", "json_parse_error": "empty answer"}),
        (Answer("no"), {"outcome": "invalid_json", "json_parse_error": NO_VALUE}),
        (
            Answer("so [36]"),
            {"outcome": "invalid_json", "json_parse_error": NO_VALUE,
             "json_source": "prose", "json_valid_lenient": True},
        ),
        (
            Answer('{"age": true}'),
            {
                "outcome": "wrong_value", "json_valid": True, "json_valid_lenient": True, "json_source": "plain",
                "validation_errors": ("/name: expected: 'Ada', found nothing", "/age: expected: 36 or 'x', found True"),
            },
        ),
        (
            Answer('{"age": "x"}'),
            {
                "outcome": "wrong_value", "json_valid": True, "json_valid_lenient": True, "json_source": "plain",
                "accuracy_score": 0.5, "validation_errors": ("/name: expected: 'Ada', found nothing",),
            },
        ),
        (
            Answer('{"age": 36.0, "name": "Ada"}'),
            {
                "outcome": "correct", "json_valid": True, "json_valid_lenient": True, "json_source": "plain",
                "accuracy_score": 1.0,
            },
        ),
    ],
)  # fmt: skip
def test_without_a_schema_a_score_says_nothing_of_schemas(answer: Answer, expected: dict[str, Any]) -> None:
    case = Case(id="j", messages=(), expected={"/name": "Ada"}, acceptable={"/age": (36, "x")})
    scored = score(case, answer)
    nothing: dict[str, Any] = {"accuracy_score": 0.0, "json_valid": False, "json_valid_lenient": False}
    assert scored == Score(**{**nothing, **expected})


def test_where_no_value_is_expected_the_schema_decides_alone() -> None:
    case = Case(id="j", messages=(), schema=PERSON)
    right = json_score("correct", valid=True, source="plain", fits=True, accuracy_score=1.0)
    assert score(case, Answer('{"name": "Eve"}')) == right
    assert score(Case(id="j", messages=(), schema=PERSON, expected={}), Answer('{"name": "Eve"}')) == right


def test_a_tolerance_is_relative_to_what_is_expected_not_to_what_was_found() -> None:
    for found, right in ((160, False), (150, True), (50, True), (40, False)):
        for value, text, pointer in ((100, "{}", ""), ([100], "[{}]", ""), ({"a": 100}, '{{"a": {}}}', "")):
            case = Case(id="j", messages=(), expected={pointer: value}, compare={"": {"relative": 0.5}})
            told = score(case, Answer(text.format(found)))
            assert told is not None
            assert told.outcome == ("correct" if right else "wrong_value")


def test_a_wrong_list_of_many_values_is_explained_by_the_first_ten() -> None:
    case = Case(id="j", messages=(), expected={f"/{i}": i for i in range(12)})
    scored = score(case, Answer("[0, null]"))
    assert scored is not None
    assert scored.accuracy_score == 1 / 12
    assert scored.validation_errors == (
        "/1: expected: 1, found None", *(f"/{i}: expected: {i}, found nothing" for i in range(2, 11))
    )  # fmt: skip


# --- from text to JSON -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("````json\n[1]\n````", ([1], "fenced")),
        ("~~~\n[1]\n~~~~", ([1], "fenced")),
        ("\t```json5.x+y-z [1]\n,```", ([1], "prose")),
        ("\t```json5.x+y-z [1]``` \nand [2]", ([1], "fenced")),
        ("```json\n[1,\n2]```", ([1, 2], "fenced")),
        ("```json\n[1,\n 2]\n \t```` \n[3]", ([1, 2], "fenced")),
        ("```json\n[1,\n2]\n```\n```\n[3]\n```", ([1, 2], "fenced")),
        ("```\nno\n```\n```\nno\n```\n```\n[3]\n```", ([3], "fenced")),
        ("```no```\n[1]\n```\n[2]", ([2], "fenced")),
        ("```json\n[1]\n``` that was it", ([1], "fenced")),
        ("```\n[1]\n``\n```", ([1], "prose")),
        ("```json\n[1]\n~~~\n```\n[2]", ([1], "prose")),
        ("see ```json\n[2]\n```", ([2], "prose")),
        ("[1]\n```\n[2]\n```", ([2], "fenced")),
        ("```\n```\n[2]", ([2], "prose")),
        ("```json\r\n[1]\r\n```\r\n", ([1], "fenced")),
        ("[[1], [2]] and [3]", ([[1], [2]], "prose")),
        ('{"a": {"b": [1]}}, [3]', ({"a": {"b": [1]}}, "prose")),
        ("[1] [2]", ([1], "prose")),
        ("[1}, [2]", ([2], "prose")),
        ("so [1, x] [2]", ([2], "prose")),
        ("[-1]", ([-1], "prose")),
        ("[0]", ([0], "prose")),
        ("[null]", ([None], "prose")),
        ("[nullable] [9]", ([9], "prose")),
        ("{ } [9]", ({}, "prose")),
        ("[ ] [9]", ([], "prose")),
        ("[1, [2]", (None, None)),
        ("fine", (None, None)),
        ("36", (None, None)),
        ('```json {"a": 1}\n```', ({"a": 1}, "fenced")),
        ('```{"a": 1}```', ({"a": 1}, "fenced")),
        ('```json title="x"\n[1]\n```', ([1], "fenced")),
        ('<think>[1]? {"a": 2}</think>\n[3]', ([3], "prose")),
        ("[1] no</think> [3]", ([3], "prose")),
        ("<think>a <think>[1]</think> [2]</think> [3]", ([3], "prose")),
        ("<think>[1]</think><think>[2]</think>```\n[3]\n```", ([3], "fenced")),
        ("<think>[1]", (None, None)),
        ("[1] <think>[2]", ([1], "prose")),
        ("<thinking>[1]</thinking>[3]", ([3], "prose")),
        ('<reasoning effort="low">[1]</reasoning>[3]', ([3], "prose")),
        ("[THINK][1][/THINK][3]", ([3], "prose")),
        ("◁think▷[1]◁/think▷[3]", ([3], "prose")),
        ("<|channel|>analysis<|message|>[1]<|end|><|channel|>final<|message|>[3]", ([3], "prose")),
        ('so {"a": "<think>"}', ({"a": "<think>"}, "prose")),
        ('so {"a": "\\"<think>"}', ({"a": '"<think>'}, "prose")),
        ("<thinker>[1]</thinker>", ([1], "prose")),
        ("<|START_THINKING|>[1]<|END_THINKING|>[3]", ([3], "prose")),
        ("<|channel>thought\n[1]<channel|>[3]", ([3], "prose")),
        ("<|begin_of_thought|>[1]<|end_of_thought|>[3]", ([3], "prose")),
        ("<|inner_prefix|>[1]<|inner_suffix|>[3]", ([3], "prose")),
        ("< think >[1]</ think >[3]", ([3], "prose")),
        ("analysisMaybe [1] no.assistantfinal[3]", ([3], "prose")),
        ("analysis: [1]", ([1], "prose")),
        ("[3]<|end|>", ([3], "prose")),
        ('A 5" screen? <think>Maybe [1]</think>\n[3]', ([3], "prose")),
        ('[1], a 5" one.</think>\n[3]', ([3], "prose")),
        ("I use no <think> tags: [3]", ([3], "prose")),
        ("<think>a</think>\n<think>[1]", (None, None)),
        ('<think>{"a": </think>{"b": "<think>"}', ({"b": "<think>"}, "prose")),
    ],
)
def test_json_is_taken_out_of_a_fence_or_of_prose(text: str, found: Any) -> None:
    assert find_json(text) == found


@pytest.mark.parametrize(
    ("text", "answer", "mentioned"),
    [
        ("seven", "Seven degrees", True),
        ("seven", "twenty-seven degrees", False),
        ("twenty", "twenty\u2011seven", False),
        ("seven", "seven_up", False),
        ("seven", "seven7", False),
        ("7", "7C", True),
        ("7", "B7", False),
        ("7", "7_8", False),
        ("19", "COVID-19", False),
        ("km", "5km", True),
        ("Oslo", "Oslo\u2019s rain", True),
        ("can", "can't", False),
        ("it's", "it\u2019s fine", True),
        ("cafe", "cafe\u0301", False),
        ("caf\u00e9", "a cafe\u0301", True),
        ("rain", "'rain'", True),
        ("rain", "rain\u2013wind", True),
        ("rain", "<think>rain?</think> sun", False),
    ],
)
def test_a_mention_is_a_word_of_its_own(text: str, answer: str, mentioned: bool) -> None:
    told = score(Case(id="m", messages=(), mentions=((text,),)), Answer(answer))
    assert told is not None
    assert (told.outcome == "correct") is mentioned


@pytest.mark.parametrize(
    ("expected", "found", "told"),
    [
        ("caf\u00e9", "cafe\u0301", "'caf\\xe9', found 'cafe\\u0301'"),
        ("a b", "a\u00a0b", "'a b', found 'a\\xa0b'"),
        ("\ufb01n", "fin", "'\\ufb01n', found 'fin'"),
        ("Oslo", "oslo", "'Oslo', found 'oslo'"),
    ],
)
def test_texts_that_look_alike_are_told_by_their_code_points(expected: str, found: str, told: str) -> None:
    text = score(Case(id="t", messages=(), expected_text=expected), Answer(found))
    json_ = score(Case(id="j", messages=(), expected={"": expected}), Answer(json.dumps(found)))
    assert text is not None
    assert json_ is not None
    assert text.validation_errors == json_.validation_errors == (f"(root): expected: {told}",)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("NaN", "NaN is not JSON"),
        ('{"a": [-Infinity]}', "-Infinity is not JSON"),
        ('{"a": 1, "b": 2, "a": 1}', 'duplicate member name "a"'),
        ('{"\u00e9\\n": 1, "\u00e9\\n": 1}', 'duplicate member name "\\u00e9\\n"'),
        ('{"a": 1, "b": 1, "b": 2, "a": 2}', 'duplicate member name "b"'),
        ("[1,]", "Expecting value: line 1 column 4 (char 3)"),
        ("1e999", "a number is out of the range of a double, or not a number"),
        (f"[{2**1024}]", "a number is out of the range of a double"),
        (f"[{2**1024 - 1}]", "a number is out of the range of a double"),
        ("[" * 101 + "]" * 101, "nested deeper than 100 levels"),
        ('{"a":' * 101 + "1" + "}" * 101, "nested deeper than 100 levels"),
        ("[" * 100_000, "nested deeper than 100 levels"),
    ],
    ids=lambda text: text[:30],
)
def test_why_a_text_is_no_json_is_said_in_these_words(text: str, error: str) -> None:
    parsed = parse_json(text)
    assert (parsed.value, parsed.error) == (None, error)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" null\n", None), ("true", True), ("1.50", 1.5), ("-0", 0),
        (str(2**1023 - 1), 2**1023 - 1), (str(-(2**1022)), -(2**1022)),
        ('{"a": 1, "b": {"a": 1}}', {"a": 1, "b": {"a": 1}}), ('""', ""), ("[[], {}]", [[], {}]),
    ],
    ids=lambda text: str(text)[:30],
)  # fmt: skip
def test_a_json_text_is_its_value(text: str, value: Any) -> None:
    parsed = parse_json(text)
    assert (parsed.value, parsed.error) == (value, None)


# --- values ------------------------------------------------------------------------------------


def deep(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value, "b": 0}
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, None), ("x", None), (True, None), (7, None), (0.5, None), ([], None), ({}, None), ((1, [2]), None),
        (deep(100), None), (2**1023 - 1, None),
        (deep(101), "nested deeper than 100 levels"),
        ([[{"a": (1, math.inf)}]], "a number is out of the range of a double, or not a number"),
        ([1, math.nan], "a number is out of the range of a double, or not a number"),
        (-math.inf, "a number is out of the range of a double, or not a number"),
        ({"a": {"b": 2**1024}}, "a number is out of the range of a double"),
        (-(2**1024), "a number is out of the range of a double"),
        ({"a": [{1: "x"}]}, "a member name is not a string"),
        ({"a": 1, None: 2}, "a member name is not a string"),
        ([b"x"], "bytes is not a JSON type"),
        ({"a": {1, 2}}, "set is not a JSON type"),
        (object(), "object is not a JSON type"),
    ],
    ids=lambda value: str(value)[:7],
)  # fmt: skip
def test_what_is_beyond_the_limits_is_named(value: Any, reason: str | None) -> None:
    assert limit_error(value) == reason


def test_pointers_of_names_with_slashes_and_tildes_lead_back() -> None:
    document = {"a/b": {"~1": [{"": 5}]}, "m~n": 6, "0": {"1": 7}, "10": [*range(12)], "": {"": 8}}
    paths: list[tuple[list[str | int], str, Any]] = [
        ([], "", document), (["a/b", "~1", 0, ""], "/a~1b/~01/0/", 5), (["m~n"], "/m~0n", 6), (["0", "1"], "/0/1", 7),
        (["10", 10], "/10/10", 10), (["10", 0], "/10/0", 0), (["", ""], "//", 8),
    ]  # fmt: skip
    for path, pointer, value in paths:
        assert pointer_to(path) == pointer
        assert at_pointer(document, pointer) == value
    for nowhere in ("0", "a", "/10/12", "/10/01", "/10/-1", "/10/1a", "/10/\u0661", "/10/", "/m~n/0", "/0/1/2", "/00"):
        assert at_pointer(document, nowhere) is ABSENT
    assert at_pointer("text", "/0") is ABSENT
    assert at_pointer(["x"], "0") is ABSENT


UNLIKE: list[tuple[Any, Any]] = [
    (True, 1), (True, 1.0), (False, 0), (False, 0.0), (False, None), ("1", 1), ("", None), ([], {}), ([], None),
    ([1], 1), ([True], [1]), ([1, 0], [1, False]), ({"n": True}, {"n": 1}), ({"n": 1.0}, {"n": True}),
    ({"l": [{"n": [False]}]}, {"l": [{"n": [0]}]}), ([[True]], [[1.0]]), ({"a": {"b": 0}}, {"a": {"b": False}}),
    ({"a": 1}, {"b": 1}), ({"a": 1}, {"a": 1, "b": 2}), ([1, 2], [1]), ([1, 2], [2, 1]), (2**53 + 1, float(2**53)),
    ({"a": "x"}, {"a": "X"}), (["x y"], ["xy "]),
]  # fmt: skip
ALIKE: list[tuple[Any, Any]] = [
    (1, 1.0), (-0.0, 0), (True, True), (None, None),
    ([1, [2.0]], [1.0, [2]]), ({"a": 1, "b": [True]}, {"b": [True], "a": 1.0}),
    (2**60, float(2**60)), ({}, {}), ([], []), ([{"n": 1}], [{"n": 1.0}]),
]  # fmt: skip
ANYTHING = {"": {"order": "sorted"}}
"""A rule that forgives nothing, so that the way of comparison with rules is taken."""
NO_PARAMETERS = ({"type": "function", "function": {"name": "f", "parameters": {}}},)


def calls(acceptable: Any, made: Any) -> tuple[Case, Answer]:
    expected = ({"name": "f", "arguments": {"x": [acceptable]}},)
    return (
        Case(id="t", messages=(), tools=NO_PARAMETERS, expected_calls=expected),
        Answer(tool_calls=({"name": "f", "arguments": {"x": made}},)),
    )


@pytest.mark.parametrize(
    ("one", "other", "alike"), [(*pair, False) for pair in UNLIKE] + [(*pair, True) for pair in ALIKE]
)
def test_every_way_of_comparison_knows_true_from_one_however_deep(one: Any, other: Any, alike: bool) -> None:
    for found, expected in ((one, other), (other, one)):
        assert matches(found, expected, {}) is alike
        assert matches(found, expected, ANYTHING) is alike
        assert matches([found, 5], [5, expected], {"": {"order": "any"}, "/1": {"order": "given"}}) is alike
        told = score(*calls(expected, found))
        assert told is not None
        assert told.outcome == ("correct" if alike else "wrong_value")
        by_bfcl = judge({"x": {"m": found}}, {"x": [{"m": [expected]}]}, {"properties": {"x": {"type": "object"}}})
        assert by_bfcl == (("correct", "") if alike else ("wrong_value", "x"))


@pytest.mark.parametrize("made", [" x", ["x\n", 1], {"a": ["\tx "]}])
def test_white_space_around_a_string_of_a_call_is_nothing_however_deep(made: Any) -> None:
    def stripped(value: Any) -> Any:
        match value:
            case str():
                return value.strip()
            case list():
                return [stripped(item) for item in value]
            case dict():
                return {name: stripped(item) for name, item in value.items()}
        return value

    for acceptable, found in ((made, stripped(made)), (stripped(made), made)):
        told = score(*calls(acceptable, found))
        assert told is not None
        assert told.outcome == "correct"
        assert not matches(found, acceptable, {})


# --- tool calls --------------------------------------------------------------------------------


def tool(name: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def weather(**arguments: Any) -> dict[str, Any]:
    return {"name": "weather", "arguments": arguments}


def tip(**arguments: Any) -> dict[str, Any]:
    return {"name": "tip", "arguments": arguments}


TOOLS = (
    tool("weather", {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}}, ["city"]),
    tool("tip", {"bill": {"type": "number"}, "percent": {"type": "number"}}, ["bill", "percent"]),
    tool("now", {}, []),
)
PARIS = weather(city=["Paris"], unit=["C", ""])
TIP = tip(bill=[50], percent=20)
SEVEN = weather(city=["1", "2", "3", "4", "5", "6", "7"])


def tool_score(outcome: str, made: int, right: float = 0.0, *errors: str, success: bool = True) -> Score:
    return Score(
        outcome=outcome,
        accuracy_score=right,
        tool_call_accuracy=right,
        tool_call_success=success,
        num_tool_calls=made,
        validation_errors=errors,
    )


@pytest.mark.parametrize(
    ("expected", "made", "told"),
    [
        ([PARIS], [weather(city="Paris")], tool_score("correct", 1, 1.0)),
        ([PARIS, TIP], [tip(bill=50.0, percent=20), weather(city=" Paris", unit="C")], tool_score("correct", 2, 1.0)),
        ([{"name": "now"}], [{"name": "now", "arguments": {}}], tool_score("correct", 1, 1.0)),
        ([], [], tool_score("correct", 0, 1.0)),
        ([PARIS], [], tool_score("no_call", 0, success=False)),
        (
            [], [weather(city="Paris"), {"name": 7}],
            tool_score("unwanted_call", 2, 0.0, "/0: unwanted_call: 'weather'", "/1: unwanted_call: ''", success=False),
        ),
        (
            [PARIS], [tip(bill=1, percent=2)],
            tool_score("wrong_function", 1, 0.0, "/0/name: wrong_function: expected 'weather', found 'tip'"),
        ),
        (
            [PARIS], [{"name": ["weather"], "arguments": {"city": "Paris"}}],
            tool_score("wrong_function", 1, 0.0, "/0/name: wrong_function: expected 'weather', found ''"),
        ),
        (
            [PARIS], [weather(unit="C")],
            tool_score("missing_argument", 1, 0.0, "/0/arguments/city: missing_argument: must be given"),
        ),
        (
            [weather()], [weather()],  # the tool's own schema asks for it
            tool_score("missing_argument", 1, 0.0, "/0/arguments/city: missing_argument: must be given"),
        ),
        (
            [PARIS], [weather(**{"city": "Paris", "a/b": 1, "c": 2})],
            tool_score("unexpected_argument", 1, 0.0, "/0/arguments/a~1b: unexpected_argument: must not be given"),
        ),
        (
            [PARIS], [weather(city=1, unit="K")],
            tool_score(
                "schema_violation", 1, 0.0, "/0/arguments/city: type: 1 is not of type 'string'",
                "/0/arguments/unit: enum: 'K' is not one of ['C', 'F']",
            ),
        ),
        (
            [PARIS], [weather(city="Paris", unit="F")],
            tool_score("wrong_value", 1, 0.0, "/0/arguments/unit: wrong_value: expected 'C' or '', found 'F'"),
        ),
        (
            [SEVEN], [weather(city="Rome")],
            tool_score(
                "wrong_value", 1, 0.0,
                "/0/arguments/city: wrong_value: expected '1' or '2' or '3' or '4' or '5', found 'Rome'",
            ),
        ),
        (
            [PARIS, TIP], [weather(city="Paris")],
            tool_score("wrong_count", 1, 0.5, "(root): wrong_count: 2 expected, 1 made"),
        ),
        (
            [PARIS], [weather(city="Paris"), weather(city="Paris"), weather(city="Rome")],
            tool_score("wrong_count", 3, 1 / 3, "(root): wrong_count: 1 expected, 3 made"),
        ),
        (
            [PARIS, TIP, PARIS], [weather(city="Rome"), tip(bill=1, percent="x")],
            tool_score(
                "schema_violation", 2, 0.0, "/0/arguments/city: wrong_value: expected 'Paris', found 'Rome'",
                "/1/arguments/percent: type: 'x' is not of type 'number'", "(root): wrong_count: 3 expected, 2 made",
            ),
        ),
        (
            [TIP, PARIS], [weather(city="Paris"), tip(bill=50, percent=21)],
            tool_score("wrong_value", 2, 0.5, "/1/arguments/percent: wrong_value: expected 20, found 21"),
        ),
        (
            [PARIS], [{"name": "weather", "arguments": "x"}],
            tool_score("schema_violation", 1, 0.0, "/0/arguments: type: the arguments are not an object"),
        ),
        (
            [PARIS], [{"name": "weather"}],
            tool_score("schema_violation", 1, 0.0, "/0/arguments: type: the arguments are not an object"),
        ),
        (
            [PARIS], [{"name": "weather", "arguments": {1: 2}}],
            tool_score("schema_violation", 1, 0.0, "/0/arguments: type: a member name is not a string"),
        ),
    ],
)  # fmt: skip
def test_every_field_of_a_score_of_calls(expected: list[Any], made: list[Any], told: Score) -> None:
    case = Case(id="t", messages=(), tools=TOOLS, expected_calls=tuple(expected))
    assert score(case, Answer(tool_calls=tuple(made), done_reason="stop")) == told


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ([], tool_score("no_call", 0, success=False)),
        ([weather(city="Oslo"), tip(bill=1, percent=2)], tool_score("correct", 2, 1.0)),
        (
            [weather(city="Oslo"), weather(city=1, unit="K")],
            tool_score(
                "schema_violation", 2, 0.5, "/1/arguments/city: type: 1 is not of type 'string'",
                "/1/arguments/unit: enum: 'K' is not one of ['C', 'F']",
            ),
        ),
        (
            [tip(bill=1), weather(unit="K"), {"name": "tip", "arguments": []}],
            tool_score(
                "missing_argument", 3, 0.0, "/0/arguments/percent: missing_argument: must be given",
                "/1/arguments/city: missing_argument: must be given",
                "/2/arguments: type: the arguments are not an object",
            ),
        ),
        (
            [{"name": "x", "arguments": {}}, {"arguments": {}}],
            tool_score(
                "wrong_function", 2, 0.0, "/0/name: wrong_function: no such tool, found 'x'",
                "/1/name: wrong_function: no such tool, found ''",
            ),
        ),
    ],
)  # fmt: skip
def test_every_field_of_a_score_by_the_tools_alone(made: list[Any], told: Score) -> None:
    assert score(Case(id="t", messages=(), tools=TOOLS), Answer(tool_calls=tuple(made))) == told


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ([weather(city="PARIS.")], tool_score("correct", 1, 1.0)),
        (
            [weather(city=1)],
            tool_score("schema_violation", 1, 0.0, "/0/arguments/city: type: 1 is not of type 'string'"),
        ),
        (
            [weather(city="Rome")],
            tool_score("wrong_value", 1, 0.0, "/0/arguments/city: wrong_value: expected 'Paris', found 'Rome'"),
        ),
        ([weather()], tool_score("missing_argument", 1, 0.0, "/0/arguments/city: missing_argument: must be given")),
        (
            [weather(city="Paris", zip=1)],
            tool_score("unexpected_argument", 1, 0.0, "/0/arguments/zip: unexpected_argument: must not be given"),
        ),
        (
            [{"name": "weather", "arguments": None}],
            tool_score("schema_violation", 1, 0.0, "/0/arguments: type: the arguments are not an object"),
        ),
        (
            [{"name": "look.up", "arguments": {"city": "Paris"}}],  # known, but not by the name that was sent
            tool_score("wrong_function", 1, 0.0, "/0/name: wrong_function: no such tool, found 'look.up'"),
        ),
        (
            [tip(bill=1, percent=1)],
            tool_score("wrong_function", 1, 0.0, "/0/name: wrong_function: expected 'look.up', found 'tip'"),
        ),
        (
            [weather(city="Rome"), weather(city="Paris")],
            tool_score("wrong_count", 2, 0.5, "(root): wrong_count: 1 expected, 2 made"),
        ),
    ],
)  # fmt: skip
def test_every_field_of_a_score_by_bfcls_rules(made: list[Any], told: Score) -> None:
    wanted = {"name": "look.up", "arguments": {"city": ["Paris"]}}
    names = {"weather": "look.up"}
    case = Case(id="t", messages=(), tools=TOOLS, expected_calls=(wanted,), matching="bfcl", function_names=names)
    assert score(case, Answer(tool_calls=tuple(made))) == told


def test_by_bfcls_rules_any_calls_are_right_where_none_is_said() -> None:
    case = Case(id="t", messages=(), tools=TOOLS, matching="bfcl")
    assert score(case, Answer(tool_calls=(weather(), {"name": "x"}))) == tool_score("correct", 2, 1.0)
    assert score(case, Answer()) == tool_score("no_call", 0, success=False)


BROKEN = {"name": "weather", "arguments": {"(not JSON)": '{"city": "Pa'}}
NOT_JSON_TOLD = '/0/arguments: broken_call: not JSON: \'{"city": "Pa\''


@pytest.mark.parametrize("matching", ["strict", "bfcl"])
@pytest.mark.parametrize(
    ("expected", "made", "reason", "told"),
    [
        ((PARIS,), [BROKEN], "tool_calls", tool_score("broken_call", 1, 0.0, NOT_JSON_TOLD, success=False)),
        ((PARIS,), [BROKEN], "length", tool_score("truncated", 1, 0.0, NOT_JSON_TOLD, success=False)),
        ((PARIS, PARIS), [BROKEN, weather(city="Paris")], "stop", tool_score("broken_call", 2, 0.5, NOT_JSON_TOLD)),
        (None, [BROKEN], "stop", tool_score("broken_call", 1, 0.0, NOT_JSON_TOLD, success=False)),
    ],
)  # fmt: skip
def test_a_call_whose_arguments_are_no_json_is_a_broken_one(
    expected: Any, made: list[Any], reason: str, told: Score, matching: Any
) -> None:
    case = Case(id="t", messages=(), tools=TOOLS, expected_calls=expected, matching=matching)
    assert score(case, Answer(tool_calls=tuple(made), done_reason=reason)) == told


def test_a_broken_call_where_none_was_due_is_an_unwanted_one() -> None:
    case = Case(id="t", messages=(), tools=TOOLS, expected_calls=())
    assert score(case, Answer(tool_calls=(BROKEN,))).outcome == "unwanted_call"


IN_TEXT = "(root): no_call: a tool call stands in the text"


@pytest.mark.parametrize(
    ("expected", "answer", "told"),
    [
        ((PARIS,), Answer(failure="rejected"), tool_score("rejected", 0, success=False)),
        ((PARIS,), Answer(failure="broken_call"), tool_score("broken_call", 0, success=False)),
        ((), Answer("No.", failure="truncated"), tool_score("truncated", 0, success=False)),
        ((), Answer(tool_calls=(weather(city="Paris"),), failure="rejected"), tool_score("rejected", 0, success=False)),
        ((PARIS,), Answer(done_reason="length"), tool_score("truncated", 0, success=False)),
        ((PARIS,), Answer("Let me", done_reason="length"), tool_score("truncated", 0, success=False)),
        (None, Answer("Let me", done_reason="length"), tool_score("truncated", 0, success=False)),
        ((), Answer(" ", done_reason="length"), tool_score("truncated", 0, success=False)),
        ((), Answer("No", done_reason="length"), tool_score("correct", 0, 1.0)),
        ((), Answer(" ", done_reason="stop"), tool_score("correct", 0, 1.0)),
        ((), Answer('{"name": "weather"}'), tool_score("correct", 0, 1.0)),
        (None, Answer('{"name": "weather"}'), tool_score("no_call", 0, 0.0, IN_TEXT, success=False)),
        ((PARIS,), Answer('{"name": "tip"}'), tool_score("no_call", 0, 0.0, IN_TEXT, success=False)),
        ((PARIS,), Answer('So {"name": "tip"}'), tool_score("no_call", 0, 0.0, IN_TEXT, success=False)),
        ((PARIS,), Answer('[1, {"function": {"name": "tip"}}]'), tool_score("no_call", 0, 0.0, IN_TEXT, success=False)),
        ((PARIS,), Answer("[TOOL_CALLS]"), tool_score("no_call", 0, 0.0, IN_TEXT, success=False)),
        ((PARIS,), Answer("I <tool_call>"), tool_score("no_call", 0, 0.0, IN_TEXT, success=False)),
        ((PARIS,), Answer('{"name": "rain"}'), tool_score("no_call", 0, success=False)),
        ((PARIS,), Answer('{"name": 5}'), tool_score("no_call", 0, success=False)),
        ((PARIS,), Answer('["weather"]'), tool_score("no_call", 0, success=False)),
        ((PARIS,), Answer("weather(city=Paris)"), tool_score("no_call", 0, success=False)),
    ],
)
def test_every_field_of_a_score_without_calls(expected: Any, answer: Answer, told: Score) -> None:
    assert score(Case(id="t", messages=(), tools=TOOLS, expected_calls=expected), answer) == told


# --- plain answers -----------------------------------------------------------------------------


def text_score(outcome: str, share: float = 0.0, *errors: str) -> Score:
    return Score(outcome=outcome, accuracy_score=share, validation_errors=errors)


ONE: dict[str, Any] = {"expected_text": " Oslo\n"}
SEVERAL: dict[str, Any] = {"expected_text": "Oslo", "acceptable": {"": ("New York", "Bergen ")}}
LOOSE: dict[str, Any] = {**SEVERAL, "compare": {"": {"case": "ignore", "space": "ignore"}}}
MENTIONS: dict[str, Any] = {"mentions": (("7", "seven"), ("Oslo",), ("rain", "wet"), ("fog",))}


@pytest.mark.parametrize(
    ("case", "answer", "told"),
    [
        (ONE, Answer("\tOslo "), text_score("correct", 1.0)),
        (ONE, Answer("Oslo", done_reason="length"), text_score("correct", 1.0)),
        (ONE, Answer("Oslo", failure="rejected"), text_score("rejected")),
        (ONE, Answer(" \n"), text_score("no_output")),
        (ONE, Answer("", done_reason="length"), text_score("truncated")),
        (ONE, Answer(" oslo "), text_score("wrong_value", 0.0, "(root): expected: 'Oslo', found 'oslo'")),
        (ONE, Answer("Os", done_reason="length"), text_score("truncated", 0.0, "(root): expected: 'Oslo', found 'Os'")),
        (ONE, Answer("Os", done_reason="stop"), text_score("wrong_value", 0.0, "(root): expected: 'Oslo', found 'Os'")),
        ({"expected_text": ""}, Answer(" "), text_score("correct", 1.0)),
        (SEVERAL, Answer("Bergen"), text_score("correct", 1.0)),
        (SEVERAL, Answer("New York"), text_score("correct", 1.0)),
        (
            SEVERAL, Answer("new york"),
            text_score("wrong_value", 0.0, "(root): expected: 'New York' or 'Bergen', found 'new york'"),
        ),
        (LOOSE, Answer("new  york"), text_score("correct", 1.0)),
        (
            LOOSE, Answer("newyork"),
            text_score("wrong_value", 0.0, "(root): expected: 'New York' or 'Bergen', found 'newyork'"),
        ),
        (MENTIONS, Answer("Seven wet hours in OSLO, and fog"), text_score("correct", 1.0)),
        (MENTIONS, Answer("7 Oslo rain fog", done_reason="length"), text_score("correct", 1.0)),
        (MENTIONS, Answer("7 Oslo rain fog", failure="rejected"), text_score("rejected")),
        (MENTIONS, Answer(" \n", done_reason="length"), text_score("truncated")),
        (
            MENTIONS, Answer("wet Oslo in fog", done_reason="stop"),
            text_score("wrong_value", 0.75, "(root): mentions: '7' or 'seven' is missing"),
        ),
        (
            MENTIONS, Answer("Oslo", done_reason="length"),
            text_score(
                "truncated", 0.25, "(root): mentions: '7' or 'seven' is missing",
                "(root): mentions: 'rain' or 'wet' is missing", "(root): mentions: 'fog' is missing",
            ),
        ),
    ],
)  # fmt: skip
def test_every_field_of_a_score_of_text(case: dict[str, Any], answer: Answer, told: Score) -> None:
    assert score(Case(id="n", messages=(), **case), answer) == told


def test_what_says_nothing_of_right_and_wrong_has_no_score() -> None:
    assert score(Case(id="x", messages=(), reference="Oslo"), Answer("Oslo")) is None


def test_a_schema_that_cannot_be_applied_leaves_every_other_field_empty() -> None:
    told = score(Case(id="j", messages=(), schema={"$ref": "#/no"}), Answer("{}"))
    assert told is not None
    assert told == Score(outcome="unscored", validation_errors=told.validation_errors)

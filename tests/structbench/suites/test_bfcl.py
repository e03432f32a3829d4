"""BFCL's categories as suites and BFCL's rules for calls, on a few cases in BFCL's format made up here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from structbench.errors import BadInput
from structbench.scoring import Answer, score
from structbench.scoring.bfcl import judge
from structbench.suites import bfcl
from structbench.suites.catalog import load_suite
from structbench.suites.generated import TextShape
from structbench.types import Case, Suite

GREET = {
    "name": "people.greet",
    "description": "Greets.",
    "parameters": {
        "type": "dict",
        "properties": {
            "who": {"type": "string", "description": "Name"},
            "times": {"type": "integer", "default": 1},
            "place": {"type": "tuple", "items": {"type": "float"}},
            "about": {"type": "dict", "properties": {"topic": {"type": "any"}}},
        },
        "required": ["who"],
    },
}
PARAMETERS: Any = GREET["parameters"]
ENTRY = {"id": "simple_python_0", "question": [[{"role": "user", "content": "Greet Ada."}]], "function": [GREET]}
TRUTH = {"id": "simple_python_0", "ground_truth": [{"people.greet": {"who": ["Ada"], "times": ["", 1]}}]}


def load(name: str) -> Suite:
    return load_suite(name, text=TextShape(), seed=0)


def write(folder: Path, category: str, entries: Sequence[Any], truths: Sequence[Any] = ()) -> None:
    (folder / "possible_answer").mkdir(exist_ok=True)
    for path, lines in ((folder, entries), (folder / "possible_answer", truths)):
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (path / f"BFCL_v4_{category}.json").write_text(text)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path, "simple_python", [ENTRY], [TRUTH])
    two = {**ENTRY, "id": "parallel_0", "question": [[{"role": "system", "content": "S"}, *ENTRY["question"][0]]]}
    write(tmp_path, "parallel", [two], [{"id": "parallel_0", "ground_truth": TRUTH["ground_truth"] * 2}])
    write(tmp_path, "irrelevance", [{**ENTRY, "id": "irrelevance_0"}])
    write(tmp_path, "live_relevance", [{**ENTRY, "id": "live_relevance_0"}])
    return tmp_path


def test_a_case_asks_what_bfcl_asks_in_json_schemas_words(data: Path) -> None:
    suite = load(f"bfcl:{data}/simple_python")
    assert (suite.name, suite.default_requests) == ("bfcl:simple_python", 1)
    (case,) = suite.cases
    assert (case.kind, case.matching, case.tags) == ("tools", "bfcl", ("simple_python",))
    assert case.messages == ({"role": "user", "content": "Greet Ada."},)
    (tool,) = case.tools
    function = tool["function"]
    assert function["name"] == "people_greet"
    assert function["description"] == "Greets. Note that the provided function is in Python 3 syntax."
    assert function["parameters"] == {
        "type": "object",
        "properties": {
            "who": {"type": "string", "description": "Name"},
            "times": {"type": "integer", "default": 1},
            "place": {"type": "array", "items": {"type": "number"}},
            "about": {"type": "object", "properties": {"topic": {"type": "string"}}},
        },
        "required": ["who"],
    }
    assert case.function_names == {"people_greet": "people.greet"}


def test_a_folder_is_all_its_categories_and_its_hash_changes_with_questions_and_answers(data: Path) -> None:
    suite = load(f"bfcl:{data}")
    assert [case.id for case in suite.cases] == ["simple_python_0", "parallel_0", "irrelevance_0", "live_relevance_0"]
    assert suite.name == f"bfcl:{data.name}"
    hashes = [suite.content_hash, load(f"bfcl:{data}/parallel").content_hash]
    write(data, "simple_python", [ENTRY], [{**TRUTH, "ground_truth": [{"people.greet": {"who": ["Eve"]}}]}])
    hashes.append(load(f"bfcl:{data}").content_hash)
    assert len(set(hashes)) == 3


def test_names_that_would_collide_stay_apart(data: Path) -> None:
    functions = [{**GREET, "name": name} for name in ("a.b", "a_b", "a/b", "x" * 70, "x" * 71)]
    write(data, "irrelevance", [{**ENTRY, "function": functions}])
    (case,) = load(f"bfcl:{data}/irrelevance").cases
    sent = [tool["function"]["name"] for tool in case.tools]
    assert sent == ["a_b", "a_b_2", "a_b_3", "x" * 64, "x" * 62 + "_2"]
    assert case.function_names == {
        "a_b": "a.b", "a_b_2": "a_b", "a_b_3": "a/b", "x" * 64: "x" * 70, "x" * 62 + "_2": "x" * 71,
    }  # fmt: skip


def outcome(case: Case, *calls: tuple[str, dict[str, Any]], text: str = "") -> str:
    made = tuple({"name": name, "arguments": arguments} for name, arguments in calls)
    result = score(case, Answer(text, made, "stop"))
    assert result is not None
    assert (result.accuracy_score == 1.0) is (result.outcome == "correct")
    return result.outcome


def test_calls_come_under_the_name_that_was_sent(data: Path) -> None:
    (case,) = load(f"bfcl:{data}/simple_python").cases
    assert outcome(case, ("people_greet", {"who": "ADA "})) == "correct"
    assert outcome(case, ("people.greet", {"who": "Ada"})) == "wrong_function"  # no such tool was offered
    result = score(case, Answer("", ({"name": "people_greet", "arguments": {"who": "Ada", "times": "1"}},), "stop"))
    assert result is not None
    assert result.outcome == "schema_violation"
    assert result.validation_errors == ("/0/arguments/times: type: '1' is not of type 'integer'",)


def test_several_calls_no_call_and_any_call(data: Path) -> None:
    several, none, any_call = (load(f"bfcl:{data}/{c}").cases[0] for c in ("parallel", "irrelevance", "live_relevance"))
    right = ("people_greet", {"who": "Ada"})
    assert outcome(several, right, right) == "correct"
    assert outcome(several, right) == outcome(several, right, right, right) == "wrong_count"
    assert outcome(none, text="I cannot.") == "correct"
    assert outcome(none, right) == "unwanted_call"
    assert outcome(any_call, ("nobody", {})) == "correct"
    assert outcome(any_call, text="Hello Ada.") == "no_call"


STRING, NUMBER, LIST = {"type": "string"}, {"type": "number"}, {"type": "array", "items": {"type": "string"}}
OBJECTS = {"type": "array", "items": {"type": "object"}}
FLOATS, INTEGERS = {"type": "array", "items": NUMBER}, {"type": "array", "items": {"type": "integer"}}


@pytest.mark.parametrize(
    ("described", "acceptable", "value", "expected"),
    [
        (STRING, ["April 1, 2024"], "april 1 2024", "correct"),
        (STRING, ["don't"], 'don"t', "correct"),
        (STRING, ["a", ""], "", "correct"),
        (STRING, ["a"], "", "wrong_value"),
        (STRING, ["a"], 1, "schema_violation"),
        (STRING, [""], "x", "wrong_value"),
        (STRING, [], "x", "wrong_value"),
        (STRING, ["", None], None, "correct"),
        (STRING, [None, "a b"], "a b", "correct"),
        (STRING, [None, "a b"], "AB", "wrong_value"),  # beside a value of another type all are compared exactly
        (STRING, ["a"], None, "schema_violation"),
        (STRING, [True], True, "correct"),
        (STRING, [True], "true", "wrong_value"),
        (NUMBER, [5.0], 5, "correct"),
        (NUMBER, [5], 5.0, "correct"),
        (NUMBER, [5.0], "5.0", "schema_violation"),
        (NUMBER, [1.0], True, "schema_violation"),
        ({"type": "integer"}, [5], 5.0, "schema_violation"),
        ({"type": "integer"}, [5, "five"], 6, "wrong_value"),
        ({"type": "integer"}, ["n"], "n", "correct"),
        ({"type": "integer"}, ["n"], "N", "wrong_value"),  # a variable's name is compared exactly
        ({"type": "integer"}, [""], 5, "wrong_value"),
        (NUMBER, [""], 5, "wrong_value"),
        (NUMBER, [""], 0.5, "wrong_value"),
        ({"type": "boolean"}, [""], True, "wrong_value"),
        ({"type": "boolean"}, [True], True, "correct"),
        ({"type": "boolean"}, [True], False, "wrong_value"),
        ({"type": "boolean"}, [True], 1, "schema_violation"),
        (LIST, [["A b", "c"]], ["ab", "C."], "correct"),
        (LIST, [["a", "b"]], ["b", "a"], "wrong_value"),
        (LIST, [["a"], ""], [], "correct"),
        (LIST, [["a"]], "a", "schema_violation"),
        (LIST, [], ["a"], "schema_violation"),
        (LIST, [["a"]], [1], "schema_violation"),
        (LIST, [["a", "b"]], ["a", 1], "schema_violation"),
        (LIST, [["x"], "ab"], ["a", "b"], "wrong_value"),  # a text is no list of its letters
        (LIST, [["x"], 5], ["a"], "wrong_value"),
        (LIST, [["a"], ""], [1], "wrong_value"),
        (LIST, [["a"], ["b"]], ["B"], "correct"),
        ({"type": "array"}, [["a b", 1]], ["AB", 1], "correct"),
        ({"type": "array", "items": 5}, [["a b"]], ["AB"], "correct"),
        ({"type": "string", "items": STRING}, ["a b"], "AB", "correct"),
        (FLOATS, [[5.0, 2.5]], [5, 2.5], "correct"),
        (INTEGERS, [[5]], [5.0], "schema_violation"),
        (INTEGERS, [[1]], [True], "schema_violation"),
        ({"type": "array", "items": {"type": "array"}}, [[[1], [2]]], [[1], [2]], "correct"),
        ({"type": "object"}, [{"a": [1, 2], "b": ["", "x"]}], {"a": 2}, "correct"),
        ({"type": "object"}, [{"a": [1], "b": ["", "x"]}], {"a": 1, "b": "X"}, "correct"),
        ({"type": "object"}, [{"a": [1], "b": ["x"]}], {"a": 1}, "wrong_value"),
        ({"type": "object"}, [{"a": [1]}], {"a": 1, "c": 1}, "wrong_value"),
        ({"type": "object"}, [{"a": [1]}], {"a": True}, "wrong_value"),
        ({"type": "object"}, [""], {}, "wrong_value"),
        (
            {"type": "object"},
            [{"a": 1, "b": "x y"}],
            {"a": 1, "b": "XY"},
            "correct",
        ),  # a member's one value, not a list
        ({"type": "object"}, [{"a": ["x"]}, {"a": ["y"]}], {"a": "Y"}, "correct"),
        (OBJECTS, [[{"a": [1]}, {"a": [2]}]], [{"a": 1}, {"a": 2}], "correct"),
        (OBJECTS, [[{"a": [1]}, {"a": [2]}]], [{"a": 2}, {"a": 1}], "wrong_value"),
        (OBJECTS, [[{"a": [1]}]], [{"a": 1}, {"a": 1}], "wrong_value"),
        (OBJECTS, [[{"a": [1]}, {"a": [2]}]], [{"a": 1}, {"a": 9}], "wrong_value"),
        (OBJECTS, [[{"a": [1]}], 5], [{"a": 2}], "wrong_value"),
        (OBJECTS, [["v"]], ["v"], "wrong_value"),
        (OBJECTS, [["v"]], [{"v": 1}], "wrong_value"),
        (OBJECTS, [["v"], [{"a": [1]}]], ["v"], "wrong_value"),
    ],
)
def test_rules_for_a_value(described: Any, acceptable: Any, value: Any, expected: str) -> None:
    found, argument = judge({"a": value}, {"a": acceptable}, {"properties": {"a": described}})
    assert (found, argument) == (expected, "" if expected == "correct" else "a")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"must": "m", "may": "x"}, ("correct", "")),
        ({"must": "m"}, ("correct", "")),
        ({"may": "x"}, ("missing_argument", "must")),
        ({"must": "m", "known": "k"}, ("unexpected_argument", "known")),
        ({"must": "m", "unknown": "x"}, ("unexpected_argument", "unknown")),
        ({"must": "n", "may": 1}, ("schema_violation", "may")),  # the type before the other's value
    ],
)
def test_rules_for_arguments(arguments: dict[str, Any], expected: tuple[str, str]) -> None:
    schema = {"properties": {"must": STRING, "may": STRING, "known": STRING}, "required": ["must"]}
    assert judge(arguments, {"must": ["m"], "may": ["x", ""]}, schema) == expected


BROKEN_LINES = {
    "{": "line 2: not JSON at column 2: Expecting property name enclosed in double quotes (download",
    "[]": "line 2: must be a JSON object, not list",
    json.dumps({"id": "x"}): "line 2: function: missing or not of type list",
    json.dumps({**ENTRY, "question": []}): "line 2: question: must be a single turn",
    json.dumps({**ENTRY, "function": [1]}): "line 2: function: must be a list of objects",
    json.dumps({**ENTRY, "id": "x"}): "has no line with the id x",
    json.dumps(
        {**ENTRY, "function": [{**GREET, "parameters": {"type": "cat"}}]}
    ): "unknown type 'cat': BFCL's types are string",
    json.dumps({**ENTRY, "function": [{**GREET, "description": None}]}): "line 2: description: missing or not of type",
    json.dumps({**ENTRY, "function": [{**GREET, "parameters": {"type": ["integer", "null"]}}]}): "BFCL's types are",
    json.dumps(
        {**ENTRY, "function": [{**GREET, "parameters": {**PARAMETERS, "required": 5}}]}
    ): "line 2: required: missing or not of type list",
    json.dumps({**ENTRY, "function": [{**GREET, "parameters": {**PARAMETERS, "required": [5]}}]}): "a list of names",
    json.dumps(
        {**ENTRY, "function": [{**GREET, "parameters": {**PARAMETERS, "properties": []}}]}
    ): "line 2: properties:",
    json.dumps({**ENTRY, "about": float("nan")}): "line 2: not JSON: NaN is not JSON",
    json.dumps({**ENTRY, "about": "\udfff"}): "line 2: not JSON: unpaired surrogate",
}


@pytest.mark.parametrize("line", BROKEN_LINES)
def test_a_broken_line_is_named(data: Path, line: str) -> None:
    write(data, "simple_python", [ENTRY, line], [TRUTH])
    with pytest.raises(BadInput) as caught:
        load(f"bfcl:{data}/simple_python")
    assert str(caught.value).startswith("BFCL_v4_simple_python.json, line 2: ")
    assert BROKEN_LINES[line] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parameters_nested_beyond_pythons_stack_are_refused(data: Path) -> None:
    deep = '{"type": "dict", "properties": {"a": ' * 3000 + '{"type": "dict"}' + "}}" * 3000
    line = json.dumps({**ENTRY, "function": [{**GREET, "parameters": "DEEP"}]}).replace('"DEEP"', deep)
    write(data, "simple_python", [line], [TRUTH])
    # Before Python 3.12 it is the JSON reader that gives up.
    with pytest.raises(
        BadInput, match=r"line 1: (function: parameters: nested too deeply|not JSON: maximum recursion)"
    ):
        load(f"bfcl:{data}/simple_python")


@pytest.mark.parametrize(
    ("truth", "said"), [([{"a": {}, "b": {}}], "must be a list"), ([{"a": 5}], "each function's arguments must be an")]
)
def test_a_broken_answer_is_named(data: Path, truth: Any, said: str) -> None:
    write(data, "simple_python", [ENTRY], [{"id": "simple_python_0", "ground_truth": truth}])
    with pytest.raises(BadInput) as caught:
        load(f"bfcl:{data}/simple_python")
    assert f"possible_answer/BFCL_v4_simple_python.json, line 1: ground_truth: {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"properties": {"a": STRING}, "required": 5}, "x", "correct"),
        ({"properties": {"a": STRING}, "required": [["a"]]}, "x", "missing_argument"),
        ({"properties": 5}, "x", "unexpected_argument"),
        ({"properties": {"a": 5}}, "x", "unexpected_argument"),
        ({"properties": {"a": {"type": ["string", "null"]}}}, "x", "correct"),  # the expected value's type decides
        ({"properties": {"a": {"type": "array", "items": {"type": ["string"]}}}}, ["x"], "correct"),
    ],
)
def test_whatever_a_tool_says_of_its_parameters_a_call_gets_a_verdict(schema: Any, value: Any, expected: str) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    calls = ({"name": "f", "arguments": {"a": [value]}},)
    case = Case(id="x", messages=(), tools=(tool,), expected_calls=calls, matching="bfcl")
    assert outcome(case, ("f", {"a": value})) == expected


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bfcl:/no/such", "bfcl:/no/such: there is no folder /no: check the path"),
        ("bfcl:/none", 'bfcl: has no category "none", and there is no folder /none: choose from simple_python, '),
        ("bfcl:simple_pyton", 'bfcl: has no category "simple_pyton": did you mean "simple_python"? Choose from'),
        ("bfcl:", 'bfcl: has no category ""'),
        (
            "bfcl:simple_java",
            "bfcl:simple_java is not supported: BFCL judges its arguments as Java or JavaScript source code",
        ),
        ("bfcl:multi_turn_base", "bfcl:multi_turn_base is not supported: its cases take several turns"),
        ("bfcl:no/where/parallel", "bfcl:no/where/parallel: there is no folder no/where: check the path"),
        ("bfcl:{data}/multiple", "contains no BFCL_v4_multiple.json"),
        ("bfcl:{data}/possible_answers", 'has no category "possible_answers"'),
        ("bfcl:{data}/possible_answer/simple_python", "cannot be read: No such file or directory"),
        ("bfcl:" + "x" * 300, "cannot be read: File name too long: check the path"),
        ("bfcl:{empty}", "contains no file such as BFCL_v4_simple_python.json"),
        ("bflc:simple_python", 'unknown suite "bflc:simple_python": '),
    ],
)
def test_what_cannot_be_had_is_said_in_a_line(data: Path, tmp_path: Path, name: str, said: str) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInput) as caught:
        load(name.format(data=data, empty=empty))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_the_package_the_line_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(BadInput, match=r"pip install --no-deps bfcl-eval"):
        load("bfcl:parallel")
    ((name, count, text),) = bfcl.describe_bfcl()
    assert (name, count) == ("bfcl:CATEGORY", None)
    assert "pip install --no-deps bfcl-eval" in text


def test_an_installed_package_is_described_by_its_counts(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    monkeypatch.setattr(bfcl, "_installed", lambda: data)
    assert [(name, count) for name, count, _ in bfcl.describe_bfcl()] == [
        ("bfcl:simple_python", 1), ("bfcl:parallel", 1), ("bfcl:irrelevance", 1), ("bfcl:live_relevance", 1),
    ]  # fmt: skip

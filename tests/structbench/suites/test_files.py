"""Suite files: what is documented loads, what is broken is named by line and field."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from structbench.cli import main
from structbench.errors import BadInput
from structbench.scoring import Answer, score
from structbench.suites.catalog import check_suite, describe_suites, load_suite, new_suite, tagged
from structbench.suites.generated import TextShape
from structbench.types import Suite
from tests.support.paths import ROOT

DOC = ROOT / "docs" / "suites.md"


def load(path: str | Path) -> Suite:
    return load_suite(str(path), text=TextShape(), seed=0)


CASE: dict[str, Any] = {"id": "a", "prompt": "hello"}
OBJECT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look something up",
        "parameters": {
            "type": "object",
            "properties": {"what": {"type": "string"}, "many": {"type": "integer", "minimum": 1}},
            "required": ["what"],
        },
    },
}


def tool_with(**function: Any) -> list[dict[str, Any]]:
    return [{**TOOL, "function": {**TOOL["function"], **function}}]  # type: ignore[dict-item]


def calls(**arguments: Any) -> dict[str, Any]:
    return {"tools": [TOOL], "expected_calls": [{"name": "look", "arguments": arguments}]}


def test_every_example_of_the_documentation_loads(tmp_path: Path) -> None:
    blocks = re.findall(r"```jsonl\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    kinds = []
    for number, block in enumerate(blocks):
        file = tmp_path / f"example{number}.jsonl"
        file.write_text(block, encoding="utf-8")
        kinds += [case.kind for case in load(file).cases]
    assert sorted(kinds) == ["answer", "answer", "json", "json", "text", "tools", "tools", "tools"]


def test_the_documentation_shows_the_message_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broken = json.dumps({"id": "c", "promt": "hello"})
    Path("mine.jsonl").write_text("\n".join([json.dumps(CASE), "", broken]), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        load("mine.jsonl")
    assert f"```\n{caught.value}\n```" in DOC.read_text(encoding="utf-8")


def test_the_documentation_counts_what_ships() -> None:
    text = DOC.read_text(encoding="utf-8")
    for name, count, _ in describe_suites():
        assert f"| `{name}` | {count} |" in text


def test_a_file_keeps_order_and_is_named_after_itself(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    lines = [json.dumps({**CASE, "id": name, "tags": ["t"], "options": {"seed": 1}}) for name in "zab"]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(lines).encode())
    suite = load(file)
    assert [case.id for case in suite.cases] == ["z", "a", "b"]
    assert (suite.name, suite.default_requests) == ("mine.jsonl", 3)
    assert suite.cases[0].messages == ({"role": "user", "content": "hello"},)


def test_the_hash_follows_content_and_not_spelling(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    hashes = []
    for line in ('{"id": "é", "prompt": "x"}', '\n{"prompt":"x","id":"\\u00e9"}\n', '{"id": "é", "prompt": "y"}'):
        file.write_text(line, encoding="utf-8")
        hashes.append(load(file).content_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_unknown_suite_names_the_known_and_the_nearest() -> None:
    with pytest.raises(BadInput, match=r'unknown suite "tolls": did you mean "tools"\?.*json, tools, turns, numbers'):
        load("tolls")


def test_missing_folder_and_empty_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"gone\.jsonl does not exist: check the path"):
        load(tmp_path / "gone.jsonl")
    with pytest.raises(BadInput, match="is a folder without schemas: put"):
        load(tmp_path)
    (tmp_path / "empty.jsonl").write_bytes(b"\xef\xbb\xbf\n  \n")
    with pytest.raises(BadInput, match="is empty: write one case"):
        load(tmp_path / "empty.jsonl")
    with pytest.raises(BadInput, match="cannot be read"):
        load("a\0b.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "b", "prompt": "x"', "not JSON at column 26"),
        (b"/ no comment", "not JSON at column 1"),
        (b'{"id": "b", "prompt": "\xff"}', "not UTF-8 at byte 24"),
        (b'{"id": "b", "prompt": "\\ud800"}', "surrogate"),
        (b'{"id": "b", "id": "c", "prompt": "x"}', 'duplicate member name "id"'),
        (b'{"id": "b", "prompt": "x", "options": {"temperature": NaN}}', "NaN is not JSON"),
        (b'{"id": "b", "prompt": "x", "options": {"temperature": 1e999}}', "not JSON: Out of range"),
        (b"[" * 100_000, "not JSON: "),
        (b'["b"]', "must be an object such as"),
        (b'{"id": "a", "prompt": "x"}', 'id: "a" is already used in line 1'),
    ],
)
def test_a_line_that_is_no_case_is_named_by_its_number(tmp_path: Path, line: bytes, message: str) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_bytes(json.dumps(CASE).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(BadInput) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}, line 3: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_in_utf16_is_called_that(tmp_path: Path) -> None:
    file = tmp_path / "wide.jsonl"
    file.write_text(json.dumps(CASE), encoding="utf-16")
    with pytest.raises(BadInput, match="line 1: the file is UTF-16: save it as UTF-8"):
        load(file)


WITH_SCHEMA = {"schema": OBJECT}
DRAFT_3 = "http://json-schema.org/draft-03/schema#"
DRAFT_4 = "http://json-schema.org/draft-04/schema#"


def compared(rules: dict[str, Any]) -> dict[str, Any]:
    return {"schema": OBJECT, "expected": {"/n": 1}, "compare": rules}


BROKEN_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"promtp": "x"}, 'promtp: unknown key: did you mean "prompt"?'),
    ({"zzz": 1}, "zzz: unknown key: known keys are id, prompt"),
    ({"id": 7}, "id: must be a string, not a number"),
    ({"id": " "}, "id: must not be empty"),
    ({"id": None}, "id: must be a string, not null"),
    ({"prompt": ["x"]}, "prompt: must be a string, not an array"),
    ({"prompt": ""}, "prompt: must not be empty"),
    ({"messages": []}, "prompt: give exactly one of prompt"),
    ({"prompt": ..., "messages": "x"}, "messages: must be an array"),
    ({"prompt": ...}, "prompt: give exactly one of prompt"),
    ({"prompt": ..., "messages": [{"role": "usr", "content": "x"}]}, "messages[0].role: must be one of system"),
    ({"prompt": ..., "messages": [{"role": "user"}]}, "messages[0].content: must be a string, not null"),
    ({"prompt": ..., "messages": [{"role": "user", "content": "x", "img": []}]}, "messages[0].img: unknown key"),
    ({"prompt": ..., "messages": [{"role": "system", "content": "x"}]}, "messages: needs at least one message with"),
    ({"schema": "x"}, "schema: must be an object, not a string"),
    ({"schema": True}, "schema: must be an object, not true or false"),
    ({"schema": {"type": "strng"}}, "schema.type: not a valid JSON Schema: 'strng'"),
    ({"schema": {"properties": {"a": {"minimum": "1"}}}}, "schema.properties.a.minimum: not a valid JSON Schema"),
    ({"schema": {"type": "string", "pattern": "("}}, "schema.pattern: not a regular expression of ECMA-262: ("),
    ({"schema": {"$ref": "#/$defs/gone"}}, 'schema: "$ref": "#/$defs/gone" does not resolve'),
    ({"schema": {"items": {"$ref": "https://example.org/s.json"}}}, "does not resolve"),
    ({"schema": {"$schema": DRAFT_4, "exclusiveMinimum": 1}}, "schema.exclusiveMinimum: not a valid JSON Schema"),
    ({"schema": {"exclusiveMinimum": True}}, "schema.exclusiveMinimum: not a valid JSON Schema"),
    ({"schema": {"$schema": 4}}, "schema['$schema']: not a valid JSON Schema: 4 is not of type 'string'"),
    ({"schema": {"$ref": "#"}}, "schema: cannot be applied: it refers to itself without end"),
    ({"schema": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}, "schema: cannot be applied: it refers to itself"),
    ({"schema": {"items": {"$dynamicRef": "#nope"}}}, 'schema: "$dynamicRef": "#nope" does not resolve'),
    (
        {"schema": {"name": "x", "strict": True, "schema": {}}},
        "schema: is a wrapper as OpenAI has it: give what stands",
    ),
    ({"schema": {"type": "json_schema", "json_schema": {}}}, "schema: is a wrapper as OpenAI has it"),
    ({**WITH_SCHEMA, "expected": {"/a~2": 1}}, 'expected: "/a~2" is not a valid JSON Pointer: write ~ as ~0'),
    ({"schema": {"type": "array"}, "expected": {"/-": 1}}, 'expected: "/-": the schema does not allow 1 there'),
    ({"schema": {"type": "array"}, "expected": {"/01": 1}}, 'expected: "/01": the schema does not allow 1 there'),
    ({**WITH_SCHEMA, "expected": {"/n": "1"}}, "expected: \"/n\": the schema does not allow '1' there: '1' is not of"),
    ({"schema": {"additionalProperties": False}, "expected": {"/b": 1}}, "Additional properties are not allowed"),
    ({"schema": {"enum": ["x"]}, "acceptable": {"": ["x", "y"]}}, "acceptable: \"\": the schema does not allow 'y'"),
    ({"schema": {}, "expected": {"": 10**400}}, 'expected: "": no answer can hold it: a number is out of the range'),
    ({**WITH_SCHEMA, "tools": [TOOL]}, 'tools: cannot be combined with "schema"'),
    ({**WITH_SCHEMA, "expected_text": "x"}, 'expected_text: cannot be combined with "schema"'),
    ({"expected": {"/n": 1}}, 'expected: needs "schema"'),
    ({"expected_calls": []}, 'expected_calls: needs "tools"'),
    ({**WITH_SCHEMA, "expected": {"n": 1}}, 'expected: "n" is not a valid JSON Pointer'),
    ({**WITH_SCHEMA, "expected": {}}, "expected: must contain at least one pointer"),
    ({**WITH_SCHEMA, "example": {"n": "1"}}, "example.n: breaks the schema: '1' is not of type 'integer'"),
    (
        {**WITH_SCHEMA, "example": {"n": 1}, "expected": {"/n": 2}},
        "example: does not contain the expected value 2 at",
    ),
    ({**WITH_SCHEMA, "example": {"n": 1}, "expected": {"/m/0": 1}}, "example: does not contain the expected value 1"),
    ({"expected_text": 5}, "expected_text: must be a string, not a number"),
    ({"mentions": "x"}, "mentions: must be an array, not a string"),
    ({"mentions": []}, "mentions: must contain at least one list"),
    ({"mentions": ["x"]}, "mentions[0]: must be an array, not a string"),
    ({"mentions": [["x"], [" "]]}, "mentions[1]: must list at least one text, none of them empty"),
    ({"mentions": [["x"]], "expected_text": "x"}, 'mentions: cannot be combined with "expected_text"'),
    ({"then": {}}, 'then: needs "tools"'),
    ({"tools": [TOOL], "then": []}, "then: must be an object, not an array"),
    ({"tools": [TOOL], "then": {"results": {"look": "x"}}}, "then: needs exactly one of expected_text"),
    ({"tools": [TOOL], "then": {"mentions": [["x"]]}}, "then.results: must be an object, not null"),
    ({"tools": [TOOL], "then": {"results": {"see": "x"}, "mentions": [["x"]]}}, 'needs the text that "look" returns'),
    ({"tools": [TOOL], "then": {"results": {"look": "x"}, "mentions": []}}, "then.mentions: must contain at least one"),
    ({"tools": [TOOL], "then": {"mention": []}}, 'then.mention: unknown key: did you mean "mentions"?'),
    (
        {"tools": [TOOL], "then": {"results": {"look": "x"}, "mentions": [["x"]], "compare": {"": {"case": "ignore"}}}},
        'then.compare: needs "expected_text"',
    ),
    (
        {"tools": [TOOL], "expected_calls": [], "then": {"results": {"look": "x"}, "mentions": [["x"]]}},
        "then: follows a tool call, but expected_calls is empty",
    ),
    ({"reference": ""}, "reference: must not be empty"),
    ({"expected_text": []}, "expected_text: must contain at least one text"),
    ({"expected_text": ["x", 1]}, "expected_text[1]: must be a string, not a number"),
    ({"acceptable": {"/n": [1]}}, 'acceptable: needs "schema"'),
    ({**WITH_SCHEMA, "acceptable": {"/n": 1}}, 'acceptable: "/n" needs a list of at least one acceptable value'),
    ({**WITH_SCHEMA, "acceptable": {"/n": [1]}, "expected": {"/n": 1}}, 'acceptable: "/n" is also in "expected"'),
    (
        {**WITH_SCHEMA, "example": {"n": 1}, "acceptable": {"/n": [2, 3]}},
        "example: contains none of the acceptable values",
    ),
    ({"compare": {"/n": {"tolerance": 1}}}, 'compare: needs "expected", "acceptable" or "expected_text"'),
    (compared({"/n": {"tolerance": -1}}), 'compare["/n"].tolerance: must be a number, 0 or more'),
    (compared({"/n": {"tolerance": True}}), 'compare["/n"].tolerance: must be a number, 0 or more'),
    (compared({"/n": {"order": "same"}}), 'compare["/n"].order: must be "any"'),
    (compared({"/n": {"tolerence": 1}}), 'compare["/n"].tolerence: unknown rule: known rules are tolerance'),
    (compared({"/n": {}}), 'compare["/n"]: must be an object with at least one rule'),
    (compared({"/m": {"order": "any"}}), 'compare["/m"]: nothing is expected there'),
    ({"expected_text": "x", "compare": {"": {"tolerance": 1}}}, 'compare[""]: a text is compared as a whole'),
    (
        {"prompt": ..., "messages": [{"role": "user", "content": "x", "images": ["cat.png"]}]},
        "messages[0].images[0]: must be a PNG, JPEG or WebP in base64",
    ),
    ({"tools": TOOL}, "tools: must be an array, not an object"),
    ({"tools": []}, "tools: must contain at least one tool"),
    ({"tools": [{**TOOL, "type": "func"}]}, 'tools[0].type: must be "function"'),
    ({"tools": [{"type": "function"}]}, "tools[0].function: must be an object, not null"),
    ({"tools": tool_with(parameter={})}, 'tools[0].function.parameter: unknown key: did you mean "parameters"?'),
    ({"tools": tool_with(name="")}, "tools[0].function.name"),
    ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
    ({"tools": tool_with(parameters={"type": "array"})}, 'tools[0].function.parameters.type: must be "object"'),
    ({"tools": tool_with(parameters={"type": "objekt"})}, "tools[0].function.parameters.type: not a valid JSON Schema"),
    ({"tools": [TOOL], "expected_calls": {}}, "expected_calls: must be an array"),
    (
        {"tools": [TOOL], "expected_calls": [{"name": "see"}]},
        'expected_calls[0].name: "see" is not one of the tools',
    ),
    ({"tools": [TOOL], "expected_calls": [{"name": "look"}]}, "expected_calls[0].arguments: must be an object"),
    (calls(many=[1]), 'expected_calls[0].arguments: "what" is missing'),
    (calls(wath=["x"]), 'expected_calls[0].arguments.wath: unknown key: did you mean "what"?'),
    (calls(what="x"), "expected_calls[0].arguments.what: must be an array, not a string"),
    (calls(what=[]), "expected_calls[0].arguments.what: must list at least one"),
    (calls(what=["x", 3]), "expected_calls[0].arguments.what: not valid by the tool's parameters: 3 is not of type"),
    (
        calls(what=["x"], many=["", 0]),
        "expected_calls[0].arguments.many: not valid by the tool's parameters: 0 is",
    ),
    (
        {"tools": [TOOL], "expected_calls": [{"name": ["look"], "arguments": {}}]},
        "expected_calls[0].name: must be a string, not an array",
    ),
    (
        {"tools": tool_with(parameters={"$schema": DRAFT_3, "type": "object", "required": True})},
        "tools[0].function.parameters.required: must be an array, not true or false",
    ),
    (
        {"tools": tool_with(parameters={"type": "object", "properties": {"a": True}})},
        "tools[0].function.parameters.properties.a: must be an object, not true or false",
    ),
    ({"options": []}, "options: must be an object, not an array"),
    ({"options": {"stop": None}}, "options.stop: must be a number"),
    ({"tags": "x"}, "tags: must be an array, not a string"),
    ({"tags": ["x", 1]}, "tags[1]: must be a string, not a number"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN_FIELDS, ids=[message[:40] for _, message in BROKEN_FIELDS])
def test_a_broken_field_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    case = {key: value for key, value in {**CASE, "id": "b", **change}.items() if value is not ...}
    file = tmp_path / "broken.jsonl"
    file.write_text(json.dumps(CASE) + "\n" + json.dumps(case), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}, line 2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_id_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text('{"prompt": "x"}', encoding="utf-8")
    with pytest.raises(BadInput, match="line 1: id: missing: give each case its own id"):
        load(file)


def test_true_is_not_one_and_one_is_one_point_zero(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    schema = {"type": "object"}
    case = {**CASE, "schema": schema, "example": {"a/b": [1.0]}, "expected": {"/a~1b/0": 1}}
    file.write_text(json.dumps(case), encoding="utf-8")
    assert load(file).cases[0].expected == {"/a~1b/0": 1}


def test_a_schema_is_of_the_draft_that_it_names(tmp_path: Path) -> None:
    """As it is when answers are judged by it: in draft 4 ``exclusiveMinimum`` is true or false."""
    file = tmp_path / "mine.jsonl"
    more = {"definitions": {"more": {"type": "number", "minimum": 1, "exclusiveMinimum": True}}}
    schema = {"$schema": DRAFT_4, "type": "object", "properties": {"n": {"$ref": "#/definitions/more"}}, **more}
    file.write_text(json.dumps({**CASE, "schema": schema, "example": {"n": 2}}), encoding="utf-8")
    assert load(file).cases[0].schema == schema
    file.write_text(json.dumps({**CASE, "schema": schema, "example": {"n": 1}}), encoding="utf-8")
    with pytest.raises(BadInput, match=r"line 1: example\.n: breaks the schema: 1 is less than or equal to"):
        load(file)


# --- all problems at once


def test_every_problem_of_every_line_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.jsonl"
    lines = [
        "// a comment",
        json.dumps({"id": "a", "promt": "x", "options": {"stop": None}, "tags": [1, "t", 2]}),
        '{"id": "b"',
        json.dumps({"id": "c", "prompt": "x"}),
        json.dumps({"id": "a", "prompt": "x", "schema": {"type": "strng"}, "expected": {"n": 1}, "example": 1}),
    ]
    file.write_text("\n".join(lines))
    assert main(["suites", "check", str(file)]) == 2
    out, err = capsys.readouterr()
    told = [line.removeprefix(f"{file}, ").split(": ")[:2] for line in out.splitlines()]
    assert told == [
        ["line 2", "promt"], ["line 2", "prompt"], ["line 2", "options.stop"], ["line 2", "tags[0]"],
        ["line 2", "tags[2]"], ["line 3", "not JSON at column 11"], ["line 5", "schema.type"], ["line 5", "expected"],
        ["line 5", "id"],
    ]  # fmt: skip
    assert err == f"structbench: 9 problems in {file}\n"


@pytest.mark.parametrize(("change", "message"), BROKEN_FIELDS, ids=[message[:40] for _, message in BROKEN_FIELDS])
def test_what_stops_a_load_is_the_first_that_the_check_tells(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    case = {key: value for key, value in {**CASE, **change}.items() if value is not ...}
    file = tmp_path / "broken.jsonl"
    file.write_text(json.dumps(case), encoding="utf-8")
    (line,) = check_suite(str(file))
    with pytest.raises(BadInput) as caught:
        load(file)
    assert str(caught.value) == line.problems[0]
    assert any(message in problem for problem in line.problems)


def test_a_sound_suite_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.jsonl"
    cases = [{**CASE, "tags": ["t"]}, {"id": "b", "prompt": "x", "expected_text": ["y", "z"], "tags": ["t", "s"]}]
    file.write_text("\n".join(map(json.dumps, cases)))
    assert main(["suites", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: 2 cases (1 plain, 1 answer; tags s 1, t 2)\n"
    assert load(file).cases[1].acceptable == {"": ("y", "z")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "name the files to check"),
        (["check", "gone.jsonl"], "gone.jsonl does not exist"),
        (["new"], "name one kind of suite: structbench suites new json | tools"),
        (["new", "jsn"], "name one kind of suite"),
        (["list", "x.jsonl"], "did you mean `structbench suites check`?"),
        (["check", "x.jsonl", "-o", "y"], "--output is for"),
        (["new", "json", "-o", "no/such/file"], "cannot write no/such/file: No such file or directory"),
    ],
)
def test_a_mistyped_command_ends_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suites", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


# --- beginning a suite


@pytest.mark.parametrize("kind", ["json", "tools"])
def test_the_example_to_start_from_is_sound_and_right_by_itself(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.jsonl"
    assert main(["suites", "new", kind, "-o", str(file)]) == 0
    assert main(["suites", "check", str(file)]) == 0
    assert main(["suites", "new", kind, "-o", str(file)]) == 2
    assert "exists: name another file" in capsys.readouterr().err
    assert {case.kind for case in load(file).cases} == {kind}
    for line in check_suite(str(file)):
        if line.example is not None:
            judged = score(line.cases[0], Answer(output_text=json.dumps(line.example)))
            assert judged is not None
            assert judged.outcome == "correct"
    assert main(["suites", "new", kind]) == 0
    assert capsys.readouterr().out == new_suite(kind) == file.read_text()


# --- schemas in a folder


def test_a_folder_of_schemas_is_a_suite_that_asks_in_their_own_words(tmp_path: Path) -> None:
    folder = tmp_path / "schemas"
    folder.mkdir()
    (folder / "b.json").write_text(json.dumps({**OBJECT, "title": "A number", "description": "Any will do."}))
    (folder / "a.json").write_text('{"type": "string"}')
    (folder / "notes.txt").write_text("not a schema")
    suite = load(folder)
    assert suite.name == "schemas"
    assert [(case.id, case.kind, case.messages[0]["content"]) for case in suite.cases] == [
        ("a", "json", "Give a realistic example, as JSON, of: a."),
        ("b", "json", "Give a realistic example, as JSON, of: A number. Any will do. Its fields are: n."),
    ]
    assert suite.cases[1].schema == {**OBJECT, "title": "A number", "description": "Any will do."}
    (folder / "c.json").write_text('{"type": "strng"}')
    (folder / "d.json").write_text('{\n"type":')
    problems = [problem for line in check_suite(str(folder)) for problem in line.problems]
    assert [problem.removeprefix(f"{folder}/").split(": ")[:2] for problem in problems] == [
        ["c.json", "schema.type"], ["d.json", "not JSON at line 2, column 8"],
    ]  # fmt: skip
    with pytest.raises(BadInput, match=r"c\.json: schema\.type: not a valid JSON Schema"):
        load(folder)


# --- tags, hash, images


def test_tags_choose_cases_and_make_another_suite(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps({**CASE, "id": name, "tags": [name, "all"]}) for name in "abc"))
    whole = load(file)
    some = tagged(whole, ["a", "c"])
    assert (some.name, [case.id for case in some.cases], some.default_requests) == ("mine.jsonl[a,c]", ["a", "c"], 2)
    assert some.content_hash not in (whole.content_hash, tagged(whole, ["a"]).content_hash)
    assert tagged(whole, ["all"]).content_hash == whole.content_hash
    assert len(tagged(load("tools"), ["weather", "tip", "email"]).cases) == 29
    numbers = load("numbers")
    assert tagged(numbers, ["numbers"]) is numbers
    with pytest.raises(BadInput, match=r"no case in suite mine\.jsonl has any of --tags x"):
        tagged(whole, ["x"])


def test_the_hash_covers_rules_and_acceptable_values(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    hashes = set()
    for more in ({}, {"compare": {"/n": {"tolerance": 1}}}, {"compare": {"/n": {"tolerance": 2}}}, {"tags": ["t"]}):
        file.write_text(json.dumps({**CASE, "schema": OBJECT, "expected": {"/n": 1}, **more}))
        hashes.add(load(file).content_hash)
    assert len(hashes) == 4


def test_the_hash_covers_the_order_in_which_properties_are_sent(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    hashes = set()
    for names in ("ab", "ba"):
        ordered = {"type": "object", "properties": {name: {"type": "integer"} for name in names}}
        tool = {"type": "function", "function": {"name": "f", "parameters": ordered}}
        for asked in ({"schema": ordered}, {"tools": [tool]}):
            file.write_text(json.dumps({**CASE, **asked}))
            hashes.add(load(file).content_hash)
    assert len(hashes) == 4


def test_an_image_in_base64_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    image = "iVBORw0KGgo="
    file.write_text(json.dumps({"id": "a", "messages": [{"role": "user", "content": "What?", "images": [image]}]}))
    assert load(file).cases[0].messages[0]["images"] == [image]

"""From the JSON object on a line of a suite file to its cases, or to its problems; ``fields`` checks single fields.

A line without problems can be sent and scored. Each problem is one line that begins with its field.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from structbench.formatting import one_line
from structbench.scoring.answer import CannotScore
from structbench.scoring.rules import matches
from structbench.scoring.schemas import why_never
from structbench.scoring.validation import errors_of
from structbench.scoring.values import at_pointer, limit_error
from structbench.suites.fields import (
    FIELDS,
    Problems,
    guarded,
    rule_problems,
    string_problems,
    text_problems,
    type_problems,
    unknown_keys,
)
from structbench.types import Case

KEYS = (
    "id", "prompt", "messages", "schema", "tools", "expected", "acceptable", "compare", "expected_calls",
    "expected_text", "mentions", "then", "example", "reference", "options", "tags",
)  # fmt: skip
MESSAGE_KEYS = ("role", "content", "thinking", "images", "tool_calls", "tool_name")
ROLES = ("system", "user", "assistant", "tool")
IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")
"""The first bytes of a PNG, a JPEG and a WebP."""


def cases_of(line: Mapping[str, Any]) -> tuple[Case, ...]:
    """Make the case of a line without problems, and the case of its second turn if it has one."""
    first = _case(line)
    if "then" not in line:
        return (first,)
    then = line["then"]
    about = {name: value for name, value in then.items() if name != "results"}
    # Its messages are the conversation so far, which is complete only once the model has answered.
    second = replace(_case({**about, "id": f"{first.id}/2", "messages": ()}), follows=True, tags=first.tags)
    return replace(first, tool_results=then["results"]), second


def _case(line: Mapping[str, Any]) -> Case:
    messages = line["messages"] if "messages" in line else [{"role": "user", "content": line["prompt"]}]
    acceptable = {pointer: tuple(values) for pointer, values in line.get("acceptable", {}).items()}
    text = line.get("expected_text")
    if isinstance(text, list):
        text, acceptable = text[0], {"": tuple(text)}
    return Case(
        id=line["id"],
        messages=tuple(messages),
        schema=line.get("schema"),
        tools=tuple(line.get("tools", ())),
        expected=line.get("expected"),
        expected_calls=tuple(line["expected_calls"]) if "expected_calls" in line else None,
        expected_text=text,
        acceptable=acceptable or None,
        compare=line.get("compare", {}),
        mentions=tuple(tuple(group) for group in line.get("mentions", ())),
        reference=line.get("reference"),
        options=line.get("options", {}),
        tags=tuple(line.get("tags", ())),
    )


def problems_of(line: Mapping[str, Any]) -> Problems:
    """Yield everything that is wrong with a line."""
    yield from unknown_keys(line, KEYS, "")
    if "id" not in line:
        yield "id: missing: give each case its own id"
    else:
        yield from text_problems(line["id"], "id")
    yield from _mixed_kinds(line)
    yield from _prompt_problems(line)
    broken: set[str] = set()
    for key, check in FIELDS.items():
        problems = guarded(check(line[key], key), key) if key in line else []
        if problems:
            broken.add(key)
        yield from problems
    yield from _contradictions(line, broken)


def _contradictions(line: Mapping[str, Any], broken: set[str]) -> Problems:
    """Yield contradictions between fields that are sound by themselves."""

    def sound(*keys: str) -> bool:
        return broken.isdisjoint(keys)

    for pointer in line.get("acceptable", {}) if sound("acceptable", "expected") else ():
        if pointer in line.get("expected", {}):
            yield f'acceptable: "{pointer}" is also in "expected": keep it in only one of them'
    rule_errors: list[str] = []
    if "compare" in line and sound("compare", "expected", "acceptable", "expected_text"):
        yield from (rule_errors := guarded(rule_problems(line), "compare"))
    if "then" in line and "tools" in line and sound("then"):
        yield from guarded(_then_problems(line["then"], line, line["tools"] if sound("tools") else ()), "then")
    if "expected_calls" in line and "tools" in line and sound("tools"):
        yield from guarded(_call_problems(line["expected_calls"], line["tools"]), "expected_calls", in_time=True)
    if "schema" in line and sound("schema", "expected", "acceptable", "compare") and not rule_errors:
        yield from guarded(_unreachable_values(line), "expected", in_time=True)
    if "example" in line and "schema" in line:
        if sound("schema"):
            yield from guarded(_example_problems(line["example"], line["schema"]), "example", in_time=True)
        if sound("expected", "acceptable", "compare") and not rule_errors:
            yield from guarded(_missing_values(line), "example", in_time=True)


def _mixed_kinds(line: Mapping[str, Any]) -> Problems:
    """Check that a case asks for only one of JSON, tool calls and text."""
    asked = [key for key in ("schema", "tools", "expected_text", "mentions") if key in line]
    for other in asked[1:]:
        yield f'{other}: cannot be combined with "{asked[0]}": use one of schema, tools, expected_text and mentions'
    for key, base in (("expected", "schema"), ("acceptable", "schema"), ("example", "schema"),
                      ("expected_calls", "tools"), ("then", "tools")):  # fmt: skip
        if key in line and base not in line:
            yield f'{key}: needs "{base}" in the same case'
    if "compare" in line and not {"expected", "acceptable", "expected_text"} & line.keys():
        yield 'compare: needs "expected", "acceptable" or "expected_text": the values to compare with'


def _prompt_problems(line: Mapping[str, Any]) -> Problems:
    if ("prompt" in line) == ("messages" in line):
        yield "prompt: give exactly one of prompt (a string) and messages"
        return
    if "prompt" in line:
        yield from text_problems(line["prompt"], "prompt")
        return
    messages = line["messages"]
    yield from type_problems(messages, list, "messages")
    if not isinstance(messages, list):
        return
    for i, message in enumerate(messages):
        field = f"messages[{i}]"
        yield from type_problems(message, dict, field)
        if isinstance(message, dict):
            yield from _message_problems(message, field)
    if not any(isinstance(message, dict) and message.get("role") == "user" for message in messages):
        yield 'messages: needs at least one message with the role "user"'


def _message_problems(message: Mapping[str, Any], field: str) -> Problems:
    yield from unknown_keys(message, MESSAGE_KEYS, field)
    if message.get("role") not in ROLES:
        yield f"{field}.role: must be one of {', '.join(ROLES)}"
    yield from type_problems(message.get("content"), str, f"{field}.content")
    images = message.get("images", [])
    yield from string_problems(images, f"{field}.images")
    for i, image in enumerate(images if isinstance(images, list) else ()):
        if isinstance(image, str) and not _is_image(image):
            yield f"{field}.images[{i}]: must be a PNG, JPEG or WebP in base64 (base64 -w0 FILE), not a path"
    for key in ("thinking", "tool_name"):
        if message.get(key) is not None:
            yield from type_problems(message[key], str, f"{field}.{key}")
    if message.get("tool_calls") is not None:
        yield from _tool_call_problems(message["tool_calls"], f"{field}.tool_calls")


def _tool_call_problems(calls: Any, field: str) -> Problems:
    """Check calls in Ollama's form: the official client would silently drop other keys."""
    yield from type_problems(calls, list, field)
    for i, call in enumerate(calls if isinstance(calls, list) else ()):
        yield from type_problems(call, dict, f"{field}[{i}]")
        if not isinstance(call, dict):
            continue
        yield from unknown_keys(call, ("function",), f"{field}[{i}]")
        function, inner = call.get("function"), f"{field}[{i}].function"
        yield from type_problems(function, dict, inner)
        if isinstance(function, dict):
            yield from unknown_keys(function, ("name", "arguments"), inner)
            yield from text_problems(function.get("name"), f"{inner}.name")
            yield from type_problems(function.get("arguments"), dict, f"{inner}.arguments")


def _is_image(text: str) -> bool:
    # The official client would read a file of that name and send what the suite's hash does not cover.
    try:
        return b64decode(text, validate=True).startswith(IMAGES)
    except (binascii.Error, ValueError):
        return False


def _then_problems(then: Mapping[str, Any], line: Mapping[str, Any], tools: Any) -> Problems:
    """Check the next turn: a result for every tool, and what the final answer must be or contain."""
    yield from unknown_keys(then, ("results", "expected_text", "mentions", "compare", "reference"), "then")
    results = then.get("results")
    yield from type_problems(results, dict, "then.results")
    for tool in tools:
        if isinstance(results, dict) and not isinstance(results.get(tool["function"]["name"]), str):
            yield f'then.results: needs the text that "{tool["function"]["name"]}" returns'
    if ("expected_text" in then) == ("mentions" in then):
        yield "then: needs exactly one of expected_text (the final answer) and mentions (what it must contain)"
    for key in ("expected_text", "mentions", "reference"):
        if key in then:
            yield from (f"then.{problem}" for problem in FIELDS[key](then[key], key))
    if "compare" in then:
        problems = list(FIELDS["compare"](then["compare"], "compare")) or (
            rule_problems(then) if "expected_text" in then else ['compare: needs "expected_text"']
        )
        yield from (f"then.{problem}" for problem in problems)
    if line.get("expected_calls") == []:
        yield "then: follows a tool call, but expected_calls is empty"


def _call_problems(calls: Any, tools: Any) -> Problems:
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    yield from type_problems(calls, list, "expected_calls")
    for i, call in enumerate(calls if isinstance(calls, list) else ()):
        field = f"expected_calls[{i}]"
        yield from type_problems(call, dict, field)
        if not isinstance(call, dict):
            continue
        yield from unknown_keys(call, ("name", "arguments"), field)
        name, arguments = call.get("name"), call.get("arguments")
        yield from type_problems(name, str, f"{field}.name")
        schema = schemas.get(name) if isinstance(name, str) else None
        if isinstance(name, str) and schema is None:
            yield f'{field}.name: "{name}" is not one of the tools ({", ".join(schemas)})'
        yield from type_problems(arguments, dict, f"{field}.arguments")
        if schema is not None and isinstance(arguments, dict):
            yield from _argument_problems(arguments, schema, f"{field}.arguments")


def _argument_problems(arguments: Mapping[str, Any], schema: Mapping[str, Any], field: str) -> Problems:
    """Check that each argument is one of the tool's and each acceptable value is valid by the tool's schema."""
    if "properties" in schema:
        yield from unknown_keys(arguments, schema["properties"], field)
    for name in schema.get("required", ()):
        if name not in arguments:
            yield f'{field}: "{name}" is missing, but the tool requires it'
    for name, acceptable in arguments.items():
        yield from type_problems(acceptable, list, f"{field}.{name}")
        if acceptable == []:
            yield f"{field}.{name}: must list at least one acceptable value"
        for value in acceptable if isinstance(acceptable, list) else ():
            problem = None if value == "" else _misfit(schema, name, value)
            if problem is not None:
                yield f"{field}.{name}: not valid by the tool's parameters: {problem}"


def _misfit(schema: Mapping[str, Any], name: str, value: Any) -> str | None:
    try:
        errors = errors_of(schema, {name: value})
    except CannotScore as error:
        return one_line(str(error))
    return next((one_line(each.message) for each in errors if [*each.absolute_path][:1] == [name]), None)


def _example_problems(example: Any, schema: Mapping[str, Any]) -> Problems:
    """Check that the example satisfies the schema."""
    try:
        for each in errors_of(schema, example):
            yield f"example{each.json_path.removeprefix('$')}: breaks the schema: {one_line(each.message)}"
    except CannotScore as error:
        yield f"example: {one_line(str(error))}"


def _unreachable_values(line: Mapping[str, Any]) -> Problems:
    """Check that the schema allows each expected value in its place, unless a rule compares it less strictly."""
    rules = line.get("compare", {})
    due = [("expected", at, value) for at, value in line.get("expected", {}).items()]
    due += [("acceptable", at, value) for at, values in line.get("acceptable", {}).items() for value in values]
    for key, pointer, value in due:
        if (beyond := limit_error(value)) is not None:
            yield f'{key}: "{pointer}": no answer can hold it: {beyond}'
            continue
        if any(pointer.startswith(rule) or rule.startswith(pointer) for rule in rules):
            continue
        try:
            why = why_never(line["schema"], pointer, value)
        except CannotScore as error:
            why = str(error)
        if why is not None:
            yield f'{key}: "{pointer}": the schema does not allow {value!r:.60} there: {one_line(why)}'


def _missing_values(line: Mapping[str, Any]) -> Problems:
    """Check that the example contains every expected value."""
    example, rules = line["example"], line.get("compare", {})
    for pointer, value in line.get("expected", {}).items():
        if not matches(at_pointer(example, pointer), value, rules, pointer):
            yield f'example: does not contain the expected value {value!r} at "{pointer}"'
    for pointer, values in line.get("acceptable", {}).items():
        if not any(matches(at_pointer(example, pointer), value, rules, pointer) for value in values):
            yield f'example: contains none of the acceptable values at "{pointer}"'

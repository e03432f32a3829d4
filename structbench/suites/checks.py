"""What is wrong with the JSON object on a suite file's line, and the Case that it is when nothing is.

Invariant: what has no problem can be sent and scored; each problem is one line that begins with its field, and
finding them ends in time. Who loads a suite shows the first, ``structbench suites check`` all.
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
from structbench.scoring.validation import errors_of
from structbench.scoring.values import at_pointer
from structbench.suites.fields import (
    FIELDS,
    Problems,
    guarded,
    is_a,
    rule_problems,
    string_problems,
    text_problems,
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
"""How a PNG, a JPEG and a WebP begin."""


def cases_of(line: Mapping[str, Any]) -> tuple[Case, ...]:
    """The case of a line that has no problems, and that of the turn that follows it where the line has one."""
    first = _case(line)
    if "then" not in line:
        return (first,)
    then = line["then"]
    about = {name: value for name, value in then.items() if name != "results"}
    # Its messages are the conversation so far, which only the model's answer completes.
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
    """All that is wrong with a line, the order of its keys aside."""
    yield from unknown_keys(line, KEYS, "")
    if "id" not in line:
        yield "id: is missing: give each case an id of its own"
    else:
        yield from text_problems(line["id"], "id")
    yield from _mixed_kinds(line)
    yield from _message_problems(line)
    broken: set[str] = set()
    for key, check in FIELDS.items():
        problems = guarded(check(line[key], key), key) if key in line else []
        if problems:
            broken.add(key)
        yield from problems
    yield from _disagreements(line, broken)


def _disagreements(line: Mapping[str, Any], broken: set[str]) -> Problems:
    """What contradicts each other, as far as it is sound by itself."""

    def sound(*keys: str) -> bool:
        return broken.isdisjoint(keys)

    for pointer in line.get("acceptable", {}) if sound("acceptable", "expected") else ():
        if pointer in line.get("expected", {}):
            yield f'acceptable: "{pointer}" stands in "expected" too: give it in one of the two'
    unruly: list[str] = []
    if "compare" in line and sound("compare", "expected", "acceptable", "expected_text"):
        yield from (unruly := guarded(rule_problems(line), "compare"))
    if "then" in line and "tools" in line and sound("then"):
        yield from guarded(_then_problems(line["then"], line, line["tools"] if sound("tools") else ()), "then")
    if "expected_calls" in line and "tools" in line and sound("tools"):
        yield from guarded(_call_problems(line["expected_calls"], line["tools"]), "expected_calls", in_time=True)
    if "example" in line and "schema" in line:
        if sound("schema"):
            yield from guarded(_example_problems(line["example"], line["schema"]), "example", in_time=True)
        if sound("expected", "acceptable", "compare") and not unruly:
            yield from guarded(_lacking(line), "example", in_time=True)


def _mixed_kinds(line: Mapping[str, Any]) -> Problems:
    """A case asks for JSON, for tool calls or for a text: one of them."""
    asked = [key for key in ("schema", "tools", "expected_text", "mentions") if key in line]
    for other in asked[1:]:
        yield f'{other}: cannot stand beside "{asked[0]}": a case has one of schema, tools, expected_text and mentions'
    for key, base in (("expected", "schema"), ("acceptable", "schema"), ("example", "schema"),
                      ("expected_calls", "tools"), ("then", "tools")):  # fmt: skip
        if key in line and base not in line:
            yield f'{key}: needs "{base}" in the same case'
    if "compare" in line and not {"expected", "acceptable", "expected_text"} & line.keys():
        yield 'compare: needs "expected", "acceptable" or "expected_text": the values that it compares with'


def _message_problems(line: Mapping[str, Any]) -> Problems:
    if ("prompt" in line) == ("messages" in line):
        yield "prompt: give either prompt (a string) or messages, one of the two"
        return
    if "prompt" in line:
        yield from text_problems(line["prompt"], "prompt")
        return
    messages = line["messages"]
    yield from is_a(messages, list, "messages")
    if not isinstance(messages, list):
        return
    for i, message in enumerate(messages):
        field = f"messages[{i}]"
        yield from is_a(message, dict, field)
        if isinstance(message, dict):
            yield from _one_message(message, field)
    if not any(isinstance(message, dict) and message.get("role") == "user" for message in messages):
        yield 'messages: needs at least one message with the role "user"'


def _one_message(message: Mapping[str, Any], field: str) -> Problems:
    yield from unknown_keys(message, MESSAGE_KEYS, field)
    if message.get("role") not in ROLES:
        yield f"{field}.role: must be one of {', '.join(ROLES)}"
    yield from is_a(message.get("content"), str, f"{field}.content")
    images = message.get("images", [])
    yield from string_problems(images, f"{field}.images")
    for i, image in enumerate(images if isinstance(images, list) else ()):
        if isinstance(image, str) and not _is_image(image):
            yield f"{field}.images[{i}]: must be a PNG, JPEG or WebP in base64 (base64 -w0 FILE), not a path"
    for key in ("thinking", "tool_name"):
        if message.get(key) is not None:
            yield from is_a(message[key], str, f"{field}.{key}")
    if message.get("tool_calls") is not None:
        yield from _tool_call_problems(message["tool_calls"], f"{field}.tool_calls")


def _tool_call_problems(calls: Any, field: str) -> Problems:
    """Calls as Ollama takes them; of other keys the official client would send nothing."""
    yield from is_a(calls, list, field)
    for i, call in enumerate(calls if isinstance(calls, list) else ()):
        yield from is_a(call, dict, f"{field}[{i}]")
        if not isinstance(call, dict):
            continue
        yield from unknown_keys(call, ("function",), f"{field}[{i}]")
        function, inner = call.get("function"), f"{field}[{i}].function"
        yield from is_a(function, dict, inner)
        if isinstance(function, dict):
            yield from unknown_keys(function, ("name", "arguments"), inner)
            yield from text_problems(function.get("name"), f"{inner}.name")
            yield from is_a(function.get("arguments"), dict, f"{inner}.arguments")


def _is_image(text: str) -> bool:
    # The official client would read a file of that name: what is sent would then not be what the suite's hash covers.
    try:
        return b64decode(text, validate=True).startswith(IMAGES)
    except (binascii.Error, ValueError):
        return False


def _then_problems(then: Mapping[str, Any], line: Mapping[str, Any], tools: Any) -> Problems:
    """The next turn: a result of every tool, and what its answer must be or hold."""
    yield from unknown_keys(then, ("results", "expected_text", "mentions", "compare", "reference"), "then")
    results = then.get("results")
    yield from is_a(results, dict, "then.results")
    for tool in tools:
        if isinstance(results, dict) and not isinstance(results.get(tool["function"]["name"]), str):
            yield f'then.results: needs the text that "{tool["function"]["name"]}" answers'
    if ("expected_text" in then) == ("mentions" in then):
        yield "then: needs what the final answer must be (expected_text) or hold (mentions), one of the two"
    for key in ("expected_text", "mentions", "reference"):
        if key in then:
            yield from (f"then.{problem}" for problem in FIELDS[key](then[key], key))
    if "compare" in then:
        problems = list(FIELDS["compare"](then["compare"], "compare")) or (
            rule_problems(then) if "expected_text" in then else ['compare: needs "expected_text"']
        )
        yield from (f"then.{problem}" for problem in problems)
    if line.get("expected_calls") == []:
        yield "then: follows from a tool call, but expected_calls says that none must be made"


def _call_problems(calls: Any, tools: Any) -> Problems:
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    yield from is_a(calls, list, "expected_calls")
    for i, call in enumerate(calls if isinstance(calls, list) else ()):
        field = f"expected_calls[{i}]"
        yield from is_a(call, dict, field)
        if not isinstance(call, dict):
            continue
        yield from unknown_keys(call, ("name", "arguments"), field)
        name, arguments = call.get("name"), call.get("arguments")
        yield from is_a(name, str, f"{field}.name")
        schema = schemas.get(name) if isinstance(name, str) else None
        if isinstance(name, str) and schema is None:
            yield f'{field}.name: "{name}" is none of the tools ({", ".join(schemas)})'
        yield from is_a(arguments, dict, f"{field}.arguments")
        if schema is not None and isinstance(arguments, dict):
            yield from _argument_problems(arguments, schema, f"{field}.arguments")


def _argument_problems(arguments: Mapping[str, Any], schema: Mapping[str, Any], field: str) -> Problems:
    """Each argument is one of the tool's, and each acceptable value fits the tool's own schema."""
    if "properties" in schema:
        yield from unknown_keys(arguments, schema["properties"], field)
    for name in schema.get("required", ()):
        if name not in arguments:
            yield f'{field}: "{name}" is missing, which the tool requires'
    for name, acceptable in arguments.items():
        yield from is_a(acceptable, list, f"{field}.{name}")
        if acceptable == []:
            yield f"{field}.{name}: must list at least one acceptable value"
        for value in acceptable if isinstance(acceptable, list) else ():
            problem = None if value == "" else _misfit(schema, name, value)
            if problem is not None:
                yield f"{field}.{name}: does not fit the tool's parameters: {problem}"


def _misfit(schema: Mapping[str, Any], name: str, value: Any) -> str | None:
    try:
        errors = errors_of(schema, {name: value})
    except CannotScore as error:
        return one_line(str(error))
    return next((one_line(each.message) for each in errors if [*each.absolute_path][:1] == [name]), None)


def _example_problems(example: Any, schema: Mapping[str, Any]) -> Problems:
    """The example satisfies the schema."""
    try:
        for each in errors_of(schema, example):
            yield f"example{each.json_path.removeprefix('$')}: breaks the schema: {one_line(each.message)}"
    except CannotScore as error:
        yield f"example: {one_line(str(error))}"


def _lacking(line: Mapping[str, Any]) -> Problems:
    """The example carries every expected value."""
    example, rules = line["example"], line.get("compare", {})
    for pointer, value in line.get("expected", {}).items():
        if not matches(at_pointer(example, pointer), value, rules, pointer):
            yield f'example: has not the expected value {value!r} at "{pointer}"'
    for pointer, values in line.get("acceptable", {}).items():
        if not any(matches(at_pointer(example, pointer), value, rules, pointer) for value in values):
            yield f'example: has none of the acceptable values at "{pointer}"'

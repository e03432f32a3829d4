"""Turn the JSON object on a suite file's line into a Case, or say what is wrong with it.

Invariant: whatever passes here can be sent and scored; a refusal is one line that names the field.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NoReturn

from structbench.errors import BadInput
from structbench.scoring.validation import import_jsonschema
from structbench.types import Case

KEYS = (
    "id", "prompt", "messages", "schema", "tools", "expected", "expected_calls", "expected_text", "example",
    "options", "tags",
)  # fmt: skip
MESSAGE_KEYS = ("role", "content", "thinking", "images", "tool_calls", "tool_name")
ROLES = ("system", "user", "assistant", "tool")
TYPE_NAMES = {
    dict: "an object", list: "an array", str: "a string", bool: "true or false", int: "a number", float: "a number",
    type(None): "null",
}  # fmt: skip


def case_of(line: Mapping[str, Any], where: str) -> tuple[Case, Any]:
    """The case of one line and its example (None without); ``where`` is the file and line number."""
    _known_keys(line, KEYS, where, "")
    if "id" not in line:
        _fail(where, "id", "is missing: give each case an id of its own")
    name = _of_type(line["id"], str, where, "id")
    if not name.strip():
        _fail(where, "id", "must not be empty")
    _one_kind(line, where)
    messages = _messages(line, where)
    schema = _schema(line["schema"], where, "schema") if "schema" in line else None
    tools = _tools(line["tools"], where) if "tools" in line else ()
    case = Case(
        id=name,
        messages=messages,
        schema=schema,
        tools=tools,
        expected=_expected(line["expected"], where) if "expected" in line else None,
        expected_calls=_expected_calls(line["expected_calls"], tools, where) if "expected_calls" in line else None,
        expected_text=_of_type(line["expected_text"], str, where, "expected_text") if "expected_text" in line else None,
        options=_options(line.get("options", {}), where),
        tags=tuple(_strings(line.get("tags", []), where, "tags")),
    )
    if "example" in line:
        _check_example(line["example"], case, where)
    return case, line.get("example")


def _fail(where: str, field: str, what: str) -> NoReturn:
    raise BadInput(f"{where}: {field}: {what}")


def _of_type(value: Any, kind: type, where: str, field: str) -> Any:
    if not isinstance(value, kind):
        _fail(where, field, f"must be {TYPE_NAMES[kind]}, not {TYPE_NAMES[type(value)]}")
    return value


def _strings(value: Any, where: str, field: str) -> list[str]:
    return [_of_type(item, str, where, f"{field}[{i}]") for i, item in enumerate(_of_type(value, list, where, field))]


def _known_keys(value: Mapping[str, Any], known: Collection[str], where: str, field: str) -> None:
    for key in value:
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known) or 'none'}"
            _fail(where, f"{field}.{key}".lstrip("."), f"unknown key: {hint}")


def _one_kind(line: Mapping[str, Any], where: str) -> None:
    """A case asks for JSON, for tool calls or for a text: one of them."""
    asked = [key for key in ("schema", "tools", "expected_text") if key in line]
    if len(asked) > 1:
        _fail(where, asked[1], f'cannot stand beside "{asked[0]}": a case has one of schema, tools and expected_text')
    for key, base in (("expected", "schema"), ("example", "schema"), ("expected_calls", "tools")):
        if key in line and base not in line:
            _fail(where, key, f'needs "{base}" in the same case')


def _messages(line: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    if ("prompt" in line) == ("messages" in line):
        _fail(where, "prompt", "give either prompt (a string) or messages, one of the two")
    if "prompt" in line:
        prompt = _of_type(line["prompt"], str, where, "prompt")
        if not prompt.strip():
            _fail(where, "prompt", "must not be empty")
        return ({"role": "user", "content": prompt},)
    messages = _of_type(line["messages"], list, where, "messages")
    for i, message in enumerate(messages):
        field = f"messages[{i}]"
        _known_keys(_of_type(message, dict, where, field), MESSAGE_KEYS, where, field)
        if message.get("role") not in ROLES:
            _fail(where, f"{field}.role", f"must be one of {', '.join(ROLES)}")
        _of_type(message.get("content"), str, where, f"{field}.content")
        _strings(message.get("images", []), where, f"{field}.images")
    if not any(message["role"] == "user" for message in messages):
        _fail(where, "messages", 'needs at least one message with the role "user"')
    return tuple(messages)


def _schema(schema: Any, where: str, field: str) -> Mapping[str, Any]:
    """A schema that is valid in draft 2020-12 and whose references resolve within it."""
    jsonschema = import_jsonschema()
    draft = jsonschema.Draft202012Validator
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    _of_type(schema, dict, where, field)
    try:
        draft.check_schema(schema, format_checker=draft.FORMAT_CHECKER)
    except jsonschema.exceptions.SchemaError as error:
        _fail(where, field + error.json_path.removeprefix("$"), f"no valid JSON Schema: {_one_line(error.message)}")
    resource = DRAFT202012.create_resource(schema)
    resolver = Registry().with_resource(resource.id() or "", resource).resolver(resource.id() or "")
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            _fail(where, field, f'"$ref": "{reference}" leads nowhere: define it in the schema; nothing is fetched')
    return schema  # type: ignore[no-any-return]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _tools(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    names: list[str] = []
    for i, tool in enumerate(_of_type(value, list, where, "tools")):
        field = f"tools[{i}]"
        _known_keys(_of_type(tool, dict, where, field), ("type", "function"), where, field)
        if tool.get("type") != "function":
            _fail(where, f"{field}.type", 'must be "function"')
        field += ".function"
        function = _of_type(tool.get("function"), dict, where, field)
        _known_keys(function, ("name", "description", "parameters", "strict"), where, field)
        name = _of_type(function.get("name"), str, where, f"{field}.name")
        if not name or name in names:
            _fail(where, f"{field}.name", f'"{name}" must be there and not twice')
        names.append(name)
        _of_type(function.get("description", ""), str, where, f"{field}.description")
        parameters = _schema(function.get("parameters"), where, f"{field}.parameters")
        if parameters.get("type") != "object":
            _fail(where, f"{field}.parameters.type", 'must be "object"')
    if not names:
        _fail(where, "tools", "must hold at least one tool")
    return tuple(value)


def _expected(value: Any, where: str) -> Mapping[str, Any]:
    for pointer in _of_type(value, dict, where, "expected"):
        if pointer and not pointer.startswith("/"):
            _fail(where, "expected", f'"{pointer}" is no JSON Pointer: begin it with "/", or "" for the whole answer')
    if not value:
        _fail(where, "expected", "must hold at least one pointer with its value: leave it out where nothing is fixed")
    return value  # type: ignore[no-any-return]


def _expected_calls(value: Any, tools: tuple[Mapping[str, Any], ...], where: str) -> tuple[Mapping[str, Any], ...]:
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    for i, call in enumerate(_of_type(value, list, where, "expected_calls")):
        field = f"expected_calls[{i}]"
        _known_keys(_of_type(call, dict, where, field), ("name", "arguments"), where, field)
        name = _of_type(call.get("name"), str, where, f"{field}.name")
        if name not in schemas:
            _fail(where, f"{field}.name", f'"{name}" is none of the tools ({", ".join(schemas)})')
        arguments = _of_type(call.get("arguments"), dict, where, f"{field}.arguments")
        _check_arguments(arguments, schemas[name], where, f"{field}.arguments")
    return tuple(value)


def _check_arguments(arguments: Mapping[str, Any], schema: Mapping[str, Any], where: str, field: str) -> None:
    """Each argument is one of the tool's, and each acceptable value fits the tool's own schema."""
    if "properties" in schema:
        _known_keys(arguments, schema["properties"], where, field)
    for name in schema.get("required", ()):
        if name not in arguments:
            _fail(where, field, f'"{name}" is missing, which the tool requires')
    for name, acceptable in arguments.items():
        if not _of_type(acceptable, list, where, f"{field}.{name}"):
            _fail(where, f"{field}.{name}", "must list at least one acceptable value")
        for value in acceptable:
            problem = None if value == "" else _argument_problem(schema, name, value)
            if problem is not None:
                _fail(where, f"{field}.{name}", f"does not fit the tool's parameters: {problem}")


def _argument_problem(schema: Mapping[str, Any], name: str, value: Any) -> str | None:
    draft = import_jsonschema().Draft202012Validator

    validator = draft(dict(schema), format_checker=draft.FORMAT_CHECKER)
    for error in validator.iter_errors({name: value}):
        if error.absolute_path and error.absolute_path[0] == name:
            return _one_line(error.message)
    return None


def _options(value: Any, where: str) -> Mapping[str, Any]:
    for name, option in _of_type(value, dict, where, "options").items():
        if not isinstance(option, (str, bool, int, float, list)):
            _fail(where, f"options.{name}", "must be a number, a string, true or false, or an array")
    return value  # type: ignore[no-any-return]


def _check_example(example: Any, case: Case, where: str) -> None:
    """The example satisfies the schema and carries every expected value."""
    draft = import_jsonschema().Draft202012Validator

    assert case.schema is not None  # _one_kind: an example needs a schema
    validator = draft(dict(case.schema), format_checker=draft.FORMAT_CHECKER)
    for error in validator.iter_errors(example):
        _fail(where, f"example{error.json_path.removeprefix('$')}", f"breaks the schema: {_one_line(error.message)}")
    for pointer, value in (case.expected or {}).items():
        if not _stands_at(example, pointer, value):
            _fail(where, "example", f'has not the expected value {value!r} at "{pointer}"')


def _stands_at(document: Any, pointer: str, value: Any) -> bool:
    """JSON Schema's own equality decides, so that 1 is 1.0 and true is not 1."""
    draft = import_jsonschema().Draft202012Validator

    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and key in document:
            document = document[key]
        elif isinstance(document, list) and key.isdecimal() and int(key) < len(document):
            document = document[int(key)]
        else:
            return False
    return bool(draft({"const": value}).is_valid(document))


def _one_line(message: str, limit: int = 160) -> str:
    flat = " ".join(message.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"

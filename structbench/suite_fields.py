"""What is wrong with one field of a case, whatever else the case has.

Invariant: each problem is one line that begins with its field; they come one by one, so that who stops at the
first pays for no more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from structbench.scoring.validation import draft_of, import_jsonschema

TYPE_NAMES = {
    dict: "an object", list: "an array", str: "a string", bool: "true or false", int: "a number", float: "a number",
    type(None): "null",
}  # fmt: skip

Problems = Iterator[str]


def is_a(value: Any, kind: type, field: str) -> Problems:
    """The problem of a value of another type."""
    if not isinstance(value, kind):
        yield f"{field}: must be {TYPE_NAMES[kind]}, not {TYPE_NAMES[type(value)]}"


def text_problems(value: Any, field: str) -> Problems:
    yield from is_a(value, str, field)
    if isinstance(value, str) and not value.strip():
        yield f"{field}: must not be empty"


def string_problems(value: Any, field: str) -> Problems:
    yield from is_a(value, list, field)
    for i, item in enumerate(value if isinstance(value, list) else ()):
        yield from is_a(item, str, f"{field}[{i}]")


def unknown_keys(value: Mapping[str, Any], known: Collection[str], field: str) -> Problems:
    for key in value:
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known) or 'none'}"
            yield f"{f'{field}.{key}'.lstrip('.')}: unknown key: {hint}"


def schema_problems(schema: Any, field: str) -> Problems:
    """A schema is an object, valid in the draft that it names, and its references resolve within it."""
    yield from is_a(schema, dict, field)
    if not isinstance(schema, dict):
        return
    jsonschema = import_jsonschema()
    draft = draft_of(schema)
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import specification_with

    try:
        draft.check_schema(schema, format_checker=draft.FORMAT_CHECKER)
    except jsonschema.exceptions.SchemaError as error:
        yield f"{field}{error.json_path.removeprefix('$')}: no valid JSON Schema: {one_line(error.message)}"
        return
    resource = specification_with(draft.ID_OF(draft.META_SCHEMA)).create_resource(schema)
    resolver = Registry().with_resource(resource.id() or "", resource).resolver(resource.id() or "")
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            yield f'{field}: "$ref": "{reference}" leads nowhere: define it in the schema; nothing is fetched'


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _tool_problems(tools: Any, key: str) -> Problems:
    yield from is_a(tools, list, key)
    if not isinstance(tools, list):
        return
    names: list[Any] = []
    for i, tool in enumerate(tools):
        field = f"{key}[{i}]"
        yield from is_a(tool, dict, field)
        if not isinstance(tool, dict):
            continue
        yield from unknown_keys(tool, ("type", "function"), field)
        if tool.get("type") != "function":
            yield f'{field}.type: must be "function"'
        function = tool.get("function")
        yield from is_a(function, dict, f"{field}.function")
        if isinstance(function, dict):
            yield from _function_problems(function, f"{field}.function", names)
            names.append(function.get("name"))
    if not tools:
        yield f"{key}: must hold at least one tool"


def _function_problems(function: Mapping[str, Any], field: str, names: Collection[Any]) -> Problems:
    yield from unknown_keys(function, ("name", "description", "parameters", "strict"), field)
    name = function.get("name")
    yield from is_a(name, str, f"{field}.name")
    if isinstance(name, str) and (not name or name in names):
        yield f'{field}.name: "{name}" must be there and not twice'
    yield from is_a(function.get("description", ""), str, f"{field}.description")
    broken = list(schema_problems(function.get("parameters"), f"{field}.parameters"))
    yield from broken
    if not broken and function["parameters"].get("type") != "object":
        yield f'{field}.parameters.type: must be "object"'


def _pointer_problems(value: Any, key: str) -> Problems:
    """Of ``expected``, ``acceptable`` and ``compare``: an object whose keys are JSON Pointers."""
    yield from is_a(value, dict, key)
    if not isinstance(value, dict):
        return
    for pointer in value:
        if pointer and not pointer.startswith("/"):
            yield f'{key}: "{pointer}" is no JSON Pointer: begin it with "/", or "" for the whole answer'
    if not value:
        yield f"{key}: must hold at least one pointer with its value: leave it out where nothing is fixed"


def _acceptable_problems(value: Any, key: str) -> Problems:
    yield from _pointer_problems(value, key)
    for pointer, values in value.items() if isinstance(value, dict) else ():
        if not isinstance(values, list) or not values:
            yield f'{key}: "{pointer}" must have a list of at least one acceptable value'


def _expected_text_problems(value: Any, key: str) -> Problems:
    if not isinstance(value, list):
        yield from is_a(value, str, key)
    elif not value:
        yield f"{key}: must hold at least one text"
    else:
        yield from string_problems(value, key)


def _mention_problems(value: Any, key: str) -> Problems:
    yield from is_a(value, list, key)
    for i, group in enumerate(value if isinstance(value, list) else ()):
        yield from string_problems(group, f"{key}[{i}]")
        if isinstance(group, list) and (not group or not all(str(text).strip() for text in group)):
            yield f"{key}[{i}]: must list at least one text, none of them empty"
    if value == []:
        yield f"{key}: must hold at least one list of texts, of which one must stand in the answer"


def _option_problems(value: Any, key: str) -> Problems:
    yield from is_a(value, dict, key)
    for name, option in value.items() if isinstance(value, dict) else ():
        if not isinstance(option, (str, bool, int, float, list)):
            yield f"{key}.{name}: must be a number, a string, true or false, or an array"


def one_line(message: str, limit: int = 160) -> str:
    flat = " ".join(message.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


FIELDS: Mapping[str, Callable[[Any, str], Problems]] = {
    "schema": schema_problems,
    "tools": _tool_problems,
    "expected": _pointer_problems,
    "acceptable": _acceptable_problems,
    "compare": _pointer_problems,
    "expected_text": _expected_text_problems,
    "mentions": _mention_problems,
    "then": lambda value, key: is_a(value, dict, key),
    "reference": text_problems,
    "options": _option_problems,
    "tags": string_problems,
}
"""Key -> what may be wrong with its value, whatever else the line has."""

"""Checks of single fields of a case, and of its comparison rules; ``checks`` combines them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from structbench.formatting import did_you_mean, one_line
from structbench.scoring.schemas import lost_references, why_inapplicable
from structbench.scoring.time_limit import OutOfTime, limited
from structbench.scoring.validation import is_known_draft, schema_errors, what_is_wrong
from structbench.scoring.values import ABSENT, at_pointer

CHECK_LIMIT_S = 2.0
"""CPU time of one check, the same as for scoring an answer."""

WORD_RULES = {"order": "any", "case": "ignore", "space": "ignore"}
"""Rule of ``compare`` -> the only word it accepts; without the rule the comparison is strict."""
NUMBER_RULES = ("tolerance", "relative")
TEXT_RULES = ("case", "space")

TYPE_NAMES = {
    dict: "an object", list: "an array", str: "a string", bool: "true or false", int: "a number", float: "a number",
    type(None): "null",
}  # fmt: skip

Problems = Iterator[str]


def guarded(problems: Problems, field: str, *, in_time: bool = False) -> list[str]:
    """Collect the problems that a check finds, and report nesting that is too deep or a check that takes too long."""
    found: list[str] = []
    try:
        if in_time:
            limited(CHECK_LIMIT_S, lambda: found.extend(problems))
        else:
            found.extend(problems)
    except OutOfTime:
        found.append(f"{field}: takes more than {CHECK_LIMIT_S:g} s of CPU time to check: simplify the pattern")
    except RecursionError:
        found.append(f"{field}: nested too deeply to check: make it flatter")
    return found


def type_problems(value: Any, kind: type, field: str) -> Problems:
    """Yield a problem if the value is of another type."""
    if not isinstance(value, kind):
        yield f"{field}: must be {TYPE_NAMES[kind]}, not {TYPE_NAMES[type(value)]}"


def text_problems(value: Any, field: str) -> Problems:
    yield from type_problems(value, str, field)
    if isinstance(value, str) and not value.strip():
        yield f"{field}: must not be empty"


def string_problems(value: Any, field: str) -> Problems:
    yield from type_problems(value, list, field)
    for i, item in enumerate(value if isinstance(value, list) else ()):
        yield from type_problems(item, str, f"{field}[{i}]")


def unknown_keys(value: Mapping[str, Any], known: Collection[str], field: str) -> Problems:
    for key in value:
        if key not in known:
            hint = did_you_mean(
                key,
                known,
                otherwise=f"known keys are {', '.join(known)}" if known else "no keys are allowed",
                quote='"',
            )
            yield f"{f'{field}.{key}'.lstrip('.')}: unknown key: {hint}"


def schema_problems(schema: Any, field: str) -> Problems:
    """Check that a schema is an object, valid in the draft it names, and that its references resolve within it."""
    yield from type_problems(schema, dict, field)
    if not isinstance(schema, dict):
        return
    if wrapped := _wrapped(schema):
        yield f'{field}: is a wrapper as OpenAI has it: give what stands in "{wrapped}" itself'
        return
    if not is_known_draft(schema):
        named = one_line(repr(schema["$schema"]))
        yield f'{field}: "$schema": {named} is not a known draft: name one (docs/scoring.md), or leave it out'
        return
    errors = schema_errors(schema)
    for error in errors:
        yield f"{field}{error.json_path.removeprefix('$')}: {one_line(what_is_wrong(error))}"
    lost = [] if errors else [*lost_references(schema)]
    for keyword, reference in lost:
        yield f'{field}: "{keyword}": "{reference}" does not resolve: define it in the schema (nothing is fetched)'
    if not (errors or lost) and (why := why_inapplicable(schema)) is not None:
        yield f"{field}: cannot be applied: {one_line(why)}"


def _wrapped(schema: Mapping[str, Any]) -> str | None:
    """Return the member that holds the schema where it was given in what OpenAI's API wants around it."""
    if not schema.keys() <= {"name", "description", "strict", "type", "schema", "json_schema"}:
        return None
    return next((name for name in ("schema", "json_schema") if isinstance(schema.get(name), dict)), None)


def _tool_problems(tools: Any, key: str) -> Problems:
    yield from type_problems(tools, list, key)
    if not isinstance(tools, list):
        return
    names: list[Any] = []
    for i, tool in enumerate(tools):
        field = f"{key}[{i}]"
        yield from type_problems(tool, dict, field)
        if not isinstance(tool, dict):
            continue
        yield from unknown_keys(tool, ("type", "function"), field)
        if tool.get("type") != "function":
            yield f'{field}.type: must be "function"'
        function = tool.get("function")
        yield from type_problems(function, dict, f"{field}.function")
        if isinstance(function, dict):
            yield from _function_problems(function, f"{field}.function", names)
            names.append(function.get("name"))
    if not tools:
        yield f"{key}: must contain at least one tool"


def _function_problems(function: Mapping[str, Any], field: str, names: Collection[Any]) -> Problems:
    yield from unknown_keys(function, ("name", "description", "parameters", "strict"), field)
    name = function.get("name")
    yield from type_problems(name, str, f"{field}.name")
    if isinstance(name, str) and (not name or name in names):
        yield f'{field}.name: "{name}" must not be empty or used twice'
    yield from type_problems(function.get("description", ""), str, f"{field}.description")
    broken = list(schema_problems(function.get("parameters"), f"{field}.parameters"))
    yield from broken
    if not broken:
        yield from _parameter_problems(function["parameters"], f"{field}.parameters")


def _parameter_problems(schema: Mapping[str, Any], field: str) -> Problems:
    """Check what the official client requires beyond a sound schema: it rejects ``true`` for a list or a property."""
    if schema.get("type") != "object":
        yield f'{field}.type: must be "object"'
    yield from string_problems(schema.get("required", []), f"{field}.required")
    for name, described in schema.get("properties", {}).items():
        yield from type_problems(described, dict, f"{field}.properties.{name}")


def _pointer_problems(value: Any, key: str) -> Problems:
    """Check ``expected``, ``acceptable`` or ``compare``: an object whose keys are JSON Pointers."""
    yield from type_problems(value, dict, key)
    if not isinstance(value, dict):
        return
    for pointer in value:
        if pointer and not pointer.startswith("/"):
            yield f'{key}: "{pointer}" is not a valid JSON Pointer: begin it with "/", or use "" for the whole answer'
        elif re.search("~(?![01])", pointer):
            yield f'{key}: "{pointer}" is not a valid JSON Pointer: write ~ as ~0, and / within a name as ~1'
    if not value:
        yield f"{key}: must contain at least one pointer and its value: leave it out if nothing is fixed"


def _acceptable_problems(value: Any, key: str) -> Problems:
    yield from _pointer_problems(value, key)
    for pointer, values in value.items() if isinstance(value, dict) else ():
        if not isinstance(values, list) or not values:
            yield f'{key}: "{pointer}" needs a list of at least one acceptable value'


def _expected_text_problems(value: Any, key: str) -> Problems:
    if not isinstance(value, list):
        yield from type_problems(value, str, key)
    elif not value:
        yield f"{key}: must contain at least one text"
    else:
        yield from string_problems(value, key)


def _mention_problems(value: Any, key: str) -> Problems:
    yield from type_problems(value, list, key)
    for i, group in enumerate(value if isinstance(value, list) else ()):
        yield from string_problems(group, f"{key}[{i}]")
        if isinstance(group, list) and (not group or not all(str(text).strip() for text in group)):
            yield f"{key}[{i}]: must list at least one text, none of them empty"
    if value == []:
        yield f"{key}: must contain at least one list of texts, one of which the answer must contain"


def _option_problems(value: Any, key: str) -> Problems:
    yield from type_problems(value, dict, key)
    for name, option in value.items() if isinstance(value, dict) else ():
        if not isinstance(option, (str, bool, int, float, list)):
            yield f"{key}.{name}: must be a number, a string, true or false, or an array"


def rule_problems(line: Mapping[str, Any]) -> Iterator[str]:
    """Check a line's ``compare``, whose keys are known to be JSON Pointers."""
    for pointer, rule in line["compare"].items():
        field = f'compare["{pointer}"]'
        if not isinstance(rule, dict) or not rule:
            yield f'{field}: must be an object with at least one rule, e.g. {{"tolerance": 0.01}}'
            continue
        for name, value in rule.items():
            yield from _rule_value_problems(name, value, field)
        if "expected_text" in line:
            if pointer or not set(rule) <= {*TEXT_RULES}:
                yield f'{field}: a text is compared as a whole: use case or space at ""'
        elif not _is_compared(pointer, line):
            yield f"{field}: nothing is expected there: point to an expected or acceptable value or its container"


def _rule_value_problems(name: str, value: Any, field: str) -> Iterator[str]:
    if name in WORD_RULES:
        if value != WORD_RULES[name]:
            yield f'{field}.{name}: must be "{WORD_RULES[name]}"; leave it out to compare strictly'
    elif name not in NUMBER_RULES:
        yield f"{field}.{name}: unknown rule: known rules are {', '.join((*NUMBER_RULES, *WORD_RULES))}"
    elif isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        yield f"{field}.{name}: must be a number, 0 or more"


def _is_compared(pointer: str, line: Mapping[str, Any]) -> bool:
    """Return whether the rule's pointer is at, above or within an expected value."""
    due = [(at, [value]) for at, value in line.get("expected", {}).items()]
    due += line.get("acceptable", {}).items()
    for at, values in due:
        if at == pointer or at.startswith(f"{pointer}/"):
            return True
        if pointer.startswith(f"{at}/") and any(at_pointer(v, pointer[len(at) :]) is not ABSENT for v in values):
            return True
    return False


FIELDS: Mapping[str, Callable[[Any, str], Problems]] = {
    "schema": schema_problems,
    "tools": _tool_problems,
    "expected": _pointer_problems,
    "acceptable": _acceptable_problems,
    "compare": _pointer_problems,
    "expected_text": _expected_text_problems,
    "mentions": _mention_problems,
    "then": lambda value, key: type_problems(value, dict, key),
    "reference": text_problems,
    "options": _option_problems,
    "tags": string_problems,
}
"""Key -> check of its value by itself."""

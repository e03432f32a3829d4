"""The single-turn categories of the Berkeley Function Calling Leaderboard (BFCL) as suites.

The data are read from an installed ``bfcl-eval`` wheel, without importing its code, or from a folder with its files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from structbench.errors import BadInput
from structbench.formatting import did_you_mean
from structbench.suites.reading import exists, field_of, fingerprint, lines_of, object_of, read_bytes
from structbench.types import Case, Suite

VERSION = 1
"""Raise it whenever the same data give different cases: it is part of the suites' identity."""

CATEGORIES: Mapping[str, str] = {
    "simple_python": "one function, one call",
    "multiple": "a choice of functions, one call",
    "parallel": "one function, several calls",
    "parallel_multiple": "a choice of functions, several calls",
    "irrelevance": "no function fits: none must be called",
    "live_simple": "one function, one call; asked by users",
    "live_multiple": "a choice of functions, one call; asked by users",
    "live_parallel": "one function, several calls; asked by users",
    "live_parallel_multiple": "a choice of functions, several calls; asked by users",
    "live_irrelevance": "no function fits: none must be called; asked by users",
    "live_relevance": "a function fits: any call is right; asked by users",
}
UNSUPPORTED: Mapping[str, str] = {
    "simple_java": "BFCL judges its arguments as Java or JavaScript source code in strings, not as values",
    "multi_turn": "its cases take several turns and run the tools",
    "memory": "its cases take several turns and run the tools",
    "web_search": "its cases take several turns and run the tools",
    "format_sensitivity": "it tests prompts that describe functions instead of offering tools",
}
"""Prefix of the categories that the data contain but that cannot be scored truthfully -> the reason."""

INSTALL = "run `pip install --no-deps bfcl-eval`, or give the path of a folder with its data: bfcl:PATH/simple_python"
TYPES: Mapping[str, str] = {
    "string": "string", "integer": "integer", "float": "number", "boolean": "boolean", "array": "array",
    "tuple": "array", "dict": "object", "any": "string",
}  # fmt: skip
"""BFCL type -> JSON Schema type; ``any`` is sent as a string, as BFCL does."""
DISPUTED = "disputed"
"""Tags the cases whose ground truth no call can satisfy, by BFCL's own checker either."""
OPTIONS = {"temperature": 0.001, "num_predict": 4096}
"""BFCL's settings for models that run locally."""
HINT = " Note that the provided function is in Python 3 syntax."
"""The sentence that BFCL adds to each function's description."""

_FILE = re.compile(r"BFCL_v\d+_(\w+)\.json")
_NAME_LIMIT = 64


def load_bfcl(text: str) -> Suite:
    """Load the suite ``CATEGORY``, ``PATH/CATEGORY`` or ``PATH`` (all categories of a folder)."""
    path = Path(text)
    if text in CATEGORIES:
        return _suite(_installed(), [text], f"bfcl:{text}")
    if text and exists(path) and path.is_dir():
        found = [category for category in CATEGORIES if category in _files(path)]
        if not found:
            raise BadInput(
                f"{text} contains no file such as BFCL_v4_simple_python.json: give the path of BFCL's data folder"
            )
        return _suite(path, found, f"bfcl:{path.resolve().name}")
    if path.name in CATEGORIES and path.parent.is_dir():
        return _suite(path.parent, [path.name], f"bfcl:{path.name}")
    raise BadInput(_unknown(text))


def describe_bfcl() -> list[tuple[str, int | None, str]]:
    """List each installed category as (name, number of cases, description), or one line on how to install them."""
    try:
        files = _files(_installed())
    except BadInput:
        return [("bfcl:CATEGORY", None, f"Berkeley Function Calling Leaderboard, not installed: {INSTALL}")]
    return [
        (f"bfcl:{category}", sum(1 for _ in lines_of(read_bytes(files[category]))), f"BFCL: {about}")
        for category, about in CATEGORIES.items()
        if category in files
    ]


def _installed() -> Path:
    """Find the data folder in the installed wheel."""
    try:
        found = metadata.distribution("bfcl-eval")
    except metadata.PackageNotFoundError:
        raise BadInput(f"bfcl: needs the data of the package bfcl-eval, which is not installed: {INSTALL}") from None
    folder = Path(str(found.locate_file("bfcl_eval/data")))
    if not folder.is_dir():
        raise BadInput(f"the installed bfcl-eval {found.version} has no folder {folder}: {INSTALL}")
    return folder


def _files(folder: Path) -> dict[str, Path]:
    """Map each category to its file in the folder."""
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror or error}: check the path") from None
    found = ((_FILE.fullmatch(file.name), file) for file in files)
    return {match[1]: file for match, file in found if match is not None}


def _unknown(text: str) -> str:
    """Explain what is wrong with a name that is neither a category nor a path."""
    path = Path(text)
    for beginning, why in UNSUPPORTED.items():
        if path.name.startswith(beginning):
            return f"bfcl:{path.name} is not supported: {why}"
    if len(path.parts) > 1 and not path.parent.is_dir():
        return f"bfcl:{text}: there is no folder {path.parent}: check the path"
    near = did_you_mean(path.name, CATEGORIES, otherwise="", quote='"')
    hint = f"{near} Choose" if near else "choose"
    also = "" if len(path.parts) == 1 else f", and there is no folder {text}"
    return f'bfcl: has no category "{path.name}"{also}: {hint} from {", ".join(CATEGORIES)}'


def _suite(folder: Path, categories: Sequence[str], name: str) -> Suite:
    files = _files(folder)
    cases: list[Case] = []
    contents: list[bytes | str] = [f"bfcl {VERSION}"]
    for category in categories:
        if category not in files:
            raise BadInput(
                f"{folder} contains no BFCL_v4_{category}.json: update bfcl-eval, or choose another category"
            )
        data, answers = read_bytes(files[category]), b""
        if not category.endswith("relevance"):
            answers = read_bytes(folder / "possible_answer" / files[category].name)
        contents += [category, data, answers]
        cases += _cases(category, files[category].name, data, answers)
    if not cases:
        raise BadInput(f"{folder} contains no cases for {', '.join(categories)}: download the data again")
    return Suite(name, tuple(cases), fingerprint(*contents), len(cases))


def _cases(category: str, file: str, data: bytes, answers: bytes) -> Iterator[Case]:
    truths = dict(_ground_truths(answers, f"possible_answer/{file}"))
    for number, line in lines_of(data):
        where = f"{file}, line {number}"
        entry = object_of(line, where)
        name = field_of(entry, "id", str, where)
        tools, names = _tools(field_of(entry, "function", list, where), where)
        expected: tuple[Mapping[str, Any], ...] | None = ()
        if category == "live_relevance":
            expected = None
        elif not category.endswith("irrelevance"):
            if name not in truths:
                raise BadInput(
                    f"{where}: possible_answer/{file} has no line with the id {name}: download the data again"
                )
            expected = truths[name]
        disputed = expected is not None and not _can_be_right(expected, tools, names)
        yield Case(
            id=name, messages=_messages(entry, where), tools=tools, expected_calls=expected, matching="bfcl",
            function_names=names, options=OPTIONS, tags=(category, DISPUTED) if disputed else (category,),
        )  # fmt: skip


def _can_be_right(
    expected: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> bool:
    """Return whether any calls can satisfy the ground truth: its functions must have what it asks for, and it must
    have a value for what they require."""
    parameters = {
        names.get(tool["function"]["name"], tool["function"]["name"]): tool["function"]["parameters"] for tool in tools
    }
    for call in expected:
        of = parameters.get(call["name"])
        if of is None:
            return False
        must = {*of.get("required", ()), *(name for name, values in call["arguments"].items() if "" not in values)}
        known = of.get("properties", {})
        if not all(name in known and call["arguments"].get(name) for name in must):
            return False
    return True


def _messages(entry: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    """Return the messages of the only turn."""
    turns = field_of(entry, "question", list, where)
    messages = turns[0] if len(turns) == 1 else None
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise BadInput(f"{where}: question: must be a single turn, a list of messages with role and content")
    return tuple(messages)


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _ground_truths(data: bytes, file: str) -> Iterator[tuple[str, tuple[Mapping[str, Any], ...]]]:
    """Yield each case's id and the calls that answer it, in the form of ``Case.expected_calls``."""
    for number, line in lines_of(data):
        where = f"{file}, line {number}"
        entry = object_of(line, where)
        calls = field_of(entry, "ground_truth", list, where)
        if not all(isinstance(call, dict) and len(call) == 1 for call in calls):
            raise BadInput(f"{where}: ground_truth: must be a list of objects, each with one function")
        if not all(isinstance(arguments, dict) for call in calls for arguments in call.values()):
            raise BadInput(
                f"{where}: ground_truth: each function's arguments must be an object: download the data again"
            )
        expected = tuple({"name": name, "arguments": arguments} for call in calls for name, arguments in call.items())
        yield field_of(entry, "id", str, where), expected


def _tools(functions: Sequence[Any], where: str) -> tuple[tuple[Mapping[str, Any], ...], dict[str, str]]:
    """Return the functions as tools, and for each name that had to be changed the original."""
    tools: list[Mapping[str, Any]] = []
    names: dict[str, str] = {}
    taken: set[str] = set()
    for function in functions:
        if not isinstance(function, dict):
            raise BadInput(f"{where}: function: must be a list of objects")
        name = field_of(function, "name", str, where)
        sent = _sendable(name, taken)
        taken.add(sent)
        if sent != name:
            names[sent] = name
        parameters = _parameters(field_of(function, "parameters", dict, where), where)
        about = field_of({"description": "", **function}, "description", str, where)
        described = {"name": sent, "description": about + HINT, "parameters": parameters}
        tools.append({"type": "function", "function": described})
    return tuple(tools), names


def _sendable(name: str, taken: set[str]) -> str:
    """Write the name in characters that every server accepts (BFCL's have dots), different from those already taken."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_NAME_LIMIT]
    sent, number = plain, 2
    while sent in taken:
        end = f"_{number}"
        sent, number = plain[: _NAME_LIMIT - len(end)] + end, number + 1
    return sent


def _parameters(described: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Convert a function's parameters to JSON Schema."""
    try:
        schema = _schema(described, where)
    except RecursionError:
        raise BadInput(f"{where}: function: parameters: nested too deeply: download the data again") from None
    required = field_of({"required": [], **schema}, "required", list, where)
    if not all(isinstance(each, str) for each in required):
        raise BadInput(f"{where}: function: required: must be a list of names: download the data again")
    return schema


def _schema(described: Any, where: str) -> dict[str, Any]:
    """Convert BFCL's description of a value to JSON Schema at every depth; other keys stay as they are."""
    found = described.get("type") if isinstance(described, dict) else described
    if not isinstance(described, dict) or not isinstance(found, str) or found not in TYPES:
        known = ", ".join(TYPES)
        raise BadInput(f"{where}: function: unknown type {found!r}: BFCL's types are {known}")
    schema = {**described, "type": TYPES[found]}
    if "properties" in described:
        properties = field_of(described, "properties", dict, where)
        schema["properties"] = {name: _schema(value, where) for name, value in properties.items()}
    if isinstance(described.get("items"), dict):
        schema["items"] = _schema(described["items"], where)
    return schema

"""The single-turn categories of the Berkeley Function Calling Leaderboard (BFCL) as suites.

Read out of an installed ``bfcl-eval`` wheel, of which no code is imported, or out of a folder with the same
files. Invariant: a case asks what BFCL asks (its questions, its documentation of the functions), and is
right when BFCL says so (``structbench.scoring.bfcl``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from structbench.errors import BadInput
from structbench.formatting import did_you_mean
from structbench.suites.reading import field_of, fingerprint, is_there, lines_of, object_of, read_bytes
from structbench.types import Case, Suite

VERSION = 1
"""Raise it with any change to the cases that the same data give: it is part of the suites' identity."""

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
NOT_HERE: Mapping[str, str] = {
    "simple_java": "BFCL judges its arguments as source code, Java or JavaScript written in strings, not as values",
    "multi_turn": "its cases take several turns, with tools that are run",
    "memory": "its cases take several turns, with tools that are run",
    "web_search": "its cases take several turns, with tools that are run",
    "format_sensitivity": "it is about prompts that describe functions without tools",
}
"""How the names of categories begin whose data are there but cannot be scored truthfully, and why."""

INSTALL = "run `pip install --no-deps bfcl-eval`, or name a folder with its data: bfcl:PATH/simple_python"
TYPES: Mapping[str, str] = {
    "string": "string", "integer": "integer", "float": "number", "boolean": "boolean", "array": "array",
    "tuple": "array", "dict": "object", "any": "string",
}  # fmt: skip
"""BFCL's types in JSON Schema; ``any`` is sent as a string, as BFCL itself does."""
OPTIONS = {"temperature": 0.001, "num_predict": 4096}
"""BFCL's own settings for models that run locally."""
HINT = " Note that the provided function is in Python 3 syntax."
"""BFCL adds it to each function's description."""

_FILE = re.compile(r"BFCL_v\d+_(\w+)\.json")
_NAME_LIMIT = 64


def load_bfcl(text: str) -> Suite:
    """The suite of ``CATEGORY``, ``PATH/CATEGORY`` or ``PATH`` (all categories of a folder)."""
    path = Path(text)
    if text in CATEGORIES:
        return _suite(_installed(), [text], f"bfcl:{text}")
    if text and is_there(path) and path.is_dir():
        found = [category for category in CATEGORIES if category in _files(path)]
        if not found:
            raise BadInput(f"{text} holds no file such as BFCL_v4_simple_python.json: name BFCL's folder of data")
        return _suite(path, found, f"bfcl:{path.resolve().name}")
    if path.name in CATEGORIES and path.parent.is_dir():
        return _suite(path.parent, [path.name], f"bfcl:{path.name}")
    raise BadInput(_unknown(text))


def describe_bfcl() -> list[tuple[str, int | None, str]]:
    """Name, number of cases and content of each category that is installed, or one line that says how to have them."""
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
    """The folder of data in the installed wheel."""
    try:
        found = metadata.distribution("bfcl-eval")
    except metadata.PackageNotFoundError:
        raise BadInput(f"the data of bfcl: come with the package bfcl-eval, not installed here: {INSTALL}") from None
    folder = Path(str(found.locate_file("bfcl_eval/data")))
    if not folder.is_dir():
        raise BadInput(f"the installed bfcl-eval {found.version} has no folder {folder}: {INSTALL}")
    return folder


def _files(folder: Path) -> dict[str, Path]:
    """The folder's files by category."""
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror or error}: check the path") from None
    found = ((_FILE.fullmatch(file.name), file) for file in files)
    return {match[1]: file for match, file in found if match is not None}


def _unknown(text: str) -> str:
    """What is wrong with a name that is neither a category nor a path."""
    path = Path(text)
    for beginning, why in NOT_HERE.items():
        if path.name.startswith(beginning):
            return f"bfcl:{path.name} is not scored here: {why}"
    if len(path.parts) > 1 and not path.parent.is_dir():
        return f"bfcl:{text}: there is no folder {path.parent}: check the path"
    near = did_you_mean(path.name, CATEGORIES, otherwise="", quote='"')
    hint = f"{near} There" if near else "there"
    also = "" if len(path.parts) == 1 else f", and there is no folder {text}"
    return f'bfcl: has no category "{path.name}"{also}: {hint} are {", ".join(CATEGORIES)}'


def _suite(folder: Path, categories: Sequence[str], name: str) -> Suite:
    files = _files(folder)
    cases: list[Case] = []
    contents: list[bytes | str] = [f"bfcl {VERSION}"]
    for category in categories:
        if category not in files:
            raise BadInput(f"{folder} holds no BFCL_v4_{category}.json: update bfcl-eval, or name another category")
        data, answers = read_bytes(files[category]), b""
        if not category.endswith("relevance"):
            answers = read_bytes(folder / "possible_answer" / files[category].name)
        contents += [category, data, answers]
        cases += _cases(category, files[category].name, data, answers)
    if not cases:
        raise BadInput(f"{folder} holds no case of {', '.join(categories)}: fetch the data anew")
    return Suite(name, tuple(cases), fingerprint(*contents), len(cases))


def _cases(category: str, file: str, data: bytes, answers: bytes) -> Iterator[Case]:
    truths = dict(_truths(answers, f"possible_answer/{file}"))
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
                raise BadInput(f"{where}: possible_answer/{file} has no line with the id {name}: fetch the data anew")
            expected = truths[name]
        yield Case(
            id=name, messages=_messages(entry, where), tools=tools, expected_calls=expected, matching="bfcl",
            function_names=names, options=OPTIONS, tags=(category,),
        )  # fmt: skip


def _messages(entry: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    """The only turn's messages."""
    turns = field_of(entry, "question", list, where)
    messages = turns[0] if len(turns) == 1 else None
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise BadInput(f"{where}: question: must be one turn, a list of messages with role and content")
    return tuple(messages)


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _truths(data: bytes, file: str) -> Iterator[tuple[str, tuple[Mapping[str, Any], ...]]]:
    """Each case's id and the calls that answer it, as ``Case.expected_calls`` has them."""
    for number, line in lines_of(data):
        where = f"{file}, line {number}"
        entry = object_of(line, where)
        calls = field_of(entry, "ground_truth", list, where)
        if not all(isinstance(call, dict) and len(call) == 1 for call in calls):
            raise BadInput(f"{where}: ground_truth: must be a list of objects with one function each")
        if not all(isinstance(arguments, dict) for call in calls for arguments in call.values()):
            raise BadInput(f"{where}: ground_truth: each function's arguments must be an object: fetch the data anew")
        expected = tuple({"name": name, "arguments": arguments} for call in calls for name, arguments in call.items())
        yield field_of(entry, "id", str, where), expected


def _tools(functions: Sequence[Any], where: str) -> tuple[tuple[Mapping[str, Any], ...], dict[str, str]]:
    """The functions as tools, and of each name that had to be changed what it was."""
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
    """The name in the characters that every server takes (BFCL's names have dots), unlike those taken already."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_NAME_LIMIT]
    sent, number = plain, 2
    while sent in taken:
        end = f"_{number}"
        sent, number = plain[: _NAME_LIMIT - len(end)] + end, number + 1
    return sent


def _parameters(described: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A function's parameters in JSON Schema."""
    try:
        schema = _schema(described, where)
    except RecursionError:
        raise BadInput(f"{where}: function: parameters: nested too deeply: fetch the data anew") from None
    required = field_of({"required": [], **schema}, "required", list, where)
    if not all(isinstance(each, str) for each in required):
        raise BadInput(f"{where}: function: required: must be a list of names: fetch the data anew")
    return schema


def _schema(described: Any, where: str) -> dict[str, Any]:
    """BFCL's description of a value in JSON Schema, to any depth; what else it says stays."""
    found = described.get("type") if isinstance(described, dict) else described
    if not isinstance(described, dict) or not isinstance(found, str) or found not in TYPES:
        known = ", ".join(TYPES)
        raise BadInput(f"{where}: function: type {found!r} is none that BFCL has: {known}")
    schema = {**described, "type": TYPES[found]}
    if "properties" in described:
        properties = field_of(described, "properties", dict, where)
        schema["properties"] = {name: _schema(value, where) for name, value in properties.items()}
    if isinstance(described.get("items"), dict):
        schema["items"] = _schema(described["items"], where)
    return schema

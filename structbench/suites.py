"""Load suites: those that ship, those that are generated, and files of the user's.

Invariant: a suite that was loaded is sound; the first problem of a file ends in one line that
names the file, the line, the field and what is wrong with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from structbench.errors import BadInput
from structbench.generated import (
    NUMBERS_VERSION,
    TEXT_VERSION,
    GeneratedCases,
    TextShape,
    calibrate,
    calibration_prompts,
    number_case,
    text_case,
    word_count,
)
from structbench.public import PUBLIC, load_public
from structbench.suite_checks import TYPE_NAMES, case_of
from structbench.types import Case, Suite

__all__ = [
    "SHIPPED",
    "ShippedSuite",
    "TextShape",
    "answer_book",
    "calibrate",
    "calibrated",
    "calibration_prompts",
    "describe_suites",
    "load_suite",
    "word_count",
]

BOOK_NUMBERS = 1000
"""How many cases of ``numbers`` the answer book knows."""


@dataclass(frozen=True, slots=True)
class ShippedSuite:
    default_requests: int
    description: str
    generated: bool


SHIPPED: Mapping[str, ShippedSuite] = {
    "text": ShippedSuite(50, "load-test prompts of a drawn length, no two with a common beginning", True),
    "json": ShippedSuite(30, "structured output: persons, arrays of books, nested product catalogs", False),
    "tools": ShippedSuite(20, "tool calls: weather, tips, e-mail; one, several, a choice, or none", False),
    "numbers": ShippedSuite(50, "number words to digits", True),
}


def load_suite(name_or_path: str, *, text: TextShape, seed: int) -> Suite:
    """The suite of that name (text, json, tools, numbers, or public data: bfcl:…) or in that JSON Lines file.

    ``text`` shapes the suite of that name only; ``seed`` moves the generated suites only.
    """
    if name_or_path == "text":
        return _text_suite(text, seed)
    if name_or_path == "numbers":
        identity = {"generator": "numbers", "version": NUMBERS_VERSION, "seed": seed}
        cases = GeneratedCases(partial(number_case, seed=seed))
        return Suite("numbers", cases, _hash(identity), SHIPPED["numbers"].default_requests)
    if name_or_path in SHIPPED:
        lines = _parse(_shipped_bytes(name_or_path), f"{name_or_path}.jsonl")
        return _file_suite(name_or_path, lines, SHIPPED[name_or_path].default_requests)
    if (public := load_public(name_or_path)) is not None:
        return public
    lines = _parse(_user_bytes(name_or_path), name_or_path)
    return _file_suite(Path(name_or_path).name, lines, len(lines))


def calibrated(suite: Suite, tokens_per_word: float, overhead: int) -> Suite:
    """The ``text`` suite with words measured in this model's tokens; any other suite as it is.

    The hash stays: what was asked for is the same, and measured noise is no identity.
    """
    if suite.name != "text" or not isinstance(suite.cases, GeneratedCases):
        return suite
    make = partial(suite.cases.make, tokens_per_word=tokens_per_word, overhead_tokens=overhead)
    return replace(suite, cases=GeneratedCases(make))


def describe_suites() -> list[tuple[str, int | Literal["generated"], int, str]]:
    """Of each shipped suite: name, number of cases, default requests, one line about it."""
    rows: list[tuple[str, int | Literal["generated"], int, str]] = []
    for name, shipped in SHIPPED.items():
        count: int | Literal["generated"] = "generated"
        if not shipped.generated:
            count = sum(1 for line in _shipped_bytes(name).split(b"\n") if line.strip())
        rows.append((name, count, shipped.default_requests, shipped.description))
    return rows


def answer_book(seed: int = 0) -> dict[str, dict[str, Any]]:
    """Last user message -> a right answer, for the shipped cases that have one.

    ``{"json": value}``, ``{"calls": [{"name", "arguments"}]}`` or ``{"text": digits}``; of
    ``numbers`` the first 1000 cases of this seed.
    """
    book: dict[str, dict[str, Any]] = {}
    for case, example in _parse(_shipped_bytes("json"), "json.jsonl"):
        book[_question(case)] = {"json": example}
    for case, _ in _parse(_shipped_bytes("tools"), "tools.jsonl"):
        book[_question(case)] = {"calls": [_first_acceptable(call) for call in case.expected_calls or ()]}
    for index in range(BOOK_NUMBERS):
        case = number_case(index, seed=seed)
        book[_question(case)] = {"text": case.expected_text}
    return book


def _first_acceptable(call: Mapping[str, Any]) -> dict[str, Any]:
    """The call with the first acceptable value of each argument; ``""`` leaves it out."""
    arguments = {name: values[0] for name, values in call["arguments"].items() if values[0] != ""}
    return {"name": call["name"], "arguments": arguments}


def _question(case: Case) -> str:
    return str(next(m["content"] for m in reversed(case.messages) if m["role"] == "user"))


def _text_suite(shape: TextShape, seed: int) -> Suite:
    for field, value in asdict(shape).items():
        least_ok = value > 0 if field.startswith("mean") else value >= 0
        if not least_ok or value > 1e6:
            least = "above 0" if field.startswith("mean") else "0 or more"
            raise BadInput(f"--{field.replace('_', '-')} must be {least} and at most 1000000, not {value}")
    # As floats: 550 and 550.0 are the same shape and must not differ in canonical JSON.
    parameters = {field: float(value) for field, value in asdict(shape).items()}
    identity = {"generator": "text", "version": TEXT_VERSION, "seed": seed, "shape": parameters}
    cases = GeneratedCases(partial(text_case, shape=shape, seed=seed))
    return Suite("text", cases, _hash(identity), SHIPPED["text"].default_requests)


def _file_suite(name: str, lines: Sequence[tuple[Case, Any]], default_requests: int) -> Suite:
    cases = tuple(case for case, _ in lines)
    return Suite(name, cases, _hash([asdict(case) for case in cases]), default_requests)


def _hash(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _shipped_bytes(name: str) -> bytes:
    return (files("structbench") / "suites" / f"{name}.jsonl").read_bytes()


def _user_bytes(name_or_path: str) -> bytes:
    path = Path(name_or_path)
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if path.suffix == ".jsonl" or len(path.parts) > 1:
            raise BadInput(f"suite file {name_or_path} does not exist: check the path") from None
        raise BadInput(_unknown_suite(name_or_path)) from None
    except IsADirectoryError:
        raise BadInput(f"suite file {name_or_path} is a folder: name a .jsonl file in it") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"suite file {name_or_path!r} cannot be read: {error}") from None


def _unknown_suite(name: str) -> str:
    near = get_close_matches(name.lower(), SHIPPED, n=1, cutoff=0.5)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    public = ", ".join(f"{prefix}:…" for prefix in PUBLIC)
    return f'unknown suite "{name}": {hint}Known are {", ".join(SHIPPED)}, {public}, or the path of a .jsonl file'


def _parse(data: bytes, path: str) -> list[tuple[Case, Any]]:
    """The cases of a file with their examples; blank lines count as lines and are skipped."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(f"{path}, line 1: the file is UTF-16: save it as UTF-8")
    first_seen: dict[str, int] = {}
    parsed: list[tuple[Case, Any]] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        case, example = case_of(_object(line, where), where)
        if case.id in first_seen:
            raise BadInput(f'{where}: id: "{case.id}" is already the id of line {first_seen[case.id]}: make ids unique')
        first_seen[case.id] = number
        parsed.append((case, example))
    if not parsed:
        raise BadInput(f"suite file {path} is empty: write one case, a JSON object, on each line (docs/suites.md)")
    return parsed


def _object(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object on a line; refuses what JSON or UTF-8 does not have."""
    try:
        value = json.loads(line.decode(), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: not UTF-8 at byte {error.start + 1}: save the file as UTF-8") from None
    except UnicodeEncodeError:
        raise BadInput(f"{where}: not JSON: half a surrogate pair stands alone: write the character itself") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: not JSON at column {error.colno}: {error.msg} (one case on one line)") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadInput(
            f'{where}: must be an object such as {{"id": "a", "prompt": "b"}}, not {TYPE_NAMES[type(value)]}'
        )
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for key, value in pairs:
        if key in keys:
            raise ValueError(f'the key "{key}" stands twice in one object')
        keys[key] = value
    return keys


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")

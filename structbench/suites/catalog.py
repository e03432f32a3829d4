"""Suites by name: shipped, generated and public ones, and the user's own files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from structbench.errors import BadInput
from structbench.formatting import did_you_mean
from structbench.suites.bfcl import describe_bfcl, load_bfcl
from structbench.suites.checks import cases_of
from structbench.suites.files import SuiteLine, read_lines, read_suite
from structbench.suites.generated import (
    NUMBERS_VERSION,
    TEXT_VERSION,
    GeneratedCases,
    TextShape,
    number_case,
    text_case,
)
from structbench.suites.jsonschemabench import load_jsonschemabench
from structbench.suites.reading import exists, lines_of
from structbench.types import Case, Suite


@dataclass(frozen=True, slots=True)
class ShippedSuite:
    description: str
    generated: bool


SHIPPED: Mapping[str, ShippedSuite] = {
    "text": ShippedSuite("load-test prompts of random length, no two with the same beginning, in no two runs", True),
    "json": ShippedSuite("structured output: persons, books, catalogs, travel, bills, recipes and more", False),
    "tools": ShippedSuite("tool calls: 23 tools; one call, several, a choice, or none", False),
    "turns": ShippedSuite("two turns: a tool call, then a sentence about the tool's result", False),
    "numbers": ShippedSuite("number words to digits", True),
}
GENERATED_REQUESTS = 80
"""How many cases of a generated suite are asked where neither a number, a time nor a rule says so."""
NOT = "not:"
"""Before a tag: without the cases that have it."""
PUBLIC: Mapping[str, Callable[[str], Suite]] = {"bfcl": load_bfcl, "jsonschemabench": load_jsonschemabench}
"""Prefix before the colon -> loader, which takes the part after it."""


def load_suite(name_or_path: str, *, text: TextShape, seed: int) -> Suite:
    """Load a suite by name (text, json, tools, turns, numbers, or public data such as bfcl:…), file or folder.

    ``text`` shapes the suite ``text`` only; ``seed`` affects the generated suites only.
    """
    if name_or_path == "text":
        return _text_suite(text, seed)
    if name_or_path == "numbers":
        identity = {"generator": "numbers", "version": NUMBERS_VERSION, "seed": seed}
        cases = GeneratedCases(partial(number_case, seed=seed))
        return Suite("numbers", cases, _hash(identity), GENERATED_REQUESTS)
    if name_or_path in SHIPPED:
        return _file_suite(name_or_path, shipped_lines(name_or_path))
    prefix, colon, rest = name_or_path.partition(":")
    if colon and prefix in PUBLIC:
        return PUBLIC[prefix](rest)
    path = _user_path(name_or_path)
    return _file_suite(path.resolve().name, read_suite(path))


def check_suite(path_or_name: str) -> Iterator[SuiteLine]:
    """Yield each line of a suite with all its problems; BadInput if there is no file or folder to read."""
    if path_or_name in SHIPPED and not SHIPPED[path_or_name].generated:
        return read_lines(shipped_bytes(path_or_name), f"{path_or_name}.jsonl")
    return read_suite(_user_path(path_or_name))


def tagged(suite: Suite, tags: Sequence[str]) -> Suite:
    """Return the cases that have one of the tags (and none of those after ``not:``) as a separate suite.

    BadInput if there are none.
    """
    unwanted = {tag.removeprefix(NOT) for tag in tags if tag.startswith(NOT)}
    wanted = {tag for tag in tags if not tag.startswith(NOT)}
    kept = [
        case for case in representative_cases(suite)
        if unwanted.isdisjoint(case.tags) and (not wanted or wanted & set(case.tags))
    ]  # fmt: skip
    if not kept:
        raise BadInput(f"no case in suite {suite.name} has any of --tags {' '.join(tags)}: drop the suite or the tags")
    if isinstance(suite.cases, GeneratedCases):
        return suite
    return suite_of(f"{suite.name}[{','.join(tags)}]", kept)


def tags_of(suite: Suite) -> set[str]:
    """Return all tags used in the suite."""
    return {tag for case in representative_cases(suite) for tag in case.tags}


def representative_cases(suite: Suite) -> Sequence[Case]:
    """Return the cases that show what a suite asks for: all, or one of a generated suite, whose cases are alike."""
    return suite.cases[:1] if isinstance(suite.cases, GeneratedCases) else suite.cases


def new_suite(kind: str) -> str:
    """Return a commented suite file to start from."""
    return shipped_bytes(f"new-{kind}").decode()


def cases_of_run(suite: Suite, run_id: str, tokens_per_word: float, overhead: int) -> Sequence[Case]:
    """Return the cases of ``text`` as this run asks them, with words measured in this model's tokens.

    A run that goes on asks the same again. None of this is part of the suite's identity.
    """
    assert isinstance(suite.cases, GeneratedCases)
    make = partial(suite.cases.make, run_id=run_id, tokens_per_word=tokens_per_word, overhead_tokens=overhead)
    return GeneratedCases(make)


def describe_suites() -> list[tuple[str, int | Literal["generated"], str]]:
    """List the shipped suites as (name, number of cases, description)."""
    return [
        (
            name,
            "generated" if shipped.generated else sum(1 for _ in lines_of(shipped_bytes(name))),
            shipped.description,
        )
        for name, shipped in SHIPPED.items()
    ]


def describe_public() -> list[tuple[str, int | None, str]]:
    """List the public suites as (name, number of cases or None if it depends on the path, description)."""
    schemas = "JSONSchemaBench: one case per schema in a folder or maskbench file"
    return [*describe_bfcl(), ("jsonschemabench:PATH[/SET]", None, schemas)]


def _text_suite(shape: TextShape, seed: int) -> Suite:
    for field, value in asdict(shape).items():
        is_mean = field.startswith("mean")
        if value < 0 or (is_mean and value == 0) or not value <= 1e6:
            lower = "above 0" if is_mean else "0 or more"
            raise BadInput(f"--{field.replace('_', '-')} must be {lower} and at most 1000000, not {value}")
    # As floats: 550 and 550.0 are the same shape and must not differ in canonical JSON.
    parameters = {field: float(value) for field, value in asdict(shape).items()}
    identity = {"generator": "text", "version": TEXT_VERSION, "seed": seed, "shape": parameters}
    cases = GeneratedCases(partial(text_case, shape=shape, seed=seed))
    return Suite("text", cases, _hash(identity), GENERATED_REQUESTS)


def _file_suite(name: str, lines: Iterable[SuiteLine]) -> Suite:
    """Make a suite of the lines; BadInput with the first problem found."""
    cases: list[Case] = []
    for line in lines:
        if line.problems:
            raise BadInput(line.problems[0])
        cases += line.cases
    return suite_of(name, cases)


def suite_of(name: str, cases: Sequence[Case]) -> Suite:
    """Make a suite whose hash covers its cases entirely.

    Fields left at their default are not in the hash, so that adding a field to Case does not change old suites.
    """
    return Suite(name, tuple(cases), _hash([_identity_fields(case) for case in cases]), len(cases))


def _identity_fields(case: Case) -> dict[str, Any]:
    bare = Case(id=case.id, messages=())
    stated = {field.name: getattr(case, field.name) for field in fields(Case)}
    stated = {name: value for name, value in stated.items() if name == "id" or value != getattr(bare, name)}
    # Hashed in the order written: the order of a schema's properties changes the prompt and the grammar.
    return stated | {name: _json(stated[name]) for name in ("schema", "tools") if name in stated}


def _hash(content: Any) -> str:
    return hashlib.sha256(_json(content, sort_keys=True).encode()).hexdigest()


def _json(content: Any, *, sort_keys: bool = False) -> str:
    return json.dumps(content, sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@cache
def shipped_lines(name: str) -> Sequence[SuiteLine]:
    """Return the lines of a shipped suite; a test checks them, which at each start would take a tenth of a second."""
    stated = [json.loads(line) for _, line in lines_of(shipped_bytes(name))]
    return [SuiteLine(cases_of(value), value.get("example")) for value in stated]


def shipped_bytes(name: str) -> bytes:
    """Read a shipped suite file."""
    return (files("structbench.suites") / "data" / f"{name}.jsonl").read_bytes()


def _user_path(name_or_path: str) -> Path:
    """Return the path of the user's file or folder; BadInput if it does not exist."""
    path = Path(name_or_path)
    if exists(path):
        return path
    if path.suffix == ".jsonl" or len(path.parts) > 1:
        raise BadInput(f"suite file {name_or_path} does not exist: check the path")
    near = did_you_mean(name_or_path.lower(), SHIPPED, otherwise="", quote='"')
    known = ", ".join([*SHIPPED, *(f"{prefix}:…" for prefix in PUBLIC)])
    hint = f"{near} Known suites" if near else "known suites"
    raise BadInput(f'unknown suite "{name_or_path}": {hint} are {known}, a .jsonl file, or a folder of schemas')

"""Load suites by name: those that ship, those that are generated, public data, and files of the user's.

Invariant: a suite that was loaded is sound; the first problem of a file ends in one line that
names the file, the line, the field and what is wrong with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from structbench.errors import BadInput
from structbench.formatting import did_you_mean
from structbench.suites.bfcl import describe_bfcl, load_bfcl
from structbench.suites.files import Line, read_lines, read_suite
from structbench.suites.generated import (
    NUMBERS_VERSION,
    TEXT_VERSION,
    GeneratedCases,
    TextShape,
    number_case,
    text_case,
)
from structbench.suites.jsonschemabench import load_jsonschemabench
from structbench.suites.reading import is_there
from structbench.types import Case, Suite


@dataclass(frozen=True, slots=True)
class ShippedSuite:
    default_requests: int
    description: str
    generated: bool


SHIPPED: Mapping[str, ShippedSuite] = {
    "text": ShippedSuite(50, "load-test prompts of a drawn length, no two with a common beginning", True),
    "json": ShippedSuite(30, "structured output: persons, arrays of books, nested product catalogs", False),
    "tools": ShippedSuite(20, "tool calls: weather, tips, e-mail; one, several, a choice, or none", False),
    "turns": ShippedSuite(16, "two turns: a tool call, then a sentence with what the tool answered", False),
    "numbers": ShippedSuite(50, "number words to digits", True),
}


PUBLIC: Mapping[str, Callable[[str], Suite]] = {"bfcl": load_bfcl, "jsonschemabench": load_jsonschemabench}
"""What stands before the colon -> the suite of what stands behind it."""


def load_suite(name_or_path: str, *, text: TextShape, seed: int) -> Suite:
    """The suite of that name (text, json, tools, turns, numbers, or public data: bfcl:…), or of that file or folder.

    ``text`` shapes the suite of that name only; ``seed`` moves the generated suites only.
    """
    if name_or_path == "text":
        return _text_suite(text, seed)
    if name_or_path == "numbers":
        identity = {"generator": "numbers", "version": NUMBERS_VERSION, "seed": seed}
        cases = GeneratedCases(partial(number_case, seed=seed))
        return Suite("numbers", cases, _hash(identity), SHIPPED["numbers"].default_requests)
    if name_or_path in SHIPPED:
        lines = read_lines(shipped_bytes(name_or_path), f"{name_or_path}.jsonl")
        return _file_suite(name_or_path, lines, SHIPPED[name_or_path].default_requests)
    if (public := load_public(name_or_path)) is not None:
        return public
    path = _own(name_or_path)
    return _file_suite(path.resolve().name, read_suite(path))


def check_suite(path_or_name: str) -> Iterator[Line]:
    """Each line of a suite with all its problems; BadInput where there is no file or folder to read."""
    if path_or_name in SHIPPED and not SHIPPED[path_or_name].generated:
        return read_lines(shipped_bytes(path_or_name), f"{path_or_name}.jsonl")
    return read_suite(_own(path_or_name))


def tagged(suite: Suite, tags: Sequence[str]) -> Suite:
    """The suite's cases that have one of the tags, as a suite of its own; BadInput when none has."""
    kept = [case for case in telling_cases(suite) if set(tags) & set(case.tags)]
    if not kept:
        raise BadInput(f"no case of suite {suite.name} has a tag of --tags {' '.join(tags)}: leave one of them out")
    if isinstance(suite.cases, GeneratedCases):
        return suite
    return suite_of(f"{suite.name}[{','.join(tags)}]", kept, min(suite.default_requests, len(kept)))


def tags_of(suite: Suite) -> set[str]:
    """All tags of the suite's cases."""
    return {tag for case in telling_cases(suite) for tag in case.tags}


def telling_cases(suite: Suite) -> Sequence[Case]:
    """The cases that tell what a suite asks for: one of a generated suite, whose cases are alike, else all."""
    return suite.cases[:1] if isinstance(suite.cases, GeneratedCases) else suite.cases


def new_suite(kind: str) -> str:
    """The text of a commented suite file to start from."""
    return shipped_bytes(f"new-{kind}").decode()


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
            count = sum(1 for line in shipped_bytes(name).split(b"\n") if line.strip())
        rows.append((name, count, shipped.default_requests, shipped.description))
    return rows


def load_public(name: str) -> Suite | None:
    """The suite of that name; None where the name is not one of public data."""
    prefix, colon, rest = name.partition(":")
    return PUBLIC[prefix](rest) if colon and prefix in PUBLIC else None


def describe_public() -> list[tuple[str, int | None, str]]:
    """What can be had: name, number of cases (None: it depends on the path), one line about it."""
    schemas = "JSONSchemaBench: a case for each schema of a folder, or of a maskbench file"
    return [*describe_bfcl(), ("jsonschemabench:PATH[/SET]", None, schemas)]


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


def _file_suite(name: str, lines: Iterable[Line], default_requests: int | None = None) -> Suite:
    """The suite of these lines; BadInput with the first problem that there is."""
    cases: list[Case] = []
    for line in lines:
        if line.problems:
            raise BadInput(line.problems[0])
        cases += line.cases
    return suite_of(name, cases, default_requests)


def suite_of(name: str, cases: Sequence[Case], default_requests: int | None = None) -> Suite:
    """A suite whose hash covers all that its cases say; each case is asked once unless ``default_requests`` says more.

    What a case leaves at its default is not in the hash, so that a new kind of field leaves old suites as they are.
    """
    requests = len(cases) if default_requests is None else default_requests
    return Suite(name, tuple(cases), _hash([_said(case) for case in cases]), requests)


def _said(case: Case) -> dict[str, Any]:
    bare = Case(id=case.id, messages=())
    said = {field.name: getattr(case, field.name) for field in fields(Case)}
    said = {name: value for name, value in said.items() if name == "id" or value != getattr(bare, name)}
    # Sent as they are written: in what order a schema names its properties changes the prompt and the grammar.
    return said | {name: _json(said[name]) for name in ("schema", "tools") if name in said}


def _hash(content: Any) -> str:
    return hashlib.sha256(_json(content, sort_keys=True).encode()).hexdigest()


def _json(content: Any, *, sort_keys: bool = False) -> str:
    return json.dumps(content, sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def shipped_bytes(name: str) -> bytes:
    """The content of a suite file that ships."""
    return (files("structbench.suites") / "data" / f"{name}.jsonl").read_bytes()


def _own(name_or_path: str) -> Path:
    """The user's file or folder; BadInput when it is not there."""
    path = Path(name_or_path)
    if is_there(path):
        return path
    if path.suffix == ".jsonl" or len(path.parts) > 1:
        raise BadInput(f"suite file {name_or_path} does not exist: check the path")
    raise BadInput(_unknown_suite(name_or_path))


def _unknown_suite(name: str) -> str:
    near = did_you_mean(name.lower(), SHIPPED, otherwise="", quote='"')
    known = ", ".join([*SHIPPED, *(f"{prefix}:…" for prefix in PUBLIC)])
    hint = f"{near} Known" if near else "known"
    return f'unknown suite "{name}": {hint} are {known}, or a .jsonl file or folder of schemas'

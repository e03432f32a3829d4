"""The user's own suites: JSON Lines, or a folder of schemas.

Every line is yielded once, with its cases or its problems; no content of a file raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structbench.errors import BadInput
from structbench.strict_json import NotJson, decode_file
from structbench.suites.checks import cases_of, problems_of
from structbench.suites.fields import TYPE_NAMES, guarded, schema_problems
from structbench.suites.reading import read_bytes
from structbench.types import Case

COMMENTS = (b"#", b"//")


@dataclass(frozen=True, slots=True)
class SuiteLine:
    """A line of a suite file, or a file in a folder of schemas; it has cases or problems, not both."""

    cases: tuple[Case, ...] = ()
    """One case, or two if a second turn follows."""
    example: Any = None
    problems: tuple[str, ...] = ()
    """One line each, with the file, the line, the field and what is wrong."""


def read_suite(path: Path) -> Iterator[SuiteLine]:
    """Read the lines of a file or the schemas of a folder; BadInput if it cannot be read."""
    try:
        if path.is_dir():
            return _read_folder(path)
        return read_lines(read_bytes(path), str(path))
    except OSError as error:
        raise BadInput(f"suite file {str(path)!r} cannot be read: {error}") from None


def read_lines(data: bytes, path: str) -> Iterator[SuiteLine]:
    """Yield the lines of a JSON Lines file; blank lines and comments are skipped, but count in line numbers."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield SuiteLine(problems=(f"{path}, line 1: the file is UTF-16: save it as UTF-8",))
        return
    first_seen: dict[str, int] = {}
    empty = True
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip() and not line.lstrip().startswith(COMMENTS):
            empty = False
            yield _line(line, number, first_seen, path)
    if empty:
        how = "write one case, a JSON object, per line (docs/suites.md)"
        yield SuiteLine(problems=(f"suite file {path} is empty: {how}",))


def _line(data: bytes, number: int, first_seen: dict[str, int], path: str) -> SuiteLine:
    try:
        value = decode_file(data, "one case per line")
    except NotJson as error:
        return SuiteLine(problems=(f"{path}, line {number}: {error}",))
    if not isinstance(value, dict):
        shape = f'must be an object such as {{"id": "a", "prompt": "b"}}, not {TYPE_NAMES[type(value)]}'
        return SuiteLine(problems=(f"{path}, line {number}: {shape}",))
    problems = list(problems_of(value))
    if isinstance(name := value.get("id"), str) and (before := first_seen.setdefault(name, number)) != number:
        problems.append(f'id: "{name}" is already used in line {before}: make ids unique')
    if problems:
        return SuiteLine(problems=tuple(f"{path}, line {number}: {problem}" for problem in problems))
    return SuiteLine(cases_of(value), value.get("example"))


def _read_folder(folder: Path) -> Iterator[SuiteLine]:
    """Yield a case for each schema in the folder (``*.json``, sorted by name)."""
    files = sorted(file for file in folder.iterdir() if file.suffix == ".json" and file.is_file())
    for file in files:
        problems = []
        try:
            schema = decode_file(file.read_bytes(), "one schema per file")
            problems = [f"{file}: {problem}" for problem in guarded(schema_problems(schema, "schema"), "schema")]
        except (OSError, NotJson) as error:
            problems = [f"{file}: {error}"]
        yield SuiteLine(problems=tuple(problems)) if problems else SuiteLine((_schema_case(file.stem, schema),))
    if not files:
        yield SuiteLine(
            problems=(f"{folder} is a folder without schemas: put .json files in it, or give a .jsonl file",)
        )


def _schema_case(name: str, schema: Mapping[str, Any]) -> Case:
    """Make the case that asks for an instance of a schema, by title (else its file's name), description and fields."""
    title, about, fields = schema.get("title"), schema.get("description"), schema.get("properties")
    parts = [f"Give a realistic example, as JSON, of: {title if isinstance(title, str) and title.strip() else name}."]
    if isinstance(about, str) and about.strip():
        parts.append(about.strip())
    if isinstance(fields, Mapping) and fields:
        parts.append(f"Its fields are: {', '.join(map(str, fields))}.")
    return Case(id=name, messages=({"role": "user", "content": " ".join(parts)},), schema=schema)

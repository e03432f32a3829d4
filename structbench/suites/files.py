"""Reading one's own suites: JSON Lines, or a folder of schemas.

Invariant: every line comes out once, as a case or with what is wrong with it; reading never raises for what a file
holds. Who loads a suite stops at the first line with a problem, ``structbench suites check`` goes on.
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
from structbench.types import Case

COMMENTS = (b"#", b"//")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a suite file, or a file of a folder of schemas; no cases where there are problems."""

    cases: tuple[Case, ...] = ()
    """One, or two where a second turn follows."""
    example: Any = None
    problems: tuple[str, ...] = ()
    """Each names the file, the line, the field and what is wrong."""


def read_suite(path: Path) -> Iterator[Line]:
    """The lines of a file, or the schemas of a folder; BadInput when it cannot be read."""
    try:
        if path.is_dir():
            return read_folder(path)
        return read_lines(path.read_bytes(), str(path))
    except OSError as error:
        raise BadInput(f"suite file {str(path)!r} cannot be read: {error}") from None


def read_lines(data: bytes, path: str) -> Iterator[Line]:
    """The cases of JSON Lines; blank lines and comments count as lines and are skipped."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield Line(problems=(f"{path}, line 1: the file is UTF-16: save it as UTF-8",))
        return
    first_seen: dict[str, int] = {}
    empty = True
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip() and not line.lstrip().startswith(COMMENTS):
            empty = False
            yield _line(line, number, first_seen, path)
    if empty:
        how = "write one case, a JSON object, on each line (docs/suites.md)"
        yield Line(problems=(f"suite file {path} is empty: {how}",))


def _line(data: bytes, number: int, first_seen: dict[str, int], path: str) -> Line:
    try:
        value = decode_file(data, "one case on one line")
    except NotJson as error:
        return Line(problems=(f"{path}, line {number}: {error}",))
    if not isinstance(value, dict):
        shape = f'must be an object such as {{"id": "a", "prompt": "b"}}, not {TYPE_NAMES[type(value)]}'
        return Line(problems=(f"{path}, line {number}: {shape}",))
    problems = list(problems_of(value))
    if isinstance(name := value.get("id"), str) and (before := first_seen.setdefault(name, number)) != number:
        problems.append(f'id: "{name}" is already the id of line {before}: make ids unique')
    if problems:
        return Line(problems=tuple(f"{path}, line {number}: {problem}" for problem in problems))
    return Line(cases_of(value), value.get("example"))


def read_folder(folder: Path) -> Iterator[Line]:
    """A case for each schema of the folder (``*.json``, in the order of their names), asked for by its own words."""
    files = sorted(file for file in folder.iterdir() if file.suffix == ".json" and file.is_file())
    for file in files:
        problems = []
        try:
            schema = decode_file(file.read_bytes(), "one schema in a file")
            problems = [f"{file}: {problem}" for problem in guarded(schema_problems(schema, "schema"), "schema")]
        except (OSError, NotJson) as error:
            problems = [f"{file}: {error}"]
        yield Line(problems=tuple(problems)) if problems else Line((schema_case(file.stem, schema),))
    if not files:
        yield Line(problems=(f"{folder} is a folder without schemas: put .json files in it, or name a .jsonl file",))


def schema_case(name: str, schema: Mapping[str, Any]) -> Case:
    """The case that asks for an instance of a schema."""
    return Case(id=name, messages=({"role": "user", "content": schema_prompt(schema, name)},), schema=schema)


def schema_prompt(schema: Mapping[str, Any], name: str) -> str:
    """What is asked for is the schema's title, else its name; its description and fields say more."""
    title, about, fields = schema.get("title"), schema.get("description"), schema.get("properties")
    parts = [f"Give a realistic example, as JSON, of: {title if isinstance(title, str) and title.strip() else name}."]
    if isinstance(about, str) and about.strip():
        parts.append(about.strip())
    if isinstance(fields, Mapping) and fields:
        parts.append(f"Its fields are: {', '.join(map(str, fields))}.")
    return " ".join(parts)

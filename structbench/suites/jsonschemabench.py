"""JSONSchemaBench (arXiv 2501.10868): one case per schema in a folder or maskbench file, given by its path.

Every schema in a loaded suite is a JSON object; whether it is a valid schema is decided for each answer.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from structbench.errors import BadInput
from structbench.formatting import did_you_mean
from structbench.suites.generated import GeneratedCases
from structbench.suites.reading import exists, field_of, fingerprint, lines_of, object_of, read_bytes
from structbench.types import Case, Suite

VERSION = 1
"""Raise it whenever the same data give different cases: it is part of the suites' identity."""
OPTIONS = {"num_predict": 2048}
"""Limits the answer: a schema may allow endless ones."""
TASK = "Make up an example of what this JSON Schema describes, with realistic values."
NO_SET = "."


class _Item(NamedTuple):
    """A schema of the data set, read again when its case is needed."""

    id: str
    where: str
    """The file, and the line if the file has several."""
    read: Callable[[], bytes]

    @property
    def set(self) -> str:
        return self.id.split("/")[0] if "/" in self.id else NO_SET


def load_jsonschemabench(text: str) -> Suite:
    """Load the suite ``PATH`` or ``PATH/SET``: a folder of schemas or maskbench files, or a maskbench .jsonl(.gz)."""
    items, name = _find(text)
    contents: list[bytes | str] = [f"jsonschemabench {VERSION}"]
    for item in items:
        data = item.read()
        _schema(object_of(data, item.where), item.where)
        contents += [item.id, data]
    cases = GeneratedCases(partial(_case, items), len(items))
    return Suite(f"jsonschemabench:{name}", cases, fingerprint(*contents), len(items))


def _find(text: str) -> tuple[Sequence[_Item], str]:
    """Find the schemas and the name of their suite."""
    path = Path(text)
    if text and exists(path):
        items = _items(path)
        if not items:
            raise BadInput(f"{text} contains no schemas: give the folder whose data/SET/*.json are the schemas")
        return items, path.resolve().name
    items = _items(path.parent) if text and exists(path.parent) else []
    chosen = [item for item in items if item.set == path.name]
    if not chosen:
        raise BadInput(f"jsonschemabench:{text}: {_unknown(path.name, {item.set for item in items} - {NO_SET})}")
    return chosen, path.name


def _unknown(name: str, sets: Collection[str]) -> str:
    """Explain what is wrong with a path that does not exist and whose parent has no such set."""
    near = did_you_mean(name, sets, otherwise="", quote='"')
    if near:
        return f'no set "{name}": {near} Choose from {", ".join(sorted(sets))}'
    return "no such file, folder or set: give the path of the data set, or PATH/SET"


def _items(path: Path) -> list[_Item]:
    if path.is_file():
        return list(_line_items(path))
    root = path / "data" if (path / "data").is_dir() else path
    # Folders of the data set are one deep; a repository's other files are not schemas.
    return [_file_item(file, root) for file in sorted(root.glob("*.json")) + sorted(root.glob("*/*.json"))]


def _file_item(file: Path, root: Path) -> _Item:
    inside = file.relative_to(root).with_suffix("").as_posix()
    # In the folder of a single set, schemas keep the set's name.
    name = inside if "/" in inside or root.name == "data" else f"{root.name}/{inside}"
    return _Item(_id_with_set(name), str(file), partial(read_bytes, file))


def _line_items(path: Path) -> Iterator[_Item]:
    """Yield one schema per line, each a maskbench file named by ``file``."""
    data = read_bytes(path)
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{path}: not a complete gzip file: {error}: download it again") from None
    for number, line in lines_of(data):
        where = f"{path}, line {number}"
        name = field_of(object_of(line, where), "file", str, where)
        yield _Item(_id_with_set(name.removesuffix(".json")), where, partial(bytes, line))


def _id_with_set(name: str) -> str:
    """Turn a maskbench name, SET---NAME, into SET/NAME."""
    *before, last = name.split("/")
    return "/".join(last.split("---", 1)) if "---" in last else "/".join((*before, last))


def _case(items: Sequence[_Item], index: int) -> Case:
    from structbench.suites.requests import with_schema  # imports loadgen, which listing the suites does not need

    item = items[index]
    schema = _schema(object_of(item.read(), item.where), item.where)
    messages = with_schema([{"role": "user", "content": TASK}], schema)
    return Case(id=item.id, messages=messages, schema=schema, options=OPTIONS, tags=(item.set,))


def _schema(content: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the file's content, or the schema in it if it is a maskbench file with instances."""
    if "schema" in content and "tests" in content:
        return field_of(content, "schema", dict, where)  # type: ignore[no-any-return]
    return content

"""JSONSchemaBench (arXiv 2501.10868): a case for each schema of a folder, or of its maskbench part.

The data set is named by its path. Invariant: every schema is a JSON object when the suite is loaded; whether
it is a sound schema, and whether an answer can be judged by it, is said answer by answer.
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
from structbench.suites.reading import field_of, fingerprint, is_there, lines_of, object_of, read_bytes
from structbench.types import Case, Suite

VERSION = 1
"""Raise it with any change to the cases that the same data give: it is part of the suites' identity."""
OPTIONS = {"num_predict": 2048}
"""A schema may allow answers without end."""
TASK = "Make up an example of what this JSON Schema describes, with realistic values."
NO_SET = "."


class _Item(NamedTuple):
    """One schema of the data set, read again when its case is asked for."""

    id: str
    where: str
    """File, and line where it has several."""
    read: Callable[[], bytes]

    @property
    def set(self) -> str:
        return self.id.split("/")[0] if "/" in self.id else NO_SET


def load_jsonschemabench(text: str) -> Suite:
    """The suite of ``PATH`` or ``PATH/SET``: a folder of schemas or maskbench files, or a maskbench .jsonl(.gz)."""
    items, name = _find(text)
    contents: list[bytes | str] = [f"jsonschemabench {VERSION}"]
    for item in items:
        data = item.read()
        _schema(object_of(data, item.where), item.where)
        contents += [item.id, data]
    cases = GeneratedCases(partial(_case, items), len(items))
    return Suite(f"jsonschemabench:{name}", cases, fingerprint(*contents), len(items))


def _find(text: str) -> tuple[Sequence[_Item], str]:
    """The schemas and what to call them."""
    path = Path(text)
    if text and is_there(path):
        items = _items(path)
        if not items:
            raise BadInput(f"{text} holds no schema: name the folder whose data/SET/*.json are the schemas")
        return items, path.resolve().name
    items = _items(path.parent) if text and is_there(path.parent) else []
    chosen = [item for item in items if item.set == path.name]
    if not chosen:
        raise BadInput(f"jsonschemabench:{text}: {_unknown(path.name, {item.set for item in items} - {NO_SET})}")
    return chosen, path.name


def _unknown(name: str, sets: Collection[str]) -> str:
    """What is wrong with a path that is not there, and whose parent has no such set."""
    near = did_you_mean(name, sets, otherwise="", quote='"')
    if near:
        return f'there is no set "{name}": {near} There are {", ".join(sorted(sets))}'
    return "there is no such file, folder or set: name the path of the data set, or PATH/SET"


def _items(path: Path) -> list[_Item]:
    if path.is_file():
        return list(_of_lines(path))
    root = path / "data" if (path / "data").is_dir() else path
    # Folders of the data set are one deep; a repository's other files are not schemas.
    return [_of_file(file, root) for file in sorted(root.glob("*.json")) + sorted(root.glob("*/*.json"))]


def _of_file(file: Path, root: Path) -> _Item:
    inside = file.relative_to(root).with_suffix("").as_posix()
    # A set's own folder: its schemas keep the set's name.
    name = inside if "/" in inside or root.name == "data" else f"{root.name}/{inside}"
    return _Item(_set_apart(name), str(file), partial(read_bytes, file))


def _of_lines(path: Path) -> Iterator[_Item]:
    """One maskbench file a line; ``file`` names it."""
    data = read_bytes(path)
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{path}: no whole gzip file: {error}: fetch it anew") from None
    for number, line in lines_of(data):
        where = f"{path}, line {number}"
        name = field_of(object_of(line, where), "file", str, where)
        yield _Item(_set_apart(name.removesuffix(".json")), where, partial(_same, line))


def _set_apart(name: str) -> str:
    """A maskbench file is named SET---NAME."""
    *before, last = name.split("/")
    return "/".join(last.split("---", 1)) if "---" in last else "/".join((*before, last))


def _same(data: bytes) -> bytes:
    return data


def _case(items: Sequence[_Item], index: int) -> Case:
    from structbench.suites.requests import with_schema  # with it comes loadgen, which listing the suites does not need

    item = items[index]
    schema = _schema(object_of(item.read(), item.where), item.where)
    messages = with_schema([{"role": "user", "content": TASK}], schema)
    return Case(id=item.id, messages=messages, schema=schema, options=OPTIONS, tags=(item.set,))


def _schema(content: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The schema that a file is, or that a maskbench file holds beside its instances."""
    if "schema" in content and "tests" in content:
        return field_of(content, "schema", dict, where)  # type: ignore[no-any-return]
    return content

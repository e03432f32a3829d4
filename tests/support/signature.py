"""The keywords of ``structbench.load``, made of the options: ``python -m tests.support.signature`` writes them anew."""

from __future__ import annotations

import re
import textwrap
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from structbench.options import LoadOptions, seconds_of, share_of
from tests.support.paths import ROOT

FILE = ROOT / "structbench/functions.py"
BLOCK = re.compile(r"(?<=: see tests/support/signature.py\n).*?(?=    given = locals\(\))", re.DOTALL)
FOR_TERMINALS = ("print_plan", "json", "quiet", "wide")
TABLES = ("option", "body", "metadata", "header", "header_env")


def keywords() -> list[Field[Any]]:
    """Return the options that are keywords: all but those that only a terminal needs."""
    return [each for each in fields(LoadOptions) if each.name not in FOR_TERMINALS]


def block() -> str:
    """Return the function's head and docstring."""
    lines = ["def load(", "    *,"]
    lines += [f"    {each.name}: {annotation(each)} = {default(each)}," for each in keywords()]
    lines += [
        "    progress: Callable[[CellProgress], None] | bool = False,",
        ") -> Summary:",
        '    """Run a load and return its summary: a row per cell in ``rows``, every request from ``records()``.',
        "",
        "    Times are seconds, or such as ``1m30s``; where several values are taken, one may stand alone. Raises",
        "    BadInput (a StructbenchError) before anything is sent. Metrics are off unless ``metrics_port`` is given.",
        "",
        "    progress: called with a CellProgress about twice a second and at each cell's end; True: a bar by tqdm",
    ]  # fmt: skip
    for each in keywords():
        lines += textwrap.wrap(
            f"{each.name}: {each.metadata['help']}", 120, initial_indent="    ", subsequent_indent="        ",
            break_on_hyphens=False,
        )  # fmt: skip
    return "\n".join([*lines, '    """', ""])


def annotation(each: Field[Any]) -> str:
    """Return the type of a keyword, wider than the option's, which reads what it is given."""
    kinds = get_args(each.type)
    optional = get_origin(each.type) is Union
    kind = kinds[0] if optional or get_origin(each.type) is list else each.type
    if get_origin(kind) is Literal:
        return f"Literal[{', '.join(map(_quoted, get_args(kind)))}]"
    one = {Path: "str | Path"}.get(kind, kind.__name__)
    if each.name == "think":
        one = "bool | str"
    elif each.metadata.get("read") in (seconds_of, share_of):
        one = "float | str"
    if get_origin(each.type) is list:
        one = f"{one} | Sequence[{one}]"
    if each.name in TABLES:
        one = f"Mapping[str, Any] | {one}"
    return f"{one} | None" if optional else one


def default(each: Field[Any]) -> str:
    """Return a keyword's default as Python text."""
    if each.name == "metrics_port":
        return "0"
    value = tuple(each.default_factory()) if each.default_factory is not MISSING else each.default
    return _quoted(str(value) if isinstance(value, Path) else value)


def _quoted(value: Any) -> str:
    if isinstance(value, tuple):
        return (
            f"({''.join(f'{_quoted(each)}, ' for each in value).strip().removesuffix(',' if len(value) > 1 else '')})"
        )
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    FILE.write_text(BLOCK.sub(lambda _: block(), FILE.read_text()))

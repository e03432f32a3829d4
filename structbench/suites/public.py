"""Suites made of data that others published: ``bfcl:…`` and ``jsonschemabench:…``.

Invariant: the data are read where they are and never shipped; nothing is fetched, and no code of theirs runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from structbench.suites.bfcl import describe_bfcl, load_bfcl
from structbench.suites.jsonschemabench import load_jsonschemabench
from structbench.types import Suite

__all__ = ["PUBLIC", "describe_public", "load_public"]

PUBLIC: Mapping[str, Callable[[str], Suite]] = {"bfcl": load_bfcl, "jsonschemabench": load_jsonschemabench}
"""What stands before the colon -> the suite of what stands behind it."""


def load_public(name: str) -> Suite | None:
    """The suite of that name; None where the name is not one of public data."""
    prefix, colon, rest = name.partition(":")
    return PUBLIC[prefix](rest) if colon and prefix in PUBLIC else None


def describe_public() -> list[tuple[str, int | None, str]]:
    """What can be had: name, number of cases (None: it depends on the path), one line about it."""
    schemas = "JSONSchemaBench: a case for each schema of a folder, or of a maskbench file"
    return [*describe_bfcl(), ("jsonschemabench:PATH[/SET]", None, schemas)]

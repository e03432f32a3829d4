"""What a judge of notes is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from structbench.types import Note

Row = Mapping[str, Any]


class Judge(NamedTuple):
    """``sql`` selects what is judged of the run ``$1``; ``notes`` yields notes on it, at most one of a kind."""

    sql: str
    notes: Callable[[Sequence[Row]], Iterable[Note]]

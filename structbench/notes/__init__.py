"""Notes: what the stored requests say of the server and the workload, beside the verdict, which is of the client. Pure.

A judge is SQL over one run and a function from its rows to notes; ``JUDGES`` lists them in the order of reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from structbench.notes import (
    answered,
    away,
    cache,
    counts,
    held,
    ignored,
    lengths,
    limits,
    machine,
    nodes,
    opening,
    prompts,
    reached,
    reload,
    stationary,
)
from structbench.notes.judge import Judge
from structbench.types import Note

Query = Callable[[str, Sequence[Any]], list[dict[str, Any]]]

JUDGES: tuple[Judge, ...] = (
    limits.TOKEN_LIMIT, limits.RATE_LIMITED, away.SERVER_AWAY, stationary.STATIONARY, stationary.SATURATION,
    opening.OPENING, reload.RELOAD, cache.CACHED, prompts.PROMPTS, lengths.LENGTHS, counts.COUNTS, counts.GOODPUT,
    held.HELD, reached.REACHED, ignored.IGNORED, ignored.THOUGHT, ignored.LIMITED, answered.ANSWERED,
    nodes.NODES_DIFFER, machine.LOST, machine.PRESSED,
)  # fmt: skip


_STORED = """
SELECT run_id, kind, text, share, at_s FROM notes
WHERE run_id IN (SELECT unnest($1::VARCHAR[])) AND kind IS NOT NULL AND text IS NOT NULL
"""


def notes_of(query: Query, run_id: str) -> Iterator[Note]:
    """Yield the notes on a run, from all of its stored requests, whichever segment they are of."""
    for judge in JUDGES:
        yield from judge.notes(query(judge.sql, [run_id]))


def stored_notes(query: Query, run_ids: Sequence[str]) -> dict[str, list[Note]]:
    """Return for each of these runs the notes that were stored when it ended, in their order."""
    found: dict[str, list[Note]] = {run_id: [] for run_id in run_ids}
    for row in query(_STORED, [list(run_ids)]):
        found[row.pop("run_id")].append(Note(**row))
    return found

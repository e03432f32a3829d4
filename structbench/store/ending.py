"""How a run ended, judged from its stored requests: by the load that ran it, or by whoever finds it left behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from structbench.notes import Query, notes_of
from structbench.types import Note
from structbench.verdict import Verdict, facts_of, judge


@dataclass(frozen=True, slots=True)
class Ending:
    """The verdict on the client, the notes on the rest, and the number of requests that the run reached."""

    verdict: Verdict
    notes: tuple[Note, ...]
    reached: int

    @property
    def columns(self) -> Mapping[str, Any]:
        """What the row of ``runs`` says of it; ``notes`` are stored with it, in their own table."""
        return {
            "verdict": self.verdict.word, "verdict_reason": self.verdict.reason,
            "notes": [asdict(note) for note in self.notes],
        }  # fmt: skip


def ending_of(query: Query, run_id: str) -> Ending:
    """Judge a run by all of its stored requests, whichever segment they are of."""
    facts = facts_of(query, run_id)
    return Ending(judge(facts), tuple(notes_of(query, run_id)), facts["reached"])

"""The truth: what the server really did, one entry per request, and totals.

Invariant: every entry is closed exactly once; instants are ``time.monotonic_ns`` right before the write.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields
from time import monotonic_ns
from typing import Any, Literal

Ending = Literal["completed", "rejected", "faulted", "aborted"]
"""The last message was written; an error status; a fault broke it off; the client went away."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request to /api/chat, /api/generate or /api/embed."""

    path: str
    model: str
    received_ns: int
    in_flight: int
    """Requests in flight when this one arrived, including itself."""
    status: int = 200
    kind: str | None = None
    """Kind of answer: correct, schema_violation, …, text, load."""
    fault: str | None = None
    first_ns: int | None = None
    """When the first chunk with text, thinking or a tool call was written (not streamed: the answer)."""
    last_ns: int | None = None
    """When the last such chunk was written."""
    done_ns: int | None = None
    """When the last message was written."""
    chunks: int = 0
    """Chunks with text, thinking or a tool call."""
    prompt_tokens: int = 0
    tokens: int = 0
    load_ns: int = 0
    queue_ns: int = 0
    """Time spent waiting for a slot."""
    prompt_eval_ns: int = 0
    eval_ns: int = 0
    outcome: Ending | None = None
    """None while it is in flight."""

    def mark_done(self) -> None:
        """Note that the whole answer is about to be written."""
        self.first_ns = self.last_ns = self.done_ns = monotonic_ns()


_COLUMNS = tuple(field.name for field in fields(Entry))


class Truth:
    """The last 100,000 requests and the totals of all."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque(maxlen=100_000)
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything except what is in flight."""
        self.entries.clear()
        self.requests = self.tokens = 0
        self.max_in_flight = self.in_flight
        self.outcomes: dict[str, int] = {"completed": 0, "rejected": 0, "faulted": 0, "aborted": 0}

    def open(self, path: str, model: str) -> Entry:
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        entry = Entry(path=path, model=model, received_ns=monotonic_ns(), in_flight=self.in_flight)
        self.entries.append(entry)
        return entry

    def close(self, entry: Entry, outcome: Ending) -> None:
        if entry.outcome is None:
            entry.outcome = outcome
            self.in_flight -= 1
            self.outcomes[outcome] += 1
            self.tokens += entry.tokens

    def report(self, summary: bool) -> dict[str, Any]:
        flight = {"in_flight": self.in_flight, "max_in_flight": self.max_in_flight}
        totals = {"requests": self.requests, **flight, "tokens": self.tokens, **self.outcomes}
        if summary:
            return {"totals": totals}
        return {"totals": totals, "requests": [{c: getattr(e, c) for c in _COLUMNS} for e in self.entries]}

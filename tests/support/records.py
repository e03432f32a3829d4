"""What the tests of the live figures share: a clock set by hand, records and scores."""

from __future__ import annotations

from dataclasses import dataclass

from loadgen.types import NS, RequestError, RequestRecord
from structbench.types import Score


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def record(ttft_s: float = 0.084, e2e_s: float = 1.0, tokens: int | None = 50, failed: bool = False) -> RequestRecord:
    chunks = (int(ttft_s * NS), int(e2e_s * NS))
    error = RequestError("http", "HTTP 500", 500) if failed else None
    return RequestRecord(
        index=0, due_ns=0, sent_ns=0, chunk_ns=chunks, end_ns=chunks[1], output_tokens=tokens, error=error
    )


CORRECT, WRONG = Score(outcome="correct", accuracy_score=1.0), Score(outcome="wrong_value", accuracy_score=0.5)

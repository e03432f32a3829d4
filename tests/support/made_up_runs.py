"""Loads whose records are made up: no worker, no scoring process, and every figure is known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import pytest

from loadgen.engine import Orders, Readings
from loadgen.telemetry import CellLabels
from loadgen.types import NS, ErrorKind, Request, RequestError, RequestRecord
from structbench.scoring import Answer, score
from structbench.suites.catalog import TextShape, load_suite
from structbench.types import Case, Score

BEGAN_NS = 5 * NS
"""The common start of a load that is made up."""
NUMBERS = load_suite("numbers", text=TextShape(), seed=0).cases


def record(index: int = 0, kind: ErrorKind | None = None, **more: Any) -> RequestRecord:
    """The request of ``index`` of the suite ``numbers``, rightly answered or failed; each takes 0.1 s, one by one."""
    sent_ns = BEGAN_NS + index * NS // 10
    error = None if kind is None else RequestError(kind, "told", 400 if kind == "rejected" else None)
    given: dict[str, Any] = {
        "due_ns": sent_ns, "sent_ns": sent_ns, "end_ns": sent_ns + NS // 10, "error": error, "clock": "kernel",
        "sent_off_ns": 0, "chunk_early_ns": (),
    }  # fmt: skip
    if kind is None:
        given |= {"chunk_ns": (sent_ns + NS // 20, sent_ns + NS // 10), "output_tokens": 3, "done_reason": "stop",
                  "output_text": NUMBERS[index].expected_text}  # fmt: skip
    return RequestRecord(index=index, **{**given, **more})


Script = Callable[[Iterator[Request], Orders, Readings], Iterable[RequestRecord]]


def answered(requests: Iterable[Request], orders: Orders, _readings: Readings) -> Iterator[RequestRecord]:
    """Each request, rightly, until somebody stops it."""
    for request in requests:
        if orders.stop:
            return
        yield record(request.index)


def these(*records: RequestRecord) -> Script:
    """These, whatever was asked."""
    return lambda _requests, _orders, _readings: records


@dataclass
class Engine:
    """In the place of ``generate_load``: does with the requests what a script says, and remembers what it was given."""

    script: Script = answered
    given: list[dict[str, Any]] = field(default_factory=list)
    """Of each load, all but the requests."""
    sent: list[Request] = field(default_factory=list)

    def __call__(self, requests: Iterable[Request], load: object, **given: Any) -> Iterator[RequestRecord]:
        self.given.append({"load": load, **given})
        given["readings"].started_ns = BEGAN_NS
        yield from self.script(self._heard(requests), given["orders"], given["readings"])

    def _heard(self, requests: Iterable[Request]) -> Iterator[Request]:
        for request in requests:
            self.sent.append(request)
            yield request


class Judge:
    """In the place of ``Scorer``: judges at once, in this process."""

    def __init__(self, on_score: Callable[[Any, Score | None], None], *, start_now: bool) -> None:  # noqa: ARG002
        self._on_score = on_score

    def submit(self, key: Any, case: Case, answer: Answer) -> None:
        self._on_score(key, score(case, answer))

    def drain(self, timeout_s: float) -> bool:
        return timeout_s > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


@dataclass
class Shown:
    """In the place of ``Telemetry``: remembers what it is to show."""

    wants_requests: bool = False
    begun: list[tuple[CellLabels, str, int | None]] = field(default_factory=list)
    observed: dict[int, tuple[CellLabels, str | None, Request | None, str]] = field(default_factory=dict)
    values: dict[int, Mapping[str, float]] = field(default_factory=dict)
    flying: list[tuple[CellLabels, int]] = field(default_factory=list)
    samples: list[tuple[CellLabels, dict[str, Any]]] = field(default_factory=list)
    verdicts: list[tuple[CellLabels, str]] = field(default_factory=list)
    ended: list[tuple[CellLabels, str]] = field(default_factory=list)
    caches: list[tuple[CellLabels, str]] = field(default_factory=list)
    states: list[dict[str, int]] = field(default_factory=list)

    def begin(self, cell: CellLabels, run_id: str, planned: int | None) -> None:
        self.begun.append((cell, run_id, planned))

    def observe(
        self, record: RequestRecord, cell: CellLabels, outcome: str | None, values: Mapping[str, float],
        request: Request | None, case_id: str,
    ) -> None:  # fmt: skip
        self.observed[record.index] = cell, outcome, request, case_id
        self.values[record.index] = values

    def in_flight(self, cell: CellLabels, n: int) -> None:
        self.flying.append((cell, n))

    def sample(self, cell: CellLabels, values: dict[str, Any]) -> None:
        self.samples.append((cell, values))

    def verdict(self, cell: CellLabels, word: str) -> None:
        self.verdicts.append((cell, word))

    def end(self, cell: CellLabels, verdict: str) -> None:
        self.ended.append((cell, verdict))

    def cache(self, cell: CellLabels, result: str) -> None:
        self.caches.append((cell, result))

    def cells(self, states: dict[str, int]) -> None:
        self.states.append({state: n for state, n in states.items() if n})


@contextmanager
def made_up(script: Script = answered, shown: Shown | None = None) -> Iterator[Engine]:
    """Loads send nothing, and their records are those of the script."""
    engine = Engine(script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("structbench.run.segment.generate_load", engine)
        patch.setattr("structbench.run.runner.started_ahead", lambda *_: nullcontext())
        patch.setattr("structbench.run.runner.Scorer", Judge)
        if shown is not None:
            patch.setattr("structbench.run.runner.open_telemetry", lambda *_: shown)
        yield engine

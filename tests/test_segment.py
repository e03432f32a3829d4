"""Each record becomes one row; only answers are scored; a load that makes no sense any more is given up."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from loadgen.server import Server
from loadgen.turns import follow_up
from loadgen.types import NS, ErrorKind, Request, RequestError, RequestRecord
from loadgen.workers import Control
from structbench import segment as module
from structbench.cells import build_cells, load_suites
from structbench.errors import RunFailed
from structbench.options import LoadOptions
from structbench.prompts import request_of
from structbench.scoring import Answer
from structbench.segment import Segment
from structbench.tally import Tally
from structbench.types import Case, Score

SERVER = Server("http://127.0.0.1:11434", "0.33.0", {"m:latest": "d"})


class Parts:
    """What a segment works with, remembering what it was given."""

    def __init__(self, options: LoadOptions) -> None:
        self.options, self.server = options, SERVER
        self.telemetry: Any = None
        self.store, self.scorer, self.display = self, self, None
        self.rows: list[dict[str, Any]] = []
        self.answers: list[Answer] = []

    def append(self, table: str, row: dict[str, Any]) -> None:
        assert table == "requests"
        self.rows.append(row)

    def submit(self, _key: object, _case: Case, answer: Answer) -> None:
        self.answers.append(answer)


def segment(missing: range | None = range(3), **given: Any) -> Segment:
    options = LoadOptions(**{"models": ["m"], "suites": ["numbers"], "requests": 3, **given})
    (suite,) = load_suites(options)
    (cell,) = build_cells(options, SERVER, [suite])
    services: Any = Parts(options)
    made = Segment(services=services, cell=cell, cases=suite.cases, run_id="r", number=1, missing=missing)
    made.tally = Tally()
    return made


def record(index: int = 0, kind: ErrorKind | None = None) -> RequestRecord:
    error = None if kind is None else RequestError(kind, "told", 400 if kind == "rejected" else None)
    return RequestRecord(index=index, output_text="7", done_reason="stop", end_ns=100 + index, error=error)


def parts(made: Segment) -> Parts:
    services: Any = made.services
    return services  # type: ignore[no-any-return]


def test_an_answer_is_scored_and_its_row_waits_for_the_score() -> None:
    made = segment()
    made._take(record(2))
    assert (len(parts(made).answers), made.rows) == (1, 0)
    made.scored(record(2), Score(outcome="correct", accuracy_score=1.0))
    (row,) = parts(made).rows
    assert (row["run_id"], row["segment"], row["request_index"], row["case_id"]) == ("r", 1, 2, "numbers-2")
    assert (row["outcome"], row["accuracy_score"], made.rows, made.last_ns) == ("correct", 1.0, 1, 102)


def test_a_refusal_is_scored_and_still_an_error_of_its_kind() -> None:
    made = segment()
    made._take(record(0, "rejected"))
    assert [answer.rejected for answer in parts(made).answers] == [True]
    made.scored(record(0, "rejected"), Score(outcome="rejected", accuracy_score=0.0))
    (row,) = parts(made).rows
    assert (row["outcome"], row["error_kind"], row["error_status"], made.errors) == ("rejected", "rejected", 400, 1)


@pytest.mark.parametrize("kind", ["connect", "timeout", "http", "stream", "protocol", "dropped", "worker_died"])
def test_what_never_arrived_has_a_row_and_no_score(kind: ErrorKind) -> None:
    made = segment(max_error_rate=1.0)
    made._take(record(0, kind))
    (row,) = parts(made).rows
    assert (row["outcome"], row["error_kind"], row["accuracy_score"]) == (kind, kind, None)
    assert (parts(made).answers, made.errors, made.failure) == ([], 1, None)


def test_complete_means_a_row_for_each_request() -> None:
    made = segment()
    for index in range(3):
        assert not made.is_complete
        made._keep(record(index), None)
    assert made.is_complete
    made.control.stopping = True
    assert made.is_complete, "a stop that came too late"
    made.cancelled = 1
    assert not made.is_complete, "a request that was cancelled is sent again"
    made.cancelled, made.failure = 0, "lost"
    assert not made.is_complete


def test_a_segment_bound_by_time_is_complete_when_nobody_stopped_it() -> None:
    made = segment(missing=None, requests=None, duration=1.0)
    made.control = Control(started_ns=5 * NS)
    assert made.is_complete
    made.control = Control(started_ns=5 * NS, stopped_ns=round(5.9 * NS), stopping=True)
    assert not made.is_complete
    made.control.stopped_ns = round(6.1 * NS)
    assert made.is_complete, "a stop after the time was up changes nothing"


def test_rows_that_cannot_be_written_end_the_load_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = segment()

    def full(_table: str, _row: Any) -> None:
        raise RunFailed("the disk is full")

    monkeypatch.setattr(made.services.store, "append", full)
    with pytest.raises(RunFailed):
        made.scored(record(0), None)
    assert (made.failure, made.control.stopping) == (f"{made.cell.name}: the disk is full", True)
    made.failure = None
    made._keep_sample({"client_cpu_percent": 1.0})
    assert made.failure is not None, "the sampler's thread goes on, and the load ends"


def test_too_many_errors_end_the_load_as_soon_as_it_is_certain() -> None:
    made = segment(missing=range(10), requests=10, max_error_rate=0.2)
    for index in range(3):
        assert made.failure is None
        made._take(record(index, "http"))
    assert made.failure is not None
    assert "3 of 10 requests failed, more than --max-error-rate 0.2 allows" in made.failure
    assert (made.control.stopping, made.control.hurry) == (True, True)


def test_cancelling_is_no_error_of_the_servers() -> None:
    made = segment(max_error_rate=0.0)
    made._take(record(0, "cancelled"))
    assert (made.errors, made.failure) == (0, None)


def test_a_server_is_looked_for_after_ten_failures_to_connect_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    alive = SimpleNamespace(now=True)

    def answers(address: str) -> bool:
        asked.append(address)
        return bool(alive.now)

    monkeypatch.setattr(module, "answers", answers)
    made = segment(missing=range(100), requests=100)
    for index in range(9):
        made._take(record(index, "connect"))
    made._take(record(9))
    for index in range(10, 20):
        assert asked == []
        made._take(record(index, "connect"))
    assert (asked, made.failure) == (["http://127.0.0.1:11434"], None)
    alive.now = False
    for index in range(20, 30):
        made._take(record(index, "connect"))
    assert made.failure is not None
    assert "no longer answers: start it again and continue with --skip-cached" in made.failure
    assert made.control.stopping


class Watching:
    """Telemetry with spans, remembering the requests that it was shown."""

    wants_requests = True

    def __init__(self) -> None:
        self.requests: dict[int, Request] = {}

    def observe(self, record: RequestRecord, _cell: object, _scored: object, request: Request, _case: str) -> None:
        self.requests[record.index] = request


@pytest.mark.parametrize("first_is_known", [True, False])
def test_the_span_of_a_second_turn_tells_what_was_sent(first_is_known: bool) -> None:
    made = segment(range(4), suites=["turns"], requests=4, option=["temperature=0"])
    watching: Any = Watching()
    parts(made).telemetry = watching
    call = {"name": "calculate_tip", "arguments": {"bill": 80, "percent": 15}}
    first, second = replace(record(2), tool_calls=(call,)), record(3)
    sent = request_of(made.cases[2], made.cell.config, 2)
    if first_is_known:
        made._take(first)
        made._take(second)
    made._keep(second, None)
    told = watching.requests[3]
    following = follow_up(sent, first)
    assert following is not None
    assert told == (following if first_is_known else replace(following, messages=()))
    assert (told.options["seed"], told.options["num_predict"], bool(told.tools)) == (2, 200, True)
    assert made.following == {}


def test_workers_and_warm_up_follow_the_load_unless_given() -> None:
    assert (segment().workers, segment().warmup) == (1, 1)
    assert (segment(workers=3).workers, segment(workers=3).warmup) == (3, 3)
    assert segment(workers=3, warmup=0).warmup == 0

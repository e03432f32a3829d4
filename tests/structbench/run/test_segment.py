"""Each record becomes one row; only answers are scored; a load that makes no sense any more is given up."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from loadgen.api import ollama_server
from loadgen.api.server import Server
from loadgen.engine import LoadFailed, Orders, Readings
from loadgen.telemetry import CellLabels
from loadgen.turns import follow_up
from loadgen.types import MODEL_ERRORS, NS, ClosedLoop, ErrorKind, Request, RequestError, RequestRecord, Timeouts
from loadgen.wire.access import NO_ACCESS, Access
from structbench.errors import RunFailed
from structbench.options import LoadOptions
from structbench.run import sampler
from structbench.run import segment as segment_module
from structbench.run.cells import build_cells
from structbench.run.display import Display
from structbench.run.plan import PlannedCell
from structbench.run.progress import Progress
from structbench.run.runner import abort_watch
from structbench.run.segment import Segment
from structbench.run.settings import Settings, settings_of
from structbench.scoring import Answer
from structbench.scoring import score as judged
from structbench.suites.requests import request_of, warmup_requests
from structbench.types import Case, Score
from tests.support.made_up_runs import BEGAN_NS, NUMBERS, Engine, Script, Shown, answered, made_up, these
from tests.support.made_up_runs import record as timed

SERVER = Server("http://127.0.0.1:11434", "0.33.0", {"m:latest": "d"})


class Parts:
    """What a segment works with, remembering what it was given."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.server = settings, SERVER
        self.telemetry: Any = None
        self.budget = None
        self.store, self.scorer = self, self
        self.console = Console(file=io.StringIO(), width=200)
        self.display = Display(self.console, every_s=0.0)
        self.rows: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.cases: list[dict[str, Any]] = []
        self.kept_cases: dict[tuple[int | None, str], bytearray] = {}
        self.file_number = 1
        self.backlog = 7
        self.answers: list[Answer] = []
        self.unscored: list[tuple[Any, Case, Answer]] = []
        self.patience: list[float] = []
        """How long the load was ready to wait for scores, each time that it did."""
        self.hastened = 0
        self.busy = 0
        """How often the scores are not there in time."""

    def append(self, table: str, row: dict[str, Any]) -> None:
        {"requests": self.rows, "samples": self.samples, "cases": self.cases}[table].append(row)

    def submit(self, key: object, case: Case, answer: Answer) -> None:
        self.answers.append(answer)
        self.unscored.append((key, case, answer))

    def hasten(self) -> None:
        self.hastened += 1

    def drain(self, timeout_s: float) -> bool:
        self.patience.append(timeout_s)
        if len(self.patience) <= self.busy:
            return False
        for (made, its), case, answer in self.unscored:
            made.scored(its, judged(case, answer))
        return True

    @property
    def said(self) -> list[str]:
        return self.console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def segment(missing: range | None = range(3), **given: Any) -> Segment:
    options = LoadOptions(**{"models": ["m"], "suites": ["numbers"], "requests": 3, **given})
    settings = settings_of(options)
    (cell,) = build_cells(settings, [SERVER])
    services: Any = Parts(settings)
    made = Segment(services=services, cell=cell, cases=cell.suite.cases, run_id="r", number=1, missing=missing)
    made.progress = Progress()
    return made


def record(index: int = 0, kind: ErrorKind | None = None) -> RequestRecord:
    error = None if kind is None else RequestError(kind, "told", 400 if kind in MODEL_ERRORS else None)
    return RequestRecord(index=index, output_text="7", done_reason="stop", end_ns=100 + index, error=error)


def parts(made: Segment) -> Parts:
    services: Any = made.services
    return services  # type: ignore[no-any-return]


def test_an_answer_is_scored_and_its_row_waits_for_the_score() -> None:
    made = segment()
    made._receive(record(2))
    assert (len(parts(made).answers), made.rows) == (1, 0)
    made.scored(record(2), Score(outcome="correct", accuracy_score=1.0))
    (row,) = parts(made).rows
    assert (row["run_id"], row["segment"], row["request_index"], row["case_id"]) == ("r", 1, 2, "numbers-2")
    assert (row["outcome"], row["accuracy_score"], made.rows, made.last_ns) == ("correct", 1.0, 1, 102)


@pytest.mark.parametrize("kind", ["rejected", "broken_call", "truncated"])
def test_the_model_s_failure_is_scored_keeps_its_kind_and_is_no_error(kind: ErrorKind) -> None:
    made = segment(max_error_rate=0.0)
    made._receive(record(0, kind))
    assert [answer.failure for answer in parts(made).answers] == [kind]
    made.scored(record(0, kind), Score(outcome=kind, accuracy_score=0.0))
    (row,) = parts(made).rows
    assert (row["outcome"], row["error_kind"], row["error_status"]) == (kind, kind, 400)
    assert (made.errors, made.progress.errors, made.failure) == (0, 0, None)


@pytest.mark.parametrize("kind", ["connect", "timeout", "http", "stream", "protocol", "dropped", "worker_died"])
def test_what_never_arrived_has_a_row_and_no_score(kind: ErrorKind) -> None:
    made = segment(max_error_rate=1.0)
    made._receive(record(0, kind))
    (row,) = parts(made).rows
    assert (row["outcome"], row["error_kind"], row["accuracy_score"]) == (kind, kind, None)
    assert (parts(made).answers, made.errors, made.failure) == ([], 1, None)


def test_complete_means_a_row_for_each_request() -> None:
    made = segment()
    for index in range(3):
        assert not made.is_complete
        made._store_row(record(index), None)
    assert made.is_complete
    made.orders.stop = True
    assert made.is_complete, "a stop that came too late"
    made.failure = "lost"
    assert not made.is_complete


def test_a_request_that_was_cancelled_is_sent_again_also_when_the_time_was_up() -> None:
    made = segment(missing=None, requests=None, duration=1.0)
    made.readings, made.orders = Readings(started_ns=5 * NS, stopped_ns=7 * NS), Orders(stop=True)
    assert made.is_complete
    made._receive(record(0, "cancelled"))
    assert not made.is_complete


def test_a_segment_bound_by_time_is_complete_when_nobody_stopped_it() -> None:
    made = segment(missing=None, requests=None, duration=1.0)
    made.readings = Readings(started_ns=5 * NS)
    assert made.is_complete
    made.readings = Readings(started_ns=5 * NS, stopped_ns=round(5.9 * NS))
    assert not made.is_complete
    made.readings.stopped_ns = round(6.1 * NS)
    assert made.is_complete, "a stop after the time was up changes nothing"
    made.readings.stopped_ns = 6 * NS
    assert made.is_complete
    made.readings.started_ns = None
    assert made.is_complete is False, "stopped before it began"
    made.readings.stopped_ns = None
    assert made.is_complete is False, "it never began"


def test_rows_that_cannot_be_written_end_the_load_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = segment()

    def full(_table: str, _row: Any) -> None:
        raise RunFailed("the disk is full")

    monkeypatch.setattr(made.services.store, "append", full)
    with pytest.raises(RunFailed):
        made.scored(record(0), None)
    assert (made.failure, made.orders.stop) == (f"{made.cell.name}: the disk is full", True)
    made.failure = None
    made._store_sample({"client_cpu_percent": 1.0})
    assert made.failure is not None, "the sampler's thread goes on, and the load ends"


def test_too_many_errors_end_the_load_as_soon_as_it_is_certain() -> None:
    made = segment(missing=range(10), requests=10, max_error_rate=0.2)
    for index in range(3):
        assert made.failure is None
        made._receive(record(index, "http"))
    assert made.failure is not None
    assert "3 of 10 requests failed, more than --max-error-rate 0.2 allows" in made.failure
    assert (made.orders.stop, made.orders.hurry) == (True, True)


def test_cancelling_is_no_error_of_the_servers() -> None:
    made = segment(max_error_rate=0.0)
    made._receive(record(0, "cancelled"))
    assert (made.errors, made.failure) == (0, None)


@dataclass
class Away:
    """In the place of the server: answers or not, and how much time has passed."""

    answers: bool = True
    now_s: float = 100.0
    asked: int = 0

    def __call__(self, _address: str, _access: Access) -> bool:
        self.asked += 1
        return self.answers


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Away:
    away = Away()
    monkeypatch.setattr(ollama_server, "answers", away)
    clock = SimpleNamespace(monotonic=lambda: away.now_s, monotonic_ns=lambda: round(away.now_s * NS))
    monkeypatch.setattr(segment_module, "time", clock)
    return away


def test_a_server_is_looked_for_after_three_requests_in_a_row_that_found_nobody(server: Away) -> None:
    made = segment(missing=range(100), requests=100)
    for index in (0, 1):
        made._receive(record(index, "connect"))
    made._receive(record(2))
    made._receive(record(3, "connect"))
    made._receive(timed(4, "timeout", error=RequestError("timeout", "connect: nothing within 10 s")))
    assert server.asked == 0
    made._receive(timed(5, "http", error=RequestError("http", "bad gateway", 502)))
    assert (server.asked, made.failure, made.paused, made.orders.stop) == (1, None, False, False)
    for index in range(6, 12):
        made._receive(record(index, "http"))
        made._receive(timed(index, error=RequestError("timeout", "first_chunk: nothing within 10 s")))
    assert server.asked == 1, "a server that fails is there"


def test_a_closed_loop_pauses_while_the_server_is_away(server: Away) -> None:
    server.answers = False
    made = segment(missing=range(100), requests=100, max_error_rate=0.02)
    made._receive(record(0, "protocol"))
    for index in range(1, 4):
        made._receive(record(index, "connect"))
    assert (made.paused, made.orders.stop, made.orders.hurry, made.failure) == (True, True, False, None)
    made._receive(record(4, "connect"))
    assert (server.asked, made.away_since_s, made.is_complete, made.failure) == (1, 100.0, False, None)
    assert (made.errors, made.lost, made.answered, made.highest, sum(made.done)) == (5, 4, 1, 4, 1)


def test_an_open_loop_goes_on_for_its_patience_and_says_when_the_server_is_back(server: Away) -> None:
    server.answers = False
    made = segment(missing=range(100), requests=100, rate=[5.0], patience=4.0)
    for index in range(9):
        made._receive(record(index, "connect"))
        server.now_s += 0.5
    assert (made.failure, made.paused, made.orders.stop) == (None, False, False)
    made._receive(record(9))
    assert parts(made).said[-2:] == [
        f"m numbers rate=5/s constant: the server at {SERVER.address} does not answer: what is due for 4 s is recorded "
        "as failed (--patience)",
        "m numbers rate=5/s constant: the server answers again, after 3.5 s",
    ]
    for index in range(10, 22):
        assert made.failure is None or index > 20, "its patience begins anew"
        server.now_s += 0.5
        made._receive(record(index, "connect"))
    assert made.failure is not None
    assert made.failure.endswith("no longer answers: start it again and continue with --skip-cached")
    assert made.orders.hurry


@pytest.mark.parametrize("load", [{}, {"rate": [5.0]}])
def test_without_patience_a_server_that_is_gone_ends_the_load_at_once(server: Away, load: dict[str, Any]) -> None:
    server.answers = False
    made = segment(missing=range(100), requests=100, patience=0.0, **load)
    for index in range(3):
        made._receive(record(index, "connect"))
    assert made.failure is not None
    assert "no longer answers: start it again and continue with --skip-cached" in made.failure
    assert (made.paused, made.orders.stop) == (False, True)


class Watching:
    """Telemetry with spans, remembering the requests that it was shown."""

    wants_requests = True

    def __init__(self) -> None:
        self.requests: dict[int, Request] = {}

    def observe(
        self, record: RequestRecord, _cell: object, _outcome: object, _values: object, request: Request, _case: str
    ) -> None:
        self.requests[record.index] = request


@pytest.mark.parametrize("first_is_known", [True, False])
def test_the_span_of_a_second_turn_tells_what_was_sent(first_is_known: bool) -> None:
    made = segment(range(4), suites=["turns"], requests=4, option=["temperature=0"])
    watching: Any = Watching()
    parts(made).telemetry = watching
    call = {"name": "calculate_tip", "arguments": {"bill": 80, "percent": 15}}
    called = replace(record(2), tool_calls=(call,))
    following = follow_up(request_of(made.cases[2], made.cell.config, 2), called)
    assert following is not None
    first, second = replace(called, following=following), record(3)
    if first_is_known:
        made._receive(first)
        made._receive(second)
    made._store_row(second, None)
    told = watching.requests[3]
    assert told == (following if first_is_known else replace(following, messages=()))
    assert (told.options["seed"], told.options["num_predict"], bool(told.tools)) == (2, 200, True)
    assert made.following == {}


@pytest.mark.parametrize("arises", [True, False])
def test_complete_means_a_row_for_each_second_turn_that_arises(arises: bool) -> None:
    made = segment(range(4), suites=["turns"], requests=4)
    following = Request(index=1, model="m") if arises else None
    for first in (replace(record(0), following=following), record(2)):
        made._receive(first)
        made._store_row(first, None)
    assert made.is_complete is not arises, "the load may have been stopped before it was sent"
    if arises:
        made._store_row(record(1), None)
        assert made.is_complete


def test_workers_and_warm_up_follow_the_load_unless_given() -> None:
    assert (segment().workers, segment().warmup) == (1, 1)
    assert (segment(workers=3).workers, segment(workers=3).warmup) == (3, 1), "what warms up is of the load alone"
    assert segment(workers=3, warmup=0).warmup == 0


# --- a whole load


def run(made: Segment, script: Script = answered) -> Engine:
    with made_up(script) as engine:
        made.run()
    return engine


LABELS = CellLabels(
    model="m", suite="numbers", load="c=1", server_address="127.0.0.1", server_port=11434, operation="chat", label="x"
)  # fmt: skip


def test_the_load_is_what_the_options_ask_for() -> None:
    made = segment(range(2, 4), requests=4, workers=3, warmup=2, timeout=7.0, grace=1.5, concurrency=[5])
    engine = run(made)
    (given,) = engine.given
    assert given["warmup"] == warmup_requests(made.cell.config, 2, {})
    del given["warmup"]
    assert given == {
        "load": ClosedLoop(concurrency=5), "api": "ollama", "count": 2, "host": SERVER.address, "access": NO_ACCESS,
        "workers": 3,
        "timeouts": Timeouts.of(7.0), "grace_s": 1.5, "orders": made.orders, "readings": made.readings,
        "engine": "local", "cluster": None,
    }  # fmt: skip
    assert [request.index for request in engine.sent] == [2, 3], "what is missing, and nothing else"
    assert engine.sent == [request_of(NUMBERS[i], made.cell.config, i) for i in (2, 3)]


def test_second_turns_are_not_counted_among_those_to_be_sent() -> None:
    made = segment(range(4), suites=["turns"], requests=4)
    engine = run(made, lambda requests, *_: [record(request.index) for request in requests])
    assert (engine.given[0]["count"], [request.index for request in engine.sent]) == (2, [0, 2])


def test_a_load_bound_by_time_has_requests_without_end() -> None:
    def script(requests: Iterator[Request], _orders: Orders, _readings: Readings) -> Iterator[RequestRecord]:
        for _ in range(40):
            yield timed(next(requests).index)

    made = segment(None, requests=None, duration=4.0)
    engine = run(made, script)
    assert (engine.given[0]["count"], engine.given[0]["load"]) == (None, ClosedLoop(concurrency=1, duration_s=4.0))
    assert (len(parts(made).rows), made.rows, made.is_complete) == (40, 40, True)
    assert parts(made).said[-1].startswith("m numbers c=1: 40 requests, ")
    assert "done in" in parts(made).said[-1]


def test_rows_tell_run_segment_case_and_repeat() -> None:
    made = segment(range(16, 18), suites=["turns"], requests=18)
    run(made, these(record(16), record(17)))
    names = ("run_id", "config_hash", "segment", "request_index", "case_id", "repeat", "turn", "parent_index")
    assert [tuple(row[name] for name in names) for row in parts(made).rows] == [
        ("r", made.cell.config_hash, 1, 16, made.cases[0].id, 1, 1, None),
        ("r", made.cell.config_hash, 1, 17, made.cases[1].id, 1, 2, 16),
    ]


def test_the_whole_answer_is_scored() -> None:
    made = segment(range(2), suites=["tools"], requests=2)
    call = {"name": "get_weather", "arguments": {"city": "Oslo"}}
    run(made, these(replace(record(0), tool_calls=(call,), output_text="so", done_reason="length"), record(1)))
    assert parts(made).answers == [Answer("so", (call,), "length"), Answer("7", (), "stop")]
    assert [row["outcome"] for row in parts(made).rows] == ["correct", "no_call"]


def test_people_see_how_far_it_is_and_how_it_ended() -> None:
    def script(requests: Iterator[Request], _orders: Orders, readings: Readings) -> Iterator[RequestRecord]:
        for request in requests:
            readings.in_flight = 8 - request.index
            yield timed(request.index, "http" if request.index == 6 else None)

    made = segment(range(5, 8), requests=8)
    run(made, script)
    said = parts(made).said
    assert any("m numbers c=1: 7/8 requests" in line and "2 in flight" in line for line in said)
    assert said[-1].startswith("m numbers c=1: 8/8 requests, ")
    assert "100 % correct, 1 error, done in " in said[-1]
    stopped = segment(range(5, 8), requests=8)
    run(stopped, these(timed(5)))
    assert parts(stopped).said[-1].startswith("m numbers c=1: 6/8 requests, ")
    assert "stopped after" in parts(stopped).said[-1]


def test_a_load_lasts_from_the_common_start_to_the_last_that_ended() -> None:
    dropped = timed(4, "dropped", sent_ns=None, end_ns=None)
    late, early = timed(1, end_ns=BEGAN_NS + 9 * NS // 2), timed(2, end_ns=BEGAN_NS + 2 * NS)
    for records in [(late, early), (early, late), (dropped, late, early), (early, late, dropped)]:
        made = segment(range(5), requests=5)
        run(made, these(*records))
        assert made.duration_s == 4.5
    made = segment(range(5), requests=5)
    run(made, these(dropped))
    assert made.duration_s is None, "nothing ended"
    made.last_ns, made.readings.started_ns = 7, None
    assert made.duration_s is None, "nothing began"


def test_a_load_that_cannot_go_on_is_a_failure() -> None:
    def script(requests: Iterator[Request], _orders: Orders, _readings: Readings) -> Iterator[RequestRecord]:
        yield timed(next(requests).index)
        raise LoadFailed("worker processes died 6 times in a row")

    made = segment()
    run(made, script)
    assert made.failure == "m numbers c=1: worker processes died 6 times in a row"
    assert (made.rows, made.is_complete) == (1, False)
    assert "stopped after" in parts(made).said[-1]


def test_the_end_waits_for_scores_unless_it_is_to_hurry() -> None:
    patient, hurried = segment(), segment()
    parts(patient).busy = parts(hurried).busy = 3
    run(patient)
    assert (len(parts(patient).patience), patient.rows, patient.is_complete) == (4, 3, True)
    assert parts(patient).hastened == 1, "what has a row is stored meanwhile"
    assert max(parts(patient).patience) <= 3, "so long a second Ctrl-C may wait"
    hurried.orders.hurry = True
    run(hurried)
    assert (len(parts(hurried).patience), hurried.rows, hurried.is_complete) == (1, 0, False)


@pytest.mark.parametrize("alive", [True, False])
def test_at_the_end_the_server_is_looked_for_only_where_the_last_found_none(server: Away, alive: bool) -> None:
    server.answers = alive
    back = segment()
    run(back, these(timed(0, "connect"), timed(1), timed(2, "http")))
    assert (server.asked, back.failure, back.paused) == (0, None, False)
    gone = segment()
    run(gone, these(timed(0), timed(1, "connect"), timed(2, "connect")))
    assert (server.asked, gone.paused) == (1, not alive)
    over = segment(requests=None, missing=None, duration=3.0)
    run(over, these(timed(0), timed(1, "connect")))
    assert (server.asked, over.paused) == (1, False), "its time was up"
    failed = segment(max_error_rate=0.0)
    run(failed, these(timed(0, "http"), timed(1, "connect")))
    assert server.asked == 1, "one failure is enough"


@pytest.mark.parametrize(
    ("given", "missing", "fails"),
    [
        ({"requests": 30}, range(30), False),
        ({"requests": 30, "duration": 9.0}, range(30), True),
        ({"requests": None, "duration": 9.0}, None, True),
    ],
    ids=["stopped early", "time was up", "no number"],
)  # fmt: skip
def test_errors_are_a_share_of_what_was_planned_or_of_what_time_allowed(given: Any, missing: Any, fails: bool) -> None:
    made = segment(missing, max_error_rate=0.2, **given)
    run(made, these(timed(0), timed(1, "http"), timed(2)))
    assert made.failure == (
        "m numbers c=1: 1 of 3 requests failed, more than --max-error-rate 0.2 allows" if fails else None
    )


def test_errors_of_earlier_segments_count() -> None:
    made = segment(range(8, 10), requests=10, max_error_rate=0.2)
    made.errors = 2
    run(made, these(timed(8), timed(9)))
    assert (made.failure, made.is_complete) == (None, True)
    run(made, these(timed(8, "http")))
    assert made.failure is not None
    assert "3 of 10 requests failed" in made.failure


def test_the_first_failure_is_the_one_that_is_told() -> None:
    made = segment(requests=3, max_error_rate=0.5)
    run(made, these(timed(0, "http"), timed(1, "http"), timed(2, "http")))
    assert made.failure is not None
    assert "2 of 3 requests failed" in made.failure


@pytest.mark.parametrize("spans", [True, False])
def test_a_run_is_complete_without_the_turns_that_never_arise(spans: bool) -> None:
    made = segment(range(5), suites=["turns"], requests=5)
    parts(made).telemetry = Shown(wants_requests=spans)
    call = {"name": "get_weather", "arguments": {}}
    called = replace(record(2), tool_calls=(call,), following=Request(index=3, model="m"))
    # The first calls nothing, and the second turn of the last was not planned.
    run(made, these(record(0), called, record(3), record(4)))
    assert (made.rows, made.expected, made.is_complete) == (4, 4, True)
    assert made.following == {}
    failed = segment(range(4), suites=["turns"], requests=4)
    run(failed, these(record(0, "http"), called, record(3)))
    assert failed.is_complete, "nothing follows a failure"


# --- what others see of it


def test_what_is_shown_of_a_load() -> None:
    def script(requests: Iterator[Request], _orders: Orders, readings: Readings) -> Iterator[RequestRecord]:
        for request in requests:
            readings.in_flight = 10 + request.index
            yield timed(request.index, "http" if request.index == 1 else None)

    made = segment(range(1, 4), requests=4, label="x")
    parts(made).telemetry = shown = Shown(wants_requests=True)
    engine = run(made, script)
    assert shown.begun == [(LABELS, "r", 3)]
    first, second, third = engine.sent
    assert shown.observed == {
        1: (LABELS, None, first, "numbers-1"), 2: (LABELS, "correct", second, "numbers-2"),
        3: (LABELS, "correct", third, "numbers-3"),
    }  # fmt: skip
    assert (shown.values[1], shown.values[2]) == ({}, {"structbench.accuracy": 1.0})
    assert {(LABELS, n) for n in (11, 12, 13)} <= set(shown.flying)


def test_without_spans_no_request_is_made_again_and_a_load_bound_by_time_plans_no_number() -> None:
    made = segment(None, requests=None, duration=1.0, label="x")
    parts(made).telemetry = shown = Shown()
    run(made, these(timed(0)))
    assert shown.begun == [(LABELS, "r", None)]
    assert [request for _, _, request, _ in shown.observed.values()] == [None]


def test_the_scores_of_an_answer_are_shown() -> None:
    made = segment(range(1), suites=["json"], requests=1)
    parts(made).telemetry = shown = Shown()
    run(made, these(replace(record(0), output_text='{"name": 1}')))
    ((_, outcome, _, _),) = shown.observed.values()
    (row,) = parts(made).rows
    assert outcome == "schema_violation"
    assert shown.values[0] == {
        "structbench.accuracy": row["accuracy_score"], "structbench.json_valid": True, "structbench.schema_valid": False
    }  # fmt: skip


def test_the_endpoint_is_told_by_the_conventions_word() -> None:
    assert segment(endpoint="generate").labels.operation == "text_completion"
    assert segment(endpoint="generate").labels == replace(LABELS, operation="text_completion", label=None)
    assert segment().labels.operation == "chat"


@pytest.mark.parametrize("with_telemetry", [True, False])
def test_each_second_is_kept_and_shown_with_the_verdict_so_far(
    monkeypatch: pytest.MonkeyPatch, with_telemetry: bool
) -> None:
    monkeypatch.setattr(sampler, "PERIOD_S", 0.005)
    made = segment(label="x")
    shown = Shown()
    if with_telemetry:
        parts(made).telemetry = shown
    early: list[tuple[CellLabels, str]] = []

    def wait_for_a_sample() -> None:
        before = len(parts(made).samples)
        while len(parts(made).samples) < before + 2:
            time.sleep(0.002)

    def script(_requests: Iterator[Request], _orders: Orders, _readings: Readings) -> Iterator[RequestRecord]:
        wait_for_a_sample()
        early.extend(shown.verdicts)
        yield timed(0, clock="read", sent_off_ns=None, chunk_early_ns=None)
        wait_for_a_sample()

    run(made, script)
    kept = parts(made).samples
    assert {(row["run_id"], row["segment"], row["store_backlog"]) for row in kept} == {("r", 1, 7)}
    assert early == [], "no verdict on nothing"
    if with_telemetry:
        assert set(shown.verdicts) == {(LABELS, "degraded")}
        assert shown.samples == [
            (LABELS, {**{name: value for name, value in row.items() if name not in ("run_id", "segment")},
                      "client_cpu_cores": row["client_cpu_percent"] / 100})
            for row in kept
        ]  # fmt: skip


# --- ended early


def watched(missing: range | None = range(10), **given: Any) -> Segment:
    made = segment(missing, **{"requests": 10, "abort_on_slo": True, **given})
    planned = PlannedCell(made.cell, None, missing, "new", "")
    made.watch = abort_watch(parts(made).settings, planned, lambda *_: [])

    # Scores at once, so that what is known of an answer does not depend on how quickly they come.
    def submit(key: Any, case: Case, answer: Answer) -> None:
        made.scored(key[1], judged(case, answer))

    parts(made).submit = submit  # type: ignore[method-assign]
    return made


def since(seconds: float, *records: RequestRecord) -> Script:
    """The records of a load that began so long ago, until it is stopped."""

    def script(_requests: Iterator[Request], orders: Orders, readings: Readings) -> Iterator[RequestRecord]:
        readings.started_ns = time.monotonic_ns() - round(seconds * NS)
        for each in records:
            if orders.stop:
                return
            yield each

    return script


SLOW = [timed(i, chunk_ns=(timed(i).end_ns,)) for i in range(10)]
PROSE = [replace(timed(i), output_text="no JSON") for i in range(10)]
JSON = [replace(timed(i), output_text="{}") for i in range(10)]
GOOD = [timed(i) for i in range(10)]


@pytest.mark.parametrize(
    ("given", "records", "sent"),
    [
        ({"slo": ["goodput>=0.0075"], "goodput": "ttft<0.06"}, GOOD, 10),
        ({"slo": ["goodput>=0.0075"], "goodput": "ttft<0.06"}, SLOW, 3),
        ({"slo": ["correct_goodput>=0.0075"], "goodput": "ttft<0.06"}, SLOW, 3),
        ({"slo": ["goodput>=0.0075"], "goodput": "ttft<0.2"}, SLOW, 10),
        ({"slo": ["requests_per_s>=0.0075"]}, GOOD, 10),
        ({"slo": ["requests_per_s>=0.0075"]}, [timed(i, "http") for i in range(10)], 3),
        ({"slo": ["requests_per_s>=0.02"]}, GOOD, 1),
        ({"slo": ["json_valid>=75%"], "suites": ["json"]}, PROSE, 3),
        ({"slo": ["json_valid>=75%"], "suites": ["json"]}, JSON, 10),
        ({"slo": ["schema_valid>=75%"], "suites": ["json"]}, JSON, 3),
        ({"slo": ["ttft_p50<0.06"]}, SLOW, 6),
        ({"slo": ["ttft_p50<0.06"]}, GOOD, 10),
    ],
)  # fmt: skip
def test_a_load_ends_when_an_slo_is_certain_to_fail_and_not_before(
    given: Any, records: list[RequestRecord], sent: int
) -> None:
    """Ten requests, the load began 1000 s ago: of a rate, 0.0075/s can be reached until three are lost."""
    made = watched(**given)
    run(made, since(1000, *records))
    assert len(parts(made).rows) == sent
    assert (made.orders.stop, made.is_complete) == (sent < 10, sent == 10)
    assert made.orders.hurry is False, "what is in flight may end"
    ended = [line for line in parts(made).said if "ended early" in line]
    assert ended == ([f"m {made.cell.suite_name} c=1: ended early: {given['slo'][0]} can no longer be met"]
                     if sent < 10 else [])  # fmt: skip


def test_a_rate_that_can_still_be_reached_does_not_end_a_load_that_has_just_begun() -> None:
    """What a clock shows that counts from the machine's start is not how long the load has lasted."""
    uptime_s = time.monotonic()
    made = watched(slo=[f"requests_per_s>={11 / uptime_s}"])
    run(made, since(0, *GOOD))
    assert len(parts(made).rows) == 10


def test_every_lost_slo_is_named_once() -> None:
    made = watched(slo=["error_rate<=0", "ttft_p50<10", "requests_per_s>2"])
    run(made, since(1000, timed(0, "http")))
    # Two more were in flight when it was ended.
    made._store_row(timed(1), None)
    assert [line for line in parts(made).said if "ended early" in line] == [
        "m numbers c=1: ended early: error_rate<=0, requests_per_s>2 can no longer be met"
    ]


def test_an_slo_that_is_lost_before_the_common_start_is_none_that_ends_the_load() -> None:
    made = watched(slo=["requests_per_s>2"])
    made._store_row(timed(0), None)
    assert made.orders.stop is False


def test_a_load_that_has_sent_everything_is_not_ended_early() -> None:
    made = watched(slo=["correct>=99%"])
    parts(made).submit = Parts.submit.__get__(parts(made))  # type: ignore[method-assign]
    run(made, since(1000, *(replace(each, output_text="wrong") for each in GOOD)))
    assert (made.rows, made.orders.stop, made.is_complete) == (10, False, True)
    assert not any("ended early" in line for line in parts(made).said)


def test_a_load_bound_by_time_alone_is_not_ended_early() -> None:
    made = watched(None, slo=["correct>=99%"], requests=None, duration=9.0)
    run(made, since(1000, *(replace(each, output_text="wrong") for each in GOOD)))
    assert (made.rows, made.orders.stop, made.is_complete) == (10, False, True)


def test_a_case_is_stored_once_for_its_suite_and_again_for_a_file_that_takes_the_place_of_the_first() -> None:
    made = segment()
    for index in (0, 1, 0, 1):
        made._store_row(record(index), None)
    assert [row["case_id"] for row in parts(made).cases] == ["numbers-0", "numbers-1"]
    parts(made).file_number = 2
    for index in (1, 1):
        made._store_row(record(index), None)
    assert [row["case_id"] for row in parts(made).cases] == ["numbers-0", "numbers-1", "numbers-1"]


def full(index: int, status: int = 503) -> RequestRecord:
    return timed(index, "http", error=RequestError("http", "server busy", status))


def test_a_server_that_is_full_is_there_and_is_asked_now_and_then_only(server: Away) -> None:
    made = segment(missing=range(100), requests=100, max_error_rate=0.02)
    for index in range(3):
        made._receive(full(index))
    assert (server.asked, made.paused, made.answered) == (1, False, 0)
    assert made.failure is not None
    assert "3 of 100 requests failed" in made.failure
    busy = segment(missing=range(1000), requests=1000)
    for index in range(300):
        busy._receive(full(index))
        server.now_s += 0.01
    assert (server.asked, busy.paused, busy.failure) == (7, False, None), "every half second of three"
    busy._receive(timed(300))
    assert (busy.unheard, sum(busy.done)) == ([], 300), "what it refused is not sent again"


@pytest.mark.parametrize("status", [502, 503, 504])
def test_what_a_gateway_answered_in_the_place_of_a_server_that_was_away_is_sent_again(
    server: Away, status: int
) -> None:
    server.answers = False
    made = segment(missing=range(9), requests=9)
    run(made, these(timed(0), timed(1, "http"), *(full(index, status) for index in (2, 3, 4)), timed(5), full(6)))
    assert (made.paused, made.away_since_s, made.failure) == (True, 100.0, None)
    assert [index for index, done in enumerate(made.done) if done] == [0, 1, 5]
    assert (made.errors - made.lost, made.answered) == (1, 3)

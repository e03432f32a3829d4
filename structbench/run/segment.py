"""One segment: the load of one cell from its start to its end; each record becomes exactly one row."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from loadgen.api.server import Server
from loadgen.engine import LoadFailed, Orders, Readings, default_warmup, default_workers, generate_load
from loadgen.telemetry import CellLabels, Telemetry
from loadgen.types import NS, ClosedLoop, Request, RequestRecord, Timeouts
from structbench.errors import StructbenchError
from structbench.formatting import plural
from structbench.gates.abort import AbortWatch
from structbench.metrics import observed
from structbench.results.wrong_answers import asked_of
from structbench.run.budget import TokenBudget
from structbench.run.cells import Cell
from structbench.run.display import Display
from structbench.run.progress import Progress
from structbench.run.sampler import Sampler
from structbench.run.settings import Settings
from structbench.run.settling import Settling
from structbench.scoring import Answer
from structbench.scoring.answer import answer_text
from structbench.scoring.process import Scorer
from structbench.store import Store, row_of
from structbench.store.lookup import SENT_AGAIN
from structbench.suites.requests import (
    asked_output,
    asked_tokens,
    case_of,
    first_turns,
    request_of,
    requests_of,
    warmup_requests,
)
from structbench.types import Case, Score
from structbench.verdict import VerdictSoFar

_LOST_AFTER = 3
"""Requests in a row that found nobody after which to check whether the server is still there."""
_ASKED_EVERY_S = 0.5
"""For how long that is taken to be known: a server that is full refuses hundreds of requests a second."""
_HURRIED_DRAIN_S = 3.0


@dataclass(frozen=True, slots=True)
class Services:
    """What all segments of one load share."""

    settings: Settings
    store: Store
    telemetry: Telemetry | None
    scorer: Scorer
    display: Display
    budget: TokenBudget | None = None
    kept_cases: dict[tuple[int | None, str], bytearray] = field(default_factory=dict)
    """The database's file number and the suite's hash -> by a case's place, whether it is stored."""


def gone(server: Server) -> str:
    return f"the server at {server.address} no longer answers: start it again and continue with --skip-cached"


def labels_of(cell: Cell, label: str | None) -> CellLabels:
    """Return the labels of a cell's metrics."""
    return CellLabels(
        model=cell.model, suite=cell.suite_name, load=cell.setting, provider=cell.server.api.PROVIDER,
        server_address=cell.server.host, server_port=cell.server.port,
        operation="chat" if cell.config.endpoint == "chat" else "text_completion", label=label,
    )  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Segment:
    """What one segment has to send, and its state so far."""

    services: Services
    cell: Cell
    cases: Sequence[Case]
    run_id: str
    number: int
    missing: Sequence[int] | None
    orders: Orders = field(default_factory=Orders)
    readings: Readings = field(default_factory=Readings)
    failure: str | None = None
    """Why the load was given up, if it was."""
    last_ns: int | None = None
    rows: int = 0
    """Requests that have a row, in the database or on the way to it."""
    loading: Mapping[str, Any] = field(default_factory=dict)
    """The options with which the model was loaded, beside those of the config."""
    watch: AbortWatch | None = None
    """SLOs that end the load once they are certain to fail."""
    errors: int = 0
    """Failed requests of the run, those of earlier segments included."""
    lost: int = 0
    """Those of them, of this segment, that a later one sends again."""
    expected: int | None = field(init=False)
    """Rows that make it complete: first turns, and each second one as it arises; None where time bounds the load."""
    following: dict[int, Request] = field(default_factory=dict)
    """Second turns in flight, kept for spans that include what was sent."""
    cancelled: bool = False
    """Whether a request was cancelled and has to be sent again."""
    unheard: list[int] = field(default_factory=list)
    """Indices of those that found nobody since the last one that was answered."""
    ask_again_s: float = 0.0
    """When (``time.monotonic``) to ask a server again that was found to be there."""
    away_since_s: float | None = None
    """Since when (``time.monotonic``) the server does not answer."""
    paused: bool = False
    """Whether a closed loop has ended because the server is away, and goes on in another segment once it is back."""
    answered: int = 0
    """Requests that reached the server: all but those that found nobody, were cancelled or died with a worker."""
    done: bytearray = field(init=False)
    """By index, whether it need not be sent again, where the number of requests is planned."""
    first_index: int = 0
    """Where a load that only time bounds begins."""
    highest: int = -1
    counting: threading.Lock = field(default_factory=threading.Lock)
    progress: Progress = field(init=False)
    labels: CellLabels = field(init=False)
    settling: Settling | None = None
    """What ends it once its rule is decided."""
    received: int = 0
    """Requests that ended."""
    out_of_tokens: bool = False
    """Whether --max-tokens-total ended the load."""
    told_senders: bool = False
    so_far: VerdictSoFar = field(default_factory=VerdictSoFar)

    def __post_init__(self) -> None:
        self.expected = None if self.missing is None else first_turns(self.cases, self.missing)
        self.done = bytearray(self.cell.requests or 0)
        self.labels = labels_of(self.cell, self.services.settings.label)

    def run(self) -> None:
        """Send everything, receive every record, wait for the scores."""
        if self.services.telemetry is not None:
            planned_now = None if self.missing is None else len(self.missing)
            self.services.telemetry.begin(self.labels, self.run_id, planned_now)
        planned = self.cell.requests
        already = max(0, (planned or 0) - len(self.missing or ()))
        display, bound_s = self.services.display, self.cell.load.duration_s
        if self.settling is not None:
            planned, already, bound_s = None, 0, self.settling.most_s
            self.settling.begin(self.orders)
        self.progress = display.begin(self.cell.name, planned, bound_s, already, at_most=self.settling is not None)
        store, cell = self.services.store, self.cell
        with Sampler(cell.server, cell.model, self.readings, lambda: store.backlog, self._store_sample, self._refresh):
            try:
                for record in self._load():
                    self._receive(record)
                    self._refresh()
            except LoadFailed as error:
                self.failure = f"{self.cell.name}: {error}"
        self._end_out_of_tokens()
        store.hasten()  # while the last answers are scored
        while not self.services.scorer.drain(_HURRIED_DRAIN_S):
            if self.orders.hurry:
                break  # what has no row yet counts as missing, and can be continued
        if self.unheard and self.failure is None and not self.is_out_of_time:
            self._is_there()
        if self.paused:
            self._leave_open()
        else:
            self._judge_share(self.rows if planned is None or self.cell.load.duration_s is not None else planned)
        display.end(self.is_complete)

    @property
    def is_complete(self) -> bool:
        """Whether every request has its row or the time was up; a stop after that changes nothing."""
        if self.failure is not None or self.cancelled or self.paused:
            return False
        if self.rows == self.expected or (self.orders.enough and self.rows == self.received):
            return True
        left_s = self.left_s
        return left_s is not None and (self.readings.stopped_ns is None or left_s <= 0)

    @property
    def left_s(self) -> float | None:
        """Seconds that the duration still had when the load was stopped, or has now; None without one or a start."""
        duration_s, started_ns = self.cell.load.duration_s, self.readings.started_ns
        if duration_s is None or started_ns is None:
            return None
        stopped_ns = self.readings.stopped_ns
        return duration_s - ((time.monotonic_ns() if stopped_ns is None else stopped_ns) - started_ns) / NS

    @property
    def is_out_of_time(self) -> bool:
        return self.left_s is not None and self.left_s <= 0

    @property
    def workers(self) -> int:
        chosen = self.services.settings.workers
        return default_workers(self.cell.load) if chosen is None else chosen

    @property
    def warmup(self) -> int:
        chosen = self.services.settings.warmup
        return default_warmup(self.cell.load) if chosen is None else chosen

    @property
    def senders(self) -> Mapping[str, int]:
        """Columns of ``segments`` that are known once all that sends is ready; none before."""
        nodes, workers = len(self.readings.nodes), self.readings.workers
        return {**({"nodes": nodes} if nodes else {}), **({"workers": workers} if workers else {})}

    @property
    def duration_s(self) -> float | None:
        """Seconds from the common start to the last record."""
        started_ns = self.readings.started_ns
        return None if started_ns is None or self.last_ns is None else (self.last_ns - started_ns) / NS

    def _load(self) -> Any:
        indices = count(self.first_index) if self.missing is None else self.missing
        requests = requests_of(self.cases, self.cell.config, indices, self.cell.requests)
        warmup = warmup_requests(self.cell.config, self.warmup, self.loading)
        if (budget := self.services.budget) is not None:
            budget.begin()
            budget.spend(warmup)
        return generate_load(
            requests if budget is None else budget.admit(requests),
            self.cell.load,
            count=self.expected,
            api=self.cell.server.api_name,
            host=self.cell.server.address,
            access=self.cell.server.access,
            workers=self.services.settings.workers,
            warmup=warmup,
            timeouts=Timeouts.of(self.services.settings.timeout_s),
            grace_s=self.services.settings.grace_s,
            orders=self.orders,
            readings=self.readings,
            engine=self.services.settings.engine,
            cluster=self.services.settings.cluster,
        )

    def _receive(self, record: RequestRecord) -> None:
        self.received += 1
        self.progress.add(record)
        self.so_far.add(record)
        if self.services.budget is not None:
            self.services.budget.settle(record)
        if record.end_ns is not None and (self.last_ns is None or record.end_ns > self.last_ns):
            self.last_ns = record.end_ns
        case, _ = case_of(self.cases, record.index)
        if record.following is not None:
            self._expect(record.following)
        if record.failed or case.kind == "text":
            self._store_row(record, None)
        else:
            failure = None if record.error is None else record.error.kind
            text = answer_text(self.cell.config.structured, record.output_text, record.tool_calls)
            answer = Answer(text, record.tool_calls, record.done_reason, failure)
            self.services.scorer.submit((self, record), case, answer)
        self._judge_errors(record)

    def _end_out_of_tokens(self) -> None:
        """Say so if the load ended because the budget has no room for another request."""
        budget = self.services.budget
        if budget is None or not self.readings.ran_dry or self.orders.stop:
            return
        self.out_of_tokens = budget.spent = True
        self.failure = self.failure or (
            f"{self.cell.name}: ended before another request could pass --max-tokens-total {budget.limit:,} "
            f"(used: {budget.used:,})"
        )

    def _expect(self, following: Request) -> None:
        """Await the row of a second turn; keep, for its span, what is sent."""
        if self.expected is not None:
            self.expected += 1
        if self.services.telemetry is not None and self.services.telemetry.wants_requests:
            self.following[following.index] = following

    def scored(self, record: RequestRecord, score: Score | None) -> None:
        """Store a scored record; the scorer's thread calls this."""
        self.progress.add_score(score)
        try:
            self._store_row(record, score)
        except StructbenchError as error:  # rows cannot be written: end at once
            self._give_up(str(error))
            raise

    def _keep_case(self, case: Case, place: int) -> None:
        """Store what the case asks, once for its suite; a text's prompt is made up for the run, and not kept."""
        suite_hash = self.cell.suite.content_hash
        kept = self.services.kept_cases.setdefault((self.services.store.file_number, suite_hash), bytearray())
        if case.kind == "text" or (place < len(kept) and kept[place]):
            return
        kept.extend(bytes(max(0, place + 1 - len(kept))))
        kept[place] = True
        asked = json.dumps(asked_of(case), ensure_ascii=False)
        self.services.store.append("cases", {"suite_hash": suite_hash, "case_id": case.id, "asked": asked})

    def _store_row(self, record: RequestRecord, score: Score | None) -> None:
        case, repeat = case_of(self.cases, record.index)
        asked = asked_tokens(case), asked_output(case, self.cell.config)
        row = row_of(self.run_id, self.cell.config_hash, self.number, case.id, repeat, record, score, case.turn, *asked)
        self._keep_case(case, record.index % len(self.cases))
        self.services.store.append("requests", row)
        self._observe(record, score, case)
        with self.counting:
            self.rows += 1
            self.highest = max(self.highest, record.index)
            if record.error is None or record.error.kind not in SENT_AGAIN:
                self.answered += record.error is None or not record.error.nobody_there
                if record.index < len(self.done):
                    self.done[record.index] = True
            if self.settling is not None:
                self.settling.note(row)
            if self.watch is not None:
                self.watch.add(row)
                self._end_if_lost(self.watch)

    def _end_if_lost(self, watch: AbortWatch) -> None:
        """Send nothing more once an SLO cannot be met, if anything is left to send; let what is in flight end."""
        started_ns, unsent = self.readings.started_ns, self.missing is None or self.progress.done < len(self.missing)
        elapsed_s = None if started_ns is None else (time.monotonic_ns() - started_ns) / NS
        if self.orders.stop or not unsent or not (broken := watch.broken(elapsed_s)):
            return
        self.orders.stop = True
        slos = ", ".join(slo.text for slo in broken)
        self._say(f"ended early: {slos} can no longer be met")

    def _observe(self, record: RequestRecord, score: Score | None, case: Case) -> None:
        telemetry = self.services.telemetry
        if telemetry is None:
            return
        outcome = None if score is None else score.outcome
        request = self._request(record.index, case) if telemetry.wants_requests else None
        telemetry.observe(record, self.labels, outcome, observed(record, score), request, case.id)

    def _request(self, index: int, case: Case) -> Request:
        """Return what was sent; without messages for a second turn whose first is not known."""
        if not case.follows:
            return request_of(case, self.cell.config, index, self.cell.requests)
        if (following := self.following.pop(index, None)) is not None:
            return following
        first, _ = case_of(self.cases, index - 1)
        sent = request_of(first, self.cell.config, index - 1, self.cell.requests)
        return replace(sent, index=index, messages=(), tool_results=None)

    def _store_sample(self, sample: Mapping[str, Any]) -> None:
        try:
            self.services.store.append("samples", {"run_id": self.run_id, "segment": self.number, **sample})
        except StructbenchError as error:
            self._give_up(str(error))
        if self.services.telemetry is not None:
            cores = sample["client_cpu_percent"] / 100
            self.services.telemetry.sample(self.labels, {**sample, "client_cpu_cores": cores})
            verdict = self.so_far.verdict()
            if verdict is not None:
                self.services.telemetry.verdict(self.labels, verdict.word)

    def _say_who_sends(self) -> None:
        """Say how many workers were chosen, where it could have been another number."""
        many, load = self.readings.workers, self.cell.load
        if self.services.settings.workers is not None or not isinstance(load, ClosedLoop):
            return
        nodes = len(self.readings.nodes)
        if max(many, self.workers, nodes) > 1:
            on = f" on {plural(nodes, 'node')}" if nodes else ""
            rate = self.readings.stream_tokens_per_s
            seen = "of unknown speed" if rate is None else f"of {rate:,.0f} tokens/s each in the warm-up"
            self._say(f"{plural(many, 'worker')}{on} for {plural(load.concurrency, 'stream')} {seen} (--workers)")

    def _refresh(self) -> None:
        if not self.told_senders and self.readings.workers:
            self.told_senders = True
            self._say_who_sends()
        if self.settling is not None:
            self.settling.watch_time()
        self.services.display.refresh(self.readings.in_flight)
        if self.services.telemetry is not None:
            self.services.telemetry.in_flight(self.labels, self.readings.in_flight)

    def _judge_errors(self, record: RequestRecord) -> None:
        """Give up the load if the server is gone, or if it is certain that too many requests fail."""
        if record.error is None or not record.failed:
            if not self.paused:
                self.unheard.clear()
            if self.away_since_s is not None and not self.paused:
                self._say_it_is_back()
            return
        if record.error.kind == "cancelled":
            self.cancelled = True
            return
        self.errors += 1
        self.lost += record.error.kind in SENT_AGAIN
        if record.error.nobody_there:
            self.unheard.append(record.index)
            is_early = len(self.unheard) < _LOST_AFTER or time.monotonic() < self.ask_again_s
            if is_early or not self._is_there():
                return  # judged later: a closed loop that pauses sends these again
        if self.cell.requests is not None:
            self._judge_share(self.cell.requests)

    def _judge_share(self, requests: int) -> None:
        limit = self.services.settings.max_error_rate
        if self.errors > limit * requests:
            self._give_up(f"{self.errors} of {requests} requests failed, more than --max-error-rate {limit:g} allows")

    def _leave_open(self) -> None:
        """Have what found nobody before the pause sent again, also where a gateway answered in the server's place."""
        for index in self.unheard:
            if index < len(self.done) and self.done[index]:
                self.done[index] = False
                self.lost += 1

    def _is_there(self) -> bool:
        """Ask the server; while it is not there, a closed loop pauses, and an open one records what is due."""
        server, patience_s = self.cell.server, self.services.settings.patience_s
        if self.orders.stop:
            return False
        if server.api.answers(server.address, server.access):
            self.ask_again_s = time.monotonic() + _ASKED_EVERY_S
            return True
        first = self.away_since_s is None
        self.away_since_s = self.away_since_s or time.monotonic()
        if time.monotonic() - self.away_since_s >= patience_s:
            self._give_up(gone(server))
        elif isinstance(self.cell.load, ClosedLoop):
            self.paused = self.orders.stop = True
        elif first:
            self._say(f"the server at {server.address} does not answer: what is due for {patience_s:g} s is recorded "
                      "as failed (--patience)")  # fmt: skip
        return False

    def _say_it_is_back(self) -> None:
        assert self.away_since_s is not None
        self._say(f"the server answers again, after {time.monotonic() - self.away_since_s:.1f} s")
        self.away_since_s = None

    def _say(self, what: str) -> None:
        self.services.display.print(f"{self.cell.name}: {what}")

    def _give_up(self, why: str) -> None:
        if self.failure is None:
            self.failure = f"{self.cell.name}: {why}"
            self.orders.stop = self.orders.hurry = True

"""The run loop: cells -> skip or resume -> load -> score -> store -> summary.

A run is marked complete only when every planned request has its row (or its time was up), so that others are continued.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Literal

from loadgen.api.server import LoadedModel, ModelDetails, Server, ServerError
from loadgen.engine import started_ahead
from loadgen.telemetry import CacheResult, CellState
from loadgen.types import ClosedLoop
from loadgen.wire.deadline import together
from structbench import __version__
from structbench.calibration import kept as calibrated_machine
from structbench.comparison import constrained
from structbench.comparison.constrained import print_pairs
from structbench.errors import GATE_FAILED, BadInput
from structbench.formatting import plural, printed
from structbench.gates.abort import AbortWatch
from structbench.gates.junit import junit_xml
from structbench.gates.next_command import Settles, settles_of
from structbench.gates.slo import CellResult, Gate, judge_all
from structbench.notes import stored_notes
from structbench.output import say, write_output
from structbench.reports.brief import print_answer, print_brief
from structbench.reports.document import Document, document_of
from structbench.reports.frames import as_html, frame
from structbench.reports.headline import settling
from structbench.reports.summary import print_overview, print_table, runs_text, with_servers
from structbench.results.failures import failures_of
from structbench.results.measures import Query
from structbench.run.budget import TokenBudget
from structbench.run.cells import (
    Cell,
    build_cells,
    keyword_warnings,
    loading_options,
    reload_warning,
    unreached_warning,
    words_of,
)
from structbench.run.cluster import join_cluster, node_rows
from structbench.run.display import Display
from structbench.run.hardware import hardware, is_here, read_ahead
from structbench.run.plan import (
    CacheState,
    PlannedCell,
    bound_s,
    check_unlisted,
    estimate,
    explain,
    find_servers,
    open_telemetry,
    plan,
    pull_missing,
    who_is_it,
    who_sends,
    with_models,
)
from structbench.run.segment import Segment, Services, gone, labels_of
from structbench.run.settings import Settings
from structbench.run.settling import OPENINGS, Settling, column_of, look_at
from structbench.run.similarity import Embeddings, score_similarity
from structbench.scoring.process import Scorer
from structbench.steadiness import opening_size
from structbench.store import Store, StoredRun, run_columns, storing
from structbench.store.ending import ending_of
from structbench.suites.catalog import cases_of_run
from structbench.suites.generated import calibrate, calibration_prompts, word_count
from structbench.suites.requests import case_of, whole_conversations
from structbench.types import Case

if TYPE_CHECKING:
    import pandas
    from rich.console import Console

_FLUSH_S = 60.0
_POLL_S = 0.1
_MANY_ROWS = 20_000
"""Rows whose way into the database takes seconds."""
_TEXT_WIDTH = 120
_REQUEST_ROWS = "SELECT * EXCLUDE (chunk_offsets_us, output_text, thinking_text) FROM requests WHERE run_id = $1"
_CACHE_RESULT: Mapping[CacheState, CacheResult] = {"skipped": "hit", "resumed": "partial", "new": "miss"}


class Stop:
    """Stop a load: asked once, after what is in flight; asked twice, at once. ``ask`` may be a signal handler.

    It says what is waited for, unless nothing is.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.say: Callable[[str], None] | None = None
        self._segment: Segment | None = None
        self._interruptible = False

    def ask(self) -> None:
        self.asked += 1
        self._pass_on()
        if self.say is not None and not self._interruptible and self.asked <= 2:
            # Not here: the signal may have come while this thread was printing.
            Thread(target=self.say, args=[self._what_now()]).start()
        if self._interruptible or self.asked > 2:
            raise KeyboardInterrupt

    @contextmanager
    def watching(self, segment: Segment) -> Iterator[None]:
        self._segment = segment
        self._pass_on()
        try:
            yield
        finally:
            self._segment = None

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let ``ask`` raise KeyboardInterrupt during work that can be interrupted without loss."""
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _what_now(self) -> str:
        in_flight = 0 if self._segment is None else self._segment.readings.in_flight
        if self._segment is None or not in_flight:
            again = "twice more" if self.asked == 1 else "again"
            return f"stopping: what has come is stored and judged; {again}: stop now"
        if self.asked > 1:
            return "stopping now: what is in flight is cancelled"
        requests, grace_s = plural(in_flight, "request"), self._segment.services.settings.grace_s
        return f"stopping: {requests} in flight may take {grace_s:g} s to finish (--grace); again: stop now"

    def _pass_on(self) -> None:
        if self._segment is not None and self.asked:
            self._segment.orders.stop = True
            self._segment.orders.hurry = self.asked > 1


@dataclass(slots=True)
class Summary:
    """The result of one load; ``rows`` are those of the store's view ``summary``, one per cell."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)
    """With ``dry_run`` or ``explain``, a line for each cell; nothing was sent."""
    pairs: list[dict[str, Any]] = field(default_factory=list)
    """Comparisons of constrained with free, one for each two cells that differ in ``structured`` alone."""
    total_s: float = 0.0
    interrupted: bool = False
    failures: list[str] = field(default_factory=list)
    document: Document | None = None
    """The runs as a report, judged by the rule that was given; None where nothing ran."""
    outcomes: list[CellResult] = field(default_factory=list)
    """The result of each planned cell, with its --slo gates."""
    db: str = ""
    models: tuple[str, ...] = ()
    """The models that were measured, named or not."""

    settles: dict[str, Settles] = field(default_factory=dict)
    """Name of a cell whose rule (--slo, else the default) is not decided -> what would decide it."""

    @property
    def gates(self) -> list[Gate]:
        """The --slo gates of all cells."""
        return [gate for outcome in self.outcomes for gate in outcome.gates]

    @property
    def settling(self) -> list[str]:
        """What settles the cells that --slo leaves open, beside what the answer says of the best."""
        if self.document is None or not self.gates:
            return []
        open_besides = settling(self.settles.values(), self.document.headline.settled_by)
        return [f"not decided: {text}" for text in open_besides]

    @property
    def exit_code(self) -> int:
        """0: done; 1: failed; 99: an SLO was missed or could not be judged; 130: interrupted."""
        if self.interrupted:
            return 130
        if self.failures:
            return 1
        return GATE_FAILED if any(gate.is_missed for gate in self.gates) else 0

    def records(self, columns: str = "*") -> list[dict[str, Any]]:
        """Return the rows of ``requests`` of these runs, in order, from the database."""
        runs = [row["run_id"] for row in self.rows]
        if not runs:
            return []
        which = "WHERE run_id IN (SELECT unnest($1::VARCHAR[])) ORDER BY run_id, request_index"
        with Store(Path(self.db)) as store:
            return store.query(f"SELECT {columns} FROM requests {which}", [runs])

    def df(self, of: Literal["cells", "requests"] = "cells") -> pandas.DataFrame:
        """Return a data frame of ``rows``, or of the requests as ``records()`` has them, with their cell in front."""
        if of == "cells":
            return frame(self.rows)
        cells = {row["run_id"]: {key: row[key] for key in ("model", "suite", "load")} for row in self.rows}
        return frame([{**cells[record["run_id"]], **record} for record in self.records()])

    def __str__(self) -> str:
        return printed(partial(print_summary, self), _TEXT_WIDTH)

    def _repr_html_(self) -> str:
        return as_html(str(self))


def print_summary(summary: Summary, console: Console, *, wide: bool = False) -> None:
    """Print what was measured, ``wide`` with every figure, and the answer; or the cells that were planned."""
    for line in summary.planned:
        say(line, console.file)
    if summary.planned:
        return
    gates = [gate.line for gate in summary.gates]
    ran = f"{runs_text(summary.rows, summary.total_s)}; every request is in {summary.db}"
    document = summary.document
    if wide or document is None:
        print_table(summary.rows, console)
        print_pairs(summary.pairs, console)
        print_overview(summary.rows, console)
        for line in (*gates, ran):
            say(line, console.file)
    else:
        print_pairs(summary.pairs, console)
        warnings = dict.fromkeys(f"warning: {text}" for row in summary.rows for text in row.get("warnings") or ())
        if not console.is_terminal:  # a log, whose lines nobody has to find on two screens
            for line in gates:
                say(line, console.file)
            gates = []
        print_brief(document, console, more={"Limits": gates, "": [*warnings, ran]})
    if document is not None:
        print_answer(document, console)


def load(
    settings: Settings,
    *,
    display: Display | None = None,
    stop: Stop | None = None,
    report: Callable[[Summary], None] | None = None,
    opened: Callable[[], Store] | None = None,
) -> Summary:
    """Do what ``structbench load`` does: raise BadInput before anything is sent, or return a summary.

    ``report`` gets the summary before metrics are served for another ``settings.hold_s`` seconds. ``opened`` returns
    the store of several loads, which stays open; None: this load opens one and closes it.
    """
    began = monotonic()
    display = display or Display(quiet=True)
    stop = stop or Stop()
    stop.say = display.answer
    with ExitStack() as stack:
        for notice in _notices(settings):
            display.print(notice)
        if not (settings.dry_run or settings.explain):
            ahead = started_ahead(settings.engine, settings.loads[0], settings.workers, settings.api)
            stack.enter_context(ahead)
        with stop.interruptible():
            servers = find_servers(settings, stack)
            settings, chosen = with_models(settings, servers)
            placed = () if settings.dry_run else join_cluster(settings, servers, stack)
        if chosen is not None:
            display.print(chosen)
        if settings.dry_run or settings.explain:
            cells = build_cells(settings, servers)
            return Summary(planned=[*_plan_lines(settings, cells, _warnings(cells)), *placed], db=str(settings.db))
        for line in placed:
            display.print(line)
        read_ahead()
        telemetry = open_telemetry(settings.metrics_port, settings.metrics_host, settings.collector, stack)
        store = stack.enter_context(storing(settings.db, fsync=settings.fsync)) if opened is None else opened()
        with stop.interruptible():
            servers = [pull_missing(settings.wanted_models, server, display.print) for server in servers]
        cells = build_cells(settings, servers)
        planned = plan(settings, cells, store)
        for warning in _warnings([each.cell for each in planned if each.cache != "skipped"]):
            display.print(warning)
        is_scored = any(each.cell.config.scorer_version is not None for each in planned if each.cache != "skipped")
        scorer = stack.enter_context(Scorer(lambda key, score: key[0].scored(key[1], score), start_now=is_scored))
        budget = None if settings.max_tokens_total is None else TokenBudget(settings.max_tokens_total)
        services = Services(settings, store, telemetry, scorer, display, budget)
        runner = _Runner(services, stop)
        try:
            with display:
                summary = runner.run_all(planned)
        finally:
            runner.write_junit()
        summary.total_s = monotonic() - began
        if report is not None:
            report(summary)
        stop.say = None
        _hold(settings.hold_s, stop)
        return summary


def _notices(settings: Settings) -> list[str]:
    """Return what the user should know of the settings; of this machine only where it sends itself."""
    able = calibrated_machine.kept() if settings.cluster is None else None
    beyond = calibrated_machine.warning(settings.loads, able)
    return [*settings.notices, *([] if beyond is None else [beyond])]


def _warnings(cells: Sequence[Cell]) -> list[str]:
    found = [reload_warning(cell, cell.server.api.LOADING_OPTIONS) for cell in cells]
    found += dict.fromkeys(unreached_warning(cell) for cell in cells)
    found += dict.fromkeys(text for suite in {id(cell.suite): cell.suite for cell in cells}.values()
                           for text in keyword_warnings(suite))  # fmt: skip
    return [f"warning: {text}" for text in found if text is not None]


def _plan_lines(settings: Settings, cells: Sequence[Cell], warnings: list[str]) -> list[str]:
    """Return a line for each cell, and then the warnings; create no database for that."""
    if not settings.db.exists():
        why = f"{settings.db} does not exist yet"
        planned = [
            PlannedCell(cell, None, None if cell.requests is None else range(cell.requests), "new", why)
            for cell in cells
        ]
        lines = [f"{each.cell.name}: new: {each.why}" for each in planned]
        total = estimate(planned, None, settings)
    else:
        with Store(settings.db) as store:
            planned = plan(settings, cells, store)
            lines = [f"{p.cell.name}: {p.cache}: {explain(p, store) if settings.explain else p.why}" for p in planned]
            total = estimate(planned, store, settings)
    if settings.explain:
        lines.append(total)
        lines += dict.fromkeys(who_is_it(cell) for cell in cells)
        if settings.engine == "local":
            lines += dict.fromkeys(who_sends(cell, settings.workers) for cell in cells)
    return lines + warnings


def _hold(seconds: float, stop: Stop) -> None:
    end = monotonic() + seconds
    while monotonic() < end and not stop.asked:
        sleep(min(0.1, seconds))


@dataclass(slots=True)
class _Runner:
    services: Services
    stop: Stop
    summary: Summary = field(default_factory=Summary)
    calibration: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)
    states: Counter[CellState] = field(default_factory=Counter)
    gone: set[str] = field(default_factory=set)
    """Addresses of servers that no longer answer."""
    away_since_s: float = 0.0
    """Since when (``time.monotonic``) the server of this cell has answered no request, where it is away."""

    def run_all(self, planned: Sequence[PlannedCell]) -> Summary:
        """Run cell by cell; leave out those of a server that is gone, but go on after any other failure."""
        caches: dict[str, CacheState] = {}
        runs: list[tuple[Cell, str]] = []
        outcomes: dict[str, CellResult] = {}
        self.states["waiting"] = len(planned)
        todo = [each for each in planned if each.cache != "skipped"]
        with suppress(KeyboardInterrupt), self.stop.interruptible():
            check_unlisted([each.cell for each in todo])
        self.services.display.expect(
            [(None if each.missing is None else len(each.missing), bound_s(each.cell, self.services.settings))
             for each in todo],
            at_most=any(each.cell.until_settled for each in todo),
        )  # fmt: skip
        self.summary.outcomes = [CellResult(cell.cell.name) for cell in planned]
        self._judge()  # so that what ends early does not count as passed
        for cell, outcome in zip(planned, self.summary.outcomes, strict=True):
            if self.stop.asked or (self.services.budget is not None and self.services.budget.spent):
                break
            if self.summary.failures and not self._answers(cell.cell.server):
                continue
            run_id = _new_run_id() if cell.continued is None else cell.continued.run_id
            runs.append((cell.cell, run_id))
            outcomes[run_id] = outcome
            self._note_lookup(cell, run_id)
            if cell.notice is not None:
                self.services.display.print(f"{cell.cell.name}: {cell.notice}")
            if cell.cache == "skipped":
                self.services.display.print(f"{cell.cell.name}: skipped: {cell.why}")
                self._change_state("waiting", "skipped")
                self._keep_limits(run_id)
                caches[run_id] = cell.cache
            elif cell.continued is not None and not self.services.store.claim(cell.continued):
                what = f"skipped: another process is now continuing run {run_id}"
                self.services.display.print(f"{cell.cell.name}: {what}")
                self._change_state("waiting", "skipped")
            elif self._run_cell(cell, run_id):
                caches[run_id] = cell.cache
        self._summarize(runs, caches, outcomes)
        for each, outcome in zip(planned, self.summary.outcomes, strict=True):
            words = words_of(self.services.settings, each.cell)
            if (settles := settles_of(outcome.rule, outcome.row, words, self.services.settings.db)) is not None:
                self.summary.settles[outcome.cell] = settles
        return self.summary

    def _summarize(
        self, runs: Sequence[tuple[Cell, str]], caches: Mapping[str, CacheState], outcomes: Mapping[str, CellResult]
    ) -> None:
        """Fill the summary with what the database has of these runs, and judge them."""
        warning = self._similarity(runs)
        self.summary.interrupted = bool(self.stop.asked)
        self.summary.db = str(self.services.settings.db)
        self.summary.models = self.services.settings.models
        with self.services.store.held():
            self._read_summary(runs, caches, outcomes, warning)

    def _read_summary(
        self, runs: Sequence[tuple[Cell, str]], caches: Mapping[str, CacheState], outcomes: Mapping[str, CellResult],
        warning: str | None,
    ) -> None:  # fmt: skip
        store = self.services.store
        self.summary.rows = with_servers(_summary_rows(store, caches))
        failed = {failure.partition(": ")[0] for failure in self.summary.failures}
        cells = {run_id: cell for cell, run_id in runs}
        for row in () if self.stop.asked else self.summary.rows:
            if (name := cells[row["run_id"]].name) not in failed and (why := unanswered(row)) is not None:
                self.summary.failures.append(f"{name}: {why}")
        self.summary.pairs = pair_up(runs, lambda run_id: store.query(constrained.ROWS, [run_id], timeout_s=_FLUSH_S))
        for row in self.summary.rows:
            if variant := cells[row["run_id"]].variant:
                row["variant"] = variant
            if warning is not None:
                row["warnings"] = [warning]
            outcomes[row["run_id"]].row = row
        self._judge()
        if self.summary.rows:
            commands = {run_id: words_of(self.services.settings, cell) for run_id, cell in cells.items()}
            self.summary.document = document_of(
                store, [*caches], self.services.settings.rule, pool=False, details=False, commands=commands
            )

    def _answers(self, server: Server) -> bool:
        """Return whether the server is still there; one that is gone is not asked again."""
        if server.address not in self.gone and not server.api.answers(server.address, server.access):
            self.gone.add(server.address)
        return server.address not in self.gone

    def _similarity(self, runs: Sequence[tuple[Cell, str]]) -> str | None:
        """Compare the answers with their references, if asked for; return a warning, or None."""
        model = self.services.settings.embed_model
        if model is None or self.stop.asked or not runs:
            return None
        server = runs[0][0].server
        cases = {run_id: cell.suite.cases for cell, run_id in runs}
        try:
            with self.stop.interruptible():
                embeddings = Embeddings(partial(server.api.embed, server.address, model, access=server.access))
                score_similarity(self.services.store, cases, model, embeddings, _FLUSH_S)
        except KeyboardInterrupt:
            return None
        except ServerError as error:
            return f"no semantic similarity: {error}"
        if embeddings.blank:
            texts = plural(embeddings.blank, "text")
            return f"{model} returned zero vectors for {texts}: no semantic similarity for their answers"
        return None

    def _judge(self) -> None:
        judge_all(self.services.settings.slos, self.services.store, self.summary.outcomes)

    def write_junit(self) -> None:
        """Write the JUnit file, if asked for, however the load ended."""
        if self.services.settings.junit is not None:
            text = junit_xml(self.summary.outcomes, self.summary.failures)
            write_output(self.services.settings.junit, text)

    def _keep_limits(self, run_id: str) -> None:
        """Store the goodput limits: they may differ each time and change no measurement."""
        limits = self.services.settings.goodput
        if limits is not None:
            self.services.store.append("runs", {"run_id": run_id, "goodput_limits": limits})

    def _note_lookup(self, planned: PlannedCell, run_id: str) -> None:
        result = _CACHE_RESULT[planned.cache]
        telemetry, settings = self.services.telemetry, self.services.settings
        if telemetry is not None:
            telemetry.cache(labels_of(planned.cell, settings.label), result)
        if settings.skip_cached:
            self.services.store.append("lookups", {
                "looked_up_at": _now(), "config_hash": planned.cell.config_hash, "run_id": run_id, "result": result,
            })  # fmt: skip

    def _change_state(self, before: CellState, after: CellState) -> None:
        """Move one cell from one state to another, and publish the counts."""
        self.states[before] -= 1
        self.states[after] += 1
        if self.services.telemetry is not None:
            self.services.telemetry.cells(self.states)

    def _run_cell(self, planned: PlannedCell, run_id: str) -> bool:
        """Run one cell, in several segments where the server was away between; return False if it could not start."""
        self._change_state("waiting", "running")
        self.services.display.next_cell()
        part: PlannedCell | None = planned
        segment: Segment | None = None
        settling = self._settling(planned, run_id)
        while part is not None and (begun := self._run_segment(part, run_id, settling)) is not None:
            segment = begun
            part = self._after_pause(part, segment) if segment.paused else self._after_looks(part, segment)
        if segment is not None and segment.failure is not None:
            self.summary.failures.append(segment.failure)
        complete = part is None and segment is not None and segment.is_complete
        self._change_state("running", "complete" if complete else "interrupted")
        return segment is not None

    def _settling(self, planned: PlannedCell, run_id: str) -> Settling | None:
        """Return what ends a cell once its rule is decided, if that is to end it."""
        if not planned.cell.until_settled:
            return None
        settings, load, store = self.services.settings, planned.cell.load, self.services.store
        concurrency = load.concurrency if isinstance(load, ClosedLoop) else None
        least = 0 if concurrency in (1, None) else OPENINGS * concurrency
        look = partial(look_at, store, run_id, settings.rule)
        made = Settling(settings.rule, concurrency, look, settings.max_time_s, min(least, settings.max_requests))
        if planned.continued is not None:
            again = set(planned.missing or ())
            rows = store.query(_REQUEST_ROWS, [run_id])
            made.rows |= {row["request_index"]: row for row in rows if row["request_index"] not in again}
        return made

    def _after_looks(self, planned: PlannedCell, segment: Segment) -> PlannedCell | None:
        """Return what may still be asked, where what was in flight at the last look leaves the rule open again."""
        settling, missing = segment.settling, segment.missing or ()
        if settling is None or settling.decision is None or settling.decision.state != "not decided":
            return None
        if self.stop.asked or settling.is_out_of_time or segment.rows >= len(missing):
            return None
        return rest_of(planned, segment, None)

    def _run_segment(self, planned: PlannedCell, run_id: str, settling: Settling | None = None) -> Segment | None:
        """Run one segment from loading the model to its verdict; None if that was interrupted before its start."""
        cell, store, continued = planned.cell, self.services.store, planned.continued
        try:
            with self.stop.interruptible(), self.services.display.waiting(f"loading {cell.model}"):
                loading = loading_options(cell, cell.server.api.LOADING_OPTIONS)[0]
                cell, model_load_s = self._load_model(cell, loading)
                planned = replace(planned, cell=cell)
                cases = self._cases(cell, run_id)
        except KeyboardInterrupt:
            return None
        except ServerError as error:
            if sum(self.states.values()) == self.states["waiting"] + 1 and planned.away_s is None:
                raise BadInput(str(error)) from None
            self.summary.failures.append(f"{cell.name}: {error}")
            return None
        if planned.left_s is not None:
            cell = replace(cell, load=replace(cell.load, duration_s=planned.left_s))
        segment = Segment(
            services=self.services, cell=cell, cases=cases, run_id=run_id,
            number=0 if continued is None else continued.next_segment, missing=planned.missing,
            errors=0 if continued is None else continued.errors, first_index=planned.first_index,
            loading=loading, watch=abort_watch(self.services.settings, planned, store.query), settling=settling,
        )  # fmt: skip
        self._open(planned, segment, model_load_s)
        self._keep_limits(run_id)
        with self.stop.watching(segment):
            ended = False
            try:
                segment.run()
                ended = True
            finally:
                self._close(segment, ended)
        return segment

    def _after_pause(self, planned: PlannedCell, segment: Segment) -> PlannedCell | None:
        """Wait for a server that is away; return what is left of the run, or None if it does not come back."""
        server, patience_s, name = segment.cell.server, self.services.settings.patience_s, segment.cell.name
        assert segment.away_since_s is not None
        say = self.services.display.print
        if planned.away_s is None or segment.answered:  # else it went away again before it answered anything
            self.away_since_s = segment.away_since_s
        say(f"{name}: the server at {server.address} is away: waiting up to {patience_s:g} s for it (--patience)")
        try:
            with self.stop.interruptible():
                while not self.stop.asked and not server.api.answers(server.address, server.access):
                    if monotonic() - self.away_since_s > patience_s:
                        segment.failure = f"{name}: {gone(server)}"
                        return None
                    sleep(_POLL_S)
        except KeyboardInterrupt:
            pass
        if self.stop.asked:
            return None
        away_s = monotonic() - segment.away_since_s
        say(f"{name}: the server answers again, after {away_s:.1f} s")
        return rest_of(planned, segment, away_s)

    def _load_model(self, cell: Cell, loading: Mapping[str, Any]) -> tuple[Cell, float | None]:
        """Load the model and return the seconds that took, so that no request of the load pays for it.

        The cell has the field in which the server takes the limit of an answer, if it refused the usual one.
        """
        server, say = cell.server, self.services.display.print
        ask = partial(server.load_model, cell.model, {**cell.config.options, **loading}, cell.config.keep_alive)
        seconds, refusal = ask(cell.config.limit_field)
        if refusal is not None and (limited := cell.limited_by(server.api.refused_limit(refusal))) is not cell:
            cell = limited
            say(f"{cell.name}: the server refuses the usual limit of an answer: {cell.config.limit_field} is sent")
            seconds, refusal = ask(cell.config.limit_field)
        if refusal is not None:
            say(f"{cell.name}: loading the model failed: {refusal}")
        return cell, seconds

    def _cases(self, cell: Cell, run_id: str) -> Sequence[Case]:
        """Return the suite's cases; those of ``text`` are this run's, with lengths fitted to the model's tokenizer."""
        if cell.suite.name != "text":
            return cell.suite.cases
        key = cell.server.address, cell.model
        if key not in self.calibration:
            config, server = cell.config, cell.server
            prompts, chat = calibration_prompts(config.seed, run_id), config.endpoint == "chat"
            ask = partial(server.api.prompt_tokens, server.address, cell.model)
            how = config.options, chat, server.access, config.limit_field
            counts = together([partial(ask, prompt, *how) for prompt in prompts])
            samples = []
            for prompt, tokens in zip(prompts, counts, strict=True):
                if tokens is not None:
                    samples.append((word_count(prompt), tokens))
                    if self.services.budget is not None:
                        self.services.budget.used += tokens + 1
            self.calibration[key] = calibrate(samples)
        return cases_of_run(cell.suite, run_id, *self.calibration[key])

    def _open(self, planned: PlannedCell, segment: Segment, model_load_s: float | None) -> None:
        cell, settings = planned.cell, self.services.settings
        now = _now()
        planned_now = None if cell.until_settled else cell.requests
        run = {**run_columns(cell.config), "run_id": segment.run_id, "status": "running", "planned": planned_now,
               "asked_requests": planned_now, "asked_duration_s": cell.load.duration_s,
               "verdict": None, "verdict_reason": None, "finished_at": None}  # fmt: skip
        if planned.continued is None:
            loaded = loaded_model(cell.server, cell.model)
            run |= {
                **server_columns(cell.server, cell.model, loaded),
                "label": settings.label,
                "metadata": settings.metadata or None,
                "started_at": now,
                "environment": {
                    **_environment(settings),
                    **_placement(cell.server, loaded),
                    "command": words_of(settings, cell),
                },
            }
        self.services.store.append("runs", run)
        self.services.store.append("segments", {
            "run_id": segment.run_id, "segment": segment.number, "started_at": now, "status": "running",
            "planned": None if segment.missing is None else len(segment.missing), "workers": segment.workers,
            "model_load_s": model_load_s, "warmup_requests": segment.warmup, "simulated": settings.simulate,
            "away_s": planned.away_s,
        })  # fmt: skip

    def _close(self, segment: Segment, ended_by_itself: bool) -> None:
        """Store how the segment and the run ended; the verdict covers the rows of earlier segments too."""
        store, cell = self.services.store, segment.cell
        complete = ended_by_itself and segment.is_complete
        ended = {"run_id": segment.run_id, "status": "complete" if complete else "interrupted", "finished_at": _now()}
        limit = self.services.settings.max_tokens_total if segment.out_of_tokens else None
        store.append("segments", {
            **ended, "segment": segment.number, "duration_s": segment.duration_s, "token_limit": limit,
            **segment.senders,
        })  # fmt: skip
        for row in node_rows(segment.run_id, segment.number, segment.readings.nodes):
            store.append("nodes", row)
        store.append("runs", {"run_id": segment.run_id, "steady": True})  # marked once the rows before it are in
        if (waiting := store.backlog) > _MANY_ROWS and not store.is_held:
            self.services.display.print(f"{cell.name}: waiting for {plural(waiting, 'row')} to get into the database")
        ending = store.together(lambda query: ending_of(query, segment.run_id), _FLUSH_S)
        planned = cell.requests
        if cell.load.duration_s or cell.until_settled:
            planned = ending.reached if complete else None if cell.until_settled else planned
        settled: dict[str, Any] = {}
        if segment.settling is not None and complete:
            settled = {"settled": column_of(segment.settling.finish()), "asked_requests": planned}
        # One fact: all of it, or none.
        store.append("runs", {**ended, **ending.columns, **settled, "planned": planned})
        for note in () if segment.paused else ending.notes:
            self.services.display.print(f"{cell.name}: note: {note.text}")
        if complete:
            store.keep_gaps(segment.run_id)
        if self.services.telemetry is not None:
            self.services.telemetry.end(segment.labels, ending.verdict.word)


def rest_of(planned: PlannedCell, segment: Segment, away_s: float | None) -> PlannedCell:
    """Return what is left of a run whose segment was paused or did not decide it, for the segment after it."""
    missing, left_s = segment.missing, segment.left_s
    if missing is not None:
        open_indices = [index for index in missing if not segment.done[index]]
        missing = whole_conversations(segment.cases, open_indices, len(segment.done))
    continued = StoredRun(
        run_id=segment.run_id, status="partial", next_segment=segment.number + 1, label=None, started_at=None,
        errors=segment.errors if missing is None else segment.errors - segment.lost,
    )  # fmt: skip
    return replace(planned, continued=continued, missing=missing, away_s=away_s, left_s=left_s,
                   first_index=segment.highest + 1)  # fmt: skip


def server_columns(server: Server, model: str, loaded: LoadedModel | None) -> dict[str, Any]:
    """Return the columns of ``runs`` with what the server tells of itself and of the model."""
    told = server.details.get(server.full_name(model), ModelDetails())
    if told.context_tokens is None and loaded is not None:
        told = replace(told, context_tokens=loaded.context_tokens)
    return {
        "api": server.api_name, "server_kind": server.kind or None, "quantization": told.quantization,
        "parameters": told.parameters, "context_tokens": told.context_tokens, "server_slots": told.slots,
    }  # fmt: skip


def loaded_model(server: Server, model: str) -> LoadedModel | None:
    """Return what the server tells of the model as it is loaded, if it does."""
    with closing(server.api.ModelWatcher(server.address, server.access)) as watcher:
        return watcher.loaded(model)


def _placement(server: Server, loaded: LoadedModel | None) -> dict[str, Any]:
    """Return whether this machine is the server's, and which share of the model's memory is a GPU's."""
    found: dict[str, Any] = {"server_is_here": is_here(server.address)}
    if loaded is not None and loaded.size_bytes > 0:
        found["model_on_gpu"] = min(1.0, loaded.vram_bytes / loaded.size_bytes)
    return found


def pair_up(
    runs: Iterable[tuple[Cell, str]], rows_of: Callable[[str], Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Compare the constrained with the free run of each model, suite and load that has both.

    ``rows_of`` returns the rows of ``constrained.ROWS`` for a run id.
    """
    modes: dict[tuple[str, ...], dict[str, tuple[Cell, str]]] = {}
    for cell, run_id in runs:
        load = " ".join(filter(None, (cell.load_name, cell.variant)))
        key = (cell.model, cell.suite.name, load, cell.suite.content_hash, cell.server.address)
        modes.setdefault(key, {})[cell.config.structured] = cell, run_id
    pairs = []
    for (model, suite, load, *_), found in modes.items():
        if {"format", "prompt"} <= found.keys():
            (cell, with_format), (_, free) = found["format"], found["prompt"]
            pairs.append({
                "model": model, "suite": suite, "load": load, "format_run_id": with_format, "prompt_run_id": free,
                **constrained.compare(rows_of(with_format), rows_of(free), partial(schema_of, cell.suite.cases),
                          len(cell.suite.cases)),
            })  # fmt: skip
    return pairs


def schema_of(cases: Sequence[Case], index: int) -> str | None:
    """Return a request's schema as JSON text, its keys in the order that the server sees."""
    schema = case_of(cases, index)[0].schema
    return None if schema is None else json.dumps(schema)


def abort_watch(settings: Settings, planned: PlannedCell, query: Query) -> AbortWatch | None:
    """Return the watch of --abort-on-slo, with the rows of earlier segments that are not sent again."""
    if not settings.abort_on_slo:
        return None
    load, missing = planned.cell.load, planned.missing or ()
    concurrency = load.concurrency if isinstance(load, ClosedLoop) else None
    first = frozenset(missing[: opening_size(concurrency)]) if concurrency != 1 else frozenset()
    watching = AbortWatch(
        settings.slos, planned.cell.requests, settings.goodput or {}, concurrency=concurrency, opening=first
    )
    if planned.continued is not None:
        again = set(planned.missing or ())
        for row in query(_REQUEST_ROWS, [planned.continued.run_id]):
            if row["request_index"] not in again:
                watching.add(row)
    return watching


def _summary_rows(store: Store, caches: Mapping[str, CacheState]) -> list[dict[str, Any]]:
    sql, run_ids = "SELECT * FROM summary WHERE run_id IN (SELECT unnest($1::VARCHAR[]))", [*caches]
    rows, notes, failures = store.together(
        lambda query: (query(sql, [run_ids]), stored_notes(query, run_ids), failures_of(query, run_ids)), _FLUSH_S
    )
    by_id = {row["run_id"]: row for row in rows}
    return [
        {**by_id[run_id], "cache": cache, "notes": notes[run_id], "failures": failures[run_id]}
        for run_id, cache in caches.items()
        if run_id in by_id
    ]


def unanswered(row: Mapping[str, Any]) -> str | None:
    """Return why a run is of no use, of whose requests none was completed, and none tells of the model; else None."""
    if row["completed"] and not row["scored"] and row["e2e_p50_s"] is None and not row["requests_per_s"]:
        return f"{plural(row['completed'], 'answer')} came without a text, thinking or a call in any of them"
    if not row["requests"] or row["completed"] or row["scored"] or row["errors"] < row["requests"]:
        return None
    failures = row["failures"]
    why = f" ({failures[0].text})" if failures else ""
    return f"none of {plural(row['requests'], 'request')} was answered{why}"


def _environment(settings: Settings) -> dict[str, Any]:
    """Return what may explain the results without changing their meaning; nothing that identifies a person."""
    return {
        "structbench": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        **hardware(),
        "options": {
            "workers": settings.workers,
            "engine": settings.engine,
            "grace": settings.grace_s,
            "simulate": settings.simulate,
            "metrics_port": settings.metrics_port or 0,
            "text": asdict(settings.text),
        },
    }


def _new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def _now() -> datetime:
    return datetime.now(UTC)

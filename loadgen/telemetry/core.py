"""``Telemetry``: collects what a load does, for the metrics port, for a collector, or for both.

All values are kept here or in ``Histograms``, and read only when asked for: ``observe`` costs microseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from socket import SHUT_RDWR
from time import time_ns
from typing import TYPE_CHECKING, Literal

from loadgen.telemetry import instruments as of
from loadgen.telemetry.histogram import Exemplar, Histograms, Values
from loadgen.telemetry.instruments import CellLabels, Instrument, Labels, error_type, own_attributes
from loadgen.telemetry.spans import RunSpans
from loadgen.types import Request, RequestRecord

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from opentelemetry.sdk.resources import Resource

    from loadgen.telemetry.otlp import Push
    from loadgen.telemetry.target import Target

CacheResult = Literal["hit", "partial", "miss"]
CellState = Literal["waiting", "running", "complete", "interrupted", "skipped"]
VERDICTS = {"valid": 0, "degraded": 1, "invalid": 2}
MAX_OUTCOMES = 100
"""Endings distinguished in one cell; about 30 exist. Any beyond that count as ``other``."""
MAX_CELLS = 200
"""Cells that are shown, the newest: a load of thousands would else grow, and be too much for a scrape."""
SAMPLED = {
    of.CLIENT_CPU: "client_cpu_cores", of.CLIENT_MEMORY: "client_rss_bytes", of.LOOP_LAG: "loop_lag_max_s",
    of.WORKERS: "workers", of.BACKLOG: "store_backlog", of.MODEL_SIZE: "server_size_bytes",
    of.MODEL_VRAM: "server_vram_bytes", of.MODEL_VRAM_SHARE: "vram_share", of.MODEL_EXPIRY: "model_expiry_s",
}  # fmt: skip
"""Gauge -> the key of its value in a sample."""


@dataclass(slots=True)
class _Cell:
    """The state of one cell besides its histograms."""

    labels: Labels
    requests: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    """(outcome, error type) -> number of requests."""
    cache: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    merged_chunks: int = 0
    planned: int | None = None
    in_flight: int | None = None
    verdict: int | None = None
    run_id: str | None = None
    spans: RunSpans | None = None


class Telemetry:
    """Live metrics on ``http://host:port/metrics`` until ``close()``, and pushed to a collector if there is one.

    ``port`` None: nothing is served; 0: any free port, which the attribute ``port`` holds. Raises OSError if the port
    is taken, ValueError if OTEL_* variables are invalid. ``instruments``: the caller's own histograms, shown beside
    those of the load. ``warn`` gets one line if the collector cannot be reached. Safe to call from several threads; do
    not pass warm-up requests.
    """

    def __init__(
        self,
        port: int | None,
        host: str = "127.0.0.1",
        *,
        instruments: Sequence[Instrument] = (),
        target: Target | None = None,
        warn: Callable[[str], None] = print,
    ) -> None:
        self._cells: dict[CellLabels, _Cell] = {}
        self._states: Mapping[CellState, int] = {}
        self._sample: tuple[CellLabels, Mapping[str, float | None]] | None = None
        self._content = target is not None and target.content
        resource = _resource()
        self._push: Push | None = None
        if target is not None:
            from loadgen.telemetry.otlp import Push

            self._push = Push(target, instruments, resource, warn)
        self._histograms = Histograms(instruments) if self._push is None else self._push.histograms
        try:
            self._serve(port, host, resource)
        except OSError:
            if self._push is not None:
                self._push.close()
            raise
        self._open = True

    def _serve(self, port: int | None, host: str, resource: Resource) -> None:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry()
        pushed = [] if self._push is None or self._push.reader is None else [self._push.reader]
        served = [] if port is None else [PrometheusMetricReader(scope_info_enabled=False, registry=registry)]
        self._provider = MeterProvider(
            metric_readers=[*served, *pushed], resource=resource, shutdown_on_exit=False,
            exemplar_filter=AlwaysOffExemplarFilter(),
        )  # fmt: skip
        registry.register(self._histograms)
        self._declare(self._provider.get_meter("structbench"))
        self._server = None
        self.port = 0
        if port is not None:
            # Last, so that a taken port leaves nothing behind and no scrape sees half of the instruments.
            self._server, self._thread = start_http_server(port, addr=host, registry=registry)
            self.port = self._server.server_port

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the port and push what is left (see ``otlp.FLUSH_S``); a second call does nothing."""
        if not self._open:
            return
        self._open = False
        for cell in self._cells.copy():
            self.end(cell)
        if self._server is not None:
            # Wakes the server's loop, which otherwise checks only twice a second (macOS refuses, and then it waits).
            with suppress(OSError):
                self._server.socket.shutdown(SHUT_RDWR)
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        if self._push is not None:
            self._push.close()

    def begin(self, cell: CellLabels, run_id: str, planned: int | None) -> None:
        """Start a cell's load: set how many requests it will send, and the run that their rows belong to."""
        state = self._cell(cell)
        state.run_id, state.planned, state.in_flight = run_id, planned, 0
        if self._push is not None and self._push.tracer is not None:
            state.spans = RunSpans(self._push.tracer, cell, run_id, content=self._content)

    @property
    def wants_requests(self) -> bool:
        """Whether ``observe`` needs the request itself."""
        return self._push is not None and self._push.tracer is not None

    def observe(
        self,
        record: RequestRecord,
        cell: CellLabels,
        outcome: str | None = None,
        values: Values | None = None,
        request: Request | None = None,
        case_id: str | None = None,
    ) -> None:
        """Record one finished request: its measurements, its outcome, and its values for the given instruments."""
        state = self._cell(cell)
        failure = error_type(record.error) if record.error is not None and record.failed else None
        if outcome is None:
            outcome = "completed" if record.error is None else record.error.kind
        values = values or {}
        spans = state.spans  # once: another thread may end the cell
        ids = (None, None) if spans is None else spans.add(record, outcome, values, request, case_id)
        exemplar = None if state.run_id is None else Exemplar(state.run_id, record.index, time_ns(), *ids)
        self._histograms.add(cell, record, values, failure, exemplar)
        with self._histograms.lock:
            ending = outcome, failure
            if ending not in state.requests and len(state.requests) >= MAX_OUTCOMES:
                ending = "other", None
            state.requests[ending] += 1
            state.chunks += len(record.chunk_ns)
            state.merged_chunks += record.merged_chunks

    def in_flight(self, cell: CellLabels, n: int) -> None:
        """Set how many requests of the cell are in flight."""
        self._cell(cell).in_flight = n

    def sample(self, cell: CellLabels, values: Mapping[str, float | None]) -> None:
        """Set what client and server use while this cell runs; shown until the next sample of any cell."""
        self._sample = cell, values

    def verdict(self, cell: CellLabels, word: str) -> None:
        """Set the verdict so far: ``valid``, ``degraded`` or ``invalid``."""
        self._cell(cell).verdict = VERDICTS[word]

    def end(self, cell: CellLabels, verdict: str | None = None) -> None:
        """End a cell's load, with its last verdict."""
        state = self._cell(cell)
        if verdict is not None:
            state.verdict = VERDICTS[verdict]
        if state.in_flight is not None:
            state.in_flight = 0
        spans, state.spans = state.spans, None
        if spans is not None:
            spans.end(verdict)

    def cache(self, cell: CellLabels, result: CacheResult) -> None:
        """Count a cell by what the store had of it: everything (hit), a part (partial) or nothing (miss)."""
        self._cell(cell).cache[result] += 1

    def cells(self, states: Mapping[CellState, int]) -> None:
        """Set how many cells of this load are in each state."""
        self._states = dict(states)

    def _cell(self, cell: CellLabels) -> _Cell:
        state = self._cells.get(cell)
        if state is None:
            state = self._cells[cell] = _Cell(own_attributes(cell))
            if len(self._cells) > MAX_CELLS:
                oldest = next(iter(self._cells))
                del self._cells[oldest]
                self._histograms.forget(oldest)
        return state

    def _declare(self, meter: Meter) -> None:
        """Declare every counter and gauge with the callback that reads it."""

        def of_cells(value: Callable[[_Cell], float | None]) -> Callable[[], Iterable[Row]]:
            return lambda: ((cell.labels, value(cell)) for cell in self._cells.copy().values())

        rows: dict[str, Callable[[], Iterable[Row]]] = {
            of.REQUESTS: self._request_rows,
            of.CACHE: self._cache_rows,
            of.CHUNKS: of_cells(lambda cell: cell.chunks if cell.requests else None),
            of.MERGED_CHUNKS: of_cells(lambda cell: cell.merged_chunks if cell.requests else None),
            of.PLANNED: of_cells(lambda cell: cell.planned),
            of.IN_FLIGHT: of_cells(lambda cell: cell.in_flight),
            of.VERDICT: of_cells(lambda cell: cell.verdict),
            of.CELLS: lambda: (({of.CELL_STATE: state}, n) for state, n in self._states.items()),
            **{name: self._sampled(key) for name, key in SAMPLED.items()},
        }
        for name, read in rows.items():
            instrument = of.BY_NAME[name]
            create = meter.create_observable_counter if instrument.kind == "counter" else meter.create_observable_gauge
            create(name, [_callback(read)], instrument.unit, instrument.meaning)

    def _request_rows(self) -> Iterable[Row]:
        with self._histograms.lock:
            found = [(cell.labels, ending, n) for cell in self._cells.copy().values()
                     for ending, n in cell.requests.items()]  # fmt: skip
        for labels, (outcome, failure), n in found:
            yield {**labels, of.OUTCOME: outcome, **({} if failure is None else {of.ERROR_TYPE: failure})}, n

    def _cache_rows(self) -> Iterable[Row]:
        for cell in self._cells.copy().values():
            for result, n in cell.cache.copy().items():
                yield {**cell.labels, of.CACHE_RESULT: result}, n

    def _sampled(self, key: str) -> Callable[[], Iterable[Row]]:
        def rows() -> Iterable[Row]:
            if self._sample is not None:
                cell, values = self._sample
                yield self._cell(cell).labels, values.get(key)

        return rows


Row = tuple[Labels, float | None]
"""The attributes and the value of one series; None: the series is absent."""


def _callback(read: Callable[[], Iterable[Row]]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        return [Observation(value, labels) for labels, value in read() if value is not None]

    return observe


def _resource() -> Resource:
    """Return our resource; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override it."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    return Resource.create({"service.name": "structbench", **OTELResourceDetector().detect().attributes})

"""Live metrics: the OpenTelemetry instruments and the port where Prometheus reads them; parent process only.

Invariant: what a request did not have is not observed (no zero stands for "absent"), and every label
comes from ``CellLabels`` or from a closed set of words, so the number of series is bounded by the plan.
OpenTelemetry is imported when a ``Telemetry`` is made: importing this module costs nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from socket import SHUT_RDWR
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Literal, get_args

from loadgen.telemetry.instruments import (
    ACCURACY,
    BY_NAME,
    CACHE,
    CHUNK_GAP,
    DURATION,
    FIRST_CHUNK,
    GAP_BUCKETS,
    IN_FLIGHT,
    INSTRUMENTS,
    JSON_VALID,
    LATENCY_BUCKETS,
    REQUESTS,
    SCHEMA_VALID,
    SEND_LAG,
    TOKEN_RATE,
    TOKENS,
    TOOL_CALL_ACCURACY,
    Labels,
)
from loadgen.types import NS, ErrorKind, RequestError, RequestRecord

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
    from prometheus_client.core import Metric

CacheResult = Literal["hit", "partial", "miss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellLabels:
    """What the series of one cell are told apart by."""

    model: str
    suite: str
    load: str
    """The load level as text, such as ``c=4`` or ``rate=2.5``."""
    server_address: str
    server_port: int
    operation: Literal["chat", "text_completion"] = "chat"
    """The GenAI conventions' word for the endpoint: /api/chat or /api/generate."""


class Telemetry:
    """Live metrics on ``http://host:port/metrics`` until ``close()``.

    Raises OSError when the port cannot be had. Port 0 takes any free one; ``port`` says which.
    Call ``observe`` and the others from one thread or several; warm-up requests are not for here.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
        from opentelemetry.sdk.resources import Resource
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry()
        self._provider = MeterProvider(
            metric_readers=[PrometheusMetricReader(scope_info_enabled=False, registry=registry)],
            resource=Resource.create({"service.name": "structbench"}),
            shutdown_on_exit=False,
            exemplar_filter=AlwaysOffExemplarFilter(),
        )
        meter = self._provider.get_meter("structbench")
        self._histograms = _histograms(meter)
        self._gaps = _GapHistogram(CHUNK_GAP)
        registry.register(self._gaps)
        self._requests = meter.create_counter(REQUESTS, *_unit_and_meaning(REQUESTS))
        self._cache = meter.create_counter(CACHE, *_unit_and_meaning(CACHE))
        self._running: dict[CellLabels, int] = {}
        meter.create_observable_gauge(IN_FLIGHT, [self._observe_in_flight], *_unit_and_meaning(IN_FLIGHT))
        self._labels: dict[CellLabels, tuple[Labels, Labels]] = {}
        # Last, so that a taken port leaves nothing behind and no scrape sees half of the instruments.
        self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        self.port: int = self._server.server_port
        self._open = True

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the port and end the server's thread; a second call does nothing."""
        if not self._open:
            return
        self._open = False
        # Wakes the server's loop, which else looks only twice a second whether to end (macOS refuses: it waits).
        with suppress(OSError):
            self._server.socket.shutdown(SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._provider.shutdown()

    def observe(self, record: RequestRecord, cell: CellLabels) -> None:
        """Show one record; a failed one is counted here, a completed one when ``observe_score`` tells its outcome."""
        genai, own = self._labels_of(cell)
        if record.send_lag_s is not None:
            # A timer may fire microseconds early; early is not late, and a histogram takes no negative value.
            self._record(SEND_LAG, max(0.0, record.send_lag_s), own)
        if record.error is not None:
            self._observe_failed(record, record.error, genai, own)
            return
        self._record(DURATION, record.e2e_s, genai)
        self._record(FIRST_CHUNK, record.ttft_s, genai)
        self._gaps.add(record.chunk_ns, cell, genai)
        self._observe_tokens(record, genai)
        self._record(TOKEN_RATE, record.client_tokens_per_s, own)

    def observe_score(
        self,
        cell: CellLabels,
        outcome: str,
        accuracy_score: float | None = None,
        json_valid: bool | None = None,
        schema_valid: bool | None = None,
        tool_call_accuracy: float | None = None,
    ) -> None:
        """Show how a request ended and what its answer was worth; call once for every completed record.

        An outcome that is an error kind (``rejected``, …) was counted by ``observe`` and is not counted again.
        """
        own = self._labels_of(cell)[1]
        if outcome not in ERROR_OUTCOMES:
            self._requests.add(1, {**own, "structbench.outcome": outcome})
        self._record(ACCURACY, accuracy_score, own)
        self._record(JSON_VALID, json_valid, own)
        self._record(SCHEMA_VALID, schema_valid, own)
        self._record(TOOL_CALL_ACCURACY, tool_call_accuracy, own)

    def cache(self, cell: CellLabels, result: CacheResult) -> None:
        """Count one cell by what the store had of it: all (hit), some (partial) or nothing (miss)."""
        self._cache.add(1, {**self._labels_of(cell)[1], "structbench.cache.result": result})

    def in_flight(self, cell: CellLabels, n: int) -> None:
        """Set how many requests of the cell are under way now; set it to 0 at the cell's end."""
        self._running[cell] = n

    def _observe_in_flight(self, _options: CallbackOptions) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        # A copy: the main thread may add a cell while the scraping thread reads.
        return [Observation(n, self._labels_of(cell)[1]) for cell, n in self._running.copy().items()]

    def _observe_failed(self, record: RequestRecord, error: RequestError, genai: Labels, own: Labels) -> None:
        failure = {"error.type": _error_type(error)}
        self._requests.add(1, {**own, "structbench.outcome": error.kind, **failure})
        if record.sent_ns is not None and record.end_ns is not None:
            self._record(DURATION, (record.end_ns - record.sent_ns) / NS, {**genai, **failure})
        self._observe_tokens(record, {**genai, **failure})

    def _observe_tokens(self, record: RequestRecord, genai: Labels) -> None:
        self._record(TOKENS, record.prompt_tokens, {**genai, "gen_ai.token.type": "input"})
        self._record(TOKENS, record.output_tokens, {**genai, "gen_ai.token.type": "output"})

    def _record(self, name: str, value: float | None, labels: Labels) -> None:
        if value is not None:
            self._histograms[name].record(float(value), labels)

    def _labels_of(self, cell: CellLabels) -> tuple[Labels, Labels]:
        """The GenAI instruments' attributes and those of our own, built once per cell."""
        labels = self._labels.get(cell)
        if labels is None:
            labels = self._labels[cell] = _attributes(cell)
        return labels


class _GapHistogram:
    """Chunk gaps by bucket, read by the same port as the OpenTelemetry exporter.

    A gap comes with every token: OpenTelemetry's ``record`` costs 9 µs, this 0.3 µs. Counts, sum,
    name and labels are what that histogram would show; a test holds the two against each other.
    """

    def __init__(self, name: str) -> None:
        self._instrument = BY_NAME[name]
        self._bounds_ns = [round(bound * NS) for bound in self._instrument.buckets]
        self._rows: dict[CellLabels, _GapRow] = {}
        self._lock = Lock()

    def add(self, chunk_ns: tuple[int, ...], cell: CellLabels, labels: Labels) -> None:
        """Count the gaps of one stream; the lock keeps a scrape from seeing half of them."""
        if len(chunk_ns) < 2:
            return
        bounds = self._bounds_ns
        with self._lock:
            row = self._rows.get(cell)
            if row is None:
                row = self._rows[cell] = _GapRow(labels, [0] * (len(bounds) + 1))
            counts = row.counts
            for before, after in pairwise(chunk_ns):
                counts[bisect_left(bounds, after - before)] += 1
            row.sum_ns += chunk_ns[-1] - chunk_ns[0]

    def collect(self) -> Iterable[Metric]:
        """The histogram as Prometheus takes it: counts add up from bucket to bucket."""
        from prometheus_client.core import HistogramMetricFamily

        with self._lock:
            rows = [(row.labels, row.counts.copy(), row.sum_ns) for row in self._rows.values()]
        if not rows:
            return []
        names = [_prometheus_name(key) for key in rows[0][0]]
        family = HistogramMetricFamily(
            _prometheus_name(self._instrument.name), self._instrument.meaning, labels=names, unit="seconds"
        )
        for labels, counts, sum_ns in rows:
            family.add_metric([str(value) for value in labels.values()], self._cumulative(counts), sum_ns / NS)
        return [family]

    def _cumulative(self, counts: list[int]) -> list[tuple[str, float]]:
        total, buckets = 0, []
        for bound, count in zip((*self._instrument.buckets, "+Inf"), counts, strict=True):
            total += count
            buckets.append((str(bound), float(total)))
        return buckets


@dataclass(slots=True)
class _GapRow:
    labels: Labels
    counts: list[int]
    sum_ns: int = 0


ERROR_OUTCOMES: frozenset[str] = frozenset(get_args(ErrorKind))


def _histograms(meter: Meter) -> dict[str, Histogram]:
    return {
        i.name: meter.create_histogram(i.name, i.unit, i.meaning, explicit_bucket_boundaries_advisory=i.buckets)
        for i in INSTRUMENTS
        if i.kind == "histogram" and i.name != CHUNK_GAP
    }


def _unit_and_meaning(name: str) -> tuple[str, str]:
    return BY_NAME[name].unit, BY_NAME[name].meaning


def _attributes(cell: CellLabels) -> tuple[Labels, Labels]:
    own: dict[str, str | int] = {
        "gen_ai.request.model": cell.model,
        "structbench.suite": cell.suite,
        "structbench.load": cell.load,
    }
    genai = {
        **own,
        "gen_ai.operation.name": cell.operation,
        "gen_ai.provider.name": "ollama",
        "server.address": cell.server_address,
        "server.port": cell.server_port,
    }
    return genai, own


def _error_type(error: RequestError) -> str:
    """The HTTP status where that is what failed (as the GenAI conventions say), else the error kind."""
    return str(error.status) if error.kind == "http" and error.status is not None else error.kind


def _prometheus_name(name: str) -> str:
    return name.replace(".", "_")

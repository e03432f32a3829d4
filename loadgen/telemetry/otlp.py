"""Pushing metrics and spans to a collector; imported only if there is one.

Invariant: a slow, broken or missing collector costs one warning line and at most ``FLUSH_S`` at the end, never a
request: exporting runs in threads of its own, its queues are bounded, and what does not fit is dropped.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Thread
from time import monotonic, time_ns
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import Exemplar as PushedExemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.export import Histogram as ExplicitHistogram
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer

from loadgen.telemetry.histogram import ZERO, Histogram, Histograms, HistogramSeries, explicit, exponential, fitted
from loadgen.telemetry.instruments import Instrument
from loadgen.telemetry.target import Target
from loadgen.wire.access import Access

FLUSH_S = 5.0
"""How long ``close`` may take to push what is left."""
FLUSH_AFTER_WARNING_S = 1.0
"""The same if the collector has already failed before."""
_EVERY_MS = 5000.0
"""Interval between pushes of metrics unless OTEL_METRIC_EXPORT_INTERVAL is set: a load is watched while it runs."""
_LOGGER = logging.getLogger("opentelemetry")


class Push:
    """The exporters of one load; ``close`` pushes what is left, within its time limit."""

    def __init__(
        self, target: Target, instruments: Sequence[Instrument], resource: Resource, warn: Callable[[str], None]
    ) -> None:
        self._warning = _OneWarning(target, warn)
        self.reader: PeriodicExportingMetricReader | None = None
        self.tracer: Tracer | None = None
        self._exporters: list[OTLPMetricExporter | OTLPSpanExporter] = []
        self._stops: list[Callable[[], None]] = []
        self._is_delta = _variable("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE") in ("delta", "lowmemory")
        self._is_explicit = (
            _variable("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION") == "explicit_bucket_histogram"
        )
        self.histograms = Histograms(instruments, None if target.metrics is None else self.view_of)
        self._started_ns = time_ns()
        try:
            self._begin(target, resource)
        except ValueError:  # an invalid variable
            self._warning.given = True
            self.close()
            raise

    def _begin(self, target: Target, resource: Resource) -> None:
        if target.metrics is not None:
            exporter = _MetricExporter(target.metrics, self.points)
            given = "OTEL_METRIC_EXPORT_INTERVAL" in os.environ
            self.reader = PeriodicExportingMetricReader(exporter, None if given else _EVERY_MS)
            self._exporters.append(exporter)
            self._stops.append(self.reader.shutdown)
        if target.traces is not None:
            span_exporter = OTLPSpanExporter(target.traces)
            provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            provider.add_span_processor(BatchSpanProcessor(span_exporter))
            self.tracer = provider.get_tracer("structbench")
            self._exporters.append(span_exporter)
            self._stops.append(provider.shutdown)

    def close(self) -> None:
        """Push what is left; give up on a collector that does not take it in time."""
        limit = FLUSH_AFTER_WARNING_S if self._warning.given else FLUSH_S
        deadline = monotonic() + limit
        threads = [Thread(target=stop, daemon=True) for stop in self._stops]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
        if any(thread.is_alive() for thread in threads):
            self._warning.give(f"it did not take the last data within {limit:g} s")
            for exporter in self._exporters:
                exporter.shutdown()  # otherwise it keeps trying
        # Their last complaints as they end are no news.
        Thread(target=self._detach_after, args=[threads], daemon=True).start()

    def _detach_after(self, threads: list[Thread]) -> None:
        for thread in threads:
            thread.join()
        _LOGGER.removeHandler(self._warning)

    def view_of(self, instrument: Instrument) -> Histogram:
        """Return an empty histogram with the buckets in which an instrument is pushed."""
        return explicit(instrument.buckets) if self._is_explicit else exponential()

    def points(self) -> list[Metric]:
        """Return all histograms as the exporter takes them; each exemplar is pushed once."""
        now_ns = time_ns()
        metrics = []
        with self.histograms.lock:
            for name, rows in self.histograms.by_instrument().items():
                if views := [(row, row.pushed) for row in rows if row.pushed is not None and row.pushed.n]:
                    metrics.append(self._metric(self.histograms.instruments[name], views, now_ns))
        if self._is_delta:
            self._started_ns = now_ns
        return metrics

    def _metric(self, instrument: Instrument, views: list[tuple[HistogramSeries, Histogram]], now_ns: int) -> Metric:
        temporality = AggregationTemporality.DELTA if self._is_delta else AggregationTemporality.CUMULATIVE
        points = [(view, self._shared(row, view, now_ns)) for row, view in views]
        data: ExplicitHistogram | ExponentialHistogram
        if self._is_explicit:
            bounds = instrument.buckets
            data = ExplicitHistogram([_explicit_point(view, bounds, shared) for view, shared in points], temporality)
        else:
            data = ExponentialHistogram([_exponential_point(view, shared) for view, shared in points], temporality)
        for row, view in views:
            if self._is_delta:
                row.push(self.view_of(instrument))
            else:
                view.exemplars.clear()
        return Metric(instrument.name, instrument.meaning, instrument.unit, data)

    def _shared(self, row: HistogramSeries, view: Histogram, now_ns: int) -> dict[str, Any]:
        """Return the fields that a point of either kind has."""
        return {
            "attributes": row.labels, "start_time_unix_nano": self._started_ns, "time_unix_nano": now_ns,
            "count": view.n, "sum": view.total, "min": view.low, "max": view.high, "exemplars": _exemplars(view),
        }  # fmt: skip


def _exponential_point(view: Histogram, shared: Mapping[str, Any]) -> ExponentialHistogramDataPoint:
    scale, first, counts = fitted(view)
    positive, negative = Buckets(offset=first, bucket_counts=counts), Buckets(offset=0, bucket_counts=())
    return ExponentialHistogramDataPoint(
        scale=scale, zero_count=view.counts[ZERO], positive=positive, negative=negative, flags=0, **shared
    )


def _explicit_point(view: Histogram, bounds: Sequence[float], shared: Mapping[str, Any]) -> HistogramDataPoint:
    counts = [view.counts[place] for place in range(len(bounds) + 1)]
    return HistogramDataPoint(bucket_counts=counts, explicit_bounds=bounds, **shared)


class _MetricExporter(OTLPMetricExporter):
    """Export our own histograms together with what the SDK collected."""

    def __init__(self, url: str, histograms: Callable[[], list[Metric]]) -> None:
        super().__init__(url)
        self._own = histograms

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        resource = metrics_data.resource_metrics[0]
        scope = resource.scope_metrics[0]
        whole = replace(scope, metrics=[*scope.metrics, *self._own()])
        data = MetricsData([replace(resource, scope_metrics=[whole])])
        return super().export(data, timeout_millis, **kwargs)


class _OneWarning(logging.Handler):
    """Turn all complaints of the exporters into one line for the user.

    While it is attached, Python's handler of last resort prints none of them; the caller's own logging still may.
    """

    def __init__(self, target: Target, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._collector = target.name
        self._masked = Access(secrets=target.secrets).masked
        self._warn = warn
        self.given = False
        _LOGGER.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        arguments = record.args if isinstance(record.args, tuple) else ()
        errors = [type(argument).__name__ for argument in arguments if isinstance(argument, Exception)]
        self.give(errors[0] if errors else self._masked(record.getMessage()))

    def give(self, why: str) -> None:
        """Warn, unless a warning was given before."""
        if not self.given:
            self.given = True
            self._warn(f"cannot push to {self._collector} ({why}); the load goes on")


def _exemplars(view: Histogram) -> list[PushedExemplar]:
    return [
        PushedExemplar(
            {"structbench.run.id": found.run_id, "structbench.request.index": found.request_index}, value, found.at_ns,
            found.span_id, found.trace_id,
        )
        for value, found in view.exemplars.values()
    ]  # fmt: skip


def _variable(variable: str) -> str:
    return os.environ.get(variable, "").strip().lower()

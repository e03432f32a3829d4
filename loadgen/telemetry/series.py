"""All histograms of a load: the values that a finished request adds to each series, and what Prometheus gets of them.

Invariant: whole requests are added under one lock, so that no scrape sees half a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING

from loadgen.telemetry import instruments as of
from loadgen.telemetry.histogram import Exemplar, Histogram, cumulative, explicit
from loadgen.telemetry.instruments import BY_NAME, ERROR_TYPE, TOKEN_TYPE, Instrument, Labels
from loadgen.telemetry.labels import CellLabels, genai_attributes, own_attributes
from loadgen.types import NS, RequestRecord

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.samples import Exemplar as OpenMetricsExemplar

_NO_LABELS: Labels = {}
_INPUT: Labels = {TOKEN_TYPE: "input"}
_OUTPUT: Labels = {TOKEN_TYPE: "output"}


Values = Mapping[str, float]
"""What one request adds to the given instruments: name -> value; absent if it has none."""
Value = tuple[str, Labels, float]
"""An instrument's name, the attributes besides the cell's, and the value to add."""


def values_of(record: RequestRecord, failure: str | None) -> Iterator[Value]:
    """Yield what one finished request adds; what it lacks is not added (no zero stands for absent)."""
    labels = _NO_LABELS if failure is None else {ERROR_TYPE: failure}
    single: list[tuple[str, Labels, float | None]] = [
        # A timer may fire microseconds early; early is not late, and a histogram takes no negative value.
        (of.SEND_LAG, _NO_LABELS, _not_negative(record.send_lag_s)),
        (of.READ_LAG, _NO_LABELS, None if record.read_lag_max_ns is None else record.read_lag_max_ns / NS),
        (of.TOKENS, _INPUT if failure is None else {**_INPUT, **labels}, record.prompt_tokens),
        (of.TOKENS, _OUTPUT if failure is None else {**_OUTPUT, **labels}, record.output_tokens),
    ]
    if failure is None:
        single += [
            (of.DURATION, _NO_LABELS, record.e2e_s),
            (of.FIRST_CHUNK, _NO_LABELS, record.ttft_s),
            (of.TOKEN_RATE, _NO_LABELS, record.client_tokens_per_s),
            (of.SERVER_LOAD, _NO_LABELS, record.load_s),
            (of.SERVER_PROMPT_EVAL, _NO_LABELS, record.prompt_eval_s),
            (of.SERVER_EVAL, _NO_LABELS, record.eval_s),
            (of.QUEUE, _NO_LABELS, _not_negative(record.queue_s)),
        ]
    elif record.sent_ns is not None and record.end_ns is not None:
        single.append((of.DURATION, labels, (record.end_ns - record.sent_ns) / NS))
    for name, besides, value in single:
        if value is not None:
            yield name, besides, float(value)


def _not_negative(value: float | None) -> float | None:
    return None if value is None else max(0.0, value)


@dataclass(slots=True)
class HistogramSeries:
    """One histogram instrument with one set of attributes, as served to Prometheus and as pushed."""

    labels: Labels
    served: Histogram
    pushed: Histogram | None = None

    @property
    def views(self) -> tuple[Histogram, ...]:
        return (self.served,) if self.pushed is None else (self.served, self.pushed)


class Histograms:
    """Every histogram series, of the load's own instruments and of those ``given``.

    ``pushed`` creates the view of an instrument that is pushed; None: nothing is.
    """

    def __init__(
        self, given: Iterable[Instrument] = (), pushed: Callable[[Instrument], Histogram] | None = None
    ) -> None:
        self.instruments = {**BY_NAME, **{instrument.name: instrument for instrument in given}}
        self._pushed = pushed
        self._series: dict[tuple[CellLabels, str, tuple[str | int, ...]], HistogramSeries] = {}
        self.lock = Lock()

    def add(self, cell: CellLabels, record: RequestRecord, values: Values, failure: str | None,
            exemplar: Exemplar | None) -> None:  # fmt: skip
        """Add what one finished request gives; ``values``: to the instruments that were given."""
        given = ((name, _NO_LABELS, float(value)) for name, value in values.items())
        with self.lock:
            for name, besides, value in chain(values_of(record, failure), given):
                for histogram in self._views(cell, name, besides):
                    histogram.add(value, exemplar)
            if failure is None and (gaps_s := record.gaps_s):
                for histogram in self._views(cell, of.CHUNK_GAP, _NO_LABELS):
                    histogram.add_all(gaps_s, exemplar)

    def _views(self, cell: CellLabels, name: str, besides: Labels) -> tuple[Histogram, ...]:
        key = cell, name, tuple(besides.values())
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._new(cell, self.instruments[name], besides)
        return series.views

    def _new(self, cell: CellLabels, instrument: Instrument, besides: Labels) -> HistogramSeries:
        base = genai_attributes(cell) if instrument.name.startswith("gen_ai.") else own_attributes(cell)
        pushed = None if self._pushed is None else self._pushed(instrument)
        return HistogramSeries({**base, **besides}, explicit(instrument.buckets), pushed)

    def by_instrument(self) -> Mapping[str, list[HistogramSeries]]:
        """Return instrument name -> its series; call it and use the result under the lock."""
        found: dict[str, list[HistogramSeries]] = {}
        for (_, name, _), series in self._series.items():
            found.setdefault(name, []).append(series)
        return found

    def collect(self) -> Iterable[Metric]:
        """Return the metric families; prometheus_client calls this at each scrape."""
        with self.lock:
            return [_family(self.instruments[name], series) for name, series in self.by_instrument().items()]


def _family(instrument: Instrument, rows: list[HistogramSeries]) -> Metric:
    """Return the histogram as Prometheus takes it: bucket counts are cumulative, a missing label is empty."""
    from prometheus_client.core import HistogramMetricFamily

    keys = sorted({key for row in rows for key in row.labels})
    family = HistogramMetricFamily(
        instrument.prometheus, instrument.meaning, labels=[key.replace(".", "_") for key in keys],
        unit=instrument.prometheus_unit,
    )  # fmt: skip
    for row in rows:
        buckets = [
            (bound, float(n)) if found is None else (bound, float(n), _openmetrics_exemplar(*found))
            for bound, n, found in cumulative(row.served, instrument.buckets)
        ]
        family.add_metric([str(row.labels.get(key, "")) for key in keys], buckets, row.served.total)
    return family


def _openmetrics_exemplar(value: float, exemplar: Exemplar) -> OpenMetricsExemplar:
    """Return an exemplar for OpenMetrics; names and values stay below its limit of 128 characters."""
    from prometheus_client.samples import Exemplar as OpenMetricsExemplar

    labels = {"run_id": exemplar.run_id, "request_index": str(exemplar.request_index)}
    if exemplar.trace_id is not None and exemplar.span_id is not None:
        labels |= {"trace_id": f"{exemplar.trace_id:032x}", "span_id": f"{exemplar.span_id:016x}"}
    return OpenMetricsExemplar(labels, value, exemplar.at_ns / NS)

"""Histograms with an exemplar per bucket, at a thirtieth of the cost of OpenTelemetry's, and all those of a load.

Every token brings a gap, and one ``record`` of OpenTelemetry takes 9 µs; its Prometheus exporter also has no exemplars.
Invariant: counts, sums and bounds equal those of OpenTelemetry for the same values; tests compare the two. A whole
request is added under one lock, so that no scrape sees half of it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, chain
from threading import Lock
from typing import TYPE_CHECKING

from loadgen.telemetry import instruments as of
from loadgen.telemetry.instruments import CellLabels, Instrument, Labels, genai_attributes, own_attributes
from loadgen.types import NS, RequestRecord

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.samples import Exemplar as OpenMetricsExemplar


SCALE = 5
"""Exponential buckets grow by 2^(2^-SCALE), 2.2 %, as long as they all fit."""
MAX_BUCKETS = 160
"""OpenTelemetry's own limit; above it, neighbours are merged two by two."""
ZERO = -(1 << 31)
"""The index of the bucket for exactly 0."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """The request that a value came from, which leads from a bucket to the row (and to the trace, if there is one)."""

    run_id: str
    request_index: int
    at_ns: int
    """Unix time in nanoseconds."""
    trace_id: int | None = None
    span_id: int | None = None


class Histogram:
    """Counts by bucket; ``place`` returns the bucket of a value."""

    __slots__ = ("counts", "exemplars", "high", "low", "n", "place", "total")

    def __init__(self, place: Callable[[float], int]) -> None:
        self.place = place
        self.counts: Counter[int] = Counter()
        self.exemplars: dict[int, tuple[float, Exemplar]] = {}
        """The latest exemplar of each bucket, with its value."""
        self.n = 0
        self.total = 0.0
        self.low = math.inf
        self.high = -math.inf

    def add(self, value: float, exemplar: Exemplar | None = None) -> None:
        """Count one value."""
        place = self.place(value)
        self.counts[place] += 1
        self.n += 1
        self.total += value
        if value < self.low:
            self.low = value
        if value > self.high:
            self.high = value
        if exemplar is not None:
            self.exemplars[place] = value, exemplar

    def add_all(self, values: Sequence[float], exemplar: Exemplar | None = None) -> None:
        """Count several values of one request; the largest of them becomes the exemplar."""
        self.counts.update(map(self.place, values))
        high = max(values)
        self.n += len(values)
        self.total += sum(values)
        self.low, self.high = min(self.low, *values), max(self.high, high)
        if exemplar is not None:
            self.exemplars[self.place(high)] = high, exemplar


def explicit(bounds: Sequence[float]) -> Histogram:
    """Return a histogram with these upper bounds; a value equal to a bound counts as below it."""
    return Histogram(partial(bisect_left, bounds))


def exponential() -> Histogram:
    """Return a histogram whose bounds are the powers of 2^(2^-SCALE)."""
    return Histogram(exponential_index)


def exponential_index(value: float) -> int:
    """Return the index i with 2^(i / 2^SCALE) < value <= 2^((i + 1) / 2^SCALE)."""
    return math.ceil(math.log2(value) * (1 << SCALE)) - 1 if value > 0 else ZERO


def cumulative(
    histogram: Histogram, bounds: Sequence[float]
) -> Iterator[tuple[str, int, tuple[float, Exemplar] | None]]:
    """Yield each bound, the number of values at or below it, and the exemplar between it and the previous one."""
    so_far = 0
    for place, bound in enumerate((*bounds, "+Inf")):
        so_far += histogram.counts[place]
        yield str(bound), so_far, histogram.exemplars.get(place)


def fitted(histogram: Histogram) -> tuple[int, int, list[int]]:
    """Return an exponential histogram's scale, first index and counts, merged to at most MAX_BUCKETS."""
    counts = {index: n for index, n in histogram.counts.items() if index != ZERO}
    if not counts:
        return SCALE, 0, []
    down, first, last = 0, min(counts), max(counts)
    while (last >> down) - (first >> down) >= MAX_BUCKETS:
        down += 1
    first, last = first >> down, last >> down
    row = [0] * (last - first + 1)
    for index, n in counts.items():
        row[(index >> down) - first] += n
    return SCALE - down, first, row


def buckets_of(histogram: Histogram, bounds: Sequence[float]) -> Buckets:
    """Return the histogram as Prometheus gets it."""
    counts = accumulate(histogram.counts[place] for place in range(len(bounds) + 1))
    return Buckets((*bounds, math.inf), tuple(map(float, counts)))


@dataclass(frozen=True, slots=True)
class Buckets:
    """Upper bounds in ascending order, the last one infinite, and the number of observations at or below each."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.bounds) != len(self.counts) or not self.bounds or self.bounds[-1] != math.inf:
            raise ValueError("need a count for each bound, and an infinite last bound")

    @property
    def count(self) -> float:
        return self.counts[-1]

    def since(self, earlier: Buckets | None) -> Buckets:
        """Return what came after an earlier scrape; everything if another process has replaced it since."""
        if earlier is None or earlier.bounds != self.bounds or earlier.count > self.count:
            return self
        counts = tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True))
        return Buckets(self.bounds, counts)

    def quantile(self, q: float) -> float | None:
        """Return the quantile as ``histogram_quantile`` of Prometheus does: rank q x count, interpolated in its bucket.

        The first bucket begins at 0; a rank above the last finite bound gives that bound; q = 0 gives the lower bound
        of the first bucket that is not empty. None if there are no observations.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q must be from 0 to 1, not {q}")
        if not self.count:
            return None
        rank = q * self.count
        i = bisect_left(self.counts, rank) if rank else bisect_right(self.counts, 0.0)
        before = self.counts[i - 1] if i else 0.0
        low = self.bounds[i - 1] if i else min(0.0, self.bounds[0])
        if math.isinf(self.bounds[i]):
            return low
        return low + (self.bounds[i] - low) * (rank - before) / (self.counts[i] - before)


_NO_LABELS: Labels = {}
Values = Mapping[str, float]
"""What one request adds to the given instruments: name -> value; absent if it has none."""
Value = tuple[str, Labels, float]
"""An instrument's name, the attributes besides the cell's, and the value to add."""


def values_of(record: RequestRecord, failure: str | None) -> Iterator[Value]:
    """Yield what one finished request adds; what it lacks is not added (no zero stands for absent)."""
    labels = _NO_LABELS if failure is None else {of.ERROR_TYPE: failure}
    single: list[tuple[str, Labels, float | None]] = [
        # A timer may fire microseconds early; early is not late, and a histogram takes no negative value.
        (of.SEND_LAG, _NO_LABELS, _not_negative(record.send_lag_s)),
        (of.READ_LAG, _NO_LABELS, None if record.read_lag_max_ns is None else record.read_lag_max_ns / NS),
        (of.TOKENS, {of.TOKEN_TYPE: "input", **labels}, record.prompt_tokens),
        (of.TOKENS, {of.TOKEN_TYPE: "output", **labels}, record.output_tokens if record.is_covered else None),
    ]
    if record.completed:
        single += [
            (of.DURATION, _NO_LABELS, record.e2e_s),
            (of.FIRST_CHUNK, _NO_LABELS, record.ttft_s),
            (of.TOKEN_RATE, _NO_LABELS, record.client_tokens_per_s),
            (of.SERVER_LOAD, _NO_LABELS, record.load_s),
            (of.SERVER_PROMPT_EVAL, _NO_LABELS, record.prompt_eval_s),
            (of.SERVER_EVAL, _NO_LABELS, record.eval_s),
            (of.QUEUE, _NO_LABELS, _not_negative(record.queue_s)),
        ]
    elif failure is not None and record.sent_ns is not None and record.end_ns is not None:
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
    pushed: Histogram | None
    views: tuple[Histogram, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.push(self.pushed)

    def push(self, pushed: Histogram | None) -> None:
        """Count into this one too from now on, in place of the one before."""
        self.pushed = pushed
        self.views = (self.served,) if pushed is None else (self.served, pushed)


class Histograms:
    """Every histogram series, of the load's own instruments and of those ``given``.

    ``pushed`` creates the view of an instrument that is pushed; None: nothing is.
    """

    def __init__(
        self, given: Iterable[Instrument] = (), pushed: Callable[[Instrument], Histogram] | None = None
    ) -> None:
        self.instruments = {**of.BY_NAME, **{instrument.name: instrument for instrument in given}}
        self._pushed = pushed
        self._series: dict[CellLabels, dict[tuple[str, tuple[str | int, ...]], HistogramSeries]] = {}
        self.lock = Lock()

    def add(self, cell: CellLabels, record: RequestRecord, values: Values, failure: str | None,
            exemplar: Exemplar | None) -> None:  # fmt: skip
        """Add what one finished request gives; ``values``: to the instruments that were given."""
        given = ((name, _NO_LABELS, float(value)) for name, value in values.items())
        with self.lock:
            known = self._series.setdefault(cell, {})
            for name, besides, value in chain(values_of(record, failure), given):
                key = name, tuple(besides.values())
                for histogram in (known.get(key) or self._begin(cell, name, besides)).views:
                    histogram.add(value, exemplar)
            if record.completed and not record.is_gathered and (gaps_s := record.gaps_s):
                for histogram in (known.get((of.CHUNK_GAP, ())) or self._begin(cell, of.CHUNK_GAP, _NO_LABELS)).views:
                    histogram.add_all(gaps_s, exemplar)

    def forget(self, cell: CellLabels) -> None:
        """Show the cell's series no longer."""
        with self.lock:
            self._series.pop(cell, None)

    def _begin(self, cell: CellLabels, name: str, besides: Labels) -> HistogramSeries:
        instrument = self.instruments[name]
        base = genai_attributes(cell) if name.startswith("gen_ai.") else own_attributes(cell)
        pushed = None if self._pushed is None else self._pushed(instrument)
        series = HistogramSeries({**base, **besides}, explicit(instrument.buckets), pushed)
        self._series[cell][name, tuple(besides.values())] = series
        return series

    def by_instrument(self) -> Mapping[str, list[HistogramSeries]]:
        """Return instrument name -> its series; call it and use the result under the lock."""
        found: dict[str, list[HistogramSeries]] = {}
        for of_cell in self._series.values():
            for (name, _), series in of_cell.items():
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

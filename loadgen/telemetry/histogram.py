"""Histograms with an exemplar per bucket, at a hundredth of the cost of OpenTelemetry's, and all those of a load.

Every token brings a gap, and one ``record`` of OpenTelemetry takes 9 µs; its Prometheus exporter also has no exemplars.
So requests are kept as they come, and counted hundreds at a time, or when somebody asks.
Invariant: counts, sums and bounds equal those of OpenTelemetry for the same values; tests compare the two. A whole
request is added under one lock, so that no scrape sees half of it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from operator import attrgetter
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from loadgen.telemetry import instruments as of
from loadgen.telemetry.instruments import CellLabels, Instrument, Labels, genai_attributes, own_attributes
from loadgen.types import NS, RequestRecord

if TYPE_CHECKING:
    import numpy
    from prometheus_client.core import Metric
    from prometheus_client.samples import Exemplar as OpenMetricsExemplar

    Array = numpy.ndarray[Any, Any]

SCALE = 5
"""Exponential buckets grow by 2^(2^-SCALE), 2.2 %, as long as they all fit."""
MAX_BUCKETS = 160
"""OpenTelemetry's own limit; above it, neighbours are merged two by two."""
_FEW_PLACES = 1 << 12
"""Up to which place counting in an array is quicker than in a dictionary."""
ZERO = -(1 << 31)
"""The index of the bucket for exactly 0."""


class Exemplar(NamedTuple):
    """The request that a value came from, which leads from a bucket to the row (and to the trace, if there is one)."""

    run_id: str
    request_index: int
    at_ns: int
    """Unix time in nanoseconds."""
    trace_id: int | None = None
    span_id: int | None = None


class Histogram:
    """Counts by bucket; ``places`` returns the bucket of each value."""

    __slots__ = ("counts", "exemplars", "high", "low", "n", "places", "total")

    def __init__(self, places: Callable[[Array], Array]) -> None:
        self.places = places
        self.counts: Counter[int] = Counter()
        self.exemplars: dict[int, tuple[float, Exemplar]] = {}
        """The latest exemplar of each bucket, with its value."""
        self.n = 0
        self.total = 0.0
        self.low = math.inf
        self.high = -math.inf

    def add(self, values: Array) -> None:
        """Count the values."""
        self.counts.update(_tally(self.places(values)))
        self.n += len(values)
        self.total += float(values.sum())
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def exemplify(self, values: Array, exemplars: Sequence[Exemplar | None]) -> None:
        """Keep the request that each of some values came from, where it is known, as the example of its bucket."""
        latest = dict(zip(self.places(values).tolist(), zip(values.tolist(), exemplars, strict=True), strict=True))
        self.exemplars.update((place, (value, found)) for place, (value, found) in latest.items() if found is not None)


def _tally(places: Array) -> Mapping[int, int]:
    """Return how often each place occurs."""
    import numpy as np

    if places.min() < 0 or places.max() > _FEW_PLACES:
        return Counter(places.tolist())
    times = np.bincount(places)
    found = np.flatnonzero(times)
    return dict(zip(found.tolist(), times[found].tolist(), strict=True))


def explicit(bounds: Sequence[float]) -> Histogram:
    """Return a histogram with these upper bounds; a value equal to a bound counts as below it."""
    import numpy as np  # late: takes 60 ms

    row = np.array(bounds)
    return Histogram(lambda values: np.searchsorted(row, values))


def exponential() -> Histogram:
    """Return a histogram whose bounds are the powers of 2^(2^-SCALE)."""
    import numpy as np

    return Histogram(lambda values: np.fromiter(map(exponential_index, values.tolist()), np.int64, len(values)))


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
_MOST_WAITING = 256
"""Requests that wait to be counted together."""
Values = Mapping[str, float]
"""What one request adds to the given instruments: name -> value; absent if it has none."""
Added = tuple[RequestRecord, Values, str | None, "Exemplar | None"]
"""A finished request, its values for the given instruments, how it failed, and the example that it is."""
Column = tuple[str, Labels, Sequence[float | None]]
"""An instrument's name, the attributes besides the cell's, and the value of each request."""


def values_of(records: Sequence[RequestRecord], failure: str | None) -> Iterator[Column]:
    """Yield what finished requests add that failed in one way, or did not; None stands for what one of them lacks."""
    for name, besides, of_record in _OF_ANY:
        labels = besides if failure is None or name != of.TOKENS else {**besides, of.ERROR_TYPE: failure}
        yield name, labels, [*map(of_record, records)]
    completed = [record if record.completed else None for record in records]
    for name, of_record in _OF_COMPLETED:
        yield name, _NO_LABELS, [None if record is None else of_record(record) for record in completed]
    if failure is not None:
        yield of.DURATION, {of.ERROR_TYPE: failure}, [_between(record.sent_ns, record.end_ns) for record in records]


Of = Callable[[RequestRecord], float | None]
_OF_ANY: tuple[tuple[str, Labels, Of], ...] = (
    # A timer may fire microseconds early; early is not late, and a histogram takes no negative value.
    (of.SEND_LAG, _NO_LABELS, lambda record: _not_negative(record.send_lag_s)),
    (of.READ_LAG, _NO_LABELS, lambda record: _between(0, record.read_lag_max_ns)),
    (of.TOKENS, {of.TOKEN_TYPE: "input"}, lambda record: record.prompt_tokens),
    (of.TOKENS, {of.TOKEN_TYPE: "output"}, lambda record: record.output_tokens if record.is_covered else None),
)
_OF_COMPLETED: tuple[tuple[str, Of], ...] = (
    (of.DURATION, attrgetter("e2e_s")),
    (of.FIRST_CHUNK, attrgetter("ttft_s")),
    (of.TOKEN_RATE, attrgetter("client_tokens_per_s")),
    (of.SERVER_LOAD, attrgetter("load_s")),
    (of.SERVER_PROMPT_EVAL, attrgetter("prompt_eval_s")),
    (of.SERVER_EVAL, attrgetter("eval_s")),
    (of.QUEUE, lambda record: _not_negative(record.queue_s)),
)


def _between(start_ns: int | None, end_ns: int | None) -> float | None:
    return None if start_ns is None or end_ns is None else (end_ns - start_ns) / NS


def _not_negative(value: float | None) -> float | None:
    return None if value is None else max(0.0, value)


def gaps_of(streams: Sequence[tuple[int, ...]]) -> tuple[Array, Array]:
    """Return the gaps between the chunks of streams of two or more, in seconds, and the longest of each stream."""
    import numpy as np

    lengths = np.array([*map(len, streams)])
    chunk_ns = np.fromiter(chain.from_iterable(streams), np.int64, lengths.sum())
    within = np.ones(len(chunk_ns) - 1, bool)
    within[np.cumsum(lengths)[:-1] - 1] = False  # from the end of a stream to the next
    gaps_s = np.diff(chunk_ns)[within] / NS
    return gaps_s, np.maximum.reduceat(gaps_s, np.cumsum(lengths - 1) - (lengths - 1))


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
        self._waiting: dict[CellLabels, list[Added]] = {}
        """Requests that are not counted yet."""
        self.lock = Lock()

    def add(self, cell: CellLabels, record: RequestRecord, values: Values, failure: str | None,
            exemplar: Exemplar | None) -> None:  # fmt: skip
        """Add what one finished request gives; ``values``: to the instruments that were given."""
        with self.lock:
            waiting = self._waiting.setdefault(cell, [])
            waiting.append((record, values, failure, exemplar))
            if len(waiting) == _MOST_WAITING:
                self._count(cell, self._waiting.pop(cell))

    def _count(self, cell: CellLabels, added: Sequence[Added]) -> None:
        groups: dict[str | None, list[Added]] = {}
        for each in added:
            groups.setdefault(each[2], []).append(each)
        for failure, group in groups.items():
            records, exemplars = [record for record, *_ in group], [exemplar for *_, exemplar in group]
            names = dict.fromkeys(name for _, values, _, _ in group for name in values)
            given = ((name, _NO_LABELS, [values.get(name) for _, values, _, _ in group]) for name in names)
            for name, besides, numbers in chain(values_of(records, failure), given):
                self._add(cell, name, besides, numbers, exemplars)
            self._add_gaps(cell, records, exemplars)

    def _add(self, cell: CellLabels, name: str, besides: Labels, numbers: Sequence[float | None],
             exemplars: Sequence[Exemplar | None]) -> None:  # fmt: skip
        import numpy as np

        if None in numbers:
            there = [i for i, number in enumerate(numbers) if number is not None]
            numbers, exemplars = [numbers[i] for i in there], [exemplars[i] for i in there]
        if numbers:
            values = np.array(numbers, dtype=float)
            for histogram in self._views(cell, name, besides):
                histogram.add(values)
                histogram.exemplify(values, exemplars)

    def _add_gaps(
        self, cell: CellLabels, records: Sequence[RequestRecord], exemplars: Sequence[Exemplar | None]
    ) -> None:
        streams = [(record.chunk_ns, exemplar) for record, exemplar in zip(records, exemplars, strict=True)
                   if record.completed and not record.is_gathered and len(record.chunk_ns) > 1]  # fmt: skip
        if streams:
            gaps_s, longest_s = gaps_of([chunk_ns for chunk_ns, _ in streams])
            for histogram in self._views(cell, of.CHUNK_GAP, _NO_LABELS):
                histogram.add(gaps_s)
                histogram.exemplify(longest_s, [exemplar for _, exemplar in streams])

    def _views(self, cell: CellLabels, name: str, besides: Labels) -> tuple[Histogram, ...]:
        known = self._series.setdefault(cell, {}).get((name, tuple(besides.values())))
        return (known or self._begin(cell, name, besides)).views

    def forget(self, cell: CellLabels) -> None:
        """Show the cell's series no longer."""
        with self.lock:
            self._series.pop(cell, None)
            self._waiting.pop(cell, None)

    def _begin(self, cell: CellLabels, name: str, besides: Labels) -> HistogramSeries:
        instrument = self.instruments[name]
        base = genai_attributes(cell) if name.startswith("gen_ai.") else own_attributes(cell)
        pushed = None if self._pushed is None else self._pushed(instrument)
        series = HistogramSeries({**base, **besides}, explicit(instrument.buckets), pushed)
        self._series[cell][name, tuple(besides.values())] = series
        return series

    def by_instrument(self) -> Mapping[str, list[HistogramSeries]]:
        """Return instrument name -> its series; call it and use the result under the lock."""
        while self._waiting:
            self._count(*self._waiting.popitem())
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

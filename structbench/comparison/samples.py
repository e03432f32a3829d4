"""Turns the rows of two cells into samples and compares them; a figure is of all rows, only its interval of blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from structbench.comparison.pairing import Pair
from structbench.comparison.significance import (
    Difference,
    Floats,
    Ratio,
    Sample,
    block_count,
    blocks_of,
    difference,
    min_n,
    paired_by_case,
    quantile,
    without_variation,
)
from structbench.metrics import COUNTED, METRICS, Metric, gaps_sql
from structbench.results.groups import RunGroup
from structbench.results.measures import meets
from structbench.stats import CONFIDENCE, MIN_CLUSTERS, needed
from structbench.store import Reader

Columns = Mapping[str, Any]
Judgement = Literal["better", "worse", "no detectable difference", "too few", "not comparable"]

_WANTED = "wanted AS (SELECT unnest($runs::VARCHAR[]) AS run_id, unnest(range(len($runs))) AS run)"
_ROWS = f"""
WITH {_WANTED}
SELECT run, request_index, case_id, repeat, segment, {COUNTED} AS counted,
    first_thinking_s AS thinking,
    {", ".join(f"({metric.sql})::DOUBLE AS {metric.name}" for metric in METRICS.values())},
    (end_ns - coalesce(steady_from_ns, min(coalesce(due_ns, sent_ns)) OVER (PARTITION BY run_id, segment))) / 1e9
        AS end_s
FROM requests JOIN wanted USING (run_id)
    LEFT JOIN (SELECT run_id, segment, steady_from_ns FROM segments) USING (run_id, segment)
ORDER BY run, request_index
"""
_GAPS = f"""
WITH {_WANTED}, placed AS (
    SELECT error_kind, steady, chunk_offsets_us, chunks, gathered_chunks,
        (row_number() OVER (ORDER BY run, request_index) - 1) * $blocks // count(*) OVER () AS block
    FROM requests JOIN wanted USING (run_id)
)
{gaps_sql("placed", "block")}
"""
_SEGMENTS = f"""
WITH {_WANTED}, lasted AS (
    SELECT run_id, segment, CASE
        WHEN count(steady_from_ns) OVER (PARTITION BY run_id) > 0
            THEN coalesce((steady_to_ns - steady_from_ns) / 1e9, 0)
        WHEN status IS DISTINCT FROM 'interrupted' THEN duration_s END AS duration_s
    FROM segments
)
SELECT run, segment, duration_s FROM lasted JOIN wanted USING (run_id)
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """The comparison of one metric for one pair."""

    metric: Metric
    a: float | None
    b: float | None
    n_a: int
    n_b: int
    difference: Difference | None = None
    untested: Literal["too few", "not comparable"] | None = None
    why: str | None = None
    """Why there is no interval, or what it excludes."""
    adjusted_p: float | None = None
    gated: bool = False
    """Whether --fail-on names it; those tests are a family of their own."""

    @property
    def significant(self) -> bool:
        return self.adjusted_p is not None and self.adjusted_p <= 1 - CONFIDENCE

    @property
    def word(self) -> Judgement:
        if self.difference is None:
            return "not comparable" if self.untested is None else self.untested
        if not self.significant:
            return "no detectable difference"
        return "better" if (self.difference.value < 0) == self.metric.lower_is_better else "worse"


@dataclass(slots=True)
class CellSamples:
    """The rows of one cell, in the order they were due."""

    rows: Columns
    blocks: int
    block: Any
    gaps: Columns
    slices: int
    slice_of: Any
    """The slice of time in which each request ended; -1 if it never did."""
    slice_s: float
    limited: bool

    @property
    def gap_total(self) -> int:
        return int(self.gaps["n"].sum())

    def scored(self, column: str) -> list[int]:
        """Return the rows that have this score."""
        return np.flatnonzero(~np.isnan(self.rows[column])).tolist()

    def has(self, metric: Metric) -> bool:
        """Return whether the metric adds anything here that others do not."""
        return not metric.only_where or not np.isnan(self.rows[metric.only_where]).all()

    def n(self, metric: Metric) -> int:
        return int(self._counted(metric).sum())

    def _counted(self, metric: Metric) -> Any:
        """Return which rows the metric counts."""
        counted = self.rows["counted"].astype(bool)
        if metric.kind == "latency":
            return ~np.isnan(self.rows[metric.base])
        return np.ones_like(counted) if metric.name == "error_rate" else counted

    def sample(self, metric: Metric) -> Sample | None:
        """Return the metric's sample, or None if the cell does not have this figure."""
        if metric.kind == "rate":
            return self._rate(metric)
        if metric.counts == "gap":
            return self._itl(metric)
        counted = self._counted(metric)
        if not counted.any():
            return None
        block = self.block[counted]
        if metric.kind == "latency":
            values = self.rows[metric.base][counted].astype(float)
            if metric.p is not None:
                return quantile(values, np.ones(len(values)), block, self.blocks, metric.p)
        else:
            values = self.rows[metric.name]
        return Ratio(self._sums(block, values), self._sums(block, np.ones(len(values))))

    def _itl(self, metric: Metric) -> Sample | None:
        gaps, times = self.gaps["gap_us"] / 1e6, self.gaps["n"].astype(float)
        if not len(gaps):
            return None
        block = self.gaps["block"].astype(np.int64)
        if metric.p is not None:
            return quantile(gaps, times, block, self.blocks, metric.p)
        return Ratio(self._sums(block, gaps * times), self._sums(block, times))

    def _rate(self, metric: Metric) -> Sample | None:
        added = self.rows[metric.name]
        if not self.slice_s or np.isnan(added).all() or (metric.name == "goodput" and not self.limited):
            return None
        if metric.of_all and np.isnan(added[self._counted(metric)]).any():
            return None
        counts = np.nan_to_num(added)
        ended = self.slice_of >= 0
        above = np.bincount(self.slice_of[ended], weights=counts[ended], minlength=self.slices).astype(np.float64)
        return Ratio(above, np.full(self.slices, self.slice_s))

    def _sums(self, block: Any, values: Floats) -> Floats:
        return np.bincount(block, weights=values, minlength=self.blocks).astype(np.float64)


def compared(
    readers: tuple[Reader, Reader], pair: Pair, metrics: Sequence[Metric], limits: Mapping[str, float] | None
) -> Iterator[Compared]:
    """Yield each metric of a pair compared, not yet adjusted for the others."""
    a, b = (_samples_of(reader, group, limits) for reader, group in zip(readers, (pair.a, pair.b), strict=True))
    same = all(np.array_equal(a.rows[name], b.rows[name]) for name in ("run", "request_index"))
    for metric in metrics:
        if not (a.has(metric) or b.has(metric)):
            continue
        if metric.counts == "scored answer" and metric.kind != "rate":
            yield _scores(a, b, metric)
        else:
            timing_doubt = None if metric.kind == "share" else _timing_doubt(pair)
            yield _figures(a, b, metric, same and metric.kind != "rate", timing_doubt)


def _timing_doubt(pair: Pair) -> str | None:
    """Return why times cannot be compared, or None."""
    sides = [side for side, group in (("A", pair.a), ("B", pair.b)) if group.verdict == "invalid"]
    return f"the measurement of {' and '.join(sides)} is invalid" if sides else None


def _figures(a: CellSamples, b: CellSamples, metric: Metric, paired: bool, timing_doubt: str | None) -> Compared:
    """Compare latencies, rates and the error rate by block bootstrap."""
    of_a, of_b, n_a, n_b = a.sample(metric), b.sample(metric), a.n(metric), b.n(metric)
    plain = Compared(metric, None if of_a is None else of_a.value, None if of_b is None else of_b.value, n_a, n_b)
    if of_a is None or of_b is None:
        return plain
    if timing_doubt is not None:
        return replace(plain, untested="not comparable", why=timing_doubt)
    if metric.p in (0.0, 1.0):
        return replace(plain, untested="not comparable", why="the extreme of a sample has no interval")
    wanted = MIN_CLUSTERS if metric.counts == "gap" else min_n(metric.p)
    if min(n_a, n_b) < wanted:
        return replace(plain, untested="too few", why=f"needs {wanted} requests")
    if metric.counts == "gap" and metric.p is not None and min(a.gap_total, b.gap_total) < needed(metric.p):
        return replace(plain, untested="too few", why=f"needs {needed(metric.p)} gaps")
    found = difference(of_a, of_b, paired=paired, relative=metric.kind != "share")
    if metric.name == "error_rate" and found.low == found.high:
        found = without_variation(found, n_a, n_b)
    return replace(plain, difference=found)


def _scores(a: CellSamples, b: CellSamples, metric: Metric) -> Compared:
    """Compare answers case by case, whichever runs and repeats of a side asked the question."""
    scored = [side.scored(metric.name) for side in (a, b)]
    values = [side.rows[metric.name][rows] for side, rows in zip((a, b), scored, strict=True)]
    cases = [side.rows["case_id"][rows].astype(str) for side, rows in zip((a, b), scored, strict=True)]
    both = np.intersect1d(*cases)
    if not len(both):
        means = [float(each.mean()) if len(each) else None for each in values]
        plain = Compared(metric, means[0], means[1], len(values[0]), len(values[1]))
        return (
            replace(plain, untested="not comparable", why="no case was scored on both sides") if all(scored) else plain
        )
    shared = [np.isin(each, both) for each in cases]
    ours, theirs = (each[kept] for each, kept in zip(values, shared, strict=True))
    found = paired_by_case(ours, theirs, *(each[kept] for each, kept in zip(cases, shared, strict=True)))
    plain = Compared(metric, found.a, found.b, len(ours), len(theirs))
    if len(both) < MIN_CLUSTERS:
        return replace(plain, untested="too few", why=f"needs {MIN_CLUSTERS} cases")
    alone = sum(int((~kept).sum()) for kept in shared)
    why = f"excludes {alone} answers without a counterpart" if alone else None
    return replace(plain, difference=found, why=why)


def _samples_of(reader: Reader, group: RunGroup, limits: Mapping[str, float] | None) -> CellSamples:
    runs = {"runs": list(group.run_ids)}
    rows = reader.columns(_ROWS.format(good=meets(limits)), runs)
    n = len(rows["run"])
    gaps = reader.columns(_GAPS, {**runs, "blocks": block_count(n)})
    slice_of, slices, slice_s = _slices(rows, reader.columns(_SEGMENTS, runs))
    return CellSamples(rows, block_count(n), blocks_of(n), gaps, slices, slice_of, slice_s, limited=limits is not None)


def _slices(rows: Columns, segments: Columns) -> tuple[Any, int, float]:
    """Divide the total time that rates are of into equal slices: the slice of each request, their number and length.

    A segment that was interrupted or killed lasted as long as its rows show.
    """
    at = rows["end_s"].astype(float).copy()
    total = 0.0
    of_segment = {(int(r), int(s)): d for r, s, d in _by_segment(segments, "duration_s")}
    for run, segment in sorted({*of_segment, *((int(r), int(s)) for r, s in _by_segment(rows))}):
        inside = (rows["run"] == run) & (rows["segment"] == segment)
        known = float(of_segment.get((run, segment), np.nan))
        length = known if np.isfinite(known) else float(np.nanmax(at[inside], initial=0.0))
        at[inside] = np.minimum(at[inside], length) + total
        total += length
    slices = block_count(int(np.isfinite(at).sum()))
    if not total:
        return np.full(len(at), -1), slices, 0.0
    place = np.minimum(at / total * slices, slices - 1)
    return np.where(np.isfinite(place), np.nan_to_num(place), -1).astype(np.int64), slices, total / slices


def _by_segment(columns: Columns, *more: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(columns[name] for name in ("run", "segment", *more)), strict=True)

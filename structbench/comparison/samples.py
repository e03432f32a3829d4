"""Turns the rows of two cells into samples and compares them; a figure is of all rows, only its interval of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np

from structbench.comparison.pairing import Pair
from structbench.comparison.significance import (
    MIN_RUNS,
    Difference,
    Floats,
    Integers,
    Ratio,
    Sample,
    blocks_of,
    difference,
    difference_of_runs,
    min_n,
    paired_by_case,
    quantile,
    without_variation,
)
from structbench.metrics import COUNTED, METRICS, Metric, gaps_sql
from structbench.results.groups import RunGroup
from structbench.results.intervals import END_S, LASTED, slices_of, stretches
from structbench.results.measures import meets
from structbench.stats import CONFIDENCE, MIN_CLUSTERS, MIN_STRETCHES, TOO_ALIKE, needed, percentile_estimate
from structbench.stats.neighbours import Ranks
from structbench.store import Reader

Columns = Mapping[str, Any]
Judgement = Literal["better", "worse", "no detectable difference", "too few", "not comparable"]

_WANTED = "wanted AS (SELECT unnest($runs::VARCHAR[]) AS run_id, unnest(range(len($runs))) AS run)"
_ROWS = f"""
WITH {_WANTED}
SELECT run, request_index, case_id, repeat, segment, {COUNTED} AS counted,
    first_thinking_s AS thinking,
    {", ".join(f"({metric.sql})::DOUBLE AS {metric.name}" for metric in METRICS.values())},
    {", ".join(f"{of.all_of} AND ({of.sql}) IS NULL AS no_{of.name}" for of in METRICS.values() if of.all_of)},
    {END_S} AS end_s
FROM requests JOIN wanted USING (run_id)
    LEFT JOIN (SELECT run_id, segment, steady_from_ns FROM segments) USING (run_id, segment)
ORDER BY run, request_index
"""
_GAPS = f"""
WITH {_WANTED}, placed AS (
    SELECT error_kind, steady, chunk_offsets_us, chunks, gathered_chunks, {{place}} AS block
    FROM requests JOIN wanted USING (run_id)
)
{gaps_sql("placed", "block")}
"""
_BLOCK = "(row_number() OVER (ORDER BY run, request_index) - 1) * $blocks // count(*) OVER ()"
_SEGMENTS = f"""
WITH {_WANTED}, {LASTED}
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
    gaps_by: Callable[[int | None], Columns]
    """Its gaps by so many blocks of neighbouring requests; None: each run is a block."""
    segments: Columns
    limited: bool

    @property
    def runs(self) -> Integers:
        found: Integers = np.unique(self.rows["run"]).astype(np.int64)
        return found

    @property
    def gap_total(self) -> int:
        return int(self.gaps_by(None)["n"].sum())

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

    def values(self, metric: Metric) -> Floats:
        """Return what each request adds, in order; of ITL, its own mean gap."""
        own = self.rows[metric.base if metric.kind == "latency" else metric.name][self._counted(metric)]
        return np.asarray(own[~np.isnan(own)], dtype=np.float64)

    def sample(self, metric: Metric, blocks: int) -> Sample | None:
        """Return the metric's sample, or None if the cell does not have this figure."""
        if metric.kind == "rate":
            return self._rate(metric)
        if metric.counts == "gap":
            return self._itl(metric, blocks)
        counted = self._counted(metric)
        if not counted.any():
            return None
        block = blocks_of(len(counted), blocks)[counted]
        if metric.kind == "latency":
            values = self.rows[metric.base][counted].astype(float)
            if metric.p is not None:
                return quantile(values, np.ones(len(values)), block, blocks, metric.p)
        else:
            values = self.rows[metric.name]
        return Ratio(_sums(block, values, blocks), _sums(block, np.ones(len(values)), blocks))

    def _itl(self, metric: Metric, blocks: int) -> Sample | None:
        found = self.gaps_by(blocks)
        gaps, times, block = found["gap_us"] / 1e6, found["n"].astype(float), found["block"].astype(np.int64)
        if not len(gaps):
            return None
        if metric.p is not None:
            return quantile(gaps, times, block, blocks, metric.p)
        return Ratio(_sums(block, gaps * times, blocks), _sums(block, times, blocks))

    def _rate(self, metric: Metric) -> Sample | None:
        slice_of, slices, slice_s = slices_of(self.rows, self.segments)
        added = self.rows[metric.name]
        if not slice_s or np.isnan(added).all() or (metric.name == "goodput" and not self.limited):
            return None
        if metric.all_of and self.rows[f"no_{metric.name}"].any():
            return None
        counts = np.nan_to_num(added)
        ended = slice_of >= 0
        above = np.bincount(slice_of[ended], weights=counts[ended], minlength=slices).astype(np.float64)
        return Ratio(above, np.full(slices, slice_s))

    def by_run(self, metric: Metric) -> Floats:
        """Return the figure of each run that has it."""
        found = []
        gaps = self.gaps_by(None) if metric.counts == "gap" else {}
        for run in self.runs:
            rows, segments = _of_run(self.rows, "run", run), _of_run(self.segments, "run", run)
            inside = _of_run(gaps, "block", run)
            if inside:
                inside["block"] = np.zeros(len(inside["n"]))
            sample = CellSamples(rows, partial(_the_same, inside), segments, self.limited).sample(metric, 1)
            found += [] if sample is None else [sample.value]
        return np.array(found)


def _of_run(columns: Columns, key: str, run: int) -> dict[str, Any]:
    return {name: values[columns[key] == run] for name, values in columns.items()}


def _the_same(columns: Columns, _: int | None) -> Columns:
    return columns


def _sums(block: Integers, values: Floats, blocks: int) -> Floats:
    return np.bincount(block, weights=values, minlength=blocks).astype(np.float64)


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
    """Compare latencies, rates and the error rate: by run from three runs a side on, else by block bootstrap."""
    of_a, of_b, n_a, n_b = a.sample(metric, 1), b.sample(metric, 1), a.n(metric), b.n(metric)
    plain = Compared(metric, None if of_a is None else of_a.value, None if of_b is None else of_b.value, n_a, n_b)
    if of_a is None or of_b is None:
        return plain
    if timing_doubt is not None:
        return replace(plain, untested="not comparable", why=timing_doubt)
    if metric.p in (0.0, 1.0):
        return replace(plain, untested="not comparable", why="the extreme of a sample has no interval")
    if min(len(a.runs), len(b.runs)) >= MIN_RUNS:
        found = difference_of_runs(
            of_a.value, of_b.value, a.by_run(metric), b.by_run(metric), relative=metric.kind != "share"
        )
    else:
        wanted = MIN_CLUSTERS if metric.counts == "gap" else min_n(metric.p)
        if min(n_a, n_b) < wanted:
            return replace(plain, untested="too few", why=f"needs {wanted} requests")
        if metric.counts == "gap" and metric.p is not None and min(a.gap_total, b.gap_total) < needed(metric.p):
            return replace(plain, untested="too few", why=f"needs {needed(metric.p)} gaps")
        blocks = [_blocks_of(side, metric) for side in (a, b)]
        if 0 in blocks:
            return replace(plain, untested="too few", why=TOO_ALIKE)
        blocks = [min(blocks)] * 2 if paired else blocks
        of_a, of_b = a.sample(metric, blocks[0]), b.sample(metric, blocks[1])
        assert of_a is not None
        assert of_b is not None
        found = difference(of_a, of_b, paired=paired, relative=metric.kind != "share")
    if metric.name == "error_rate" and found.low == found.high:
        found = without_variation(found, n_a, n_b)
    return replace(plain, difference=found)


def _blocks_of(side: CellSamples, metric: Metric) -> int:
    """Return into how many blocks of neighbours requests are cut, each longer than their memory; 0: too few."""
    values, p = side.values(metric), None if metric.counts == "gap" else metric.p
    count = stretches(len(side.rows["run"]))
    if metric.kind == "rate":
        return count
    if p is not None and not percentile_estimate(values, p).has_interval:
        return 0
    memory = Ranks(values).memory(p)
    if memory.dependent:
        count = min(count, memory.effective_n)
    return 0 if memory.blocks_alike or count < MIN_STRETCHES else count


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

    @lru_cache
    def gaps_by(blocks: int | None) -> Columns:
        if blocks is None:
            return reader.columns(_GAPS.format(place="run"), runs)
        return reader.columns(_GAPS.format(place=_BLOCK), {**runs, "blocks": blocks})

    return CellSamples(rows, gaps_by, reader.columns(_SEGMENTS, runs), limited=limits is not None)

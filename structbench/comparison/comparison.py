"""Compares A with B, metric by metric; docs/methods.md has the methods.

Invariant: "better" and "worse" mean significant after adjusting for all tests made together (Holm).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from structbench.comparison.pairing import Pair, Pairing
from structbench.comparison.rule import rule_note
from structbench.comparison.samples import Compared, compared
from structbench.comparison.significance import NO_CASE_DIFFERS, Difference, holm
from structbench.formatting import ABSENT, span_text
from structbench.gates.expressions import Change, Condition, limits_text
from structbench.gates.slo import CellResult, Gate, GateOutcome, Judgement, doubt, judged, settle
from structbench.metrics import COMPARED, limits_of
from structbench.results.groups import RunGroup
from structbench.store import Reader

_MARGIN = 1.2
_MOST = 100_000
"""More requests than this are not worth naming."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of one pair of cells; no rows if they are not comparable."""

    pair: Pair
    rows: tuple[Compared, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    comparisons: tuple[Comparison, ...]
    pairing: Pairing
    tested: int
    """How many tests --fail-on does not name."""
    gated: int
    """How many tests it names."""
    gates: tuple[Gate, ...]


def compare(
    readers: tuple[Reader, Reader], pairing: Pairing, changes: Sequence[Change], limits: Mapping[str, float] | None,
    rule: Sequence[Condition] = (),
) -> Result:  # fmt: skip
    """Compare every pair, adjust the p-values over all of them, and judge --fail-on and each side by the ``rule``.

    The goodput ``limits`` apply to both sides; None: those that all runs of a pair share.
    """
    named = {change.metric.name: replace(change.metric, only_where="") for change in changes}
    metrics = [*named.values(), *(metric for metric in COMPARED if metric.name not in named)]
    comparisons = []
    for each in pairing.pairs:
        rows: list[Compared] = []
        notes = notes_of(each) + ((rule_note(readers, each, rule),) if rule else ())
        if not each.blocking:
            bounds = limits
            if limits is None:
                bounds, differ = _shared_limits(readers, each)
                notes += differ
            notes += (f"goodput counts requests with {limits_text(bounds)}",) if bounds else ()
            rows = [replace(row, gated=row.metric.name in named) for row in compared(readers, each, metrics, bounds)]
        comparisons.append(Comparison(each, tuple(rows), notes))
    comparisons, sizes = _adjusted(comparisons)
    gates = tuple(judge_changes(comparisons, pairing.only_a, changes))
    return Result(tuple(comparisons), pairing, sizes[False], sizes[True], gates)


def _shared_limits(readers: tuple[Reader, Reader], pair: Pair) -> tuple[dict[str, float] | None, tuple[str, ...]]:
    """Return the limits that all runs of a pair share, or none and a note if they differ."""
    sql = "SELECT DISTINCT goodput_limits AS limits FROM runs WHERE run_id IN (SELECT unnest($1::VARCHAR[]))"
    found = [
        limits_of(row["limits"])
        for reader, group in zip(readers, (pair.a, pair.b), strict=True)
        for row in reader.query(sql, [list(group.run_ids)])
    ]
    if any(limits != found[0] for limits in found):
        return None, ("the runs had different --goodput limits, so none are used: give --goodput to set them for both",)
    return found[0], ()


def _adjusted(comparisons: Sequence[Comparison]) -> tuple[list[Comparison], dict[bool, int]]:
    """Adjust the p-values in two families: the metrics named by --fail-on, and the rest."""
    found: dict[tuple[int, int], float] = {}
    sizes = {}
    for gated in (False, True):
        family = [
            ((i, j), row.difference.p_value)
            for i, each in enumerate(comparisons)
            for j, row in enumerate(each.rows)
            if row.gated == gated and row.difference is not None
        ]
        found |= dict(zip((place for place, _ in family), holm([p for _, p in family]), strict=True))
        sizes[gated] = len(family)
    return [
        replace(each, rows=tuple(replace(row, adjusted_p=found.get((i, j))) for j, row in enumerate(each.rows)))
        for i, each in enumerate(comparisons)
    ], sizes


def notes_of(pair: Pair) -> tuple[str, ...]:
    """Return what a reader must know about the two cells before trusting the table."""
    notes = []
    for side, group in (("A", pair.a), ("B", pair.b)):
        if group.marks:
            reasons = f": {'; '.join(group.reasons)}" if group.reasons else ""
            notes.append(f"{side} is {', '.join(group.marks)}{reasons}")
        if len(group.run_ids) > 1:
            notes.append(f"{side} is {len(group.run_ids)} runs of one config, pooled")
    for key, text in (("system", "system"), ("cores", "number of cores")):
        before, after = pair.a.environment.get(key), pair.b.environment.get(key)
        if before != after:
            notes.append(f"the client's {text} differs: {before} → {after}")
    if pair.a.model != pair.b.model:
        notes.append("the two models split text into tokens differently: TPOT, ITL and tokens/s count tokens, not text")
    return tuple(notes)


def judge_changes(
    comparisons: Sequence[Comparison], only_a: Sequence[RunGroup], changes: Sequence[Change]
) -> Iterable[Gate]:
    """Judge each --fail-on on each pair; not decided for a cell only in A, and if it applies to no pair."""
    why = "no counterpart in B: measure it there, or exclude it with --only"
    results = [
        *(CellResult(each.pair.name, gates=[_gate(each, change) for change in changes]) for each in comparisons),
        *(CellResult(name, gates=[Gate(name, change.text, "not decided", None, 0, why) for change in changes])
          for name in (group.name for group in only_a)),
    ]  # fmt: skip
    settle(results)
    yield from (gate for result in results for gate in result.gates)
    if not results:
        yield from (Gate("A → B", change.text, "not decided", None, 0, "A has no cells") for change in changes)


def _gate(comparison: Comparison, change: Change) -> Gate:
    pair = comparison.pair

    def gate(outcome: GateOutcome, text: str, row: Compared | None = None) -> Gate:
        value = None if row is None or row.difference is None else row.difference.value
        return Gate(pair.name, change.text, outcome, value, 0 if row is None else min(row.n_a, row.n_b), text)

    if pair.blocking:
        return gate("not decided", f"not comparable: {'; '.join(pair.blocking)}")
    row = next(row for row in comparison.rows if row.metric.name == change.metric.name)
    unsure = list(_doubts(comparison))
    if row.a is None and row.b is None:
        if unsure:
            return gate("not decided", f"neither side has this figure; but {' and '.join(unsure)}")
        return gate("skip", "does not apply: neither side has this figure")
    if row.a is None or row.b is None or row.difference is None:
        return gate("not decided", row.why or f"{'A' if row.a is None else 'B'} does not have this figure", row)
    shown = f"{change_text(row)} ({interval_text(row)})"
    outcome, said = _judged(change, row.difference)
    if outcome == "not decided":
        said += "".join(f"; {text}" for text in _more(change, row, row.difference, pair))
    if outcome != "not met" and unsure:
        return gate("not decided", f"{shown}; but {' and '.join(unsure)}", row)
    return gate(outcome, f"{shown}: {said}", row)


def _judged(change: Change, found: Difference) -> tuple[Judgement, str]:
    """Judge a change by its interval, and say how."""
    metric, is_rise = change.metric, change.op[0] == ">"
    if metric.kind == "share" and is_rise == metric.lower_is_better and found.b == float(not is_rise):
        return "met", "B is as good as can be"
    if found.method == NO_CASE_DIFFERS and change.keeps(0.0, found.a):
        return "met", "no case differs"
    best, worst = (found.low, found.high) if is_rise else (found.high, found.low)
    match judged(lambda difference: change.keeps(difference, found.a), best, worst):
        case "met":
            return "met", "the whole interval is within the limit"
        case "not met":
            return "not met", "the whole interval is beyond the limit"
        case _ if not change.value:
            return "not decided", "the interval contains 0, as it does without any change: allow a margin, e.g. 5 %"
        case _:
            return "not decided", "the interval contains the limit: only more requests or runs can tell"


def _more(change: Change, row: Compared, found: Difference, pair: Pair) -> Iterator[str]:
    """Yield for each side what would decide a change, if it stayed as it is, where the side kept its command."""
    limit = change.value * found.a if change.relative else change.value
    distance, n = abs(limit - found.value), max(row.n_a, row.n_b)
    needs = ceil(n * _MARGIN * ((found.high - found.low) / 2 / distance) ** 2) if distance else _MOST
    for side, group, has in (("A", pair.a, row.n_a), ("B", pair.b, row.n_b)):
        words = group.command
        if words is None or not n < needs < _MOST:
            continue
        takes_s = group.duration_s * (needs - has) / has if group.duration_s and has else None
        takes = "" if takes_s is None else f" ({span_text(takes_s)} there)"
        command = shlex.join(["structbench", "load", *words, "--skip-cached", "--requests", str(needs)])
        yield f"about {needs:,} requests would tell, for {side}{takes}: {command}"


def _doubts(comparison: Comparison) -> Iterator[str]:
    """Yield why a pair cannot make anything pass, one text for each side to blame."""
    rate = next(row for row in comparison.rows if row.metric.name == "requests_per_s")
    for side, group, completed in (("A", comparison.pair.a, rate.n_a), ("B", comparison.pair.b, rate.n_b)):
        if doubt({"status": group.status, "verdict": group.verdict}) is not None:
            yield f"{side} is {group.status if group.status != 'complete' else group.verdict}"
        elif not completed:
            yield f"{side} completed no request"


def change_text(row: Compared) -> str:
    """Return the change relative to A, ``+14 %``; for shares ``-3.3 pp``; if A is 0, in the metric's unit."""
    return ABSENT if row.a is None or row.b is None else _bounds_text(row, row.b - row.a)


def interval_text(row: Compared) -> str:
    """Return the interval, ``+3 … +21 %``, in the unit of ``change_text``."""
    return ABSENT if row.difference is None else _bounds_text(row, row.difference.low, row.difference.high)


def _bounds_text(row: Compared, *ends: float) -> str:
    if row.metric.kind == "share":
        return f"{' … '.join(_signed(end * 100) for end in ends)} pp"
    if row.metric.kind == "score":
        return " … ".join(f"{end:+.2f}" for end in ends)
    if row.a:
        return f"{' … '.join(_signed(end / row.a * 100) for end in ends)} %"
    return " … ".join(f"{end:+.3g}" for end in ends) + (" s" if row.metric.kind == "latency" else "/s")


def _signed(percent: float) -> str:
    return f"{percent:+.1f}" if abs(percent) < 9.95 else f"{percent:+,.0f}"

"""Constrained vs free: what passing a schema as ``format`` gains and costs, request by request. Pure.

The same cases with the same seeds are asked twice, with the schema as Ollama's ``format`` and with the schema in
the prompt only; docs/methods.md has the formulas. Intervals are of paired differences; the unit is the case, however
often it was asked, and with too few cases there is no interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from structbench.formatting import latency_text, plural, printable, rate_text, share_text, simple_table
from structbench.stats import interval_ranks, needed

if TYPE_CHECKING:
    from rich.console import Console


MIN_UNITS = needed(0.5)
"""The fewest cases (or schemas) for which two order statistics enclose a median with 95 % confidence."""

ROWS = """
SELECT request_index, segment, sent_ns, error_kind, schema_valid, CASE WHEN accuracy_score IS NOT NULL
    THEN outcome = 'correct' END AS correct, ttft_s, client_tokens_per_s, steady
FROM requests WHERE run_id = $1 ORDER BY segment, sent_ns
"""
"""SQL for the rows of a run that ``compare`` takes."""

Row = Mapping[str, Any]
Pairs = Sequence[tuple[float, float]]
"""Before and after, for each repeat of a case."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Constrained - free over ``n`` cases, or new - known of ``n`` schemas, with a 95 % interval where n allows one."""

    n: int
    before: float | None = None
    after: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def compare(
    constrained: Sequence[Row], free: Sequence[Row], schema_of: Callable[[int], str | None], cases: int
) -> dict[str, dict[str, Any]]:
    """Return what changes from free to constrained, by name.

    ``schema_of`` returns the schema for a request index; after ``cases`` requests the cases repeat.
    """
    pairs = _paired(constrained, free)
    return {
        "schema_valid": asdict(shares(_paired_values(pairs, "schema_valid", cases))),
        "correct": asdict(shares(_paired_values(pairs, "correct", cases))),
        "ttft_s": asdict(medians(_paired_values(pairs, "ttft_s", cases))),
        "tokens_per_s": asdict(medians(_paired_values(pairs, "client_tokens_per_s", cases))),
        "new_schema_ttft_s": asdict(medians([[pair] for pair in new_schemas(constrained, schema_of)])),
        "new_schema_ttft_free_s": asdict(medians([[pair] for pair in new_schemas(free, schema_of)])),
    }


def _paired(constrained: Iterable[Row], free: Iterable[Row]) -> list[tuple[Row, Row]]:
    by_index = {row["request_index"]: row for row in constrained}
    return [(row, by_index[row["request_index"]]) for row in free if row["request_index"] in by_index]


def _paired_values(pairs: Iterable[tuple[Row, Row]], column: str, cases: int) -> list[Pairs]:
    """Return for each case the pairs with a value on both sides; times only of completed, steady requests."""
    timed = column in ("ttft_s", "client_tokens_per_s")

    def counts(row: Row) -> bool:
        return row[column] is not None and not (timed and (row["error_kind"] or row["steady"] is False))

    found: dict[int, list[tuple[float, float]]] = {}
    for one, other in pairs:
        if counts(one) and counts(other):
            found.setdefault(one["request_index"] % cases, []).append((one[column], other[column]))
    return list(found.values())


def shares(cases: Sequence[Pairs]) -> PairedDifference:
    """Return two shares of the same requests and their difference, with an interval over cases.

    Where each case was asked once, it is Bonett and Price's interval for paired proportions (J. Educational and
    Behavioral Statistics 37, 2012), which does not shrink to a point where all pairs agree.
    """
    import numpy as np  # here: a load that has nothing to compare starts faster without it

    from structbench.comparison.significance import interval_by_case

    if not cases:
        return PairedDifference(0)
    changes = [[float(after) - float(before) for before, after in pairs] for pairs in cases]
    sums, sizes = np.array([sum(case) for case in changes]), np.array([float(len(case)) for case in changes])
    low, high = interval_by_case(sums, sizes)
    before, after = (fmean(bool(pair[side]) for pairs in cases for pair in pairs) for side in (0, 1))
    return PairedDifference(len(cases), before, after, float(sums.sum() / sizes.sum()), low, high)


def medians(cases: Sequence[Pairs]) -> PairedDifference:
    """Return two medians of the same requests, and the median difference of the cases with its exact interval.

    The difference of a case is the median over its repeats. The interval's ends are order statistics of these
    (the number of differences below their median is binomial, whatever their distribution).
    """
    n = len(cases)
    if n == 0:
        return PairedDifference(0)
    differences = sorted(median(after - before for before, after in pairs) for pairs in cases)
    before, after = (median(pair[side] for pairs in cases for pair in pairs) for side in (0, 1))
    low, high = (None if rank is None else differences[rank - 1] for rank in interval_ranks(n, 0.5))
    return PairedDifference(n, before, after, median(differences), low, high)


def new_schemas(rows: Iterable[Row], schema_of: Callable[[int], str | None]) -> list[tuple[float, float]]:
    """Return for each schema sent more than once the median TTFT of its later requests, and the TTFT of the first.

    ``rows`` are in the order sent; a schema whose first request failed is skipped.
    """
    waits: dict[str, list[float | None]] = {}
    for row in rows:
        schema = schema_of(row["request_index"])
        if schema is not None and row["sent_ns"] is not None:
            waits.setdefault(schema, []).append(None if row["error_kind"] else row["ttft_s"])
    pairs = []
    for first, *later in waits.values():
        known = [wait for wait in later if wait is not None]
        if first is not None and known:
            pairs.append((median(known), first))
    return pairs


def _points(share: float | None) -> str:
    """Format the difference of two shares in percentage points, which are not per cent."""
    return share_text(share).replace("%", "pp")


_Write = Callable[[float | None], str]
_ROWS_SHOWN: Mapping[str, tuple[str, _Write, _Write]] = {
    "schema_valid": ("schema valid", share_text, _points),
    "correct": ("correct", share_text, _points),
    "ttft_s": ("TTFT p50", latency_text, latency_text),
    "tokens_per_s": ("tok/s stream", rate_text, rate_text),
}
_NEW_SCHEMA_ROWS = {"new_schema_ttft_free_s": "new schema, prompt", "new_schema_ttft_s": "new schema, format"}


def print_pairs(pairs: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print a table for each pair of runs: free, constrained, and the difference with its interval."""
    from rich.text import Text

    for pair in pairs:
        table = simple_table()
        table.add_column(Text(printable(f"{pair['model']} {pair['suite']} {pair['load']}")), overflow="fold")
        for header in ("prompt", "format", "difference", "95 % interval", "n"):
            table.add_column(header, justify="right")
        for key, (name, write, write_change) in _ROWS_SHOWN.items():
            found = pair[key]
            table.add_row(name, write(found["before"]), write(found["after"]), *_change(found, write_change))
        for key, name in _NEW_SCHEMA_ROWS.items():
            table.add_row(name, "", "", *_change(pair[key], latency_text))
        console.print(Text("Constrained (format) vs free (prompt)", "bold cyan"), table, sep="\n")
        known = pair["new_schema_ttft_s"]["n"]
        if known < MIN_UNITS:
            console.print(f"{plural(known, 'schema')} came twice; the cost of a new schema needs {MIN_UNITS}: give "
                          "more --requests than the suite has cases, and a suite with that many schemas.")  # fmt: skip
        console.print()
    if pairs:
        console.print("n: cases (repeats count once); for a new schema, schemas")
        console.print("new schema: TTFT of the first request with a schema minus that of later ones\n")


def _change(found: Mapping[str, Any], write: _Write) -> tuple[str, str, str]:
    def signed(value: float | None) -> str:
        return write(value) if value is None or value < 0 else f"+{write(value)}"

    low, high = found["low"], found["high"]
    interval = "too few" if low is None else f"{signed(low)} to {signed(high)}"
    return signed(found["difference"]), interval, str(found["n"])

"""Figures, their targets, and the table that shows both. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number; ``at_most`` or ``at_least`` is its target, if any."""

    benchmark: str
    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.benchmark, self.name

    @property
    def target(self) -> str:
        if self.at_most is not None:
            return f"≤ {number(self.at_most)} {self.unit}".rstrip()
        return "" if self.at_least is None else f"≥ {number(self.at_least)} {self.unit}".rstrip()

    def is_met_by(self, value: float) -> bool | None:
        """Return whether a value meets the target, or None without a target."""
        if self.at_most is not None:
            return value <= self.at_most
        return None if self.at_least is None else value >= self.at_least


@dataclass(frozen=True, slots=True)
class FigureRow:
    """A figure's values over the repeats."""

    figure: Figure
    values: tuple[float, ...]

    @property
    def middle(self) -> float:
        return median(self.values)

    @property
    def cells(self) -> tuple[str, ...]:
        figure, values = self.figure, self.values
        spread = f"{number(min(values))} to {number(max(values))}" if len(values) > 1 else ""
        met = {True: "met", False: "**missed**", None: ""}[figure.is_met_by(self.middle)]
        return figure.name, figure.target, f"{number(self.middle)} {figure.unit}".rstrip(), spread, met


HEADINGS = ("figure", "target", "median", "range", "")


def lines(repeats: Iterable[Sequence[Figure]]) -> list[FigureRow]:
    """Return a row for each figure, with its values of all repeats, in the order of the first repeat."""
    values: dict[tuple[str, str], list[float]] = {}
    first: dict[tuple[str, str], Figure] = {}
    for figures in repeats:
        for figure in figures:
            first.setdefault(figure.key, figure)
            values.setdefault(figure.key, []).append(figure.value)
    return [FigureRow(figure, tuple(values[key])) for key, figure in first.items()]


def markdown(found: Sequence[FigureRow]) -> str:
    """Return a table for each benchmark, as in docs/benchmarks.md."""
    by_benchmark: dict[str, list[FigureRow]] = {}
    for line in found:
        by_benchmark.setdefault(line.figure.benchmark, []).append(line)
    return "\n\n".join(f"### {name}\n\n{_table(group)}" for name, group in by_benchmark.items())


def _table(group: Sequence[FigureRow]) -> str:
    rows = [HEADINGS, *(line.cells for line in group)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    shown = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    shown.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(shown)


def number(value: float) -> str:
    """Format a number without exponent, with thousands separators; a small one does not look like zero."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if 0 < abs(value) < 0.01:
        return f"{value:.4f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"

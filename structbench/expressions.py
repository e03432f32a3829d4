"""The small language of --slo, --fail-on and --goodput: ``METRIC OP VALUE[UNIT]``. Pure.

Invariant: whatever does not parse is one line that says where (counted from 1) and what was expected there.
Metrics and their formulas are those of docs/metrics.md.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from typing import Literal, NoReturn

from structbench.errors import BadInput
from structbench.wording import printable

Kind = Literal["latency", "rate", "share"]
Op = Literal["<", "<=", ">", ">="]

OPS: Mapping[Op, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip

LATENCIES: Mapping[str, str] = {
    "ttft": "ttft_s", "ttft_due": "ttft_due_s", "itl": "itl_mean_s", "tpot": "tpot_s", "e2e": "e2e_s",
    "e2e_due": "e2e_due_s",
}  # fmt: skip
"""Name -> the column of ``requests``; percentiles and mean of ``itl`` are over all gaps, not over this column."""
MAY_BE_ABSENT = ("tpot_s", "itl_mean_s")
"""A completed answer that came in one piece has no time between tokens: no limit on it is broken."""
RATES = ("requests_per_s", "tokens_per_s", "goodput", "correct_goodput")
SHARES = ("json_valid", "schema_valid", "tool_calls_right", "accuracy", "correct", "error_rate")

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
# Decimal, since 95 x 0.01 is not 0.95: 19 right answers of 20 must meet ">=95%".
_SECONDS = {"s": Decimal(1), "ms": Decimal("1e-3"), "us": Decimal("1e-6"), "µs": Decimal("1e-6")}
_VALUE_UNITS: Mapping[Kind, Mapping[str, Decimal]] = {
    "latency": {"": Decimal(1), **_SECONDS},
    "rate": {"": Decimal(1), "/s": Decimal(1)},
    "share": {"": Decimal(1), "%": Decimal("0.01")},
}
_CHANGE_UNITS: Mapping[Kind, Mapping[str, Decimal]] = {
    "latency": {"%": Decimal("0.01"), **_SECONDS},
    "rate": {"%": Decimal("0.01"), "/s": Decimal(1)},
    "share": {"pp": Decimal("0.01")},
}
_SHOWN_UNITS = {"latency": "s, ms or us", "rate": "/s", "share": "%"}
_SHOWN_CHANGES = {"latency": "%, s, ms or us", "rate": "% or /s", "share": "pp (percentage points)"}


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a run."""

    name: str
    kind: Kind
    base: str
    """The latency's name without its suffix; else the same as ``name``."""
    p: float | None = None
    """Latencies: the quantile, 0..1; None: the mean."""

    @property
    def lower_is_better(self) -> bool:
        return self.kind == "latency" or self.name == "error_rate"


@dataclass(frozen=True, slots=True)
class Condition:
    """What a figure must be; seconds, per second, or a share of 1."""

    text: str
    metric: Metric
    op: Op
    value: float

    def holds(self, measured: float) -> bool:
        return OPS[self.op](measured, self.value)


@dataclass(frozen=True, slots=True)
class Change:
    """What a figure must not do from A to B: rise (``>``) or fall (``<``) by more than ``value``."""

    text: str
    metric: Metric
    op: Op
    value: float
    relative: bool
    """``value`` is a part of A's figure; else it has the figure's own unit."""

    def holds(self, before: float, after: float) -> bool:
        """Whether the change from ``before`` to ``after`` is as large; of 0 every change is infinitely large."""
        difference = after - before
        if self.relative and difference:
            difference = difference / before if before else difference * float("inf")
        return OPS[self.op](difference, self.value)


def parse_slo(text: str) -> Condition:
    """``ttft_p95<0.5``, ``itl_p99<100ms``, ``schema_valid>=95%``."""
    parser = _Parser("--slo", text)
    metric, op = parser.metric(), parser.op()
    value = parser.number(_VALUE_UNITS[metric.kind], _SHOWN_UNITS[metric.kind])
    if metric.kind == "share" and not 0 <= value <= 1:
        parser.fail(parser.value_at, "a share from 0 to 1, or a percentage")
    parser.end()
    return Condition(text.strip(), metric, op, value)


def parse_change(text: str) -> Change:
    """``ttft_p95>10%`` (a part of A's figure), ``itl_p99>5ms``, ``schema_valid<-2pp`` (percentage points)."""
    parser = _Parser("--fail-on", text)
    metric, op = parser.metric(), parser.op()
    value = parser.number(_CHANGE_UNITS[metric.kind], _SHOWN_CHANGES[metric.kind])
    if (value < 0) == (op[0] == ">") and value:
        sign = "a number from 0 up: > is a rise" if op[0] == ">" else "a number from 0 down: < is a fall"
        parser.fail(parser.value_at, sign)
    parser.end()
    return Change(text.strip(), metric, op, value, parser.unit == "%")


def parse_limits(text: str) -> dict[str, float]:
    """``ttft<0.5,tpot<50ms``: column of ``requests`` -> the most that a good request may have, in seconds."""
    limits: dict[str, float] = {}
    parser = _Parser("--goodput", text)
    while True:
        at = parser.skip_space()
        name = parser.word()
        if name not in LATENCIES:
            parser.fail(at, f"one of {', '.join(LATENCIES)}{_nearest(name, LATENCIES)}")
        if LATENCIES[name] in limits:
            parser.fail(at, "each limit once")
        op_at = parser.skip_space()
        if parser.op()[0] != "<":
            parser.fail(op_at, "< (a limit is the most that is still good)")
        limits[LATENCIES[name]] = parser.number(_VALUE_UNITS["latency"], _SHOWN_UNITS["latency"])
        if limits[LATENCIES[name]] <= 0:
            parser.fail(parser.value_at, "more than 0")
        if not parser.comma():
            return limits


def shown_limits(limits: Mapping[str, float]) -> str:
    """The same as ``parse_limits`` reads."""
    names = {column: name for name, column in LATENCIES.items()}
    return ",".join(f"{names[column]}<{value:g}" for column, value in limits.items())


def metric_of(name: str) -> Metric | None:
    """The metric of this name: ``ttft_p95``, ``itl_p99.9``, ``tpot_mean``, ``requests_per_s``, ``schema_valid``, …"""
    if name in RATES:
        return Metric(name, "rate", name)
    if name in SHARES:
        return Metric(name, "share", name)
    found = re.fullmatch(r"(\w+)_(?:p(\d{1,3}(?:\.\d+)?)|mean)", name)
    if found is None or found[1] not in LATENCIES:
        return None
    p = None if found[2] is None else float(Decimal(found[2]) / 100)
    return None if p is not None and p > 1 else Metric(name, "latency", found[1], p)


class _Parser:
    """Reads one expression from left to right; ``fail`` raises BadInput with the place."""

    def __init__(self, option: str, text: str) -> None:
        self.option, self.text, self.at = option, text, 0
        self.value_at = 0
        self.unit = ""

    def fail(self, at: int, expected: str) -> NoReturn:
        found = printable(self.text[at : at + 20])
        where = f"at position {at + 1}, {found!r}" if found else "at its end"
        raise BadInput(f'{self.option} "{printable(self.text)}", {where}: expected {expected}')

    def skip_space(self) -> int:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.at

    def word(self) -> str:
        """Letters, digits and dots: a metric's name, or a unit."""
        start = self.skip_space()
        while (letter := self.text[self.at : self.at + 1]) and (letter.isalnum() or letter in "_."):
            self.at += 1
        return self.text[start : self.at]

    def metric(self) -> Metric:
        at = self.skip_space()
        name = self.word()
        metric = metric_of(name)
        if metric is not None:
            return metric
        if name in LATENCIES:
            self.fail(at, f"{name}_p50, {name}_p95, another percentile, or {name}_mean")
        known = [*(f"{base}_{suffix}" for base in LATENCIES for suffix in _SUFFIXES), *RATES, *SHARES]
        self.fail(at, f"a metric{_nearest(name, known)}" if name else "a metric such as ttft_p95 or schema_valid")

    def op(self) -> Op:
        at = self.skip_space()
        for op in ("<=", ">=", "<", ">"):
            if self.text.startswith(op, at):
                self.at += len(op)
                return op
        self.fail(at, "<, <=, > or >=")

    def number(self, units: Mapping[str, Decimal], shown: str) -> float:
        """A number in one of the units, as seconds, per second or a share."""
        self.value_at = self.skip_space()
        found = _NUMBER.match(self.text, self.at)
        if found is None:
            self.fail(self.at, "a number")
        self.at = found.end()
        at = self.skip_space()
        self.unit = re.split(r"[,\s]", self.text[at:], maxsplit=1)[0]
        if self.unit not in units:
            self.fail(at, f"the unit {shown}" if "" not in units else f"the unit {shown}, or nothing more")
        self.at = at + len(self.unit)
        try:
            value = float(Decimal(found[0]) * units[self.unit])
        except (DecimalException, OverflowError):  # an exponent that is too long even for Decimal
            value = math.inf
        if not math.isfinite(value):
            self.fail(self.value_at, "a finite number")
        return value

    def comma(self) -> bool:
        """Whether another one follows; whatever else follows is a mistake."""
        at = self.skip_space()
        if at == len(self.text):
            return False
        if self.text[at] != ",":
            self.fail(at, "a comma or the end")
        self.at += 1
        return True

    def end(self) -> None:
        if self.skip_space() < len(self.text):
            self.fail(self.at, "nothing more: write each expression as a word of its own")


_SUFFIXES = ("p50", "p90", "p95", "p99", "mean")


def _nearest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1)
    return f": did you mean {near[0]}?" if near else ""

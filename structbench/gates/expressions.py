"""The small language of --slo, --fail-on and --goodput: ``METRIC OP VALUE[UNIT]``, over ``metrics``. Pure."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from typing import Literal, NoReturn

from structbench.errors import BadInput
from structbench.formatting import did_you_mean, printable
from structbench.metrics import LATENCIES, METRICS, Kind, Metric, metric_of

Op = Literal["<", "<=", ">", ">="]

OPS: Mapping[Op, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip

# Each part may be empty, and its position then tells where it was expected.
_EXPRESSION = re.compile(r"""
    \s* (?P<word> [\w.]* ) \s* (?P<op> <= | >= | < | > | )
    \s* (?P<number> [+-]? (?: \d+ (?:\.\d*)? | \.\d+ ) (?: [eE][+-]?\d+ )? | ) \s* (?P<unit> [^,\s]* ) \s*
""", re.VERBOSE)  # fmt: skip
# Decimal, since 95 x 0.01 is not 0.95: 19 right answers of 20 must meet ">=95%".
_SECONDS = {"s": Decimal(1), "ms": Decimal("1e-3"), "us": Decimal("1e-6"), "µs": Decimal("1e-6")}
_VALUE_UNITS: Mapping[Kind, Mapping[str, Decimal]] = {
    "latency": {"": Decimal(1), **_SECONDS},
    "rate": {"": Decimal(1), "/s": Decimal(1)},
    "share": {"": Decimal(1), "%": Decimal("0.01")},
    "score": {"": Decimal(1)},
}
_CHANGE_UNITS: Mapping[Kind, Mapping[str, Decimal]] = {
    "latency": {"%": Decimal("0.01"), **_SECONDS},
    "rate": {"%": Decimal("0.01"), "/s": Decimal(1)},
    "share": {"pp": Decimal("0.01")},
    "score": {"": Decimal(1)},
}
_UNIT_TEXTS = {"latency": "the unit s, ms or us", "rate": "the unit /s", "share": "the unit %", "score": "no unit"}
_CHANGE_UNIT_TEXTS = {
    "latency": "the unit %, s, ms or us", "rate": "the unit % or /s", "share": "the unit pp (percentage points)",
    "score": "no unit",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Condition:
    """A limit that a figure must keep; in seconds, per second, or as a share of 1."""

    text: str
    metric: Metric
    op: Op
    value: float

    def holds(self, measured: float) -> bool:
        return OPS[self.op](measured, self.value)


@dataclass(frozen=True, slots=True)
class Change:
    """A change from A to B that is not allowed: a rise (``>``) or fall (``<``) by more than ``value``."""

    text: str
    metric: Metric
    op: Op
    value: float
    relative: bool
    """Whether ``value`` is a fraction of A's figure; else it is in the figure's own unit."""

    def keeps(self, difference: float, before: float) -> bool:
        """Return whether B - A is no larger than allowed; from 0, every relative change is infinitely large."""
        limit = self.value * before if self.relative else self.value
        return not OPS[self.op](difference, limit)


def parse_slo(text: str) -> Condition:
    """Parse an SLO: ``ttft_p95<0.5``, ``itl_p99<100ms``, ``schema_valid>=95%``."""
    found = _Expression("--slo", text)
    metric, op = found.metric(), found.op()
    value = found.number(_VALUE_UNITS[metric.kind], _UNIT_TEXTS[metric.kind])
    if metric.kind == "share" and not 0 <= value <= 1:
        found.fail("number", "a share from 0 to 1, or a percentage")
    if metric.kind in ("latency", "rate") and value < 0:
        found.fail("number", "0 or more")
    if metric.kind == "score" and not -1 <= value <= 1:
        found.fail("number", "a number from -1 to 1")
    found.end()
    return Condition(text.strip(), metric, op, value)


def parse_change(text: str) -> Change:
    """Parse a change: ``ttft_p95>10%`` (of A's figure), ``itl_p99>5ms``, ``schema_valid<-2pp`` (percentage points)."""
    found = _Expression("--fail-on", text)
    metric, op = found.metric(), found.op()
    value = found.number(_CHANGE_UNITS[metric.kind], _CHANGE_UNIT_TEXTS[metric.kind])
    if (value < 0) == (op[0] == ">") and value:
        found.fail(
            "number",
            f"a number from 0 {'up, because > means a rise' if op[0] == '>' else 'down, because < means a fall'}",
        )
    found.end()
    return Change(text.strip(), metric, op, value, found.parts["unit"] == "%")


def parse_limits(text: str) -> dict[str, float]:
    """Parse ``ttft<0.5,tpot<50ms``: column of ``requests`` -> the maximum for a good request, in seconds."""
    limits: dict[str, float] = {}
    found = _Expression("--goodput", text)
    while True:
        name = found.parts["word"]
        if name not in LATENCIES:
            found.fail("word", f"one of {', '.join(LATENCIES)}{_hint(name, LATENCIES)}")
        column = LATENCIES[name].column
        if column in limits:
            found.fail("word", "each limit only once")
        if found.op()[0] != "<":
            found.fail("op", "< or <= (a limit is the highest value that is still good)")
        limits[column] = found.number(_VALUE_UNITS["latency"], _UNIT_TEXTS["latency"])
        if limits[column] <= 0:
            found.fail("number", "more than 0")
        if found.parts.end() == len(text):
            return limits
        if text[found.parts.end()] != ",":
            found.fail(found.parts.end(), "a comma or the end of the text")
        found = _Expression("--goodput", text, found.parts.end() + 1)


def limits_text(limits: Mapping[str, float]) -> str:
    """Format limits as ``parse_limits`` reads them."""
    names = {metric.column: name for name, metric in LATENCIES.items()}
    return ",".join(f"{names[column]}<{value:g}" for column, value in limits.items())


class _Expression:
    """The parts of one expression; ``fail`` raises BadInput with the position of a part."""

    def __init__(self, option: str, text: str, at: int = 0) -> None:
        found = _EXPRESSION.match(text, at)
        assert found is not None, "every part may be empty"
        self.option, self.text, self.parts = option, text, found

    def fail(self, part: str | int, expected: str) -> NoReturn:
        at = self.parts.start(part) if isinstance(part, str) else part
        found = printable(self.text[at : at + 20])
        where = f"at position {at + 1}, {found!r}" if found else "at the end"
        raise BadInput(f'{self.option} "{printable(self.text)}", {where}: expected {expected}')

    def metric(self) -> Metric:
        name = self.parts["word"]
        metric = metric_of(name)
        if metric is not None:
            return metric
        if name in LATENCIES:
            self.fail("word", f"{name}_p50, {name}_p95, another percentile, or {name}_mean")
        known = [f"{base}_{suffix}" for base in LATENCIES for suffix in _SUFFIXES]
        known += [name for name in METRICS if name not in LATENCIES]
        self.fail("word", f"a metric{_hint(name, known)}" if name else "a metric such as ttft_p95 or schema_valid")

    def op(self) -> Op:
        op: Op | None = next((each for each in OPS if each == self.parts["op"]), None)
        return self.fail("op", "<, <=, > or >=") if op is None else op

    def number(self, units: Mapping[str, Decimal], shown: str) -> float:
        """Return the number, given in one of the units, as seconds, per second or a share."""
        if not self.parts["number"]:
            self.fail("number", "a number")
        unit = self.parts["unit"]
        if unit not in units:
            self.fail("unit", f"{shown}, or nothing more" if "" in units and len(units) > 1 else shown)
        try:
            value = float(Decimal(self.parts["number"]) * units[unit])
        except (DecimalException, OverflowError):  # an exponent that is too long even for Decimal
            value = math.inf
        if not math.isfinite(value):
            self.fail("number", "a finite number")
        return value

    def end(self) -> None:
        if self.parts.end() < len(self.text):
            self.fail(self.parts.end(), "nothing more; give each expression separately")


_SUFFIXES = ("p50", "p90", "p95", "p99", "mean")


def _hint(name: str, known: Iterable[str]) -> str:
    near = did_you_mean(name, known, otherwise="")
    return f": {near}" if near else ""

"""The one rule by which a figure meets a limit, and SLOs judged by it: met, not met, not decided or skip. Pure.

Invariant: nothing is met that was not measured: a cell without a complete, valid run is not decided or not met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from statistics import NormalDist
from typing import Any, Literal

from structbench.formatting import plural, printable
from structbench.gates.expressions import Condition, parse_slo
from structbench.metrics import IS_WHOLE, Metric, limits_of, without_stream
from structbench.results.figures import Figures
from structbench.results.groups import RunGroup
from structbench.results.intervals import Rows, estimates_of
from structbench.stats import CONFIDENCE, Estimate, needed, wilson
from structbench.strict_json import stored

Judgement = Literal["met", "not met", "not decided"]
DEFAULT_RULE = ("correct>=90%", "ttft_p95<=1s", "error_rate<=5%")
"""By what a model is correct and fast enough where no --slo is given: said in sentences, without an exit code."""


def rule_of(texts: Sequence[str]) -> tuple[Condition, ...]:
    """Parse the limits of a rule; the default rule where none is given."""
    return tuple(parse_slo(text) for text in dict.fromkeys(texts or DEFAULT_RULE))


GateOutcome = Literal["met", "not met", "not decided", "skip"]
_REQUIREMENTS = {"gap": "two chunks", "scored answer": "this score", "request": "this latency"}
_WHOLE = f"SELECT bool_and({IS_WHOLE}) AS whole FROM requests WHERE run_id = $1 AND error_kind IS NULL"
FAR = 2.0
"""By what factor a closed loop could be slower, or faster, than any of its requests that were seen."""
_MOST = 1_000_000
"""More requests than this are not worth naming."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What the looks at a run left open (``gates.settled``), and by which confidence, when it had ``requests``."""

    open: tuple[str, ...]
    requests: int
    confidence: float


def judged(keeps: Callable[[float], bool], best: float | None, worst: float | None) -> Judgement:
    """Judge by an interval, of which an end may be unknown: met if even its worst end keeps the limit, not met if
    even its best end does not."""
    if worst is not None and keeps(worst):
        return "met"
    if best is not None and not keeps(best):
        return "not met"
    return "not decided"


def judgement(limit: Condition, estimate: Estimate, *, closed: bool = False) -> Judgement:
    """Judge a figure by its interval; at the edge of what is possible (0 errors, all right) by itself.

    In a ``closed`` loop nobody waits behind more than the other streams: where neighbours are too alike for an end of
    the interval, it is FAR times as far away as any request was.
    """
    if is_exact(limit) and estimate.value is not None:
        return "met" if limit.holds(estimate.value) else "not met"
    ends = (estimate.low, estimate.high)
    if closed and estimate.seen is not None:
        shortest, longest = estimate.seen
        ends = (shortest / FAR if ends[0] is None else ends[0], longest * FAR if ends[1] is None else ends[1])
    best, worst = ends if limit.op[0] == "<" else ends[::-1]
    return judged(limit.holds, best, worst)


def is_exact(limit: Condition) -> bool:
    """Return whether a limit is about the very requests that were measured: 0 % or 100 %, a rate of 0, an extreme."""
    metric = limit.metric
    match metric.kind:
        case "share":
            return limit.value in (0, 1)
        case "rate":
            return limit.value == 0
        case _:
            return metric.p in (0, 1)


def settled_by(limit: Condition, estimate: Estimate, confidence: float = CONFIDENCE) -> int | None:
    """Return about how many requests would decide, if the figure stayed as it is; None if that is not known.

    ``confidence`` is that of the interval that decides; the estimate has the ordinary one.
    """
    value, n = estimate.value, estimate.n
    if estimate.needs is not None or value is None or value == limit.value or not n:
        return estimate.needs
    if limit.metric.kind == "share":
        more = (n * 1.05**power for power in range(1, 300))
        found = next((ceil(each) for each in more if _is_settled_share(limit, value, each, confidence)), None)
        while found is not None and _is_settled_share(limit, value, found - 1, confidence):
            found -= 1
    elif (end := estimate.low if value > limit.value else estimate.high) is not None:
        wider = NormalDist().inv_cdf((1 + confidence) / 2) / NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        found = ceil(n * (wider * (end - value) / (limit.value - value)) ** 2)
    else:
        return None
    # It is not decided now, and a percentile has no such interval of fewer.
    least = needed(limit.metric.p, confidence) if limit.metric.p is not None and 0 < limit.metric.p < 1 else 0
    return None if found is None or found > _MOST else max(found, least, n + 1)


def _is_settled_share(limit: Condition, share: float, n: float, confidence: float) -> bool:
    return judgement(limit, wilson(share * ceil(n), ceil(n), confidence)) != "not decided"


@dataclass(frozen=True, slots=True)
class Gate:
    """The judgement of one SLO on one cell."""

    cell: str
    slo: str
    outcome: GateOutcome
    value: float | None
    n: int
    text: str
    """The value with its interval and n, and any reason for doubt."""
    low: float | None = None
    high: float | None = None
    needs: int | None = None
    """If not decided: about how many requests would decide, if that is known."""
    applies: bool = True
    """Whether answers here can have such a figure at all; else no load decides it."""

    @property
    def is_missed(self) -> bool:
        """Whether it ends the command with exit code 99."""
        return self.outcome in ("not met", "not decided")

    @property
    def line(self) -> str:
        outcome = "NOT MET" if self.outcome == "not met" else self.outcome
        return f"{outcome}: {self.cell}: {self.slo}: {self.text}"


@dataclass(slots=True)
class CellResult:
    """The result of one planned cell: its run and its gates."""

    cell: str
    row: Mapping[str, Any] | None = None
    """The cell's run in the view ``summary``; None if it did not run."""
    gates: list[Gate] = field(default_factory=list)
    rule: list[Gate] = field(default_factory=list)
    """The gates of --slo, or else of the default rule, by which nothing fails."""

    @property
    def state(self) -> Judgement:
        """Whether the cell's run keeps the rule."""
        return state_of(self.rule)


def state_of(gates: Iterable[Gate]) -> Judgement:
    """Return whether a rule is kept, from its gates: one that is not met is enough, one that does not apply is none."""
    outcomes = {gate.outcome for gate in gates} - {"skip"}
    return "not met" if "not met" in outcomes else "met" if outcomes == {"met"} else "not decided"


def judge(
    cell: str, slo: Condition, estimate: Estimate, row: Mapping[str, Any] | None, looked: Looked | None = None,
    by: Metric | None = None,
) -> Gate:  # fmt: skip
    """Judge one SLO; ``row`` is the run in the view ``summary``, None if there is none.

    ``looked`` is what its looks left open, where the load went on until its rule was decided; ``by`` is the figure
    that the estimate is of, if it stands in for the SLO's own.
    """
    if row is None:
        return Gate(cell, slo.text, "not decided", None, 0, "the cell was not run")
    metric, value, n, why = slo.metric, estimate.value, estimate.n, doubt(row)
    if not n and value is None and row.get("completed") and why is None and estimate.why is None:
        text = f"does not apply: no answer here has {_REQUIREMENTS[metric.counts]}"
        return Gate(cell, slo.text, "skip", None, 0, text, applies=False)
    closed = str(row.get("load") or "").startswith("c=")
    outcome, confidence = judgement(slo, estimate, closed=closed), CONFIDENCE
    if looked is not None and slo.text in looked.open:
        outcome, confidence = "not decided", looked.confidence
    if value is None and estimate.low is None and estimate.high is None:
        needs = estimate.needs or 1
        text = f"needs {needs:,} {estimate.unit}, but there are {n:,}"
        if not n or needs == 1:
            text = estimate.why or f"needs at least {plural(1, metric.counts)}, but there is none"
        return Gate(cell, slo.text, "not decided", None, n, text, needs=estimate.needs)
    text = f"{_figure_text(slo, estimate)}, n = {plural(n, metric.counts)}"
    if by is not None and by.name != metric.name:
        text = f"{by.label} of answers that came whole: {text}"
    needs_more = settled_by(slo, estimate, confidence) if outcome == "not decided" else None
    if outcome == "not decided":
        text += f": {_why_open(slo, estimate, needs_more, confidence)}"
    if outcome == "met" and why is not None:
        outcome = "not decided"
    if why is None and row.get("verdict") == "degraded":
        why = f"degraded: {row.get('verdict_reason')}"
    text = text if why is None else f"{text}; {printable(why)}"
    return Gate(cell, slo.text, outcome, value, n, text, estimate.low, estimate.high, needs_more)


def _figure_text(slo: Condition, estimate: Estimate) -> str:
    """Return the value with its interval, if that decides: ``84.0 ms (80.1–90.2 ms)``."""
    metric, value = slo.metric, estimate.value
    if value is None:
        ends = (("at least", estimate.low), ("at most", estimate.high))
        return ", ".join(f"{word} {metric.text(end)}" for word, end in ends if end is not None)
    shown = _distinct_text(metric, value, slo.value)
    if is_exact(slo):
        return shown
    if not estimate.has_interval and estimate.low is not None and not slo.holds(estimate.low):
        return f"{shown} (at least {metric.text(estimate.low)})"
    if not estimate.has_interval and estimate.high is not None and not slo.holds(estimate.high):
        return f"{shown} (at most {metric.text(estimate.high)})"
    interval = metric.range_text(estimate.low, estimate.high)
    return f"{shown} ({interval})" if interval else shown


def _why_open(limit: Condition, estimate: Estimate, needs: int | None, confidence: float) -> str:
    """Return why a figure is neither met nor missed, and what would tell."""
    if estimate.why is not None:
        return estimate.why if needs is None else f"{estimate.why}; needs about {needs:,} requests"
    if estimate.needs is not None:
        return f"too few for an interval; needs {estimate.needs:,} {estimate.unit}"
    if not estimate.has_interval:
        return "no interval is known for this figure"
    which = "interval" if confidence == CONFIDENCE else "interval of this look"
    p = limit.metric.p
    too_few = limit.metric.counts == "request" and p is not None and 0 < p < 1 and estimate.n < needed(p, confidence)
    told = f"too few for the {confidence * 100:g} % {which}" if too_few else (
        f"the {confidence * 100:g} % {which} contains the limit")  # fmt: skip
    return told if needs is None else f"{told}; needs about {needs:,} if it stays as it is"


def judge_all(slos: Sequence[Condition], rows: Rows, results: Sequence[CellResult]) -> None:
    """Judge each condition on each cell, also on cells that never ran; without any, only its rule, by the default."""
    rule = slos or rule_of(())
    for result in results:
        result.rule = judge_run(rows, result.cell, result.row, rule)
    if slos:
        settle(results)
    for result in results if slos else ():
        result.gates = result.rule


def judge_run(rows: Rows, cell: str, row: Mapping[str, Any] | None, rule: Sequence[Condition]) -> list[Gate]:
    """Judge a rule on one run, its row of the view ``summary``, with the run's goodput limits."""
    if row is None:
        return [judge(cell, slo, Estimate(0), None) for slo in rule]
    limits, looked = limits_of(row["goodput_limits"]), looked_at(rows, row["run_id"])
    whole = rows.query(_WHOLE, [row["run_id"]])[0]["whole"]
    metrics = [without_stream(slo.metric) if whole else slo.metric for slo in rule]
    found = estimates_of(rows, row["run_id"], metrics, limits)
    looked = looked if looked is not None and looked.requests == row["requests"] else None
    return [
        judge(cell, slo, found[metric.name], row, looked, metric) for slo, metric in zip(rule, metrics, strict=True)
    ]


def looked_at(rows: Rows, run_id: str) -> Looked | None:
    """Return what the looks at a run left open, if it went on until its rule was decided."""
    found = rows.query("SELECT settled FROM runs WHERE run_id = $1", [run_id])
    return looked_of(found[0]["settled"] if found else None)


def looked_of(text: str | None) -> Looked | None:
    """Return the same from the column ``settled``."""
    match stored(text):
        case {"open": [*left], "requests": int(requests), "confidence": int() | float() as confidence}:
            return Looked(tuple(map(str, left)), requests, confidence)
    return None


def judge_groups(slos: Sequence[Condition], groups: Sequence[RunGroup], figures: Mapping[int, Figures]) -> list[Gate]:
    """Judge each condition on each run group of a report, as ``judge_all`` does after a load."""
    results: list[CellResult] = []
    for group in groups:
        own = figures[group.id]
        results.append(CellResult(group.name, rule=[judge_group(slo, group, own) for slo in slos]))
    if [slo.text for slo in slos] != [*DEFAULT_RULE]:
        settle(results)
    return [gate for result in results for gate in result.rule]


def judge_group(slo: Condition, group: RunGroup, figures: Figures) -> Gate:
    """Judge a condition on a run group, as ``judge_run`` does on a run."""
    row = {"status": group.status, "verdict": group.verdict, "verdict_reason": "; ".join(group.reasons),
           "completed": figures.counts["completed"], "load": group.load}  # fmt: skip
    looked = looked_of(group.settled)
    looked = looked if looked is not None and looked.requests == figures.counts["requests"] else None
    return judge(group.name, slo, figures.judged(slo.metric), row, looked, figures.judged_by(slo.metric))


def settle(results: Iterable[CellResult]) -> None:
    """Make an SLO that applies to no cell not decided in each, since nothing was judged by it."""
    by_slo: dict[str, list[tuple[CellResult, int]]] = {}
    for result in results:
        for number, gate in enumerate(result.rule or result.gates):
            by_slo.setdefault(gate.slo, []).append((result, number))
    for places in by_slo.values():
        judged_by = [(result.rule or result.gates, number) for result, number in places]
        if all(gates[number].outcome == "skip" for gates, number in judged_by):
            for gates, number in judged_by:
                gates[number] = replace(gates[number], outcome="not decided")


def doubt(row: Mapping[str, Any]) -> str | None:
    """Return why a run (a row of the view ``summary``) cannot make anything pass, or None if it can."""
    if row.get("status") != "complete":
        return f"the run is {row.get('status')}"
    return f"the run is invalid: {row.get('verdict_reason')}" if row.get("verdict") == "invalid" else None


def _distinct_text(metric: Metric, value: float, limit: float) -> str:
    """Return the value with enough digits to tell it from the limit, so that a line cannot contradict itself."""
    text = ""
    for more in range(metric.kind == "share", 15):
        text = metric.text(value, more)
        if value == limit or text != metric.text(limit, more):
            break
    return text

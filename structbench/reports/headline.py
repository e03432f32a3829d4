"""The answer in one sentence: which model is correct and fast enough, at which load, by which rule. Pure.

Invariant: a model is called so only when the whole interval of every figure is within its limit, in every suite
that was run at that load; where an interval holds the limit, or n is too small, it is neither called so nor denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from structbench.errors import BadInput
from structbench.gates.expressions import Condition, parse_slo
from structbench.identity import canonical_json
from structbench.metrics import PERCENTILES
from structbench.reports.estimates import estimate_text
from structbench.results.figures import Figures
from structbench.results.groups import SIMULATED, Line, differing
from structbench.stats import Estimate

DEFAULT_RULE = ("correct>=90%", "ttft_p95<=1s", "error_rate<=5%")
State = Literal["met", "open", "missed"]
Answer = Literal["met", "open", "missed", "unjudged"]
_WORST: tuple[State, ...] = ("missed", "open", "met")
_OPS = {"<": "below", "<=": "at most", ">": "above", ">=": "at least"}
_ELSEWHERE = ("suite", "suite_hash", "structured", "scorer_version", "warmup", "load")
"""Fields of a config in which the lines of one candidate may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One condition held against one line's figure."""

    line: Line
    condition: Condition
    estimate: Estimate
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One model at one load, in all suites that were run there (with its config, where one was run with several)."""

    model: str
    load: str
    level: float
    variant: str
    """What tells it from the same model at the same load with another config."""
    lines: tuple[Line, ...]
    checks: tuple[Check, ...]
    judged: bool
    """Whether some of its answers were scored, by a measurement that may be believed."""
    correct_per_s: float
    """In the suite where it is lowest."""

    @property
    def state(self) -> State:
        return next((word for word in _WORST if any(check.state == word for check in self.checks)), "open")

    @property
    def name(self) -> str:
        return f"{self.model} at {self.load}{f' ({self.variant})' if self.variant else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    state: Answer
    sentences: tuple[str, ...]
    """The answer, then what it rests on."""
    notes: tuple[str, ...]
    conditions: tuple[Condition, ...]
    candidates: tuple[Candidate, ...]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)

    @property
    def rule(self) -> str:
        limits = " and ".join(condition.text for condition in self.conditions)
        return f"Rule: {limits}, in every suite, with the whole 95 % interval."


def parse_rule(texts: Sequence[str]) -> list[Condition]:
    """The limits; BadInput for a metric of which a report has no figure."""
    conditions = [parse_slo(text) for text in texts]
    for condition in conditions:
        metric = condition.metric
        if metric.kind == "latency" and metric.p not in PERCENTILES.values():
            raise BadInput(f"--slo {condition.text}: a report has p50, p90, p95 and p99 of latencies")
        if metric.kind == "score":
            raise BadInput(f"--slo {condition.text}: a report has no interval of {metric.name}")
    return conditions


def headline_of(lines: Sequence[Line], figures: Mapping[int, Figures], rule: Sequence[Condition]) -> Headline:
    """The answer, and every candidate with its checks, the best first."""
    candidates = sorted(_candidates(lines, figures, rule), key=_rank)
    judged = [candidate for candidate in candidates if candidate.judged]
    state: Answer = judged[0].state if judged else "unjudged"
    return Headline(
        state=state, sentences=tuple(_sentences(judged)), notes=tuple(_notes(lines, candidates)),
        conditions=tuple(rule), candidates=tuple(candidates),
    )  # fmt: skip


def _sentences(judged: Sequence[Candidate]) -> Iterator[str]:
    """The best candidate, judged by its state; and where it meets the rule, the other models that do."""
    if not judged:
        yield "No model can be called correct: no run that was measured well scored an answer."
        return
    best = judged[0]
    mark = f"{SIMULATED}: " if any(line.simulated for line in best.lines) else ""
    match best.state:
        case "met":
            yield f"{mark}{best.name} is correct and fast enough."
            yield f"{_figures_text(best)}."
            others = _met(judged)[1:]
            if others:
                yield f"So {'is' if len(others) == 1 else 'are'} {', '.join(each.name for each in others)}."
        case "open":
            yield f"{mark}No model is shown to be correct and fast enough; {best.name} may be."
            yield f"Not settled: {_reasons(best)}."
        case "missed":
            yield f"{mark}No model is correct and fast enough at a load that was measured."
            yield f"Nearest is {best.name}, which misses {_reasons(best)}."


def _met(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Of each model the best that meets the rule."""
    first: dict[str, Candidate] = {}
    for each in candidates:
        if each.judged and each.state == "met":
            first.setdefault(each.model, each)
    return list(first.values())


def _figures_text(candidate: Candidate) -> str:
    return _by_suite((check, _check_text(check)) for check in candidate.checks if check.estimate.value is not None)


def _reasons(candidate: Candidate) -> str:
    """What keeps a candidate from being called correct and fast enough."""
    return _asked(check for check in candidate.checks if check.state == candidate.state) or "nothing was measured"


def _asked(checks: Iterable[Check]) -> str:
    return _by_suite((each, f"{_check_text(each)} where {_limit_text(each.condition)} is asked") for each in checks)


def _check_text(check: Check) -> str:
    metric = check.condition.metric
    return f"{metric.label} {estimate_text(metric, check.estimate)}"


def _limit_text(condition: Condition) -> str:
    return f"{_OPS[condition.op]} {condition.metric.text(condition.value)}"


def _by_suite(texts: Iterable[tuple[Check, str]]) -> str:
    """``json: correct 95 %, TTFT p95 310 ms; tools: …``."""
    suites: dict[str, list[str]] = {}
    for check, text in texts:
        suites.setdefault(check.line.suite, []).append(text)
    return "; ".join(f"{suite}: {', '.join(each)}" for suite, each in suites.items())


def _notes(lines: Sequence[Line], candidates: Sequence[Candidate]) -> Iterator[str]:
    """What a reader must know before believing the sentence."""
    if any(line.simulated for line in lines):
        every = all(line.simulated for line in lines)
        yield f"{SIMULATED}: {'all of' if every else 'some of'} these runs are of the built-in simulated server; " + (
            "their figures are made up and say nothing of any model."
        )
    invalid = [line.name for line in lines if line.verdict == "invalid"]
    if invalid:
        yield f"Left out of the answer, since the measurement is invalid: {', '.join(invalid)}."
    for met in _met(candidates):
        yield from _not_so_elsewhere(met, candidates)
    best = next((each for each in candidates if each.judged), None)
    if best is not None:
        yield from _settings(best)
    for line in best.lines if best is not None else ():
        marks = [mark for mark in line.marks if mark != SIMULATED]
        if marks:
            yield f"Read with care: {line.name} ({', '.join(marks)})."


def _not_so_elsewhere(met: Candidate, candidates: Sequence[Candidate]) -> Iterator[str]:
    """What is said against it by suites that were run at its load with another config only."""
    own = {line.suite for line in met.lines}
    for each in candidates:
        if each is not met and (each.model, each.load) == (met.model, met.load):
            against = _asked(check for check in each.checks if check.state != "met" and check.line.suite not in own)
            if against:
                yield f"Not shown in other suites, which were run as {each.name}: {against}."


def _settings(candidate: Candidate) -> Iterator[str]:
    """Suites of one candidate that were not run with the same config."""
    configs = {line.suite: _shared([line]) for line in candidate.lines}
    shown = [(suite, ", ".join(differing(config, configs.values()))) for suite, config in configs.items()]
    if any(text for _, text in shown):
        yield f"Not all suites were run alike: {'; '.join(f'{suite}: {text}' for suite, text in shown)}."


def _rank(candidate: Candidate) -> tuple[object, ...]:
    """Judged first; met, open, missed; what misses least; the most correct answers a second; the lighter load."""
    missed = sum(check.state == "missed" for check in candidate.checks)
    order = -_WORST.index(candidate.state)
    return not candidate.judged, order, missed, -candidate.correct_per_s, candidate.level, candidate.name


def _candidates(
    lines: Sequence[Line], figures: Mapping[int, Figures], rule: Sequence[Condition]
) -> Iterator[Candidate]:
    for (model, load), group in _grouped(lines).items():
        variants = _variants(group)
        configs = [_shared(members, "structured") for members in variants]
        for members, config in zip(variants, configs, strict=True):
            checks = [check for line in members for check in _checks(line, figures[line.id], rule)]
            goodputs = [figures[line.id].rates["correct_goodput"].value for line in members]
            known = [value for value in goodputs if value is not None]
            yield Candidate(
                model=model, load=load, level=members[0].level or 0.0,
                variant=", ".join(differing(config, configs)), lines=tuple(members), checks=tuple(checks),
                judged=bool(known), correct_per_s=min(known, default=0.0),
            )  # fmt: skip


def _grouped(lines: Sequence[Line]) -> dict[tuple[str, str], list[Line]]:
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if line.verdict != "invalid":
            groups.setdefault((line.model, line.load), []).append(line)
    return groups


def _variants(lines: Sequence[Line]) -> list[list[Line]]:
    """All lines, or those of equal config where a suite was run with several; and a schema given in the prompt
    is another variant than as a format."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(canonical_json(_shared([line])), []).append(line)
    if sum(len({line.suite for line in group}) for group in groups.values()) == len({line.suite for line in lines}):
        groups = {"": list(lines)}
    found = []
    for group in groups.values():
        ways = dict.fromkeys(str(line.config.get("structured")) for line in group)
        ways.pop("none", None)
        for way in ways or {"none": None}:
            found.append([line for line in group if line.config.get("structured") in (way, "none", None)])
    return found


def _shared(lines: Sequence[Line], *more: str) -> dict[str, Any]:
    """What the lines of a candidate have in common, and more fields of the one that decides: not of tools."""
    line = next((line for line in lines if line.config.get("structured") != "none"), lines[0])
    return {key: value for key, value in line.config.items() if key not in _ELSEWHERE or key in more}


def _checks(line: Line, figures: Figures, rule: Sequence[Condition]) -> Iterator[Check]:
    for condition in rule:
        estimate = _estimate(figures, condition)
        if estimate is not None:
            yield Check(line=line, condition=condition, estimate=estimate, state=_state(condition, estimate))


def _estimate(figures: Figures, condition: Condition) -> Estimate | None:
    """The figure that a condition speaks of; None where the suite's answers do not have it (a text has no score)."""
    metric, found = condition.metric, figures.of(condition.metric)
    # Answers that came whole, as tool calls do, have no time between tokens: no limit on it is broken.
    if not found.n and (metric.counts == "scored answer" or metric.may_be_absent):
        return None
    return found


def _state(condition: Condition, estimate: Estimate) -> State:
    if estimate.low is None or estimate.high is None:
        return "open"
    ends = {condition.holds(estimate.low), condition.holds(estimate.high)}
    return "open" if len(ends) > 1 else "met" if ends.pop() else "missed"

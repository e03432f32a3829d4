"""The headline: which model is correct and fast enough, at which load, by which rule. Pure.

Invariant: a model is called so only when the whole interval of every figure is within its limit, in every suite
that was run at that load; where an interval contains the limit, or n is too small, it is neither confirmed nor denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from structbench.errors import BadInput
from structbench.formatting import plural
from structbench.gates.expressions import Condition, parse_slo
from structbench.gates.next_command import Settles, settles_of, together
from structbench.gates.slo import DEFAULT_RULE, Judgement, judge_group
from structbench.identity import canonical_json
from structbench.metrics import PERCENTILES, Metric
from structbench.reports.estimates import judged_text
from structbench.results.figures import Figures
from structbench.results.groups import SIMULATED, RunGroup, differing
from structbench.stats import Estimate

_KNOWN = frozenset(PERCENTILES.values())
HeadlineState = Literal["met", "not met", "not decided", "unjudged"]
_STATES: tuple[Judgement, ...] = ("not met", "not decided", "met")
_OPS = {"<": "below", "<=": "at most", ">": "above", ">=": "at least"}
_FREE_FIELDS = ("suite", "suite_hash", "structured", "scorer_version", "warmup", "load")
"""Config fields in which the run groups of one candidate may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One condition checked on the figure of one run group."""

    group: RunGroup
    condition: Condition
    metric: Metric
    """What the condition is on; e2e instead of TTFT where every answer came whole."""
    estimate: Estimate
    state: Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One model at one load, in all suites that were run there (with its config, where one was run with several)."""

    model: str
    load: str
    level: float
    server: str
    """Empty if all runs are of one server."""
    variant: str
    """What distinguishes it from the same model at the same load with another config."""
    groups: tuple[RunGroup, ...]
    checks: tuple[Check, ...]
    judged: bool
    """Whether some of its answers were scored in a valid measurement."""
    correct_per_s: float
    """Correct goodput in the suite where it is lowest."""
    settles: tuple[Settles, ...] = ()
    """What would decide each of its run groups that is not decided."""

    @property
    def state(self) -> Judgement:
        return next((word for word in _STATES if any(check.state == word for check in self.checks)), "not decided")

    @property
    def name(self) -> str:
        told = ", ".join(filter(None, (self.server, self.variant)))
        return f"{self.model} at {self.load}{f' ({told})' if told else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    state: HeadlineState
    sentences: tuple[str, ...]
    """The answer, then the figures behind it."""
    notes: tuple[str, ...]
    conditions: tuple[Condition, ...]
    candidates: tuple[Candidate, ...]
    basis: str
    """The suites of the best candidate with their requests, and those that it lacks."""

    @property
    def text(self) -> str:
        return " ".join(self.sentences)

    @property
    def settled_by(self) -> str | None:
        """The last sentence, if it has the command that settles what is open."""
        return self.sentences[-1] if self.state == "not decided" and "settle it: " in self.sentences[-1] else None

    @property
    def rule(self) -> str:
        limits = " and ".join(condition.text for condition in self.conditions)
        return f"Rule: {limits}, for the whole 95 % interval{self.basis}."


def _basis(best: Candidate, groups: Sequence[RunGroup], figures: Mapping[int, Figures]) -> str:
    """Return what the answer rests on: ``, in json (30 requests) and tools (20); text was not run at this load``."""
    first, *more = [(group.suite, figures[group.id].counts["requests"]) for group in best.groups]
    told = [f"{first[0]} ({plural(first[1], 'request')})", *(f"{suite} ({n:,})" for suite, n in more)]
    own = {group.suite for group in best.groups}
    others = [suite for suite in dict.fromkeys(group.suite for group in groups) if suite not in own]
    left = f"; {' and '.join(others)} {'was' if len(others) == 1 else 'were'} not run so" if others else ""
    return f", in {', '.join(told)}{left}"


def rule_of(given: Sequence[Condition]) -> list[Condition]:
    """Return the limits that were given, of those that reports have, else the default rule."""
    known = [
        each
        for each in given
        if each.metric.kind in ("share", "rate") or (each.metric.kind == "latency" and each.metric.p in _KNOWN)
    ]
    return known or [parse_slo(text) for text in DEFAULT_RULE]


def parse_rule(texts: Sequence[str]) -> list[Condition]:
    """Parse the limits; BadInput for a metric that reports do not have."""
    conditions = [parse_slo(text) for text in texts]
    for condition in conditions:
        metric = condition.metric
        if metric.kind == "latency" and metric.p not in _KNOWN:
            raise BadInput(f"--slo {condition.text}: a report has only p50, p90, p95 and p99 of a latency")
        if metric.kind == "score":
            raise BadInput(f"--slo {condition.text}: a report has no interval for {metric.name}")
    return conditions


def headline_of(groups: Sequence[RunGroup], figures: Mapping[int, Figures], rule: Sequence[Condition]) -> Headline:
    """Return the answer, and every candidate with its checks, best first."""
    candidates = sorted(_candidates(groups, figures, rule), key=_rank)
    judged = [candidate for candidate in candidates if candidate.judged]
    state: HeadlineState = judged[0].state if judged else "unjudged"
    return Headline(
        state=state, sentences=tuple(_sentences(judged, rule)), notes=tuple(_notes(groups, candidates)),
        conditions=tuple(rule), candidates=tuple(candidates),
        basis=_basis(judged[0], groups, figures) if judged else "",
    )  # fmt: skip


def _asks_for_both(rule: Sequence[Condition]) -> bool:
    """Return whether who meets the rule is right and fast; else it only meets the rule."""
    named = {condition.metric.name for condition in rule}
    return "correct" in named and any(condition.metric.kind == "latency" for condition in rule)


def _sentences(judged: Sequence[Candidate], rule: Sequence[Condition]) -> Iterator[str]:
    """Yield the answer about the best candidate and, if it meets the rule, the other models that do."""
    both = _asks_for_both(rule)
    if not judged:
        yield "No model can be called correct: no validly measured run has scored answers."
        return
    best = judged[0]
    mark = f"{SIMULATED}: " if any(group.simulated for group in best.groups) else ""
    match best.state:
        case "met":
            yield f"{mark}{best.name} {'is correct and fast enough' if both else 'meets the rule'}."
            known = [check for check in best.checks if check.estimate.value is not None]
            yield f"{_by_suite((check, _check_text(check)) for check in known)}."
            others = _best_of_each_model(judged)[1:]
            if others:
                so = "Also correct and fast enough" if both else "So does" if len(others) == 1 else "So do"
                yield f"{so}{':' if both else ''} {', '.join(each.name for each in others)}."
        case "not decided":
            what, may = ("be correct and fast enough", "may be") if both else ("meet the rule", "may")
            yield f"{mark}No model has been shown to {what}; {best.name} {may}."
            yield f"Not settled: {_candidate_shortfalls(best)}."
            if best.settles:
                text = together(best.settles).text
                yield f"{text[0].upper()}{text[1:]}"
        case "not met":
            what = "is correct and fast enough" if both else "meets the rule"
            yield f"{mark}No model {what} at any load measured."
            yield f"The nearest is {best.name}, which misses {_candidate_shortfalls(best)}."


def _best_of_each_model(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return for each model on each server the best candidate that meets the rule."""
    first: dict[tuple[str, str], Candidate] = {}
    for each in candidates:
        if each.judged and each.state == "met":
            first.setdefault((each.model, each.server), each)
    return list(first.values())


def _candidate_shortfalls(candidate: Candidate) -> str:
    """Return what keeps a candidate from being called correct and fast enough."""
    return _shortfalls(check for check in candidate.checks if check.state == candidate.state) or "nothing was measured"


def _shortfalls(checks: Iterable[Check]) -> str:
    """Return the figures of the checks with what each should be: ``correct 80 % where at least 90 % is required``."""

    def text(check: Check) -> str:
        limit = check.condition
        return f"{_check_text(check)} where {_OPS[limit.op]} {limit.metric.text(limit.value)} is required"

    return _by_suite((check, text(check)) for check in checks)


def _check_text(check: Check) -> str:
    return f"{check.metric.label} {judged_text(check.metric, check.estimate)}"


def _by_suite(texts: Iterable[tuple[Check, str]]) -> str:
    """Join the texts by suite: ``json: correct 95 %, TTFT p95 310 ms; tools: …``."""
    suites: dict[str, list[str]] = {}
    for check, text in texts:
        suites.setdefault(check.group.suite, []).append(text)
    return "; ".join(f"{suite}: {', '.join(each)}" for suite, each in suites.items())


def _notes(groups: Sequence[RunGroup], candidates: Sequence[Candidate]) -> Iterator[str]:
    """Yield what a reader must know before trusting the headline."""
    if any(group.simulated for group in groups):
        every = all(group.simulated for group in groups)
        yield f"{SIMULATED}: {'all of' if every else 'some of'} these runs used the built-in simulated server; " + (
            "their figures are made up and say nothing about any model."
        )
    invalid = [group.name for group in groups if group.verdict == "invalid"]
    if invalid:
        yield f"Excluded: invalid measurement: {', '.join(invalid)}."
    for met in _best_of_each_model(candidates):
        yield from _unmet_elsewhere(met, candidates)
    best = next((each for each in candidates if each.judged), None)
    if best is not None:
        yield from _config_differences(best)
    marked: dict[str, list[str]] = {}
    for group in best.groups if best is not None else ():
        marked.setdefault(", ".join(mark for mark in group.marks if mark != SIMULATED), []).append(group.name)
    for marks, names in marked.items():
        if marks:
            yield f"Read with care: {', '.join(names)} ({marks})."


def _unmet_elsewhere(met: Candidate, candidates: Sequence[Candidate]) -> Iterator[str]:
    """Yield the shortfalls in suites that were run at its load only with another config."""
    own = {group.suite for group in met.groups}
    for each in candidates:
        if each is not met and _where(each) == _where(met):
            against = _shortfalls(
                check for check in each.checks if check.state != "met" and check.group.suite not in own
            )
            if against:
                yield f"Not shown for other suites, which were run as {each.name}: {against}."


def _where(candidate: Candidate) -> tuple[str, str, str]:
    return candidate.model, candidate.load, candidate.server


def _config_differences(candidate: Candidate) -> Iterator[str]:
    """Yield a note if the suites of a candidate were not run with the same config."""
    configs = {group.suite: _common_config([group]) for group in candidate.groups}
    shown = [(suite, ", ".join(differing(config, configs.values()))) for suite, config in configs.items()]
    if any(text for _, text in shown):
        yield f"Not all suites were run with the same config: {'; '.join(f'{suite}: {text}' for suite, text in shown)}."


def _rank(candidate: Candidate) -> tuple[object, ...]:
    """Return the sort key: judged first; best state; fewest misses; most correct answers/s; lightest load."""
    missed = sum(check.state == "not met" for check in candidate.checks)
    order = -_STATES.index(candidate.state)
    return not candidate.judged, order, missed, -candidate.correct_per_s, candidate.level, candidate.name


def _candidates(
    groups: Sequence[RunGroup], figures: Mapping[int, Figures], rule: Sequence[Condition]
) -> Iterator[Candidate]:
    several = len({group.server for group in groups}) > 1
    by_load: dict[tuple[str, str, str], list[RunGroup]] = {}
    for group in groups:
        if group.verdict != "invalid":
            by_load.setdefault((group.model, group.load, group.server if several else ""), []).append(group)
    for (model, load, server), at_load in by_load.items():
        variants = _variants(at_load)
        configs = [_common_config(members, "structured") for members in variants]
        for members, config in zip(variants, configs, strict=True):
            checks = [check for group in members for check in _checks(group, figures[group.id], rule)]
            goodputs = [figures[group.id].rates["correct_goodput"].value for group in members]
            known = [value for value in goodputs if value is not None]
            yield Candidate(
                model=model, load=load, level=members[0].level or 0.0, server=server,
                variant=", ".join(differing(config, configs)), groups=tuple(members), checks=tuple(checks),
                judged=any(figures[group.id].counts["scored"] for group in members),
                correct_per_s=min(known, default=0.0),
                settles=tuple(_settles(members, figures, rule)),
            )  # fmt: skip


def _variants(groups: Sequence[RunGroup]) -> list[list[RunGroup]]:
    """Return all groups, or those of equal config if a suite was run with several; a schema in the prompt and one as
    ``format`` are different variants."""
    by_config: dict[str, list[RunGroup]] = {}
    for group in groups:
        by_config.setdefault(canonical_json(_common_config([group])), []).append(group)
    suites = [len({group.suite for group in members}) for members in (groups, *by_config.values())]
    if sum(suites[1:]) == suites[0]:
        by_config = {"": list(groups)}
    found = []
    for members in by_config.values():
        ways = dict.fromkeys(str(group.config.get("structured")) for group in members)
        ways.pop("none", None)
        for way in ways or {"none": None}:
            found.append([group for group in members if group.config.get("structured") in (way, "none", None)])
    return found


def _common_config(groups: Sequence[RunGroup], *more: str) -> dict[str, Any]:
    """Return the config that a candidate's groups share, plus ``more`` fields, from a group that is not of tools."""
    group = next((group for group in groups if group.config.get("structured") != "none"), groups[0])
    return {key: value for key, value in group.config.items() if key not in _FREE_FIELDS or key in more}


def _checks(group: RunGroup, figures: Figures, rule: Sequence[Condition]) -> Iterator[Check]:
    for condition in rule:
        estimate, gate = _estimate(figures, condition), judge_group(condition, group, figures)
        if estimate is not None and gate.outcome != "skip":
            metric = figures.judged_by(condition.metric)
            yield Check(group=group, condition=condition, metric=metric, estimate=estimate, state=gate.outcome)


def _settles(
    groups: Sequence[RunGroup], figures: Mapping[int, Figures], rule: Sequence[Condition]
) -> Iterator[Settles]:
    for group in groups:
        row = {"status": group.status, "verdict": group.verdict, "duration_s": group.duration_s,
               "requests": figures[group.id].counts["requests"]}  # fmt: skip
        gates = [judge_group(condition, group, figures[group.id]) for condition in rule]
        if (found := settles_of(gates, row, group.command)) is not None:
            yield found


def _estimate(figures: Figures, condition: Condition) -> Estimate | None:
    """Return the figure of a condition, or None if the suite's answers do not have it (a text has no score)."""
    metric, found = condition.metric, figures.judged(condition.metric)
    # Answers that came whole, as tool calls do, have no time between tokens: no limit on it is broken.
    if not found.n and found.why is None and (metric.counts == "scored answer" or metric.may_be_absent):
        return None
    return found

"""The headline: which model is correct and fast enough, at which load, by which rule. Pure.

Invariant: a model is called so only when the whole interval of every figure is within its limit, in every suite
that was run at that load; where an interval contains the limit, n is too small or a measurement is invalid, it is
neither confirmed nor denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from structbench.formatting import plural
from structbench.gates.expressions import Condition
from structbench.gates.next_command import Settles, together
from structbench.gates.slo import is_exact
from structbench.options import LoadOptions
from structbench.reports.candidates import STATES, Candidate, Check, candidates_of, common_config
from structbench.reports.estimates import judged_text
from structbench.results.figures import Figures
from structbench.results.groups import SIMULATED, RunGroup, differing

HeadlineState = Literal["met", "not met", "not decided", "unjudged"]
_OPS = {"<": "below", "<=": "at most", ">": "above", ">=": "at least"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    state: HeadlineState
    sentences: tuple[str, ...]
    """The answer, then the figures behind it, and then ``settled_by``."""
    settled_by: tuple[str, ...]
    """The last sentences: each has a command that settles what is open."""
    notes: tuple[str, ...]
    conditions: tuple[Condition, ...]
    candidates: tuple[Candidate, ...]
    rule: str
    """The rule with what decides: ``Rule: correct>=90%, for the whole 95 % interval, in json (80 requests).``"""

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


def headline_of(
    groups: Sequence[RunGroup],
    figures: Mapping[int, Figures],
    rule: Sequence[Condition],
    *,
    db: Path = LoadOptions.db,
    commands: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Headline:
    """Return the answer, and every candidate with its checks, best first; what is open is settled in ``db``."""
    candidates = sorted(candidates_of(groups, figures, rule, db, commands), key=_rank)
    judged = [candidate for candidate in candidates if candidate.judged]
    state: HeadlineState = judged[0].state if judged else "unjudged"
    settles = judged[0].settles if judged else [each for candidate in candidates for each in candidate.settles]
    settled_by = _capitals(settling(settles)) if state in ("not decided", "unjudged") else ()
    return Headline(
        state=state, sentences=(*_sentences(judged, rule), *settled_by), settled_by=settled_by,
        notes=tuple(_notes(groups, candidates)), conditions=tuple(rule), candidates=tuple(candidates),
        rule=_rule_text(rule, judged[0] if judged else None, groups, figures),
    )  # fmt: skip


def settling(found: Iterable[Settles], told: Iterable[str] = ()) -> list[str]:
    """Return the commands that settle what is open, with what each takes, as few as there can be, but those told."""
    known = {text.lower() for text in told}
    return [each.text for each in together([*found]) if each.text.lower() not in known]


def _capitals(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{text[0].upper()}{text[1:]}" for text in texts)


# The rule, and what it was asked of


def _rule_text(
    rule: Sequence[Condition], best: Candidate | None, groups: Sequence[RunGroup], figures: Mapping[int, Figures]
) -> str:
    asked = rule if best is None or not best.checks else [each for each in rule if _checks_on(each, best)]
    limits = " and ".join(condition.text for condition in asked)
    basis = "" if best is None else f"{_decided_by(asked, best)}{_basis(best, groups, figures)}"
    others = [condition.text for condition in rule if condition not in asked]
    basis += f"; {' and '.join(others)} {'does' if len(others) == 1 else 'do'} not apply" if others else ""
    return f"Rule: {limits}{basis}."


def _checks_on(condition: Condition, best: Candidate) -> list[Check]:
    return [check for check in best.checks if check.condition == condition]


def _decided_by(asked: Sequence[Condition], best: Candidate) -> str:
    """Return by what the limits are judged, where that is not the whole interval of each."""
    words: dict[str, list[str]] = {"for the whole 95 % interval": []}
    for condition in asked:
        alike = any(check.estimate.value is not None and not check.estimate.has_interval
                    for check in _checks_on(condition, best))  # fmt: skip
        by = "for the whole 95 % interval"
        if is_exact(condition):
            by = "by what was measured itself"
        elif alike:
            by = "by single requests, since there is no interval yet"
        words.setdefault(by, []).append(condition.text)
    found = {by: texts for by, texts in words.items() if texts}
    if len(found) == 1:
        return f", {next(iter(found))}"
    return "".join(f"; {' and '.join(texts)} {by}" for by, texts in found.items())


def _basis(best: Candidate, groups: Sequence[RunGroup], figures: Mapping[int, Figures]) -> str:
    """Return what the answer rests on: ``, in json (30 requests) and tools (20); text was not run at this load``."""
    own = {group.suite: group for group in best.groups}
    told = []
    for place, (suite, group) in enumerate(own.items()):
        n, more = figures[group.id].counts["requests"], best.earlier.get(group.id, 0)
        newest = f", the newest of {more + 1} runs" if more else ""
        told.append(f"{suite} ({f'{n:,}' if place else plural(n, 'request')}{newest})")
    badly = dict.fromkeys(group.suite for group in best.invalid)
    others = dict.fromkeys(group.suite for group in groups if group.suite not in {*own, *badly})
    left = f"; {_were(badly)} measured badly (invalid)" if badly else ""
    left += f"; {_were(others)} not run so" if others else ""
    return (f", in {', '.join(told)}" if told else "") + left


def _were(suites: Iterable[str]) -> str:
    names = [*suites]
    return f"{' and '.join(names)} {'was' if len(names) == 1 else 'were'}"


# The answer


@dataclass(frozen=True, slots=True)
class _Words:
    """What it is called to meet the rule."""

    be: str
    """``is correct and fast enough``"""
    infinitive: str
    may: str
    of: str = ""
    """`` (text; answers are not scored)``"""


def _words_for(best: Candidate, rule: Sequence[Condition]) -> _Words:
    """Return how to call who meets the rule: right and fast only if it asks for both, and of answers with scores."""
    fast = any(condition.metric.kind == "latency" and condition.op[0] == "<" for condition in rule)
    right = any(condition.metric.name == "correct" and condition.op[0] == ">" for condition in rule)
    if not best.scored:
        of = f" ({', '.join(group.suite for group in best.groups)}; answers are not scored)"
        asked = any(check.metric.kind == "latency" and check.condition.op[0] == "<" for check in best.checks)
        if asked:
            return _Words("is fast enough", "be fast enough", "may be", of)
        return _Words("meets the rule", "meet the rule", "may", of)
    if right and fast:
        return _Words("is correct and fast enough", "be correct and fast enough", "may be")
    return _Words("meets the rule", "meet the rule", "may")


def _sentences(judged: Sequence[Candidate], rule: Sequence[Condition]) -> Iterator[str]:
    """Yield the answer about the best candidate and, if it meets the rule, the other models that do."""
    if not judged:
        yield "No model can be called correct: no validly measured run has scored answers."
        return
    best = judged[0]
    words = _words_for(best, rule)
    mark = f"{SIMULATED}: " if any(group.simulated for group in best.groups) else ""
    match best.state:
        case "met":
            yield f"{mark}{best.name} {words.be}{words.of}."
            known = [check for check in best.checks if check.estimate.value is not None]
            yield f"{_by_suite((check, _check_text(check)) for check in known)}."
            others = _best_of_each_model(judged)[1:]
            if others:
                whole = words.be.startswith("is ")
                so = f"Also {words.be[3:]}:" if whole else "So does" if len(others) == 1 else "So do"
                yield f"{so} {', '.join(each.name for each in others)}."
        case "not decided":
            yield f"{mark}No model has been shown to {words.infinitive}; {best.name} {words.may}{words.of}."
            yield f"Not settled: {_candidate_shortfalls(best)}."
        case "not met":
            yield f"{mark}No model {words.be} at any load measured{words.of}."
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
    found = [_shortfalls(check for check in candidate.checks if check.state == candidate.state)]
    if candidate.invalid and candidate.state == "not decided":
        found.append(f"{_were(dict.fromkeys(group.suite for group in candidate.invalid))} measured badly (invalid)")
    return "; ".join(filter(None, found)) or "nothing was measured"


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
    configs = {group.suite: common_config([group]) for group in candidate.groups}
    shown = [(suite, ", ".join(differing(config, configs.values()))) for suite, config in configs.items()]
    if any(text for _, text in shown):
        yield f"Not all suites were run with the same config: {'; '.join(f'{suite}: {text}' for suite, text in shown)}."


def _rank(candidate: Candidate) -> tuple[object, ...]:
    """Return the sort key: judged first; best state; fewest misses; most correct answers/s; lightest load."""
    missed = sum(check.state == "not met" for check in candidate.checks)
    order = -STATES.index(candidate.state)
    return (not candidate.judged, order, bool(candidate.invalid), missed, -candidate.correct_per_s, candidate.level,
            candidate.name)  # fmt: skip

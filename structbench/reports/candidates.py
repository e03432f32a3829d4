"""Who may be the answer: each model at each load, with the checks of its rule in every suite. Pure.

Of a cell that was measured several times the newest valid run counts; a suite that was measured badly leaves its
candidate open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from structbench.gates.expressions import Condition
from structbench.gates.next_command import Settles, settles_of
from structbench.gates.slo import Judgement, judge_group
from structbench.identity import canonical_json
from structbench.metrics import Metric
from structbench.results.figures import Figures
from structbench.results.groups import RunGroup, differing
from structbench.stats import Estimate

STATES: tuple[Judgement, ...] = ("not met", "not decided", "met")
"""Worst first."""
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
    """Those whose measurement is valid, one for each cell."""
    invalid: tuple[RunGroup, ...]
    """Those of the other cells: as long as there are any, nothing is decided but what is not met."""
    earlier: Mapping[int, int]
    """Id of a group -> how many of its cell there are beside it."""
    checks: tuple[Check, ...]
    scored: bool
    """Whether some of its answers were scored in a valid measurement."""
    judged: bool
    """Whether the rule is asked of it: its answers are scored, or nobody's are and it is judged by its speed."""
    correct_per_s: float
    """Correct goodput in the suite where it is lowest."""
    settles: tuple[Settles, ...] = ()
    """What would decide each of its run groups that is not decided."""

    @property
    def state(self) -> Judgement:
        found = {check.state for check in self.checks} | ({"not decided"} if self.invalid else set[Judgement]())
        return next((word for word in STATES if word in found), "not decided")

    @property
    def name(self) -> str:
        told = ", ".join(filter(None, (self.server, self.variant)))
        return f"{self.model} at {self.load}{f' ({told})' if told else ''}"


def candidates_of(
    groups: Sequence[RunGroup], figures: Mapping[int, Figures], rule: Sequence[Condition], db: Path,
    commands: Mapping[str, Sequence[str]],
) -> list[Candidate]:  # fmt: skip
    """Return every candidate; ``commands``: run id -> the words that ask for its cell, if not those it has kept."""
    several = len({group.server for group in groups}) > 1
    by_load: dict[tuple[str, str, str], list[RunGroup]] = {}
    for group in groups:
        by_load.setdefault((group.model, group.load, group.server if several else ""), []).append(group)
    found = []
    for (model, load, server), at_load in by_load.items():
        newest = newest_of(at_load)
        variants = _variants([group for group, _ in newest])
        configs = [common_config(members, "structured") for members in variants]
        for members, config in zip(variants, configs, strict=True):
            valid = [group for group in members if group.verdict != "invalid"]
            goodputs = [figures[group.id].rates["correct_goodput"].value for group in valid]
            known = [value for value in goodputs if value is not None]
            checks = tuple(check for group in valid for check in _checks(group, figures[group.id], rule))
            scored = any(figures[group.id].counts["scored"] for group in valid)
            found.append(Candidate(
                model=model, load=load, level=members[0].level or 0.0, server=server,
                variant=", ".join(differing(config, configs)), groups=tuple(valid),
                invalid=tuple(group for group in members if group not in valid),
                earlier={group.id: more for group, more in newest if more and group in members},
                checks=checks, scored=scored, judged=scored, correct_per_s=min(known, default=0.0),
                settles=tuple(_settles(members, figures, rule, db, commands)),
            ))  # fmt: skip
    if any(each.scored for each in found):
        return found
    return [replace(each, judged=_is_unscored(each, figures)) for each in found]


def _is_unscored(candidate: Candidate, figures: Mapping[int, Figures]) -> bool:
    """Return whether its answers came and have no score to be judged by, but a speed."""
    return bool(candidate.checks) and all(figures[group.id].counts["completed"] for group in candidate.groups)


def newest_of(groups: Sequence[RunGroup]) -> list[tuple[RunGroup, int]]:
    """Return for each cell its newest run group, a valid one if there is one, and how many others there are."""
    cells: dict[str, list[RunGroup]] = {}
    for group in groups:
        cells.setdefault(group.config_hash or canonical_json([group.suite, dict(group.config)]), []).append(group)

    def age(group: RunGroup) -> tuple[bool, datetime]:
        start = group.started_at or datetime.min
        return group.verdict != "invalid", start if start.tzinfo else start.replace(tzinfo=UTC)

    return [(max(reversed(same), key=age), len(same) - 1) for same in cells.values()]


def _variants(groups: Sequence[RunGroup]) -> list[list[RunGroup]]:
    """Return all groups, or those of equal config if a suite was run with several; a schema in the prompt and one as
    ``format`` are different variants."""
    by_config: dict[str, list[RunGroup]] = {}
    for group in groups:
        by_config.setdefault(canonical_json(common_config([group])), []).append(group)
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


def common_config(groups: Sequence[RunGroup], *more: str) -> dict[str, Any]:
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
    groups: Sequence[RunGroup], figures: Mapping[int, Figures], rule: Sequence[Condition], db: Path,
    commands: Mapping[str, Sequence[str]],
) -> Iterator[Settles]:  # fmt: skip
    for group in groups:
        counts = figures[group.id].counts
        row = {"status": group.status, "verdict": group.verdict, "duration_s": group.duration_s, "suite": group.suite,
               "requests": counts["requests"], "scored": counts["scored"]}  # fmt: skip
        gates = [judge_group(condition, group, figures[group.id]) for condition in rule]
        if group.verdict == "invalid":  # what it misses may be this client's doing
            gates = [replace(gate, outcome="not decided") if gate.applies else gate for gate in gates]
        if (found := settles_of(gates, row, commands.get(group.run_ids[0], group.command), db)) is not None:
            yield found


def _estimate(figures: Figures, condition: Condition) -> Estimate | None:
    """Return the figure of a condition, or None if the suite's answers do not have it (a text has no score)."""
    metric, found = condition.metric, figures.judged(condition.metric)
    # Answers that came whole, as tool calls do, have no time between tokens: no limit on it is broken.
    if not found.n and found.why is None and (metric.counts == "scored answer" or metric.may_be_absent):
        return None
    return found

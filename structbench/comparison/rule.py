"""Whether each side of a pair keeps the rule, judged as a report judges it."""

from __future__ import annotations

from collections.abc import Sequence

from structbench.comparison.pairing import Pair
from structbench.gates.expressions import Condition
from structbench.gates.slo import judge_group, state_of
from structbench.results.figures import figures_of, runs_of
from structbench.results.groups import RunGroup
from structbench.results.intervals import gap_counts
from structbench.store import Reader


def rule_note(readers: tuple[Reader, Reader], pair: Pair, rule: Sequence[Condition]) -> str:
    """Return ``the rule (correct>=90% …) is met by A, not decided for B``."""
    by = {"met": "is met by {}", "not met": "is not met by {}", "not decided": "is not decided for {}"}
    said = [
        by[_state(reader, group, rule)].format(side)
        for side, reader, group in zip("AB", readers, (pair.a, pair.b), strict=True)
    ]
    return f"the rule ({' '.join(condition.text for condition in rule)}) {said[0]} and {said[1]}"


def _state(reader: Reader, group: RunGroup, rule: Sequence[Condition]) -> str:
    gaps = gap_counts(reader, runs_of([group])) if len(group.run_ids) > 1 else None
    figures = figures_of(reader, [group], gaps)[group.id]
    return state_of([judge_group(condition, group, figures) for condition in rule])

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
    """Return ``the rule (correct>=90% …) is met by A and is not decided for B``, or ``… is met by both sides``."""
    by = {"met": "is met by {}", "not met": "is not met by {}", "not decided": "is not decided for {}"}
    a, b = (_state(reader, group, rule) for reader, group in zip(readers, (pair.a, pair.b), strict=True))
    both = {"met": "is met by both sides", "not met": "is met by neither side", "not decided": "is decided for neither"}
    said = both[a] if a == b else f"{by[a].format('A')} and {by[b].format('B')}"
    return f"the rule ({' '.join(condition.text for condition in rule)}) {said}"


def _state(reader: Reader, group: RunGroup, rule: Sequence[Condition]) -> str:
    gaps = gap_counts(reader, runs_of([group])) if len(group.run_ids) > 1 else None
    figures = figures_of(reader, [group], gaps, [each.metric for each in rule])[group.id]
    return state_of([judge_group(condition, group, figures) for condition in rule])

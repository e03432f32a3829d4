"""A whole report as one value, read from the database, that each format renders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from structbench import __version__
from structbench.gates.expressions import Condition
from structbench.gates.slo import Gate, judge_groups
from structbench.metrics import ALIASES, METRICS
from structbench.output import json_value
from structbench.reports.candidates import Candidate
from structbench.reports.headline import Headline, headline_of
from structbench.results.chart_data import curves_of, parts_of, positions_of, timeline_of
from structbench.results.figures import Figures, figures_of, runs_of
from structbench.results.groups import RunGroup, run_groups
from structbench.results.intervals import gap_counts
from structbench.results.nodes import NodeFigures, nodes_of
from structbench.results.wrong_answers import WrongKind, wrong_kinds, wrong_of
from structbench.stats import CONFIDENCE
from structbench.store import Reader, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    made_at: datetime
    database: str
    """The file's name without its folder: a report travels."""
    pooled: bool
    groups: Sequence[RunGroup]
    figures: dict[int, Figures]
    headline: Headline
    gates: Sequence[Gate]
    """The rule judged on each run group."""
    wrong: Sequence[WrongKind]
    """What was wrong with answers, by kind."""
    nodes: Sequence[NodeFigures]
    """The nodes of a cluster that sent the runs of each group; none for loads from one machine."""
    details: dict[str, Any] | None
    """curves, positions, parts, timeline, wrong: too much for tables; None if not requested."""


def document_of(
    reader: Reader | Store, run_ids: Sequence[str], rule: Sequence[Condition], *, pool: bool, details: bool,
    commands: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Document:  # fmt: skip
    """Read the report, from a file with one connection, so that a concurrent load cannot make figures disagree.

    ``commands``: run id -> the words that ask for its cell, where they are not those that the run has kept.
    """
    with reader.together() if isinstance(reader, Reader) else nullcontext():
        groups = run_groups(reader, run_ids, pool=pool)
        # Tens of millions of gaps take a second or more to count, so only where they are needed.
        gaps = gap_counts(reader, runs_of(groups)) if details or pool else None
        figures = figures_of(reader, groups, gaps, [condition.metric for condition in rule])
        wrong = wrong_kinds(reader, groups)
        nodes = nodes_of(reader, groups)
        found = None
        if details and gaps is not None:
            found = {
                "curves": curves_of(reader, groups, figures, gaps),
                "positions": positions_of(reader, groups, figures),
                "parts": parts_of(reader, groups),
                "timeline": timeline_of(reader, groups, figures),
                "wrong": wrong_of(reader, groups),
            }
    return Document(
        made_at=datetime.now(UTC).replace(microsecond=0), database=reader.path.name, pooled=pool, groups=groups,
        figures=figures, nodes=nodes, headline=headline_of(groups, figures, rule, db=reader.path, commands=commands),
        gates=judge_groups(rule, groups, figures), wrong=wrong, details=found,
    )  # fmt: skip


def to_json(document: Document) -> dict[str, Any]:
    """Return the report as JSON values, as docs/report.md describes."""
    headline = document.headline
    return {
        "structbench_version": __version__,
        "made_at": json_value(document.made_at),
        "database": document.database,
        "pooled": document.pooled,
        "confidence": CONFIDENCE,
        "headline": {
            "state": headline.state, "text": headline.text, "notes": list(headline.notes), "rule": headline.rule,
            "candidates": [_candidate_json(each) for each in headline.candidates],
        },
        "slos": [asdict(gate) for gate in document.gates],
        "lines": [_group_json(group, document.figures[group.id]) for group in document.groups],
        "nodes": [asdict(each) for each in document.nodes],
        **(document.details or {}),
    }  # fmt: skip


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    return {
        "model": candidate.model, "load": candidate.load, "server": candidate.server or None,
        "variant": candidate.variant or None,
        "judged": candidate.judged, "state": candidate.state, "lines": [group.id for group in candidate.groups],
        "checks": [
            {"line": check.group.id, "condition": check.condition.text, "state": check.state, **asdict(check.estimate)}
            for check in candidate.checks
        ],
    }  # fmt: skip


def _group_json(group: RunGroup, figures: Figures) -> dict[str, Any]:
    shown: dict[str, Any] = json_value(asdict(group))
    return {
        **shown,
        "marks": list(group.marks),
        **figures.counts,
        **{name: {p: asdict(each) for p, each in found.items()} for name, found in figures.latencies.items()},
        **{name: asdict(each) for name, each in figures.shares.items()},
        **{alias: asdict(figures.shares[name]) for alias, name in ALIASES.items()},
        **{name: asdict(each) if METRICS[name].counts == "scored answer" else each.value
           for name, each in figures.rates.items()},
        "rates": {name: asdict(each) for name, each in figures.rates.items()},
        "such_cases": {name: asdict(each) for name, each in figures.such_cases.items()},
        "stream_tokens_per_s": figures.stream_tokens_per_s,
        "outcomes": [{"outcome": name, "failed": failed, "count": n} for name, failed, n in figures.outcomes],
        "failures": [asdict(each) for each in figures.failures],
    }  # fmt: skip

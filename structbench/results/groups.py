"""The lines of a report: each a run, or, pooled, all chosen runs of one config.

Invariant: a line never mixes configs, and what stands against its figures (simulated, interrupted, invalid,
degraded) is in ``marks``, the gravest first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from structbench.formatting import clipped, load_text, printable
from structbench.identity import flat

if TYPE_CHECKING:
    from structbench.store import Reader

SIMULATED = "SIMULATED"
N = TypeVar("N", int, float)
_VERDICTS = ("invalid", "degraded")
_RUNS = """
SELECT r.run_id, r.config_hash, r.model, r.model_digest, r.server_version, r.suite, r.load_kind, r.concurrency,
    r.rate, r.arrival, r.planned, r.status, r.verdict, r.verdict_reason, r.label, r.config, r.environment,
    r.goodput_limits, r.started_at, r.finished_at, d.duration_s, d.model_load_s,
    coalesce((SELECT bool_or(simulated) FROM segments WHERE segments.run_id = r.run_id), false) AS simulated
FROM runs AS r LEFT JOIN run_durations AS d USING (run_id)
WHERE r.run_id IN (SELECT unnest($1::VARCHAR[]))
ORDER BY r.model, r.suite, r.load_kind, r.rate, r.concurrency, r.started_at, r.run_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What was run once, or the same several times. Texts are printable, as a terminal may show them."""

    id: int
    name: str
    """``smollm2:360m json c=4``, and what tells it from others of that name."""
    model: str
    suite: str
    load: str
    load_kind: str
    level: float | None
    """Requests in flight, or requests/s."""
    run_ids: tuple[str, ...]
    config_hash: str | None
    labels: tuple[str, ...]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    model_digest: str | None
    server_version: str | None
    planned: int | None
    duration_s: float | None
    model_load_s: float | None
    status: str
    verdict: str | None
    reasons: tuple[str, ...]
    simulated: bool
    goodput_limits: tuple[str, ...]
    """What --goodput asked of single requests, which correct goodput keeps to: ``ttft_s <= 0.5``."""
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def marks(self) -> tuple[str, ...]:
        found = [SIMULATED] if self.simulated else []
        found += [self.verdict] if self.verdict in _VERDICTS else []
        found += ["no verdict"] if self.verdict is None else []
        found += [self.status] if self.status != "complete" else []
        return tuple(found)


def lines_of(reader: Reader, run_ids: Sequence[str], *, pool: bool) -> list[Line]:
    """The chosen runs by model, suite and load, each a line; ``pool``: one line for each config."""
    lines = [_line(number, run) for number, run in enumerate(reader.query(_RUNS, [list(run_ids)]))]
    if pool:
        lines = _pooled(lines)
    return _distinct(lines)


def _line(number: int, run: Mapping[str, Any]) -> Line:
    model, suite, load = printable(str(run["model"])), printable(str(run["suite"])), load_text(run)
    limits = tuple(f"{name} <= {limit:g}" for name, limit in _object(run["goodput_limits"]).items())
    level = run["concurrency"] if run["rate"] is None else run["rate"]
    return Line(
        id=number, name=f"{model} {suite} {load}", model=model, suite=suite, load=load,
        load_kind=str(run["load_kind"]), level=level, run_ids=(run["run_id"],), config_hash=run["config_hash"],
        labels=_texts([run["label"]]),
        config=_object(run["config"]), environment=_object(run["environment"]), model_digest=run["model_digest"],
        server_version=run["server_version"], planned=run["planned"], duration_s=run["duration_s"],
        model_load_s=run["model_load_s"], status=str(run["status"]), verdict=run["verdict"],
        reasons=_texts([run["verdict_reason"]]), simulated=run["simulated"],
        goodput_limits=limits, started_at=run["started_at"],
        finished_at=run["finished_at"],
    )  # fmt: skip


def _texts(values: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(printable(value) for value in values if value is not None))


def _object(text: str | None) -> dict[str, Any]:
    value = {} if text is None else json.loads(text)
    return value if isinstance(value, dict) else {}


def _pooled(lines: Sequence[Line]) -> list[Line]:
    """One line for each config; its standing is the worst of its runs'."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.config_hash or line.run_ids[0], []).append(line)
    return [_together(number, group) for number, group in enumerate(groups.values())]


def _together(number: int, group: Sequence[Line]) -> Line:
    first = group[0]
    worst = next((word for word in (*_VERDICTS, None) if any(line.verdict == word for line in group)), first.verdict)
    starts = [line.started_at for line in group if line.started_at is not None]
    ends = [line.finished_at for line in group if line.finished_at is not None]
    return replace(
        first, id=number, run_ids=tuple(run_id for line in group for run_id in line.run_ids),
        name=first.name if len(group) == 1 else f"{first.name} ({len(group)} runs pooled)",
        labels=_texts(label for line in group for label in line.labels),
        reasons=_texts(reason for line in group for reason in line.reasons),
        planned=_sum(line.planned for line in group), duration_s=_sum(line.duration_s for line in group),
        status=next((line.status for line in group if line.status != "complete"), "complete"), verdict=worst,
        simulated=any(line.simulated for line in group),
        goodput_limits=_texts(limit for line in group for limit in line.goodput_limits),
        started_at=min(starts, default=None), finished_at=max(ends, default=None),
    )  # fmt: skip


def _sum(values: Iterable[N | None]) -> N | None:
    """None when one is unknown: less than all is not the sum."""
    known = list(values)
    return None if None in known else sum(known)  # type: ignore[arg-type]


def _distinct(lines: Sequence[Line]) -> list[Line]:
    """Each line with a name of its own: what differs in its config, else its labels, else which of them it is."""
    named: list[Line] = []
    for line in lines:
        namesakes = [other for other in lines if other.name == line.name]
        extra = _difference(line, namesakes) if len(namesakes) > 1 else ""
        named.append(replace(line, name=f"{line.name} ({extra})") if extra else line)
    return named


def _difference(line: Line, namesakes: Sequence[Line]) -> str:
    shown = differing(line.config, [other.config for other in namesakes])
    alike = [other for other in namesakes if other.config == line.config]
    if len(alike) > 1 and len({other.labels for other in alike}) == len(alike) and line.labels:
        shown += line.labels
    elif len(alike) > 1:
        number = [other.id for other in alike].index(line.id) + 1
        shown.append(f"run {number} of {len(alike)}")
    return ", ".join(shown)


def differing(config: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> list[str]:
    """The fields of a config that not all of the others share, with its values: ``think true``."""
    own, theirs = flat(config), [flat(other) for other in others]
    paths = [path for path in own if any(other.get(path) != own[path] for other in theirs)]
    return [f"{'.'.join(path)} {clipped(printable(own[path]).strip(chr(34)), 24)}" for path in paths]

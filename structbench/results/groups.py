"""Run groups, the rows of a report: each is one run or, when pooled, all selected runs of one config."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from structbench.formatting import clipped, json_object, load_text, printable, server_text, setting_text
from structbench.identity import flat
from structbench.metrics import limits_of
from structbench.notes import reached, stored_notes
from structbench.results.intervals import Rows
from structbench.types import Note

SIMULATED = "SIMULATED"
N = TypeVar("N", int, float)
_VERDICTS = ("invalid", "degraded")
_TOLD = ("server_kind", "api", "quantization", "parameters", "context_tokens", "server_slots")
SERVER_FIELDS = ("server_address", "server_version", "model_digest", "api")
"""Config fields in which the same model on two servers differs by nature."""
_RUNS = """
SELECT r.run_id, r.config_hash, r.model, r.model_digest, r.server_version, r.suite, r.load_kind, r.concurrency,
    r.rate, r.arrival, r.planned, r.status, r.verdict, r.verdict_reason, r.label, r.config, r.environment,
    r.goodput_limits, r.settled, r.started_at, r.finished_at, r.api, r.server_kind, r.quantization, r.parameters,
    r.context_tokens, r.server_slots, d.duration_s, d.rate_s, d.model_load_s,
    (SELECT list_sort(list_distinct(list(answered_by) || list('fingerprint ' || fingerprint))) FROM requests
        WHERE requests.run_id = r.run_id) AS answered,
    coalesce((SELECT bool_or(simulated) FROM segments WHERE segments.run_id = r.run_id), false) AS simulated
FROM runs AS r LEFT JOIN run_durations AS d USING (run_id)
WHERE r.run_id IN (SELECT unnest($1::VARCHAR[]))
ORDER BY r.model, r.suite, r.load_kind, r.rate, r.concurrency, r.started_at, r.run_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGroup:
    """A run, or the pooled runs of one config; JSON calls it a line. Texts are safe to print on a terminal."""

    id: int
    name: str
    """``smollm2:360m json c=4``, and what distinguishes it from others of that name."""
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
    answered: tuple[str, ...] = ()
    """Which models the answers say they are of, and the server's fingerprints amid them."""
    server_version: str | None
    server: str
    """``llama.cpp (openai) at 127.0.0.1:8080``: its kind, the API if that is not its own, and where it is."""
    server_kind: str | None
    api: str | None
    quantization: str | None
    parameters: int | None
    context_tokens: int | None
    server_slots: int | None
    planned: int | None
    duration_s: float | None
    rate_s: float | None
    """The seconds that rates are of: those of the steady part, where there is one."""
    model_load_s: float | None
    status: str
    verdict: str | None
    reasons: tuple[str, ...]
    notes: tuple[Note, ...]
    simulated: bool
    goodput_limits: tuple[str, ...]
    """The --goodput limits on single requests, which apply to correct goodput: ``ttft_s <= 0.5``."""
    settled: str | None = None
    """JSON of what the looks at one run left open, where it went on until its rule was decided."""
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def distinct_load(self) -> str:
        """The load, and what distinguishes the group from others of its model, suite and load."""
        return self.name.removeprefix(f"{self.model} {self.suite} ")

    @property
    def command(self) -> list[str] | None:
        """The words of the command line that asks for the cell, as the run has kept them."""
        words = self.environment.get("command")
        is_whole = isinstance(words, list) and all(isinstance(word, str) for word in words)
        return words if is_whole else None

    @property
    def marks(self) -> tuple[str, ...]:
        found = [SIMULATED] if self.simulated else []
        found += [self.verdict] if self.verdict in _VERDICTS else []
        found += ["no verdict"] if self.verdict is None else []
        found += [self.status] if self.status != "complete" else []
        found += ["load not reached"] if any(note.kind == reached.KIND for note in self.notes) else []
        return tuple(found)


def run_groups(reader: Rows, run_ids: Sequence[str], *, pool: bool) -> list[RunGroup]:
    """Return the selected runs by model, suite and load, each as a group; with ``pool``, one group per config."""
    notes = stored_notes(reader.query, run_ids)
    runs = reader.query(_RUNS, [list(run_ids)])
    groups = [_run_group(number, run, notes[run["run_id"]]) for number, run in enumerate(runs)]
    if pool:
        groups = _pooled_by_config(groups)
    return _with_distinct_names(groups)


def _run_group(number: int, run: Mapping[str, Any], notes: Iterable[Note]) -> RunGroup:
    model, suite, load = printable(str(run["model"])), printable(str(run["suite"])), load_text(run)
    limits = tuple(f"{name} <= {limit:g}" for name, limit in (limits_of(run["goodput_limits"]) or {}).items())
    level = run["concurrency"] if run["rate"] is None else run["rate"]
    config = json_object(run["config"])
    return RunGroup(
        id=number, name=f"{model} {suite} {load}", model=model, suite=suite, load=load,
        load_kind=str(run["load_kind"]), level=level, run_ids=(run["run_id"],), config_hash=run["config_hash"],
        labels=_distinct_texts([run["label"]]), config=config,
        environment=json_object(run["environment"]), model_digest=run["model_digest"],
        answered=_distinct_texts(run["answered"] or ()),
        server_version=run["server_version"],
        server=printable(server_text(run["server_kind"], config.get("server_address"), run["api"])),
        **{name: run[name] for name in _TOLD}, planned=run["planned"], duration_s=run["duration_s"],
        rate_s=run["rate_s"],
        model_load_s=run["model_load_s"], status=str(run["status"]), verdict=run["verdict"],
        reasons=_distinct_texts([run["verdict_reason"]]), simulated=run["simulated"],
        notes=tuple(replace(note, text=printable(note.text)) for note in notes),
        goodput_limits=limits, settled=run["settled"], started_at=run["started_at"],
        finished_at=run["finished_at"],
    )  # fmt: skip


def _distinct_texts(values: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(printable(value) for value in values if value is not None))


def _pooled_by_config(groups: Sequence[RunGroup]) -> list[RunGroup]:
    """Return one group per config, with the worst status and verdict of its runs."""
    by_config: dict[str, list[RunGroup]] = {}
    for group in groups:
        by_config.setdefault(group.config_hash or group.run_ids[0], []).append(group)
    return [_pool(number, members) for number, members in enumerate(by_config.values())]


def _pool(number: int, members: Sequence[RunGroup]) -> RunGroup:
    first = members[0]
    verdicts = [group.verdict for group in members]
    worst = next((word for word in (*_VERDICTS, None) if word in verdicts), first.verdict)
    starts = [group.started_at for group in members if group.started_at is not None]
    ends = [group.finished_at for group in members if group.finished_at is not None]
    return replace(
        first, id=number, run_ids=tuple(run_id for group in members for run_id in group.run_ids),
        name=first.name if len(members) == 1 else f"{first.name} ({len(members)} runs pooled)",
        labels=_distinct_texts(label for group in members for label in group.labels),
        reasons=_distinct_texts(reason for group in members for reason in group.reasons),
        notes=tuple(dict.fromkeys(note for group in members for note in group.notes)),
        planned=_sum(group.planned for group in members), duration_s=_sum(group.duration_s for group in members),
        rate_s=_sum(group.rate_s for group in members),
        status=next((group.status for group in members if group.status != "complete"), "complete"), verdict=worst,
        simulated=any(group.simulated for group in members),
        settled=first.settled if len(members) == 1 else None,
        goodput_limits=_distinct_texts(limit for group in members for limit in group.goodput_limits),
        started_at=min(starts, default=None), finished_at=max(ends, default=None),
    )  # fmt: skip


def _sum(values: Iterable[N | None]) -> N | None:
    """Return the sum, or None if any value is unknown."""
    known = list(values)
    return None if None in known else sum(known)  # type: ignore[arg-type]


def _with_distinct_names(groups: Sequence[RunGroup]) -> list[RunGroup]:
    """Return the groups with distinct names, by what differs in the config, else the labels, else a number."""
    named: list[RunGroup] = []
    for group in groups:
        namesakes = [other for other in groups if other.name == group.name]
        extra = _distinction(group, namesakes) if len(namesakes) > 1 else ""
        named.append(replace(group, name=f"{group.name} ({extra})") if extra else group)
    return named


def _distinction(group: RunGroup, namesakes: Sequence[RunGroup]) -> str:
    shown = differing_by_server(group, namesakes)
    alike = [other for other in namesakes if other.config == group.config]
    if len(alike) > 1 and len({other.labels for other in alike}) == len(alike) and group.labels:
        shown += group.labels
    elif len(alike) > 1:
        number = [other.id for other in alike].index(group.id) + 1
        shown.append(f"run {number} of {len(alike)}")
    return ", ".join(shown)


def differing_by_server(group: RunGroup, others: Sequence[RunGroup]) -> list[str]:
    """Return what distinguishes the group from the others: the server as one text, then config fields."""
    if all(other.server == group.server for other in others):
        return differing(group.config, [other.config for other in others])
    fields = {name: value for name, value in group.config.items() if name not in SERVER_FIELDS}
    shown = [group.server, *differing(fields, [other.config for other in others])]
    own = {name: value for name, value in group.config.items() if name in SERVER_FIELDS}
    return shown + differing(own, [other.config for other in others if other.server == group.server])


def differing(config: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the config fields that not all others share, with their values: ``endpoint chat``, ``num_ctx=2048``."""
    own, theirs = flat(config), [flat(other) for other in others]
    paths = [path for path in own if any(other.get(path) != own[path] for other in theirs)]
    return [_field_text(path, own[path]) for path in paths]


def _field_text(path: tuple[str, ...], value: str) -> str:
    if path == ("think",) or (path[0] in ("options", "body") and len(path) > 1):
        return setting_text(".".join(path[1:] or path), json.loads(value))
    return f"{'.'.join(path)} {clipped(printable(value).strip(chr(34)), 24)}"

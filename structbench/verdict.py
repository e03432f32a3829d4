"""Judges the client by what its own delay does to the figures; a slow or failing server makes no run invalid. Pure.

For each request the client keeps by how much its first chunk, and each chunk, may have come earlier than stamped, and
how late it was sent. A percentile of what was measured and the same percentile with all of that taken off enclose the
true one; what matters is how far they are apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from errno import EMFILE
from os import strerror
from statistics import fmean
from typing import Any, Literal

from loadgen.types import MODEL_ERRORS, NS, RequestRecord
from structbench.formatting import plural
from structbench.stats import needed, percentile

VerdictWord = Literal["valid", "degraded", "invalid"]
Query = Callable[[str, Sequence[Any]], list[dict[str, Any]]]

NO_MORE_FILES = strerror(EMFILE)
"""The system's message when this client may not open another socket."""

JUDGED = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
"""The percentiles that are judged, each from as many values as it needs to be shown with an interval."""
OFF = (0.05, 0.25)
"""Share of a median that it may be off by; above, a run is degraded, invalid."""
TAIL_OFF = (0.05, 1.0)
"""The same for TTFT's higher percentiles; ITL's make a run degraded at most."""
RESOLUTION_S = 0.0001
"""What the clocks of client and kernel cannot tell apart; a figure that is off by less is not held against anybody."""
FULL_SHARE = (0.90, 0.60)
"""Mean share of a closed loop's concurrency that was in flight; below, the load was not the one asked for. Judged
only if nearly all requests completed: what a server refuses at once is in flight for no time."""
NEARLY_ALL = 0.9
CLOCKS_S = 0.001
"""How well the clocks of several nodes must be known."""
TOGETHER_S = 0.005
"""How far apart several nodes may begin."""
_GAPS = 2_000_000
"""Gaps that are judged at most: those of requests spread evenly over the run."""

FREE_NS = "end_ns + coalesce(held_s * 1e9, 0)::BIGINT"
"""SQL: when the stream of a request could send the next one, as far as the server decides that."""
_P = ", ".join(map(str, JUDGED.values()))
_MODEL_ERRORS = ", ".join(f"'{kind}'" for kind in MODEL_ERRORS)
FACTS = f"""
WITH sent AS (
    SELECT segment, sent_ns, {FREE_NS} AS free_ns FROM requests WHERE run_id = $1 AND sent_ns IS NOT NULL
), full_from AS (
    SELECT segment, max(sent_ns) FILTER (WHERE n = concurrency) AS from_ns, max(sent_ns) AS to_ns
    FROM (SELECT segment, sent_ns, row_number() OVER (PARTITION BY segment ORDER BY sent_ns) AS n FROM sent)
        CROSS JOIN (SELECT concurrency FROM runs WHERE run_id = $1)
    GROUP BY segment HAVING count(*) >= 3 * any_value(concurrency)
), held AS (
    SELECT segment, from_ns, to_ns, sum(greatest(0, least(free_ns, to_ns) - greatest(sent_ns, from_ns))) AS held_ns
    FROM sent JOIN full_from USING (segment) GROUP BY segment, from_ns, to_ns
), first AS (
    SELECT ttft_s AS high, ttft_s - coalesce(ttft_off_s, 0) AS low, ttft_s + send_lag_s AS due, processor_wait_s AS wait
    FROM requests WHERE run_id = $1 AND error_kind IS NULL AND ttft_s IS NOT NULL
), of_first AS (
    SELECT count(*) AS firsts, quantile_cont(high, [{_P}]) AS ttft, quantile_cont(low, [{_P}]) AS ttft_low,
        quantile_cont(due, [{_P}]) AS ttft_due, quantile_cont(wait, [{_P}]) AS processor_wait FROM first
), of_nodes AS (
    SELECT count(*) FILTER (WHERE died) AS nodes_died, max(clock_error_ns) / 1e9 AS clock_error_s FROM nodes
    WHERE run_id = $1
), of_requests AS (
    SELECT count(*) AS requests, coalesce(max(request_index) + 1, 0) AS reached,
        count(*) FILTER (WHERE error_kind IS NULL) AS completed,
        sum(chunks) FILTER (WHERE error_kind IS NULL) AS chunks,
        count(*) FILTER (WHERE error_kind IS NULL AND len(chunk_early_us) > 0) AS with_early_chunks,
        count(*) FILTER (WHERE error_kind IN ({_MODEL_ERRORS})) AS of_model,
        count(*) FILTER (WHERE contains(error_message, '{NO_MORE_FILES}')) AS no_more_files,
        count(*) FILTER (WHERE clock = 'stepped') AS stepped,
        count(*) FILTER (WHERE error_kind IS NULL AND ttft_s IS NOT NULL AND ttft_off_s IS NULL) AS unknown,
        count(*) FILTER (WHERE error_kind = 'worker_died') AS died,
        count(*) FILTER (WHERE error_kind = 'node_died') AS lost_with_nodes
    FROM requests WHERE run_id = $1
)
SELECT *, (SELECT sum(held_ns) / nullif(sum(to_ns - from_ns), 0) FROM held) AS in_flight_mean,
    (SELECT concurrency FROM runs WHERE run_id = $1) AS concurrency,
    (SELECT max(apart_s) FROM (
        SELECT max(start_lag_s) - min(start_lag_s) AS apart_s FROM nodes WHERE run_id = $1 GROUP BY segment
    )) AS start_apart_s
FROM of_requests, of_first, of_nodes
"""
"""SQL for the facts that ``judge`` needs about a run, without the gaps; ``reached`` also counts second turns that never
arose.

``in_flight_mean`` is of a closed loop's full part: from its Nth request sent to its last one sent; NULL for an open
loop and for fewer than 3 N requests. A stream that the server holds after its answer, or that it refused and that
pauses therefore, is as good as in flight: only what is left is this client's doing.
"""
GAPS = f"""
WITH zipped AS (
    SELECT unnest(chunk_offsets_us[2:]) AS later, unnest(chunk_offsets_us[1:-2]) AS earlier,
        unnest(chunk_early_us[2:]) AS later_early, unnest(chunk_early_us[1:-2]) AS earlier_early
    FROM requests WHERE run_id = $1 AND error_kind IS NULL AND chunks > 1 AND request_index % $2 = 0
), gaps AS (
    SELECT (later - earlier) / 1e6 AS gap, (later - earlier - coalesce(later_early, 0)) / 1e6 AS low,
        (later - earlier + coalesce(earlier_early, 0)) / 1e6 AS high
    FROM zipped
)
SELECT count(*) AS gaps, avg(gap) AS gap_mean, quantile_cont(gap, [{_P}]) AS itl,
    quantile_cont(greatest(0, low), [{_P}]) AS itl_low, quantile_cont(high, [{_P}]) AS itl_high
FROM gaps
"""
"""SQL for the gaps between chunks: as measured, and as small and as large as they may have been."""


@dataclass(frozen=True, slots=True)
class Verdict:
    word: VerdictWord
    reason: str | None = None


def facts_of(query: Query, run_id: str) -> dict[str, Any]:
    """Return the facts about a stored run that ``judge`` needs."""
    (facts,) = query(FACTS, [run_id])
    if not facts["with_early_chunks"]:
        return facts
    (gaps,) = query(GAPS, [run_id, 1 + int(facts["chunks"] or 0) // _GAPS])
    return {**facts, **gaps}


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A percentile that may be off by ``share`` of its true value, why, and above which shares that matters."""

    figure: str
    share: float
    why: str
    limits: tuple[float, float]

    @property
    def word(self) -> VerdictWord:
        return "valid" if self.share <= self.limits[0] else "degraded" if self.share <= self.limits[1] else "invalid"

    @property
    def text(self) -> str:
        size = f"{self.share:.0%}" if self.share < 10 else "more than its size"
        return f"{self.figure} may be off by {size}: {self.why}"


def judge(facts: Mapping[str, Any]) -> Verdict:
    """Return the worst verdict that the facts (of ``facts_of``) give reason for."""
    if not facts["completed"] and not facts["of_model"]:
        return Verdict("invalid", "no request completed")
    found: list[tuple[VerdictWord, str]] = []
    for doubts in (_of_ttft(facts), _of_machine(facts), _of_due(facts), _of_itl(facts)):
        worst = max(doubts, key=lambda doubt: (_WORDS.index(doubt.word), doubt.share), default=None)
        if worst is not None:
            found.append((worst.word, worst.text))
    in_flight, concurrency = facts["in_flight_mean"], facts["concurrency"]
    if in_flight is not None and facts["completed"] >= NEARLY_ALL * facts["requests"]:
        share = in_flight / concurrency
        if share < FULL_SHARE[0]:
            text = f"{in_flight:.1f} of {concurrency} requests were in flight on average"
            word: VerdictWord = "invalid" if share < FULL_SHARE[1] else "degraded"
            died = facts.get("nodes_died")
            found.append((word, f"{text}: {f'{_nodes(died)} died' if died else 'use more cores or fewer streams'}"))
    found += _mishaps(facts)
    for word in ("invalid", "degraded"):
        reasons = [reason for found_word, reason in found if found_word == word]
        if reasons:
            return Verdict(word, "; ".join(reasons))
    return Verdict("valid")


_WORDS: tuple[VerdictWord, ...] = ("valid", "degraded", "invalid")
_NEVER_INVALID = (OFF[0], float("inf"))


def _judged(n: int) -> Iterator[tuple[int, str]]:
    """Yield place and name of each percentile that n values are enough for; the median of any."""
    for place, (name, p) in enumerate(JUDGED.items()):
        if n and (name == "p50" or n >= needed(p)):
            yield place, name


def _nodes(count: int) -> str:
    return plural(count, "node")


def _share(off_s: float, true_s: float) -> float:
    return 0.0 if off_s <= RESOLUTION_S else off_s / true_s if true_s > 0 else float("inf")


def _of_ttft(facts: Mapping[str, Any]) -> Iterator[_Doubt]:
    """Yield how far TTFT may be off by what this client measured of itself."""
    for place, name in _judged(facts["firsts"]):
        high, low = facts["ttft"][place], facts["ttft_low"][place]
        why = "this client sent or read late: use more cores or fewer streams"
        yield _Doubt(f"TTFT {name}", _share(high - low, low), why, OFF if name == "p50" else TAIL_OFF)


def _of_machine(facts: Mapping[str, Any]) -> Iterator[_Doubt]:
    """Yield how far TTFT may be off by the waits for a processor of a server that shares this client's machine.

    No stamp tells these: they are taken to be as long as the client's own, and so make a run degraded at most.
    """
    for place, name in _judged(facts["firsts"] if facts["processor_wait"] else 0):
        low, off, wait = facts["ttft_low"][place], facts["ttft"][place] - facts["ttft_low"][place], 0.0
        if _share(off, low) <= OFF[0]:  # else that has been told
            wait = facts["processor_wait"][place]
        yield _Doubt(
            f"TTFT {name}", _share(off + wait, low - wait) if wait else 0.0,
            f"processes waited {wait * 1000:.1f} ms for a processor of this machine, and so may have the server on it: "
            "use more cores, or stop what else runs", _NEVER_INVALID,
        )  # fmt: skip


def _of_due(facts: Mapping[str, Any]) -> Iterator[_Doubt]:
    """Yield how far TTFT from due is off by late sends."""
    for place, name in _judged(facts["firsts"] if facts["ttft_due"] else 0):
        due, sent = facts["ttft_due"][place], facts["ttft"][place]
        why = f"requests were sent {(due - sent) * 1000:.1f} ms late: use more cores or a lower rate"
        yield _Doubt(f"TTFT from due {name}", _share(due - sent, sent), why, OFF if name == "p50" else TAIL_OFF)


def _of_itl(facts: Mapping[str, Any]) -> Iterator[_Doubt]:
    """Yield how far ITL may be off, of the mean gap at least: where a server sends chunks together, most gaps are 0."""
    for place, name in _judged(facts.get("gaps", 0)):
        gap, low, high = (facts[key][place] for key in ("itl", "itl_low", "itl_high"))
        yield _Doubt(
            f"ITL {name}", _share(max(gap - low, high - gap), max(low, facts["gap_mean"])),
            "this client read chunks late, together with later ones: use more cores or fewer streams",
            OFF if name == "p50" else _NEVER_INVALID,
        )  # fmt: skip


def _mishaps(facts: Mapping[str, Any]) -> Iterator[tuple[VerdictWord, str]]:
    """Yield what happened to this client, whatever figures it touches."""
    if facts["died"]:
        yield "degraded", f"{facts['died']} requests were lost when a worker process died"
    if nodes := facts.get("nodes_died"):
        lost = plural(facts["lost_with_nodes"], "request")
        yield "degraded", f"{_nodes(nodes)} died, with {lost} in flight: the load was smaller from then on"
    if (error_s := facts.get("clock_error_s") or 0.0) > CLOCKS_S:
        known = f"the clocks of the nodes are known to {error_s * 1000:.1f} ms"
        yield "degraded", f"{known}: rates and what was in flight are as uncertain, latencies are not"
    if (apart_s := facts.get("start_apart_s") or 0.0) > TOGETHER_S:
        yield "degraded", f"the nodes began {apart_s * 1000:.1f} ms apart"
    if files := facts["no_more_files"]:
        yield "invalid", f"{files} requests failed because this client could not open more files: raise `ulimit -n`"
    if facts["unknown"]:
        yield "degraded", "times are those of the client's reads, and nothing tells how late these were"
    if stepped := facts["stepped"]:
        times = "some of their times are those of the client's reads"
        yield "degraded", f"the wall clock was set during {stepped} requests: {times}"


@dataclass(slots=True)
class _Sample:
    """Values spread evenly over a run of any length: of every second, fourth, … once there are many."""

    values: list[tuple[float, ...]] = field(default_factory=list)
    seen: int = 0
    every: int = 1

    def wanted(self, many: int = 1) -> range:
        """Return which of the next so many values to keep."""
        first, self.seen = -self.seen % self.every, self.seen + many
        return range(first, many, self.every)

    def keep(self, *value: float) -> None:
        self.values.append(value)
        if len(self.values) > _KEPT:
            del self.values[1::2]
            self.every *= 2

    def percentiles(self, place: int) -> list[float]:
        values = sorted(value[place] for value in self.values)
        return [percentile(values, p) or 0.0 for p in JUDGED.values()]


_KEPT = 4096
_EVERY = 8
"""Of a record's gaps, every eighth is enough."""


@dataclass(slots=True)
class VerdictSoFar:
    """The same facts, collected while the load runs, from a few thousand requests and gaps spread evenly over it.

    How full the load was is not among them: that is known only after its last request was sent.
    """

    counts: Counter[str] = field(default_factory=Counter)
    firsts: _Sample = field(default_factory=_Sample)
    gaps: _Sample = field(default_factory=_Sample)

    def add(self, record: RequestRecord) -> None:
        """Add one finished request."""
        counts, error, ttft_s = self.counts, record.error, record.ttft_s
        counts["requests"] += 1
        if record.clock == "stepped":
            counts["stepped"] += 1
        if error is not None:
            counts["of_model"] += error.kind in MODEL_ERRORS
            counts["died"] += error.kind == "worker_died"
            counts["no_more_files"] += NO_MORE_FILES in error.message
            return
        counts["completed"] += 1
        if ttft_s is not None:
            counts["unknown"] += record.ttft_off_s is None
            self._add_times(record, ttft_s)

    def _add_times(self, record: RequestRecord, ttft_s: float) -> None:
        if self.firsts.wanted():
            wait_s = (record.processor_wait_ns or 0) / NS
            self.firsts.keep(ttft_s, ttft_s - (record.ttft_off_s or 0), ttft_s + (record.send_lag_s or 0), wait_s)
        chunk_ns, early = record.chunk_ns, record.chunk_early_ns
        for place in self.gaps.wanted(len(range(0, len(chunk_ns) - 1, _EVERY))):
            i = place * _EVERY
            gap = chunk_ns[i + 1] - chunk_ns[i]
            low, high = (max(0, gap - early[i + 1]), gap + early[i]) if early else (gap, gap)
            self.gaps.keep(gap / NS, low / NS, high / NS)

    def verdict(self) -> Verdict | None:
        """Return the verdict so far, or None before the first request has ended."""
        if not self.counts["requests"]:
            return None
        return judge({
            **{name: self.counts[name] for name in _COUNTED},
            "firsts": self.firsts.seen, "gaps": self.gaps.seen, "in_flight_mean": None, "concurrency": None,
            **{name: self.firsts.percentiles(at) for at, name in enumerate(_FIRSTS)},
            "gap_mean": fmean(gap for gap, *_ in self.gaps.values or [(0.0,)]),
            **{name: self.gaps.percentiles(at) for at, name in enumerate(_OF_GAPS)},
        })  # fmt: skip


_COUNTED = ("requests", "completed", "of_model", "died", "no_more_files", "stepped", "unknown")
_FIRSTS = ("ttft", "ttft_low", "ttft_due", "processor_wait")
_OF_GAPS = ("itl", "itl_low", "itl_high")

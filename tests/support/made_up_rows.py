"""Runs that nobody measured, in which no two columns, quantiles or counts are alike, and what the docs say of them.

The figures are computed here in plain Python, from docs/methods.md and docs/store.md alone: SQL that takes the wrong
column, quantile, filter or join for one of them comes to another value.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from structbench.store import Store

Row = dict[str, Any]

NS = 1_000_000_000
START = datetime(2026, 3, 1)
POINTS = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}
LIMITS = {
    "ttft_s": 0.4, "ttft_due_s": 0.5, "itl_mean_s": 0.6, "tpot_s": 0.7, "e2e_s": 0.8, "e2e_due_s": 0.9,
    "first_answer_s": 0.95,
}  # fmt: skip
PACE = ("tpot_s", "itl_mean_s")
"""An answer in one piece has none and breaks no limit on it; of one in pieces without it, nobody can tell."""
METRICS = (
    *LIMITS, "first_thinking_s", "first_tool_call_s", "send_lag_s", "read_lag_max_s", "connect_s",
    "load_s", "prompt_eval_s", "eval_s", "queue_s",
)  # fmt: skip
FRACTIONS = (
    "accuracy_score", "tool_call_accuracy", "semantic_similarity", "server_tokens_per_s", "client_tokens_per_s"
)  # fmt: skip
STEADY = ("steady", "ended_steady")
FLAGS = ("json_valid", "schema_valid", "json_valid_lenient", "schema_valid_lenient", "tool_call_success")
WHOLES = ("worker", "repeat", "chunks", "merged_chunks", "prompt_tokens", "output_tokens", "num_tool_calls")
TEXTS = (
    "config_hash", "clock", "done_reason", "json_source", "json_parse_error", "output_text", "thinking_text",
    "tool_calls",
)  # fmt: skip
UNPACED = ("text", "open")
"""Runs in which answers in pieces lack a pace."""
UNCOUNTED = ("text", "recorded")
"""Runs in which some requests have no token count, or fewer tokens than chunks."""
FAILED = ("connect", "timeout", "http", "rejected", "stream", "dropped", "cancelled", "worker_died")
SCORES = (*FLAGS, *FRACTIONS[:3], "violated_keywords", "validation_errors")
KEYWORDS = ("required", "enum", "minimum", "pattern")


def requests(run_id: str, outcomes: Mapping[str, int], **fixed: Any) -> list[Row]:
    """Rows with these outcomes, mixed; each column drawn by itself, now and then NULL; ``fixed``: the same in each."""
    draw, steadily = random.Random(run_id), random.Random(f"{run_id} steady")
    other = random.Random(f"{run_id}: counts")

    def maybe(value: Any, often: float = 0.9) -> Any:
        return value if draw.random() < often else None

    rows: list[Row] = []
    for index, outcome in enumerate(draw.sample(list(outcomes), sum(outcomes.values()), counts=outcomes.values())):
        failed, segment = outcome in FAILED, index % 4
        due_ns = (10 + index + segment * 700) * NS + draw.randrange(NS)
        sent_ns = due_ns + draw.randrange(1, NS)
        gaps_us = [draw.choice((draw.randrange(1, 90_000), 7_000)) for _ in range(draw.randrange(7))]
        status = draw.choice((500, 503, None)) if outcome == "http" else None
        rows.append({
            "run_id": run_id, "request_index": index, "segment": segment, "case_id": f"case {draw.randrange(1000)}",
            "turn": {0: 1, 1: 2}.get(index % 5), "parent_index": index - 1 if index % 10 == 1 else None,
            "due_ns": None if segment == 3 else due_ns, "sent_ns": maybe(sent_ns),
            "end_ns": sent_ns + draw.randrange(NS, 9 * NS),
            **{name: maybe(draw.uniform(0.01, 0.5 + 0.11 * place)) for place, name in enumerate(METRICS)},
            **{name: maybe(draw.random() * (place + 1)) for place, name in enumerate(FRACTIONS)},
            **{name: maybe(draw.random() < 0.4 + 0.07 * place, 0.7) for place, name in enumerate(FLAGS)},
            "cached_prompt_tokens": steadily.choice((None, 0, index)),
            "asked_prompt_tokens": 10 * index + 7, "thinking_tokens": None if index % 3 else 1 + index,
            "retry_after_s": None if index % 4 else index + 0.5, "node": None if index % 3 else f"node {index}",
            **{name: steadily.choice((True, True, None, False)) for name in STEADY},
            **{name: maybe(draw.randrange(1000 * (place + 1))) for place, name in enumerate(WHOLES)},
            **{name: maybe(f"{name} {index}") for name in TEXTS},
            "ttft_off_s": None, "chunk_early_us": None, "processor_wait_s": None, "resent_segments": None,
            "out_of_order_segments": None, "held_s": None, "thinking_partial": None, "covered": None,
            "answered_by": f"model {index}", "fingerprint": None if index % 3 else f"fp {index}",
            "asked_output_tokens": 11 * index + 3,
            "chunk_offsets_us": maybe([sum(gaps_us[:place]) for place in range(len(gaps_us))]),
            "validation_errors": maybe(["wrong"] * (index % 3)),
            "violated_keywords": maybe(draw.sample(KEYWORDS, draw.randrange(1, 4))),
            "gathered_chunks": other.randrange(300) if other.random() < 0.9 else None,
            "outcome": outcome, "error_kind": outcome if failed else None, "error_status": status,
            "error_message": maybe(f"{outcome} {status}", 0.6) if failed else None, **fixed,
        })  # fmt: skip
        if run_id not in UNPACED and None in [rows[-1][name] for name in PACE]:
            rows[-1]["chunks"] = index % 2 or None
        if run_id not in UNCOUNTED:
            rows[-1]["output_tokens"] = (rows[-1]["chunks"] or 0) + other.randrange(6000)
        if outcome == "correct" and rows[-1]["accuracy_score"] is None:  # what was never scored is not correct
            rows[-1]["accuracy_score"] = 0.5 + index / 1000
    return rows


def at_the_limits(rows: Iterable[Row]) -> list[Row]:
    """The first at every limit, then beyond one of them or without one, as long as there are rows."""
    cases: list[Row] = [{}, *({name: LIMITS[name] + 0.001} for name in LIMITS), *({name: None} for name in LIMITS)]
    left = list(rows)
    for row, case in zip([row for row in left if row["outcome"] == "correct"], cases, strict=False):
        row |= {**LIMITS, **case, **({"chunks": 1} if None in [case.get(name, 0) for name in PACE] else {})}
    return left


NO_SCORE: Row = dict.fromkeys(SCORES)
LOADS = {
    "closed": "c=4", "open": "rate=2.5/s poisson", "recorded": "replay", "planned only": "rate=40/s ", "failed": "c=1",
    "unscored": "c=2", "text": "c=3", "refused": "c=5", "at once": "c=6",
}  # fmt: skip
REQUESTS: dict[str, list[Row]] = {
    "closed": at_the_limits(requests("closed", {
        "correct": 38, "wrong_value": 6, "schema_violation": 14, "invalid_json": 10, "truncated": 7, "no_output": 6,
        "unscored": 2, "rejected": 12, "dropped": 7, "timeout": 14, "cancelled": 5, "http": 9, "completed": 5,
    })),
    "open": requests("open", {"correct": 17, "wrong_value": 4, "schema_violation": 5, "timeout": 3, "connect": 1}),
    "recorded": requests(
        "recorded", {"correct": 8, "invalid_json": 5, "cancelled": 2, "worker_died": 1}, json_valid=None
    ),
    "planned only": [],
    "failed": requests("failed", {"http": 5, "connect": 4, "dropped": 3, "cancelled": 2, "stream": 1}, **NO_SCORE),
    "unscored": requests("unscored", {"unscored": 3, "completed": 1}, **NO_SCORE, chunk_offsets_us=[5]),
    "text": requests("text", {"completed": 9, "unscored": 2, "timeout": 1}, **NO_SCORE, tpot_s=None),
    "refused": requests("refused", {"rejected": 3}, json_valid=False, schema_valid=False, accuracy_score=0.0),
    "at once": requests("at once", {"correct": 3, "wrong_value": 1}, connect_s=0.0),
    "nobody's": requests("nobody's", {"correct": 3, "timeout": 1}),
}  # fmt: skip
OPEN: Row = {"load_kind": "open", "rate": 2.5, "arrival": "poisson"}
SOME: Row = {"ttft_s": 0.3, "tpot_s": 0.4}
TOLD = ("server_kind", "api", "quantization", "parameters", "context_tokens", "server_slots")
RUNS: dict[str, Row] = {
    run_id: {
        "run_id": run_id, "config_hash": f"hash of {run_id}", "model": f"model of {run_id}", "suite": f"{run_id} cases",
        **{name: f"{name} of {run_id}" for name in ("model_digest", "server_version", "endpoint", "think", "verdict",
                                                    "verdict_reason", "label", "server_kind", "api", "quantization")},
        "config": {"server_address": f"address of {run_id}"},
        "parameters": 7_000_000 + place, "context_tokens": 4096 + place, "server_slots": 77_000 + place,
        "structured": "format", "load_kind": "closed", "concurrency": None, "rate": None, "arrival": None,
        "planned": 1000 + place, "status": "complete", "forgotten": None, "goodput_limits": None,
        "started_at": START - timedelta(hours=place), "finished_at": START + timedelta(hours=place), **more,
    }
    for place, (run_id, more) in enumerate({
        "closed": {"concurrency": 4, "goodput_limits": LIMITS, "forgotten": True},
        "open": {**OPEN, "structured": "prompt", "forgotten": False},
        "recorded": {"load_kind": "replay", "status": "interrupted", "goodput_limits": SOME},
        "planned only": {"load_kind": "open", "rate": 40.0, "status": None, "planned": None, "label": None,
                         "structured": None, "verdict": None, "started_at": None, "finished_at": None},
        "failed": {"concurrency": 1, "goodput_limits": SOME},
        "unscored": {"concurrency": 2},
        "text": {"concurrency": 3, "structured": "none", "goodput_limits": SOME},
        "refused": {"concurrency": 5},
        "at once": {"concurrency": 6, "goodput_limits": SOME},
    }.items())
}  # fmt: skip
SEGMENTS: dict[str, dict[int, Row]] = {
    # Two that were interrupted, one that was killed, one that ended; of segment 3 no row came.
    "closed": {
        0: {"status": "interrupted", "duration_s": 1000.5, "model_load_s": 1.5},
        1: {"status": "complete", "duration_s": 61.25, "model_load_s": 3.5, "steady_from_ns": 3 * NS,
            "steady_to_ns": 40 * NS},
        2: {"status": "running", "duration_s": None, "model_load_s": None},
        4: {"status": "complete", "duration_s": 7.75, "model_load_s": 2.5, "steady_from_ns": 50 * NS,
            "steady_to_ns": 55 * NS + NS // 2},
        5: {"status": "interrupted", "duration_s": 90.0, "model_load_s": None},
    },
    "open": {segment: {"status": "complete", "duration_s": 30.5 + segment} for segment in range(4)},
    "failed": {segment: {"status": "complete", "duration_s": 3.25 + segment} for segment in range(4)},
    "unscored": {segment: {"status": "complete", "duration_s": 0.0} for segment in range(4)},
    "at once": {segment: {"status": "complete", "duration_s": 0.0} for segment in range(4)},
    "refused": {0: {"status": "interrupted", "duration_s": 9.0}},
    "never begun": {0: {"status": "running", "model_load_s": 4.5}},
}  # fmt: skip


def kept(run_id: str, *, requests: int = 0, chunks: int = 0) -> Row:
    """Gap percentiles that are no real ones, of the run as it is or of so many requests or chunks more."""
    rows = REQUESTS[run_id]
    return {
        "run_id": run_id, "requests": len(rows) + requests, "chunks": sum(values(rows, "chunks")) + chunks,
        "gaps": 77, "p50": 1.5, "p90": 1.75, "p95": 1.875, "p99": 2.25, "max": 2.5,
    }  # fmt: skip


def values(rows: Iterable[Row], column: str) -> list[Any]:
    return [row[column] for row in rows if row[column] is not None]


def kept_gaps() -> list[Row]:
    return [{name: value for name, value in kept("open").items() if name not in ("requests", "chunks")}]


def database(path: Path) -> Store:
    """An open store with all of it."""
    store = Store(path)
    for run in RUNS.values():
        store.append("runs", run)
    for run_id, segments in SEGMENTS.items():
        for segment, row in segments.items():
            store.append("segments", {"run_id": run_id, "segment": segment, **row})
    for rows in REQUESTS.values():
        for row in rows:
            store.append("requests", row)
    for row in (kept("closed", requests=1), kept("open"), kept("recorded"), kept("failed", chunks=1)):
        store.append("run_gaps", row)
    return store


# Figures.


def quantile(values: Sequence[float], p: float) -> float | None:
    """Linear interpolation between the two nearest of the sorted values."""
    if not values:
        return None
    ordered, place = sorted(values), p * (len(values) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low if low == high else low + (high - low) * (place - math.floor(place))


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def completed(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["error_kind"] is None]


def answered(rows: Iterable[Row]) -> list[Row]:
    """Completed, and not by nothing."""
    return [row for row in completed(rows) if row["chunks"] != 0]


def steady(rows: Iterable[Row]) -> list[Row]:
    """Which latencies are of: all that are not known to be unsteady."""
    return [row for row in rows if row["steady"] is not False]


def counted(rows: Iterable[Row]) -> list[Row]:
    """Which rates are of."""
    return [row for row in rows if row["ended_steady"] is not False]


def failed_of(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that failed, neither by the model's fault nor because the user cancelled them."""
    none = (None, "rejected", "broken_call", "truncated", "cancelled")
    return [row for row in rows if row["error_kind"] not in none]


def uncancelled(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["error_kind"] != "cancelled"]


def with_outcome(rows: Iterable[Row], outcome: str) -> list[Row]:
    return [row for row in rows if row["outcome"] == outcome]


def good(rows: Iterable[Row], limits: Mapping[str, float] | None) -> list[Row]:
    """Answered within each limit."""
    return [row for row in answered(rows) if set(_kept(row, limits)) <= {True}]


def unjudged(rows: Iterable[Row], limits: Mapping[str, float] | None) -> list[Row]:
    """Answered, with no limit broken, and at least one of which nobody can tell."""
    return [row for row in answered(rows) if set(_kept(row, limits)) in ({None}, {None, True})]


def _kept(row: Row, limits: Mapping[str, float] | None) -> list[bool | None]:
    def keeps(name: str, most: float) -> bool | None:
        if row[name] is not None:
            return bool(row[name] <= most)
        if name in PACE:
            return True if in_one_piece(row) else None
        return name == "first_answer_s" and row["first_tool_call_s"] is not None

    return [keeps(*limit) for limit in (limits or {}).items()]


def in_one_piece(row: Row) -> bool:
    """One chunk, or all at one instant through no doing of the client."""
    chunks, gathered = row["chunks"] or 0, row["gathered_chunks"] or 0
    if chunks < 2 or (row["merged_chunks"] or 0) > 0:
        return chunks < 2
    return gathered >= chunks - 1 or (row["itl_mean_s"] is None and share(row) <= 0.2)


def covered(row: Row) -> bool:
    """The server's count is of all that was streamed."""
    return row["output_tokens"] is not None and (row["chunks"] or 0) <= row["output_tokens"]


def share(row: Row) -> float:
    """Of its chunks those that came together with the one before."""
    gathered = row["gathered_chunks"] or 0
    return gathered / row["chunks"] if row["chunks"] else math.inf if gathered else 0.0


def gaps(rows: Iterable[Row]) -> list[float]:
    """Of answers that came gathered there are none."""
    spaced = [row for row in steady(completed(rows)) if row["chunks"] is None or share(row) <= 0.2]
    return [(b - a) / 1e6 for offsets in values(spaced, "chunk_offsets_us") for a, b in pairwise(offsets)]


def points(values: Sequence[float]) -> Row:
    return {name: quantile(values, p) for name, p in POINTS.items()}


def named(run_id: str) -> Row:
    return {"run_id": run_id, **{name: RUNS[run_id][name] for name in ("model", "suite")}, "load": LOADS[run_id]}


def stored() -> list[tuple[str, list[Row]]]:
    """Runs and their requests, those left out of which the run is not known."""
    return [(run_id, REQUESTS[run_id]) for run_id in RUNS]


def duration_s(run_id: str) -> float | None:
    """Of an interrupted, killed or unknown segment what its requests took, of others what is written."""
    segments, rows = SEGMENTS.get(run_id, {}), REQUESTS.get(run_id, [])
    each = []
    for segment in segments.keys() | {row["segment"] for row in rows}:
        told = segments.get(segment, {})
        there = [row for row in rows if row["segment"] == segment]
        starts = [row["sent_ns"] if row["due_ns"] is None else row["due_ns"] for row in there]
        seen = (max(row["end_ns"] for row in there) - min(filter(None, starts))) / NS if there else None
        interrupted = told.get("status") == "interrupted" or told.get("duration_s") is None
        each.append(seen if interrupted else told["duration_s"])
    known = [each_s for each_s in each if each_s is not None]
    return sum(known) if known else None


def rate_s(run_id: str) -> float | None:
    spans = [(row["steady_from_ns"], row["steady_to_ns"]) for row in SEGMENTS.get(run_id, {}).values()
             if "steady_from_ns" in row]  # fmt: skip
    return sum(end - start for start, end in spans) / NS if spans else duration_s(run_id)


def model_load_s(run_id: str) -> float | None:
    loads = [row["model_load_s"] for row in SEGMENTS.get(run_id, {}).values() if row.get("model_load_s") is not None]
    return max(loads, default=None)


def run_durations() -> list[Row]:
    return [
        {
            "run_id": run_id,
            "duration_s": duration_s(run_id),
            "rate_s": rate_s(run_id),
            "model_load_s": model_load_s(run_id),
        }
        for run_id in {run_id for run_id, rows in REQUESTS.items() if rows} | SEGMENTS.keys()
    ]


def gap_percentiles() -> list[Row]:
    used = {row["run_id"]: row for row in kept_gaps()}
    return [
        used.get(run_id) or {"run_id": run_id, "gaps": len(gaps(rows)), **points(gaps(rows))}
        for run_id, rows in REQUESTS.items() if gaps(rows)
    ]  # fmt: skip


def summary() -> list[Row]:
    itl = {row["run_id"]: row for row in gap_percentiles()}
    return [_summary(run_id, rows, itl.get(run_id, {"p50": None, "p99": None})) for run_id, rows in stored()]


def _summary(run_id: str, rows: list[Row], itl: Row) -> Row:
    run, done, seconds = RUNS[run_id], completed(rows), rate_s(run_id)
    timed, ended = steady(done), counted(answered(rows))
    tokens_ended = sum(values(ended, "output_tokens")) if ended and all(map(covered, ended)) else None
    limits, scored = run["goodput_limits"], len(values(rows, "accuracy_score"))
    tokens = sum(values(done, "output_tokens")) if done and all(map(covered, done)) else None
    return {
        **named(run_id),
        **{name: run[name] for name in ("structured", "planned", "goodput_limits", "status", "verdict",
                                        "verdict_reason", "label", "config_hash", "started_at", "finished_at")},
        "requests": len(rows), "errors": len(failed_of(rows)), "completed": len(done),
        "dropped": sum(row["error_kind"] == "dropped" for row in rows),
        **{f"ttft_{p}_s": quantile(values(timed, "ttft_s"), POINTS[p]) for p in ("p50", "p95", "p99")},
        **{f"e2e_{p}_s": quantile(values(timed, "e2e_s"), POINTS[p]) for p in ("p50", "p95")},
        **{f"itl_{p}_s": itl[p] for p in ("p50", "p99")},
        "tpot_p50_s": quantile(values(timed, "tpot_s"), 0.5),
        **{f"first_answer_{p}_s": quantile(values(timed, "first_answer_s"), POINTS[p]) for p in ("p50", "p95")},
        "thinking": len(values(done, "first_thinking_s")),
        "error_rate": ratio(len(failed_of(rows)), len(uncancelled(rows))),
        "stream_tokens_per_s": quantile(values(timed, "client_tokens_per_s"), 0.5),
        "output_tokens": tokens, "tokens_per_s": ratio(tokens_ended, seconds),
        "requests_per_s": ratio(len(ended) if rows else None, seconds),
        "json_valid": mean(values(rows, "json_valid")),
        "json_scored": len(values(rows, "json_valid")) if rows else None,
        "schema_valid": mean(values(rows, "schema_valid")),
        "schema_scored": len(values(rows, "schema_valid")) if rows else None,
        **dict.fromkeys(("tool_call_accuracy", "tool_calls_right"), mean(values(rows, "tool_call_accuracy"))),
        "tool_calls_scored": len(values(rows, "tool_call_accuracy")) if rows else None,
        "accuracy": mean(values(rows, "accuracy_score")), "scored": scored if rows else None,
        "semantic_similarity": mean(values(rows, "semantic_similarity")),
        "correct": len(with_outcome(rows, "correct")) if scored else None,
        "correct_goodput": ratio(
            len(with_outcome(counted(good(rows, limits)), "correct"))
            if scored and not with_outcome(counted(unjudged(rows, limits)), "correct") else None, seconds
        ),
        "goodput": ratio(
            len(counted(good(rows, limits))) if limits and rows and not counted(unjudged(rows, limits)) else None,
            seconds,
        ),
        "duration_s": duration_s(run_id), "rate_s": seconds, "model_load_s": model_load_s(run_id),
        "steady": sum(row["steady"] is True for row in rows) or None,
        "server_address": run["config"]["server_address"],
        **{name: run[name] for name in TOLD},
    }  # fmt: skip


def latency_percentiles() -> list[Row]:
    found = []
    for run_id, rows in REQUESTS.items():
        for metric in METRICS:
            plain = values(steady(completed(rows)), metric)
            lost = [math.inf for row in steady(failed_of(rows)) if row["error_kind"] != "cancelled"]
            found.append((run_id, metric, False, plain))
            if metric in LIMITS:
                found.append((run_id, metric, True, plain + lost))
    return [
        {"run_id": run_id, "metric": metric, "adjusted": adjusted, "n": len(each), **points(each)}
        for run_id, metric, adjusted, each in found if each
    ] + [
        {**{name: value for name, value in row.items() if name != "gaps"}, "metric": "itl_s", "adjusted": False,
         "n": row["gaps"]} for row in gap_percentiles()
    ]  # fmt: skip


def outcomes() -> list[Row]:
    return [
        {**named(run_id), "outcome": outcome, "count": count, "share": count / len(uncancelled(rows))}
        for run_id, rows in stored() for outcome, count in Counter(values(uncancelled(rows), "outcome")).items()
    ]  # fmt: skip


def conversations() -> list[Row]:
    found = []
    for run_id, rows in REQUESTS.items():
        for one in rows:
            if one["turn"] == 1:
                two = next((row for row in rows if row["parent_index"] == one["request_index"]), None) or {}
                ended = two and two["error_kind"] is None and one["sent_ns"] is not None
                e2e_s = (two["end_ns"] - one["sent_ns"]) / NS if ended else None
                found.append({
                    "run_id": run_id, "request_index": one["request_index"], "case_id": one["case_id"],
                    "call_outcome": one["outcome"], "final_outcome": two.get("outcome"),
                    "correct": two.get("outcome") == "correct", "ttft_s": one["ttft_s"],
                    "final_ttft_s": two.get("ttft_s"), "e2e_s": e2e_s,
                })  # fmt: skip
    return found


def errors() -> list[Row]:
    found = []
    for run_id, rows in stored():
        kinds = Counter((row["error_kind"], row["error_status"]) for row in failed_of(rows))
        for (kind, status), count in kinds.items():
            told = [row["error_message"] for row in rows if (row["error_kind"], row["error_status"]) == (kind, status)]
            example = f"{kind} {status}" if any(told) else None
            found.append({**named(run_id), "error_kind": kind, "error_status": status, "count": count,
                          "example": example})  # fmt: skip
    return found


PARTS = ("send_lag_s", "connect_s", "load_s", "prompt_eval_s")


def has_likely_durations(row: Row) -> bool:
    """The server's durations are no longer than the request, and no placeholders."""
    if row["eval_s"] is None:
        return True
    told = (row["load_s"] or 0) + (row["prompt_eval_s"] or 0) + row["eval_s"]
    placeholder = row["output_tokens"] is not None and row["eval_s"] < 5e-5 * (row["output_tokens"] - 1)
    return not placeholder and (row["e2e_s"] is None or told <= 1.05 * row["e2e_s"] + 0.002)


def decomposition() -> list[Row]:
    found = []
    for run_id, rows in stored():
        for row in steady(completed(rows)):
            all_told = row["output_tokens"] is None or (row["chunks"] or 0) <= row["output_tokens"]
            known = row["ttft_due_s"] is not None and row["prompt_eval_s"] is not None
            if known and all_told and has_likely_durations(row):
                parts = {name: row[name] for name in PARTS} | {"load_s": row["load_s"] or 0}
                rest = None if None in parts.values() else row["ttft_due_s"] - sum(parts.values())
                found.append({**named(run_id), **parts, "request_index": row["request_index"],
                              "case_id": row["case_id"], "ttft_due_s": row["ttft_due_s"], "rest_s": rest})  # fmt: skip
    return found


def run_decomposition() -> list[Row]:
    found = []
    for run_id, _ in stored():
        rows = [row for row in decomposition() if row["run_id"] == run_id]
        means = {name: mean(values(rows, name)) for name in ("ttft_due_s", *PARTS, "rest_s")}
        found += [{**named(run_id), "requests": len(rows), **means}] if rows else []
    return found


def exported() -> list[Row]:
    of_run = (
        "label", "model_digest", "server_version", "server_kind", "api", "load_kind", "concurrency", "rate", "arrival",
        "endpoint", "structured", "think", "status", "verdict", "started_at",
    )  # fmt: skip
    return [
        {**row, **named(run_id), **{name: RUNS[run_id][name] for name in of_run}}
        for run_id, rows in stored() for row in rows
    ]  # fmt: skip


def compliance() -> list[Row]:
    found = []
    for run_id, rows in stored():
        told = {"violated": "schema_violation"}
        counts = {
            name: len(values(with_outcome(rows, told.get(name, name)), "schema_valid"))
            for name in ("rejected", "broken_call", "no_output", "truncated", "invalid_json", "violated")
        }
        judged, valid = len(values(rows, "schema_valid")), sum(values(rows, "schema_valid"))
        unscored, structured = len(with_outcome(rows, "unscored")), RUNS[run_id]["structured"]
        if judged or (unscored and structured != "none"):
            found.append({
                **named(run_id), "structured": structured, **counts, "judged": judged, "valid": valid,
                "unscored": unscored, "declared": ratio(judged - counts["rejected"], judged),
                "empirical": ratio(valid, judged), "compliance": ratio(valid, judged - counts["rejected"]),
            })  # fmt: skip
    return found


def violations() -> list[Row]:
    found = []
    for run_id, rows in stored():
        broken = [row for row in with_outcome(rows, "schema_violation") if row["violated_keywords"]]
        for keyword in sorted({keyword for row in broken for keyword in row["violated_keywords"]}):
            these = [row for row in broken if keyword in row["violated_keywords"]]
            found.append({
                **named(run_id), "keyword": keyword, "count": len(these), "example": these[0]["case_id"],
                "share": len(these) / len(values(rows, "schema_valid")),
            })  # fmt: skip
    return found


VIEWS = {
    each.__name__: each for each in (
        kept_gaps, gap_percentiles, run_durations, summary, latency_percentiles, outcomes, conversations, errors,
        decomposition, run_decomposition, exported, compliance, violations,
    )
}  # fmt: skip

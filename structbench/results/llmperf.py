"""Runs as LLMPerf's result files: a summary and the individual responses, with its keys (docs/llmperf.md).

Figures are of all completed requests, as LLMPerf's are: it knows no steady part.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from statistics import mean, stdev
from typing import Any

from structbench.formatting import json_object
from structbench.metrics import FAILED
from structbench.store import Reader

VERSION = "2023-08-31"
"""LLMPerf's, of its files."""
CORRECTNESS = "numbers"
"""The suite that asks what ``llm_correctness.py`` asks."""
_QUANTILES = {"p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_METRICS = (
    "inter_token_latency_s", "ttft_s", "end_to_end_latency_s", "request_output_throughput_token_per_s",
    "number_input_tokens", "number_output_tokens",
)  # fmt: skip
_LENGTHS = ("mean_input_tokens", "stddev_input_tokens", "mean_output_tokens", "stddev_output_tokens")
_UNTOLD = -1
"""LLMPerf's code of an error without an HTTP status."""
_RUNS = """
SELECT run_id, runs.model, runs.suite, concurrency, api, config, environment, metadata, finished_at, duration_s
FROM runs JOIN (SELECT run_id, duration_s FROM summary) USING (run_id)
WHERE run_id IN (SELECT unnest($1::VARCHAR[])) ORDER BY runs.started_at NULLS FIRST, run_id
"""
_REQUESTS = f"""
SELECT case_id, output_text, outcome, {FAILED} AS failed,
    CASE WHEN {FAILED} THEN CASE WHEN error_status <> 200 THEN error_status ELSE {_UNTOLD} END END AS error_code,
    CASE WHEN {FAILED} THEN error_kind || ': ' || coalesce(error_message, '') ELSE '' END AS error_msg,
    CASE WHEN error_kind IS NULL
        THEN chunk_offsets_us[-1] / 1e6 / nullif(output_tokens, 0) END AS inter_token_latency_s,
    CASE WHEN error_kind IS NULL THEN ttft_s END AS ttft_s, e2e_s AS end_to_end_latency_s,
    output_tokens / nullif(e2e_s, 0) AS request_output_throughput_token_per_s,
    prompt_tokens + output_tokens AS number_total_tokens, output_tokens AS number_output_tokens,
    prompt_tokens AS number_input_tokens
FROM requests WHERE run_id = $1 AND error_kind IS DISTINCT FROM 'cancelled' ORDER BY request_index
"""
_OWN = ("case_id", "output_text", "outcome", "failed")
"""What is selected beside LLMPerf's metrics."""


def files_of(reader: Reader, run_ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the name of each file, without its ending, and what it holds."""
    for run in reader.query(_RUNS, [list(run_ids)]):
        rows = reader.query(_REQUESTS, [run["run_id"]])
        asked = _asked(run)
        if run["suite"] == CORRECTNESS:
            about, summary, responses = "correctness", _correctness(run, rows), _raw(run, asked, rows)
        else:
            lengths = _mapping(_mapping(json_object(run["environment"]).get("options")).get("text"))
            told = {name: lengths.get(name) for name in _LENGTHS} if run["suite"] == "text" else {}
            about = "_".join(f"{told[name]:g}" for name in _LENGTHS[::2] if told.get(name) is not None) or run["suite"]
            summary = {**told, **{f"results_{name}": value for name, value in _results(run, rows).items()}}
            responses = [_metrics(row) for row in rows]
        stem = re.sub(r"-{2,}", "-", re.sub(r"[^\w\d-]+", "-", f"{run['model']}_{about}_{run['run_id']}"))
        finished = run["finished_at"]
        yield f"{stem}_summary", {
            "version": VERSION, "name": f"{stem}_summary", "model": run["model"],
            "num_concurrent_requests": run["concurrency"], **asked, **summary,
            **json_object(run["metadata"]),
            "timestamp": None if finished is None else int(finished.replace(tzinfo=UTC).timestamp()),
        }  # fmt: skip
        yield f"{stem}_individual_responses", responses


def _asked(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options and fields that the user added, flat as LLMPerf writes its additional_sampling_params."""
    config = json_object(run["config"])
    added = {**_mapping(config.get("options")), **_mapping(config.get("body"))}
    return dict(_flat("additional_sampling_params", added)) if added else {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}_{key}", inner)
    else:
        yield name, value


def _metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _OWN}


def _results(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what LLMPerf computes of its responses, by its names."""
    done = [row for row in rows if row["end_to_end_latency_s"] is not None]
    codes = Counter(row["error_code"] for row in rows if row["failed"])
    tokens, duration_s = [row["number_output_tokens"] for row in done], run["duration_s"]
    told = None not in tokens and bool(duration_s)
    return {
        **dict(pair for name in _METRICS for pair in _spread(name, [row[name] for row in done])),
        "num_requests_started": len(rows),
        "error_rate": codes.total() / len(rows) if rows else 0,
        "number_errors": codes.total(),
        "error_code_frequency": str(dict(codes)),
        "mean_output_throughput_token_per_s": sum(tokens) / duration_s if told else None,
        "num_completed_requests": len(done),
        "num_completed_requests_per_min": len(done) / duration_s * 60 if duration_s else None,
    }


def _spread(name: str, values: Sequence[float | None]) -> Iterator[tuple[str, float | None]]:
    """Yield quantiles (interpolated), mean, extremes and standard deviation of those that are known."""
    known = sorted(value for value in values if value is not None)
    for quantile, p in _QUANTILES.items():
        yield f"{name}_quantiles_{quantile}", _quantile(known, p)
    yield f"{name}_mean", mean(known) if known else None
    yield f"{name}_min", known[0] if known else None
    yield f"{name}_max", known[-1] if known else None
    yield f"{name}_stddev", stdev(known) if len(known) > 1 else None


def _quantile(known: Sequence[float], p: float) -> float | None:
    if not known:
        return None
    place = p * (len(known) - 1)
    low = int(place)
    high = min(low + 1, len(known) - 1)
    return known[low] + (known[high] - known[low]) * (place - low)


def _correctness(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the summary of ``llm_correctness.py``: its completed requests are all, and its rates are of these."""
    errors = sum(row["failed"] for row in rows)
    wrong = sum(row["outcome"] != "correct" for row in rows if not row["failed"])
    return {
        "number_errors": errors, "num_mismatched_requests": wrong,
        "error_rate": errors / len(rows) if rows else 0, "mismatch_rate": wrong / len(rows) if rows else 0,
        "num_completed_requests": len(rows), "num_non_errored_requests": len(rows) - errors, "llm_api": run["api"],
    }  # fmt: skip


def _raw(run: Mapping[str, Any], asked: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    prefix = "additional_sampling_params_"
    params = {name.removeprefix(prefix): value for name, value in asked.items()}
    return [
        {
            "metrics": _metrics(row), "generated_text": row["output_text"],
            "request_config": {"model": run["model"], "sampling_params": params, "llm_api": run["api"],
                               "metadata": {"case_id": row["case_id"]}},
        }
        for row in rows
    ]  # fmt: skip

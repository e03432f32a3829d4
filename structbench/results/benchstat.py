"""Requests as Go benchmark results, for ``benchstat`` and similar tools.

Each completed request is a line, so that the spread is that of requests; figures of a whole run (accuracy,
throughput) are a separate line per run. Format: https://go.dev/design/14313-benchmark-format
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from structbench.formatting import suite_text
from structbench.metrics import METRICS
from structbench.store import Reader

_EXPORTED = [metric for metric in METRICS.values() if metric.benchstat]
PER_REQUEST = {metric.column: metric.benchstat for metric in _EXPORTED if metric.kind == "latency"}
PER_RUN = {metric.name: metric.benchstat for metric in _EXPORTED if metric.kind != "latency"}
"""Column -> unit."""
_RUNS = """
SELECT * FROM summary JOIN (SELECT run_id, server_version FROM runs) USING (run_id)
WHERE run_id IN (SELECT unnest($1::VARCHAR[])) ORDER BY started_at NULLS FIRST, run_id
"""
_REQUESTS = f"""
SELECT {", ".join(PER_REQUEST)} FROM requests WHERE run_id = $1 AND error_kind IS NULL ORDER BY request_index
"""


def benchmark_lines(reader: Reader, run_ids: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the file; runs of one model, suite, load and config share a name, and so are pooled.

    Everything else about a run is a comment: benchstat compares only what has the same ``key: value`` lines.
    """
    for unit in PER_REQUEST.values():
        yield f"Unit {unit} better=lower"
    for unit in PER_RUN.values():
        yield f"Unit {unit} better=higher"
    runs = reader.query(_RUNS, [list(run_ids)])
    for run, name in zip(runs, _names(runs), strict=True):
        yield ""
        yield "# " + " ".join(f"{key}={_word(run[key])}" for key in ("run_id", "label", "server_version", "started_at"))
        if answered := run["requests"] - run["errors"]:
            yield from _line(name, {unit: run[column] for column, unit in PER_RUN.items()}, answered)
        for request in reader.query(_REQUESTS, [run["run_id"]]):
            yield from _line(name, {unit: request[column] for column, unit in PER_REQUEST.items()}, 1)


def _names(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the name of each run, with the config hash where runs of several configs would share one."""
    names = [_name(run) for run in runs]
    configs: dict[str, set[str]] = {}
    for name, run in zip(names, runs, strict=True):
        configs.setdefault(name, set()).add(run["config_hash"])
    return [
        name if len(configs[name]) == 1 else f"{name}/config={_word(run['config_hash']).removeprefix('s1:')[:8]}"
        for name, run in zip(names, runs, strict=True)
    ]


def _name(run: Mapping[str, Any]) -> str:
    words = {"model": run["model"], "suite": suite_text(run["suite"], run["structured"]), "load": run["load"]}
    return "Benchmark" + "/".join(["Structbench", *(f"{key}={_word(value)}" for key, value in words.items())])


def _word(value: object) -> str:
    """Return the text without characters that separate names, words and lines in this format."""
    return re.sub(r"[\s/]+", "_", str("" if value is None else value))


def _line(name: str, values: Mapping[str, float | None], n: int) -> Iterator[str]:
    """Yield one benchmark line, or nothing if no figure is known."""
    known = [f"{value:.9g} {unit}" for unit, value in values.items() if value is not None]
    if known:
        yield f"{name} {n} {' '.join(known)}"

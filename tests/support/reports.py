"""What the tests of the reports share: small files whose figures are known, and a large one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from structbench.gates.slo import rule_of
from structbench.reports.document import Document, document_of
from structbench.results.selection import select_runs
from structbench.store import Reader, Store
from structbench.store.schema import migrate

NOON = datetime(2026, 9, 1, 12)
CONFIG = {
    "suite": "json", "suite_hash": "x", "model": "m:1b", "server_address": "127.0.0.1", "structured": "format",
    "seed": 0, "load": {"kind": "closed", "concurrency": 1}, "think": None,
}  # fmt: skip


def run(run_id: str, model: str = "m:1b", suite: str = "json", concurrency: int = 1, **more: Any) -> dict[str, Any]:
    """A row of ``runs``; ``config`` in ``more`` changes single fields of the config."""
    load = {"kind": "closed", "concurrency": concurrency}
    config = {**CONFIG, "model": model, "suite": suite, "load": load, **more.pop("config", {})}
    return {
        "run_id": run_id, "config_hash": f"s1:{sorted(map(str, config.items()))}", "model": model, "suite": suite,
        "model_digest": "a" * 64, "server_version": "0.5.4", "load_kind": "closed", "concurrency": concurrency,
        "structured": "format", "planned": None, "status": "complete", "verdict": "valid", "config": config,
        "environment": {"system": "Linux", "cores": 2, "python": "3.11"}, "started_at": NOON,
        "finished_at": NOON + timedelta(minutes=1), **more,
    }  # fmt: skip


def request(run_id: str, index: int, **more: Any) -> dict[str, Any]:
    """A row of ``requests``: correct, first chunk after (index + 1) ms, ten gaps of 10 ms; sent every 20 ms."""
    ttft_us = 1000 * (index + 1)
    due_ns = index * 20_000_000
    return {
        "run_id": run_id, "request_index": index, "segment": 0, "case_id": f"case-{index % 7}", "repeat": index // 7,
        "due_ns": due_ns, "sent_ns": due_ns, "end_ns": due_ns + (ttft_us + 100_000) * 1000,
        "ttft_s": ttft_us / 1e6, "ttft_due_s": ttft_us / 1e6, "e2e_s": ttft_us / 1e6 + 0.1, "tpot_s": 0.01,
        "send_lag_s": 0.0, "connect_s": 0.0, "load_s": 0.0, "prompt_eval_s": ttft_us / 2e6, "clock": "kernel",
        "chunks": 11, "chunk_offsets_us": [ttft_us + 10_000 * i for i in range(11)], "merged_chunks": 0,
        "output_tokens": 11, "client_tokens_per_s": 100.0, "outcome": "correct", "accuracy_score": 1.0,
        "json_valid": True, "schema_valid": True, "output_text": "{}", **more,
    }  # fmt: skip


WRONG = {"outcome": "wrong_value", "accuracy_score": 0.5}
FAILED = {
    "outcome": "timeout", "error_kind": "timeout", "error_message": "total: 300 s", "accuracy_score": None,
    "json_valid": None, "schema_valid": None, "ttft_s": None, "ttft_due_s": None, "e2e_s": None, "tpot_s": None,
    "chunk_offsets_us": None, "output_tokens": None, "output_text": None,
}  # fmt: skip


def requests(run_id: str, n: int, wrong: int = 0, failed: int = 0, **more: Any) -> list[dict[str, Any]]:
    """n requests, the last ones failed, those before them wrong."""
    kinds = [{}] * (n - wrong - failed) + [WRONG] * wrong + [FAILED] * failed
    return [request(run_id, index, **{**kind, **more}) for index, kind in enumerate(kinds)]


def write(path: Path, runs: Iterable[dict[str, Any]], rows: Iterable[dict[str, Any]], **segment: Any) -> Path:
    """A file with these runs, each of one segment of 10 s."""
    with Store(path) as store:
        for each in runs:
            store.append("runs", each)
            ended = {"started_at": NOON, "duration_s": 10.0, "simulated": False, **segment}
            store.append("segments", {"run_id": each["run_id"], "segment": 0, "status": each["status"], **ended})
        for row in rows:
            store.append("requests", row)
    return path


@cache
def document(path: Path, *words: str, pool: bool = False, details: bool = False) -> Document:
    """The report on a file that no longer changes."""
    reader = Reader(path)
    return document_of(reader, select_runs(reader, words), rule_of(()), pool=pool, details=details)


def many(path: Path, runs: int, per_run: int) -> Path:
    """A large file, made by DuckDB itself: two models, two suites, loads from 1 up; 50 chunks a request."""
    with duckdb.connect(str(path)) as con:
        migrate(con, 0)
        con.execute(_RUNS, [runs, per_run])
        con.execute(_SEGMENTS, [per_run])
        con.execute(_REQUESTS, [per_run])
    return path


_RUNS = """
INSERT INTO runs BY NAME
SELECT 'run-' || i AS run_id, 's1:' || i AS config_hash, ['alpha:1b', 'beta:3b'][i % 2 + 1] AS model,
    ['json', 'tools'][(i // 2) % 2 + 1] AS suite, 'closed' AS load_kind, 1 + i // 4 AS concurrency,
    $2::BIGINT AS planned, 'complete' AS status, 'valid' AS verdict, '{}' AS config, '{}' AS environment,
    TIMESTAMP '2026-09-01' AS started_at, TIMESTAMP '2026-09-02' AS finished_at
FROM range($1::BIGINT) AS t(i)
"""
_SEGMENTS = """
INSERT INTO segments BY NAME
SELECT run_id, 0 AS segment, $1::BIGINT * 0.02 AS duration_s, 'complete' AS status, false AS simulated FROM runs
"""
_REQUESTS = """
INSERT INTO requests BY NAME
SELECT run_id, i AS request_index, 0 AS segment, 'case-' || (i % 30) AS case_id, i // 30 AS repeat,
    i * 20000000 AS due_ns, i * 20000000 AS sent_ns, i * 20000000 + 900000000 AS end_ns,
    0.05 + 0.1 * random() AS ttft_s, 0.05 + 0.1 * random() AS ttft_due_s,
    0.01 + 0.005 * random() AS tpot_s, 0.5 + random() AS e2e_s, 0.0 AS send_lag_s,
    0.0 AS connect_s, 0.03 AS prompt_eval_s, 50 AS chunks, 50 AS output_tokens,
    list_transform(range(50), lambda x: (50000 + x * 10000 + 2000 * random())::BIGINT) AS chunk_offsets_us,
    CASE WHEN i % 97 = 0 THEN 'timeout' WHEN i % 7 = 0 THEN 'wrong_value' ELSE 'correct' END AS outcome,
    CASE WHEN i % 97 = 0 THEN NULL WHEN i % 7 = 0 THEN 0.0 ELSE 1.0 END AS accuracy_score,
    CASE WHEN i % 97 = 0 THEN 'timeout' END AS error_kind, repeat('word ', 2000) AS output_text
FROM range($1::BIGINT) AS t(i), runs
"""

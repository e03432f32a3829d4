"""What the tests of gates and comparisons share: runs put into a database without a load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structbench.comparison import significance as differences
from structbench.store import Store, run_columns
from structbench.types import Config

NS = 1_000_000_000
START = datetime(2026, 1, 1)
CONFIG = Config(
    suite="json", suite_hash="abc", model="m:1b", model_digest="d", server_version="0.5.4",
    server_address="http://127.0.0.1:11434", endpoint="chat", structured="format", think=None, options={},
    keep_alive=None, load={"kind": "closed", "concurrency": 1}, seed=0, warmup=None,
    timeout_s=300.0, scorer_version=1,
)  # fmt: skip


def config(**more: Any) -> Config:
    return replace(CONFIG, **more)


def requests(
    n: int = 80,
    *,
    seed: int = 0,
    slower: float = 1.0,
    wrong: Sequence[int] = (),
    failed: Sequence[int] = (),
    cases: int = 40,
) -> list[dict[str, Any]]:
    """Rows of a run in which one request follows another: skewed times, six chunks, cases asked in turn."""
    generator = np.random.default_rng(seed)
    rows, now_ns = [], 0
    for index in range(n):
        ttft_s, gap_s = 0.1 * slower * float(generator.lognormal(0, 0.3)), 0.01 * float(generator.lognormal(0, 0.2))
        offsets = [round((ttft_s + step * gap_s) * 1e6) for step in range(6)]
        end_ns = now_ns + offsets[-1] * 1000 + 1_000_000
        right, came = index not in wrong, index not in failed
        rows.append({
            "request_index": index, "segment": 0, "worker": 0, "case_id": f"c{index % cases}", "repeat": index // cases,
            "due_ns": now_ns, "sent_ns": now_ns, "end_ns": end_ns, "ttft_s": ttft_s, "ttft_due_s": ttft_s,
            "itl_mean_s": gap_s, "tpot_s": gap_s, "e2e_s": (end_ns - now_ns) / NS, "e2e_due_s": (end_ns - now_ns) / NS,
            "chunks": 6, "chunk_offsets_us": offsets, "output_tokens": 7,
            "outcome": "correct" if right else "wrong_value", "accuracy_score": 1.0 if right else 0.5,
            "json_valid": True, "schema_valid": right,
        } if came else {
            "request_index": index, "segment": 0, "case_id": f"c{index % cases}", "repeat": index // cases,
            "due_ns": now_ns, "sent_ns": now_ns, "end_ns": end_ns, "outcome": "http", "error_kind": "http",
            "output_tokens": 3, "chunk_offsets_us": [],
        })  # fmt: skip
        now_ns = end_ns
    return rows


def put(
    store: Store, run_id: str, rows: Sequence[Mapping[str, Any]], used: Config = CONFIG, *, simulated: bool = False,
    minute: int = 0, segments: Sequence[Mapping[str, Any]] = ({},), **run: Any,
) -> None:  # fmt: skip
    """One run with its rows; ``run`` overrides its columns, ``segments`` those of each of them."""
    started = START + timedelta(minutes=minute)
    duration_s = max((row["end_ns"] or 0 for row in rows), default=0) / NS
    store.append("runs", {
        **run_columns(used), "run_id": run_id, "status": "complete", "verdict": "valid", "planned": len(rows),
        "started_at": started, "finished_at": started, "environment": {"system": "Linux", "cores": 2}, **run,
    })  # fmt: skip
    for number, segment in enumerate(segments):
        store.append("segments", {"run_id": run_id, "segment": number, "started_at": started, "duration_s": duration_s,
                                  "status": "complete", "simulated": simulated, **segment})  # fmt: skip
    for row in rows:
        store.append("requests", {"run_id": run_id, "config_hash": "h", **row})


def database(path: Path, **runs: tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]) -> Path:
    """A file with these runs: id -> rows and what ``put`` takes."""
    with Store(path) as store:
        for minute, (run_id, (rows, more)) in enumerate(runs.items()):
            put(store, run_id, rows, minute=minute, **more)
    return path


@contextmanager
def fewer_resamples() -> Iterator[None]:
    """A little more noise in each result, none in the share of false ones, and much less time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(differences, "RESAMPLES", 200)
        patch.setattr(differences, "PERMUTATIONS", 499)
        differences._weights.cache_clear()
        yield
    differences._weights.cache_clear()

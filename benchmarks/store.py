"""The store alone: how long appending, flushing and looking up take, and what --fsync costs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter, process_time

from benchmarks.table import Figure
from loadgen.types import RequestRecord
from structbench.store import Store, row_of

NAME = "the store, 100,000 requests of 64 chunks"
FSYNC = "--fsync, 500 requests of 64 chunks"
_ROWS = 100_000
_SYNCED_ROWS = 500
_MS = 1_000_000


def _record(index: int) -> RequestRecord:
    sent_ns = index * 5 * _MS
    stamps = tuple(sent_ns + (100 + 10 * chunk) * _MS for chunk in range(64))
    return RequestRecord(
        index=index, worker=0, due_ns=sent_ns, sent_ns=sent_ns, chunk_ns=stamps, first_answer_ns=stamps[0],
        end_ns=stamps[-1], read_lag_max_ns=1000, clock="kernel", output_text=" token" * 64, done_reason="stop",
        prompt_tokens=550, output_tokens=64, load_ns=_MS, prompt_eval_ns=100 * _MS, eval_ns=630 * _MS,
    )  # fmt: skip


def measure_fsync() -> list[Figure]:
    """Measure how long ``append`` keeps a row, with and without --fsync, on the disk of the working folder."""
    figures = []
    for fsync, name in ((False, "row made and appended"), (True, "the same with --fsync")):
        with (
            tempfile.TemporaryDirectory(dir=Path.cwd()) as folder,
            Store(Path(folder) / "benchmark.duckdb", fsync=fsync) as store,
        ):
            began = perf_counter()
            for index in range(_SYNCED_ROWS):
                store.append("requests", row_of("run", "s1:benchmark", 0, "case", index, _record(index), None))
            took_s = perf_counter() - began
        figures.append(Figure(benchmark=FSYNC, name=name, value=took_s / _SYNCED_ROWS * 1e6, unit="µs"))
    return figures


def measure() -> list[Figure]:
    """Measure appending, flushing, opening the file again, and the --skip-cached look-up of an interrupted run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "benchmark.duckdb"
        with Store(path) as store:
            ended = {"status": "interrupted", "verdict": "valid"}
            store.append("runs", {"run_id": "run", "config_hash": "s1:benchmark", **ended})
            began, began_cpu = perf_counter(), process_time()
            for index in range(_ROWS):
                store.append("requests", row_of("run", "s1:benchmark", 0, "case", index, _record(index), None))
            appended_s = perf_counter() - began
            store.flush(600.0)
            flushed_s, cpu_s = perf_counter() - began, process_time() - began_cpu
        began = perf_counter()
        with Store(path) as store:
            opened_s = perf_counter() - began
            found = store.find(["s1:benchmark"])["s1:benchmark"]
            looked_up_s = perf_counter() - began - opened_s
        if len(found.done) != _ROWS:
            raise SystemExit(f"the store kept {len(found.done)} of {_ROWS} rows")
        size = path.stat().st_size
    return [
        Figure(benchmark=NAME, name="row made and appended", value=appended_s / _ROWS * 1e6, unit="µs"),
        Figure(benchmark=NAME, name="until it is in DuckDB", value=flushed_s / _ROWS * 1e6, unit="µs"),
        Figure(benchmark=NAME, name="processor time a row, all threads", value=cpu_s / _ROWS * 1e6, unit="µs"),
        Figure(benchmark=NAME, name="file opened anew", value=opened_s * 1e3, unit="ms"),
        Figure(benchmark=NAME, name="look-up of what is done", value=looked_up_s * 1e3, unit="ms"),
        Figure(benchmark=NAME, name="bytes a row", value=size / _ROWS, unit="B"),
    ]

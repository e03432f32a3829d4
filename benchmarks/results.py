"""Reading a large file: how long the commands take with a million stored requests, and how much memory.

``python -m benchmarks.results 100000 300000 1000000`` tells how file, summary and report grow with the rows.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TypeVar

import duckdb

from benchmarks import machine, timing
from benchmarks.table import Figure
from structbench.store import Reader, Store

NAME = "results, 1,000,000 requests of 60 chunks"
RUNS, REQUESTS = 40, 25_000
_QUIET_S = 120.0
_LOOK_UPS = 12

_RUN = """
INSERT INTO runs BY NAME SELECT
    format('20260101T{:06}-{:08x}', $1, $1) AS run_id, 's1:' || sha256($1::VARCHAR) AS config_hash,
    ['smollm2:360m', 'llama3.2:1b', 'gemma3n', 'qwen3:4b'][1 + $1 // 10] AS model,
    ['json', 'tools', 'numbers'][1 + $1 % 3] AS suite, 'closed' AS load_kind, 1 + $1 % 10 AS concurrency,
    $2 AS planned, 'complete' AS status, 'valid' AS verdict, 'benchmark' AS label,
    TIMESTAMP '2026-01-01' + $1 * INTERVAL 1 HOUR AS started_at, started_at + INTERVAL 30 MINUTE AS finished_at;
"""
_SEGMENT = """
INSERT INTO segments BY NAME SELECT run_id, 0 AS segment, started_at, finished_at, 1800.0 AS duration_s, planned,
    2 AS workers, 'complete' AS status FROM runs WHERE run_id = $1
"""
# Chunks 10 to 14 ms apart after a first of 150 to 250 ms, drawn by a hash; texts that do not compress.
_REQUESTS = """
INSERT INTO requests BY NAME WITH raw AS (
    SELECT run_id, config_hash, i AS request_index, 0 AS segment, i % 2 AS worker, 'case-' || i % 50 AS case_id,
        i // 50 AS repeat, 1_000_000_000_000 + i * 72_000_000 AS due_ns,
        due_ns + (hash(i, 1) % 90_000)::BIGINT AS sent_ns,
        [(150_000 + hash(i, 2, run_id) % 100_000 + 10_000 * j + hash(i, j, run_id) % 4000)::BIGINT FOR j IN range(60)]
            AS chunk_offsets_us,
        array_to_string([md5(i || run_id || j) FOR j IN range(6)], ' ') AS output_text, hash(i, 3) % 10 < 7 AS is_right
    FROM runs, range($2) AS t(i) WHERE run_id = $1
), timed AS (
    SELECT *, sent_ns + 1000 * chunk_offsets_us[60] AS end_ns, chunk_offsets_us[1] / 1e6 AS ttft_s,
        (end_ns - sent_ns) / 1e9 AS e2e_s, (sent_ns - due_ns) / 1e9 AS send_lag_s,
        (chunk_offsets_us[60] - chunk_offsets_us[1]) / 1e6 AS span_s
    FROM raw
)
SELECT * EXCLUDE (is_right, span_s), ttft_s + send_lag_s AS ttft_due_s, ttft_s AS first_answer_s,
    span_s / 59 AS itl_mean_s, span_s / 59 AS tpot_s, 59 / span_s AS client_tokens_per_s,
    (end_ns - due_ns) / 1e9 AS e2e_due_s, 0.0001 AS read_lag_max_s, 0.0 AS connect_s, 60 AS chunks, 0 AS merged_chunks,
    0 AS gathered_chunks,
    'kernel' AS clock, 550 AS prompt_tokens, 60 AS output_tokens, 0.001 AS load_s, ttft_s - 0.005 AS prompt_eval_s,
    span_s AS eval_s, e2e_s - load_s - prompt_eval_s - eval_s AS queue_s, 60 / eval_s AS server_tokens_per_s,
    'stop' AS done_reason, if(is_right, 'correct', 'wrong_value') AS outcome, is_right::DOUBLE AS accuracy_score,
    true AS json_valid, true AS json_valid_lenient, 'plain' AS json_source, true AS schema_valid,
    true AS schema_valid_lenient
FROM timed
"""

T = TypeVar("T")


def build(path: Path, runs: int = RUNS, requests: int = REQUESTS) -> None:
    """Build a file as loads leave it: complete runs with stored gap percentiles; verify finds no problem in it."""
    Store(path).close()
    with duckdb.connect(path, config={"memory_limit": "1GB"}) as con:
        for number in range(runs):
            con.execute(_RUN, [number, requests]).fetchall()
            run_id = con.execute("SELECT max(run_id) FROM runs").fetchall()[0][0]
            con.execute(_SEGMENT, [run_id]).fetchall()
            con.execute(_REQUESTS, [run_id, requests]).fetchall()
    with Store(path) as store:
        for row in store.query("SELECT run_id FROM runs"):
            store.keep_gaps(row["run_id"])


def measure() -> list[Figure]:
    """Build the file once, then what people and ``--skip-cached`` ask of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "benchmark.duckdb"
        began = perf_counter()
        build(path)
        built_s = perf_counter() - began
        machine.wait_until_quiet(_QUIET_S)
        return [
            _figure("file built", built_s, "s"),
            _figure("size of the file", path.stat().st_size / 1e6, "MB"),
            *_looked_up(path),
            *_queried(path),
            *_commanded(path, Path(folder)),
        ]


def _figure(name: str, value: float, unit: str, at_most: float | None = None) -> Figure:
    return Figure(benchmark=NAME, name=name, value=value, unit=unit, at_most=at_most)


def _looked_up(path: Path) -> list[Figure]:
    """Measure the look-up of ``--skip-cached``, and opening the file in a new DuckDB."""
    with Store(path) as store:
        hashes = [row["config_hash"] for row in store.query(f"SELECT config_hash FROM runs LIMIT {_LOOK_UPS}")]
        found, looked_up_s, _ = _typical(lambda: store.find(hashes))
    if len(found) != _LOOK_UPS:
        raise SystemExit(f"{len(found)} of {_LOOK_UPS} runs were found")
    _, opened_s, _ = _typical(lambda: duckdb.connect(path, read_only=True).close())
    return [
        _figure(f"look-up of {_LOOK_UPS} cells", looked_up_s * 1e3, "ms", at_most=20.0),
        _figure("opening the file in a new DuckDB, for comparison", opened_s * 1e3, "ms"),
    ]


def _queried(path: Path) -> list[Figure]:
    figures = []
    with Reader(path) as reader:
        for view in ("summary", "latency_percentiles", "outcomes", "run_decomposition"):
            _, wall_s, cpu_s = _typical(lambda view=view: reader.query(f"FROM {view}"), times=3)  # type: ignore[misc]
            figures += [_figure(f"view {view}, all runs", wall_s, "s"),
                        _figure(f"view {view}, processor time", cpu_s, "s")]  # fmt: skip
    return figures


def _typical(work: Callable[[], T], times: int = 9) -> tuple[T, float, float]:
    """Return the result, and the medians of wall and processor time."""
    walls, cpus = [], []
    for _ in range(times):
        began, began_cpu = perf_counter(), process_time()
        result = work()
        walls.append(perf_counter() - began)
        cpus.append(process_time() - began_cpu)
    return result, median(walls), median(cpus)


def _commanded(path: Path, folder: Path) -> list[Figure]:
    """Measure whole commands, as a shell runs them."""
    from structbench.cli import COMMANDS

    commands = {
        "runs": (["runs"], 1.0),
        "report --format terminal": (["report", "--format", "terminal"], 3.0),
        "export --format parquet": (["export", "-o", str(folder / "export.parquet")], 10.0),
        "verify": (["verify"], None),
    }
    figures, memory, others = [], 0.0, 0.0
    for name, (words, at_most) in commands.items():
        if words[0] not in COMMANDS:
            continue
        used = machine.run([sys.executable, "-m", "structbench", *words, "--db", str(path)])
        if used.exit_code:
            raise SystemExit(f"structbench {name} failed:\n{used.output}")
        memory, others = max(memory, used.rss_max_bytes / 1e6), max(others, used.others_cores)
        figures.append(_figure(f"structbench {name}", used.wall_s, "s", at_most))
        figures.append(_figure(f"structbench {name}, processor time", used.cpu_s, "s"))
    return [*figures, _figure("resident memory, the largest of these", memory, "MB", 1000.0),
            _figure(timing.OTHERS, others, "")]  # fmt: skip


def grown(rows: int) -> tuple[float, float, float]:
    """Return the size in bytes of a file of so many requests, and what ``summary`` and a report of it take, in s."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "benchmark.duckdb"
        build(path, requests=rows // RUNS)
        machine.wait_until_quiet(_QUIET_S)
        with Reader(path) as reader:
            _, _, summary_s = _typical(lambda: reader.query("FROM summary"), times=3)
        report = [sys.executable, "-m", "structbench", "report", "--format", "terminal", "--db", str(path)]
        return path.stat().st_size, summary_s, median(machine.run(report).cpu_s for _ in range(3))


def main(numbers: Sequence[int]) -> None:
    """Print a line for each number of rows, and what each more million costs by the first and the last of them."""
    found = {rows: grown(rows) for rows in sorted(numbers)}
    (few, least), *_, (many, most) = found.items()
    print(f"{machine.describe()}\n\n| rows | bytes a row | the view summary | structbench report |\n|---|---|---|---|")
    for rows, (size, summary_s, report_s) in found.items():
        print(f"| {rows:,} | {size / rows:.0f} | {summary_s:.2f} s | {report_s:.2f} s |")
    size, summary_s, report_s = ((last - first) / (many - few) for first, last in zip(least, most, strict=True))
    print(f"| each more million | {size:.0f} | {summary_s * 1e6:.2f} s | {report_s * 1e6:.2f} s |")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [100_000, 300_000, 1_000_000])

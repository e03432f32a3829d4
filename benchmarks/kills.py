"""``kill -9`` at random moments of a load: no row that was stored is lost, none counts twice, every run is settled.

Run as ``python -m benchmarks.kills [KILLS] [SEED]`` (200 by default). Each kill is of a load of its own, and two
thirds are in the last 300 ms of a cell. Prints the counts; exit code 1 if one is off.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from loadgen.simulator import SimulatorProcess
from structbench.results.verify import problems
from structbench.store import Reader
from structbench.store.upkeep import spool_of
from structbench.suites.answer_book import answer_book

_CELL_S = 1.5
_LAST_S = 0.3
_RUN = "SELECT run_id, status, verdict FROM runs"
_ROWS = "SELECT run_id, request_index FROM requests"


def _spooled(db: Path) -> set[tuple[str, int]]:
    """Return the keys of the requests whose whole line is in the spool."""
    found = set()
    for file in spool_of(db).glob("*.jsonl"):
        for line in file.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n") and (item := json.loads(line))["table"] == "requests":
                found.add((item["row"]["run_id"], item["row"]["request_index"]))
    return found


def _kill_one(db: Path, url: str, after_s: float) -> float:
    """Start a load of one cell, kill it that long after its first request; return how long it lived from there."""
    command = [
        sys.executable, "-m", "structbench", "load", "--host", url, "--models", "sim:fast", "--suites", "json",
        "--concurrency", "4", "--duration", f"{_CELL_S:g}", "--workers", "1", "--metrics-port", "0", "--db", str(db),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as load:
        while load.poll() is None and not _first_row(db, load.pid):
            time.sleep(0.005)
        began = time.monotonic()
        while load.poll() is None and time.monotonic() - began < after_s:
            time.sleep(0.001)
        lived = time.monotonic() - began
        with suppress(ProcessLookupError):  # it had just ended
            os.killpg(load.pid, signal.SIGKILL)
        load.wait()
    return lived


def _first_row(db: Path, pid: int) -> bool:
    for file in spool_of(db).glob(f"{pid}-*.jsonl"):
        with suppress(FileNotFoundError):  # its rows have just moved into the database
            if b'"requests"' in file.read_bytes():
                return True
    return False


def main(kills: int, seed: int) -> int:
    """Kill, open again, compare; return 1 if anything is lost, doubled or unsettled."""
    random.seed(seed)
    lost = unsettled = wrong = waited = 0
    statuses: dict[str, int] = {}
    with TemporaryDirectory() as folder, SimulatorProcess(answers=answer_book(0), seed=0) as server:
        db = Path(folder) / "s.duckdb"
        for number in range(kills):
            late = number % 3 != 0
            after_s = _CELL_S + random.uniform(-_LAST_S, 0.2) if late else random.uniform(0, _CELL_S)
            _kill_one(db, server.url, after_s)
            spooled = _spooled(db)
            waited += len(spooled)
            with Reader(db, patience_s=20) as reader:
                stored = [(row["run_id"], row["request_index"]) for row in reader.query(_ROWS)]
                lost += len(spooled - set(stored))
                wrong += len(stored) - len(set(stored))
                runs = reader.query(_RUN)
                unsettled += sum(run["status"] == "running" or run["verdict"] is None for run in runs)
            statuses = {status: sum(run["status"] == status for run in runs) for status in ("complete", "interrupted")}
            if (number + 1) % 10 == 0:
                print(f"{number + 1} kills: {statuses}, {len(stored):,} rows, {waited:,} of them waited in the spool;"
                      f" {lost} lost, {wrong} twice, {unsettled} runs unsettled", flush=True)  # fmt: skip
        with Reader(db) as reader:
            found = [problem.what for problem in problems(reader)]
    print(
        f"{kills} kills (seed {seed}): {waited:,} rows waited in the spool, {lost} of them lost, {wrong} stored twice"
    )
    print(f"runs: {statuses}; {unsettled} unsettled after the next opening; verify: {', '.join(found) or 'no problem'}")
    return 1 if lost or wrong or unsettled or found else 0


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in [*sys.argv[1:], *["200", "0"][len(sys.argv) - 1 :]])))

"""``kill -9`` at random moments of a load: no row that was stored is lost, none counts twice, every run is settled.

Run as ``python -m benchmarks.kills [KILLS] [SEED] [FOLDER]`` (200 by default). Each kill is of a load of its own, and
two thirds are in the last 300 ms of a cell. Prints the counts; exit code 1 if one is off. With a folder, which keeps
the file and the counts, the next call goes on with the same trial.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
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
_NS = 1e9
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


def _kill_one(db: Path, url: str, after_s: float) -> int:
    """Start a load of one cell, kill it that long after its first row; return when (``time.monotonic_ns``)."""
    command = [
        sys.executable, "-m", "structbench", "load", "--host", url, "--models", "sim:fast", "--suites", "json",
        "--concurrency", "4", "--duration", f"{_CELL_S:g}", "--workers", "1", "--warmup", "0", "--metrics-port", "0",
        "--db", str(db),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as load:
        while load.poll() is None and not _first_row(db, load.pid):
            time.sleep(0.005)
        began = time.monotonic()
        while load.poll() is None and time.monotonic() - began < after_s:
            time.sleep(0.001)
        killed_ns = time.monotonic_ns()
        with suppress(ProcessLookupError):  # it had just ended
            os.killpg(load.pid, signal.SIGKILL)
        load.wait()
    return killed_ns


def _oldest_lost_s(url: str, rows: int, killed_ns: int) -> float:
    """Return how long before the kill the first answer came that has no row; 0 if each has one."""
    with urllib.request.urlopen(f"{url}/truth") as answer:
        entries = json.load(answer)["requests"]
    done = sorted(each["done_ns"] for each in entries if each["outcome"] == "completed" and each["kind"] != "load")
    return max(0.0, (killed_ns - done[rows]) / _NS) if len(done) > rows else 0.0


def _first_row(db: Path, pid: int) -> bool:
    for file in spool_of(db).glob(f"{pid}-*.jsonl"):
        with suppress(FileNotFoundError):  # its rows have just moved into the database
            if b'"requests"' in file.read_bytes():
                return True
    return False


def main(kills: int, seed: int, folder: Path) -> int:
    """Kill, open again, compare; return 1 if anything is lost, doubled or unsettled."""
    kept = folder / "counts.json"
    folder.mkdir(exist_ok=True)
    done, before, lost, wrong, unsettled, waited, oldest_s = json.loads(kept.read_text()) if kept.exists() else [0] * 7
    random.seed(seed + done)
    db = folder / "s.duckdb"
    with SimulatorProcess(answers=answer_book(0), seed=0) as server:
        for number in range(done, done + kills):
            late = number % 3 != 0
            after_s = _CELL_S + random.uniform(-_LAST_S, 0.2) if late else random.uniform(0, _CELL_S)
            urllib.request.urlopen(f"{server.url}/truth/reset", b"").close()
            killed_ns = _kill_one(db, server.url, after_s)
            spooled = _spooled(db)
            waited += len(spooled)
            with Reader(db, patience_s=20) as reader:
                stored = [(row["run_id"], row["request_index"]) for row in reader.query(_ROWS)]
                lost += len(spooled - set(stored))
                wrong += len(stored) - len(set(stored))
                runs = reader.query(_RUN)
                unsettled += sum(run["status"] == "running" or run["verdict"] is None for run in runs)
            oldest_s = max(oldest_s, _oldest_lost_s(server.url, len(stored) - before, killed_ns))
            before = len(stored)
            statuses = {status: sum(run["status"] == status for run in runs) for status in ("complete", "interrupted")}
            kept.write_text(json.dumps([number + 1, before, lost, wrong, unsettled, waited, oldest_s]))
            if (number + 1) % 10 == 0:
                print(f"{number + 1} kills: {statuses}, {len(stored):,} rows, {waited:,} of them waited in the spool;"
                      f" {lost} lost, {wrong} twice, {unsettled} runs unsettled; answers without a row came at most"
                      f" {oldest_s:.2f} s before the kill", flush=True)  # fmt: skip
    with Reader(db) as reader:
        found = [problem.what for problem in problems(reader)]
    print(f"{done + kills} kills (seed {seed}): {waited:,} rows waited in the spool, {lost} of them lost,"
          f" {wrong} stored twice; answers without a row came at most {oldest_s:.2f} s before the kill")  # fmt: skip
    print(f"runs: {statuses}; {unsettled} unsettled after the next opening; verify: {', '.join(found) or 'no problem'}")
    return 1 if lost or wrong or unsettled or found else 0


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        count, seed, folder = [*sys.argv[1:], *["200", "0", made][len(sys.argv) - 1 :]]
        sys.exit(main(int(count), int(seed), Path(folder)))

"""A disk without room gives one line in every command, and leaves what was stored."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from structbench.cli import COMMANDS
from structbench.store import Reader
from structbench.store.spool import Spool
from structbench.store.upkeep import spool_of
from tests.support.databases import request
from tests.support.paths import ROOT

WRITES = {
    "load": ["load --simulate --requests 3 --suites numbers --metrics-port 0 --db new.duckdb",
             "load --simulate --requests 3 --suites numbers --metrics-port 0 --db {db}"],
    "compare": ["compare model=sim:fast model=mixed -o out.txt --db {db}"],
    "export": ["export -o out.csv --db {db}", "export -o out.parquet --db {db}", "export --per-run -o out --db {db}"],
    "import": ["import {db} --db new.duckdb", "import {other} --db {db}"],
    "clean": ["clean --label first --yes --db {db}"],
    "clear-cache": ["clear-cache --label first --db {db}"],
    "suites": ["suites new json -o out.jsonl"],
    "matrix": ["matrix --simulate --models sim:fast --db new.duckdb"],
    "demo": ["demo --db new.duckdb"],
    "report": ["report -o out.html --db {db}"],
    "capacity": ["capacity --simulate --models sim:fast --suites numbers --most 1 --metrics-port 0 --db new.duckdb"],
}  # fmt: skip
MERGES = ("runs", "stats", "verify", "rescore", "sql")
"""They write what a dead process left, and so does every other that opens a file."""
WRITES_NOTHING = {"simulate", "watch", "calibrate", "completion"}


def on_a_full_disk(line: str, folder: Path, most_bytes: int, **paths: Path) -> tuple[int, str]:
    """Run the command where no file may grow beyond so many bytes; return its exit code and what it complained."""
    words = [word.replace("~", " ").strip("'").format(**paths) for word in line.split()]
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    done = subprocess.run(
        [sys.executable, "-m", "structbench", *words], cwd=folder, preexec_fn=limit, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder), "OLLAMA_HOST": "127.0.0.1:1"},
    )  # fmt: skip
    return done.returncode, done.stderr


def test_every_command_that_writes_is_tried() -> None:
    assert {*WRITES, *MERGES, *WRITES_NOTHING} == {*COMMANDS}


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for lines in WRITES.values() for line in lines])
def test_a_full_disk_is_one_line(line: str, results: Path, tmp_path: Path) -> None:
    before = stored(results)
    code, told = on_a_full_disk(line, tmp_path, 64, db=results, other=results)
    complaints = [each for each in told.splitlines() if each.startswith("structbench: ")]
    assert code in (1, 2) or "clean" in line, told
    assert "Traceback" not in told
    assert len(complaints) >= 1 or "clean" in line
    assert not list(tmp_path.glob("out.*")) or not any(path.stat().st_size for path in tmp_path.glob("out.*"))
    assert stored(results) >= (0 if "clean" in line else before)


@pytest.mark.slow
@pytest.mark.parametrize("command", MERGES)
def test_what_a_dead_process_left_waits_for_room(command: str, results: Path, tmp_path: Path) -> None:
    before = stored(results)
    dead = Spool(spool_of(results))
    for index in range(3):
        dead.append("requests", request(index))
    dead.close()
    code, told = on_a_full_disk(f"{command} {'FROM~runs' if command == 'sql' else ''} --db {results}", tmp_path, 1024)
    assert "Traceback" not in told, told
    assert code in (0, 1, 2)
    assert stored(results) == before + 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    ["--version", "help", "runs", "stats", "stats --json", "sql 'FROM requests'", "sql --format csv 'FROM requests'",
     "export -o -", "export --format json -o -", "export --format benchstat", "report --format json", "report",
     "compare model=sim:fast model=mixed", "suites", "suites new json", "completion bash"],
)  # fmt: skip
def test_a_full_disk_behind_standard_output_is_one_line(line: str, results_once: Path) -> None:
    words = shlex.split(line)
    words += ["--db", str(results_once)] if words[0] not in ("--version", "help", "suites", "completion") else []
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "structbench", *words], stdout=full, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert [each for each in done.stderr.splitlines() if "cannot write" in each] == [done.stderr.splitlines()[-1]]
    assert "Traceback" not in done.stderr


def stored(path: Path) -> int:
    with Reader(path) as reader:
        (row,) = reader.query("SELECT count(*) AS n FROM requests")
    return int(row["n"])

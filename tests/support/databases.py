"""What the tests of the store share: rows, a process that appends, one that holds the file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from tests.support.paths import ROOT

RUN = {"run_id": "r", "config_hash": "h", "model": "m", "suite": "json", "status": "running"}

HOLD = """
import duckdb, sys
con = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "read")
print("held", flush=True)
sys.stdin.readline()
"""
APPEND = """
import sys, time
from pathlib import Path
from structbench.store import Store
store = Store(Path(sys.argv[1]))
run_id, count, rate = sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
start = time.monotonic()
for index in range(count):
    store.append("requests", {"run_id": run_id, "request_index": index, "output_text": "x" * 500})
    print(index, flush=True)
    time.sleep(max(0.0, start + index / rate - time.monotonic()))
print("closed", store.close(30), flush=True)
"""


@contextmanager
def python(code: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", code, *map(str, args)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def held(path: Path, how: str) -> Iterator[Callable[[], None]]:
    """Another process keeps the file open; the yielded function lets it go."""
    with python(HOLD, path, how) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        stdin = process.stdin

        def release() -> None:
            assert process.poll() is None, "the holder ended before its time"
            stdin.write("\n")
            stdin.flush()
            process.wait()

        yield release


def request(index: int, **more: Any) -> dict[str, Any]:
    return {"run_id": "r", "request_index": index, **more}


def read(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(path, read_only=True) as con:
        return con.execute(sql).fetchall()

"""A reader keeps the results file open over a load of several cells: nothing waits for it, nothing is missing after.

Run as ``python -m benchmarks.reader [SECONDS]`` (300 by default; the load is of 5 cells of a fifth of that time).
"""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from structbench.store import Reader, Store

_CELLS = 5
_HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); print(1, flush=True); sys.stdin.read()"
_STARTS = """
SELECT started_at, finished_at, planned, requests, verdict, status FROM summary ORDER BY started_at
"""


def main(seconds: float) -> int:
    """Run the load and print what it said, the pauses between cells, and what the file holds afterwards."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "s.duckdb"
        Store(path).close()
        with subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            began = time.monotonic()
            load = subprocess.run(
                [sys.executable, "-m", "structbench", "load", "--simulate", "--suites", "json", "--models", "sim:fast",
                 "--concurrency", *map(str, range(1, _CELLS + 1)), "--duration", f"{seconds / _CELLS:g}",
                 "--metrics-port", "0", "--db", str(path)],
                stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
            took = time.monotonic() - began
            holder.communicate(b"")
        print(load.stderr)
        with Reader(path) as reader:
            runs = reader.query(_STARTS)
            stored = reader.query("SELECT count(*) AS n FROM requests")[0]["n"]
    pauses = [(later["started_at"] - earlier["finished_at"]).total_seconds() for earlier, later in pairwise(runs)]
    print(f"exit code {load.returncode}; {took:.1f} s for {_CELLS} cells of {seconds / _CELLS:g} s")
    print(f"pauses between cells: {', '.join(f'{pause:.2f}' for pause in pauses)} s")
    print(
        f"afterwards: {len(runs)} runs, {stored:,} requests, "
        + ", ".join(f"{r['status']} {r['verdict']}" for r in runs)
    )
    complete = len(runs) == _CELLS and all(run["status"] == "complete" and run["verdict"] for run in runs)
    return 0 if load.returncode == 0 and complete and stored == sum(run["requests"] for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 300.0))

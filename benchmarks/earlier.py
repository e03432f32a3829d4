"""Beside an earlier commit: what a token, a record and the start of a load cost now, as ratios to that commit's.

``python -m benchmarks.earlier COMMIT --truthserver truthserver.c`` checks the commit out into a temporary worktree and
runs the same command in both trees in turn, each equally often first, against one server:

- ``token``: 128 streams of 100 tokens/s, scored, the whole program: processor time of all processes per token;
- ``record``: the main process alone, fed by an engine that makes up records (``benchmarks.made_up``): prompts made,
  records taken, scored, stored and shown, in records/s, and its processor time a record;
- ``start``: the suite ``text`` with its calibration, against a server that answers at once: seconds from the command
  to the first measured request.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import machine
from benchmarks.machine import NS
from benchmarks.servers import Server, Timetable, free_port, serve
from benchmarks.table import Figure, lines, markdown
from benchmarks.timing import ANSWERS, OTHERS, ROOT, SCENARIOS, SHORT, Scenario, settle, timed_load

_STREAMS = next(scenario for scenario in SCENARIOS if scenario.concurrency == 128)
_START = Scenario(name="start", concurrency=4, requests=4, tokens=4, timetable=replace(SHORT, itl_s=0.001))
_MADE_UP = f"import runpy; runpy.run_path({str(ROOT / 'benchmarks' / 'made_up.py')!r}, run_name='__main__')"
_AT_MOST, _AT_LEAST = {"token": 0.65}, {"record": 2.5}
"""What the first figure is to be as a ratio to the earlier commit's."""
_START_S = 0.8

Measured = dict[str, tuple[float, str]]
"""Name of a figure -> value and unit."""


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """Check the commit out into a folder of its own, for as long as the ``with`` block takes."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, commit], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


def token(server: Server, seconds: float, tree: Path) -> Measured:
    usage, facts, truth = timed_load(_STREAMS, seconds, server, "--metrics-port", str(free_port()), tree=tree)
    return {
        "processor time per token": (usage.cpu_s / facts["tokens"] * 1e6, "µs"),
        "TTFT p50, off by": ((facts["ttft_p50_s"] - truth.ttft_p50_s) * 1e3, "ms"),
        "TTFT p99, off by": ((facts["ttft_p99_s"] - truth.ttft_p99_s) * 1e3, "ms"),
        "requests/s": (facts["requests"] / ((facts["last_ns"] - facts["first_ns"]) / NS), ""),
        OTHERS: (usage.others_cores, ""),
    }


def record(server: Server, suite: str, records: int, tree: Path) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-c", _MADE_UP, "load", "--host", server.url, "--models", server.model, "--suites", suite,
            "--concurrency", "16", "--requests", str(records), "--db", str(Path(folder) / "records.duckdb"),
            "--metrics-port", str(free_port()),
        ]  # fmt: skip
        usage = machine.run(command, server_pid=server.pid, cwd=tree)
    if usage.exit_code != 0:
        raise SystemExit(f"the made-up load ended with {usage.exit_code}:\n{usage.output[-2000:]}")
    told = json.loads(usage.output.splitlines()[-1])
    return {
        "records/s": (told["records_per_s"], ""),
        "processor time a record, main process": (told["cpu_us_per_record"], "µs"),
        OTHERS: (usage.others_cores, ""),
    }


def start(server: Server, tree: Path) -> Measured:
    usage, facts, _ = timed_load(_START, 0.0, server, "--metrics-port", "0", tree=tree)
    return {
        "first measured request after the command": ((facts["first_ns"] - usage.started_ns) / NS, "s"),
        OTHERS: (usage.others_cores, ""),
    }


def paired(name: str, measure: Callable[[Path], Measured], before: Path, pairs: int) -> list[Figure]:
    """Measure in both trees in turn; return each figure's medians, and of its first figure the ratio now / before."""
    found: dict[Path, list[Measured]] = {before: [], ROOT: []}
    for pair in range(pairs):
        for tree in (before, ROOT) if pair % 2 == 0 else (ROOT, before):
            settle()
            found[tree].append(measure(tree))
            print(f"{name}: {'now' if tree == ROOT else 'before'}: {found[tree][-1]}", file=sys.stderr, flush=True)

    def medians(figure: str) -> tuple[float, float]:
        then, now = (median(each[figure][0] for each in found[tree]) for tree in (before, ROOT))
        return then, now

    figures: list[Figure] = []
    for figure, (_, unit) in found[ROOT][0].items():
        then, now = medians(figure)
        at_most = _START_S if name == "start" and figure != OTHERS else None
        figures.append(Figure(benchmark=name, name=f"{figure}, before", value=then, unit=unit))
        figures.append(Figure(benchmark=name, name=f"{figure}, now", value=now, unit=unit, at_most=at_most))
    kind, first = name.split()[0], next(iter(found[ROOT][0]))
    then, now = medians(first)
    ratio = Figure(benchmark=name, name=f"{first}, now / before", value=now / then, at_most=_AT_MOST.get(kind),
                   at_least=_AT_LEAST.get(kind))  # fmt: skip
    return [*figures, ratio]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.earlier", description=__doc__)
    parser.add_argument("commit", help="what to compare with, as git names it")
    parser.add_argument("--truthserver", type=Path, help="truth server: a binary or its .c file (default: simulator)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each load of streams (default: 60)")
    parser.add_argument("--records", type=int, default=20_000, help="records that are made up (default: 20,000)")
    parser.add_argument("--pairs", type=int, default=3, help="how often each is run in both trees (default: 3)")
    parser.add_argument("--only", default="", choices=("", "token", "record", "start"), help="one of the three")
    asked = parser.parse_args()
    figures: list[Figure] = []

    def run(name: str, timetable: Timetable, measure: Callable[..., Measured]) -> None:
        if asked.only in ("", name.split()[0]):
            with serve(timetable, asked.truthserver) as server:
                figures.extend(paired(name, partial(measure, server), before, asked.pairs))

    with tree_of(asked.commit) as before:
        run("token", _STREAMS.timetable, lambda server, tree: token(server, asked.seconds, tree))
        run("record (suite text)", SHORT, lambda server, tree: record(server, "text", asked.records, tree))
        run("record (scored answers)", SHORT, lambda server, tree: record(server, str(ANSWERS), asked.records, tree))
        run("start", _START.timetable, start)
    print(f"{machine.describe()}\nnow against {asked.commit}, medians of {asked.pairs} pairs\n")
    print(markdown(lines([figures])))


if __name__ == "__main__":
    main()

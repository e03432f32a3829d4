"""Scoring: answers a second on one core, and its share of a load's processor time.

Figures with a target are processor time, of the scoring process and of the parent's part in it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from time import perf_counter, process_time, thread_time
from typing import Any

import psutil

from benchmarks import machine
from benchmarks.servers import free_port
from benchmarks.table import Figure
from loadgen.simulator import SimulatorProcess
from structbench.scoring import Answer, score
from structbench.scoring.process import Scorer
from structbench.suites.answer_book import answer_book
from structbench.suites.catalog import load_suite
from structbench.suites.generated import TextShape
from structbench.types import Case

NAME = "scoring, the cases of json and tools with right, fenced and broken answers"
LOAD = "scoring's share of a load, 50 requests/s"
PER_S = 5000 / 60
"""Answers a second that one core must score."""
RATE = 50
SHARE_PERCENT = 5.0
_ROUNDS = 40
_PERIOD_S = 0.2
_SCORER = "structbench.scoring.process:serve"


def work(rounds: int = _ROUNDS) -> list[tuple[Case, Answer]]:
    """Return each shipped case with a right answer, a fenced one (or a call in the text), and a broken one."""
    book = answer_book()
    answers: list[tuple[Case, Answer]] = []
    for suite in ("json", "tools"):
        for case in load_suite(suite, text=TextShape(), seed=0).cases:
            known = book[str(case.messages[-1]["content"])]
            answers += [(case, answer) for answer in _answers(known)]
    return answers * rounds


def _answers(known: dict[str, Any]) -> Iterator[Answer]:
    if "json" in known:
        text = json.dumps(known["json"])
        yield Answer(text, (), "stop")
        yield Answer(f"```json\n{text}\n```", (), "stop")
        yield Answer(text.replace("}", ', "beside": null}', 1), (), "stop")
    else:
        calls = tuple(known["calls"])
        yield Answer("", calls, "stop")
        yield Answer(json.dumps(calls), (), "stop")
        yield Answer("", tuple({**call, "arguments": {"city": 1}} for call in calls), "stop")


def measure() -> list[Figure]:
    """Measure answers per second in this process, through the scoring process, and per processor second."""
    given = work()
    for case, answer in given[: len(given) // _ROUNDS]:
        score(case, answer)  # each schema's validator is made once and kept
    began = perf_counter()
    for case, answer in given:
        score(case, answer)
    here_s = perf_counter() - began
    through_s, own_s, child_s = _through(given)
    each_us = 1e6 / len(given)
    return [
        Figure(benchmark=NAME, name="in this process", value=len(given) / here_s, unit="answers/s"),
        Figure(benchmark=NAME, name="through the scoring process", value=len(given) / through_s, unit="answers/s"),
        Figure(
            benchmark=NAME, name="on one core (processor time of both processes)",
            value=len(given) / (own_s + child_s), unit="answers/s", at_least=PER_S,
        ),
        Figure(benchmark=NAME, name="processor time an answer, scoring process", value=child_s * each_us, unit="µs"),
        Figure(benchmark=NAME, name="processor time an answer, main process", value=own_s * each_us, unit="µs"),
    ]  # fmt: skip


def measure_load(seconds: float) -> list[Figure]:
    """Measure the scoring process against all processes in a load of 50 requests/s on json and tools."""
    requests = max(RATE, round(RATE * seconds / 2))
    with SimulatorProcess(answers=answer_book()) as server, tempfile.TemporaryDirectory() as folder, _watched() as seen:
        command = [
            sys.executable, "-m", "structbench", "load", "--host", server.url, "--models", "sim:fast",
            "--suites", "json", "tools", "--rate", str(RATE), "--requests", str(requests),
            "--db", str(Path(folder) / "b.duckdb"), "--metrics-port", str(free_port()), "--json",
        ]  # fmt: skip
        usage = machine.run(command, server_pid=server.pid, cwd=Path(__file__).parent.parent)
    if usage.exit_code != 0:
        raise SystemExit(f"{' '.join(command)} ended with {usage.exit_code}:\n{usage.output[-2000:]}")
    each_us = 1e6 / (2 * requests)
    start_s, main_us = _alone(work(1))
    all_us, scoring_us = (usage.cpu_s - start_s) * each_us, (seen[-1] - start_s) * each_us

    def figure(name: str, value: float, unit: str, **target: float) -> Figure:
        return Figure(benchmark=LOAD, name=name, value=value, unit=unit, **target)

    return [
        figure("processor time of the load, all processes", all_us, "µs/request"),
        figure("of it the scoring process", scoring_us, "µs/request"),
        figure("of it the main process for scoring (measured alone)", main_us, "µs/request"),
        figure("share of scoring", (scoring_us + main_us) / all_us * 100, "%", at_most=SHARE_PERCENT),
        figure("the scoring process's start (measured alone), left out of all", start_s, "s"),
    ]


def _alone(given: list[tuple[Case, Answer]]) -> tuple[float, float]:
    """Return processor time: a scoring process's start in seconds, and this process's share per answer in µs.

    Answers are submitted at the load's rate; submit() and the scorer's thread count.
    """
    seen_s: list[float] = []
    submitting_s = 0.0
    with Scorer(lambda _key, _score: seen_s.append(thread_time())) as scorer:
        scorer.wait_ready()
        assert scorer._child is not None
        start_s = _cpu_s(psutil.Process(scorer._child.process.pid))
        for key, (case, answer) in enumerate(given):
            before_s = thread_time()
            scorer.submit(key, case, answer)
            submitting_s += thread_time() - before_s
            time.sleep(1 / RATE)
        scorer.drain(60.0)
    # The thread's time before its first score is that of starting the child.
    return start_s, ((seen_s[-1] - seen_s[0]) / (len(given) - 1) + submitting_s / len(given)) * 1e6


@contextmanager
def _watched() -> Iterator[list[float]]:
    """Sample the processor time of the scoring process below this one until the end."""
    seen: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_PERIOD_S):
            try:
                for process in psutil.Process().children(recursive=True):
                    if any(_SCORER in word for word in process.cmdline()):
                        seen.append(_cpu_s(process))
            except psutil.Error:
                continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
    if not seen:
        raise SystemExit("the scoring process was not seen")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _through(given: list[tuple[Case, Answer]]) -> tuple[float, float, float]:
    """Return seconds until all answers are scored, and processor time of this process and the scoring process."""
    counted, lock = 0, Lock()

    def count(_key: Any, _score: Any) -> None:
        nonlocal counted
        with lock:
            counted += 1

    with Scorer(count) as scorer:
        scorer.wait_ready()
        assert scorer._child is not None
        child = psutil.Process(scorer._child.process.pid)
        before_s, began, own = _cpu_s(child), perf_counter(), process_time()
        for key, (case, answer) in enumerate(given):
            scorer.submit(key, case, answer)
        scorer.drain(600.0)
        took = perf_counter() - began, process_time() - own, _cpu_s(child) - before_s
    if counted != len(given):
        raise SystemExit(f"{counted} of {len(given)} answers were scored")
    return took

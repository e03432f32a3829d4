"""Scoring alone: answers a second, in this process and through the scoring process."""

from __future__ import annotations

from threading import Lock
from time import perf_counter
from typing import Any

from benchmarks.table import Figure
from structbench.scorer import Scorer
from structbench.scoring import Answer, score
from structbench.suites import TextShape, load_suite
from structbench.types import Case

NAME = "scoring, the json suite's cases with a fenced answer"
_ROUNDS = 100
_ANSWER = '```json\n{"name": "Ada", "age": 36, "items": [{"title": "A", "pages": 12}, {"title": "B", "pages": 7}]}\n```'


def measure() -> list[Figure]:
    """Every case of the suite, again and again, each with an answer that has to be found, parsed and validated."""
    cases = load_suite("json", text=TextShape(), seed=0).cases
    answer = Answer(_ANSWER, (), "stop", False)
    work: list[tuple[Case, Answer]] = [(case, answer) for _ in range(_ROUNDS) for case in cases]
    for case in cases:
        score(case, answer)  # each schema's validator is made once and kept
    began = perf_counter()
    for case, given in work:
        score(case, given)
    here_s = perf_counter() - began
    return [
        Figure(benchmark=NAME, name="in this process", value=len(work) / here_s, unit="answers/s"),
        Figure(benchmark=NAME, name="through the scoring process", value=len(work) / _through(work), unit="answers/s"),
    ]


def _through(work: list[tuple[Case, Answer]]) -> float:
    """Seconds until the scoring process has given every score back."""
    counted, lock = 0, Lock()

    def count(_key: Any, _score: Any) -> None:
        nonlocal counted
        with lock:
            counted += 1

    with Scorer(count) as scorer:
        scorer.wait_ready()
        began = perf_counter()
        for key, (case, answer) in enumerate(work):
            scorer.submit(key, case, answer)
        scorer.drain(600.0)
        took_s = perf_counter() - began
    if counted != len(work):
        raise SystemExit(f"{counted} of {len(work)} answers were scored")
    return took_s

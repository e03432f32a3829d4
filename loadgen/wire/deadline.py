"""A limit on a whole answer: a peer that sends a byte now and then meets every limit on a single read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class NoEnd(TimeoutError):
    """Work was not done in time, although no wait within it may have been long."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what ``work`` returns, or raise what it raises; NoEnd if it takes longer, and then it is left."""
    result: list[T] = []
    problem: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # handed to the caller
            problem.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if problem:
        raise problem[0]
    if not result:
        raise NoEnd(f"no complete answer within {seconds:g} s")
    return result[0]


def together(works: Sequence[Callable[[], T]]) -> list[T]:
    """Return what each returns, all done at the same time; raise what the first that fails raises."""
    results: dict[int, T] = {}
    problems: list[BaseException] = []

    def run(place: int) -> None:
        try:
            results[place] = works[place]()
        except BaseException as error:  # handed to the caller
            problems.append(error)

    threads = [threading.Thread(target=run, args=[place], daemon=True) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
        if problems:
            raise problems[0]
    return [results[place] for place in range(len(works))]

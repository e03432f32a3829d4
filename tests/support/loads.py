"""What the tests of the command share: models, short loads, a look into the database, the command as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest

import structbench
from loadgen.simulator import PROFILES, Profile, Simulator
from loadgen.simulator.connection import ClientConnection, HttpRequest
from structbench.options import LoadOptions
from structbench.run.runner import Summary
from structbench.run.runner import load as run
from structbench.run.settings import settings_of

ROOT = Path(structbench.__file__).parents[1]
FAST = PROFILES["sim:fast"]
SLOW = replace(FAST, prompt_tokens_per_s=500.0)
"""About 0.1 s a request of the suite ``numbers``."""
MODELS: dict[str, Profile] = {
    **PROFILES,
    "mixed": replace(
        FAST,
        json_shares={"schema_violation": 0.2, "invalid_json": 0.2, "truncated": 0.15, "no_output": 0.1},
        tool_shares={"no_call": 0.2, "wrong_function": 0.2, "missing_argument": 0.1, "wrong_count": 0.1},
    ),
    "deaf": replace(FAST, capabilities=("completion",)),
    "think": replace(FAST, capabilities=("completion", "tools", "thinking")),
    "later": replace(FAST, present=False),
}


def small(sim: Simulator, db: Path, **more: Any) -> LoadOptions:
    """Options of a load that ends within a second."""
    given: dict[str, Any] = {
        "models": ["sim:fast"], "suites": ["numbers"], "requests": 8, "host": sim.url, "db": db, "metrics_port": 0,
        "workers": 1,
    }  # fmt: skip
    return LoadOptions(**{**given, **more})


def ask(db: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a query, from a connection of its own that waits for its turn."""
    while True:
        try:
            with duckdb.connect(db, read_only=True) as con:
                return con.execute(sql).fetchall()
        except duckdb.IOException as error:
            if "lock" not in str(error):
                raise
            time.sleep(0.02)


def inferences(sim: Simulator, model: str | None = None) -> list[dict[str, Any]]:
    """What the server was asked to answer, in order of arrival; loading a model and warm-up left out."""
    asked = [entry for entry in sim.truth()["requests"] if entry["kind"] not in ("load", "text")]
    return [entry for entry in asked if model is None or entry["model"] == model]


@contextmanager
def listening(sim: Simulator) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Path and body of each request for an answer that the server gets."""
    heard: list[tuple[str, dict[str, Any]]] = []
    handle = sim._server.handle

    def listen(connection: ClientConnection, request: HttpRequest) -> None:
        if request.path in ("/api/chat", "/api/generate"):
            heard.append((request.path, json.loads(request.body)))
        handle(connection, request)

    sim._server.handle = listen  # type: ignore[method-assign]
    try:
        yield heard
    finally:
        sim._server.handle = handle  # type: ignore[method-assign]


def until(happened: Callable[[], bool], what: str, limit_s: float = 30.0) -> None:
    """Wait for an event; generous, since it is no measurement."""
    end = time.monotonic() + limit_s
    while not happened():
        if time.monotonic() > end:
            pytest.fail(f"never happened: {what}")
        time.sleep(0.03)


def when(happened: Callable[[], bool], do: Callable[[], object]) -> threading.Thread:
    """Do something as soon as something happened, beside the test; join the thread afterwards."""

    def wait_and_do() -> None:
        end = time.monotonic() + 30
        while not happened() and time.monotonic() < end:
            time.sleep(0.005)
        do()

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    return thread


def start(arguments: Sequence[object], folder: Path) -> subprocess.Popen[str]:
    """``python -m structbench`` with these arguments; Ctrl-C counts even where it is ignored here, as in a job."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "structbench", *map(str, arguments)], cwd=folder, env=environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def load(options: LoadOptions, **more: Any) -> Summary:
    """Do what the command does with these options."""
    return run(settings_of(options), **more)

"""Signals of a terminal, and a terminal that closes: a load ends in good order, or goes on where it is told to."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from loadgen.simulator import Simulator
from structbench.suites.answer_book import answer_book
from tests.support.loads import MODELS, ROOT, SLOW, ask, inferences, until

pytestmark = pytest.mark.slow
ROWS = 40


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    names = ("hup", "quit", "nohup", "closed", "piped")
    with Simulator({**MODELS, **dict.fromkeys(names, SLOW)}, answers=answer_book()) as server:
        yield server


def begun(sim: Simulator, model: str, folder: Path, *before: str, **how: object) -> subprocess.Popen[bytes]:
    words = f"load --host {sim.url} --models {model} --suites numbers --requests {ROWS} --concurrency 2 --db s.duckdb"
    command = [*before, sys.executable, "-m", "structbench", *words.split(), "--metrics-port", "0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=folder, env=env, start_new_session=True, **how)  # type: ignore[call-overload]
    until(lambda: len(inferences(sim, model)) >= 6, "some requests")
    return process  # type: ignore[no-any-return]


def ended(process: subprocess.Popen[bytes], folder: Path) -> tuple[int, str, int]:
    """Return exit code, status of the run and number of its rows."""
    code = process.wait(60)
    ((status,),) = ask(folder / "s.duckdb", "SELECT status FROM runs")
    ((rows,),) = ask(folder / "s.duckdb", "SELECT count(*) FROM requests")
    return code, status, rows


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_to_all_processes_of_a_terminal_ends_the_load_in_order(
    sim: Simulator, tmp_path: Path, number: signal.Signals
) -> None:
    model = number.name.removeprefix("SIG").lower()
    process = begun(sim, model, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.killpg(process.pid, number)
    if number == signal.SIGHUP:
        os.killpg(process.pid, number)  # a shell sends one more: what is in flight keeps its time
    out, err = process.communicate(timeout=60)
    code, status, rows = ended(process, tmp_path)
    assert (code, status) == (130, "interrupted")
    assert 6 <= rows < ROWS
    assert ask(tmp_path / "s.duckdb", "SELECT DISTINCT outcome FROM requests") == [("correct",)]
    assert b"Traceback" not in err
    assert b"to continue: structbench load" in err
    assert b"in flight may take 10 s to finish (--grace)" in out


def test_under_nohup_a_hangup_changes_nothing(sim: Simulator, tmp_path: Path) -> None:
    process = begun(sim, "nohup", tmp_path, "nohup", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.killpg(process.pid, signal.SIGHUP)
    assert ended(process, tmp_path) == (0, "complete", ROWS)


def test_a_terminal_that_closes_ends_the_load_in_order(sim: Simulator, tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    attach = partial(fcntl.ioctl, terminal, termios.TIOCSCTTY, 0)
    with contextlib.closing(os.fdopen(terminal, "rb", buffering=0)):
        process = begun(sim, "closed", tmp_path, preexec_fn=attach, stdin=terminal, stdout=terminal, stderr=terminal)
    children = psutil.Process(process.pid).children(recursive=True)
    os.close(master)
    code, status, rows = ended(process, tmp_path)
    assert (code, status) == (130, "interrupted")
    assert 6 <= rows < ROWS
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_whoever_reads_the_output_may_leave(sim: Simulator, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    process = begun(sim, "piped", tmp_path, stdout=writing, stderr=writing)
    os.close(writing)
    os.close(reading)
    assert ended(process, tmp_path) == (0, "complete", ROWS)

"""Signals and kill -9 in the middle of a load: what was committed stays, nothing is counted twice, nobody lingers."""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadgen.simulator import Simulator
from structbench.cli import main
from structbench.suites.answer_book import answer_book
from tests.support.loads import FAST, MODELS, SLOW, ask, inferences, load, small, start, until

pytestmark = pytest.mark.slow
ALL_ROWS = "SELECT request_index, segment, outcome FROM requests ORDER BY 1"
ROWS = 60
SIMULATED = ["load", "--simulate", "--models", "llama3.2:1b", "--suites", "tools", "--requests", "40"]


@dataclass
class Broken:
    """A load as a process of its own, and how it ended."""

    name: str
    folder: Path
    process: subprocess.Popen[str]
    children: list[psutil.Process] = field(default_factory=list)
    before: list[tuple[Any, ...]] = field(default_factory=list)
    """Rows that were in the database before it was broken off."""
    out: str = ""
    err: str = ""

    @property
    def db(self) -> Path:
        return self.folder / "s.duckdb"

    def send(self, number: signal.Signals) -> None:
        self.children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)

    def end(self) -> None:
        self.out, self.err = self.process.communicate(timeout=60)
        _, alive = psutil.wait_procs(self.children, timeout=20)
        assert alive == [], "children outlive the command"


def answered(sim: Simulator, model: str, least: int) -> bool:
    return sum(entry["outcome"] == "completed" for entry in inferences(sim, model)) >= least


def hangs(sim: Simulator) -> bool:
    return sum(entry["fault"] is not None and entry["outcome"] is None for entry in sim.truth()["requests"]) == 2


def committed(broken: Broken) -> bool:
    with contextlib.suppress(Exception):  # no file or no tables yet
        broken.before = ask(broken.db, ALL_ROWS)
    return len(broken.before) >= 3


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    slow = dict.fromkeys(("sigint", "killed"), SLOW)
    with Simulator({**MODELS, **slow, "fault:hang-before@0.2": FAST}, answers=answer_book()) as server:
        yield server


@pytest.fixture(scope="module")
def broken(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Broken]:
    """All of them side by side, so that the tests do not wait for each in turn."""
    with contextlib.ExitStack() as stack:

        def begin(name: str, arguments: list[str]) -> Broken:
            folder = tmp_path_factory.mktemp("broken")
            process = start([*arguments, "--metrics-port", "0", "--db", "s.duckdb"], folder)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return Broken(name, folder, process)

        def slow(model: str, *more: str) -> Broken:
            words = f"load --host {sim.url} --models {model} --suites numbers --requests {ROWS} --concurrency 2"
            return begin(model, [*words.split(), "--workers", "1", *more])

        ended = {name: slow(name) for name in ("killed", "sigint")}
        ended["simulated"] = begin("simulated", SIMULATED)
        hanging = ended["twice"] = slow("fault:hang-before@0.2", "--warmup", "0", "--grace", "600")
        until(partial(answered, sim, "killed", 1), "the first answer")
        ended["killed"].send(signal.SIGKILL)
        until(partial(answered, sim, "sigint", 4), "some answers")
        ended["sigint"].send(signal.SIGINT)
        until(partial(hangs, sim), "both requests in flight hang")
        until(partial(committed, hanging), "rows of the one that hangs")
        hanging.send(signal.SIGTERM)
        until(partial(committed, ended["simulated"]), "rows of the simulated one")
        ended["simulated"].send(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            hanging.process.wait(0.5)
        assert hanging.process.returncode is None, "it waits for what is in flight"
        hanging.process.send_signal(signal.SIGINT)
        for one in ended.values():
            one.end()
        return ended


def test_a_signal_ends_the_load_in_order_and_says_how_to_continue(broken: dict[str, Broken]) -> None:
    ended = broken["sigint"]
    assert ended.process.returncode == 130
    assert "Traceback" not in ended.err
    rows = ask(ended.db, ALL_ROWS)
    assert 4 <= len(rows) < ROWS
    assert {row[2] for row in rows} == {"correct"}, "what was in flight got its grace"
    assert ask(ended.db, "SELECT status FROM runs UNION ALL SELECT status FROM segments") == [("interrupted",)] * 2
    assert f"{len(rows)}/{ROWS}" in ended.out
    (line,) = [line for line in ended.err.splitlines() if "to continue: " in line]
    assert line.startswith("structbench: to continue: structbench load --models sigint ")
    assert " --skip-cached" in line


def test_the_line_that_says_how_to_continue_continues(
    sim: Simulator, broken: dict[str, Broken], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = broken["sigint"]
    kept = ask(ended.db, ALL_ROWS)
    command = shlex.split(ended.err.partition("to continue: ")[2])
    monkeypatch.chdir(ended.folder)
    sim._server.models["sigint:latest"].profile = FAST
    sim.reset_truth()
    assert main(command[1:]) == 0
    assert len(inferences(sim, "sigint")) == ROWS - len(kept)
    rows = ask(ended.db, ALL_ROWS)
    assert [row[0] for row in rows] == list(range(ROWS))
    assert [row for row in rows if row[1] == 0] == kept
    assert {row[1] for row in rows} == {0, 1}
    assert ask(ended.db, "SELECT status, verdict IS NOT NULL FROM runs") == [("complete", True)]
    assert "resumed" in capsys.readouterr().out


def test_a_second_signal_does_not_wait_for_what_is_in_flight(broken: dict[str, Broken]) -> None:
    ended = broken["twice"]
    assert ended.process.returncode == 130
    assert "Traceback" not in ended.err
    assert "to continue: " in ended.err
    rows = ask(ended.db, ALL_ROWS)
    assert set(ended.before) <= set(rows)
    assert [row[2] for row in rows].count("cancelled") == 2
    assert ask(ended.db, "SELECT status FROM runs") == [("interrupted",)]


def test_after_kill_9_the_run_goes_on_and_no_request_counts_twice(sim: Simulator, broken: dict[str, Broken]) -> None:
    ended = broken["killed"]
    assert ended.process.returncode == -signal.SIGKILL
    assert ended.children, "nothing that could have lingered"
    sim._server.models["killed:latest"].profile = FAST
    sim.reset_truth()
    options = small(sim, ended.db, models=["killed"], requests=ROWS, concurrency=[2], skip_cached=True)
    summary = load(options)
    assert (summary.exit_code, summary.rows[0]["cache"], summary.rows[0]["status"]) == (0, "resumed", "complete")
    rows = ask(ended.db, ALL_ROWS)
    assert [row[0] for row in rows] == list(range(ROWS))
    kept = sum(row[1] == 0 for row in rows)
    assert len(inferences(sim, "killed")) == ROWS - kept, "only what is missing is sent"
    assert ask(ended.db, "SELECT count(*) FROM runs") == [(1,)]
    assert not ended.db.with_name("s.duckdb.spool").exists()


def test_kill_9_leaves_what_was_committed_and_takes_server_scorer_and_workers_with_it(
    broken: dict[str, Broken], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = broken["simulated"]
    assert ended.process.returncode == -signal.SIGKILL
    assert len(ended.children) >= 3, "server, scorer, worker"
    monkeypatch.chdir(ended.folder)
    assert main([*SIMULATED, "--metrics-port", "0", "--db", "s.duckdb", "--skip-cached", "--dry-run"]) == 0
    assert "llama3.2:1b tools c=1: resumed: run " in capsys.readouterr().out
    rows = ask(ended.db, ALL_ROWS)
    assert 3 <= len(ended.before) <= len(rows) < 40
    assert set(ended.before) <= set(rows)
    assert len({row[0] for row in rows}) == len(rows)

"""What becomes of a run, by records that are made up: its figures and state, what is kept, shown and continued."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY
from xml.etree import ElementTree

import duckdb
import pytest

from loadgen.engine import LoadFailed, Orders, Readings
from loadgen.simulator import Simulator
from loadgen.types import NS, Request, RequestRecord
from loadgen.wire.access import Access
from structbench import __version__
from structbench.calibration import kept as calibrated_machine
from structbench.calibration.kept import Calibration
from structbench.cli import main
from structbench.errors import BadInput
from structbench.gates.slo import CellResult, Gate
from structbench.options import LoadOptions
from structbench.reports.summary import to_json
from structbench.run import runner
from structbench.run.display import Display
from structbench.run.hardware import hardware
from structbench.run.runner import Stop, Summary
from structbench.store import Store
from structbench.suites.generated import TextShape
from structbench.types import Note
from tests.support.gateway import gateway
from tests.support.loads import MODELS, ask, listening, load, small, until
from tests.support.made_up_runs import BEGAN_NS, Script, Shown, answered, made_up, record, these


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(MODELS) as server:
        yield server


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "s.duckdb"
    with Store(path):
        pass
    return path


@pytest.fixture
def db(empty: Path, tmp_path: Path) -> Path:
    """A database of one's own, as it is before the first load."""
    return Path(shutil.copy(empty, tmp_path))


class Told(Display):
    """A display that remembers what is said besides the progress."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def print(self, text: str) -> None:
        self.lines.append(text)

    def _update(self, cell: object) -> None:
        pass


def one(db: Path, sql: str) -> dict[str, Any]:
    """The only row."""
    with duckdb.connect(db, read_only=True) as con:
        found = con.execute(sql)
        names = [column[0] for column in found.description or ()]
        (row,) = found.fetchall()
    return dict(zip(names, row, strict=True))


def change(db: Path, sql: str) -> bool:
    """Whether it could be done now, while a load has the file open from time to time."""
    try:
        with duckdb.connect(db) as con:
            con.execute(sql)
    except duckdb.Error:
        return False
    return True


# --- a run with a request that was dropped and one that died with its worker


@pytest.fixture(scope="module")
def lossy(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("lossy")
    # The last one neither was sent nor ended, as little as the one that was lost.
    records = [record(0), record(1), record(2, "worker_died", sent_ns=None, end_ns=None), record(3),
               record(4, end_ns=BEGAN_NS + 5 * NS), record(5, "dropped", sent_ns=None, end_ns=None)]  # fmt: skip
    options = small(
        sim, folder / "s.duckdb", requests=6, rate=[10.0], skip_cached=True, label="mine", goodput="e2e<1", grace=3.0,
        slo=["error_rate<100%", "requests_per_s>0"], junit=folder / "out.xml", warmup=2,
    )  # fmt: skip
    shown, display, reported = Shown(), Told(), list[Summary]()
    began = time.monotonic()
    with made_up(these(*records), shown) as engine:
        summary = load(options, display=display, report=reported.append)
        took_s = time.monotonic() - began
    first = Path(shutil.copy(options.db, folder / "first.duckdb"))
    outcomes = [row["outcome"] for row in summary.records()]
    with made_up(answered, shown) as engine_again:
        again = load(replace(options, goodput=None), display=display)
        skipped = load(replace(options, goodput=None), display=display)
    return SimpleNamespace(**locals())


def test_figures_are_of_the_time_from_the_common_start_to_the_last_end(lossy: SimpleNamespace) -> None:
    (row,) = lossy.summary.rows
    assert (row["requests"], row["completed"], row["errors"], row["dropped"], row["planned"]) == (6, 4, 2, 1, 6)
    assert (row["duration_s"], row["requests_per_s"], row["tokens_per_s"], row["goodput"]) == (5.0, 0.8, 2.4, 0.6)
    assert row["correct_goodput"] == 0.6
    assert one(lossy.first, "SELECT duration_s FROM segments") == {"duration_s": 5.0}


def test_losses_are_counted_and_degrade_a_run_without_failing_it(lossy: SimpleNamespace) -> None:
    (row,) = lossy.summary.rows
    assert (row["status"], row["verdict"]) == ("complete", "degraded")
    assert row["verdict_reason"] == "1 requests were lost when a worker process died"
    assert (lossy.summary.exit_code, lossy.summary.failures, lossy.summary.interrupted) == (0, [], False)
    assert [gate.outcome for gate in lossy.summary.gates] == ["met", "met"]
    assert lossy.outcomes == ["correct", "correct", "worker_died", "correct", "correct", "dropped"]


@pytest.mark.slow
def test_notes_are_kept_shown_and_given_as_json_and_a_run_that_goes_on_is_judged_as_a_whole(
    sim: Simulator, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = small(sim, db, requests=4, skip_cached=True)
    records = [record(0, output_tokens=None), record(1), record(2, "cancelled"), record(3)]
    display = Told()
    with made_up(these(*records)):
        first = load(options, display=display)
    said = "1 of 3 completed answers came without a token count: no tokens/s of the run, no TPOT of these"
    assert first.rows[0]["notes"] == [Note("uncounted", said, share=1 / 3)]
    assert display.lines[-1] == f"sim:fast numbers c=1: note: {said}"
    with made_up(these(record(2, output_tokens=None))):
        (row,) = load(options).rows
    said = said.replace("1 of 3", "2 of 4")
    assert row["notes"] == [Note("uncounted", said, share=0.5)]
    assert one(db, "SELECT * FROM notes") == {
        "run_id": row["run_id"], "kind": "uncounted", "share": 0.5, "at_s": None, "text": said,
    }  # fmt: skip
    assert to_json([row], 1.0)["runs"][0]["notes"] == [{"kind": "uncounted", "text": said, "share": 0.5, "at_s": None}]
    assert main(["runs", "--db", str(db), "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["notes"] == to_json([row], 1.0)["runs"][0]["notes"]


def test_the_run_says_what_was_measured_and_where(lossy: SimpleNamespace) -> None:
    run = one(lossy.first, "SELECT * FROM runs")
    assert re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{8}", run["run_id"])
    assert (run["model"], run["suite"], run["load_kind"], run["rate"]) == ("sim:fast", "numbers", "open", 10.0)
    assert (run["label"], run["status"], json.loads(run["goodput_limits"])) == ("mine", "complete", {"e2e_s": 1.0})
    assert run["started_at"] <= run["finished_at"]
    environment = json.loads(run["environment"])
    assert "--rate" in environment.pop("command")
    assert environment == {
        **hardware(), "server_is_here": True, "model_on_gpu": 1.0,
        "structbench": __version__, "python": platform.python_version(), "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "options": {"workers": 1, "engine": "local", "grace": 3.0, "metrics_port": 0, "simulate": False,
                    "text": asdict(TextShape())},
    }  # fmt: skip
    segment = one(lossy.first, "SELECT * FROM segments")
    assert segment.pop("started_at") <= segment.pop("finished_at")
    assert segment.pop("model_load_s") >= 0
    assert segment == {
        "run_id": run["run_id"], "segment": 0, "duration_s": 5.0, "planned": 6, "workers": 1, "status": "complete",
        "warmup_requests": 2, "simulated": False, "steady_from_ns": None, "steady_to_ns": None, "away_s": None,
        "token_limit": None, "nodes": None,
    }  # fmt: skip
    assert one(lossy.first, "SELECT run_id, gaps FROM run_gaps") == {"run_id": run["run_id"], "gaps": 4}


def test_the_summary_is_whole_when_it_is_reported(lossy: SimpleNamespace) -> None:
    assert lossy.reported == [lossy.summary]
    assert 0 < lossy.summary.total_s <= lossy.took_s
    assert lossy.summary.db == str(lossy.options.db)


def test_what_died_with_its_worker_is_sent_again_and_what_was_dropped_is_not(lossy: SimpleNamespace) -> None:
    (row,), (before,) = lossy.again.rows, lossy.summary.rows
    assert [request.index for request in lossy.engine_again.sent] == [2]
    assert (row["run_id"], before["cache"], row["cache"]) == (before["run_id"], "new", "resumed")
    assert (row["requests"], row["completed"], row["errors"], row["dropped"]) == (6, 5, 1, 1)
    assert (row["status"], lossy.again.exit_code) == ("complete", 0)


def test_a_complete_run_is_skipped_and_judged_again(lossy: SimpleNamespace) -> None:
    (row,), (before,) = lossy.skipped.rows, lossy.again.rows
    assert len(lossy.engine_again.given) == 1, "nothing was sent"
    assert row == {**before, "cache": "skipped"}, "the limits of --goodput too, unless there are others"
    is_invalid = before["verdict"] == "invalid"  # on a busy machine
    again = ", but its measurement is invalid: without --skip-cached it is made again" if is_invalid else ""
    assert lossy.display.lines[-1:] == [
        f"sim:fast numbers rate=10/s constant: skipped: run {before['run_id']} is complete{again}"
    ]
    assert [gate.outcome for gate in lossy.skipped.gates] == ["met", "met"]
    assert (lossy.skipped.exit_code, lossy.skipped.pairs) == (0, [])


def test_look_ups_are_kept_for_the_share_of_hits(lossy: SimpleNamespace) -> None:
    (row,) = lossy.summary.rows
    found = ask(lossy.options.db, "SELECT result, config_hash, run_id FROM lookups ORDER BY looked_up_at")
    assert found == [(result, row["config_hash"], row["run_id"]) for result in ("miss", "partial", "hit")]


def test_what_is_shown_of_the_cells(lossy: SimpleNamespace) -> None:
    shown, run_id = lossy.shown, lossy.summary.rows[0]["run_id"]
    labels = shown.begun[0][0]
    assert (labels.model, labels.label, labels.load) == ("sim:fast", "mine", "rate=10/s constant")
    assert shown.begun == [(labels, run_id, 6), (labels, run_id, 1)]
    assert shown.caches == [(labels, "miss"), (labels, "partial"), (labels, "hit")]
    assert shown.states == [{"running": 1}, {"complete": 1}, {"running": 1}, {"complete": 1}, {"skipped": 1}]
    assert shown.ended == [(labels, "degraded"), (labels, lossy.again.rows[0]["verdict"])]


def test_the_junit_file_has_each_slo_and_the_run(lossy: SimpleNamespace) -> None:
    (suite,) = ElementTree.parse(lossy.options.junit).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "0", "0")


# --- broken off and continued


def stopped_after(n: int, stop: Stop, times: int = 1) -> Script:
    """Somebody asks for the end after so many records of the load; what is in flight is cancelled at the second."""

    def script(requests: Iterator[Request], orders: Orders, _readings: Readings) -> Iterator[RequestRecord]:
        for request in requests:
            if orders.stop:
                if orders.hurry:
                    yield record(request.index, "cancelled")
                return
            yield record(request.index, "http" if request.index == 0 else None)
            n_done = request.index + 1
            if n_done == n:
                for _ in range(times):
                    stop.ask()

    return script


@pytest.fixture(scope="module")
def broken_off(sim: Simulator, empty: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two cells, the first broken off in its middle; then that one alone, twice in vain; then both once more."""
    db = Path(shutil.copy(empty, tmp_path_factory.mktemp("broken")))
    options = small(sim, db, models=["sim:fast", "deaf"], label="first", slo=["correct>=50%"])
    stop, shown = Stop(), Shown()
    with made_up(stopped_after(3, stop, times=2), shown) as engine:
        summary = load(replace(options, embed_model="sim:embed"), stop=stop)
    tables = {name: ask(db, f"SELECT * FROM {name}") for name in ("requests", "segments", "run_gaps", "lookups")}
    run = one(db, "SELECT * FROM runs")
    planned = load(replace(options, skip_cached=True, dry_run=True)).planned
    options = replace(options, skip_cached=True, label="second")
    alone = replace(options, models=["sim:fast"], max_error_rate=0.2)
    display, shown_left = Told(), Shown()
    with pytest.MonkeyPatch.context() as patch, made_up(shown=shown_left) as engine_left:
        patch.setattr(Store, "claim", lambda *_: False)
        left_out = load(alone, display=display)
    with pytest.MonkeyPatch.context() as patch, made_up():
        at_once = Stop()
        patch.setattr("loadgen.api.ollama_server.load_model", lambda *_: at_once.ask())
        not_begun = load(alone, stop=at_once)
    with made_up(these(record(3, "http"))):
        failed = load(alone)
    shown_again, display_again, seen = Shown(), Told(), dict[str, Any]()

    def look_and_answer(requests: Iterator[Request], orders: Orders, readings: Readings) -> Iterator[RequestRecord]:
        while len(seen.get("segments", ())) < 3:
            time.sleep(0.3)  # rows come into the database about once a second
            with contextlib.suppress(duckdb.Error):  # the load has the file open
                seen["runs"] = ask(db, "SELECT run_id, status, verdict, verdict_reason, finished_at FROM runs")
                seen["segments"] = ask(db, "SELECT segment, status FROM segments ORDER BY 1")
        yield from answered(requests, orders, readings)

    with made_up(look_and_answer, shown_again) as engine_again:
        resumed = load(options, display=display_again)
    return SimpleNamespace(**locals())


def test_what_is_broken_off_is_interrupted_and_the_next_cell_does_not_begin(broken_off: SimpleNamespace) -> None:
    summary = broken_off.summary
    assert (summary.exit_code, summary.interrupted, summary.failures) == (130, True, [])
    (row,) = summary.rows
    assert (row["model"], row["status"], row["requests"], row["completed"]) == ("sim:fast", "interrupted", 4, 2)
    assert row["semantic_similarity"] is None, "nobody waits for that any more"
    assert len(broken_off.engine.given) == 1
    assert broken_off.shown.states == [{"waiting": 1, "running": 1}, {"waiting": 1, "interrupted": 1}]
    assert {name: len(rows) for name, rows in broken_off.tables.items()} == {
        "requests": 4, "segments": 1, "run_gaps": 0, "lookups": 0
    }  # fmt: skip
    assert (broken_off.run["status"], broken_off.run["planned"]) == ("interrupted", 8)
    assert broken_off.run["finished_at"] is not None


def test_an_interrupted_cell_and_one_that_never_began_pass_nothing(broken_off: SimpleNamespace) -> None:
    assert [(gate.cell, gate.outcome) for gate in broken_off.summary.gates] == [
        ("sim:fast numbers c=1", "not decided"), ("deaf numbers c=1", "not decided")
    ]  # fmt: skip
    texts = [gate.text for gate in broken_off.summary.gates]
    assert "the run is interrupted" in texts[0]
    assert texts[1] == "the cell was not run"


def test_a_dry_run_tells_what_is_missing(broken_off: SimpleNamespace) -> None:
    assert broken_off.planned == [
        f"sim:fast numbers c=1: resumed: run {broken_off.run['run_id']} has 3 of 8 requests",
        "deaf numbers c=1: new: no run of this config yet",
    ]


def test_a_run_that_another_process_continues_is_left_alone(broken_off: SimpleNamespace) -> None:
    left_out = broken_off.left_out
    assert (left_out.exit_code, left_out.rows, broken_off.engine_left.given) == (99, [], []), "its SLO is not judged"
    run = f"another process is now continuing run {broken_off.run['run_id']}"
    assert broken_off.display.lines == [f"sim:fast numbers c=1: skipped: {run}"]
    assert broken_off.shown_left.states == [{"skipped": 1}]


def test_a_run_that_is_to_go_on_and_does_not_begin_is_not_in_the_summary(broken_off: SimpleNamespace) -> None:
    assert (broken_off.not_begun.exit_code, broken_off.not_begun.rows) == (130, [])


def test_errors_before_a_break_count_against_the_limit_after_it(broken_off: SimpleNamespace) -> None:
    assert broken_off.failed.failures == [
        "sim:fast numbers c=1: 2 of 8 requests failed, more than --max-error-rate 0.2 allows"
    ]
    assert (broken_off.failed.exit_code, broken_off.failed.rows[0]["status"]) == (1, "interrupted")


def test_what_was_cancelled_and_what_was_never_sent_is_sent_when_it_goes_on(broken_off: SimpleNamespace) -> None:
    sent = [request.index for request in broken_off.engine_again.sent]
    assert sent == [*range(4, 8), *range(8)], "four of the first cell, all of the second"
    first, second = broken_off.resumed.rows
    assert [(row["cache"], row["status"], row["requests"], row["errors"]) for row in (first, second)] == [
        ("resumed", "complete", 8, 2), ("new", "complete", 8, 0)
    ]  # fmt: skip
    assert first["run_id"] == broken_off.run["run_id"]
    segments = f"SELECT segment, status, planned FROM segments WHERE run_id = '{first['run_id']}' ORDER BY 1"
    assert ask(broken_off.db, segments) == [(0, "interrupted", 8), (1, "interrupted", 5), (2, "complete", 4)]
    assert ask(broken_off.db, "SELECT count(*) FROM run_gaps") == [(2,)]
    assert [(labels.model, result) for labels, result in broken_off.shown_again.caches] == [
        ("sim:fast", "partial"), ("deaf", "miss")
    ]  # fmt: skip
    assert [planned for _, _, planned in broken_off.shown_again.begun] == [4, 8]
    assert broken_off.shown_again.states == [
        {"waiting": 1, "running": 1}, {"waiting": 1, "complete": 1}, {"running": 1, "complete": 1}, {"complete": 2}
    ]  # fmt: skip


def test_a_run_that_goes_on_is_running_without_a_verdict_and_keeps_its_beginning(broken_off: SimpleNamespace) -> None:
    ((run_id, status, *rest),) = broken_off.seen["runs"]
    assert (run_id, status, rest) == (broken_off.run["run_id"], "running", [None, None, None])
    assert broken_off.seen["segments"] == [(0, "interrupted"), (1, "interrupted"), (2, "running")]
    now = one(broken_off.db, f"SELECT * FROM runs WHERE run_id = '{run_id}'")
    names = ("label", "started_at", "environment", "planned")
    assert [now[name] for name in names] == [broken_off.run[name] for name in names]
    assert now["finished_at"] > broken_off.run["finished_at"]
    assert one(broken_off.db, f"SELECT label FROM runs WHERE run_id <> '{run_id}'") == {"label": "second"}


def test_a_second_load_passes_what_the_first_could_not(broken_off: SimpleNamespace) -> None:
    assert [gate.outcome for gate in broken_off.resumed.gates] == ["met", "met"]
    assert (broken_off.resumed.exit_code, broken_off.display_again.lines) == (0, [])


def test_records_come_run_by_run_in_the_order_of_the_requests(broken_off: SimpleNamespace) -> None:
    found = [(row["run_id"], row["request_index"]) for row in broken_off.resumed.records("run_id, request_index")]
    assert found == sorted(found)
    assert len(found) == 16


# --- bound by time


@pytest.mark.parametrize(
    ("requests", "stopped_s", "status", "planned"), [(None, None, "complete", 5), (100, 1, "interrupted", 100)]
)
def test_a_run_bound_by_time_has_planned_what_it_reached_once_the_time_is_up(
    sim: Simulator, db: Path, requests: int | None, stopped_s: int | None, status: str, planned: int
) -> None:
    def script(_requests: Iterator[Request], _orders: Orders, readings: Readings) -> Iterator[RequestRecord]:
        yield from (record(0), record(1), record(4))
        readings.stopped_ns = None if stopped_s is None else BEGAN_NS + stopped_s * NS

    with made_up(script):
        (row,) = load(small(sim, db, requests=requests, duration=2.0)).rows
    assert (row["status"], row["planned"], row["requests"], row["duration_s"]) == (status, planned, 3, 0.5)
    assert ask(db, "SELECT planned FROM segments") == [(requests,)]


@pytest.fixture(scope="module")
def plain(sim: Simulator, empty: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two conversations that end with their first turn, without a display, and held for a while."""
    db = Path(shutil.copy(empty, tmp_path_factory.mktemp("plain")))
    stop, slept, out = Stop(), list[float](), io.StringIO()
    silent: dict[str, Any] = {"output_text": "no call"}

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            stop.ask()
        assert len(slept) < 10, "it holds on though it was told not to"

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(runner, "sleep", sleep)
        with listening(sim) as heard, made_up(these(record(0, **silent), record(2, **silent))):
            summary = load(small(sim, db, suites=["turns"], requests=4, hold=2.0), stop=stop)
    return SimpleNamespace(summary=summary, said=out.getvalue(), slept=slept, heard=heard)


def test_a_run_of_a_number_has_planned_that_number_though_its_last_turn_never_arose(plain: SimpleNamespace) -> None:
    (row,) = plain.summary.rows
    assert (row["status"], row["planned"], row["requests"]) == ("complete", 4, 2)


def test_before_a_load_the_server_is_asked_for_nothing_but_the_model(plain: SimpleNamespace) -> None:
    assert [(path, body["model"], body.get("prompt", "")) for path, body in plain.heard] == [
        ("/api/generate", "sim:fast", "")
    ]


def test_without_a_display_nothing_is_said(plain: SimpleNamespace) -> None:
    assert plain.said == ""


def test_a_hold_ends_when_somebody_asks_for_it_and_looks_ten_times_a_second(plain: SimpleNamespace) -> None:
    assert (plain.slept, plain.summary.exit_code) == ([0.1] * 3, 0)


# --- failures


def fails_first(requests: Iterator[Request], _orders: Orders, _readings: Readings) -> Iterator[RequestRecord]:
    """Only with the model ``deaf``."""
    for request in requests:
        if request.model == "deaf":
            raise LoadFailed("worker processes died 6 times in a row")
        yield record(request.index)


def test_a_cell_that_fails_does_not_keep_the_next_from_running(sim: Simulator, db: Path) -> None:
    shown = Shown()
    options = small(sim, db, models=["deaf", "sim:fast"], slo=["error_rate<=0"])
    with made_up(fails_first, shown):
        summary = load(options)
    assert [row["model"] for row in summary.rows] == ["deaf", "sim:fast"]
    assert [row["status"] for row in summary.rows] == ["interrupted", "complete"]
    assert summary.failures == ["deaf numbers c=1: worker processes died 6 times in a row"]
    assert (summary.exit_code, [gate.outcome for gate in summary.gates]) == (1, ["not decided", "met"])
    assert [(labels.model, verdict) for labels, verdict in shown.ended] == [("deaf", "invalid"), ("sim:fast", ANY)]
    assert shown.states[1] == {"waiting": 1, "interrupted": 1}
    assert ask(db, "SELECT count(*) FROM lookups") == [(0,)], "nobody asked for what is there"


@pytest.mark.parametrize("failing", [True, False])
def test_a_server_that_is_gone_between_two_cells_is_a_failure_told_once(db: Path, failing: bool) -> None:
    server = Simulator(MODELS).__enter__()

    def goes_away(requests: Iterator[Request], orders: Orders, readings: Readings) -> Iterator[RequestRecord]:
        if len(engine.given) > 1:
            yield from (record(request.index, "connect") for request in requests)
            return
        yield from answered(requests, orders, readings)
        server.__exit__()
        if failing:
            raise LoadFailed("told")

    display = Told()
    with made_up(goes_away) as engine:
        summary = load(small(server, db, models=["deaf", "sim:fast"], patience=0.0), display=display)
    assert summary.exit_code == 1
    if failing:
        assert (len(engine.given), summary.failures) == (1, ["deaf numbers c=1: told"])
        assert [row["model"] for row in summary.rows] == ["deaf"]
        return
    (failure,) = summary.failures
    assert "no longer answers: start it again and continue with --skip-cached" in failure
    assert [row["status"] for row in summary.rows] == ["complete", "interrupted"]
    (line,) = display.lines
    assert line.startswith("sim:fast numbers c=1: loading the model failed: ")


def test_what_breaks_a_load_leaves_it_to_be_continued_and_the_file_written(
    sim: Simulator, db: Path, tmp_path: Path
) -> None:
    def breaks(requests: Iterator[Request], orders: Orders, readings: Readings) -> Iterator[RequestRecord]:
        yield from answered(requests, orders, readings)
        raise RuntimeError("our own bug")

    options = small(sim, db, concurrency=[1, 2], slo=["correct>0"], junit=tmp_path / "out.xml")
    with made_up(breaks), pytest.raises(RuntimeError, match="our own bug"):
        load(options)
    assert ask(options.db, "SELECT status, (SELECT count(*) FROM requests) FROM runs") == [("interrupted", 8)]
    assert ask(options.db, "SELECT status, duration_s FROM segments") == [("interrupted", 0.8)]
    suites = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert [(suite.get("tests"), suite.get("errors")) for suite in suites] == [("2", "2")] * 2


def test_who_asks_for_the_end_while_a_model_loads_does_not_wait_for_it(
    sim: Simulator, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, shown = Stop(), Shown()
    monkeypatch.setattr("loadgen.api.ollama_server.load_model", lambda *_: stop.ask())
    options = small(sim, db, concurrency=[1, 2], embed_model="sim:embed")
    with made_up(shown=shown) as engine:
        summary = load(options, stop=stop)
    assert (summary.exit_code, summary.rows, engine.given) == (130, [], [])
    assert shown.states == [{"waiting": 1, "running": 1}, {"waiting": 1, "interrupted": 1}]
    assert ask(options.db, "SELECT count(*) FROM runs") == [(0,)]


@pytest.mark.slow
def test_a_run_that_somebody_deletes_meanwhile_is_not_in_the_summary(sim: Simulator, db: Path) -> None:
    db = db
    with made_up():
        (kept,) = load(small(sim, db)).rows

    def deleted(requests: Iterator[Request], orders: Orders, readings: Readings) -> Iterator[RequestRecord]:
        until(lambda: change(db, f"DELETE FROM runs WHERE run_id = '{kept['run_id']}'"), "the file is free")
        yield from answered(requests, orders, readings)

    with made_up(deleted):
        summary = load(small(sim, db, concurrency=[1, 2], skip_cached=True))
    assert [row["load"] for row in summary.rows] == ["c=2"]


# --- what is said before, and how it ends


def test_stop_breaks_off_only_what_loses_nothing() -> None:
    stop = Stop()
    with pytest.raises(KeyboardInterrupt), stop.interruptible():
        stop.ask()
    stop.ask()
    with pytest.raises(KeyboardInterrupt):
        stop.ask()


@pytest.mark.parametrize(
    ("in_flight", "said"),
    [
        (3, ["stopping: 3 requests in flight may take 7 s to finish (--grace); again: stop now",
             "stopping now: what is in flight is cancelled"]),
        (0, ["stopping: what has come is stored and judged; twice more: stop now",
             "stopping: what has come is stored and judged; again: stop now"]),
        (None, ["stopping: what has come is stored and judged; twice more: stop now",
                "stopping: what has come is stored and judged; again: stop now"]),
    ],
)  # fmt: skip
def test_stop_says_what_is_waited_for(in_flight: int | None, said: list[str]) -> None:
    heard: list[str] = []
    segment: Any = SimpleNamespace(
        orders=Orders(), readings=SimpleNamespace(in_flight=in_flight),
        services=SimpleNamespace(settings=SimpleNamespace(grace_s=7.0)),
    )  # fmt: skip
    stop = Stop()
    stop.say = heard.append
    with contextlib.nullcontext() if in_flight is None else stop.watching(segment):
        for number in (1, 2):
            stop.ask()
            until(lambda number=number: len(heard) == number, "a line")  # type: ignore[misc]
        with pytest.raises(KeyboardInterrupt):
            stop.ask()
    assert heard == said


def test_what_is_broken_off_at_once_needs_no_words() -> None:
    stop, heard = Stop(), list[str]()
    stop.say = heard.append
    with pytest.raises(KeyboardInterrupt), stop.interruptible():
        stop.ask()
    assert heard == []


def test_who_waits_for_a_server_that_is_away_does_not_wait_for_its_return(
    sim: Simulator, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, asked = Stop(), list[str]()

    def away(address: str, _access: Access) -> bool:
        asked.append(address)
        if len(asked) == 2:
            stop.ask()
            raise AssertionError("it is not broken off")
        return False

    monkeypatch.setattr("loadgen.api.ollama_server.answers", away)
    with made_up(these(*(record(index, "connect") for index in range(4)))):
        summary = load(small(sim, db, patience=60.0), stop=stop)
    assert (summary.exit_code, summary.failures, len(asked)) == (130, [], 2)
    assert ask(db, "SELECT status FROM runs") == [("interrupted",)]


def test_stop_asks_the_load_first_and_hurries_it_then() -> None:
    class Segment:
        class orders:
            stop = hurry = False

    segment: Any = Segment()
    stop = Stop()
    with stop.watching(segment):
        assert not segment.orders.stop
        stop.ask()
        assert (segment.orders.stop, segment.orders.hurry) == (True, False)
        stop.ask()
        assert segment.orders.hurry
    segment.orders.stop = False
    with pytest.raises(KeyboardInterrupt):
        stop.ask()
    assert not segment.orders.stop, "a load that has ended is not spoken to"
    late: Any = Segment()
    late.orders.stop = late.orders.hurry = False
    with stop.watching(late):
        assert late.orders.stop, "asked before it began"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, 0), ({"gates": ["met", "skip"]}, 0), ({"gates": ["met", "not met"]}, 99), ({"gates": ["not decided"]}, 99),
        ({"gates": ["not met"], "failures": ["told"]}, 1), ({"failures": ["told"], "interrupted": True}, 130),
    ],
)  # fmt: skip
def test_the_exit_code_is_that_of_the_worst(given: dict[str, Any], code: int) -> None:
    gates = [Gate("a cell", "error_rate<=0", word, None, 0, "") for word in given.pop("gates", [])]
    summary = Summary(outcomes=[CellResult("a cell", None, gates), CellResult("another")], **given)
    assert summary.exit_code == code
    assert (summary.total_s, summary.interrupted) == (0.0, "interrupted" in given)


def test_options_are_checked_before_anybody_is_asked() -> None:
    with pytest.raises(BadInput, match="--requests 0"):
        load(LoadOptions(requests=0, host="127.0.0.1:9"))


@pytest.mark.parametrize("how", ["dry_run", "explain"])
def test_what_is_only_planned_sends_nothing_and_makes_no_file(sim: Simulator, tmp_path: Path, how: str) -> None:
    options = small(sim, tmp_path / "s.duckdb", **{how: True})
    with made_up() as engine:
        summary = load(options)
    cell, *more = summary.planned
    assert cell == f"sim:fast numbers c=1: new: {options.db} does not exist yet"
    assert len(more) == 3 * (how == "explain"), "how much is sent, by what the model is known, and how many workers"
    assert (engine.given, list(tmp_path.iterdir()), summary.rows, summary.records()) == ([], [], [], [])
    assert (summary.db, summary.exit_code) == (str(options.db), 0)


# --- what each cell is measured with


@pytest.mark.slow
def test_schemas_told_in_two_ways_are_paired(sim: Simulator, db: Path) -> None:
    answer: dict[str, Any] = {
        "output_text": '{"name": "Maria Lindqvist", "age": 34, "email": "maria.lindqvist@example.org"}'
    }
    options = small(sim, db, suites=["json"], requests=1, structured=["format", "prompt"])
    with made_up(these(record(0, **answer))):
        summary = load(options)
    (pair,) = summary.pairs
    assert [row["run_id"] for row in summary.rows] == [pair["format_run_id"], pair["prompt_run_id"]]
    assert (pair["correct"]["n"], pair["correct"]["before"], pair["correct"]["after"]) == (1, 1.0, 1.0)


@pytest.mark.parametrize(("endpoint", "concurrency"), [("chat", [1, 2]), ("generate", [1])])
@pytest.mark.slow
def test_prompts_are_as_long_as_asked_in_each_models_own_tokens(
    sim: Simulator, db: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str, concurrency: list[int]
) -> None:
    """Of a tokenizer that makes 20 tokens of the template and 3 of each word, and once does not tell."""
    asked: list[tuple[Any, ...]] = []

    def prompt_tokens(address: str, model: str, prompt: str, options: Any, chat: bool, *_: Access) -> int | None:
        asked.append((address, model, options, chat))
        return None if len(asked) == 1 else 20 + 3 * len(prompt.split())

    monkeypatch.setattr("loadgen.api.ollama_server.prompt_tokens", prompt_tokens)
    options = small(
        sim, db, suites=["text"], requests=2, concurrency=concurrency, endpoint=endpoint,
        mean_input_tokens=620.0, stddev_input_tokens=0.0, option=["top_k=3"],
    )  # fmt: skip
    with made_up() as engine:
        load(options)
    prompts = [request.prompt or request.messages[0]["content"] for request in engine.sent]
    assert [len(prompt.split()) for prompt in prompts] == [pytest.approx(200, abs=3)] * 2 * len(concurrency)
    once = [(sim.url, "sim:fast", {"top_k": 3}, endpoint == "chat")] * 3
    assert asked == once, "a model is asked once, however many cells it has"


# --- answers compared with their references


@pytest.mark.slow
def test_why_answers_were_not_compared_stands_at_each_run(
    sim: Simulator, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = small(sim, db, requests=1, embed_model="sim:fast")
    with made_up():
        summary = load(options)
        assert summary.exit_code == 0
        (warning,) = summary.rows[0]["warnings"]
        assert warning.startswith("no semantic similarity: sim:fast makes no embeddings: ")
        monkeypatch.setattr(
            "loadgen.api.ollama_server.embed", lambda _address, _model, texts, **_: [[0.0] for _ in texts]
        )
        assert summary.rows[0]["goodput"] is None
        (row,) = load(replace(options, skip_cached=True, embed_model="sim:embed", goodput="e2e<1")).rows
        assert row["goodput"] == row["requests_per_s"], "a run that is skipped is judged by the limits of this call"
        assert row["warnings"] == [
            "sim:embed returned zero vectors for 1 text: no semantic similarity for their answers"
        ]
        asked: list[tuple[str, str]] = []
        stop = Stop()

        def embed(address: str, model: str, texts: list[str], **_: Access) -> list[list[float]]:
            asked.append((address, model))
            if model == "sim:embed":
                return [[1.0, 2.0] for _ in texts]
            stop.ask()
            raise AssertionError("it is not broken off")

        monkeypatch.setattr("loadgen.api.ollama_server.embed", embed)
        (row,) = load(replace(options, skip_cached=True, embed_model="sim:embed")).rows
        assert ("warnings" in row, row["semantic_similarity"]) == (False, pytest.approx(1))
        assert asked == [(sim.url, "sim:embed")]
        broken_off = load(replace(options, skip_cached=True, embed_model="deaf"), stop=stop)
    assert (broken_off.exit_code, len(asked), "warnings" in broken_off.rows[0]) == (130, 2, False)


@pytest.mark.slow
def test_a_model_that_a_gateway_keeps_to_itself_costs_its_own_cells_only(sim: Simulator, db: Path) -> None:
    def refuses(path: str, _headers: Mapping[str, str], body: bytes) -> int | None:
        return 403 if path == "/api/generate" and b"mixed" in body else None

    with gateway(sim.url, refuses) as front, made_up():
        summary = load(replace(small(sim, db, models=["sim:fast", "mixed"]), host=front.url))
    assert summary.exit_code == 1
    assert [row["model"] for row in summary.rows] == ["sim:fast"]
    (failure,) = summary.failures
    assert failure.startswith(f"mixed numbers c=1: {front.url} answers HTTP 403: ")


@pytest.mark.parametrize(("streams", "warned"), [(9, False), (8, True), (None, False)])
def test_a_load_beyond_what_this_machine_was_calibrated_for_is_warned_once_and_goes_on(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streams: int | None, warned: bool
) -> None:
    able = streams and Calibration(streams=streams, tokens_per_s=50, rate=9, streams_gave_out=None, rate_gave_out=None,
                                   calibrated_at="2026-11-26T19:00:00Z")  # fmt: skip
    monkeypatch.setattr(calibrated_machine, "kept", lambda: able)
    display = Told()
    summary = load(small(sim, tmp_path / "s.duckdb", concurrency=[9, 4], requests=9, dry_run=True), display=display)
    assert len(summary.planned) == 2
    assert [line.split(":")[0] for line in display.lines] == ["9 streams"] * warned
    display = Told()
    load(small(sim, tmp_path / "s.duckdb", concurrency=[9], requests=9, dry_run=True, engine="ray"), display=display)
    assert display.lines == [], "other machines send"

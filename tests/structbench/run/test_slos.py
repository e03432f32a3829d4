"""--slo, --goodput, --abort-on-slo and --junit on real loads of the simulated server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from loadgen.simulator import Simulator
from loadgen.types import ClosedLoop
from structbench.cli import main
from structbench.gates.abort import AbortWatch
from structbench.gates.expressions import parse_slo
from structbench.gates.slo import CellResult, judge_all
from structbench.options import LoadOptions
from structbench.run import runner
from structbench.run.runner import Stop, Summary
from structbench.run.settings import settings_of
from structbench.store import Reader, ending
from structbench.suites.answer_book import answer_book
from structbench.verdict import Verdict, judge
from tests.support.comparisons import database, requests
from tests.support.loads import MODELS, ask, inferences, load, small

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _measured_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes runs invalid, and then nothing passes: not what is tested here."""
    monkeypatch.setattr(ending, "judge", lambda facts: Verdict("valid") if facts["completed"] else judge(facts))


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    slow = replace(MODELS["mixed"], prompt_tokens_per_s=400.0)  # far slower than scores come
    with Simulator({**MODELS, "slow-mixed": slow}, answers=answer_book()) as server:
        yield server


def outcomes(summary: Summary) -> dict[tuple[str, str], str]:
    return {(gate.cell.split()[1], gate.slo): gate.outcome for gate in summary.gates}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Three wrong answers of three; and eight right ones, of which half came in time."""
    right = [{**row, "ttft_s": 0.1 if index < 4 else 2.0} for index, row in enumerate(requests(8))]
    path = database(tmp_path_factory.mktemp("slos") / "s.duckdb", wrong=(requests(3, wrong=range(3)), {}),
                    right=(right, {"goodput_limits": {"ttft_s": 1.0}}))  # fmt: skip
    with Reader(path) as opened:
        yield opened


def watched(reader: Reader, run: str | None, slo: str, missing: Sequence[int] | None, **more: Any) -> AbortWatch | None:
    planned: Any = SimpleNamespace(
        cell=SimpleNamespace(requests=10, load=ClosedLoop(concurrency=1)), missing=missing,
        continued=None if run is None else SimpleNamespace(run_id=run),
    )  # fmt: skip
    settings = settings_of(LoadOptions(slo=[slo], **{"abort_on_slo": True, **more}))
    return runner.abort_watch(settings, planned, reader.query)


@pytest.mark.parametrize(
    ("run", "missing", "slo", "goodput", "seen", "lost"),
    [
        ("wrong", [2, *range(3, 10)], "correct>=85%", None, 2, True),
        ("wrong", [1, 2, *range(3, 10)], "correct>=85%", None, 1, False), ("wrong", None, "correct>70%", None, 3, True),
        ("right", None, "correct>=85%", None, 8, False), (None, None, "correct>1", None, 0, False),
        ("right", [8, 9], "goodput>=6", "ttft<1", 8, False), ("right", [8, 9], "goodput>6", "ttft<1", 8, True),
        ("right", [8, 9], "goodput>3", "ttft<1ms", 8, True),
    ],
)  # fmt: skip
def test_a_continued_run_is_watched_with_what_it_had_and_need_not_send_again(
    reader: Reader, run: str | None, missing: Sequence[int] | None, slo: str, goodput: str | None, seen: int, lost: bool
) -> None:
    watching = watched(reader, run, slo, missing, goodput=goodput)
    assert watching is not None
    assert (watching.seen, [each.text for each in watching.broken(1.0)]) == (seen, [slo] * lost)


def test_without_the_option_nothing_is_watched(reader: Reader) -> None:
    assert watched(reader, "wrong", "correct>=85%", None, abort_on_slo=False) is None


def test_each_cell_is_judged_by_its_run_s_own_limits(reader: Reader) -> None:
    rows = {row["run_id"]: row for row in reader.query("SELECT * FROM summary", [])}
    cells = [CellResult("right", rows["right"]), CellResult("wrong", rows["wrong"]), CellResult("none")]
    wanted = [parse_slo(text) for text in ("goodput>0", "correct>=1", "tool_calls_right>0", "ttft_p50<9")]
    judge_all(wanted, reader, cells)
    assert [[gate.outcome for gate in each.gates] for each in cells] == [
        ["met", "met", "skip", "met"], ["not decided", "not met", "skip", "not decided"], ["not decided"] * 4,
    ]  # fmt: skip
    assert cells[0].gates[0].value == pytest.approx(rows["right"]["goodput"])
    assert (cells[0].gates[0].n, cells[0].gates[1].n, cells[0].gates[0].cell) == (8, 8, "right")
    assert [gate.slo for gate in cells[2].gates] == [slo.text for slo in wanted]
    judge_all([parse_slo("tool_calls_right>0")], reader, cells[:2])
    assert [each.gates[0].outcome for each in cells[:2]] == ["not decided"] * 2, "it applies to no cell at all"
    plain = [CellResult("right", rows["right"])]
    judge_all([], reader, plain)
    assert plain[0].gates == []


def test_each_cell_is_judged_and_what_a_suite_does_not_ask_is_skipped(sim: Simulator, tmp_path: Path) -> None:
    wanted = ["ttft_p50<10", "schema_valid>=50%", "correct>=0.5", "error_rate<=0"]
    options = small(sim, tmp_path / "s.duckdb", suites=["json", "tools"], slo=wanted)
    summary = load(options)
    assert summary.exit_code == 0
    assert outcomes(summary) == {
        ("json", "ttft_p50<10"): "met", ("json", "schema_valid>=50%"): "met", ("json", "correct>=0.5"): "met",
        ("json", "error_rate<=0"): "met", ("tools", "ttft_p50<10"): "met", ("tools", "schema_valid>=50%"): "skip",
        ("tools", "correct>=0.5"): "met", ("tools", "error_rate<=0"): "met",
    }  # fmt: skip
    options.slo, options.skip_cached = ["correct>=0.5", "correct<0.5"], True
    again = load(options)
    assert [row["cache"] for row in again.rows] == ["skipped", "skipped"]
    assert again.exit_code == 99, "a skipped cell is judged too"
    assert outcomes(again)["json", "correct<0.5"] == "not met"


def test_goodput_counts_requests_within_the_limits_of_this_call(sim: Simulator, tmp_path: Path) -> None:
    """They are no part of the config: the same cell is found again, and judged by other limits."""
    db = tmp_path / "s.duckdb"
    wanted = ["goodput>0", "correct_goodput>0"]
    (kept,) = load(small(sim, db, slo=wanted, goodput="ttft<60,e2e<60")).rows
    assert kept["goodput"] == pytest.approx(kept["requests_per_s"])
    assert json.loads(kept["goodput_limits"]) == {"ttft_s": 60.0, "e2e_s": 60.0}
    summary = load(small(sim, db, slo=wanted, goodput="ttft<1us", skip_cached=True))
    (row,) = summary.rows
    assert (row["cache"], row["run_id"], row["goodput"], row["correct_goodput"]) == ("skipped", kept["run_id"], 0, 0)
    assert set(outcomes(summary).values()) == {"not met"}
    summary = load(small(sim, db, slo=["schema_valid>=95%"], skip_cached=True))
    assert json.loads(summary.rows[0]["goodput_limits"]) == {"ttft_s": 1e-6}, "without --goodput they stay"
    assert (summary.exit_code, set(outcomes(summary).values())) == (99, {"not decided"}), "no cell has that figure"


def test_a_lost_slo_ends_its_cell_and_not_the_next(sim: Simulator, tmp_path: Path) -> None:
    db, junit = tmp_path / "s.duckdb", tmp_path / "out.xml"
    sim.reset_truth()
    given: dict[str, Any] = {"suites": ["json"], "requests": 60, "slo": ["correct>=100%"], "abort_on_slo": True}
    summary = load(small(sim, db, models=["slow-mixed", "sim:fast"], concurrency=[2], junit=junit, **given))
    lost, kept = summary.rows
    assert (lost["status"], kept["status"], summary.exit_code) == ("interrupted", "complete", 99)
    assert lost["requests"] < 40, "ended early"
    assert lost["errors"] == 0, "what was in flight could end"
    assert len(inferences(sim, "slow-mixed")) == lost["requests"]
    assert [gate.outcome for gate in summary.gates] == ["not met", "met"]
    first, second = ElementTree.parse(junit).getroot()
    assert [(each.get("failures"), each.get("errors")) for each in (first, second)] == [("1", "1"), ("0", "0")]


def test_a_cell_bound_by_time_alone_is_not_ended_early(sim: Simulator, tmp_path: Path) -> None:
    options = small(
        sim, tmp_path / "s.duckdb", requests=None, duration=0.2, slo=["ttft_p50<1us"], abort_on_slo=True
    )  # fmt: skip
    summary = load(options)
    assert (summary.rows[0]["status"], summary.exit_code) == ("complete", 99)


def test_an_interrupted_load_passes_nothing_and_its_cells_stand_in_the_file(sim: Simulator, tmp_path: Path) -> None:
    stop, junit = Stop(), tmp_path / "out.xml"
    stop.asked = 1
    summary = load(
        small(sim, tmp_path / "s.duckdb", concurrency=[1, 2], slo=["ttft_p95<10"], junit=junit), stop=stop
    )  # fmt: skip
    assert summary.exit_code == 130
    assert {gate.outcome for gate in summary.gates} == {"not decided"}
    assert [(suite.get("tests"), suite.get("errors")) for suite in ElementTree.parse(junit).getroot()] == [
        ("2", "2")
    ] * 2


def test_the_file_is_written_when_the_load_breaks(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("our own bug")

    junit = tmp_path / "out.xml"
    monkeypatch.setattr(runner, "_summary_rows", broken)
    with pytest.raises(RuntimeError):
        load(small(sim, tmp_path / "s.duckdb", slo=["ttft_p95<10"], junit=junit))
    (suite,) = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("errors")) == ("2", "2")


def test_the_command_prints_a_line_each_and_json_has_them(
    sim: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["load", "--host", sim.url, "--models", "sim:fast", "--suites", "numbers", "--requests", "6",
            "--metrics-port", "0", "--db", str(tmp_path / "s.duckdb"),
            "--slo", "ttft_p95<10", "ttft_p50<1us", "--json"]  # fmt: skip
    assert main(argv) == 99
    out, err = capsys.readouterr()
    told = json.loads(out)["slos"]
    assert [(slo["slo"], slo["outcome"], slo["n"]) for slo in told] == [
        ("ttft_p95<10", "not decided", 6),
        ("ttft_p50<1us", "not met", 6),
    ]
    assert re.search(
        r" not decided: sim:fast numbers c=1: ttft_p95<10: [\d.]+ ms, n = 6 requests: .*needs 72 requests ",
        " ".join(err.split()),
    )
    assert re.search(
        r" NOT MET: sim:fast numbers c=1: ttft_p50<1us: [\d.]+ ms \([\d.]+–[\d.]+ ms\), n = 6 requests",
        " ".join(err.split()),
    )
    assert ask(tmp_path / "s.duckdb", "SELECT count(*) FROM requests") == [(6,)]

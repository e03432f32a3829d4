"""The capacity of a simulated server whose slots are known, by the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.simulator import PROFILES, Simulator
from structbench.cli import main
from structbench.store import Reader, Store, ending
from structbench.suites.answer_book import answer_book
from structbench.verdict import Verdict
from tests.support.databases import held
from tests.support.loads import ask

KNOWN = replace(PROFILES["sim:fast"], parallel=3, max_queue=0, service_s=0.05)
"""A fourth request in flight is refused: that a server is busy or slow makes no difference to it."""


def words_of(simulator: Simulator, db: Path) -> list[str]:
    return ["capacity", "--models", "known", "--suites", "numbers", "--host", simulator.url, "--db", str(db),
            "--metrics-port", "0", "--slo", "correct>=90%", "error_rate<=9%", "--json", "--quiet"]  # fmt: skip


@pytest.mark.slow
def test_the_command_finds_what_the_server_takes_and_keeps_each_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "judge", lambda _: Verdict("valid"))
    db = tmp_path / "c.duckdb"
    with Simulator({"known": KNOWN}, answers=answer_book()) as simulator:
        words = [*words_of(simulator, db), "--skip-cached"]
        assert main(words) == 0
        (found,) = json.loads(capsys.readouterr().out)["capacity"]
        assert (found["holds"], found["broken"], found["complete"]) == (3, 4, True)
        assert found["text"].startswith("the rule holds up to 3 in flight (not at 4 in flight: error_rate<=9%")
        rows = ask(db, "SELECT count(*) FROM requests")
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out)["capacity"][0]["holds"] == 3
        assert ask(db, "SELECT count(*) FROM requests") == rows


@pytest.mark.slow
def test_a_reader_on_a_new_file_ends_no_search_and_everything_is_there_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "judge", lambda _: Verdict("valid"))
    db = tmp_path / "c.duckdb"
    Store(db).close()
    with Simulator({"known": KNOWN}, answers=answer_book()) as simulator, held(db, "read"):
        assert main(words_of(simulator, db)) == 0
    out, err = capsys.readouterr()
    (found,) = json.loads(out)["capacity"]
    assert (found["holds"], found["broken"], found["complete"]) == (3, 4, True)
    assert {step["facts"]["kind"] for step in found["steps"]} == {"ollama"}
    assert err.count(f"{db} is kept open by another process (PID ") == 1
    with Reader(db) as reader:
        (rows,) = reader.query("SELECT count(*) AS runs, sum(requests) AS requests FROM summary")
        assert rows == {"runs": len(found["steps"]), "requests": sum(step["requests"] for step in found["steps"])}


@pytest.mark.parametrize(("words", "text"), [
    (["--concurrency", "4"], "--concurrency is no option of capacity"),
    (["--requests", "4"], "--requests is no option of capacity"),
    (["--start", "9", "--most", "3"], "give a start that is no more than most"),
    (["--start", "0.5"], "give whole numbers, or --over rate"),
])  # fmt: skip
def test_what_it_chooses_itself_is_refused(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", *words]) == 2
    assert text in capsys.readouterr().err

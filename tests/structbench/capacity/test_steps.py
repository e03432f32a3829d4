"""The capacity of a simulated server whose slots are known, by the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.simulator import PROFILES, Simulator
from structbench.cli import main
from structbench.suites.answer_book import answer_book
from tests.support.loads import ask

KNOWN = replace(PROFILES["sim:fast"], parallel=3, service_s=0.1)


@pytest.mark.slow
def test_the_command_finds_the_slots_says_so_and_keeps_each_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "c.duckdb"
    with Simulator({"known": KNOWN}, answers=answer_book()) as simulator:
        words = ["capacity", "--models", "known", "--suites", "numbers", "--host", simulator.url, "--db", str(db),
                 "--metrics-port", "0", "--slo", "e2e_p95<=125ms", "correct>=90%", "--json", "--quiet",
                 "--skip-cached"]  # fmt: skip
        assert main(words) == 0
        (found,) = json.loads(capsys.readouterr().out)["capacity"]
        assert (found["holds"], found["broken"], found["complete"]) == (3, 4, True)
        assert "the server answers 3 at a time (OLLAMA_NUM_PARALLEL)" in found["text"].lower().replace(
            "ollama_num_parallel", "OLLAMA_NUM_PARALLEL"
        )
        rows = ask(db, "SELECT count(*) FROM requests")
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out)["capacity"][0]["holds"] == 3
        assert ask(db, "SELECT count(*) FROM requests") == rows


@pytest.mark.parametrize(("words", "text"), [
    (["--concurrency", "4"], "--concurrency is no option of capacity"),
    (["--requests", "4"], "--requests is no option of capacity"),
    (["--start", "9", "--most", "3"], "give a start above 0"),
    (["--start", "0.5"], "give whole numbers, or --over rate"),
])  # fmt: skip
def test_what_it_chooses_itself_is_refused(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", *words]) == 2
    assert text in capsys.readouterr().err

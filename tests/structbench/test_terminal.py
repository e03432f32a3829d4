"""No text from a file, a server or a model drives the terminal, whichever command shows it."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.console import Console

from structbench.cli import main
from structbench.formatting import printable, printable_lines
from structbench.watch.endpoint import parse
from structbench.watch.loop import WatchLoop, screen, trend
from structbench.watch.snapshot import SCRAPED, snapshot_of
from tests.support.expositions import exposition
from tests.support.paths import ROOT
from tests.support.scripted_server import Peer, Scripted

PLANT = "\x1b]0;owned\x07\x1b[2J\x1b[31m\r\x9b2J\x90q\u202e\u2066\u200f!"
"""A title, a bell, a screen that is cleared, red, the start of the line, C1, and text from right to left."""
DRIVING = "\x1b\x07\r\x9b\x90\u202e\u2066\u200f"
KEPT = {"status", "config_hash", "owner", "arrival", "endpoint", "config", "environment", "client_versions", "result"}
"""Columns whose values are of a few words, or whose text is JSON, which cannot hold a control character."""


def driving(text: str, of: str = DRIVING) -> list[str]:
    return [line for line in text.split("\n") if any(sign in line for sign in of)]


def test_what_is_printable_stays_and_nothing_else() -> None:
    assert driving(printable(PLANT)) == driving(printable_lines(f"a\tb\n{PLANT}\n")) == []
    assert printable("größer – 日本 🙂") == "größer – 日本 🙂"
    assert printable_lines(f"a\tb\r\n{PLANT}\n").startswith("a\tb \n")


@pytest.fixture
def planted(results: Path) -> Path:
    """A file in which every text has something in it that drives terminals."""
    with duckdb.connect(results) as con:
        columns = con.execute(
            "SELECT table_name, column_name FROM duckdb_columns() JOIN duckdb_tables() USING (table_name) "
            "WHERE data_type = 'VARCHAR' AND table_name NOT IN ('migrations', 'run_gaps')"
        ).fetchall()
        con.execute("INSERT INTO notes SELECT run_id, 'kind', 0.5, 1, 'text' FROM runs")
        for table, column in columns:
            if column not in KEPT:
                con.execute(f'UPDATE {table} SET "{column}" = "{column}" || $1', [PLANT])
        con.execute("UPDATE runs SET config = replace(config, '\"sim:fast\"', $1)", [json.dumps("sim:fast" + PLANT)])
    return results


SHOWN = (
    "runs", "stats", "report", "report --pool", "report --format markdown", "report --slo ttft_p95<1us", "verify",
    "compare model=sim:fast{plant} model=mixed{plant}", "sql FROM~runs", "sql SELECT~*~FROM~requests",
    "compare --format markdown suite=json{plant} suite=tools{plant}", "sql SELECT~{plant}", "rescore",
    "export --format benchstat -o {folder}/{plant}", "clean --label first{plant} --dry-run",
    "clear-cache --label none{plant}", "matrix --compare 1{plant} 2{plant}", "clean --label first{plant} --yes",
    "runs {plant}", "{plant}", "runs --{plant}", "report -o {folder}/{plant}.html",
    "import {folder}/copy{plant}.duckdb", "load {folder}/plan.toml --print-plan",
)  # fmt: skip


@pytest.mark.slow
def test_no_command_passes_on_what_a_file_holds(planted: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy = planted.with_name(f"copy{PLANT}.duckdb")
    copy.write_bytes(planted.read_bytes())
    texts = [json.dumps(PLANT + "\x7f\u2028"), json.dumps([PLANT]), json.dumps(PLANT)]
    planted.with_name("plan.toml").write_text("label = {}\nmodels = {}\noption.stop = {}\n".format(*texts))
    found = {}
    for line in SHOWN:
        words = [word.replace("{plant}", PLANT).replace("{folder}", str(planted.parent)).replace("~", " ")
                 for word in line.split()]  # fmt: skip
        code = main([*words, "--db", str(planted)])
        out, err = capfd.readouterr()
        assert code in (0, 1, 2, 99), line
        assert out + err
        if hits := driving(out + err):
            found[line] = hits
    assert found == {}


@pytest.mark.slow
def test_no_result_drives_a_terminal_and_a_pipe_gets_it_as_it_is(planted: Path) -> None:
    for line in ("sql --format csv FROM~runs", "export --format csv", "export --format jsonl", "report --format json",
                 "runs --json", "report", "runs", "sql FROM~summary"):  # fmt: skip
        words = [sys.executable, "-m", "structbench", *line.split(), "--db", str(planted)]
        words = [word.replace("~", " ") for word in words]
        assert [hit for hit in on_a_terminal(words) if any(sign in hit for sign in DRIVING.replace("\r", ""))] == []
    piped = subprocess.run(
        [sys.executable, "-m", "structbench", "sql", "--format", "csv", "SELECT label FROM runs", "--db", str(planted)],
        capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    assert PLANT.encode() in piped.stdout


def on_a_terminal(words: list[str]) -> list[str]:
    """Return the lines that a command writes to a terminal, without the colours that rich gives them."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "NO_COLOR": "1"}
    seen = b""
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if select.select([ours], [], [], 0.2)[0]:
                with suppress(OSError):
                    if data := os.read(ours, 65536):
                        seen += data
                        continue
                break
            if process.poll() is not None:
                break
    os.close(ours)
    assert seen
    text = seen.decode("utf-8", "replace")
    for style in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[3m", "\x1b[1;3m"):
        text = text.replace(style, "")
    return text.split("\n")


def says(version: str) -> Any:
    """Return the script of a server that puts this into whatever it says."""
    pages = {
        "/api/version": {"version": f"0.30.0{version}"},
        "/api/tags": {"models": [{"name": "m", "digest": f"d{version}"}]},
        "/api/ps": {"models": []},
    }

    def script(peer: Peer) -> None:
        while (asked := peer.read()) is not None:
            path = asked.head.split()[1]
            if path == "/api/pull":
                peer.answer({"status": f"pulling {version}"}, {"error": f"no {version}"})
            elif path in pages:
                peer.plain(200, json.dumps(pages[path]).encode())
            else:
                peer.plain(500, json.dumps({"error": f"cannot: {version}"}).encode())

    return script


@pytest.mark.slow
def test_no_command_passes_on_what_a_server_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    suite = tmp_path / f"suite{PLANT}.jsonl"
    suite.write_text(json.dumps({"id": f"a{PLANT}", "prompt": "b", "expected_text": "c", "tags": [f"t{PLANT}"]}))
    db = tmp_path / f"s{PLANT}.duckdb"
    with Scripted(says(PLANT)) as server:
        for words, wanted in (
            (["load", "--models", "m", "--suites", str(suite), "--requests", "3", "--metrics-port", "0"], 1),
            (["load", "--models", "m", "--suites", str(suite), "--dry-run"], 0),
            (["load", "--models", f"other{PLANT}", "--suites", str(suite), "--pull"], 2),
            (["load", "--models", f"other{PLANT}", "--suites", str(suite)], 2),
            (["load", "--models", "m", "--label", PLANT, "--suites", f"{suite}x"], 2),
            (["matrix", "--models", "m", "--timeout", "5"], 0),
            (["runs"], 0), (["report"], 0), (["stats"], 0),
        ):  # fmt: skip
            more = ["--host", server.url] if words[0] in ("load", "matrix") else []
            assert main([*words, *more, "--db", str(db)]) == wanted, words
            out, err = capfd.readouterr()
            assert driving(out + err) == [], words
    assert main(["suites", "check", str(suite)]) == 0
    suite.write_text(json.dumps({"id": PLANT, PLANT: 1, "options": {PLANT: 1}}))
    assert main(["suites", "check", str(suite)]) == 2
    assert driving("".join(capfd.readouterr())) == []


def test_watching_passes_on_nothing_that_an_endpoint_says() -> None:
    told = exposition(latencies=[0.05] * 9, correct=8, errors={"timeout": 1}, in_flight=4, planned=30, verdict=0)
    told = told.replace('"llama3.2:1b"', f'"{PLANT}"').replace('"timeout"', f'"timeout{PLANT}"')
    for terminal in (False, True):
        out = io.StringIO()
        console = Console(file=out, width=150, height=40, force_terminal=terminal, color_system=None)
        scrape = parse(told, "u", 1.0, SCRAPED)
        shown = snapshot_of(scrape, deque())
        if terminal:
            console.print(screen(shown, deque([trend(shown)]), f"http://{PLANT}", 150, 40))
        else:
            watching = WatchLoop(f"http://{PLANT}", 1.0, console)
            watching._show(scrape, None)
        assert "owned" in out.getvalue()
        assert driving(out.getvalue()) == []

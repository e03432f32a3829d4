"""The command line: help at once and complete, mistakes named, people's text and programs' apart."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

import structbench
from loadgen.simulator import Simulator
from structbench.cli import COMMANDS, main, parser_of
from structbench.commands import load, sql
from structbench.options import LoadOptions, seconds_of, time_word
from structbench.run.runner import Stop
from structbench.suites.answer_book import answer_book
from tests.support.loads import MODELS, ROOT, ask, start, until

STOPPING = (signal.SIGINT, signal.SIGTERM)
HEAVY = ("duckdb", "ollama", "httpx", "opentelemetry", "rich", "jsonschema", "pydantic", "psutil", "asyncio")


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(MODELS, answers=answer_book()) as server:
        yield server


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The options that a command line gives; nothing is run."""
    got: list[Any] = []
    monkeypatch.setattr(load, "run", lambda options: got.append(options) or 0)

    def parse(*words: str) -> LoadOptions:
        assert main(["load", *words]) == 0
        return got.pop()  # type: ignore[no-any-return]

    return parse


def run(*words: str) -> tuple[int, str, str]:
    environment = {"PYTHONPATH": str(ROOT), "COLUMNS": "100", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout, done.stderr


def test_an_option_of_several_values_may_be_given_several_times(parsed: Any) -> None:
    """The last one alone would win in argparse, and a load without ``num_predict`` look as if it had it."""
    options = parsed(*["--option", "num_predict=9", "seed=1", "--models", "a", "--option", "top_k=2", "--models", "b"])
    assert (options.option, options.models) == (["num_predict=9", "seed=1", "top_k=2"], ["a", "b"])
    assert parsed().models == LoadOptions().models


@pytest.mark.parametrize("argv", [["--help"], ["load", "--help"], ["suites"], ["--version"]], ids=" ".join)
def test_help_imports_nothing_heavy(argv: Sequence[str]) -> None:
    code = (
        f"import sys; from structbench.cli import main\ntry: main({list(argv)})\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    assert run("-c", code)[2] == "[]\n"


def test_help_shows_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["load", "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for field in fields(LoadOptions):
        assert f"--{field.name.replace('_', '-')}" in shown
    for text in (
        "(default: those of gemma3n, smollm2:360m, llama3.2:1b that it has, else its 3 smallest)",
        "(default: text json tools)", "(default: 5m)", "(default: 10s)", "(default: 550)",
        "(default: see --until)", "(default: auto)", "(default: 1000)", "error_rate<=5%), and no longer",
        "(default: structbench.duckdb)", "(default: 9464)",
        "(default: constant)", "(default: format)", "(default: chat)", "in flight (default: 1)", "(default: 0)",
        "time a request may take",
    ):  # fmt: skip
        assert text in shown, text
    assert not re.search(r"default: (None|False|\[\])", shown)


@pytest.mark.parametrize("command", ["load", "capacity"])
def test_every_option_stands_in_a_group_of_the_help(command: str) -> None:
    loose = [action.dest for action in parser_of(command)._optionals._group_actions]
    assert loose == ["help"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("load --api olama", "--api olama: did you mean ollama?"),
        ("completion fish", "shell fish: use bash, zsh, tcsh"),
        ("load --requests 1.5", "--requests '1.5': give a whole number"),
        ("load --burstiness few", "--burstiness 'few': give a number"),
        ("load --models", "--models: give a value"), ("load --requests", "--requests: give a value"),
        ("compare before", "give b too"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_our_words_not_argparses(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = words.split()[0]
    assert main(words.split()) == 2
    assert capsys.readouterr().err == f"structbench: {said} (see `structbench {command} --help`)\n"


@pytest.mark.parametrize("columns", [80, 100])
def test_the_overview_fits_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["help"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines()[1:] if len(line) >= columns] == []


@given(st.integers(0, 10**6))
def test_a_time_is_written_as_it_is_read(seconds: int) -> None:
    assert seconds_of(time_word(seconds)) == seconds


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help_and_stands_in_the_overview(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"usage: structbench {command}" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert re.search(rf"^  {command} ", capsys.readouterr().out, re.MULTILINE)


def test_without_a_command_the_overview_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: structbench COMMAND" in capsys.readouterr().out


def test_the_version_stands_in_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"structbench {structbench.__version__}\n"


def test_suites_are_listed_with_their_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suites"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["text", "json", "tools", "turns", "numbers"]
    assert [line.split()[1] for line in lines[1:6]] == ["generated", "82", "88", "8", "generated"]


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--models a b:1b", "models", ["a", "b:1b"]), ("--suites text x.jsonl", "suites", ["text", "x.jsonl"]),
        ("--tags person", "tags", ["person"]),
        ("--concurrency 1,4 16", "concurrency", [1, 4, 16]), ("--rate 2 5.5", "rate", [2.0, 5.5]),
        ("--arrival gamma", "arrival", "gamma"), ("--burstiness 0.5", "burstiness", 0.5),
        ("--max-in-flight 9", "max_in_flight", 9), ("--duration 1.5", "duration", 1.5), ("--warmup 0", "warmup", 0),
        ("--workers 2", "workers", 2), ("--timeout 2m", "timeout", 120.0), ("--grace 0", "grace", 0.0),
        ("--patience 0", "patience", 0.0), ("--until settled", "until", "settled"),
        ("--engine ray", "engine", "ray"), ("--ray-address a:6379", "ray_address", "a:6379"), ("--nodes 2", "nodes", 2),
        ("--limit-field max_tokens", "limit_field", "max_tokens"),
        ("--max-requests 90", "max_requests", 90), ("--max-time 2m", "max_time", 120.0),
        ("--mean-input-tokens 5", "mean_input_tokens", 5.0), ("--stddev-input-tokens 0", "stddev_input_tokens", 0.0),
        ("--mean-output-tokens 6", "mean_output_tokens", 6.0),
        ("--stddev-output-tokens 1", "stddev_output_tokens", 1.0),
        ("--structured format prompt", "structured", ["format", "prompt"]),
        ("--think on,high", "think", ["on", "high"]),
        ("--endpoint generate", "endpoint", "generate"), ("--seed -3", "seed", -3),
        ("--option a=1 b=x", "option", ["a=1", "b=x"]), ("--keep-alive 10m", "keep_alive", "10m"),
        ("--pull", "pull", True), ("--embed-model e", "embed_model", "e"),
        ("--db x/y.duckdb", "db", Path("x/y.duckdb")), ("--skip-cached", "skip_cached", True),
        ("--explain", "explain", True), ("--dry-run", "dry_run", True),
        ("--print-plan", "print_plan", True), ("--label x", "label", "x"),
        ("--metrics-port 0", "metrics_port", 0), ("--metrics-host ::1", "metrics_host", "::1"),
        ("--otlp http://c:4318", "otlp", "http://c:4318"), ("--otlp-content", "otlp_content", True),
        ("--hold 3", "hold", 3.0), ("--max-error-rate 0.1", "max_error_rate", 0.1), ("--json", "json", True),
        ("--quiet", "quiet", True), ("--wide", "wide", True),
        ("--simulate", "simulate", True), ("--requests 7", "requests", 7),
        ("--host [::1]:1234 b:1", "host", ["[::1]:1234", "b:1"]),
        ("--model-revision 1a2b", "model_revision", "1a2b"),
        ("--max-tokens-total 900", "max_tokens_total", 900),
        ("--metadata gpu=L4 n=8", "metadata", ["gpu=L4", "n=8"]),
        ("--base-url https://a/b/v1", "base_url", "https://a/b/v1"), ("--api responses", "api", "responses"),
        ('--body top_k=40 x={"a":1}', "body", ["top_k=40", 'x={"a":1}']), ("--api-key-env KEY", "api_key_env", "KEY"),
        ("--header-env X-A=A X-B=B", "header_env", ["X-A=A", "X-B=B"]), ("--header X-C=c", "header", ["X-C=c"]),
        ("--ca ca.pem", "ca", "ca.pem"), ("--cert a.pem a.key", "cert", ["a.pem", "a.key"]),
        ("--insecure", "insecure", True),
        ("--slo ttft_p95<0.5 correct>=90%", "slo", ["ttft_p95<0.5", "correct>=90%"]),
        ("--abort-on-slo", "abort_on_slo", True), ("--fsync", "fsync", True),
        ("--goodput ttft<0.5,tpot<50ms", "goodput", "ttft<0.5,tpot<50ms"),
        ("--junit x/out.xml", "junit", Path("x/out.xml")),
    ],
)  # fmt: skip
def test_each_option_is_read_with_its_type(parsed: Any, words: str, name: str, value: Any) -> None:
    options = parsed(*words.split())
    assert getattr(options, name) == value
    assert type(getattr(options, name)) is type(value)
    setattr(options, name, getattr(LoadOptions(), name))
    assert options == LoadOptions(), "another option changed too"


def test_the_table_above_has_every_option() -> None:
    (mark,) = [m for m in test_each_option_is_read_with_its_type.pytestmark if m.name == "parametrize"]  # type: ignore[attr-defined]
    assert sorted(name for _, name, _ in mark.args[1]) == sorted(field.name for field in fields(LoadOptions))


def test_no_option_is_taken_for_a_longer_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "--model", "a"]) == 2
    assert "unknown option --model: did you mean --models?" in capsys.readouterr().err


LOAD = ["load", "--models", "sim:fast", "--suites", "json", "--requests", "6", "--metrics-port", "0"]


@pytest.mark.slow
def test_json_on_stdout_and_peoples_text_on_stderr_and_then_nothing_to_do(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", sim.url)
    monkeypatch.setenv("COLUMNS", "300")
    db = tmp_path / "s.duckdb"
    arguments = [*LOAD, "--db", str(db), "--concurrency", "2"]
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    (run,) = told["runs"]
    assert (run["model"], run["load"], run["requests"], run["status"]) == ("sim:fast", "c=2", 6, "complete")
    assert (run["accuracy"], [entry["model"] for entry in told["by_model"]]) == (1.0, ["sim:fast"])
    assert ask(db, "SELECT run_id FROM runs") == [(run["run_id"],)]
    lines = err.splitlines()
    assert re.match(r"sim:fast json c=2: 6/6 requests, .* 100 % correct, 0 errors, done in ", lines[0])
    assert "\x1b" not in err, "no terminal, no colours"
    for word in ("TTFT p50", "e2e p50", "correct/s", "All figures as a page: structbench", f"every request is in {db}"):
        assert word in err
    sim.reset_truth()
    assert main([*arguments, "--skip-cached", "--dry-run"]) == 0
    is_invalid = run["verdict"] == "invalid"  # on a busy machine
    again = ", but its measurement is invalid: without --skip-cached it is made again" if is_invalid else ""
    done = f"sim:fast json c=2: skipped: run {run['run_id']} is complete{again}\n"
    assert capsys.readouterr().out == done
    assert main([*arguments, "--skip-cached"]) == 0
    out = capsys.readouterr().out
    assert done in out
    assert "1 run (1 skipped)" in out
    assert sim.truth(summary=True)["totals"]["requests"] == 0


READER = """
import duckdb, time
while True:
    try:
        con = duckdb.connect("s.duckdb", read_only=True)
        break
    except duckdb.IOException:
        time.sleep(0.01)
print("held", flush=True)
input()
"""


@pytest.mark.slow
def test_two_loads_and_a_reader_on_one_file_lose_nothing(sim: Simulator, tmp_path: Path) -> None:
    arguments = [*LOAD, "--host", sim.url, "--db", "s.duckdb", "--label"]
    loads = [start([*arguments, *label], tmp_path) for label in (["plain"], ["quiet", "--quiet"])]
    until((tmp_path / "s.duckdb").exists, "the database")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", READER], cwd=tmp_path, **pipes) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try_wait(loads[0], 1.0)
        holder.communicate(b"\n")
    (plain, errors), (quiet, other_errors) = (process.communicate(timeout=60) for process in loads)
    assert ([process.returncode for process in loads], errors, other_errors) == ([0, 0], "", "")
    assert ask(tmp_path / "s.duckdb", "SELECT label, count(DISTINCT run_id), count(*) FROM requests"
               " JOIN runs USING (run_id) WHERE status = 'complete' GROUP BY 1 ORDER BY 1") == [
        ("plain", 1, 6), ("quiet", 1, 6)
    ]  # fmt: skip
    assert "sim:fast json c=1: 6/6 requests" in plain, "no terminal: plain lines"
    assert "6/6 requests" not in quiet, "--quiet: no progress"
    assert all("correct/s" in out and "1 run (1 new)" in out and "\x1b" not in out for out in (plain, quiet))


def try_wait(process: subprocess.Popen[str], seconds: float) -> None:
    """A while in which the load goes on."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


PIPED = """
import sys
from structbench import cli
from structbench.commands import runs
def written(_):
    from rich.console import Console
    for number in range(30_000):
        print("a line of what was asked for", number)
    Console().print("drawn")
    print("told", file=sys.stderr)
    return 99
runs.run = written
sys.argv = ["structbench", "runs"]
cli.entry()
"""


@pytest.mark.parametrize("unread", ["| head -1", "2>&1 | head -1", "| true"])
def test_who_reads_no_further_is_no_mistake_and_hides_no_exit_code(unread: str) -> None:
    """A gate that failed must not pass because its table was cut off."""
    line = f'"$0" -c "$1" {unread}; exit ${{PIPESTATUS[0]}}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["bash", "-c", line, sys.executable, PIPED]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    shown = "a line of what was asked for 0\n" if "head" in unread else ""
    assert (done.returncode, done.stdout, done.stderr) == (99, shown, "" if "2>" in unread else "told\n")


def test_an_interruption_before_the_load_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(load, "run", interrupted)
    assert main(["load"]) == 130
    assert capsys.readouterr().err.startswith("structbench: interrupted")


@pytest.mark.parametrize(("command", "module", "continued"), [("load", load, True), ("sql", sql, False)])
def test_ctrl_c_while_the_database_works_is_no_traceback(
    command: str, module: ModuleType, continued: bool, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def endless(_: Any) -> int:
        with duckdb.connect() as con:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            con.execute("SELECT count(*) FROM range(1000000000) a, range(1000) b WHERE hash(a.range) = 1").fetchall()
        return 0

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    monkeypatch.setattr(module, "run", endless)
    try:
        assert main([command]) == 130
    finally:
        signal.signal(signal.SIGALRM, before)
    err = capsys.readouterr().err
    assert err.startswith("structbench: interrupted")
    assert ("--skip-cached continues it" in err) is continued


def test_signals_are_ours_during_a_load_only() -> None:
    stop, before = Stop(), []
    kept = {number: signal.signal(number, lambda *got: before.append(got[0])) for number in STOPPING}
    try:
        with load.signals(stop):
            for number in STOPPING:
                signal.raise_signal(number)
        assert (stop.asked, before) == (2, [])
        signal.raise_signal(signal.SIGINT)
        assert (stop.asked, before) == (2, [signal.SIGINT])
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(("words", "said"), [
    ("--requests 5 --requests 7", "--requests is given twice, 5 and 7: leave one out"),
    ("--label a extra", "'extra' belongs to no option: leave it out"),
    ("--zzqx 3", "unknown option --zzqx (see"),
])  # fmt: skip
def test_what_cannot_be_meant_is_a_short_line(capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    """Some were taken, and others answered with the names of sixty options."""
    assert main(["load", *words.split()]) == 2
    assert said in capsys.readouterr().err


def test_the_same_value_may_be_given_twice(parsed: Any) -> None:
    assert parsed("--requests", "5", "--requests", "5").requests == 5

"""``structbench watch``: waits, shows, ends with the load, and survives whatever terminal and endpoint there are."""

from __future__ import annotations

import io
import re
import signal
import subprocess
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from loadgen.simulator import Simulator
from structbench.cli import main
from structbench.errors import BadInput
from structbench.watch.endpoint import CellKey, Unreachable
from structbench.watch.loop import Trend, WatchLoop, screen, sparkline, trend
from structbench.watch.snapshot import CPU, EXPIRY, LOOP_LAG, MEMORY, MODEL_SIZE, VRAM_SHARE, WORKERS, snapshot_of
from tests.support.expositions import URL, exposition, scrape
from tests.support.loads import load, small, start
from tests.support.prometheus import free_port

GAUGES = {CPU: 0.4, MEMORY: 2.1e8, WORKERS: 2, LOOP_LAG: 0.0004, MODEL_SIZE: 1.6e9, VRAM_SHARE: 1, EXPIRY: 299}
RUNNING = exposition(
    latencies=[0.05] * 9, correct=8, errors={"timeout": 1}, in_flight=4, planned=30, verdict=0, more=GAUGES
)
LATER = exposition(
    latencies=[0.05] * 13, correct=12, errors={"timeout": 1}, in_flight=4, planned=30, verdict=0, more=GAUGES
)
ENDED = exposition(latencies=[0.05] * 29, correct=28, errors={"timeout": 1}, planned=30, verdict=0)
REFUSED = Unreachable("Connection refused")


def watch(
    answers: list[str | Exception], *, terminal: bool = False, width: int = 100, height: int = 40
) -> tuple[WatchLoop, io.StringIO, list[float]]:
    """A watch of an endpoint that gives these answers, a second apart, and refuses afterwards."""
    out, pauses, left = io.StringIO(), [], iter(answers)

    def read(_url: str) -> str:
        answer = next(left, REFUSED)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    console = Console(
        file=out, width=width, height=height, force_terminal=terminal, color_system=None, _environ={"TERM": "xterm"}
    )
    return WatchLoop(URL, 1.0, console, read, lambda: float(len(pauses)), pauses.append), out, pauses


def test_without_a_terminal_a_line_a_reading_and_one_at_the_end() -> None:
    watching, out, _ = watch([RUNNING, LATER, ENDED])
    watching.run()
    latencies = ", ".join(f"{name} p50 60 ms p95 105 ms p99 109 ms" for name in ("TTFT", "ITL", "e2e"))
    cell, rest = "llama3.2:1b json c=4", "1 error (timeout 1), valid"
    assert out.getvalue().splitlines() == [
        f"{cell}: 10/30 requests, 4 in flight, {latencies}, 80 % correct, {rest}",
        f"{cell}: 14/30 requests, 4.0/s, 40.0 tok/s, 4 in flight, {latencies}, 86 % correct, {rest}",
        f"{cell}: 30/30 requests, {latencies}, 93 % correct, {rest}, done",
        f"the load has ended: {URL} no longer answers (1 cell seen)",
    ]


def test_it_waits_for_a_load_and_says_so_once() -> None:
    watching, out, pauses = watch([REFUSED, REFUSED, REFUSED, RUNNING])
    watching.run()
    lines = out.getvalue().splitlines()
    assert lines[0] == f"{URL} does not answer yet (Connection refused): waiting for a load; press Ctrl-C to stop"
    assert [line.startswith("llama3.2:1b") for line in lines[1:-1]] == [True]
    assert len(pauses) >= 4


def test_one_reading_that_fails_is_no_end() -> None:
    watching, out, _ = watch([RUNNING, Unreachable("timed out"), RUNNING])
    watching.run()
    assert out.getvalue().count("llama3.2:1b json c=4: 10/30") == 2
    assert out.getvalue().count("has ended") == 1


def test_a_slow_watch_still_notices_the_end_soon() -> None:
    watching, _, pauses = watch([RUNNING])
    watching.every_s = 60.0
    watching.run()
    assert pauses == [60.0, 1.0]


def test_rates_are_of_the_last_ten_seconds() -> None:
    texts = [exposition(latencies=[0.05] * (n if n < 20 else 20 + 5 * (n - 20)), in_flight=1) for n in range(1, 40)]
    watching, out, _ = watch(list(texts))
    watching.run()
    assert ", 5.0/s, 50.0 tok/s" in out.getvalue().splitlines()[-2]
    assert len(watching.scrapes) == 11


def test_something_else_that_answers_is_bad_input() -> None:
    watching, _, _ = watch(["node_load1 1\n"])
    with pytest.raises(BadInput, match="but not those of a load"):
        watching.run()


def frame(out: io.StringIO) -> list[str]:
    """What the terminal shows, escape sequences left out."""
    return [
        line.rstrip() for line in re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", out.getvalue()).replace("\r", "").split("\n")
    ]


def test_a_terminal_shows_the_whole_picture_and_is_left_in_order() -> None:
    watching, out, _ = watch([RUNNING], terminal=True)
    watching.run()
    shown = frame(out)
    text = "\n".join(shown)
    for piece in (
        "cells: 1 running",
        "llama3.2:1b json c=4    10/30         4     –     –    80 %      1   valid",
        "TTFT                 60 ms 105 ms 109 ms",
        "client  0.4 cores, 210 MB, 2 workers, loop lag 0.40 ms",
        "server  llama3.2:1b takes 1.6 GB, 100 % on GPU, unloaded after 4 min 59 s",
        "errors  llama3.2:1b json c=4: 1 error (timeout 1)",
    ):
        assert piece in text, f"{piece!r} not in\n{text}"
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")
    assert shown[-2].startswith("the load has ended")


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("cells", [0, 1, 40])
def test_a_screen_fits_the_terminal(width: int, cells: int) -> None:
    keys = [
        CellKey("registry.example.com/a/very/long/model:70b-instruct-q4_K_M", "json", f"c={i}") for i in range(cells)
    ]
    shown = snapshot_of(scrape(0, *(exposition(key, latencies=[0.05], in_flight=1, more=GAUGES) for key in keys)))
    out = io.StringIO()
    console = Console(file=out, width=width, height=30, force_terminal=True, color_system=None)
    console.print(screen(shown, deque([trend(shown)]), URL, width, 30))
    lines = frame(out)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 30 or width == 40
    if cells == 40:
        assert "earlier cells not shown" in "\n".join(lines)


@pytest.mark.parametrize("terminal", [False, True])
def test_names_from_outside_drive_neither_markup_nor_terminal(terminal: bool) -> None:
    key = CellKey("[red]m[/] \x1b]0;title\x07", "s", "c=1", ":smile:")
    watching, out, _ = watch(
        [exposition(key, latencies=[0.05], errors={"x\x1b[31m": 1}, in_flight=1)], terminal=terminal
    )
    watching.run()
    assert "[red]m[/] �]0;title� s c=1 :smile:" in out.getvalue()
    assert "\x1b[31m" not in out.getvalue()
    assert "\x1b]0" not in out.getvalue()


@pytest.mark.parametrize(
    ("values", "width", "blocks"),
    [
        ([], 5, ""), ([0.0, 0.0], 5, "▁▁"), ([None, 1.0], 5, " █"), ([0.0, 5.0, 10.0], 5, "▁▅█"),
        ([9.0, 1.0, 2.0], 2, "▅█"), ([1.0], 0, ""),
    ],
)  # fmt: skip
def test_sparklines_by_table(values: list[float | None], width: int, blocks: str) -> None:
    assert sparkline(values, width) == blocks


@given(st.lists(st.none() | st.floats(0, 1e9)), st.integers(0, 50))
def test_a_sparkline_is_as_long_as_what_it_shows(values: list[float | None], width: int) -> None:
    assert len(sparkline(values, width)) == min(len(values), width)


def test_curves_are_of_all_running_cells_together() -> None:
    other = CellKey("m", "text", "c=1")
    before = [scrape(0, exposition(), exposition(other))]
    now = scrape(
        10, exposition(latencies=[0.05] * 10, in_flight=1), exposition(other, latencies=[0.05] * 20, in_flight=1)
    )
    assert trend(snapshot_of(now, before)) == Trend(3.0, 30.0, pytest.approx(0.06, abs=0.001))
    assert trend(snapshot_of(scrape(0, exposition()))) == Trend(None, None, None)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--every", "0"], "--every 0: give more than 0"),
        (["--every", "nan"], "--every nan: give more than 0"),
        (["--url", "ftp://x"], "--url ftp://x is not a valid address: give one such as http://127.0.0.1:9464/metrics"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", *words]) == 2
    assert capsys.readouterr().err == f"structbench: {why}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_good_order(number: signal.Signals, tmp_path: Path) -> None:
    process = start(["watch", "--url", "127.0.0.1:1"], tmp_path)
    assert process.stdout is not None
    assert "waiting for a load" in process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.slow
def test_a_real_load_is_watched_to_its_end(tmp_path: Path) -> None:
    """The endpoint of a load in this process, from a process of its own, as somebody else would."""
    seen: list[subprocess.Popen[str]] = []

    def report(_: object) -> None:
        # By now the metrics are complete, and stay up until this returns.
        seen.append(start(["watch", "--url", f"127.0.0.1:{port}", "--every", "0.05"], tmp_path))
        first.append(seen[0].stdout.readline() if seen[0].stdout else "")

    first: list[str] = []
    port = free_port()
    with Simulator() as sim:
        load(small(sim, tmp_path / "w.duckdb", metrics_port=port, label="seen"), report=report)
    out, err = seen[0].communicate(timeout=20)
    assert first[0].startswith("sim:fast numbers c=1 seen: 8/8 requests, ")
    assert first[0].endswith(", done\n")
    assert out == f"the load has ended: http://127.0.0.1:{port}/metrics no longer answers (1 cell seen)\n"
    assert (seen[0].returncode, err) == (0, "")

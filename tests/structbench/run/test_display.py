"""What is shown while a load runs is true, readable at any width, and costs next to nothing."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from structbench.formatting import without_middle
from structbench.run.display import _COLUMNS, Display, fit
from tests.support.records import CORRECT, WRONG, Clock, record


def display(
    *, terminal: bool = False, width: int = 120, height: int = 40, quiet: bool = False
) -> tuple[Display, io.StringIO, Clock]:
    out, clock = io.StringIO(), Clock()
    console = Console(
        file=out, width=width, height=height, force_terminal=terminal, color_system=None, _environ={"TERM": "xterm"}
    )
    return Display(console, quiet=quiet, clock=clock), out, clock


def play(shown: Display, clock: Clock, name: str, n: int = 120, planned: int | None = 300) -> None:
    """Four requests a second, one in eight fails, one in ten answers is wrong."""
    progress = shown.begin(name, planned)
    for i in range(n):
        shown.refresh(4)
        clock.now += 0.25
        progress.add(record(failed=i % 8 == 7))
        progress.add_score(WRONG if i % 10 == 9 else CORRECT)


def frame(out: io.StringIO) -> list[str]:
    """What the terminal shows last."""
    text = re.split(r"\x1b\[2K(?:\x1b\[1A\x1b\[2K)*", out.getvalue())[-1]
    return [line.rstrip() for line in re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", text).replace("\r", "").split("\n")]


def test_without_a_terminal_one_line_each_ten_seconds_and_one_at_the_end() -> None:
    shown, out, clock = display(width=40)
    with shown:
        play(shown, clock, "smollm2:360m json c=4")
        shown.end()
    assert out.getvalue().splitlines() == [
        "smollm2:360m json c=4: 40/300 requests, 3.5/s, 175 tok/s, 4 in flight, TTFT p50 84 ms, 90 % correct, "
        "5 errors, ETA 1 min 05 s",
        "smollm2:360m json c=4: 80/300 requests, 3.4/s, 171 tok/s, 4 in flight, TTFT p50 84 ms, 90 % correct, "
        "10 errors, ETA 55 s",
        "smollm2:360m json c=4: 120/300 requests, 3.5/s, 175 tok/s, TTFT p50 84 ms, 90 % correct, "
        "15 errors, stopped after 30 s",
    ]


def test_a_cell_that_waits_for_its_model_says_so() -> None:
    shown, out, clock = display()
    with shown:
        shown.begin("m text c=1", 50, already_done=20)
        clock.now += 11
        shown.refresh(0)
    assert out.getvalue().splitlines() == [
        "m text c=1: 20/50 requests, 0 in flight, 0 errors, starting",
        "m text c=1: 20/50 requests, 0 errors, stopped after 0.0 s",
    ]


def test_resumed_cell_counts_what_was_done_but_not_in_its_rate() -> None:
    shown, out, clock = display()
    with shown:
        progress = shown.begin("m json c=1", 30, already_done=20)
        shown.refresh(1)
        for _ in range(10):
            clock.now += 1
            progress.add(record())
        shown.end(complete=True)
    assert out.getvalue() == ("m json c=1: 30/30 requests, 1.0/s, 50.0 tok/s, TTFT p50 84 ms, 0 errors, done in 10 s\n")


def test_a_cell_may_be_complete_with_fewer_requests_than_planned() -> None:
    """A conversation without a tool call has no second turn."""
    shown, out, _ = display()
    with shown:
        shown.begin("m turns c=1", 16)
        shown.end(complete=True)
    assert out.getvalue() == "m turns c=1: 0/16 requests, 0 errors, done in 0.0 s\n"


def test_cell_bound_by_time_has_its_eta_from_the_time() -> None:
    shown, out, clock = display()
    with shown:
        progress = shown.begin("m text c=1", None, duration_s=60)
        shown.refresh(1)
        clock.now += 45
        progress.add(record())
        shown.refresh(1)
        clock.now += 15
        shown.end(complete=True)
    first, last = out.getvalue().splitlines()
    assert first.startswith("m text c=1: 1 request, ")
    assert first.endswith(", ETA 15 s")
    assert last.endswith(", done in 1 min 00 s")


def test_whichever_of_requests_and_time_ends_first_gives_the_eta() -> None:
    shown, out, clock = display()
    with shown:
        progress = shown.begin("m text c=1", 1000, duration_s=60)
        shown.refresh(1)
        for _ in range(20):
            clock.now += 1
            progress.add(record())
        shown.refresh(1)
    assert out.getvalue().splitlines()[0].endswith(", ETA 40 s")


def test_quiet_prints_nothing_and_still_counts() -> None:
    for terminal in (False, True):
        shown, out, clock = display(quiet=True, terminal=terminal)
        with shown:
            progress = shown.begin("m text c=1", 1)
            shown.refresh(1)
            clock.now += 60
            progress.add(record())
            shown.refresh(1)
            shown.print("a line")
        assert out.getvalue() == ""
        assert (progress.done, progress.elapsed_s) == (1, 60)


def test_terminal_shows_a_bar_for_each_cell() -> None:
    shown, out, clock = display(terminal=True, width=106)
    with shown:
        play(shown, clock, "smollm2:360m json c=1", n=8, planned=8)
        shown.end(complete=True)
        play(shown, clock, "smollm2:360m json c=4", n=100)
        clock.now += 1
        shown.refresh(4)
        seen = frame(out)
    assert seen == [
        "                                         requests     %  ETA req/s tok/s in flight TTFT p50 correct errors",
        "smollm2:360m json c=1 ━━━━━━━━━━━━━━━━━━      8/8 100 % done   3.5   175              84 ms   100 %      1",
        "smollm2:360m json c=4 ━━━━━━              100/300  33 % 0:55   3.1   156         4    84 ms    90 %     12",
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_no_line_is_wider_than_the_terminal_and_the_essentials_stay(width: int) -> None:
    shown, out, clock = display(terminal=True, width=width)
    with shown:
        play(shown, clock, "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M tools rate=10/s poisson")
        shown.end()
        header, row = frame(out)
    assert max(len(header), len(row)) <= width
    assert "hf.co/bar" in row
    assert "poisson" in row
    assert "120/300" in row
    assert row.split()[-1] == "15"
    if width >= 80:
        assert header.split() == [
            *("requests", *(["%"] if width >= 100 else []), "ETA", "req/s", "tok/s"),
            *(["in", "flight"] if width >= 100 else []),
            *("TTFT", "p50", "correct", "errors"),
        ]
        assert "━" in row


@given(st.integers(1, 90), st.integers(40, 250))
def test_columns_fill_the_room_and_never_more(name: int, room: int) -> None:
    widths = fit([name, *(max(len(column.header), 7) for column in _COLUMNS[1:])], room)
    kept = [width for width in widths if width]
    assert sum(kept) + len(kept) - 1 <= room or not any(
        width for width, column in zip(widths, _COLUMNS, strict=True) if column.drop
    )
    assert widths[0] <= name
    assert widths[0] >= min(name, 20)


@given(st.text(max_size=60), st.integers(2, 60))
def test_shortened_keeps_both_ends(text: str, width: int) -> None:
    short = without_middle(text, width)
    assert len(short) == min(len(text), width)
    head, cut, tail = short.partition("…") if len(text) > width and "…" not in text else (text, "", "")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert bool(cut) == (len(text) > width and "…" not in text)


@pytest.mark.parametrize(("height", "kept"), [(40, 10), (10, 6), (3, 1)])
def test_many_cells_keep_to_the_newest(height: int, kept: int) -> None:
    shown, out, clock = display(terminal=True, height=height)
    with shown:
        for i in range(14):
            play(shown, clock, f"m json c={i}", n=2, planned=2)
        seen = frame(out)
    assert seen[0].strip() == f"{14 - kept} earlier cells not shown"
    assert [line.split()[2] for line in seen[2:]] == [f"c={i}" for i in range(14 - kept, 14)]


def test_refresh_throttles_itself() -> None:
    shown, out, clock = display(terminal=True)
    with shown:
        shown.begin("m json c=1", 10)
        before = len(out.getvalue())
        for _ in range(49):
            clock.now += 0.01
            shown.refresh(1)
        assert len(out.getvalue()) == before
        clock.now += 0.02
        shown.refresh(1)
        assert len(out.getvalue()) > before


def test_finished_rows_do_not_move() -> None:
    shown, out, clock = display(terminal=True)
    with shown:
        play(shown, clock, "m json c=1", n=8, planned=8)
        shown.begin("m json c=4", 8)
        then = frame(out)[1].split()
        clock.now += 1000
        shown.refresh(1)
        assert frame(out)[1].split() == then


def test_no_thread_is_started() -> None:
    before = threading.active_count()
    shown, _, _ = display(terminal=True)
    with shown:
        shown.begin("m json c=1", 10)
        assert threading.active_count() == before


@pytest.mark.parametrize("terminal", [False, True])
def test_names_and_texts_from_outside_drive_neither_markup_nor_terminal(terminal: bool) -> None:
    shown, out, _ = display(terminal=terminal)
    with shown:
        shown.begin("[red]m[/] :smile: \x1b[31m json c=1", 10)
        shown.print("said [/b] \x1b]0;title\x07\nsecond line")
    text = out.getvalue()
    assert "[red]m[/] :smile: �[31m json c=1" in text
    assert "said [/b] �]0;title�\nsecond line\n" in text
    assert "\x1b[31m" not in text
    assert "\x1b]0" not in text


def test_a_crash_in_the_load_leaves_the_terminal_usable() -> None:
    shown, out, _ = display(terminal=True)

    def crash() -> None:
        with shown:
            shown.begin("m json c=1", 10)
            raise RuntimeError("load")

    with pytest.raises(RuntimeError, match="load"):
        crash()
    assert "\x1b[?25l" in out.getvalue()
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")
    assert "stopped" in out.getvalue()


def test_what_is_meant_for_a_file_stays_in_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    shown, out, _ = display(terminal=True)
    with shown:
        shown.begin("m json c=1", 10)
        print("to a pipe")
        print("to a log", file=sys.stderr)
    assert capsys.readouterr() == ("to a pipe\n", "to a log\n")
    assert "to a" not in out.getvalue()


def test_importing_costs_no_rich() -> None:
    code = (
        "import sys, structbench.run.display, structbench.reports;"
        "print([name for name in ('rich', 'duckdb', 'httpx') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_load_of_several_cells_says_where_it_is_as_a_whole() -> None:
    shown, out, clock = display()
    with shown:
        shown.expect([(60, None), (60, None), (None, 45.0)])
        assert shown.total == "", "before the first cell there is nothing to tell"
        shown.next_cell()
        play(shown, clock, "m json c=1", 60, 60)
        assert shown.total == "cell 1 of 3, about 1 min left"
        shown.end(complete=True)
        shown.next_cell()
        shown.begin("m text c=1", 60)
        assert shown.total.startswith("cell 2 of 3")
    assert "; cell 1 of 3, " in out.getvalue()


def test_what_ends_once_it_is_decided_takes_at_most_so_long() -> None:
    """At the pace of a slow cell 1,000 requests take an hour, but after 5 minutes the cell ends undecided."""
    shown, out, clock = display()
    with shown:
        shown.expect([(1000, 300.0), (1000, 300.0)], at_most=True)
        shown.next_cell()
        progress = shown.begin("m json c=1", None, 300.0, at_most=True)
        progress.start()
        for _ in range(6):
            clock.now += 10.0
            progress.add(record())
            shown.refresh(1)
        assert shown.total == "cell 1 of 2, at most 9 min left"
    assert "at most 4 min 00 s more; cell 1 of 2, " in out.getvalue()


def test_a_load_of_one_cell_needs_no_total() -> None:
    shown, _, _ = display()
    shown.expect([(30, None)])
    shown.next_cell()
    assert shown.total == ""


def test_what_is_waited_for_is_on_the_terminal_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, out, clock = display(terminal=True)
    monkeypatch.setattr("structbench.run.display.WAITING_EVERY_S", 0.001)
    with shown, shown.waiting("loading qwen3:32b"):
        assert "loading qwen3:32b …" in out.getvalue()
        clock.now += 42
        until(lambda: "loading qwen3:32b … 0:42" in out.getvalue())
    shown, out, _ = display()
    with shown, shown.waiting("loading qwen3:32b"):
        until(lambda: out.getvalue() == "loading qwen3:32b …\n")


def until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.001)


def test_what_was_asked_for_is_told_also_where_no_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        out = io.StringIO()
        display = Display(Console(file=out, width=80), quiet=quiet)
        display.answer("stopping\x1b[2J")
        assert (out.getvalue(), capsys.readouterr().err) == (
            ("", "structbench: stopping�[2J\n") if quiet else ("stopping�[2J\n", "")
        )

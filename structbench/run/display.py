"""What people see while a load runs: bars on a terminal, plain lines elsewhere, nothing when quiet.

Invariant: showing costs next to nothing beside measuring: ``refresh`` returns at once but for a few
times a second, and may be called from any thread.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple

from structbench.formatting import (
    clock_text,
    latency_text,
    plural,
    printable,
    rate_text,
    share_text,
    span_text,
    without_middle,
)
from structbench.metrics import METRICS
from structbench.run.progress import Tally

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Display", "Tally"]

_TTFT = METRICS["ttft"].at("p50").label
TERMINAL_EVERY_S = 0.5
MOST_BARS = 10
LEAST_NAME, FAIR_NAME = 20, 32
LEAST_BAR, FAIR_BAR, MOST_BAR = 5, 15, 30
"""Widths on a terminal: what a column needs, what it gets before the other gets more, what it takes at most."""


@dataclass(slots=True)
class _Cell:
    """A cell on display."""

    name: str
    planned: int | None
    duration_s: float | None
    already_done: int
    tally: Tally
    in_flight: int = 0
    ended: bool = False
    complete: bool = False
    """Of a cell that has ended: nothing is missing."""
    shown: tuple[str, ...] | None = None
    """The texts of its row once it has ended: they stay."""

    @property
    def done(self) -> int:
        return self.already_done + self.tally.done

    @property
    def share(self) -> float | None:
        """How far it is: by requests or by time, whichever is nearer its end."""
        shares: list[float] = []
        if self.planned is not None:
            shares.append(self.done / self.planned if self.planned else 1.0)
        if self.duration_s is not None:
            shares.append((self.tally.elapsed_s or 0.0) / self.duration_s if self.duration_s else 1.0)
        return min(1.0, max(shares)) if shares else None

    @property
    def eta_s(self) -> float | None:
        """Seconds until the planned requests are done or the time is up, whichever comes first."""
        ends: list[float] = []
        rate, elapsed_s = self.tally.done_per_s, self.tally.elapsed_s
        if self.planned is not None and rate:
            ends.append((self.planned - self.done) / rate)
        if self.duration_s is not None and elapsed_s is not None:
            ends.append(self.duration_s - elapsed_s)
        return max(0.0, min(ends)) if ends else None

    @property
    def count(self) -> str:
        return f"{self.done}" if self.planned is None else f"{self.done}/{self.planned}"

    @property
    def state(self) -> Literal["starting", "running", "done", "stopped"]:
        if not self.ended:
            return "running" if self.tally.elapsed_s is not None else "starting"
        return "done" if self.complete else "stopped"


def line(cell: _Cell) -> str:
    """The cell as one plain line; what is not known yet is left out."""
    tally = cell.tally
    rate, tokens, ttft, correct = tally.requests_per_s, tally.tokens_per_s, tally.ttft_p50_s, tally.share_correct
    eta = cell.eta_s if cell.state == "running" else None
    parts = [
        plural(cell.done, "request") if cell.planned is None else f"{cell.count} requests",
        None if rate is None else f"{rate_text(rate)}/s",
        None if tokens is None else f"{rate_text(tokens)} tok/s",
        None if cell.ended else f"{cell.in_flight} in flight",
        None if ttft is None else f"{_TTFT} {latency_text(ttft)}",
        None if correct is None else f"{share_text(correct, 0)} correct",
        plural(tally.errors, "error"),
        None if eta is None else f"ETA {span_text(eta)}",
    ]
    elapsed_s = 0.0 if tally.elapsed_s is None else tally.elapsed_s
    match cell.state:
        case "starting":
            parts.append("starting")
        case "done":
            parts.append(f"done in {span_text(elapsed_s)}")
        case "stopped":
            parts.append(f"stopped after {span_text(elapsed_s)}")
    return f"{cell.name}: {', '.join(part for part in parts if part is not None)}"


class _Column(NamedTuple):
    header: str
    drop: int
    """Where the terminal is too narrow, the lowest goes first; 0 stays."""


_COLUMNS = (
    _Column("", 0), _Column("", 4), _Column("requests", 0), _Column("%", 1), _Column("ETA", 0), _Column("req/s", 5),
    _Column("tok/s", 3), _Column("in flight", 2), _Column(_TTFT, 7), _Column("correct", 6), _Column("errors", 0),
)  # fmt: skip
_NAME, _BAR, _ERRORS = 0, 1, len(_COLUMNS) - 1


def texts(cell: _Cell) -> tuple[str, ...]:
    """What stands in each column, the bar left to be drawn."""
    if cell.shown is not None:
        return cell.shown
    tally = cell.tally
    shown = (
        cell.name,
        "",
        cell.count,
        share_text(cell.share, 0),
        clock_text(cell.eta_s) if cell.state == "running" else cell.state,
        rate_text(tally.requests_per_s),
        rate_text(tally.tokens_per_s),
        "" if cell.ended else f"{cell.in_flight}",
        latency_text(tally.ttft_p50_s),
        share_text(tally.share_correct, 0),
        f"{tally.errors}",
    )
    if cell.ended:
        cell.shown = shown
    return shown


def fit(widths: list[int], room: int) -> list[int]:
    """Widths of the columns for a terminal so wide, 0 for one that is dropped; a blank stands between two."""
    least = [*widths]
    least[_NAME], least[_BAR] = min(widths[_NAME], LEAST_NAME), LEAST_BAR

    def spare() -> int:
        return room - sum(width + 1 for width in least if width) + 1

    for i in sorted(range(len(least)), key=lambda i: _COLUMNS[i].drop):
        if spare() < 0 and _COLUMNS[i].drop:
            least[i] = 0
    name = widths[_NAME]
    for i, most in ((_NAME, min(name, FAIR_NAME)), (_BAR, FAIR_BAR), (_NAME, name), (_BAR, MOST_BAR)):
        if least[i]:
            least[i] = max(least[i], min(most, least[i] + spare()))
    return least


def bars(cells: list[_Cell], hidden: int, room: int) -> Table:
    """The cells as rows of a table that fits the terminal."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    rows = [texts(cell) for cell in cells]
    contents = zip([column.header for column in _COLUMNS], *rows, strict=True)
    widths = fit([max(map(len, column)) for column in contents], room)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for i, (column, width) in enumerate(zip(_COLUMNS, widths, strict=True)):
        if width:
            table.add_column(column.header, width=width, no_wrap=True, justify="left" if i <= _BAR else "right")
    for cell, row in zip(cells, rows, strict=True):
        share = cell.share
        drawn: list[Text | ProgressBar] = [
            Text(without_middle(text, width), style="red" if i == _ERRORS and cell.tally.errors else "")
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        drawn[_BAR] = ProgressBar(
            total=None if share is None else 1.0, completed=share or 0.0, width=widths[_BAR], pulse=share is None,
            complete_style="cyan", finished_style="green",
        )  # fmt: skip
        table.add_row(*(item for item, width in zip(drawn, widths, strict=True) if width))
    if hidden:
        table.title = Text(f"{plural(hidden, 'cell')} before these", style="dim")
        table.title_justify = "left"
    return table


class Display:
    """Shows the cells as they run: ``with Display() as display: tally = display.begin(…) … display.end()``."""

    def __init__(
        self,
        console: Console | None = None,
        *,
        quiet: bool = False,
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console() if console is None else console
        self._quiet = quiet
        self._clock = clock
        self._lock = threading.RLock()
        self._cells: list[_Cell] = []
        self._next = 0.0
        self._live = None
        if not quiet and self._console.is_terminal and not self._console.is_dumb_terminal:
            # A stream that goes to a file must stay there, though rich would lead it above the bars.
            self._live = Live(
                console=self._console, auto_refresh=False,
                redirect_stdout=sys.stdout.isatty(), redirect_stderr=sys.stderr.isatty(),
            )  # fmt: skip
        self._every_s = every_s if self._live is None else TERMINAL_EVERY_S

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.end()
        finally:
            if self._live is not None:
                self._live.stop()

    def begin(self, name: str, planned: int | None, duration_s: float | None = None, already_done: int = 0) -> Tally:
        """A cell starts: feed its Tally, call ``refresh`` often, then ``end``."""
        with self._lock:
            self.end()
            cell = _Cell(printable(name), planned, duration_s, already_done, Tally(self._clock))
            self._cells.append(cell)
            self._next = self._clock() + self._every_s
            self._draw()
            return cell.tally

    def refresh(self, in_flight: int) -> None:
        """Show how things stand, if it is time to; the first request in flight starts the cell's time."""
        if not self._cells or self._cells[-1].ended:
            return
        cell = self._cells[-1]
        cell.in_flight = in_flight
        if in_flight:
            cell.tally.start()
        now = self._clock()
        if now < self._next:
            return
        with self._lock:
            self._next = now + self._every_s
            self._show(cell)

    def end(self, complete: bool = False) -> None:
        """The cell that runs has ended; without one, nothing happens."""
        with self._lock:
            if not self._cells or self._cells[-1].ended:
                return
            cell = self._cells[-1]
            cell.tally.stop()
            cell.ended, cell.complete = True, complete
            self._show(cell)

    def print(self, text: str) -> None:
        """A line of text, above the bars."""
        with self._lock:
            self._say(text)

    def _say(self, text: str) -> None:
        if not self._quiet:
            text = "\n".join(map(printable, text.splitlines()))
            self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _show(self, cell: _Cell) -> None:
        if self._live is None:
            self._say(line(cell))
        else:
            self._draw()

    def _draw(self) -> None:
        if self._live is not None:
            size = self._console.size
            kept = min(MOST_BARS, max(1, size.height - 4))
            hidden = max(0, len(self._cells) - kept)
            self._live.update(bars(self._cells[hidden:], hidden, size.width), refresh=True)

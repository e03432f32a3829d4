"""The progress display of a load: bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from structbench.formatting import (
    about_text,
    clock_text,
    latency_text,
    live_view,
    plural,
    printable,
    rate_text,
    share_text,
    span_text,
    without_middle,
)
from structbench.metrics import METRICS
from structbench.output import complain
from structbench.run.progress import CellProgress, Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_TTFT = METRICS["ttft"].at("p50").label
TERMINAL_EVERY_S = 0.5
WAITING_EVERY_S = 1.0
MAX_BARS = 10
MIN_NAME, FAIR_NAME = 20, 32
MIN_BAR, FAIR_BAR, MAX_BAR = 5, 15, 30
"""Column widths on a terminal: the minimum, the width before the other column gets more, and the maximum."""


@dataclass(slots=True)
class _DisplayedCell:
    """A cell and its progress, as the display shows it."""

    name: str
    planned: int | None
    duration_s: float | None
    already_done: int
    progress: Progress
    in_flight: int = 0
    ended: bool = False
    complete: bool = False
    """Whether a cell that has ended has everything."""
    at_most: bool = False
    """Whether it ends earlier, once its rule is decided."""
    final_texts: tuple[str, ...] | None = None
    """The texts of its row, which no longer change once it has ended."""

    @property
    def done(self) -> int:
        return self.already_done + self.progress.done

    @property
    def share(self) -> float | None:
        """Share done, by requests or by time, whichever is nearer the end."""
        shares: list[float] = []
        if self.planned is not None:
            shares.append(self.done / self.planned if self.planned else 1.0)
        if self.duration_s is not None:
            shares.append((self.progress.elapsed_s or 0.0) / self.duration_s if self.duration_s else 1.0)
        return min(1.0, max(shares)) if shares else None

    @property
    def eta_s(self) -> float | None:
        """Seconds until the planned requests are done or the time is up, whichever comes first."""
        ends: list[float] = []
        rate, elapsed_s = self.progress.done_per_s, self.progress.elapsed_s
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
            return "running" if self.progress.elapsed_s is not None else "starting"
        return "done" if self.complete else "stopped"


def line(cell: _DisplayedCell) -> str:
    """Return the cell as one plain line, without what is not known yet."""
    progress = cell.progress
    rate, tokens = progress.requests_per_s, progress.tokens_per_s
    ttft, correct = progress.ttft_p50_s, progress.share_correct
    eta = cell.eta_s if cell.state == "running" else None
    elapsed = span_text(progress.elapsed_s or 0.0)
    states = {"starting": "starting", "done": f"done in {elapsed}", "stopped": f"stopped after {elapsed}"}
    parts = [
        plural(cell.done, "request") if cell.planned is None else f"{cell.count} requests",
        None if rate is None else f"{rate_text(rate)}/s",
        None if tokens is None else f"{rate_text(tokens)} tok/s",
        None if cell.ended else f"{cell.in_flight} in flight",
        None if ttft is None else f"{_TTFT} {latency_text(ttft)}",
        None if correct is None else f"{share_text(correct, 0)} correct",
        plural(progress.errors, "error"),
        None if eta is None else f"at most {span_text(eta)} more" if cell.at_most else f"ETA {span_text(eta)}",
        states.get(cell.state),
    ]
    return f"{cell.name}: {', '.join(part for part in parts if part is not None)}"


class _Column(NamedTuple):
    header: str
    drop: int
    """On a narrow terminal the column with the lowest number is dropped first; 0 is never dropped."""


_COLUMNS = (
    _Column("", 0), _Column("", 4), _Column("requests", 0), _Column("%", 1), _Column("ETA", 0), _Column("req/s", 5),
    _Column("tok/s", 3), _Column("in flight", 2), _Column(_TTFT, 7), _Column("correct", 6), _Column("errors", 0),
)  # fmt: skip
_NAME, _BAR, _ERRORS = 0, 1, len(_COLUMNS) - 1


def texts(cell: _DisplayedCell) -> tuple[str, ...]:
    """Return the text of each column; the bar's is empty, since it is drawn."""
    if cell.final_texts is not None:
        return cell.final_texts
    progress = cell.progress
    shown = (
        cell.name,
        "",
        cell.count,
        share_text(cell.share, 0),
        f"{'<' if cell.at_most else ''}{clock_text(cell.eta_s)}" if cell.state == "running" else cell.state,
        rate_text(progress.requests_per_s),
        rate_text(progress.tokens_per_s),
        "" if cell.ended else f"{cell.in_flight}",
        latency_text(progress.ttft_p50_s),
        share_text(progress.share_correct, 0),
        f"{progress.errors}",
    )
    if cell.ended:
        cell.final_texts = shown
    return shown


def fit(widths: list[int], room: int) -> list[int]:
    """Return the column widths that fit ``room``, 0 for a dropped column, with a blank between two columns."""
    least = [*widths]
    least[_NAME], least[_BAR] = min(widths[_NAME], MIN_NAME), MIN_BAR

    def spare() -> int:
        return room - sum(width + 1 for width in least if width) + 1

    for i in sorted(range(len(least)), key=lambda i: _COLUMNS[i].drop):
        if spare() < 0 and _COLUMNS[i].drop:
            least[i] = 0
    name = widths[_NAME]
    for i, most in ((_NAME, min(name, FAIR_NAME)), (_BAR, FAIR_BAR), (_NAME, name), (_BAR, MAX_BAR)):
        if least[i]:
            least[i] = max(least[i], min(most, least[i] + spare()))
    return least


def bars(cells: list[_DisplayedCell], hidden: int, room: int, below: str = "") -> Table:
    """Return the cells as rows of a table that fits the terminal, with a line below it."""
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
            Text(without_middle(text, width), style="red" if i == _ERRORS and cell.progress.errors else "")
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        drawn[_BAR] = ProgressBar(
            total=None if share is None else 1.0, completed=share or 0.0, width=widths[_BAR], pulse=share is None,
            complete_style="cyan", finished_style="green",
        )  # fmt: skip
        table.add_row(*(item for item, width in zip(drawn, widths, strict=True) if width))
    if hidden:
        table.title = Text(f"{plural(hidden, 'earlier cell')} not shown", style="dim")
        table.title_justify = "left"
    if below:
        table.caption, table.caption_justify = Text(below, style="dim", no_wrap=True), "left"
    return table


class Display:
    """Show the cells as they run: ``with Display() as display: progress = display.begin(…) … display.end()``."""

    def __init__(
        self,
        console: Console | None = None,
        *,
        quiet: bool = False,
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[CellProgress], None] | None = None,
    ) -> None:
        """Draw on ``console`` unless ``quiet``, and ``tell`` the same, if given, as figures."""
        from rich.console import Console

        self._console = Console() if console is None else console
        self._quiet = quiet
        self._clock = clock
        self._tell = tell
        self._lock = threading.RLock()
        self._cells: deque[_DisplayedCell] = deque(maxlen=MAX_BARS)
        self._begun = 0
        self._next = 0.0
        self._expected: Sequence[tuple[int | None, float | None]] = ()
        self._at_most = False
        self._number = 0
        self._waiting = ""
        self._live = None if quiet else live_view(self._console)
        self._every_s = every_s if self._live is None and tell is None else TERMINAL_EVERY_S

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.end()
        finally:
            if self._live is not None:
                self._live.stop()

    def expect(self, cells: Sequence[tuple[int | None, float | None]], *, at_most: bool = False) -> None:
        """Set what there is to do: the requests of each cell to come, or None, and its duration in seconds, or None.

        ``at_most``: some of them may end earlier, once their rule is decided.
        """
        self._expected, self._at_most = cells, at_most

    def next_cell(self) -> None:
        """Go on to the next of the expected cells."""
        self._number += 1

    @property
    def total(self) -> str:
        """Where the load is: ``cell 3 of 12, about 9 min left``, or ``at most``; empty for a single cell."""
        if len(self._expected) < 2 or not self._number:
            return ""
        left_s = self._left_s()
        about = "at most" if self._at_most else "about"
        more = "" if left_s is None else f", {about_text(left_s, about)} left"
        return f"cell {self._number} of {len(self._expected)}{more}"

    def _left_s(self) -> float | None:
        """Return the seconds until all cells are done, if what is to come goes at the pace so far; None if unknown."""
        done = sum(cell.progress.done for cell in self._cells)
        took_s = sum(cell.progress.elapsed_s or 0.0 for cell in self._cells)
        left_s = self._cells[-1].eta_s if self._cells and self._cells[-1].state == "running" else 0.0
        if left_s is None or not done:
            return None
        for requests, duration_s in self._expected[self._number :]:
            ends = [*([] if requests is None else [requests * took_s / done]), *([duration_s] if duration_s else [])]
            left_s += min(ends, default=0.0)
        return left_s

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show what is waited for, and for how long already; it may take minutes."""
        began, over = self._clock(), threading.Event()
        what = printable(what)

        def tick() -> None:
            shown = False
            while not over.wait(WAITING_EVERY_S):
                with self._lock:
                    self._waiting = f"{what} … {clock_text(self._clock() - began)}"
                    self._draw()
                    if self._live is None and not shown:
                        self.print(f"{what} …")
                shown = True

        if self._live is not None:
            self._waiting = f"{what} …"
            self._draw()
        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._waiting = ""

    def begin(
        self,
        name: str,
        planned: int | None,
        duration_s: float | None = None,
        already_done: int = 0,
        *,
        at_most: bool = False,
    ) -> Progress:
        """Start a cell and return its Progress: add to it, call ``refresh`` often, then ``end``."""
        with self._lock:
            self.end()
            cell = _DisplayedCell(printable(name), planned, duration_s, already_done, Progress(self._clock))
            cell.at_most = at_most
            self._cells.append(cell)
            self._begun += 1
            self._next = self._clock() + self._every_s
            self._draw()
            self._tell_of(cell)
            return cell.progress

    def refresh(self, in_flight: int) -> None:
        """Show the current state if an update is due; the first request in flight starts the cell's clock.

        It may be called from any thread, and mostly returns at once, so that it does not disturb the load.
        """
        if not self._cells or self._cells[-1].ended:
            return
        cell = self._cells[-1]
        cell.in_flight = in_flight
        if in_flight:
            cell.progress.start()
        now = self._clock()
        if now < self._next:
            return
        with self._lock:
            self._next = now + self._every_s
            self._update(cell)

    def end(self, complete: bool = False) -> None:
        """End the running cell; do nothing if there is none."""
        with self._lock:
            if not self._cells or self._cells[-1].ended:
                return
            cell = self._cells[-1]
            cell.progress.stop()
            cell.ended, cell.complete = True, complete
            self._update(cell)

    def print(self, text: str) -> None:
        """Print a line of text above the bars."""
        if not self._quiet:
            text = "\n".join(map(printable, text.splitlines()))
            with self._lock:
                self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def answer(self, text: str) -> None:
        """Print a line that somebody has asked for, also where no progress is shown."""
        if self._quiet:
            complain(text)
        else:
            self.print(text)

    def _tell_of(self, cell: _DisplayedCell) -> None:
        if self._tell is not None:
            progress = cell.progress
            self._tell(CellProgress(
                name=cell.name, state=cell.state, done=cell.done, planned=cell.planned, share=cell.share,
                in_flight=cell.in_flight, errors=progress.errors, elapsed_s=progress.elapsed_s, eta_s=cell.eta_s,
                requests_per_s=progress.requests_per_s, tokens_per_s=progress.tokens_per_s,
                ttft_p50_s=progress.ttft_p50_s, share_correct=progress.share_correct,
            ))  # fmt: skip

    def _update(self, cell: _DisplayedCell) -> None:
        self._tell_of(cell)
        if self._live is None:
            total = self.total if cell.state == "running" else ""
            self.print(f"{line(cell)}; {total}" if total else line(cell))
        else:
            self._draw()

    def _draw(self) -> None:
        if self._live is not None:
            size = self._console.size
            kept = [*self._cells][-max(1, size.height - 4) :]
            below = "; ".join(filter(None, (self._waiting, self.total)))
            self._live.update(bars(kept, self._begun - len(kept), size.width, below), refresh=True)

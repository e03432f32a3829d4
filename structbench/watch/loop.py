"""The loop of ``structbench watch``: scrape, show, wait, until the load has ended.

Invariant: the endpoint is only read; the load counts as ended only after two failed scrapes in a row.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from structbench.formatting import plural, printable
from structbench.watch.endpoint import Scrape, Unreachable, fetch, parse
from structbench.watch.screen import HISTORY, Trend, line, screen, trend
from structbench.watch.snapshot import SCRAPED, Snapshot, snapshot_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

WINDOW_S = 10.0
"""Seconds that rates and percentiles cover."""
GONE_AFTER = 2
"""Failed scrapes in a row after which the load counts as ended."""
RETRY_S = 1.0


@dataclass(slots=True)
class WatchLoop:
    """Watch one load; ``run`` returns when it has ended."""

    url: str
    every_s: float
    console: Console
    read: Callable[[str], str] = fetch
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    scrapes: deque[Scrape] = field(default_factory=deque)
    """The scrapes of the window, oldest first."""
    history: deque[Trend] = field(default_factory=lambda: deque(maxlen=HISTORY))
    shown: Snapshot = field(default_factory=Snapshot)

    def run(self) -> None:
        live = self._live()
        failed = 0
        try:
            while True:
                try:
                    now = parse(self.read(self.url), self.url, self.clock(), SCRAPED)
                except Unreachable as error:
                    failed += 1
                    if self.scrapes and failed >= GONE_AFTER:
                        break
                    if not self.scrapes and failed == 1:
                        why = printable(str(error))
                        self._print_line(
                            f"{self.url} does not answer yet ({why}): waiting for a load; press Ctrl-C to stop"
                        )
                else:
                    failed = 0
                    self._show(now, live)
                self.pause(min(self.every_s, RETRY_S) if failed else self.every_s)
        finally:
            if live is not None:
                live.stop()
        self._print_line(
            f"the load has ended: {self.url} no longer answers ({plural(len(self.shown.cells), 'cell')} seen)"
        )

    def _live(self) -> Live | None:
        from rich.live import Live

        if not self.console.is_terminal or self.console.is_dumb_terminal:
            return None
        # A stream that goes to a file must stay there; rich would print it above the screen.
        return Live(
            console=self.console, auto_refresh=False,
            redirect_stdout=sys.stdout.isatty(), redirect_stderr=sys.stderr.isatty(),
        )  # fmt: skip

    def _show(self, now: Scrape, live: Live | None) -> None:
        before, self.shown = self.shown, snapshot_of(now, self.scrapes)
        self.scrapes.append(now)
        while len(self.scrapes) > 1 and now.at_s - self.scrapes[1].at_s >= WINDOW_S:
            self.scrapes.popleft()
        self.history.append(trend(self.shown))
        if live is None:
            self._print_cells(before)
            return
        live.start()
        size = self.console.size
        live.update(screen(self.shown, self.history, self.url, size.width, size.height), refresh=True)

    def _print_cells(self, before: Snapshot) -> None:
        """Print a line for each running cell, and for each that has ended since ``before``."""
        ran = {cell.key for cell in before.running}
        for cell in self.shown.cells:
            if cell.state == "running" or cell.key in ran or not before.cells:
                self._print_line(line(cell))

    def _print_line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

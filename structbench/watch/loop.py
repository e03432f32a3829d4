"""The screen of ``structbench watch`` (plain lines without a terminal), and the loop that scrapes, shows and waits.

Invariant: no text from outside (models, suites, labels) drives the terminal or rich's markup.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from structbench.formatting import (
    ABSENT,
    bytes_text,
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
from structbench.watch.endpoint import Scrape, Unreachable, fetch, parse
from structbench.watch.snapshot import (
    SCRAPED,
    CellSnapshot,
    ClientSnapshot,
    Percentiles,
    ServerSnapshot,
    Snapshot,
    snapshot_of,
)

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

WINDOW_S = 10.0
"""Seconds that rates and percentiles cover."""
GONE_AFTER = 2
"""Failed scrapes in a row after which the load counts as ended."""
RETRY_S = 1.0
MIN_NAME = 16
HISTORY = 120
_BLOCKS = "▁▂▃▄▅▆▇█"
_LATENCIES = tuple(METRICS[name].label for name in ("ttft", "itl", "e2e"))
_TTFT_P50 = METRICS["ttft"].at("p50").label
_STYLES = {"valid": "green", "degraded": "yellow", "invalid": "red"}


class Trend(NamedTuple):
    """One point of the curves on the screen, over all running cells."""

    requests_per_s: float | None
    tokens_per_s: float | None
    ttft_p50_s: float | None


def trend(snapshot: Snapshot) -> Trend:
    """Return the rates summed over running cells, and the TTFT of the cell that began last."""
    running = snapshot.running
    rates = [cell.requests_per_s for cell in running if cell.requests_per_s is not None]
    tokens = [cell.tokens_per_s for cell in running if cell.tokens_per_s is not None]
    return Trend(
        sum(rates) if rates else None, sum(tokens) if tokens else None, running[-1].ttft.p50 if running else None
    )


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Draw the last values as blocks from 0 to the highest, with a blank for a missing one."""
    shown = values[-width:] if width > 0 else []
    highest = max((value for value in shown if value is not None), default=0.0)
    if highest <= 0:
        return "".join(" " if value is None else _BLOCKS[0] for value in shown)
    last = len(_BLOCKS) - 1
    return "".join(" " if value is None else _BLOCKS[round(max(0.0, value) / highest * last)] for value in shown)


def line(cell: CellSnapshot) -> str:
    """Return the cell as one plain line, without what is not known."""
    parts = [
        plural(cell.done, "request") if cell.planned is None else f"{cell.done}/{cell.planned} requests",
        None if cell.requests_per_s is None else f"{rate_text(cell.requests_per_s)}/s",
        None if cell.tokens_per_s is None else f"{rate_text(cell.tokens_per_s)} tok/s",
        f"{cell.in_flight} in flight" if cell.state == "running" else None,
        *(_percentiles_text(name, of) for name, of in zip(_LATENCIES, (cell.ttft, cell.itl, cell.e2e), strict=True)),
        None if cell.share_correct is None else f"{share_text(cell.share_correct, 0)} correct",
        errors_text(cell),
        cell.verdict,
        None if cell.state == "running" else cell.state,
    ]
    return f"{printable(cell.key.name)}: {', '.join(part for part in parts if part is not None)}"


def _percentiles_text(name: str, of: Percentiles) -> str | None:
    if of.p50 is None:
        return None
    return f"{name} p50 {latency_text(of.p50)} p95 {latency_text(of.p95)} p99 {latency_text(of.p99)}"


def errors_text(cell: CellSnapshot) -> str:
    """Return the errors as text: ``0 errors``, ``3 errors (timeout 2, 503 1)``."""
    total = sum(cell.errors.values())
    kinds = ", ".join(f"{printable(kind)} {n}" for kind, n in sorted(cell.errors.items(), key=lambda item: -item[1]))
    return plural(total, "error") + (f" ({kinds})" if kinds else "")


def client_text(client: ClientSnapshot) -> str:
    """Return the state of the load generator as one line."""
    parts = [
        None if client.cores is None else f"{client.cores:.1f} cores",
        None if client.memory_bytes is None else bytes_text(client.memory_bytes),
        None if client.workers is None else plural(int(client.workers), "worker"),
        None if client.loop_lag_s is None else f"loop lag {latency_text(client.loop_lag_s)}",
        None if client.send_lag_p99_s is None else f"send lag p99 {latency_text(client.send_lag_p99_s)}",
        None if client.read_lag_p99_s is None else f"read lag p99 {latency_text(client.read_lag_p99_s)}",
        None if client.backlog is None else f"{plural(int(client.backlog), 'row')} waiting",
    ]
    return ", ".join(part for part in parts if part is not None) or ABSENT


def server_text(server: ServerSnapshot | None) -> str:
    """Return the model's memory as one line."""
    if server is None:
        return ABSENT
    parts = [
        f"{printable(server.model)} takes {bytes_text(server.size_bytes)}",
        None if server.vram_share is None else f"{share_text(server.vram_share, 0)} on GPU",
        None if server.expires_s is None else f"unloaded after {span_text(server.expires_s)} without requests",
    ]
    return ", ".join(part for part in parts if part is not None)


def screen(snapshot: Snapshot, history: deque[Trend], url: str, width: int, height: int) -> Group:
    """Return the whole screen for a terminal of this size."""
    from rich.console import Group
    from rich.text import Text

    states = ", ".join(f"{n} {state}" for state, n in snapshot.states.items())
    title = _unwrapped(f"{url}  cells: {states or len(snapshot.cells)}", "dim")
    title.overflow = "ellipsis"
    newest = snapshot.running[-1:] or snapshot.cells[-1:]
    errors = [f"{printable(cell.key.name)}: {errors_text(cell)}" for cell in snapshot.cells if cell.errors]
    below = [f"client  {client_text(snapshot.client)}", f"server  {server_text(snapshot.server)}"]
    below += [f"errors  {text}" for text in errors[-3:]]
    room = max(1, height - len(below) - 18)  # for what surrounds the cells, and lines that wrap
    cells = snapshot.cells[-room:]
    hidden = len(snapshot.cells) - len(cells)
    return Group(
        title,
        *([Text(f"{plural(hidden, 'earlier cell')} not shown", style="dim")] if hidden else []),
        _cells(cells, width),
        Text(),
        *(_latencies(cell, width) for cell in newest),
        Text(),
        _curves(history, width),
        Text(),
        *(Text(printable(text)) for text in below),
    )


def _cells(cells: Sequence[CellSnapshot], width: int) -> Table:
    rows = [
        (
            f"{cell.done}" if cell.planned is None else f"{cell.done}/{cell.planned}",
            f"{cell.in_flight}" if cell.state == "running" else cell.state,
            rate_text(cell.requests_per_s),
            rate_text(cell.tokens_per_s),
            share_text(cell.share_correct, 0),
            f"{sum(cell.errors.values())}",
            ABSENT if cell.verdict is None else cell.verdict,
        )
        for cell in cells
    ]
    table = _table("", "requests", "in flight", "req/s", "tok/s", "correct", "errors", "verdict")
    widths = [max(len(text) for text in texts) for texts in zip(*rows, strict=True)] if rows else []
    headings = [len(str(column.header)) for column in table.columns[1:]]
    taken = sum(max(pair) + 1 for pair in zip(widths, headings, strict=True)) if rows else 0
    for cell, row in zip(cells, rows, strict=True):
        name = without_middle(printable(cell.key.name), max(MIN_NAME, width - taken - 1))
        styles = ["", "", "", "", "", "red" if cell.errors else "", _STYLES.get(row[-1], "dim")]
        table.add_row(_unwrapped(name), *(_unwrapped(text, style) for text, style in zip(row, styles, strict=True)))
    return table


def _latencies(cell: CellSnapshot, width: int) -> Table:
    name = without_middle(printable(cell.key.name), max(MIN_NAME, width - 40))
    table = _table(name, "p50", "p95", "p99")
    for title, of in zip(_LATENCIES, (cell.ttft, cell.itl, cell.e2e), strict=True):
        table.add_row(_unwrapped(title), *(_unwrapped(latency_text(value)) for value in of))
    return table


def _curves(history: deque[Trend], width: int) -> Table:
    from rich.table import Table

    now = history[-1]
    latest = [rate_text(now.requests_per_s), rate_text(now.tokens_per_s), latency_text(now.ttft_p50_s)]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    for title, values, text in zip(("req/s", "tok/s", _TTFT_P50), zip(*history, strict=True), latest, strict=True):
        table.add_row(_unwrapped(title), _unwrapped(sparkline(values, max(10, width - 24)), "cyan"), _unwrapped(text))
    return table


def _table(first: str, *others: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(_unwrapped(first, "dim"), no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _unwrapped(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(printable(text), style=style, no_wrap=True)


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
        live = live_view(self.console)
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
        self.console.print(printable(text), markup=False, highlight=False, emoji=False, soft_wrap=True)

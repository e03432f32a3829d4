"""The snapshot of a load from two scrapes: cells, percentiles of the last seconds, client, server. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from loadgen.telemetry import instruments as of
from loadgen.telemetry.histogram import Buckets
from loadgen.telemetry.instruments import prometheus
from structbench.watch.endpoint import CellKey, Metrics, Scrape

TTFT = prometheus(of.FIRST_CHUNK)
ITL = prometheus(of.CHUNK_GAP)
E2E = prometheus(of.DURATION)
TOKENS = prometheus(of.TOKENS)
REQUESTS = prometheus(of.REQUESTS)
PLANNED = prometheus(of.PLANNED)
IN_FLIGHT = prometheus(of.IN_FLIGHT)
CELLS = prometheus(of.CELLS)
VERDICT = prometheus(of.VERDICT)
SEND_LAG = prometheus(of.SEND_LAG)
READ_LAG = prometheus(of.READ_LAG)
CPU = prometheus(of.CLIENT_CPU)
MEMORY = prometheus(of.CLIENT_MEMORY)
LOOP_LAG = prometheus(of.LOOP_LAG)
WORKERS = prometheus(of.WORKERS)
BACKLOG = prometheus(of.BACKLOG)
MODEL_SIZE = prometheus(of.MODEL_SIZE)
VRAM_SHARE = prometheus(of.MODEL_VRAM_SHARE)
EXPIRY = prometheus(of.MODEL_EXPIRY)

SCRAPED = (
    *(f"{name}_bucket" for name in (TTFT, ITL, E2E, SEND_LAG, READ_LAG)), f"{TOKENS}_sum", f"{TOKENS}_count",
    f"{E2E}_count", REQUESTS, PLANNED, IN_FLIGHT, CELLS, VERDICT, CPU, MEMORY, LOOP_LAG, WORKERS, BACKLOG, MODEL_SIZE,
    VRAM_SHARE, EXPIRY,
)  # fmt: skip
"""The names of everything that is read from an endpoint."""
VERDICTS = ("valid", "degraded", "invalid")


class Percentiles(NamedTuple):
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSnapshot:
    """The current state of a cell."""

    key: CellKey
    done: int
    planned: int | None
    in_flight: int
    state: Literal["running", "done", "ended"]
    requests_per_s: float | None
    tokens_per_s: float | None
    correct: int
    errors: Mapping[str, int]
    """Error kind -> how many."""
    ttft: Percentiles
    itl: Percentiles
    e2e: Percentiles
    verdict: str | None

    @property
    def share_correct(self) -> float | None:
        """Correct answers / all requests, failed ones included."""
        return self.correct / self.done if self.done else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSnapshot:
    """The current state of the load generator."""

    cores: float | None = None
    memory_bytes: float | None = None
    workers: float | None = None
    loop_lag_s: float | None = None
    backlog: float | None = None
    send_lag_p99_s: float | None = None
    read_lag_p99_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSnapshot:
    """The memory of the running model."""

    model: str
    size_bytes: float
    vram_share: float | None
    expires_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The current state of a load: its cells, client and server."""

    cells: tuple[CellSnapshot, ...] = ()
    states: Mapping[str, int] = field(default_factory=dict)
    """State -> number of cells: waiting, running, complete, …"""
    client: ClientSnapshot = field(default_factory=ClientSnapshot)
    server: ServerSnapshot | None = None

    @property
    def running(self) -> tuple[CellSnapshot, ...]:
        return tuple(cell for cell in self.cells if cell.state == "running")


def snapshot_of(now: Scrape, earlier: Sequence[Scrape] = ()) -> Snapshot:
    """Return what ``now`` shows; rates and percentiles are since the ``earlier`` scrapes (oldest first)."""
    cells = []
    for key, series in now.cells.items():
        # A cell that has just begun is measured from its beginning, not over the whole window.
        before = next((scrape for scrape in earlier if key in scrape.cells), earlier[-1] if earlier else None)
        then = None if before is None else before.cells.get(key, Metrics())
        span_s = 0.0 if before is None else now.at_s - before.at_s
        cells.append(_cell(key, _Window(series, then, span_s)))
    states = {state: n for state, n in now.rest.by(CELLS, "structbench_cell_state").items() if n}
    newest = next((cell.key for cell in reversed(cells) if cell.state == "running"), None)
    if newest is None:
        return Snapshot(cells=tuple(cells), states=states)
    series = now.cells[newest]
    return Snapshot(cells=tuple(cells), states=states, client=_client(series), server=_server(newest, series))


class _Window(NamedTuple):
    """A cell's metrics at both ends of the window."""

    now: Metrics
    before: Metrics | None
    span_s: float

    def per_s(self, name: str, **labels: str) -> float | None:
        if self.before is None or self.span_s <= 0:
            return None
        value, earlier = self.now.count(name, **labels), self.before.count(name, **labels)
        return (value if earlier > value else value - earlier) / self.span_s

    def percentiles(self, name: str, **labels: str) -> Percentiles:
        """Return percentiles of the window, or of the whole run if nothing came in the window."""
        whole = self.now.histogram(name, **labels)
        if whole is None:
            return _percentiles(None)
        recent = whole.since(None if self.before is None else self.before.histogram(name, **labels))
        return _percentiles(recent if recent.count else whole)


def _percentiles(histogram: Buckets | None) -> Percentiles:
    return Percentiles(*(None if histogram is None else histogram.quantile(q) for q in (0.5, 0.95, 0.99)))


def _cell(key: CellKey, window: _Window) -> CellSnapshot:
    now, verdict = window.now, window.now.value(VERDICT)
    done, in_flight, planned = now.count(REQUESTS), now.count(IN_FLIGHT), now.value(PLANNED)
    complete = planned is not None and done >= planned
    moving = window.before is not None and done > window.before.count(REQUESTS)
    running = in_flight > 0 or (moving and not complete)
    errors = now.by(REQUESTS, "error_type")
    counted = now.count(f"{TOKENS}_count", gen_ai_token_type="output", error_type="")
    all_counted = counted >= now.count(f"{E2E}_count", error_type="")  # a sum over unknowns is unknown
    return CellSnapshot(
        key=key,
        done=done,
        planned=None if planned is None else int(planned),
        in_flight=in_flight,
        state="running" if running else "done" if complete else "ended",
        requests_per_s=window.per_s(REQUESTS) if running else None,
        tokens_per_s=window.per_s(f"{TOKENS}_sum", gen_ai_token_type="output") if running and all_counted else None,
        correct=now.count(REQUESTS, structbench_outcome="correct"),
        errors=errors,
        ttft=window.percentiles(TTFT),
        itl=window.percentiles(ITL),
        e2e=window.percentiles(E2E, error_type=""),
        verdict=VERDICTS[int(verdict)] if verdict is not None and 0 <= verdict < len(VERDICTS) else None,
    )


def _client(series: Metrics) -> ClientSnapshot:
    return ClientSnapshot(
        cores=series.value(CPU),
        memory_bytes=series.value(MEMORY),
        workers=series.value(WORKERS),
        loop_lag_s=series.value(LOOP_LAG),
        backlog=series.value(BACKLOG),
        send_lag_p99_s=_percentiles(series.histogram(SEND_LAG)).p99,
        read_lag_p99_s=_percentiles(series.histogram(READ_LAG)).p99,
    )


def _server(key: CellKey, series: Metrics) -> ServerSnapshot | None:
    size = series.value(MODEL_SIZE)
    if size is None:
        return None
    return ServerSnapshot(
        model=key.model, size_bytes=size, vram_share=series.value(VRAM_SHARE), expires_s=series.value(EXPIRY)
    )

"""The cost of telemetry: metrics scraped every second and spans pushed, against neither, in alternating loads.

What is compared was measured minutes apart on the same server, each way equally often first; this process scrapes and
receives the pushes, and its processor time is in no figure.
"""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.servers import Server, free_port, serve
from benchmarks.table import Figure
from benchmarks.timing import OTHERS, SCENARIOS, settle, timed_load

NAME = "metrics and spans at 128 streams, on against off"
_SCENARIO = next(scenario for scenario in SCENARIOS if scenario.concurrency == 128)
_ORDER = (False, True, True, False)
_MAX_CPU_RATIO = 1.10
_MAX_TTFT_MS = 0.1
_SCRAPE_S = 1.0
_SCRAPER = {"Accept": "application/openmetrics-text; version=1.0.0"}


@dataclass(frozen=True, slots=True)
class _Load:
    cpu_s: float
    """Processor time of all processes."""
    per_token_us: float
    ttft_off_ms: float
    """TTFT p50 as stored - as measured by the server."""
    others: float


def measure(seconds: float, truthserver: Path | None) -> list[Figure]:
    """Run off, on, on, off; return the ratio of their processor times and the difference of their TTFTs."""
    found: dict[bool, list[_Load]] = {False: [], True: []}
    settle()
    with serve(_SCENARIO.timetable, truthserver) as server, _sink() as url:
        for watched in _ORDER:
            found[watched].append(_watched(seconds, server, url) if watched else _load(seconds, server, 0))
    off, on = found[False], found[True]
    per_token = [sum(load.per_token_us for load in loads) / len(loads) for loads in (off, on)]
    ttft = [sum(load.ttft_off_ms for load in loads) / len(loads) for loads in (off, on)]
    cpu = sum(load.cpu_s for load in on) / sum(load.cpu_s for load in off)
    return [
        _figure("processor time per token, off", per_token[0], "µs"),
        _figure("processor time per token, on", per_token[1], "µs"),
        _figure("processor time, on / off", cpu, at_most=_MAX_CPU_RATIO),
        _figure("TTFT p50, on - off", ttft[1] - ttft[0], "ms", at_most=_MAX_TTFT_MS),
        _figure(OTHERS, max(load.others for load in off + on)),
    ]


def _watched(seconds: float, server: Server, url: str) -> _Load:
    port = free_port()
    with _scraping(port):
        return _load(seconds, server, port, "--otlp", url)


def _load(seconds: float, server: Server, port: int, *more: str) -> _Load:
    usage, facts, truth = timed_load(_SCENARIO, seconds, server, "--metrics-port", str(port), *more)
    off_ms = (facts["ttft_p50_s"] - truth.ttft_p50_s) * 1e3
    return _Load(usage.cpu_s, usage.cpu_s / facts["tokens"] * 1e6, off_ms, usage.others_cores)


@contextmanager
def _scraping(port: int) -> Iterator[None]:
    """Scrape once a second, as Prometheus does."""
    over = threading.Event()

    def scrape() -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=_SCRAPER)
        while not over.wait(_SCRAPE_S):
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    answer.read()
            except OSError:
                continue  # not up yet, or over

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _sink() -> Iterator[str]:
    """Run a collector that accepts everything and keeps nothing; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _figure(name: str, value: float, unit: str = "", *, at_most: float | None = None) -> Figure:
    return Figure(benchmark=NAME, name=name, value=value, unit=unit, at_most=at_most)

"""Two servers with a known timetable: the built-in simulator, and a truth server in C given by its path.

Each runs in a process of its own and ends with its ``with`` block.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from loadgen.simulator import PROFILES, SimulatorProcess
from structbench.stats import percentile

_PROMPT_TOKENS = 550
"""Typical length of a benchmark's prompt, which sets the simulated server's TTFT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """How a server times each request, however many there are."""

    ttft_s: float
    itl_s: float
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTiming:
    """The server's own figures."""

    requests: int
    ttft_p50_s: float
    ttft_p99_s: float
    first_ns: int
    """When the first request came, by the monotonic clock."""


class Server(Protocol):
    """A running server."""

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def pid(self) -> int: ...

    def forget(self) -> None:
        """Reset the figures."""

    def truth(self) -> ServerTiming:
        """Return the figures so far, over all requests including warm-up."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """The built-in simulator."""

    url: str
    pid: int
    name: str = "simulator"
    model: str = "bench"
    context: ssl.SSLContext | None = None
    """To ask over https."""

    def forget(self) -> None:
        _ask(self.url + "/truth/reset", b"", self.context)

    def truth(self) -> ServerTiming:
        requests = [
            r for r in _ask(self.url + "/truth", None, self.context)["requests"] if r["first_ns"] and r["chunks"]
        ]
        ttfts = [(r["first_ns"] - r["received_ns"]) / 1e9 for r in requests]
        return ServerTiming(
            requests=len(ttfts), ttft_p50_s=_quantile(ttfts, 0.5), ttft_p99_s=_quantile(ttfts, 0.99),
            first_ns=min((r["received_ns"] for r in requests), default=0),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TruthServer:
    """A truth server: ``binary PORT TTFT_MS ITL_MS TOKENS``, with GET /stats and GET /reset."""

    url: str
    pid: int
    name: str = "truth server"
    model: str = "truth"

    def forget(self) -> None:
        _ask(self.url + "/reset")

    def truth(self) -> ServerTiming:
        return truth_of_stats(_ask(self.url + "/stats"))


def truth_of_stats(stats: dict[str, Any]) -> ServerTiming:
    """Return the figures from the truth server's statistics."""
    ttft = stats["ttft_ms"]
    return ServerTiming(
        requests=stats["completed"], ttft_p50_s=ttft["p50"] / 1e3, ttft_p99_s=ttft["p99"] / 1e3,
        first_ns=round(stats["first_request_monotonic_s"] * 1e9),
    )  # fmt: skip


@contextmanager
def simulate(timetable: Timetable, certificate: tuple[str, str] | None = None) -> Iterator[Server]:
    """Run the simulator, over https if there is a certificate (its file and its key's)."""
    profile = replace(
        PROFILES["sim:fast"], tokens_per_s=1 / timetable.itl_s, parallel=512,
        prompt_tokens_per_s=_PROMPT_TOKENS / timetable.ttft_s,
    )  # fmt: skip
    context = None if certificate is None else ssl.create_default_context(cafile=certificate[0])
    with SimulatorProcess({"bench": profile}, certificate=certificate) as simulator:
        yield Simulated(simulator.url, simulator.pid, context=context)


@contextmanager
def serve(timetable: Timetable, truthserver: Path | None) -> Iterator[Server]:
    """Run the truth server if one is given, else the simulator."""
    if truthserver is None:
        with simulate(timetable) as simulated:
            yield simulated
        return
    with _compiled(truthserver) as binary:
        port = free_port()
        process = subprocess.Popen([binary, *arguments_of(timetable, port)])
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url)
            yield TruthServer(url, process.pid)
        finally:
            process.kill()
            process.wait()


def arguments_of(timetable: Timetable, port: int) -> Sequence[str]:
    return [str(port), f"{timetable.ttft_s * 1e3:g}", f"{timetable.itl_s * 1e3:g}", str(timetable.tokens)]


@contextmanager
def _compiled(path: Path) -> Iterator[Path]:
    """Yield the binary itself, or one compiled from its C source."""
    if path.suffix != ".c":
        yield path.resolve()
        return
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SystemExit(f"no C compiler for {path}: install gcc, or give a compiled binary")
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "truthserver"
        subprocess.run([compiler, "-O2", "-o", binary, path], check=True)
        yield binary


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_for(url: str) -> None:
    for _ in range(200):
        try:
            _ask(url + "/api/version")
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"the truth server at {url} does not answer")


def _ask(url: str, data: bytes | None = None, context: ssl.SSLContext | None = None) -> dict[str, Any]:
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=30, context=context) as answer:
        return json.loads(answer.read() or b"{}")  # type: ignore[no-any-return]


def _quantile(values: Sequence[float], q: float) -> float:
    value = percentile(values, q)
    return float("nan") if value is None else value

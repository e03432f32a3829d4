"""What the tests of Prometheus share: the real server with this repository's configuration, on ports of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from grafana.ask import query
from tests.support.loads import ROOT

GRAFANA = ROOT / "grafana"
NEEDED = [
    pytest.mark.prometheus,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus binary is installed"),
]


@dataclass(frozen=True, slots=True)
class Prometheus:
    url: str
    metrics_port: int
    """Where it looks for a load."""

    def value(self, expr: str) -> float | None:
        """The value of an instant query that gives at most one series; None while there is none."""
        try:
            found = query(self.url, expr)
        except OSError:
            return None
        assert len(found) <= 1, f"{expr} gives {len(found)} series"
        return float(found[0]["value"][1]) if found else None

    def until(self, expr: str, holds: Callable[[float | None], bool], limit_s: float = 30) -> float | None:
        """The value as soon as it is what is waited for, or the last one after the limit."""
        end = time.monotonic() + limit_s
        while True:
            seen = self.value(expr)
            if holds(seen) or time.monotonic() > end:
                return seen
            time.sleep(0.3)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus]:
    """The real server with grafana/prometheus.yml and its rules; only the port of the load is another."""
    metrics, own = free_port(), free_port()
    text = (GRAFANA / "prometheus.yml").read_text()
    assert text.count("127.0.0.1:9464") == 1
    config = folder / "prometheus.yml"
    config.write_text(text.replace("127.0.0.1:9464", f"127.0.0.1:{metrics}"))
    shutil.copytree(GRAFANA / "rules", folder / "rules")
    with (folder / "prometheus.log").open("w") as log:
        server = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{own}", "--enable-feature=exemplar-storage"], stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield Prometheus(f"http://127.0.0.1:{own}", metrics)
        finally:
            server.terminate()
            server.wait(20)

"""An OTLP collector of a few lines, in this process: keeps what it is sent, or misbehaves as told."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Manner = Literal["good", "500", "hangs"]


@dataclass
class Collector:
    url: str = ""
    traces: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    """What came, message by message."""
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: bytes = b""

    @property
    def spans(self) -> list[Any]:
        return [span for sent in self.traces for r in sent.resource_spans for s in r.scope_spans for span in s.spans]

    @property
    def requests(self) -> list[Any]:
        """The spans of requests, without the run's own."""
        return [span for span in self.spans if span.name != "structbench.run"]

    @property
    def resource(self) -> dict[str, Any]:
        return attributes(self.traces[0].resource_spans[0].resource)

    def last(self, name: str) -> list[Any]:
        """The data points of a metric as last pushed; cumulative metrics are then whole."""
        points: list[Any] = []
        for metric in self.all(name):
            points = list(getattr(metric, metric.WhichOneof("data")).data_points)
        return points

    def all(self, name: str) -> list[Any]:
        return [
            metric
            for sent in self.metrics
            for r in sent.resource_metrics
            for s in r.scope_metrics
            for metric in s.metrics
            if metric.name == name
        ]


def attributes(of: Any) -> dict[str, Any]:
    """The attributes of a span, point or resource as Python values."""
    return {pair.key: _value(pair.value) for pair in of.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(item) for item in value.array_value.values)
    return getattr(value, kind)


@contextmanager
def collecting(manner: Manner = "good") -> Iterator[Collector]:
    """Listen until the block ends."""
    collector, over = Collector(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if manner == "hangs":
                over.wait(30)
            if manner != "good":
                with suppress(ConnectionError):  # whoever sent it may be gone
                    self.send_error(500)
                return
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.raw += body
            collector.headers.append({name.lower(): value for name, value in self.headers.items()})
            if self.path == "/v1/traces":
                collector.traces.append(ExportTraceServiceRequest.FromString(body))
            elif self.path == "/v1/metrics":
                collector.metrics.append(ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield collector
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()

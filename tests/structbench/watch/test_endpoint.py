"""What a metrics endpoint says is read as it stands; what is none is told in one line."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from math import inf

import pytest
from rich.console import Console

from loadgen.wire.access import access_of
from structbench.errors import BadInput
from structbench.watch.endpoint import CellKey, Unreachable, endpoint, fetch, parse
from structbench.watch.loop import WatchLoop
from structbench.watch.snapshot import IN_FLIGHT, PLANNED, REQUESTS, TTFT
from tests.support.expositions import CELL, URL, exposition
from tests.support.scripted_server import Peer, Scripted


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://127.0.0.1:9464/metrics", "http://127.0.0.1:9464/metrics"),
        ("127.0.0.1:9464", "http://127.0.0.1:9464/metrics"),
        ("http://gpu-box:9464/", "http://gpu-box:9464/metrics"),
        ("https://gpu-box/metrics/load", "https://gpu-box/metrics/load"),
        ("[::1]:9464", "http://[::1]:9464/metrics"),
    ],
)
def test_an_address_is_enough(given: str, meant: str) -> None:
    assert endpoint(given) == meant


@pytest.mark.parametrize(
    "given", ["ftp://x/metrics", "http://", "127.0.0.1:nine", "", "http://[::1", "file:///etc/passwd"]
)
def test_what_is_no_address_is_bad_input(given: str) -> None:
    with pytest.raises(BadInput, match="is not a valid address: give one such as"):
        endpoint(given)


def test_cells_are_told_apart_and_their_series_added_up() -> None:
    other = CellKey("llama3.2:1b", "json", "c=4", "night")
    text = exposition(latencies=[0.05, 0.5], errors={"timeout": 2, "503": 1}, planned=9, in_flight=3)
    now = parse(text + exposition(other, latencies=[5.0]), URL, 1.0)
    assert list(now.cells) == [CELL, other]
    series = now.cells[CELL]
    assert series.count(REQUESTS) == 5
    assert series.count(REQUESTS, error_type="") == 2
    assert series.by(REQUESTS, "error_type") == {"timeout": 2, "503": 1}
    assert (series.value(PLANNED), series.value(IN_FLIGHT)) == (9, 3)
    histogram = series.histogram(TTFT)
    assert histogram is not None
    assert (histogram.bounds, histogram.counts) == ((0.01, 0.11, 1.0, inf), (0, 1, 2, 2))
    assert now.rest.by("structbench_cells", "structbench_cell_state") == {"running": 2}


def test_what_is_absent_is_none_and_a_counter_that_never_counted_is_zero() -> None:
    series = parse(exposition(), URL, 1.0).cells[CELL]
    assert series.value(PLANNED) is None
    assert series.histogram(TTFT) is None
    assert series.count(REQUESTS) == 0


def test_odd_names_and_values_do_no_harm() -> None:
    key = CellKey("a\u2028b\x85c", "s", "c=1")
    now = parse(exposition(key, in_flight=2, more={PLANNED: float("nan")}), URL, 1.0)
    assert list(now.cells) == [key]
    assert (now.cells[key].count(IN_FLIGHT), now.cells[key].value(PLANNED)) == (2, None)


def test_a_load_that_has_only_begun_is_no_mistake() -> None:
    assert parse("", URL, 1.0).cells == {}
    assert parse('# TYPE target_info gauge\ntarget_info{service_name="structbench"} 1.0\n', URL, 1.0).cells == {}
    assert parse('structbench_cells{structbench_cell_state="waiting"} 4.0\n', URL, 1.0).cells == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("node_load1 0.3\n", "but not those of a load"),
        ("<html>hello</html>", "but not those of a load"),
        ('structbench_requests_total{a="b} 1\n', "did not return metrics"),
        ("structbench_requests_total many\n", "did not return metrics"),
        ("structbench_x_bucket 1\n", "did not return metrics"),
        ('structbench_x_bucket{le="wide"} 1\n', "did not return metrics"),
    ],
)
def test_other_texts_are_bad_input(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=why) as told:
        parse(text, URL, 1.0)
    assert "\n" not in str(told.value)


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, kind, body = {
            "/metrics": (200, "text/plain; version=0.0.4; charset=utf-8", exposition().encode()),
            "/html": (200, "text/html", b"<html></html>"),
            "/binary": (200, "text/plain", b"\xff\xfe\x00"),
        }.get(self.path, (404, "text/plain", b"no"))
        if self.path == "/hang-up":
            self.connection.close()
            return
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/metrics")
            self.end_headers()
            return
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Site)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a closed connection is no news
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetching(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # is not asked
    assert fetch(f"{site}/metrics") == exposition()


@pytest.mark.parametrize(
    ("path", "why"),
    [("/html", "returned text/html"), ("/nothing", "status 404"), ("/binary", "did not return UTF-8 text")],
)
def test_something_else_answers(site: str, path: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        fetch(site + path)


def test_a_redirect_is_told_and_not_followed(site: str) -> None:
    with pytest.raises(BadInput) as caught:
        fetch(f"{site}/moved")
    assert str(caught.value) == f"{site}/moved redirects to {site}/metrics: give that as --url"


def test_nothing_answers(site: str) -> None:
    with pytest.raises(Unreachable):
        fetch(f"{site}/hang-up")
    with pytest.raises(Unreachable, match="Connection refused"):
        fetch("http://127.0.0.1:1/metrics")


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_an_endpoint_that_drips_ends_a_watch_with_a_line(begin: bytes) -> None:
    """Each of its bytes comes in time, in the body or among the headers."""

    def drip(peer: Peer) -> None:
        peer.read()
        peer.sock.sendall(begin)
        for number in range(500):
            peer.sock.sendall(b"x-%d: 1\r\n" % number)
            time.sleep(0.02)

    with Scripted(drip) as server:
        watching = WatchLoop(f"{server.url}/metrics", 0.01, Console(file=io.StringIO()), partial(fetch, timeout_s=0.1))
        with pytest.raises(BadInput) as told:
            watching.run()
        assert server.connections == 1
        server.hang_up()
    assert str(told.value).startswith(f"{server.url}/metrics sends an answer without an end (0.2 s): give the --url")


@pytest.mark.parametrize("said", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200, b"HTTP/1.1 \r\n"])
def test_what_is_no_http_is_something_else_and_not_waited_for(said: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.sock.sendall(said)

    with Scripted(script) as server, pytest.raises(BadInput, match="sends no answer as HTTP has them"):
        fetch(f"{server.url}/metrics")


@pytest.mark.parametrize(
    "said",
    ["200 OK\r\nContent-Type: text/{}", "302 Found\r\nLocation: http://other/?key={}", "{}",
     "302 Found\r\nLocation: http://[{}"],
)  # fmt: skip
def test_no_answer_that_repeats_a_key_is_passed_on(said: str) -> None:
    def script(peer: Peer) -> None:
        asked = peer.read()
        assert asked is not None
        peer.sock.sendall(f"HTTP/1.1 {said.format(asked.headers['x-key'])}\r\nContent-Length: 0\r\n\r\n".encode())

    with Scripted(script) as server, pytest.raises((BadInput, Unreachable)) as told:
        fetch(server.url, access=access_of({"K": "s3cret-key"}, header_env=["X-Key=K"]))
    assert "s3cret" not in str(told.value)
    assert "***" in str(told.value)

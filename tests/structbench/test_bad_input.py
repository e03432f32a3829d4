"""Whatever is wrong: one line that says what to do, exit code 2, nothing sent, nothing changed."""

from __future__ import annotations

import http.server
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from loadgen.simulator import Simulator
from structbench.cli import main
from structbench.store import Store
from tests.support.gateway import gateway
from tests.support.loads import MODELS

GOOD = '{"id": "a", "prompt": "Hello"}\n'


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(MODELS) as server:
        yield server


@pytest.fixture
def refused(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OLLAMA_HOST", sim.url)
    sim.reset_truth()
    return Refused(sim, tmp_path, capsys)


class Refused:
    """Calls the command, which must refuse; returns what it said."""

    def __init__(self, sim: Simulator, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.sim, self.folder, self.capsys = sim, folder, capsys

    def __call__(self, *words: str) -> str:
        given = {"--models": ["sim:fast"], "--suites": ["numbers"], "--metrics-port": ["0"]}
        argv = list(words) + [word for key, values in given.items() if key not in words for word in (key, *values)]
        before = self._files()
        code = main(["load", *argv])
        out, err = self.capsys.readouterr()
        assert (code, out) == (2, "")
        assert err.startswith("structbench: ")
        assert err.count("\n") == 1, err
        assert self.sim.truth(summary=True)["totals"]["requests"] == 0, "something was sent"
        assert self._files() == before, "something was changed"
        return err

    def _files(self) -> dict[Path, bytes | None]:
        paths = [path for path in self.folder.rglob("*") if not path.name.endswith(".spool")]
        return {path: path.read_bytes() if path.is_file() else None for path in paths}


def test_no_server(refused: Refused) -> None:
    with socket.socket() as taken:  # bound, not listening: nobody else gets the port, and nobody answers
        taken.bind(("127.0.0.1", 0))
        text = refused("--host", f"127.0.0.1:{taken.getsockname()[1]}")
    assert "no server answers at http://127.0.0.1:" in text
    assert "`ollama serve`, or give --host, or --simulate" in text


@pytest.mark.parametrize("host", ["ftp://127.0.0.1", "127.0.0.1:notaport", "http://[::1", "127.0.0.1:99999", "http://"])
def test_a_host_that_is_none(refused: Refused, host: str) -> None:
    assert "--host" in refused("--host", host)


@contextmanager
def not_ollama(status: int, body: bytes) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>hi</html>"), (404, b"404 page not found"), (200, b'{"version": 7}'), (200, b"[]"),
     (200, b'{"version": "1.0", "models": "none"}'), (500, b"")],
)  # fmt: skip
def test_a_host_that_answers_but_is_not_ollama(refused: Refused, status: int, body: bytes) -> None:
    with not_ollama(status, body) as host:
        assert f"what answers at http://{host} is not Ollama" in refused("--host", host)


def test_a_host_that_speaks_no_http(refused: Refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection = listening.accept()[0]
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert "127.0.0.1" in refused("--host", f"127.0.0.1:{listening.getsockname()[1]}")
        thread.join()


def test_unknown_models_are_all_named(refused: Refused) -> None:
    text = refused("--models", "nosuch:1b", "sim:fast", "other")
    assert "does not have nosuch:1b, other: run `ollama pull nosuch:1b; ollama pull other`, or add --pull" in text


def test_a_model_that_cannot_be_pulled(refused: Refused) -> None:
    assert refused.sim.truth(summary=True)["totals"]["requests"] == 0
    code = main(["load", "--models", "nosuch:1b", "--suites", "numbers", "--metrics-port", "0", "--pull"])
    assert code == 2
    assert "nosuch:1b cannot be pulled" in refused.capsys.readouterr().err
    assert refused.sim.truth(summary=True)["totals"]["requests"] == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--suites", "jsn"], 'unknown suite "jsn": did you mean "json"?'),
        (["--modles", "a"], "unknown option --modles: did you mean --models? (see `structbench load --help`)"),
        (["--requests", "many"], "--requests"),
        (["--requests", "1.5"], "--requests"),
        (["--requests"], "--requests"),
        (["--arrival", "uniform"], "--arrival"),
        (["--endpoint", "v1"], "--endpoint"),
        (["--structured", "yaml"], "--structured"),
        (["stray"], "stray"),
        (["--requests", "0"], "--requests 0: give more than 0"),
        (["--requests", "-5"], "--requests -5: give more than 0"),
        (["--concurrency", "4", "0"], "--concurrency 0: give more than 0"),
        (["--rate", "-2"], "--rate -2: give more than 0"),
        (["--rate", "nan"], "--rate nan"),
        (["--duration", "0"], "--duration 0"),
        (["--timeout", "-1"], "--timeout -1"),
        (["--warmup", "-1"], "--warmup -1: give 0 or more"),
        (["--workers", "0"], "--workers 0"),
        (["--mean-input-tokens", "0"], "--mean-input-tokens 0"),
        (["--stddev-output-tokens", "-1"], "--stddev-output-tokens -1"),
        (["--metrics-port", "70000"], "--metrics-port '70000': give a port"),
        (["--otlp", "localhost:4318"], "--otlp 'localhost:4318' is not a valid collector address: give one such as http://"),
        (["--otlp-content"], "--otlp-content needs a collector to push to"),
        (["--rate", "2", "--concurrency", "1"], "--rate and --concurrency cannot be combined"),
        (["--option", "temperature"], "--option 'temperature' has no '=': write key=value"),
        (["--option", "top_k=1", "temperature"], "--option 'temperature' has no '='"),
        (["--slo", "ttft_p95 0.5"], '--slo "ttft_p95 0.5", at position 10, \'0.5\': expected <, <=, > or >='),
        (["--slo", "ttft_p95<1", "tftt_p95<1"], "did you mean ttft_p95?"),
        (["--slo", "goodput>1"], "add --goodput, e.g. ttft<0.5"),
        (["--goodput", "ttft_p95<1"], "did you mean ttft?"),
        (["--abort-on-slo"], "--abort-on-slo needs a condition: add --slo"),
        (["--junit", "."], "--junit . is a folder"),
        (["--junit", "nowhere/out.xml"], "--junit nowhere/out.xml: the folder nowhere does not exist"),
        (["--junit", "new.duckdb", "--db", "./new.duckdb"], "--junit new.duckdb is the database itself"),
        (["--suites", "tools", "--endpoint", "generate"], "use --endpoint chat"),
        (["--suites", "json", "--tags", "prson"], "no case of these suites has this tag; they have bill, books"),
        (["--suites", "mine.jsonl"], "suite file mine.jsonl does not exist"),
        (["--suites", "."], "is a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_words_that_make_no_sense(refused: Refused, words: list[str], text: str) -> None:
    assert text in refused(*words)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "suite file mine.jsonl is empty"),
        ("\n \n", "suite file mine.jsonl is empty"),
        (GOOD + "{no json\n", "mine.jsonl, line 2: not JSON"),
        (GOOD + "\n" + "[1]\n", "mine.jsonl, line 3: must be an object"),
        ('{"id": "a"}\n', "mine.jsonl, line 1"),
        ('{"id": "a", "prompt": "b", "schema": {"type": "objekt"}}\n', "mine.jsonl, line 1"),
        ('{"id": "a", "prompt": "b", "schema": 7}\n', "mine.jsonl, line 1"),
    ],
)
def test_a_suite_file_that_is_wrong(refused: Refused, content: str, text: str) -> None:
    Path("mine.jsonl").write_text(content)
    assert text in refused("--suites", "mine.jsonl")


def test_a_database_path_that_is_a_folder(refused: Refused) -> None:
    Path("here").mkdir()
    assert "folder" in refused("--db", "here")
    assert "folder" in refused("--db", "nowhere/x.duckdb")


def test_a_database_that_is_none(refused: Refused) -> None:
    Path("x.duckdb").write_text("no database " * 500)
    assert "x.duckdb is not a DuckDB database: give another --db" in refused("--db", "x.duckdb")


def test_a_database_of_another_program(refused: Refused) -> None:
    with duckdb.connect("x.duckdb") as con:
        con.execute("CREATE TABLE runs (a INTEGER)")
    assert "x.duckdb" in refused("--db", "x.duckdb")


def test_a_database_of_a_newer_version(refused: Refused) -> None:
    Store(Path("x.duckdb")).close()
    with duckdb.connect("x.duckdb") as con:
        con.execute("INSERT INTO migrations VALUES (99, 'later', NULL, '7.0.0')").fetchall()
    assert "7.0.0" in refused("--db", "x.duckdb")


def test_a_database_that_is_not_writable(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(Path("x.duckdb")).close()
    Path("x.duckdb").chmod(stat.S_IRUSR)
    if os.geteuid() == 0:  # to root everything is writable: ask the mode instead
        monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0 or Path(path).stat().st_mode & 0o200)
    assert "x.duckdb is not writable" in refused("--db", "x.duckdb")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux")
def test_a_database_where_no_file_can_be(refused: Refused) -> None:
    assert "/proc" in refused("--db", "/proc/x.duckdb")


def test_a_database_that_another_process_holds(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Store.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Store.__init__.__kwdefaults__, "patience_s", 0.1)
    Store(Path("x.duckdb")).close()
    hold = "import duckdb; c = duckdb.connect('x.duckdb'); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert f"x.duckdb is in use by another process (PID {holder.pid}, python" in refused("--db", "x.duckdb")
        holder.communicate(b"\n")


def test_a_metrics_port_in_use(refused: Refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        text = refused("--metrics-port", port)
    assert f"cannot serve metrics on 127.0.0.1:{port}" in text
    assert "another --metrics-port, or 0 for none" in text


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["laod"], "unknown command 'laod': did you mean load?"),
        (["simulate", "--prot", "1"], "unknown option --prot: did you mean --port?"),
        (["simulate", "--host", "203.0.113.1", "--port", "0"], "cannot listen on 203.0.113.1:0"),
        (["suites", "json"], "json"),
        (["demo", "--requests", "1"], "--requests"),
    ],
)
def test_other_commands(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--api-key-env", "NOT_SET"], "--api-key-env: the variable NOT_SET is not set: export it, or name another"),
        (["--header", "Host=gpu"], "--header Host: structbench sets this header itself: leave it out"),
        (["--header-env", "X-A=NOT_SET"], "--header-env X-A: the variable NOT_SET is not set"),
        (["--ca", "nowhere.pem"], "--ca nowhere.pem cannot be read (No such file or directory)"),
        (["--cert", "nowhere.pem"], "--cert nowhere.pem: a file cannot be read (No such file or directory)"),
        (["--host", "unix://run/x"], "'unix://run/x' is not the address of a unix socket: give --host like unix:///run"),
        (["--host", "ada:word@127.0.0.1:1", "--header", "Authorization=x"],
         "the header Authorization is given twice: by --header Authorization and by the user and password in the"),
    ],
)  # fmt: skip
def test_what_is_to_let_us_in_and_cannot(refused: Refused, words: list[str], message: str) -> None:
    assert message in refused(*words)
    assert message in refused_by_matrix(refused, *words)


def refused_by_matrix(refused: Refused, *words: str) -> str:
    """The same options mean the same to another command that asks the server."""
    assert main(["matrix", "--models", "sim:fast", *words]) == 2
    return refused.capsys.readouterr().err


def test_a_server_that_wants_a_key_says_so_before_anything_is_sent(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    with Simulator(MODELS, key="k") as locked:
        text = refused("--host", locked.url)
        assert text == f"structbench: {locked.url} answers HTTP 401: set OLLAMA_API_KEY or give --api-key-env\n"
        monkeypatch.setenv("OLLAMA_API_KEY", "wrong")
        assert "HTTP 401: the server does not accept the key in OLLAMA_API_KEY" in refused("--host", locked.url)


@pytest.mark.slow
def test_a_gateway_that_lets_nobody_ask_a_model_says_so_before_anything_is_stored(refused: Refused) -> None:
    with gateway(refused.sim.url, lambda path, _headers, _body: 403 if path == "/api/generate" else None) as front:
        code = main(["load", "--models", "sim:fast", "--suites", "numbers", "--metrics-port", "0", "--host", front.url])
    err = refused.capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"structbench: {front.url} answers HTTP 403: ")
    with Store(refused.folder / "structbench.duckdb") as store:
        assert store.query("SELECT count(*) AS n FROM runs") == [{"n": 0}]

"""What lets us in is shown to the server and to nobody else: it is planted in every way, and looked for everywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from loadgen.simulator import Simulator
from structbench.cli import main
from structbench.options import LoadOptions, as_arguments
from structbench.store import Reader
from tests.support.collector import collecting
from tests.support.gateway import gateway
from tests.support.loads import MODELS, ROOT
from tests.support.scripted_server import Asked, Peer, Scripted

KEY, OTHER_KEY, TEAM = "sk-planted-in-a-variable", "planted-in-another", "planted-on-the-command-line"
PASSWORD = "pl@nted:word"
USERINFO = "ada:pl%40nted%3Aword"
BASIC = b64encode(f"ada:{PASSWORD}".encode()).decode()
SECRETS = (KEY, OTHER_KEY, TEAM, PASSWORD, "pl%40nted", BASIC)
TABLES = ("runs", "segments", "requests", "samples", "features", "notes", "lookups", "summary")


def refuses(path: str, headers: Mapping[str, str], body: bytes) -> int | None:
    """Let in who shows key and team, or the password; fail each third question now and then, with what was shown."""
    by_key = headers.get("authorization") == f"Bearer {KEY}" and headers.get("x-api-key") == OTHER_KEY
    if not (headers.get("x-team") == TEAM and (by_key or headers.get("authorization") == f"Basic {BASIC}")):
        return 401
    if path != "/api/chat" or b'"model":"usual"' not in body.replace(b" ", b""):
        return None
    return {1: 500, 2: 401}.get(sum(body) % 3)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "MY_KEY": KEY, "MY_OTHER_KEY": OTHER_KEY, **more}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "structbench", *words]


def leaks(text: str | bytes) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    return [secret for secret in SECRETS if secret.encode() in data]


def leaks_in_files(folder: Path) -> list[tuple[str, list[str]]]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [(path.name, found) for path in paths if (found := leaks(path.read_bytes()))]


def leaks_in_tables(db: Path) -> list[tuple[str, list[str]]]:
    """DuckDB compresses what it stores, so that a search of the file alone proves nothing."""
    with Reader(db) as reader:
        texts = {table: str(reader.query(f"SELECT * FROM {table}")) for table in TABLES}
    assert "usual" in texts["requests"] + texts["runs"]
    return [(table, found) for table, text in texts.items() if (found := leaks(text))]


def words_of_children(process: subprocess.Popen[str]) -> Iterator[str]:
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            words = child.cmdline()
            if words != process.args:  # else it is between fork and exec
                yield " ".join(words)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["by variables", "in the address"])
def test_no_secret_is_anywhere_but_at_the_server(tmp_path: Path, capfd: pytest.CaptureFixture[str], way: str) -> None:
    db, port = tmp_path / "x.duckdb", 19464 + (way == "in the address")
    keys = ("--api-key-env", "MY_KEY", "--header-env", "X-Api-Key=MY_OTHER_KEY")
    with (
        Simulator({**MODELS, "usual": MODELS["sim:fast"]}) as sim,
        gateway(sim.url, refuses) as front,
        collecting() as told,
    ):
        host = front.url if way == "by variables" else front.url.replace("://", f"://{USERINFO}@")
        shown = (*(keys if way == "by variables" else ()), "--header", f"X-Team={TEAM}", "--host", host)
        words = command(
            "load", "--models", "usual", "--suites", "numbers", "text", "--requests", "400", "--concurrency", "2",
            "--db", str(db), "--metrics-port", str(port), "--otlp", told.url, "--otlp-content", "--label", "x",
            "--embed-model", "sim:embed", "--junit", str(tmp_path / "junit.xml"), "--json", *shown,
        )  # fmt: skip
        process = subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)  # fmt: skip
        metrics, seen = "", []
        while front.let_in["/api/chat"] < 30:
            assert process.poll() is None, process.communicate()
            seen += list(words_of_children(process))
            time.sleep(0.05)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        spool = leaks_in_files(tmp_path)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        probing = command("matrix", "--models", "usual", "--db", str(db), "--timeout", "5", "--json", *shown)
        matrix = subprocess.run(probing, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert process.returncode == 130, err
    assert matrix.returncode == 0, matrix.stderr
    assert "to continue: structbench load" in err
    assert "X-Team=***" in err
    assert way == "by variables" or "***@127.0.0.1" in err
    assert "structbench_requests_total" in metrics
    assert len(seen) > 0
    assert told.spans
    for name, text in {"stdout": out, "stderr": err, "metrics": metrics, "children": "\n".join(seen),
                       "spans": told.raw + str(told.traces).encode() + str(told.metrics).encode(),
                       "matrix": matrix.stdout + matrix.stderr}.items():  # fmt: skip
        assert leaks(text) == [], name
    for report in (("report", "--format", "json"), ("report", "--format", "html"), ("report", "--format", "markdown"),
                   ("report",), ("runs", "--json"), ("stats",), ("verify",), ("export", "--format", "jsonl"),
                   ("sql", "SELECT * FROM runs")):  # fmt: skip
        main([*report, "--db", str(db)])
        assert leaks("".join(capfd.readouterr())) == [], report
    assert spool == leaks_in_files(tmp_path) == leaks_in_tables(db) == []
    with Reader(db) as reader:
        errors = {row["error_message"] for row in reader.query("SELECT error_message FROM requests")} - {None}
        (config,) = {row["config"] for row in reader.query("SELECT config FROM runs WHERE suite = 'numbers'")}
    assert any("not with ***" in error for error in errors), "what the server repeated was never stored: nothing shown"
    assert any(error.startswith("HTTP 401: the server does not accept the ") for error in errors)
    wanted = ["x-api-key", "x-team"] if way == "by variables" else ["x-team"]
    assert json.loads(config)["headers"] == wanted
    assert json.loads(config)["server_address"] == front.url


def test_options_show_no_secret() -> None:
    options = LoadOptions(host=f"https://{USERINFO}@gpu.lan", header=[f"X-Team={TEAM}"], header_env=["X-Api-Key=K"],
                          otlp=f"http://{USERINFO}@collector")  # fmt: skip
    assert leaks(repr(options)) == []
    words = as_arguments(options)
    assert leaks(" ".join(words)) == []
    assert words == ["--host", "https://***@gpu.lan", "--header-env", "X-Api-Key=K", "--header", "X-Team=***",
                     "--otlp", "http://***@collector"]  # fmt: skip


def pages(path: str, body: bytes) -> bytes:
    """What a server of /v1 says: its models, and a short answer in the words of each API."""
    if path.endswith("/models"):
        return json.dumps({"object": "list", "data": [{"id": "usual", "object": "model", "owned_by": "x"}]}).encode()
    return json.dumps({"error": {"message": f"no {path} of {len(body)} bytes"}}).encode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("api", "variable", "shown"),
    [("openai", "OPENAI_API_KEY", "authorization"), ("responses", "OPENAI_API_KEY", "authorization"),
     ("anthropic", "ANTHROPIC_API_KEY", "x-api-key")],
)  # fmt: skip
def test_no_secret_of_the_other_apis_is_anywhere_but_at_the_server(
    tmp_path: Path, api: str, variable: str, shown: str
) -> None:
    """Their own variables, a password in --base-url and in several --host; the server repeats what it is shown."""
    seen: list[str] = []

    def script(peer: Peer) -> None:
        while (asked := peer.read()) is not None:
            seen.append(json.dumps(dict(asked.headers)))
            path = asked.head.split()[1]
            ok = path.endswith("/models")
            said = pages(path, asked.data) if ok else json.dumps({"error": {"message": seen[-1]}}).encode()
            peer.plain(200 if ok else 400, said)

    with Scripted(script) as one, Scripted(script) as other:
        hidden = [server.url.replace("://", f"://{USERINFO}@") for server in (one, other)]
        for number, where in enumerate((
            ("--host", f"{one.url}/v1"), ("--host", f"{hidden[0]}/v1", f"{hidden[1]}/v1"),
            ("--base-url", f"{hidden[0]}/v1"),
        )):  # fmt: skip
            seen.clear()
            db = tmp_path / f"{number}.duckdb"
            words = command(
                "load", "--api", api, "--models", "usual", "--suites", "numbers", "--requests", "4", "--db", str(db),
                "--metrics-port", "0", "--json", "--header-env", "X-Extra=MY_OTHER_KEY", *where,
            )  # fmt: skip
            done = subprocess.run(
                words, cwd=tmp_path, env=environment(**{variable: KEY}), capture_output=True, text=True
            )
            assert any(OTHER_KEY in each for each in seen), done.stderr
            assert any((KEY if number == 0 else BASIC) in each for each in seen), (shown, done.stderr)
            assert "Traceback" not in done.stderr
            assert leaks(done.stdout + done.stderr) == []
            assert leaks_in_files(tmp_path) == []
            if db.exists():
                with Reader(db) as reader:
                    rows = "".join(str(reader.query(f"SELECT * FROM {table}")) for table in TABLES)
                assert leaks(rows) == []
                assert "***" in rows


def echoes(asked: Asked) -> list[tuple[int, dict[str, str], str]]:
    """Answers that repeat what is shown: status, headers and body of each."""
    shown = asked.headers.get("authorization", "")
    return [
        (302, {"Location": f"http://other.example/login?key={quote(shown)}"}, ""),
        (302, {"Location": f"http://[{shown}"}, ""),
        (200, {"Content-Type": "text/html"}, f"<html>{shown}</html>"),
        (200, {"Content-Type": "application/json"}, json.dumps({"shown": shown})),
        (500, {"Content-Type": "text/plain"}, f"not with {shown}"),
        (404, {"Content-Type": "application/json"}, json.dumps({"error": {"message": f"not with {shown}"}})),
        (200, {"Content-Type": f"text/{shown}"}, "x"),
    ]


def say(peer: Peer, status: int, headers: Mapping[str, str], body: str) -> None:
    peer.head(status, {**headers, "Content-Length": str(len(body))})
    peer.sock.sendall(body.encode())


LISTS = {
    "/api/version": {"version": "0.30.0"}, "/api/tags": {"models": [{"name": "usual", "digest": "d"}]},
    "/v1/models": {"object": "list", "data": [{"id": "usual", "object": "model", "owned_by": "x"}]},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("way", ["by a variable", "in the address"])
@pytest.mark.parametrize("api", ["ollama", "openai"])
def test_no_answer_that_repeats_a_secret_is_told_or_stored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, way: str, api: str
) -> None:
    """First whatever the server is asked is answered so, then only what is asked for an answer, each in its turn."""
    monkeypatch.setenv("MY_KEY", KEY)
    turn, told, knows_itself = 0, "", False

    def script(peer: Peer) -> None:
        nonlocal turn
        while (asked := peer.read()) is not None:
            path, said = asked.head.split()[1], echoes(asked)
            if knows_itself and path in LISTS:
                peer.plain(200, json.dumps(LISTS[path]).encode())
            else:
                say(peer, *said[turn % len(said)])
                turn += knows_itself

    def done(*words: str) -> None:
        nonlocal told
        main([*words, "--api", api, "--host", host, *given, "--db", str(tmp_path / "x.duckdb")])
        out = "".join(capfd.readouterr())
        assert "Traceback" not in out
        assert leaks(out) == [], words
        told += out

    with Scripted(script) as server:
        host = server.url if way == "by a variable" else server.url.replace("://", f"://{USERINFO}@")
        host += "/v1" if api == "openai" else ""
        given = ("--api-key-env", "MY_KEY") if way == "by a variable" else ()
        for _ in range(7):
            done("load", "--models", "usual", "--suites", "numbers", "--dry-run")
            done("matrix", "--models", "usual")
            turn += 1
        assert "http" in told
        knows_itself = True
        for words in (("load", "--suites", "numbers", "--requests", "14", "--metrics-port", "0"), ("matrix",)):
            turn = 2  # a redirect at once, as the model is loaded, would end it
            done(*words, "--models", "usual")
    assert any((KEY if given else BASIC) in asked.headers.get("authorization", "") for asked in server.asked)
    assert leaks_in_files(tmp_path) == leaks_in_tables(tmp_path / "x.duckdb") == []
    with Reader(tmp_path / "x.duckdb") as reader:
        for column in ("evidence FROM features", "error_message FROM requests"):
            assert any("***" in str(row) for row in reader.query(f"SELECT {column}")), column

"""The simulated server under load and broken: slots, faults, its own record, and how it starts and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import httpx
import ollama
import pytest

from loadgen.simulator import FAULTS, Simulator, SimulatorProcess
from tests.support.paths import ROOT
from tests.support.simulators import ANSWERS, PERSON, body, connect, post, user, wait_for

_ROOT = ROOT / "tests"


@pytest.mark.slow
def test_one_slot_means_one_at_a_time(client: ollama.Client, sim: Simulator) -> None:
    client.generate("one", "")
    sim.reset_truth()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda i: post(sim, body("one", f"q{i}", options={"num_predict": 60})), range(3)))
    entries = sorted(sim.truth()["requests"], key=lambda e: e["done_ns"])
    assert all(b["first_ns"] > a["done_ns"] for a, b in pairwise(entries))
    assert entries[0]["queue_ns"] < entries[1]["queue_ns"] < entries[2]["queue_ns"]
    assert sim.truth(summary=True)["totals"]["max_in_flight"] == 3


def test_a_full_queue_is_503_and_a_lost_client_gives_its_slot_back(sim: Simulator) -> None:
    sim.reset_truth()
    long = body("one", options={"num_predict": 2000})
    data = json.dumps(long).encode()
    socks = [connect(sim) for _ in range(3)]
    for sock in socks:
        sock.sendall(b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))
    socks[0].recv(10)
    wait_for(sim, "in_flight", 3)
    refused = post(sim, long)
    assert (refused.status_code, refused.json()) == (
        503, {"error": "server busy, please try again.  maximum pending requests exceeded"}
    )  # fmt: skip
    for sock in socks:
        sock.close()
    wait_for(sim, "aborted", 3)
    assert post(sim, body("one", options={"num_predict": 1})).status_code == 200


MID = {"reset", "close", "cut", "hang-mid", "slow-drip", "garbage", "huge-line", "invalid-utf8", "error-line",
       "empty-first", "split-line", "no-done-reason", "repeat-guard"}  # fmt: skip


def lines_of(sim: Simulator, fault: str, limit_s: float) -> tuple[list[bytes], str]:
    """The lines that came and how the answer ended: the name of the error, or nothing."""
    got = b""
    sent = body(f"fault:{fault}", options={"num_predict": 8})
    try:
        with httpx.stream("POST", sim.url + "/api/chat", json=sent, timeout=limit_s) as answer:
            for data in answer.iter_raw():
                got += data
    except httpx.HTTPError as error:
        return got.splitlines(), type(error).__name__
    return got.splitlines(), ""


@pytest.mark.parametrize(
    ("fault", "lines", "ending"),
    [
        ("refuse", 0, "ReadError"),
        ("hang-before", 0, "ReadTimeout"),
        ("reset", 4, "ReadError"),
        ("close", 4, "RemoteProtocolError"),
        ("cut", 4, ""),
        ("repeat-guard", 35, ""),
        ("hang-mid", 4, "ReadTimeout"),
        ("slow-drip", 1, "ReadTimeout"),
        ("garbage", 10, ""),
        ("huge-line", 10, ""),
        ("invalid-utf8", 10, ""),
        ("error-line", 5, ""),
        ("empty-first", 10, ""),
        ("split-line", 9, ""),
        ("no-done-reason", 9, ""),
    ],
)
def test_each_fault_in_a_stream(sim: Simulator, fault: str, lines: int, ending: str) -> None:
    sim.reset_truth()
    got, how = lines_of(sim, fault, 0.7 if ending == "ReadTimeout" else 20)
    assert how == ending
    assert len(got) == lines or (fault == "reset" and len(got) <= lines)  # a reset may overtake what was sent
    match fault:
        case "cut" | "repeat-guard":
            assert all(json.loads(line)["done"] is False for line in got)
        case "garbage":
            with pytest.raises(json.JSONDecodeError):
                json.loads(got[4])
        case "huge-line":
            assert len(got[4]) > 32 * 1024 * 1024
        case "invalid-utf8":
            with pytest.raises(UnicodeDecodeError):
                got[4].decode()
        case "error-line":
            assert list(json.loads(got[-1])) == ["error"]
        case "empty-first":
            assert json.loads(got[0])["message"]["content"] == ""
        case "no-done-reason":
            assert "done_reason" not in json.loads(got[-1])
    broken = fault in ("refuse", "hang-before", "reset", "close", "cut", "repeat-guard", "hang-mid", "error-line")
    wait_for(sim, "aborted" if fault == "slow-drip" else "faulted" if broken else "completed", 1)
    assert sim.truth()["requests"][-1]["fault"] == fault


@pytest.mark.parametrize(
    ("fault", "status", "ending"),
    [("reset", 0, "ReadError"), ("cut", 0, "RemoteProtocolError"), ("close", 0, "RemoteProtocolError"),
     ("hang-mid", 0, "ReadTimeout"), ("error-line", 500, ""), ("garbage", 200, ""), ("invalid-utf8", 200, ""),
     ("huge-line", 200, ""), ("404", 404, ""), ("429", 429, ""), ("500", 500, ""), ("503", 503, ""),
     ("wrong-content-type", 200, ""), ("broken-call", 500, ""), ("repeat-error", 500, ""), ("repeat-guard", 200, "")],
)  # fmt: skip
def test_each_fault_in_a_whole_answer(sim: Simulator, fault: str, status: int, ending: str) -> None:
    sent = body("fault:" + fault, stream=False, options={"num_predict": 4})
    limits = 0.7 if ending == "ReadTimeout" else 20
    if ending:
        with pytest.raises(getattr(httpx, ending)):
            httpx.post(sim.url + "/api/chat", json=sent, timeout=limits)
        return
    answer = httpx.post(sim.url + "/api/chat", json=sent, timeout=limits)
    assert answer.status_code == status
    if fault == "wrong-content-type":
        assert answer.headers["content-type"] == "text/html"
    if fault in ("garbage", "invalid-utf8"):
        with pytest.raises(ValueError, match=r"Expecting|decode"):
            json.loads(answer.content)


def test_every_fault_is_tested() -> None:
    early = {"refuse", "hang-before", "404", "429", "500", "503", "broken-call", "repeat-error", "wrong-content-type"}
    v1 = {fault for fault in FAULTS if "/v1" in FAULTS[fault]} | {"empty-body", "close-after", "schema-ignored"}
    counts = {"no-counts", "held-back", "gathered"}  # of which tests/structbench/notes/test_simulated.py tells
    assert set(FAULTS) == MID | early | counts | v1  # the last in test_v1.py


@pytest.mark.slow
def test_faults_by_header_and_by_share(sim: Simulator) -> None:
    assert post(sim, body(), **{"X-Simulate-Fault": "429"}).status_code == 429
    assert post(sim, body(), **{"X-Simulate-Fault": "nonsense"}).status_code == 400
    assert httpx.get(sim.url + "/api/tags", headers={"X-Simulate-Fault": "500"}).status_code == 500
    asked = [body("fault:500@0.5", f"q{i}", options={"num_predict": 1}) for i in range(40)]
    codes = [post(sim, sent).status_code for sent in asked]
    assert {200, 500} == set(codes)
    assert codes == [post(sim, sent).status_code for sent in asked]
    assert post(sim, body("fault:nonsense")).status_code == 404


def test_a_fault_model_can_be_loaded_without_its_fault(client: ollama.Client) -> None:
    assert client.generate("fault:refuse", "").done_reason == "load"


def test_slow_drip_takes_its_time(sim: Simulator) -> None:
    sim.reset_truth()
    sent = body("drip", options={"num_predict": 5})
    assert len(post(sim, sent, **{"X-Simulate-Fault": "slow-drip"}).text.splitlines()) == 6
    entry = sim.truth()["requests"][-1]
    assert entry["last_ns"] - entry["first_ns"] >= 4 * 0.05 * 1e9 * 0.9


def test_truth_over_http(sim: Simulator) -> None:
    assert httpx.post(sim.url + "/truth/reset").status_code == 200
    post(sim, body("sim:fast", "Ada?", format=PERSON))
    post(sim, body("gone"))
    told = httpx.get(sim.url + "/truth").json()
    assert [(e["kind"], e["outcome"], e["status"]) for e in told["requests"]] == [
        ("correct", "completed", 200), (None, "rejected", 404)
    ]  # fmt: skip
    assert httpx.get(sim.url + "/truth?summary=1").json() == {"totals": told["totals"]}
    assert told["totals"]["requests"] == 2


def test_a_taken_port_is_an_error_of_the_caller(sim: Simulator) -> None:
    port = int(sim.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"), Simulator(port=port):
        pass
    with pytest.raises(OSError, match="in use"):
        SimulatorProcess(port=port)


def test_the_process_outlives_ctrl_c_and_ends_when_told() -> None:
    with SimulatorProcess(answers=ANSWERS) as process:
        os.kill(process.pid, signal.SIGINT)
        with ollama.Client(process.url) as client:
            assert client.chat("sim:fast", user("7?")).message.content == "7"
    with pytest.raises(httpx.ConnectError):
        httpx.get(process.url)


SCRIPT = """
import os, sys
from loadgen.simulator import SimulatorProcess, run_simulator
if sys.argv[1] == "run":
    run_simulator(on_ready=lambda url: print(url, flush=True))
else:
    process = SimulatorProcess()
    print(process.url, flush=True)
    sys.stdin.readline()
    os._exit(0)
"""


def start_script(tmp_path: Path, how: str) -> tuple[subprocess.Popen[str], str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = {"PYTHONPATH": str(_ROOT.parent)}
    started = subprocess.Popen([sys.executable, str(script), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True, env={**os.environ, **paths})  # fmt: skip
    assert started.stdout is not None
    return started, started.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_simulator_ends_cleanly_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    started, url = start_script(tmp_path, "run")
    with started:
        assert httpx.get(url).text == "Ollama is running"
        started.send_signal(number)
        assert started.wait(10) == 0


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    started, url = start_script(tmp_path, "process")
    with started:
        assert httpx.get(url).status_code == 200
        started.communicate("end\n", timeout=10)
    tick = threading.Event()
    for _ in range(1000):
        try:
            httpx.get(url)
        except httpx.HTTPError:
            return
        tick.wait(0.01)
    pytest.fail("the server is still there")

"""Two hosts of their own: network namespaces with a cable between, and in one a clock far ahead and a slow way out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from loadgen import OpenLoop
from loadgen.arrivals import due_offsets
from tests.support.loads import ask
from tests.support.paths import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow]
A, B = "10.231.77.1", "10.231.77.2"
IN_A, IN_B = "structbench-a", "structbench-b"
PORT, SERVER = 6390, 11555
DELAY_MS = 4
SLOW = f"ip netns exec {IN_B} tc qdisc add dev sbb root netem delay {DELAY_MS}ms"
AHEAD_S = 5000
MS = 1_000_000
SETUP = [
    f"ip netns add {IN_A}", f"ip netns add {IN_B}",
    f"ip link add sba netns {IN_A} type veth peer name sbb netns {IN_B}",
    *(f"ip -n {name} link set {link} up" for name, end in ((IN_A, "sba"), (IN_B, "sbb")) for link in ("lo", end)),
    f"ip -n {IN_A} addr add {A}/24 dev sba", f"ip -n {IN_B} addr add {B}/24 dev sbb",
    f"ip netns exec {IN_B} unshare --time --monotonic {AHEAD_S} true",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1",
               "RAY_raylet_start_wait_time_s": "180", "RAY_agent_register_timeout_ms": "180000"}  # fmt: skip
AGENTS = ["--num-cpus", "1", "--object-store-memory", "80000000", "--metrics-export-port", "41101",
          "--runtime-env-agent-port", "41102", "--dashboard-agent-listen-port", "41103",
          "--dashboard-agent-grpc-port", "41104", "--block"]  # fmt: skip


def inside(name: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", name, *command]


@contextmanager
def begun(command: Sequence[str], log: Path, is_ready: Callable[[str], bool], what: str) -> Iterator[None]:
    """Run a command in the background, from when its output says that it is ready."""
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=log.parent, env=ENVIRONMENT, stdout=out, stderr=out)
    try:
        end = time.monotonic() + 180
        while not is_ready(log.read_text()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, f"{what} did not start"
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(60)


@dataclass(frozen=True)
class Hosts:
    folder: Path
    is_slow: bool
    """Whether what B sends takes longer: not every kernel has netem."""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """A head and a server on A, a node on B."""
    if find_spec("ray") is None:
        pytest.skip("needs ray: pip install 'structbench[ray]'")
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "tc", "unshare"))):
        pytest.skip("needs root, ip, tc and unshare")
    folder, ray = tmp_path_factory.mktemp("hosts"), str(Path(sys.executable).with_name("ray"))
    with ExitStack() as stack:
        for name in (IN_A, IN_B):
            stack.callback(subprocess.run, ["ip", "netns", "del", name], capture_output=True, check=False)
        for command in SETUP:
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"cannot be had here: {command}: {done.stderr.strip()}")
        is_slow = subprocess.run(SLOW.split(), capture_output=True, check=False).returncode == 0
        serve = [sys.executable, "-m", "structbench", "simulate", "--host", A, "--port", str(SERVER)]
        head = [ray, "start", "--head", "--node-ip-address", A, "--port", str(PORT), "--include-dashboard", "false"]
        node = ["unshare", "--time", "--monotonic", str(AHEAD_S), ray, "start", "--address", f"{A}:{PORT}",
                "--node-ip-address", B]  # fmt: skip
        for where, command, word in (
            (IN_A, serve, str(SERVER)), (IN_A, [*head, *AGENTS], "runtime started"),
            (IN_B, [*node, *AGENTS], "runtime started"),
        ):  # fmt: skip
            log = folder / f"{where}-{command[1].strip('-')}.log"
            stack.enter_context(begun(inside(where, *command), log, lambda text, word=word: word in text, command[0]))  # type: ignore[misc]
        yield Hosts(folder, is_slow)


def test_a_far_hosts_clock_is_known_to_half_its_round_trip_and_its_instants_are_the_drivers(hosts: Hosts) -> None:
    db = hosts.folder / "s.duckdb"
    command = inside(
        IN_A,
        sys.executable,
        "-m",
        "structbench",
        "load",
        "--host",
        f"{A}:{SERVER}",
        "--models",
        "sim:fast",
        "--suites",
        "numbers",
        "--requests",
        "120",
        "--rate",
        "20",
        "--engine",
        "ray",
        "--nodes",
        "2",
        "--ray-address",
        f"{A}:{PORT}",
        "--db",
        str(db),
        "--metrics-port",
        "0",
    )
    done = subprocess.run(
        command, cwd=hosts.folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{A} runs the server and this command too: not enough other nodes remain" in done.stderr
    told = {row[0]: row[1:] for row in ask(db, "SELECT node, clock_offset_ns, clock_error_ns, server_rtt_s FROM nodes")}
    offset, error, rtt = told[B]
    assert abs(offset + AHEAD_S * 10**9) <= error
    assert abs(told[A][0]) <= told[A][1]
    due = [ns for (ns,) in ask(db, "SELECT due_ns FROM requests ORDER BY request_index")]
    planned = due_offsets(OpenLoop(rate=20.0), 120)
    shift = due[0] - planned[0]
    assert max(abs(ns - shift - at) for ns, at in zip(due, planned, strict=True)) <= 2 * error
    if hosts.is_slow:
        assert error >= DELAY_MS / 2 * MS
        assert rtt > DELAY_MS / 1000
        medians = dict(ask(db, "SELECT node, median(ttft_s) FROM requests GROUP BY node"))
        assert medians[B] - medians[A] > DELAY_MS / 2 / 1000, "as far as it is, not as its clock is"

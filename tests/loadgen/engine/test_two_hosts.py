"""Two hosts without Ray: a network namespace of its own, in which the clock is far ahead, and this one.

Whatever Ray does is done by a socket: so the driver, the clocks and the local engine on each are the real ones.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from loadgen import ClosedLoop, OpenLoop, Orders, Readings, RequestRecord
from loadgen.arrivals import due_offsets
from loadgen.engine import Job, nodes
from loadgen.engine.agent import Down, Prepared, Up
from loadgen.engine.child import MessageFramer, frame, receive
from loadgen.engine.clocks import Watch
from loadgen.engine.look import Target, asker
from loadgen.engine.placement import Looked, another
from loadgen.simulator import Simulator
from loadgen.types import NS
from tests.support.paths import ROOT
from tests.support.scripted_server import SOON, chat
from tests.support.simulators import ANSWERS, MODELS

pytestmark = pytest.mark.slow
HERE, THERE, NAME = "10.231.78.1", "10.231.78.2", "structbench-far"
AHEAD_S, DELAY_MS, MS = 5000, 4, 1_000_000
SETUP = [
    f"ip netns add {NAME}", f"ip link add sbhere type veth peer name sbthere netns {NAME}",
    f"ip addr add {HERE}/24 dev sbhere", "ip link set sbhere up", f"ip -n {NAME} addr add {THERE}/24 dev sbthere",
    f"ip -n {NAME} link set sbthere up", f"ip -n {NAME} link set lo up",
    f"ip netns exec {NAME} unshare --time --monotonic {AHEAD_S} true",
]  # fmt: skip
SLOW = f"ip netns exec {NAME} tc qdisc add dev sbthere root netem delay {DELAY_MS}ms"
AGENT = """
import socket, sys
from loadgen.engine.agent import Agent
from loadgen.engine.child import frame, receive
driver, agent = socket.socket(fileno=int(sys.argv[1])), Agent(sys.argv[2], sys.argv[2])
for name, *arguments in receive(driver):
    driver.sendall(frame(getattr(agent, name)(*arguments)))
agent.close()
"""


@dataclass
class Host:
    """An agent's process, and the socket to it."""

    address: str
    before: Sequence[str] = ()
    framer: MessageFramer = field(default_factory=MessageFramer)

    def __enter__(self) -> Host:
        self.sock, theirs = socket.socketpair()
        command = [*self.before, sys.executable, "-c", AGENT, str(theirs.fileno()), self.address]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=env)
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        self.process.wait(30)

    def call(self, *message: Any) -> Any:
        self.sock.sendall(frame(message))
        return next(receive(self.sock))


@dataclass
class Links:
    hosts: Sequence[Host]

    @property
    def names(self) -> Sequence[str]:
        return [host.address for host in self.hosts]

    def ask(self, node: int, down: Down) -> None:
        self.hosts[node].sock.sendall(frame(("exchange", down)))

    def answers(self, timeout_s: float) -> Iterator[tuple[int, Up]]:
        ready, _, _ = select.select([host.sock for host in self.hosts], [], [], timeout_s)
        for number, host in enumerate(self.hosts):
            if host.sock in ready:
                yield from ((number, up) for up in host.framer.feed(host.sock.recv(1 << 20)))


@dataclass
class Cable:
    hosts: list[Host]
    url: str
    is_slow: bool
    """Whether what comes from there takes longer: not every kernel has netem."""


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "tc", "unshare"))):
        pytest.skip("needs root, ip, tc and unshare")
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["ip", "netns", "del", NAME], capture_output=True, check=False)
        for command in SETUP:
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"cannot be had here: {command}: {done.stderr.strip()}")
        is_slow = subprocess.run(SLOW.split(), capture_output=True, check=False).returncode == 0
        server = stack.enter_context(Simulator(MODELS, ANSWERS, host=HERE))
        far = ["ip", "netns", "exec", NAME, "unshare", "--time", "--monotonic", str(AHEAD_S)]
        hosts = [Host(HERE), Host(THERE, far)]
        yield Cable([stack.enter_context(host) for host in hosts], server.url, is_slow)


def run(cable: Cable, load: ClosedLoop | OpenLoop, many: int) -> tuple[list[RequestRecord], Readings, Watch]:
    job = Job(load=load, workers=1, api="ollama", host=cable.url, timeouts=SOON, warmup=())
    jobs, readings = nodes.shares(job, 2), Readings()
    prepared: list[Prepared] = [host.call("prepare", each, 1) for host, each in zip(cable.hosts, jobs, strict=True)]
    watch = Watch([(host.address, told.port, told.token) for host, told in zip(cable.hosts, prepared, strict=True)])
    watch.begin()
    due = due_offsets(load, many) if isinstance(load, OpenLoop) else None
    requests = [chat("hello?", index, model="sim:fast") for index in range(many)]
    found = list(nodes.records(requests, due, jobs, prepared, Links(cable.hosts), watch, Orders(), readings))
    return found, readings, watch


LOOK = """
import json, socket, subprocess, sys
from loadgen.engine.look import asker
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    print(json.dumps(asker()((), [("127.0.0.1", int(sys.argv[1])), sys.argv[2:] + [None]], ())))
"""


@pytest.mark.usefixtures("cable")
def test_one_loopback_address_is_another_server_on_another_host_and_one_socket_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.create_server(("127.0.0.1", 0)) as ours, socket.socket(socket.AF_UNIX) as shared:
        shared.bind(path)
        shared.listen()
        targets: list[Target] = [ours.getsockname(), (path, None)]
        here = Looked(*asker()((), targets, ()))
        command = ["ip", "netns", "exec", NAME, sys.executable, "-c", LOOK, str(targets[0][1]), path]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    there = Looked(*json.loads(done.stdout))
    assert (here.unreached, there.unreached) == ([], [])
    assert another([("this machine", here), ("node n", there)], targets) == (
        f"node n has a server of its own at 127.0.0.1:{targets[0][1]}, which is not that of this machine: "
        "give an address at which every node reaches the same one"
    )
    assert another([("this machine", here), ("node n", there)][::-1], targets) is not None
    assert here.own[1] == there.own[1] is not None, "network and files are not separated alike"


def test_instants_of_a_far_clock_are_the_drivers_and_an_open_loop_keeps_its_schedule(cable: Cable) -> None:
    load = OpenLoop(rate=60.0, arrival="poisson", seed=2)
    records, readings, watch = run(cable, load, 120)
    assert sorted(record.index for record in records) == list(range(120))
    near, far = watch.clocks
    assert abs(near.line.offset_ns) <= near.error_ns
    assert abs(far.line.offset_ns + AHEAD_S * NS) <= far.error_ns
    if not cable.is_slow:
        assert far.error_ns < MS
    assert readings.started_ns is not None
    planned = due_offsets(load, 120)
    for record in records:
        assert record.error is None
        assert record.node in (HERE, THERE)
        assert record.due_ns is not None
        assert abs(record.due_ns - readings.started_ns - planned[record.index]) <= 2 * far.error_ns + 1000
    told = readings.nodes[1]
    assert (told.name, told.requests, told.died) == (THERE, 60, False)
    assert far.error_ns <= told.clock_error_ns < far.error_ns + MS, "it is told right after the last measurement"
    if cable.is_slow:
        assert far.error_ns >= DELAY_MS / 2 * MS
        assert (told.server_rtt_s or 0) > DELAY_MS / 1000
        ttft = {name: median(record.ttft_s or 0 for record in records if record.node == name) for name in (HERE, THERE)}
        assert ttft[THERE] - ttft[HERE] > DELAY_MS / 2000

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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import accumulate
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
FAR = ["ip", "netns", "exec", NAME, "unshare", "--time", "--monotonic", str(AHEAD_S)]
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
        with suppress(BrokenPipeError, ConnectionResetError):  # that it is gone is told where its answer is awaited
            self.hosts[node].sock.sendall(frame(("exchange", down)))

    def answers(self, timeout_s: float) -> Iterator[tuple[int, Up | nodes.Lost]]:
        ready, _, _ = select.select([host.sock for host in self.hosts], [], [], timeout_s)
        for number, host in enumerate(self.hosts):
            if host.sock in ready:
                try:
                    heard = host.sock.recv(1 << 20)
                except ConnectionResetError:  # it left something unread
                    heard = b""
                yield from ((number, up) for up in host.framer.feed(heard))
                if not heard:
                    yield number, nodes.Lost("its process has ended")


@dataclass
class Cable:
    server: Simulator
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
        yield Cable(server, is_slow)


@dataclass
class Ran:
    records: list[RequestRecord]
    readings: Readings
    watch: Watch


def run(cable: Cable, load: ClosedLoop | OpenLoop, many: int, *, far_dies_after: int | None = None) -> Ran:
    """Send so many from hosts of their own; the far one's process is killed after so many records."""
    job = Job(load=load, workers=1, api="ollama", host=cable.server.url, timeouts=SOON, warmup=())
    jobs, readings, found = nodes.shares(job, 2), Readings(), []
    with Host(HERE) as near, Host(THERE, FAR) as far:
        hosts = [near, far]
        prepared: list[Prepared] = [host.call("prepare", each, 1) for host, each in zip(hosts, jobs, strict=True)]
        watch = Watch([(host.address, told.port, told.token) for host, told in zip(hosts, prepared, strict=True)])
        watch.begin()
        due = due_offsets(load, many) if isinstance(load, OpenLoop) else None
        requests = [chat("hello?", index, model="sim:fast") for index in range(many)]
        for record in nodes.records(requests, due, jobs, prepared, Links(hosts), watch, Orders(), readings):
            found.append(record)
            if len(found) == far_dies_after:
                far.process.kill()
    return Ran(found, readings, watch)


def most_at_once(spans: Iterable[tuple[int, int]]) -> int:
    """Return how many of these spans of time lay over each other at most; one that ends makes room at that instant."""
    steps = sorted(step for begin, end in spans for step in ((begin, 1), (end, -1)))
    return max(accumulate(step for _, step in steps))


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
    ran = run(cable, load, 120)
    records, readings, watch = ran.records, ran.readings, ran.watch
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


def test_a_closed_loop_has_exactly_its_streams_in_flight_over_both_hosts(cable: Cable) -> None:
    before = len(cable.server.truth()["requests"])
    ran = run(cable, ClosedLoop(concurrency=5), 80)
    assert sorted(record.index for record in ran.records) == list(range(80))
    assert [record.error for record in ran.records] == [None] * 80
    served = cable.server.truth()["requests"][before:]
    assert len(served) == 80
    assert most_at_once((entry["received_ns"], entry["done_ns"]) for entry in served) <= 5
    for name, slots in ((HERE, 3), (THERE, 2)):
        own = [record for record in ran.records if record.node == name]
        assert most_at_once((record.sent_ns or 0, record.end_ns or 0) for record in own) == slots
    assert sum(told.requests for told in ran.readings.nodes) == 80


def test_a_host_whose_process_ends_loses_what_it_had_and_the_other_does_the_rest(cable: Cable) -> None:
    ran = run(cable, ClosedLoop(concurrency=6), 90, far_dies_after=20)
    assert sorted(record.index for record in ran.records) == list(range(90))
    died = [record for record in ran.records if record.error is not None]
    assert {record.error.kind for record in died if record.error is not None} == {"node_died"}
    assert 1 <= len(died) <= 3
    assert {record.node for record in ran.records[-20:]} == {HERE}
    assert [told.died for told in ran.readings.nodes] == [False, True]

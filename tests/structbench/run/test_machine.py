"""The system's counters of the whole machine, since the reading before; what it does not tell is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from structbench.run.machine import COUNTERS, Machine, counters, pressure_us

PSI = "some avg10=1.00 avg60=0.50 avg300=0.10 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
SNMP = "Ip: Forwarding\nIp: 1\nTcp: MaxConn RetransSegs\nTcp: -1 {}\n"
NETSTAT = "TcpExt: ListenDrops TCPTimeouts\nTcpExt: {} {}\nIpExt: InOctets\nIpExt: 5\n"


class System:
    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.now_s = 100.0

    def read(self, path: Path) -> str:
        if str(path) not in self.files:
            raise FileNotFoundError(path)
        return self.files[str(path)]

    def says(self, pressure: int, resent: int, drops: int, timeouts: int) -> None:
        self.files = {"/proc/pressure/cpu": PSI.format(pressure), "/proc/net/snmp": SNMP.format(resent),
                      "/proc/net/netstat": NETSTAT.format(drops, timeouts)}  # fmt: skip


def test_each_reading_is_of_the_time_since_the_one_before() -> None:
    system = System()
    system.says(pressure=7_000_000, resent=10, drops=20, timeouts=30)
    machine = Machine(system.read, lambda: system.now_s)
    system.now_s += 2
    system.says(pressure=7_500_000, resent=11, drops=22, timeouts=33)
    assert machine.since() == {"processor_pressure": 0.25, "machine_resent_segments": 1, "machine_listen_drops": 2,
                               "machine_tcp_timeouts": 3}  # fmt: skip
    system.now_s += 1
    assert set(machine.since().values()) == {0}
    system.says(pressure=9_000_000, resent=11, drops=22, timeouts=33)
    system.now_s += 1
    assert machine.since()["processor_pressure"] == 1.0


def test_where_the_system_tells_nothing_everything_is_absent() -> None:
    system = System()
    machine = Machine(system.read, lambda: system.now_s)
    assert machine.since() == {"processor_pressure": None, **dict.fromkeys(COUNTERS)}


@pytest.mark.parametrize(("text", "us"), [("", None), ("some", None), ("full total=5\n", None), ("some total=5", 5),
                                          ("some total=x", None), (PSI.format(12), 12)])  # fmt: skip
def test_pressure_is_what_some_process_waited(text: str, us: int | None) -> None:
    assert pressure_us(text) == us


@pytest.mark.parametrize("text", ["", "Tcp: A B", "Tcp: A\nUdp: 1\n", "\n\n", "Ip: A\nIp: 1\n"])
def test_a_table_that_is_none_has_no_counters(text: str) -> None:
    assert dict(counters(text)) == {}

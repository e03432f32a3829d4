"""What the system says of this machine as a whole: processes that wait for a processor, and lost TCP segments.

All of it is of every program together; a value that the system does not tell is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

COUNTERS = {
    "machine_resent_segments": ("RetransSegs",),
    "machine_tcp_timeouts": ("TCPTimeouts",),
    "machine_listen_drops": ("ListenDrops",),
}
"""Column of ``samples`` -> the counters of Linux that it adds up."""
_PRESSURE = Path("/proc/pressure/cpu")
_NETWORK = (Path("/proc/net/snmp"), Path("/proc/net/netstat"))


@dataclass(slots=True)
class Machine:
    """Reads the system's counters; each reading is of the time since the one before."""

    read: Callable[[Path], str] = Path.read_text
    clock: Callable[[], float] = monotonic
    _before: dict[str, int] = field(init=False)
    _at_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._before, self._at_s = self._counts(), self.clock()

    def since(self) -> dict[str, float | int | None]:
        """Return the columns of ``samples`` that are about the machine."""
        before, at_s = self._before, self._at_s
        self._before, self._at_s = self._counts(), self.clock()

        def more(name: str) -> int | None:
            return self._before[name] - before[name] if name in self._before and name in before else None

        waited_us, passed_s = more("pressure_us"), self._at_s - at_s
        found: dict[str, float | int | None] = {
            "processor_pressure": None if waited_us is None or passed_s <= 0 else min(1.0, waited_us / 1e6 / passed_s)
        }
        return found | {column: more(column) for column in COUNTERS}

    def _counts(self) -> dict[str, int]:
        known: dict[str, int] = {}
        for path in _NETWORK:
            known |= dict(counters(self._text(path)))
        found = {
            column: sum(known[name] for name in names)
            for column, names in COUNTERS.items()
            if all(name in known for name in names)
        }
        pressure = pressure_us(self._text(_PRESSURE))
        return found if pressure is None else found | {"pressure_us": pressure}

    def _text(self, path: Path) -> str:
        try:
            return self.read(path)
        except OSError:
            return ""


def pressure_us(text: str) -> int | None:
    """Return how many µs some process has waited for a processor since the machine started (PSI)."""
    for line in text.splitlines():
        kind, _, total = line.partition("total=")
        if kind.startswith("some") and total.isdigit():
            return int(total)
    return None


def counters(text: str) -> Iterator[tuple[str, int]]:
    """Yield the TCP counters of a table of /proc/net: a line of names, and one of their values."""
    lines = [line.split() for line in text.splitlines()]
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if names and values and names[0] == values[0] and names[0] in ("Tcp:", "TcpExt:"):
            yield from ((name, int(value)) for name, value in zip(names[1:], values[1:], strict=False))

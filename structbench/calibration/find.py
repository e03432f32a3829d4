"""Finds both limits of this machine, streams and requests a second, and says them in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from time import monotonic

from structbench.calibration.kept import Calibration, GaveOut
from structbench.calibration.measuring import LIMIT, QUIET_CORES, TOKENS_PER_S, Kind, Machine, Measurement
from structbench.calibration.search import Found, highest

_BUDGET_S = 42.0
"""For each of the two searches; a measurement that has begun is finished."""
_START: dict[Kind, int] = {"streams": 16, "rate": 50}
_MOST = 4096


def find(tell: Callable[[str], None], machine: Machine | None = None) -> Calibration:
    """Measure rising loads and return the highest; ``tell`` gets a line for each measurement."""
    others: list[float] = []
    found: dict[Kind, Found[Measurement]] = {}
    with machine or Machine() as measuring:
        for kind, start in _START.items():
            ends_s = monotonic() + _BUDGET_S

            def measure(size: int, kind: Kind = kind) -> Measurement:
                measured = measuring.measure(kind, size)
                others.append(measured.others_cores)
                tell(f"{_size(kind, size)}: {_outcome(measured)}")
                return measured

            found[kind] = highest(measure, start, _MOST, in_time=lambda ends_s=ends_s: monotonic() < ends_s)  # type: ignore[misc]
    return Calibration(
        streams=found["streams"].best, tokens_per_s=TOKENS_PER_S, rate=found["rate"].best,
        streams_gave_out=gave_out(found["streams"]), rate_gave_out=gave_out(found["rate"]),
        calibrated_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", others_cores=round(max(others), 2),
    )  # fmt: skip


def gave_out(found: Found[Measurement]) -> GaveOut | None:
    """Return who failed first above the highest load."""
    if found.failure is None:
        return None
    return "server" if found.failure.server_gave_out else "client"


def sentences(found: Calibration) -> Iterator[str]:
    """Say what was found, and who gave out, unless other processes were in the way."""
    able = []
    if found.streams:
        tokens = f"{found.streams * found.tokens_per_s:,} tokens/s"
        able.append(f"{found.streams} streams x {found.tokens_per_s} tokens/s ({tokens})")
    if found.rate:
        able.append(f"{found.rate} requests/s")
    up_to = " and ".join(able) or "no load that was tried"
    yield f"This machine measures TTFT and ITL within {LIMIT:.0%} up to {up_to}."
    if found.others_cores > QUIET_CORES:
        yield f"Other processes used up to {found.others_cores:.2f} cores meanwhile: the machine alone can do more."
        return
    for what, who in (("more streams", found.streams_gave_out), ("more requests/s", found.rate_gave_out)):
        if who == "server":
            yield f"With {what} the simulated server gave out first: the client may measure more of another machine's."
        elif who == "client":
            yield f"With {what} this client gives out."


def _size(kind: Kind, size: int) -> str:
    return f"{size} streams x {TOKENS_PER_S} tokens/s" if kind == "streams" else f"{size} requests/s"


def _outcome(measured: Measurement) -> str:
    beside = f"; others used {measured.others_cores:.2f} cores" if measured.is_disturbed else ""
    if measured.is_good:
        return f"measured within {measured.off:.1%}{beside}"
    if measured.server_gave_out:
        late = f"{measured.server_late:.0%} late, {measured.server_cores:.2f} cores"
        return f"the server gave out ({late}){beside}"
    return f"{measured.doubt or f'off by {measured.off:.0%}'}{beside}"

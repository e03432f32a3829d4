"""What was found on this machine, in the user's state folder: one JSON file, a machine's entry by its key."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from loadgen.types import ClosedLoop, Load
from structbench import __version__
from structbench.output import replaced

GaveOut = Literal["client", "server"]
"""Who failed first above the load; None: nobody up to the most that was tried, or time ran out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The highest loads that a machine measured truthfully; 0: not even the smallest."""

    streams: int
    tokens_per_s: int
    """Of each stream."""
    rate: int
    """Requests a second."""
    streams_gave_out: GaveOut | None
    rate_gave_out: GaveOut | None
    calibrated_at: str
    others_cores: float = 0.0
    """The most cores that other processes used meanwhile."""


def state_folder() -> Path:
    """Return the folder for what a program keeps of itself, by the system's custom."""
    if chosen := os.environ.get("XDG_STATE_HOME"):
        return Path(chosen) / "structbench"
    match sys.platform:
        case "darwin":
            return Path.home() / "Library" / "Application Support" / "structbench"
        case "win32":
            return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "structbench"
    return Path.home() / ".local" / "state" / "structbench"


def machine_key() -> str:
    """Return a name for this machine, its processors and this version, from which none of them can be read."""
    machine = cpu = ""
    with contextlib.suppress(OSError):
        machine = Path("/etc/machine-id").read_text()
    with contextlib.suppress(OSError, StopIteration):
        cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    parts = (machine or platform.node(), cpu or platform.processor(), str(os.cpu_count()), __version__)
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def _file() -> Path:
    return state_folder() / "calibration.json"


def _read() -> dict[str, dict[str, object]]:
    try:
        found = json.loads(_file().read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def keep(calibration: Calibration) -> Path:
    """Keep it for this machine; raise OSError if that cannot be written."""
    path, machines = _file(), {**_read(), machine_key(): asdict(calibration)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as made:
        made.write_text(json.dumps(machines, indent=2))
    return path


def kept() -> Calibration | None:
    """Return what was found on this machine with this version; None if it was never calibrated.

    What somebody else wrote there, or half of it, counts as never.
    """
    match _read().get(machine_key()):
        case {
            "streams": int(streams), "tokens_per_s": int(tokens_per_s), "rate": int(rate),
            "streams_gave_out": "client" | "server" | None as streams_gave_out,
            "rate_gave_out": "client" | "server" | None as rate_gave_out,
            "calibrated_at": str(calibrated_at), **more,
        } if isinstance(others := more.get("others_cores", 0.0), int | float):  # fmt: skip
            return Calibration(
                streams=streams, tokens_per_s=tokens_per_s, rate=rate, streams_gave_out=streams_gave_out,
                rate_gave_out=rate_gave_out, calibrated_at=calibrated_at, others_cores=others,
            )  # fmt: skip
    return None


def warning(loads: Sequence[Load], calibration: Calibration | None) -> str | None:
    """Return one line where more is asked for than this machine measured truthfully."""
    if calibration is None:
        return None
    streams = max((load.concurrency for load in loads if isinstance(load, ClosedLoop)), default=0)
    rate = max((load.rate for load in loads if not isinstance(load, ClosedLoop)), default=0.0)
    when = f"`structbench calibrate` of {calibration.calibrated_at[:10]}"
    if streams > calibration.streams:
        able = f"{calibration.streams} streams x {calibration.tokens_per_s} tokens/s"
        return f"{streams} streams: this machine measured truthfully up to {able} ({when}); see each run's verdict"
    if rate > calibration.rate:
        able = f"{calibration.rate} requests/s"
        return f"{rate:g} requests/s: this machine measured truthfully up to {able} ({when}); see each run's verdict"
    return None

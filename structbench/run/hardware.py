"""What this machine is: processor, memory and GPUs, as the system tells it; what it does not tell is absent."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

_NVIDIA = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
_LIMIT_S = 5.0
_READING = Lock()


def read_ahead() -> None:
    """Ask the system meanwhile: a GPU's driver may take a second to answer."""
    Thread(target=hardware, name="structbench-hardware", daemon=True).start()


def hardware() -> dict[str, Any]:
    """Return ``processor``, ``memory_bytes`` and ``gpus`` (``name``, ``memory_bytes``, ``driver``), as far as known."""
    with _READING:
        return _hardware()


@cache
def _hardware() -> dict[str, Any]:
    found = {"processor": _processor(), "memory_bytes": _memory_bytes(), "gpus": [*_nvidia(), *_amd()]}
    return {name: value for name, value in found.items() if value}


def is_here(address: str) -> bool:
    """Return whether the server is on this machine, so that this hardware is the server's too."""
    if address.startswith("unix:"):
        return True
    host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _processor() -> str | None:
    with contextlib.suppress(OSError):
        found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found is not None:
            return found[1].strip()
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string").strip() or None
    return platform.processor() or None


def _memory_bytes() -> int | None:
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _nvidia() -> Iterator[dict[str, Any]]:
    for line in _output("nvidia-smi", *_NVIDIA).splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 3 and cells[0]:
            mib = int(cells[1]) if cells[1].isdigit() else None  # shared memory is told as [N/A]
            yield {"name": cells[0], "memory_bytes": None if mib is None else mib * 2**20, "driver": cells[2]}


def _amd(root: Path = Path("/sys")) -> Iterator[dict[str, Any]]:
    driver = _line(root / "module/amdgpu/version")
    for device in sorted((root / "class/drm").glob("card?/device")):
        if (memory := _line(device / "mem_info_vram_total")).isdigit():
            name = _line(device / "product_name") or "AMD GPU"
            yield {"name": name, "memory_bytes": int(memory), "driver": driver or None}


def _line(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""


def _output(program: str, *arguments: str) -> str:
    """Return what a program of the system prints; nothing where it is missing, fails or takes too long."""
    if (path := shutil.which(program)) is None:
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run([path, *arguments], capture_output=True, text=True, timeout=_LIMIT_S, check=True).stdout
    return ""

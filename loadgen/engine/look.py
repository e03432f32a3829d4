"""What a node says of itself before anything is sent, by a function that travels whole, not by its name.

So it needs nothing of ours where it runs, and can say that nothing of ours is there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

Target = tuple[str, int | None]
"""Host and port of a server, or the path of its socket and None."""
Files = tuple[str | None, tuple[str, ...], bool]
"""What Access has of certificates."""


def asker() -> Callable[[Sequence[str], Sequence[Target], Sequence[Files]], tuple[Any, ...]]:
    """Return the function that looks; what it returns are the fields of ``placement.Looked``."""

    def own(target: Target) -> str | None:
        """Reach a server; return whose it is if it runs on this machine: of its network, or of its file system."""
        import ipaddress
        import socket
        from pathlib import Path

        place, port = target
        machine, network = socket.gethostname(), ""
        with contextlib.suppress(OSError):  # not Linux
            machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            network = str(Path("/proc/self/ns/net").readlink())
        if port is None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5.0)
                connection.connect(place)
            found = Path(place).stat()
            return f"{machine} {found.st_dev} {found.st_ino}"
        with socket.create_connection((place, port), 5.0) as connection:
            peer, ours = connection.getpeername()[0], connection.getsockname()[0]
        address = ipaddress.ip_address(peer.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        return f"{machine} {network}" if mapped.is_loopback or peer == ours else None

    def look(variables: Sequence[str], targets: Sequence[Target], files: Sequence[Files]) -> tuple[Any, ...]:
        import importlib.metadata
        import os
        import platform

        ours: str | None = None
        unreached: list[tuple[str, int | None, str]] = []
        owners: list[str | None] = []
        unusable: list[str] = []
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            ours = importlib.metadata.version("structbench")
        for target in targets:
            owner = None
            try:
                owner = own(target)
            except OSError as error:
                unreached.append((*target, error.strerror or str(error)))
            owners.append(owner)
        for given in files if ours is not None else ():
            try:
                from loadgen.wire.tls import certificates_in, context_of

                context_of(*given, certificates_in(os.environ))
            except (ImportError, ValueError) as error:
                unusable.append(str(error))
        missing = [name for name in variables if not os.environ.get(name, "").strip()]
        return ours, platform.python_version(), missing, unreached, owners, unusable

    return look

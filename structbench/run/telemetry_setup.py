"""What others see of a load while it runs: the metrics port and the collector.

Invariant: whatever is wrong with either is said in one line before anything is sent.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from loadgen.telemetry import Telemetry
from loadgen.telemetry.target import Target, is_disabled
from structbench.errors import BadInput
from structbench.metrics import INSTRUMENTS


def open_telemetry(port: int | None, host: str, collector: Target | None, stack: ExitStack) -> Telemetry | None:
    """Serve the port and push to the collector until the stack closes; None when there is neither."""
    if (port is None and collector is None) or is_disabled(os.environ):
        return None
    try:
        telemetry = Telemetry(port, host, instruments=INSTRUMENTS, target=collector, warn=_warn)
    except OSError as error:
        where = f"{host}:{port}"
        why = error.strerror or error
        raise BadInput(
            f"metrics cannot be served on {where} ({why}): give another --metrics-port, or 0 for none"
        ) from None
    except ValueError as error:
        raise BadInput(f"the environment's OTEL_* variables make no sense: {error}") from None
    stack.callback(telemetry.close)
    return telemetry


def _warn(text: str) -> None:
    """A line on stderr, however quiet the display is to be."""
    print(f"structbench: {text}", file=sys.stderr, flush=True)

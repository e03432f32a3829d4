"""Opening the telemetry of a load: the metrics port and the collector."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from loadgen.telemetry import Telemetry
from loadgen.telemetry.target import Target, is_disabled
from structbench.errors import BadInput
from structbench.metrics import INSTRUMENTS


def open_telemetry(port: int | None, host: str, collector: Target | None, stack: ExitStack) -> Telemetry | None:
    """Serve the port and push to the collector until the stack closes; return None if there is neither.

    BadInput says what is wrong with either before anything is sent.
    """
    if (port is None and collector is None) or is_disabled(os.environ):
        return None
    try:
        telemetry = Telemetry(port, host, instruments=INSTRUMENTS, target=collector, warn=_warn)
    except OSError as error:
        where = f"{host}:{port}"
        why = error.strerror or error
        raise BadInput(f"cannot serve metrics on {where} ({why}): give another --metrics-port, or 0 for none") from None
    except ValueError as error:
        raise BadInput(f"invalid OTEL_* variable in the environment: {error}") from None
    stack.callback(telemetry.close)
    return telemetry


def _warn(text: str) -> None:
    """Print a line on stderr, even with --quiet."""
    print(f"structbench: {text}", file=sys.stderr, flush=True)

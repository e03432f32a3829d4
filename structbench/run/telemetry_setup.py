"""What others see of a load while it runs: from options and environment to the metrics port and the collector.

Invariant: whatever is wrong with either is said in one line before anything is sent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack

from loadgen.telemetry import Telemetry
from loadgen.telemetry.target import Target, is_disabled, is_installed, target_of
from structbench.errors import BadInput
from structbench.options import LoadOptions


def collector(options: LoadOptions, say: Callable[[str], None]) -> Target | None:
    """The collector to push to; BadInput for an address that is none, or when the extra is missing."""
    try:
        target = target_of(options.otlp, options.otlp_content, os.environ)
    except ValueError as error:
        raise BadInput(str(error)) from None
    if options.otlp_content and target is None:
        raise BadInput("--otlp-content needs a collector to push to: give --otlp ENDPOINT, or leave it out")
    if target is None or is_installed():
        return target
    what_to_do = "pip install 'structbench[otlp]'"
    if options.otlp is not None or options.otlp_content:
        raise BadInput(f"--otlp needs the OpenTelemetry exporter: {what_to_do}")
    say(f"nothing is pushed to {target.name}, which the environment names: for that, {what_to_do}")
    return None


def open_telemetry(
    options: LoadOptions, target: Target | None, stack: ExitStack, say: Callable[[str], None]
) -> Telemetry | None:
    """The port and the pushing, until the stack closes; None when there is neither."""
    port = options.metrics_port or None
    if (port is None and target is None) or is_disabled(os.environ):
        return None
    try:
        telemetry = Telemetry(port, options.metrics_host, target=target, warn=_warn)
    except OSError as error:
        where = f"{options.metrics_host}:{options.metrics_port}"
        why = error.strerror or error
        raise BadInput(
            f"metrics cannot be served on {where} ({why}): give another --metrics-port, or 0 for none"
        ) from None
    except ValueError as error:
        raise BadInput(f"the environment's OTEL_* variables make no sense: {error}") from None
    stack.callback(telemetry.close)
    if target is not None and options.otlp is None:
        say(f"metrics and traces are pushed to {target.name}, which the environment names")
    return telemetry


def _warn(text: str) -> None:
    """A line on stderr, however quiet the display is to be."""
    print(f"structbench: {text}", file=sys.stderr, flush=True)

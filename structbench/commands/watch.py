"""``structbench watch``: follow a running load from its metrics endpoint, on this machine or through a tunnel."""

import signal
from contextlib import suppress
from dataclasses import dataclass

from structbench.errors import BadInput
from structbench.options import opt


@dataclass(kw_only=True)
class Options:
    """Watch a running load from the metrics that it serves; waits for one that has not begun."""

    url: str = opt("http://127.0.0.1:9464/metrics", "metrics endpoint of the load; host:port is enough")
    every: float = opt(1.0, "seconds between two scrapes")


def run(options: Options) -> int:
    from math import isfinite

    from rich.console import Console

    from structbench.watch.endpoint import endpoint
    from structbench.watch.loop import WatchLoop

    if not (isfinite(options.every) and options.every > 0):
        raise BadInput(f"--every {options.every:g}: give a number of seconds above 0")
    watch = WatchLoop(endpoint(options.url), options.every, Console())
    # SIGTERM leaves the terminal in the same good order as Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            watch.run()
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0

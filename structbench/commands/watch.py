"""``structbench watch``: follow a running load from its metrics endpoint, on this machine or through a tunnel."""

import signal
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Optional

from structbench.options import LONGEST_S, UNCHECKED, Readable, access_from, access_opt, check_number, opt, seconds_of
from structbench.output import complain

EXAMPLES = ("structbench watch",)


@dataclass(kw_only=True)
class Options(Readable):
    """Watch a running load from the metrics that it serves; waits for one that has not begun."""

    url: str = opt("http://127.0.0.1:9464/metrics", "metrics endpoint of the load; host:port is enough", secret=True)
    api_key_env: Optional[str] = opt(
        None, "environment variable that holds the key to send as Authorization: Bearer", metavar="NAME"
    )
    header_env: list[str] = access_opt("header_env")
    header: list[str] = access_opt("header")
    ca: Optional[str] = access_opt("ca")
    cert: list[str] = access_opt("cert")
    insecure: bool = access_opt("insecure")
    every: float = opt(1.0, "time between two scrapes", read=seconds_of, metavar="TIME")


def run(options: Options) -> int:
    from rich.console import Console

    from loadgen.wire.access import split_userinfo
    from structbench.watch.endpoint import endpoint, fetch
    from structbench.watch.loop import WatchLoop

    check_number("--every", options.every, LONGEST_S)
    address, userinfo = split_userinfo(options.url)
    access = access_from(options, userinfo)
    if options.insecure:
        complain(UNCHECKED)
    watch = WatchLoop(endpoint(address), options.every, Console(), partial(fetch, access=access))
    # SIGTERM leaves the terminal in the same good order as Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            watch.run()
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0

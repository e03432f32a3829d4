"""``python -m benchmarks.ray_nodes``: the same streams from two nodes of a local Ray cluster and from one machine.

Both send to the same server in turns. Each line has how far TTFT is off the server's own, the most requests in flight,
which has to be ``--streams``, and the command's processor time for a request: with nodes, only the driver's.
"""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from benchmarks import machine
from benchmarks.servers import Timetable, serve
from benchmarks.timing import Scenario, off_ms, requests_per_s, timed_load
from tests.support.ray_cluster import local_cluster

NODES = ("127.0.0.2", "127.0.0.3")
HEAD = ("from", "TTFT p50 off", "p99 off", "most in flight", "requests/s", "the command, a request", "verdict")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_nodes", description=__doc__)
    parser.add_argument("--truthserver", type=Path, help="truth server: a binary or its .c file (default: simulator)")
    parser.add_argument("--streams", type=int, default=128, help="requests in flight in all (default: 128)")
    parser.add_argument("--itl", type=float, default=0.1, help="the server's seconds between tokens (default: 0.1)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each load (default: 20)")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and the cluster end with us
    timetable = Timetable(ttft_s=0.1, itl_s=arguments.itl, tokens=32)
    load = Scenario(name="nodes", timetable=timetable, tokens=32, concurrency=arguments.streams)
    print(f"{machine.describe()}\n\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    with serve(timetable, arguments.truthserver) as server, local_cluster(*NODES) as cluster:
        nodes = ("--engine", "ray", "--ray-address", cluster.address, "--nodes", "2", "--workers", "1")
        for name, more in (("one machine", ("--workers", "2")), ("two nodes", nodes)) * arguments.repeats:
            with redirect_stderr(StringIO()):
                usage, facts, truth = timed_load(load, arguments.seconds, server, "--metrics-port", "0", *more)
            cells = (name, *(f"{ms:.2f} ms" for ms in off_ms(facts, truth)), f"{facts['most_in_flight']:.0f}",
                     f"{requests_per_s(facts):.1f}", f"{usage.cpu_s / facts['requests'] * 1e3:.2f} ms",
                     facts["verdict"])  # fmt: skip
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""``python -m benchmarks.ray_nodes``: the same streams from nodes of a local Ray cluster and from one machine.

Both send to the same server in turns, for ``--seconds`` and for twice as long. Each line has, of the longer load, how
far TTFT is off the server's own, the most requests in flight, which has to be ``--streams``, how far from the common
start a node began and by how much its clock may be off; and, by the difference of the two loads, the processor time
that the command takes for each more request and in a second: with nodes, only the driver's. With few streams nearly
all of that is what Ray's calls cost, ten a second for each node.
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
from structbench.formatting import plural
from tests.support.ray_cluster import local_cluster

HEAD = (
    "from", "TTFT p50 off", "p99 off", "most in flight", "requests/s", "start lag", "clock error",
    "the command, each more request", "in a second", "verdict",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_nodes", description=__doc__)
    parser.add_argument("--truthserver", type=Path, help="truth server: a binary or its .c file (default: simulator)")
    parser.add_argument("--nodes", type=int, nargs="+", default=[2], help="from how many nodes (default: 2)")
    parser.add_argument("--streams", type=int, default=128, help="requests in flight in all (default: 128)")
    parser.add_argument("--itl", type=float, default=0.1, help="the server's seconds between tokens (default: 0.1)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the shorter load (default: 20)")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and the cluster end with us
    timetable = Timetable(ttft_s=0.1, itl_s=arguments.itl, tokens=32)
    load = Scenario(name="nodes", timetable=timetable, tokens=32, concurrency=arguments.streams)
    print(f"{machine.describe()}\n\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    addresses = [f"127.0.0.{2 + number}" for number in range(max(arguments.nodes))]
    with serve(timetable, arguments.truthserver) as server, local_cluster(*addresses) as cluster:
        ways = {"one machine": ["--workers", "2"]} | {
            f"{plural(many, 'node')}": ["--engine", "ray", "--ray-address", cluster.address, "--nodes", str(many),
                                        "--workers", "1"] for many in arguments.nodes
        }  # fmt: skip
        for name, more in [*ways.items()] * arguments.repeats:
            with redirect_stderr(StringIO()):
                runs = [timed_load(load, seconds, server, "--metrics-port", "0", *more)
                        for seconds in (arguments.seconds, 2 * arguments.seconds)]  # fmt: skip
            (short, few, _), (long, facts, truth) = runs
            more_s = long.cpu_s - short.cpu_s
            of_nodes = [facts["start_lag_ms"], facts["clock_error_ms"]]
            cells = (name, *(f"{ms:.2f} ms" for ms in off_ms(facts, truth)), f"{facts['most_in_flight']:.0f}",
                     f"{requests_per_s(facts):.1f}", *("" if ms is None else f"{ms:.2f} ms" for ms in of_nodes),
                     f"{more_s / (facts['requests'] - few['requests']) * 1e3:.2f} ms",
                     f"{more_s / arguments.seconds * 1e3:.0f} ms", facts["verdict"])  # fmt: skip
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

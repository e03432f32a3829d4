"""A Ray cluster on loopback addresses, which look like two machines: one process, which ends when its stdin does.

    python -m tests.support.ray_cluster 127.0.0.2 127.0.0.3

127.0.0.1 would not do: Ray takes it for the machine's outer address, and waits for that.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.paths import ROOT

MEMORY = 80 << 20
TRIES = 4
"""A node gives its agents 15 s to start, which on a busy machine is too short."""
AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
"""Given, so that a node waits for fewer of them."""


@dataclass(frozen=True)
class LocalCluster:
    """A running cluster: the head's address, and the process of each node, by the node's address."""

    address: str
    raylets: dict[str, int]


@contextmanager
def local_cluster(*addresses: str, **environ: str) -> Iterator[LocalCluster]:
    """Run a cluster with a node on each address, the head first, with these variables in their environment."""
    command = [sys.executable, "-m", "tests.support.ray_cluster", *addresses]
    env = {**os.environ, **environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "40",
           "RAY_agent_register_timeout_ms": "180000"}  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            told = next((json.loads(line) for line in process.stdout if line.startswith("{")), None)
            assert told is not None, "the cluster did not start"
            yield LocalCluster(**told)
        finally:
            process.stdin.close()


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def main(addresses: list[str]) -> None:
    for _ in range(TRIES - 1):
        with contextlib.suppress(Exception):  # a node that did not start in time
            return run(addresses)
    run(addresses)


def run(addresses: list[str]) -> None:
    """Run the cluster until stdin ends."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    raylets = {}
    for address in addresses:
        node = cluster.add_node(
            num_cpus=1, include_dashboard=False, object_store_memory=MEMORY, node_ip_address=address,
            **{name: free_port(address) for name in AGENT_PORTS},
        )  # fmt: skip
        raylets[address] = node.all_processes["raylet"][0].process.pid
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])

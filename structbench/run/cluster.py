"""The cluster from whose nodes a load is sent, and what is stored of each node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

from loadgen.api.server import Server
from loadgen.engine import NodeReadings, NotReady, leave, make_ready
from structbench.errors import BadInput
from structbench.run.settings import Settings

_COLUMNS = (
    "workers", "cores", "requests", "loop_lag_max_s", "cpu_s", "server_rtt_s", "start_lag_s", "clock_offset_ns",
    "clock_error_ns", "clock_drift_ppm", "died",
)  # fmt: skip


def join_cluster(settings: Settings, servers: Sequence[Server], stack: ExitStack) -> tuple[str, ...]:
    """Join the cluster, if the load is sent from one, until the stack closes; return which nodes send, in lines.

    BadInput if it cannot be joined, or if a node cannot do its part.
    """
    if settings.cluster is None:
        return ()
    if find_spec(settings.engine) is None:
        raise BadInput(f"--engine {settings.engine} needs the package {settings.engine}: "
                       f"pip install 'structbench[{settings.engine}]', on every node")  # fmt: skip
    stack.callback(leave, settings.engine)
    reached = [(server.address, server.access) for server in servers]
    try:
        return make_ready(settings.engine, settings.cluster, reached, settings.loads)
    except NotReady as error:
        raise BadInput(str(error)) from None


def node_rows(run_id: str, segment: int, nodes: Sequence[NodeReadings]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of the table ``nodes`` for a segment."""
    for node in nodes:
        columns = {column: getattr(node, column) for column in _COLUMNS}
        yield {"run_id": run_id, "segment": segment, "node": node.name, **columns}

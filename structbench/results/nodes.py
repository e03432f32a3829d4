"""What each node of a cluster sent and measured, beside the figures of a run group as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from structbench.formatting import ABSENT, latency_text
from structbench.metrics import FAILED, MEASURED
from structbench.results.groups import RunGroup
from structbench.results.intervals import GROUPS, Rows, params_of

_NODES = f"""
WITH {GROUPS}, told AS (
    SELECT line, node, max(loop_lag_max_s) AS loop_lag_max_s, min(server_rtt_s) AS server_rtt_s,
        max(clock_error_ns) / 1e9 AS clock_error_s, arg_max(start_lag_s, abs(start_lag_s)) AS start_lag_s,
        sum(cpu_s) AS cpu_s, sum(nodes.workers) AS workers, bool_or(died) AS died, sum(duration_s) AS duration_s
    FROM nodes JOIN line USING (run_id) JOIN segments USING (run_id, segment) GROUP BY line, node
), sent AS (
    SELECT line, node, count(*) AS requests, count(*) FILTER ({FAILED}) AS errors,
        quantile_cont(ttft_s, 0.5) FILTER ({MEASURED}) AS ttft_p50_s,
        quantile_cont(ttft_s, 0.95) FILTER ({MEASURED}) AS ttft_p95_s
    FROM requests JOIN line USING (run_id) WHERE node IS NOT NULL GROUP BY line, node
)
SELECT line, node, coalesce(requests, 0) AS requests, coalesce(errors, 0) AS errors, ttft_p50_s, ttft_p95_s,
    server_rtt_s, loop_lag_max_s, cpu_s / nullif(duration_s, 0) AS cpu_cores, start_lag_s, clock_error_s, died
FROM told LEFT JOIN sent USING (line, node) ORDER BY line, node
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFigures:
    """One node's part in a run group; times are in seconds."""

    line: int
    """The run group's id."""
    node: str
    requests: int
    errors: int
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    server_rtt_s: float | None
    loop_lag_max_s: float | None
    cpu_cores: float | None
    """Processor time of its structbench processes / the run's duration."""
    start_lag_s: float | None
    clock_error_s: float | None
    died: bool


def nodes_of(reader: Rows, groups: Sequence[RunGroup]) -> list[NodeFigures]:
    """Return the nodes of all run groups, in order; none for loads from one machine."""
    rows = reader.query(_NODES, params_of((group.id, group.run_ids) for group in groups))
    return [NodeFigures(**row) for row in rows]


_HEADER = ("run group", "node", "requests", "errors", "TTFT p50", "TTFT p95", "round trip", "loop lag", "cores",
          "start", "clock ±")  # fmt: skip


def node_table(nodes: Sequence[NodeFigures], groups: Sequence[RunGroup]) -> list[tuple[str, ...]]:
    """Return the texts of a table of nodes, its header first; a group's name stands in its first row only."""
    names = {group.id: group.name for group in groups}
    return [
        _HEADER,
        *((names[line] if place == 0 else "", *_texts(each))
          for line, found in groupby(nodes, key=lambda each: each.line)
          for place, each in enumerate(found)),
    ]  # fmt: skip


def _texts(each: NodeFigures) -> tuple[str, ...]:
    times = (each.ttft_p50_s, each.ttft_p95_s, each.server_rtt_s, each.loop_lag_max_s)
    cores = ABSENT if each.cpu_cores is None else f"{each.cpu_cores:.2f}"
    name = f"{each.node} (died)" if each.died else each.node
    return (name, f"{each.requests:,}", f"{each.errors:,}", *map(latency_text, times), cores,
            latency_text(each.start_lag_s), latency_text(each.clock_error_s))  # fmt: skip

"""A note on nodes of a cluster from which the same server looks different: pooled figures mix them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.formatting import latency_text
from structbench.notes.judge import Judge, Row
from structbench.stats import interval_ranks
from structbench.types import Note

_SHARE, _APART_S = 0.05, 0.0005
"""By how much of the smaller median, and of a second, two nodes must be apart at least."""


def _differ(rows: Sequence[Row]) -> Iterator[Note]:
    """Compare the nodes whose median TTFT are farthest apart: their 95 % intervals must not meet."""
    known = []
    for row in rows:
        low, high = interval_ranks(len(row["ttfts"]), 0.5)
        if low is not None and high is not None:
            known.append((row["ttft_p50_s"], row["ttfts"][low - 1], row["ttfts"][high - 1], row))
    if len(known) < 2:
        return
    near, far = min(known, key=lambda each: each[0]), max(known, key=lambda each: each[0])
    apart_s = far[0] - near[0]
    if near[2] >= far[1] or apart_s < max(_APART_S, _SHARE * near[0]):
        return
    texts = [f"{latency_text(p50)} from {row['node']}{_way(row)}" for p50, _, _, row in (near, far)]
    yield Note(
        "nodes_differ", share=apart_s / near[0],
        text=f"TTFT p50 is {' and '.join(texts)}: percentiles over all nodes mix them; the report has each node's own",
    )  # fmt: skip


def _way(row: Row) -> str:
    return "" if row["server_rtt_s"] is None else f" (round trip {latency_text(row['server_rtt_s'])})"


NODES_DIFFER = Judge(
    """
    SELECT node, list(ttft_s ORDER BY ttft_s) AS ttfts, quantile_cont(ttft_s, 0.5) AS ttft_p50_s,
        (SELECT min(server_rtt_s) FROM nodes WHERE run_id = $1 AND nodes.node = requests.node) AS server_rtt_s
    FROM requests
    WHERE run_id = $1 AND node IS NOT NULL AND error_kind IS NULL AND ttft_s IS NOT NULL AND steady IS NOT FALSE
    GROUP BY node ORDER BY node
    """,
    _differ,
)

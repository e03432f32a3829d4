"""A note where the server looks different from two nodes, and none where chance alone could do that."""

from __future__ import annotations

import random

import pytest

from structbench.notes.nodes import NODES_DIFFER
from tests.support.in_memory import tables


def node(name: str, median_s: float, n: int, rtt_s: float | None = None, seed: int = 0) -> dict[str, object]:
    spread = random.Random(f"{name}{seed}")
    ttfts = sorted(median_s * spread.uniform(0.8, 1.2) for _ in range(n))
    return {"node": name, "ttfts": ttfts, "ttft_p50_s": ttfts[n // 2] if n else None, "server_rtt_s": rtt_s}


def test_a_far_node_is_named_with_its_way_to_the_server() -> None:
    rows = [node("10.0.0.2", 0.1, 101, 0.0002), node("10.0.0.3", 0.14, 101, 0.04), node("10.0.0.4", 0.12, 101)]
    (note,) = NODES_DIFFER.notes(rows)
    assert note.kind == "nodes_differ"
    assert note.share == pytest.approx(0.4, abs=0.08)
    near, far = note.text.split(" and ", 1)
    assert near.startswith("TTFT p50 is ")
    assert near.endswith("ms from 10.0.0.2 (round trip 0.20 ms)")
    assert "ms from 10.0.0.3 (round trip 40 ms): percentiles over all nodes mix them" in far


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [node("a", 0.1, 100)],
        [node("a", 0.1, 5), node("b", 9.9, 100)],
        [node("a", 0.1, 12), node("b", 0.102, 12)],
        [node("a", 0.1, 4000), node("b", 0.102, 4000)],
        [node("a", 0.0004, 400), node("b", 0.0008, 400)],
    ],
    ids=["none", "one", "too few", "chance", "a difference of 2 %", "less than half a millisecond"],
)
def test_nothing_is_said_where_nodes_are_alike_or_too_little_is_known(rows: list[dict[str, object]]) -> None:
    assert list(NODES_DIFFER.notes(rows)) == []


def test_what_each_node_saw_of_the_server_is_read_from_its_steady_completed_requests() -> None:
    seen = [("b", 0.4), ("a", 0.3), ("a", 0.1), ("a", 0.2), ("a", 0.8), ("b", 0.6)]
    rows = [{"node": node, "ttft_s": ttft_s, "steady": True if index % 2 else None}
            for index, (node, ttft_s) in enumerate(seen)]  # fmt: skip
    left_out = [
        {"node": None, "ttft_s": 9.0}, {"node": "a", "ttft_s": None}, {"node": "a", "ttft_s": 9.0, "steady": False},
        {"node": "a", "ttft_s": 9.0, "error_kind": "timeout"}, {"node": "a", "ttft_s": 9.0, "run_id": "other"},
    ]  # fmt: skip
    with tables() as store:
        store.fill(requests=[{"run_id": "r", "segment": 0, "request_index": index, **row}
                             for index, row in enumerate([*rows, *left_out])])  # fmt: skip
        trips = (("r", 0, "a", 0.002), ("r", 1, "a", 0.001), ("r", 0, "b", 0.04), ("other", 0, "a", 0.0))
        names = ("run_id", "segment", "node", "server_rtt_s")
        store.put("nodes", *(dict(zip(names, trip, strict=True)) for trip in trips))
        assert store.query(NODES_DIFFER.sql, ["r"]) == [
            {"node": "a", "ttfts": [0.1, 0.2, 0.3, 0.8], "ttft_p50_s": 0.25, "server_rtt_s": 0.001},
            {"node": "b", "ttfts": [0.4, 0.6], "ttft_p50_s": 0.5, "server_rtt_s": 0.04},
        ]

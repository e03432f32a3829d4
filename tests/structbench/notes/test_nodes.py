"""A note where the server looks different from two nodes, and none where chance alone could do that."""

from __future__ import annotations

import random

import pytest

from structbench.notes.nodes import NODES_DIFFER


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

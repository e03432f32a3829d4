"""``python -m benchmarks.nodes``: what a record of another node costs the driver, without a network and without Ray.

Nodes are played in this process: they answer at once, so that all time is the driver's and that of packing and
unpacking what goes over the wire; with ``--nodes`` 2, 8, 32 one sees how that grows.
"""

from __future__ import annotations

import argparse
import pickle
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import process_time
from typing import Any

from loadgen.engine import Job, Orders, Readings, nodes
from loadgen.engine.agent import BATCH, Down, Prepared, Up
from loadgen.engine.clocks import Clock, on_our_clock
from loadgen.types import ClosedLoop, Request, RequestRecord, Timeouts

PROMPT = "word " * 550
CHUNKS = 150


@dataclass
class Node:
    """Takes requests into free slots, and ends each with the next exchange."""

    slots: int
    queue: deque[int] = field(default_factory=deque)
    busy: list[int] = field(default_factory=list)
    packing_s: float = 0.0
    converting_s: float = 0.0
    bytes: int = 0

    def exchange(self, down: Down) -> Up:
        self.queue.extend(request.index for request, _ in down.requests)
        if down.start_ns is None:
            return Up(ready=True, free=self.slots)
        done, self.busy = self.busy, []
        taken = [self.queue.popleft() for _ in range(min(self.slots, len(self.queue)))]
        self.busy = taken
        records = tuple(self._record(index, down) for index in done)
        return Up(records=records, taken=tuple(taken), free=self.slots - len(taken), ready=True,
                  ended=down.end and not self.queue and not self.busy)  # fmt: skip

    def _record(self, index: int, down: Down) -> RequestRecord:
        record = RequestRecord(
            index=index, worker=0, due_ns=0, sent_ns=0, end_ns=CHUNKS * 10**7, output_text="word " * CHUNKS,
            chunk_ns=tuple(range(10**7, (CHUNKS + 1) * 10**7, 10**7)), chunk_early_ns=(0,) * CHUNKS, clock="kernel",
        )  # fmt: skip
        began = process_time()
        record = on_our_clock(record, down.line, "10.0.0.2")
        self.converting_s += process_time() - began
        return record


@dataclass
class Links:
    played: list[Node]
    asked: list[tuple[int, Down]] = field(default_factory=list)
    node_s: float = 0.0
    unpacking_s: float = 0.0
    bytes: int = 0

    def __post_init__(self) -> None:
        self.names: Sequence[str] = [str(number) for number in range(len(self.played))]

    def ask(self, node: int, down: Down) -> None:
        self.asked.append((node, down))

    def answers(self, timeout_s: float) -> Iterable[tuple[int, Up]]:  # noqa: ARG002
        asked, self.asked = self.asked, []
        for node, down in asked:
            began = process_time()
            packed_down = pickle.dumps(down, pickle.HIGHEST_PROTOCOL)
            self.unpacking_s += process_time() - began
            began = process_time()
            packed = pickle.dumps(self.played[node].exchange(pickle.loads(packed_down)), pickle.HIGHEST_PROTOCOL)
            self.node_s += process_time() - began
            began = process_time()
            up = pickle.loads(packed)
            self.unpacking_s += process_time() - began
            self.bytes += len(packed) + len(packed_down)
            yield node, up


@dataclass
class Clocks:
    clocks: Sequence[Clock]

    def end(self) -> None:
        """Nothing measures them."""


def requests(many: int) -> Iterator[Request]:
    for index in range(many):
        yield Request(index=index, model="m", messages=({"role": "user", "content": f"{index} {PROMPT}"},))


def measure(count: int, streams: int, many: int) -> dict[str, Any]:
    """Return processor time and bytes for each record."""
    job = Job(load=ClosedLoop(concurrency=streams), workers=1, api="ollama", host=None, timeouts=Timeouts(), warmup=())
    jobs = nodes.shares(job, count)
    links = Links([Node(len(each.own_slots)) for each in jobs])
    told = [Prepared(workers=1, cores=1, port=0, token=b"", server_rtt_s=None)] * count
    began = process_time()
    found = len(list(nodes.records(
        requests(many), None, jobs, told, links, Clocks([Clock() for _ in jobs]), Orders(), Readings()
    )))  # fmt: skip
    driver_s = process_time() - began - links.node_s
    assert found == many
    converting_s = sum(node.converting_s for node in links.played)
    return {"nodes": count, "streams": streams, "driver us": driver_s / many * 1e6,
            "of it packing us": links.unpacking_s / many * 1e6, "node us": links.node_s / many * 1e6,
            "of it converting us": converting_s / many * 1e6, "bytes": links.bytes / many}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodes", description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 8, 32, 100])
    parser.add_argument("--streams", type=int, default=64, help="on each node")
    arguments = parser.parse_args()
    print(f"batches of up to {BATCH} records; {CHUNKS} chunks an answer; processor time for each record")
    for count in arguments.nodes:
        row = measure(count, count * arguments.streams, arguments.records)
        print("  ".join(f"{name} {value:,.0f}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()

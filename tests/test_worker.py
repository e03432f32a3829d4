"""Inside a worker: when the slots of a closed loop begin, and that a cancelled request has its record."""

from __future__ import annotations

import asyncio
import os
from itertools import pairwise
from time import monotonic_ns
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import SOON, Peer, Scripted, chat

from loadgen.feed import InFlight
from loadgen.process import Frames
from loadgen.types import NS, ClosedLoop
from loadgen.worker import Job, _listen, _Worker, raise_file_limit, start_offset_ns


@given(concurrency=st.integers(1, 2000))
def test_the_first_requests_are_spread_within_their_bound_and_none_together(concurrency: int) -> None:
    offsets = [start_offset_ns(slot, concurrency) for slot in range(concurrency)]
    assert offsets[0] == 0
    assert all(0 <= offset < min(NS, concurrency * 5_000_000) for offset in offsets)
    assert len(set(offsets)) == concurrency


@given(concurrency=st.integers(2, 500))
def test_no_large_hole_and_no_heap_among_the_first_requests(concurrency: int) -> None:
    """The golden ratio leaves gaps of at most three sizes, none larger than about 2.6 times the mean."""
    spread = min(NS, concurrency * 5_000_000)
    offsets = sorted(start_offset_ns(slot, concurrency) for slot in range(concurrency))
    gaps = [b - a for a, b in pairwise([*offsets, spread])]
    mean = spread / concurrency
    assert max(gaps) < 2.7 * mean
    assert min(gaps) > 0.35 * mean


@pytest.mark.parametrize(("concurrency", "spread_ms"), [(1, 5), (4, 20), (16, 80), (200, 1000), (4000, 1000)])
def test_the_start_is_spread_over_five_milliseconds_each_and_a_second_at_most(concurrency: int, spread_ms: int) -> None:
    last = max(start_offset_ns(slot, concurrency) for slot in range(concurrency))
    assert last < spread_ms * 1_000_000
    assert concurrency < 4 or last > spread_ms * 600_000


class Wire:
    """Stands where the stream to the parent is; keeps what is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self._frames = Frames()

    def write(self, data: bytes) -> None:
        self.told += self._frames.feed(data)


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_cancelled_at_whatever_step_a_request_ends_in_one_record(steps: int) -> None:
    async def go(url: str) -> list[Any]:
        wire, counts = Wire(), InFlight(1)
        job = Job(worker=0, workers=1, host=url, load=ClosedLoop(concurrency=1), timeouts=SOON, warmup=(), pipe_fd=-1,
                  payload_fd=-1, in_flight_fd=os.dup(counts.fd))  # fmt: skip
        due_ns = monotonic_ns()
        worker = _Worker(job, wire)  # type: ignore[arg-type]
        assert worker._is_place_for_one(1)
        assert not worker._is_place_for_one(1)
        task = asyncio.create_task(worker._in_own_task(chat(index=7), due_ns))
        await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        worker.cancel()
        await task
        assert counts.total() == 0
        await worker._client.close()  # type: ignore[no-untyped-call]
        worker._counts.close()
        counts.close()
        return wire.told

    with Scripted(lambda peer: peer.file.read() and None) as server:
        ((kind, record),) = asyncio.run(go(server.url))
    assert kind == "record"
    assert (record.index, record.error.kind) == (7, "cancelled")
    assert record.due_ns is not None


@pytest.mark.parametrize(("freed", "kind"), [(True, None), (False, "dropped")])
def test_a_request_without_a_place_is_looked_at_again_when_it_is_due(freed: bool, kind: str | None) -> None:
    async def go(url: str) -> list[Any]:
        wire, counts = Wire(), InFlight(1)
        job = Job(worker=0, workers=1, host=url, load=ClosedLoop(concurrency=1), timeouts=SOON, warmup=(), pipe_fd=-1,
                  payload_fd=-1, in_flight_fd=os.dup(counts.fd))  # fmt: skip
        worker = _Worker(job, wire)  # type: ignore[arg-type]
        assert worker._is_place_for_one(1)
        look = asyncio.create_task(worker._last_look(chat(index=7), monotonic_ns() + 50_000_000, 1))
        await asyncio.sleep(0)
        if freed:
            worker._count(-1)
        await look
        await worker._client.close()  # type: ignore[no-untyped-call]
        worker._counts.close()
        counts.close()
        return wire.told

    def script(peer: Peer) -> None:
        peer.read()
        peer.answer({"message": {"role": "assistant", "content": "x"}, "done": True})

    with Scripted(script) as server:
        ((word, record),) = asyncio.run(go(server.url))
    assert (word, record.index, record.worker) == ("record", 7, 0)
    assert (record.error and record.error.kind) == kind
    assert (record.sent_ns is None) is not freed


def test_a_worker_may_open_as_many_files_as_the_system_allows() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
    try:
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("error", [None, ConnectionResetError("with something unread"), BrokenPipeError()])
def test_a_worker_ends_however_its_parent_was_lost(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    class Parent:
        async def read(self, _: int) -> bytes:
            if error is not None:
                raise error
            return b""

    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    asyncio.run(_listen(Parent(), Frames(), None))  # type: ignore[arg-type]
    assert ended == [1]

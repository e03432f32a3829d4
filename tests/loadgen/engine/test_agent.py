"""A node's side of a load, with an engine that is made up: what it is told, and what it answers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic_ns
from typing import Any

import pytest

from loadgen.engine import ClosedLoop, Job, LoadFailed, NotReady, Orders, Readings, agent
from loadgen.engine.agent import Agent, Down, Up, handshake_s, target_of
from loadgen.engine.clocks import Line
from loadgen.engine.feed import Incoming
from loadgen.types import NS, Load, OpenLoop, RequestRecord, Timeouts
from loadgen.wire.access import Access
from tests.support.scripted_server import chat

HOUR = 3600 * NS
JOB = Job(load=ClosedLoop(concurrency=8), workers=9, api="ollama", host=None, timeouts=Timeouts(), warmup=(),
          slots=range(0, 8, 2))  # fmt: skip


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Jobs that the engine in the place of the local one has been given; it answers each request at once."""
    jobs: list[Job] = []

    def records(
        incoming: Incoming, due: Iterator[int | None], job: Job, orders: Orders, readings: Readings
    ) -> Iterator[RequestRecord]:
        jobs.append(job)
        readings.ready = True
        for request in incoming:
            if orders.stop:
                return
            if request is None:
                continue
            incoming.taken(request.index)
            offset = next(due)
            if request.model == "broken":
                raise LoadFailed("worker processes died")
            yield RequestRecord(index=request.index, due_ns=offset, sent_ns=(orders.start_ns or 0) + 7)

    monkeypatch.setattr(agent.local, "records", records)
    return jobs


def until_over(node: Agent, down: Down) -> list[Up]:
    ups = [node.exchange(down)]
    while not ups[-1].ended:
        ups.append(node.exchange(Down(end=down.end, start_ns=down.start_ns, line=down.line, stop=down.stop)))
    return ups


def test_records_are_on_the_drivers_clock_and_say_whose_they_are(made: list[Job]) -> None:
    node = Agent("10.0.0.2", "127.0.0.1")
    told = node.prepare(JOB, 3)
    assert (told.workers, made[0].workers, made[0].own_slots) == (3, 3, range(0, 8, 2))
    start, line = monotonic_ns() + HOUR, Line(0, HOUR, 0.0)
    ups = until_over(
        node, Down(requests=((chat(index=4), 70), (chat(index=6), None)), line=line, start_ns=start, end=True)
    )
    records = [record for up in ups for record in up.records]
    assert [(record.index, record.node, record.sent_ns) for record in records] == [
        (4, "10.0.0.2", start + 7), (6, "10.0.0.2", start + 7)
    ]  # fmt: skip
    assert [index for up in ups for index in up.taken] == [4, 6]
    assert (ups[-1].free, ups[-1].in_flight, ups[-1].failure) == (4, 0, None)
    assert ups[-1].cpu_s >= 0
    node.close()


def test_no_more_workers_than_slots_and_by_default_those_of_the_share(made: list[Job]) -> None:
    for asked, wanted in ((9, 4), (None, 1)):
        node = Agent("n", "127.0.0.1")
        assert node.prepare(JOB, asked).workers == wanted
        node.close()
    assert len(made) == 2


@pytest.mark.parametrize(("workers", "load", "adapts"), [
    (None, ClosedLoop(concurrency=8), True), (2, ClosedLoop(concurrency=8), False), (None, OpenLoop(rate=9.0), False),
])  # fmt: skip
def test_without_a_number_of_workers_the_warm_up_decides_on_each_node_and_the_driver_is_told(
    made: list[Job], workers: int | None, load: Load, adapts: bool
) -> None:
    node = Agent("n", "127.0.0.1")
    node.prepare(replace(JOB, load=load), workers)
    node._readings.workers, node._readings.stream_tokens_per_s = 3, 250.0
    up = until_over(node, Down(end=True))[-1]
    assert (up.workers, up.stream_tokens_per_s) == (3, 250.0)
    node.close()
    assert [job.adapts for job in made] == [adapts]


def test_a_load_that_fails_on_a_node_says_why(made: list[Job]) -> None:
    node = Agent("n", "127.0.0.1")
    node.prepare(JOB, 1)
    broken = chat(index=1, model="broken")
    assert until_over(node, Down(requests=((broken, None),), end=True))[-1].failure == "worker processes died"
    node.close()
    assert made


def test_it_ends_once_the_process_that_started_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(agent, "_ALIVE_S", 0.001)
    monkeypatch.setattr(os, "_exit", lambda _: ended.set())
    node = Agent("n", "127.0.0.1")
    assert not ended.wait(0.01)
    monkeypatch.setattr(os, "getppid", lambda: -1)
    assert ended.wait(30)
    node.close()


def test_a_stop_ends_it(made: list[Job]) -> None:
    node = Agent("n", "127.0.0.1")
    node.prepare(JOB, 1)
    assert until_over(node, Down(requests=((chat(index=1), None),), stop=True))[-1].records == ()
    node.close()
    assert made


def test_the_values_of_keys_are_this_machines(made: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access().and_variable("Authorization", "ours", "the key in KEY", "KEY").by_name()
    job = Job(**{**{name: getattr(JOB, name) for name in JOB.__slots__}, "access": access})
    node = Agent("n", "127.0.0.1")
    monkeypatch.delenv("KEY", raising=False)
    with pytest.raises(NotReady, match=r"^the variable KEY is not set there$"):
        node.prepare(job, 1)
    monkeypatch.setenv("KEY", "theirs")
    node.prepare(job, 1)
    node.close()
    assert made[0].access.headers == (("Authorization", "theirs"),)


@pytest.mark.parametrize(
    ("host", "target"),
    [("http://h:1/v1", ("h", 1)), ("https://h", ("h", 443)), ("http://[::1]:5", ("::1", 5)), ("h:7", ("h", 7)),
     ("unix:///run/s", ("/run/s", None)), (None, None), ("", None)],
)  # fmt: skip
def test_where_a_server_is_reached(host: Any, target: Any) -> None:
    assert target_of(host) == target


def test_a_server_that_is_not_there_has_no_round_trip() -> None:
    assert handshake_s("http://127.0.0.1:1") is None
    assert handshake_s("unix:///nowhere") is None

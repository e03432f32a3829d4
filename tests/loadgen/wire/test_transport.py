"""Requests over connections that are kept: which is used, how many there may be, when and how they are sent."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic_ns, sleep
from typing import Any

import pytest

from loadgen.api import ollama
from loadgen.api.sending import send
from loadgen.simulator import Simulator
from loadgen.types import NS, RequestError, RequestRecord, Timeouts
from loadgen.wire import transport as wire
from loadgen.wire.transport import sleep_until
from tests.support.played_wire import END, HEAD, Connecting, Played, chunk, play, settled
from tests.support.scripted_server import DONE, SOON, Peer, Scripted, answers, ask, chat, said
from tests.support.simulators import wait_for

# Connections


def test_the_second_request_uses_the_open_connection() -> None:
    with Scripted(answers(said("a"), DONE)) as server:
        first, second = ask(server.url, chat(), chat())
        assert (server.connections, len(server.asked)) == (1, 2)
    assert first.connected_ns is not None
    assert (first.connect_s or 0) > 0
    assert (second.connected_ns, second.connect_s) == (None, 0.0)


@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize("how", ["close", "reset", "speaks"])
def test_an_idle_connection_that_the_server_ended_is_not_used_again(how: str, noticed: bool) -> None:
    ended = threading.Event()

    def script(peer: Peer) -> None:
        peer.read()
        peer.answer(said("a"), DONE)
        match how:
            case "reset":
                peer.reset()
            case "close":
                peer.close()
            case "speaks":
                sleep(0.05)
                peer.sock.sendall(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        ended.set()
        if how == "speaks":
            peer.read()

    async def twice(url: str) -> list[RequestRecord]:
        client = ollama.make_client(url)
        records = [await send(ollama, client, chat(), SOON)]
        if noticed:
            await asyncio.to_thread(ended.wait, 20)
            await asyncio.sleep(0.05)
        else:
            ended.wait(20)
            sleep(0.05)  # noqa: ASYNC251 - the event loop has no chance to hear of it
        records.append(await send(ollama, client, chat(), SOON))
        await client.close()  # type: ignore[no-untyped-call]
        return records

    with Scripted(script) as server:
        records = asyncio.run(twice(server.url))
        assert server.connections == 2
    assert [record.error for record in records] == [None, None]
    assert all(record.connected_ns is not None for record in records)


def test_a_server_that_says_close_gets_a_new_connection_each_time() -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.head(200, {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked", "Connection": "close"})
        peer.chunk(DONE)
        peer.chunk()
        peer.read()

    with Scripted(script) as server:
        records = ask(server.url, chat(), chat(), chat())
        assert server.connections == 3
    assert [record.error for record in records] == [None] * 3


def test_a_broken_off_answer_does_not_leak_into_the_next_request() -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.head()
        peer.chunk(said("a"), b"garbage\n")
        sleep(0.05)
        peer.chunk(said("late"), DONE)
        peer.chunk()
        peer.read()

    with Scripted(script) as server:
        records = ask(server.url, chat(), chat())
        assert server.connections == 2
    assert [record.output_text for record in records] == ["a", "a"]


def test_connections_opened_beforehand_cost_no_request_anything() -> None:
    async def go(url: str) -> list[RequestRecord]:
        client = ollama.make_client(url)
        await ollama.preconnect(client, 5, 20)
        records = await asyncio.gather(*(send(ollama, client, chat(), SOON) for _ in range(5)))
        await client.close()  # type: ignore[no-untyped-call]
        return records

    with Scripted(answers(DONE)) as server:
        records = asyncio.run(go(server.url))
        assert server.connections == 5
    assert [(record.error, record.connected_ns) for record in records] == [(None, None)] * 5


def test_connecting_beforehand_to_nobody_is_left_to_the_requests() -> None:
    async def go() -> None:
        client = ollama.make_client("http://127.0.0.1:1")
        await ollama.preconnect(client, 3, 0.5)
        assert (await send(ollama, client, chat(), SOON)).error is not None
        await client.close()  # type: ignore[no-untyped-call]

    asyncio.run(go())


def test_no_more_are_opened_beforehand_than_are_wanted() -> None:
    async def go(url: str) -> None:
        client = ollama.make_client(url)
        for count in (2, 3, 1, 3):
            await ollama.preconnect(client, count, 20)
        await client.close()  # type: ignore[no-untyped-call]

    loop = Connecting()
    with Scripted(answers(DONE)) as server, asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(go(server.url))
    assert len(loop.called) == 3


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError()])
@pytest.mark.parametrize(("url", "port"), [("http://127.0.0.1", 80), ("http://127.0.0.1:81", 81)])
def test_where_nobody_answers_is_tried_once_beforehand_and_once_by_each_request(
    url: str, port: int, error: OSError
) -> None:
    async def go() -> None:
        client = ollama.make_client(url)
        await ollama.preconnect(client, 3, 20)
        assert len(loop.called) == 1
        assert (await send(ollama, client, chat(), SOON)).error is not None
        await client.close()  # type: ignore[no-untyped-call]

    loop = Connecting(error)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(go())
    assert [address for address, _ in loop.called] == [("127.0.0.1", port)] * 2


@pytest.mark.parametrize("amid", [True, False])
def test_the_server_hears_at_once_that_a_request_was_given_up(amid: bool) -> None:
    async def script(here: Played) -> None:
        sending = await here.send(chat())
        if amid:
            here.say(HEAD + chunk(said("a")))
            await settled()
        sending.cancel()
        record = await sending
        assert record.error == RequestError("cancelled", "cancelled before the answer's end")
        assert record.output_text == ("a" if amid else "")
        assert here.was_left()

    play(script)


def test_a_closed_client_leaves_no_connection_open() -> None:
    left: list[int] = []
    over = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        while peer.read() is not None:
            peer.answer(DONE)
        left.append(peer.number)
        over.release()

    async def go(url: str) -> None:
        client = ollama.make_client(url)
        await ollama.preconnect(client, 3, 20)
        await send(ollama, client, chat(), SOON)
        assert left == []
        await client.close()  # type: ignore[no-untyped-call]
        for _ in range(3):
            assert await asyncio.to_thread(over.acquire, timeout=20)

    with Scripted(script) as server:
        asyncio.run(go(server.url))
    assert sorted(left) == [1, 2, 3]


def test_nothing_limits_how_many_are_in_flight(sim: Simulator) -> None:
    """httpx has a pool of 100 connections unless told otherwise."""
    many = 130

    async def go() -> list[RequestRecord]:
        client = ollama.make_client(sim.url)
        limits = Timeouts(connect_s=20, first_chunk_s=20, between_chunks_s=20, total_s=20)
        tasks = [
            asyncio.create_task(send(ollama, client, chat(model="fault:hang-before"), limits)) for _ in range(many)
        ]
        await asyncio.to_thread(wait_for, sim, "in_flight", many)
        for task in tasks:
            task.cancel()
        records = await asyncio.gather(*tasks)
        await client.close()  # type: ignore[no-untyped-call]
        return records

    sim.reset_truth()
    records = asyncio.run(go())
    assert sim.truth(summary=True)["totals"]["max_in_flight"] == many
    assert {record.error.kind for record in records if record.error} == {"cancelled"}


# What is sent


def test_answers_are_not_asked_for_compressed_which_would_gather_their_chunks() -> None:
    with Scripted(answers(DONE)) as server:
        ask(server.url, chat())
        (asked,) = server.asked
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["host"] == f"127.0.0.1:{server.port}"


def test_a_path_before_the_api_is_kept() -> None:
    with Scripted(answers(DONE)) as server:
        (record,) = ask(f"{server.url}/behind/a/gateway", chat())
        assert server.asked[0].head == "POST /behind/a/gateway/api/chat HTTP/1.1"
    assert record.error is None


@pytest.mark.parametrize("left_ns", [-5, 0, 1, 900_000, 1_100_001, 1_499_999, 2_000_000, 100_000_000])
def test_a_wait_ends_at_its_instant_and_keeps_the_core_busy_for_the_last_moment_only(
    monkeypatch: pytest.MonkeyPatch, left_ns: int
) -> None:
    """The event loop's timers may fire a millisecond late."""
    now_ns, turns = 10**9, 0
    instant = now_ns + left_ns

    async def sleep(seconds: float) -> None:
        nonlocal now_ns, turns
        turns += 1
        now_ns += 10_000 if seconds <= 0 else round(seconds * NS) + 1_000_000

    monkeypatch.setattr(wire, "monotonic_ns", lambda: now_ns)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(sleep_until(instant))
    assert turns == 0 if left_ns <= 0 else instant <= now_ns < instant + 10_000
    assert turns <= 120


def test_a_wait_never_ends_early_by_the_real_clock_either() -> None:
    async def go() -> None:
        instant = monotonic_ns() + 4_000_000
        await sleep_until(instant)
        assert monotonic_ns() >= instant

    asyncio.run(go())


@pytest.mark.parametrize("ahead_s", [None, 0, 7])
def test_nothing_is_sent_before_it_is_due(ahead_s: int | None) -> None:
    async def script(here: Played) -> RequestRecord:
        due_ns = here.clock.ns + (ahead_s or 0) * NS
        sending = await here.send(chat(), due_ns=None if ahead_s is None else due_ns)
        if ahead_s:
            await here.passes(ahead_s - 0.001)
            assert here.heard() == b""
            await here.passes(0.001)
        assert here.heard().startswith(b"POST /api/chat HTTP/1.1\r\n")
        here.say(HEAD + chunk(DONE) + END)
        record = await sending
        assert (record.due_ns, record.sent_ns, record.connected_ns) == (due_ns, due_ns, due_ns)
        return record

    assert play(script).error is None


@pytest.mark.parametrize(("opens", "limit"), [(False, "connect"), (True, "first_chunk")])
def test_whether_it_was_still_connecting_is_told_of_a_request_that_ran_out_of_time(opens: bool, limit: str) -> None:
    async def script(here: Played) -> RequestRecord:
        if not opens:
            here.opens.clear()
        sending = await here.send(chat(), limits=SOON)
        await here.passes(20.1)
        return await sending

    record = play(script)
    assert record.error == RequestError("timeout", f"{limit}: nothing within 20 s")
    assert (record.connected_ns is None) is not opens


class Idle:
    """An idle connection that the server closes after so many looks at it."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def usable(self) -> bool:
        self.looks -= 1
        return self.looks >= 0

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("looks", "closes"), [((0, 9), "now"), ((1, 9), "later"), ((9, 9), "never")])
def test_a_server_that_closes_connections_is_found_out_now_or_a_moment_later(
    monkeypatch: pytest.MonkeyPatch, looks: tuple[int, ...], closes: str
) -> None:
    monkeypatch.setattr(wire, "_CLOSES_WITHIN_S", 0.0)
    here = ("server", 1)

    async def look() -> None:
        pool = wire.Connections()
        idle: list[Any] = [Idle(each) for each in looks]
        pool._idle[here] = list(idle)
        pool.learn(here)
        assert (here in pool._closing) == (closes == "now")
        await asyncio.gather(*pool._tasks)
        assert (here in pool._closing) == (closes != "never")
        assert pool._idle[here] == (idle if closes == "never" else idle[1:])
        pool.close()

    asyncio.run(look())

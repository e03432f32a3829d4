"""One connection: stamps of the kernel's clock, limits, and every way it can be lost."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic_ns, sleep, time_ns
from typing import Any

import pytest

from loadgen.api import ollama
from loadgen.api.sending import send
from loadgen.simulator import Simulator
from loadgen.types import NS, RequestRecord, Timeouts
from loadgen.wire import connection as connection_module
from loadgen.wire import stamps as stamps_module
from loadgen.wire.connection import ConnectFailed, Connection, TimedOut
from loadgen.wire.stamps import TimestampingSelector
from tests.support.played_wire import SCM_TIMESTAMPNS
from tests.support.scripted_server import DONE, SOON, Peer, Scripted, answers, ask, ask_script, chat, error_of, said
from tests.support.simulators import MODELS

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's receive time is Linux's")


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(MODELS) as running:
        yield running


# The kernel's clock


@pytest.fixture(scope="module", autouse=True)
def _the_kernel_stamps() -> Iterator[None]:
    """Linux begins to stamp a moment after the first socket asked for it, and ends with the last one."""
    if sys.platform != "linux":
        yield
        return
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        ours.setsockopt(socket.SOL_SOCKET, SCM_TIMESTAMPNS, 1)
        theirs, _ = listener.accept()
        with theirs:
            stamped: Any = ()
            while not stamped:
                theirs.send(b"x")
                _, stamped, _, _ = ours.recvmsg(1, 64)
            yield


@linux
def test_stamps_lie_between_the_servers_send_and_our_read(sim: Simulator) -> None:
    sim.reset_truth()
    (record,) = ask(sim.url, chat(model="one", options={"num_predict": 20}))
    read_ns = monotonic_ns()
    (entry,) = sim.truth()["requests"]
    assert record.clock == "kernel"
    assert record.sent_ns is not None
    assert record.end_ns is not None
    assert record.sent_ns < entry["received_ns"]
    assert len(record.chunk_ns) == entry["chunks"]
    # The server's instants are right before its writes. The kernel's are of the wall clock: a step would show.
    for ours, theirs in ((record.chunk_ns[0], entry["first_ns"]), (record.chunk_ns[-1], entry["last_ns"]),
                         (record.end_ns, entry["done_ns"])):  # fmt: skip
        assert theirs - 1_000 <= ours <= read_ns
    assert list(record.chunk_ns) == sorted(record.chunk_ns)


def busy(script: Callable[[Peer, Callable[..., None]], None]) -> RequestRecord:
    """Ask a server whose script can have lines sent while our event loop is blocked: its second argument."""
    wanted, blocked, over = (threading.Event() for _ in range(3))

    async def block() -> None:
        while not wanted.is_set():  # noqa: ASYNC110 - the other side runs in a thread
            await asyncio.sleep(0.001)
        blocked.set()
        over.wait(20)
        sleep(0.05)  # noqa: ASYNC251 - what was received waits in the kernel
        await asyncio.sleep(0)

    def meanwhile(*lines: Any, peer: Peer, apart_s: float = 0.0) -> None:
        wanted.set()
        blocked.wait(20)
        for line in lines:
            peer.chunk(line)
            sleep(apart_s)
        over.set()

    async def both(url: str) -> RequestRecord:
        client = ollama.make_client(url)
        blocking = asyncio.create_task(block())
        record = await send(ollama, client, chat(), SOON)
        await blocking
        await client.close()  # type: ignore[no-untyped-call]
        return record

    with (
        Scripted(lambda peer: script(peer, partial(meanwhile, peer=peer))) as server,
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(TimestampingSelector())) as runner,
    ):
        record = runner.run(both(server.url))
    assert record.error is None
    return record


@linux
def test_a_busy_event_loop_shows_as_read_lag_and_not_as_the_servers_latency() -> None:
    sent_ns: list[int] = []

    def script(peer: Peer, meanwhile: Callable[..., None]) -> None:
        peer.read()
        peer.head()
        peer.chunk(said(""))
        sleep(0.05)
        sent_ns.append(monotonic_ns())
        meanwhile(said("a"))
        sent_ns.append(monotonic_ns())
        sleep(0.1)
        peer.chunk(DONE)
        peer.chunk()

    record = busy(script)
    assert record.first_ns is not None
    assert record.read_lag_max_ns is not None
    assert sent_ns[0] <= record.first_ns + 1_000
    assert record.first_ns <= sent_ns[1]
    assert record.read_lag_max_ns >= 50_000_000
    assert record.merged_chunks == 0


@linux
def test_of_chunks_read_together_the_first_ones_wait_is_told() -> None:
    """The kernel keeps the last one's instant only, which alone would look like a short wait."""

    def script(peer: Peer, meanwhile: Callable[..., None]) -> None:
        peer.read()
        peer.head()
        peer.chunk(said(""))
        sleep(0.05)
        meanwhile(said("a"), said("b"), said("c"), apart_s=0.1)
        peer.chunk(DONE)
        peer.chunk()

    record = busy(script)
    assert record.output_text == "abc"
    assert record.chunk_ns[0] == record.chunk_ns[2]
    assert (record.merged_chunks, (record.read_lag_max_ns or 0) >= 350_000_000) == (3, True)


@linux
@pytest.mark.parametrize(("late_read_ns", "merged"), [(3600 * NS, 0), (-1, 4)])
def test_chunks_that_came_together_are_merged_by_us_only_where_we_read_late(
    monkeypatch: pytest.MonkeyPatch, late_read_ns: int, merged: int
) -> None:
    """How late this read is depends on the machine: it is made to be in time, or late."""

    def script(peer: Peer) -> None:
        peer.read()
        peer.head()
        peer.chunk(*(said(text) for text in "abcd"), DONE)
        peer.chunk()
        peer.read()

    monkeypatch.setattr(connection_module, "_LATE_READ_NS", late_read_ns)
    (record,) = ask_script(script)
    assert (record.output_text, len(record.chunk_ns)) == ("abcd", 4)
    assert record.merged_chunks == merged


def test_without_the_kernels_stamp_the_clock_is_the_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps_module, "_SO_TIMESTAMPNS", None)
    (record,) = ask_script(answers(said("a"), DONE))
    assert record.error is None
    assert (record.clock, record.read_lag_max_ns) == ("read", None)
    assert record.sent_ns is not None
    assert record.sent_ns < record.chunk_ns[0]


@linux
@pytest.mark.parametrize("step_ns", [-10 * NS, 10 * NS, -50_000_000, 50_000_000])
def test_a_step_of_the_wall_clock_is_noticed_and_the_read_counts(monkeypatch: pytest.MonkeyPatch, step_ns: int) -> None:
    """The wall clock is set while the first read is on its way: the kernel's stamp is of before."""
    looks = count()
    monkeypatch.setattr(stamps_module, "time_ns", lambda: time_ns() + (step_ns if next(looks) >= 2 else 0))
    (record,) = ask_script(answers(said("a"), DONE))
    assert record.sent_ns is not None
    assert record.clock == "stepped"
    assert record.sent_ns <= record.chunk_ns[0] <= monotonic_ns()
    assert (record.read_lag_max_ns or 0) < 5 * NS


# Connecting


def open_to(address: tuple[str, int], timeout_s: float = 20.0) -> None:
    async def go() -> None:
        (await Connection.open(address, timeout_s)).close()

    asyncio.run(go())


def test_a_port_where_nobody_listens_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}: Connection refused"):
            open_to(("127.0.0.1", port))
        assert error_of(ask(f"http://127.0.0.1:{port}", chat())) == ("connect", None)


@pytest.mark.parametrize("name", ["no-such-host.invalid", "x" * 64 + ".invalid", "a..b"])
def test_a_name_without_an_address_is_no_connection(name: str) -> None:
    with pytest.raises(ConnectFailed, match="no connection to "):
        open_to((name, 80))


def test_a_host_with_several_addresses_is_tried_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """``localhost`` is IPv6 first on many machines, where Ollama listens at 127.0.0.1 only."""
    with Scripted(answers(DONE)) as server:

        async def several(*_: Any, **__: Any) -> list[Any]:
            stream = (socket.SOCK_STREAM, 6, "")
            return [(socket.AF_INET6, *stream, ("::1", server.port)),
                    (socket.AF_INET, *stream, ("127.0.0.2", 1)),
                    (socket.AF_INET, *stream, ("127.0.0.1", server.port))]  # fmt: skip

        async def go() -> RequestRecord:
            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", several)
            client = ollama.make_client(f"http://many.invalid:{server.port}")
            record = await send(ollama, client, chat(), SOON)
            await client.close()  # type: ignore[no-untyped-call]
            return record

        assert asyncio.run(go()).error is None


@pytest.fixture
def full_backlog() -> Iterator[int]:
    """A port whose listener never accepts and whose backlog is full: the kernel drops what comes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(16):
            sock = socket.socket()
            sock.setblocking(False)
            waiting.append(sock)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for sock in waiting:
            sock.close()


@pytest.mark.parametrize("total_s", [20.0, 0.2])
def test_a_listener_that_does_not_accept_is_a_connect_timeout(full_backlog: int, total_s: float) -> None:
    limits = Timeouts(connect_s=0.2, first_chunk_s=total_s, between_chunks_s=total_s, total_s=total_s)
    (record,) = ask(f"http://127.0.0.1:{full_backlog}", chat(), timeouts=limits)
    assert record.error is not None
    assert (record.error.kind, record.error.message) == ("timeout", "connect: nothing within 0.2 s")
    assert record.connected_ns is None


def test_no_descriptor_is_left_behind_by_what_failed(full_backlog: int) -> None:
    fds = Path("/proc/self/fd")
    if not fds.exists():
        pytest.skip("needs /proc")
    before = len(list(fds.iterdir()))
    with pytest.raises(TimedOut):
        open_to(("127.0.0.1", full_backlog), 0.05)
    with pytest.raises(ConnectFailed):
        open_to(("127.0.0.1", 1))
    assert len(list(fds.iterdir())) == before


# Losing it


def lost(how: str, after: str) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.read()
        match after:
            case "status":
                peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-")
            case "headers":
                peer.head()
            case "chunk":
                peer.head()
                peer.chunk(said("a"))
                sleep(0.05)  # a reset may overtake what was sent
        if how == "reset":
            peer.reset()

    return script


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize(("after", "kind", "chunks"),
                         [("nothing", "connect", 0), ("status", "connect", 0), ("headers", "protocol", 0),
                          ("chunk", "protocol", 1)])  # fmt: skip
def test_where_the_connection_is_lost_decides_the_kind(how: str, after: str, kind: str, chunks: int) -> None:
    (record,) = ask_script(lost(how, after))
    assert record.error is not None
    if (how, after) == ("reset", "headers"):  # the reset may overtake the headers
        assert record.error.kind in ("connect", "protocol")
    else:
        assert record.error.kind == kind
    assert len(record.chunk_ns) == chunks


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x16\x03\x01\x02\x00", b"HTTP/1.1 101 Switching\r\n\r\nxx",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnothex\r\n"],
)  # fmt: skip
def test_what_is_no_http_is_a_protocol_error_at_once(data: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.sock.sendall(data)
        peer.read()

    (record,) = ask_script(script)
    assert record.error is not None
    assert record.error.kind == "protocol"


def test_an_answer_that_only_ends_with_the_connection_is_whole() -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.head(200, {"Content-Type": "application/x-ndjson", "Connection": "close"})
        peer.sock.sendall(b'{"message": {"role": "assistant", "content": "a"}, "done": false}\n')
        sleep(0.02)
        peer.sock.sendall(b'{"message": {"role": "assistant", "content": ""}, "done": true}\n')

    (record,) = ask_script(script)
    assert (record.error, record.output_text) == (None, "a")


def test_a_provisional_answer_is_none() -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.sock.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        sleep(0.02)
        peer.answer(said("a"), DONE)
        peer.read()

    (record,) = ask_script(script)
    assert (record.error, record.output_text) == (None, "a")


@pytest.mark.parametrize("pieces", [1, 7])
def test_lines_cut_anywhere_even_within_a_letter_come_out_whole(pieces: int) -> None:
    line = '{"message": {"role": "assistant", "content": "é中😀"}, "done": false}\n'.encode()

    def script(peer: Peer) -> None:
        peer.read()
        peer.head()
        for i in range(0, len(line), pieces):
            peer.chunk(line[i : i + pieces])
        peer.chunk(DONE)
        peer.chunk()
        peer.read()

    (record,) = ask_script(script)
    assert (record.error, record.output_text, len(record.chunk_ns)) == (None, "é中😀", 1)


# Large requests


BIG = "x" * (6 << 20)


def test_a_prompt_larger_than_any_buffer_is_sent_whole() -> None:
    with Scripted(answers(DONE)) as server:
        (record,) = ask(server.url, chat(BIG))
        assert server.asked[0].body["messages"][0]["content"] == BIG
    assert record.error is None


def large(on_head: Callable[[Peer], None], limits: Timeouts = SOON) -> RequestRecord:
    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        on_head(peer)

    (record,) = ask_script(script, chat(BIG), timeouts=limits)
    return record


def test_a_server_that_breaks_off_amid_the_request_is_noticed_at_once() -> None:
    record = large(Peer.reset)
    assert record.error is not None
    assert record.error.kind == "connect"
    assert (record.end_ns or 0) - (record.sent_ns or 0) < SOON.total_s / 2 * NS


def test_a_server_that_stops_reading_is_a_first_chunk_timeout() -> None:
    record = large(lambda _: sleep(0.4), Timeouts(connect_s=20, first_chunk_s=0.2, between_chunks_s=20, total_s=20))
    assert record.error is not None
    assert (record.error.kind, record.error.message) == ("timeout", "first_chunk: nothing within 0.2 s")


def test_cancelling_while_sending_ends_in_a_record() -> None:
    async def go(url: str) -> RequestRecord:
        client = ollama.make_client(url)
        task = asyncio.create_task(send(ollama, client, chat(BIG), SOON))
        await asyncio.sleep(0.2)
        task.cancel()
        record = await task
        await client.close()  # type: ignore[no-untyped-call]
        return record

    with Scripted(lambda _: sleep(0.4)) as server:
        record = asyncio.run(go(server.url))
    assert record.error is not None
    assert record.error.kind == "cancelled"

"""One connection to the nanosecond and byte: stamps and lags, limits, what is kept open and what is not."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from loadgen.types import NS, Timeouts
from loadgen.wire import framing as framing_module
from loadgen.wire.connection import ConnectFailed, Connection, TimedOut, WireTimings
from loadgen.wire.framing import BadWire, Ndjson
from tests.support.played_wire import END, HEAD, LONG, Connecting, Loop, Played, chunk, play, settled

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's receive time is Linux's")
ONE = chunk(b"{}\n")
MS = 1_000_000


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a callback raises the event loop only logs."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call")] == []


# What this client says of its own delay


@linux
@pytest.mark.parametrize(
    ("lags_ns", "clock", "longest_ns"),
    [
        ([0], "kernel", 0),
        ([300, 100], "kernel", 300),
        ([100, 300, 200], "kernel", 300),
        ([MS], "kernel", MS),
        ([-5], "kernel", 0),
        ([None], "read", 0),
        ([None, 50], "read", 50),
        ([50, None], "read", 50),
        ([3 * NS + 7], "kernel", 3 * NS + 7),
        ([0, 6 * NS], "kernel", 5 * NS),
    ],
)
def test_what_was_received_is_stamped_with_when_the_kernel_had_it(
    lags_ns: list[int | None], clock: str, longest_ns: int
) -> None:
    """What was received is never stamped before what had come first."""

    async def script(here: Played) -> list[tuple[int | None, bool]]:
        found = []
        chunks = await here.ask(HEAD)
        for lag_ns in lags_ns:
            here.clock.ns += 5 * NS
            here.say(ONE, lag_ns)
            await anext(chunks)
            assert here.timings.stamp_ns is not None
            found.append((here.clock.ns - here.timings.stamp_ns, here.timings.late))
        assert (here.timings.clock, here.timings.read_lag_max_ns) == (clock, longest_ns)
        return found

    assert play(script) == [(min(5 * NS, max(0, lag_ns or 0)), False) for lag_ns in lags_ns]


@linux
@pytest.mark.parametrize(
    ("body", "stamping", "lag_ns", "since_ns", "longest_ns", "early", "late"),
    [
        (b"{}\n{}\n", True, 100, 2 * MS, 2 * MS, (2 * MS - 100, 0), True),
        (b"{}\n{}\n", True, 100, MS, MS, (MS - 100, 0), False),
        (b"{}\n{}\n{}\n", True, 0, 9 * MS, 9 * MS, (9 * MS, 9 * MS, 0), True),
        (b"{}\n{}\n", True, None, 2 * MS, 2 * MS, (2 * MS, 2 * MS), True),
        (b"{}\n", True, None, 2 * MS, 0, (2 * MS,), False),
        (b"{}\n", True, 100, 2 * MS, 100, (0,), False),
        (b'{}\n{"half', True, 100, 2 * MS, 100, (0,), False),
        (b"{}\n{}\n", False, 100, 2 * MS, 100, (None, 0), False),
        (b"{}\n{}\n", False, None, 2 * MS, 0, (None, None), False),
    ],
)
def test_of_chunks_read_together_the_first_may_have_come_when_we_had_last_looked(
    body: bytes, stamping: bool, lag_ns: int | None, since_ns: int, longest_ns: int, early: tuple[Any, ...], late: bool
) -> None:
    async def script(here: Played) -> None:
        chunks = await here.ask(HEAD)
        await settled()
        here.clock.ns += since_ns
        here.say(chunk(body), lag_ns)
        for number, early_ns in enumerate(early, 1):
            await anext(chunks)
            assert here.timings.stamp_ns == here.clock.ns - (lag_ns or 0)
            assert (here.timings.read_lag_max_ns, here.timings.early_ns) == (longest_ns, early_ns)
            assert here.timings.late == (late and number < len(early))

    play(script, stamping=stamping)


@linux
def test_a_chunk_that_came_in_pieces_has_the_stamp_of_its_last_byte() -> None:
    async def script(here: Played) -> None:
        chunks = await here.ask(HEAD + chunk(b'{"a'), lag_ns=0)
        here.clock.ns += 5 * NS
        here.say(chunk(b'": 1}\n{"b"'), lag_ns=7)
        assert await anext(chunks) == b'{"a": 1}\n'
        assert here.timings.stamp_ns == here.clock.ns - 7
        here.clock.ns += 5 * NS
        here.say(chunk(b": 2}") + END, lag_ns=3 * MS)
        assert [each async for each in chunks] == [b'{"b": 2}']
        assert (here.timings.stamp_ns, here.timings.early_ns) == (here.clock.ns - 3 * MS, 0)

    play(script)


@pytest.mark.parametrize(("opened", "off_ns"), [(False, 0), (True, 4 * MS)])
def test_only_what_this_client_waits_for_makes_a_request_later_than_sent(opened: bool, off_ns: int) -> None:
    """An open connection is sent on at once; one that opened waits until the event loop looks at it."""

    async def script(here: Played) -> None:
        timings = WireTimings(LONG)
        timings.sent_ns = here.clock.ns - 90 * MS
        await settled()
        here.clock.ns += 4 * MS
        timings.connected_ns = here.clock.ns if opened else None
        asking = asyncio.create_task(here.connection.request(b"GET /", timings, Ndjson))
        asked_ns = here.clock.ns
        await settled()
        assert timings.sent_off_ns == off_ns
        assert timings.sent_ns == (asked_ns - 94 * MS if opened else asked_ns)
        here.say(HEAD)
        await asking

    play(script, stamping=True)


def test_timings_of_what_has_not_begun_claim_nothing() -> None:
    fresh = WireTimings(LONG)
    told = {name: getattr(fresh, name) for name in WireTimings.__slots__ if name != "timeouts"}
    assert told == {
        "clock": None, "connected_ns": None, "connecting": False, "content_type": "", "due_ns": None,
        "early_ns": None, "ended_ns": None, "late": False, "out_of_order": None, "processor_wait_ns": None,
        "read_lag_max_ns": 0, "resent": None, "retry_after": "", "sent_ns": None, "sent_off_ns": None, "stamp_ns": None,
        "take": None,
    }  # fmt: skip


# Limits


LIMITS = Timeouts(connect_s=1, first_chunk_s=20, between_chunks_s=20, total_s=1000)


async def silent_until(here: Played, waiting: asyncio.Future[Any], seconds: float, limit: str) -> None:
    """Nothing happens until just before, then the limit ends it."""
    await here.passes(seconds - 0.1)
    assert not waiting.done()
    await here.passes(0.2)
    with pytest.raises(TimedOut, match=f"^{limit}: nothing within 20 s$"):
        await waiting
    assert here.was_left()
    assert here.connection.closed


@pytest.mark.parametrize("head", [b"", HEAD])
def test_headers_alone_do_not_meet_the_limit_for_the_first_chunk(head: bytes) -> None:
    async def script(here: Played) -> None:
        async def answer() -> bytes:
            await here.connection.request(b"GET /", WireTimings(LIMITS), Ndjson)
            return await anext(aiter(here.connection.chunks()))

        waiting = asyncio.create_task(answer())
        await settled()
        assert here.heard() == b"GET /"
        await here.passes(15)
        here.say(head) if head else None
        await settled()
        await silent_until(here, waiting, 5, "first_chunk")

    play(script)


@pytest.mark.parametrize("gap_s", [15, 0.5, 19.9])
def test_each_chunk_gives_the_next_one_the_whole_limit_again(gap_s: float) -> None:
    async def script(here: Played) -> None:
        chunks = await here.ask(HEAD + ONE, limits=LIMITS)
        await anext(chunks)
        for _ in range(4):
            await here.passes(gap_s)
            here.say(ONE)
            await anext(chunks)
        waiting = asyncio.ensure_future(anext(chunks))
        await silent_until(here, waiting, 20, "between_chunks")

    play(script)


def test_limits_that_ran_out_early_on_are_looked_at_again_until_they_have() -> None:
    """The timer is set once, and finds how much is left of it when it fires."""

    async def script(here: Played) -> None:
        chunks = await here.ask(HEAD + ONE, limits=LIMITS)
        await anext(chunks)
        await here.passes(0.5)
        here.say(ONE)
        await anext(chunks)
        waiting = asyncio.ensure_future(anext(chunks))
        await here.passes(19.7)
        await here.passes(0.2)
        assert not waiting.done()
        await silent_until(here, waiting, 0.1, "between_chunks")

    play(script)


def test_the_limit_for_the_first_chunk_ends_with_it() -> None:
    async def script(here: Played) -> None:
        limits = Timeouts(connect_s=1, first_chunk_s=20, between_chunks_s=100, total_s=1000)
        chunks = await here.ask(HEAD + ONE, limits=limits)
        await anext(chunks)
        waiting = asyncio.ensure_future(anext(chunks))
        await here.passes(50)
        await here.passes(49)
        assert not waiting.done()
        here.say(ONE)
        assert await waiting

    play(script)


@linux
def test_what_waited_for_us_until_the_limit_ran_out_is_still_handed_over() -> None:
    async def script(here: Played) -> None:
        chunks = await here.ask(HEAD + ONE, limits=LIMITS)
        await anext(chunks)
        waiting = asyncio.ensure_future(anext(chunks))
        await settled()
        here.clock.ns += 45 * NS
        here.say(ONE, lag_ns=21 * NS)
        await settled()
        assert await waiting == b"{}\n"
        with pytest.raises(TimedOut, match="between_chunks"):
            await anext(chunks)

    play(script)


def test_a_chunk_costs_no_timer() -> None:
    async def script(here: Played) -> int:
        chunks = await here.ask(HEAD + ONE)
        await anext(chunks)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        before = loop.timers
        for _ in range(20):
            here.say(ONE)
            await anext(chunks)
        return loop.timers - before

    assert play(script) == 0


# What is kept open


async def whole(here: Played, answer: bytes = HEAD + ONE + END) -> bool:
    """Ask, read the answer to its end, give the connection back: whether it can be used again."""
    assert [chunk async for chunk in await here.ask(answer)] == [b"{}\n"]
    return here.connection.release()


def test_a_connection_whose_answer_was_read_to_its_end_is_kept_however_long_it_is_idle() -> None:
    async def script(here: Played) -> None:
        for _ in range(3):
            assert await whole(here) is True
            await here.passes(10_000)
            assert here.connection.usable() is True
            assert here.heard() == b"GET /"
            assert not here.connection.closed

    play(script)


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_half_read_connection_is_closed_and_not_used_again(earlier: int) -> None:
    """Also one whose earlier answer was whole: what is left of this one would be the next one's."""

    async def script(here: Played) -> None:
        for _ in range(earlier):
            await whole(here)
        chunks = await here.ask(HEAD + ONE)
        await anext(chunks)
        assert here.connection.release() is False
        assert here.connection.closed
        assert here.was_left()
        assert here.connection.usable() is False

    play(script)


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n{}\n",
     b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n{}\n",
     HEAD.replace(b"\r\n\r\n", b"\r\nConnection: Close\r\n\r\n") + ONE + END],
)  # fmt: skip
def test_a_server_that_will_close_is_taken_at_its_word(head: bytes) -> None:
    async def script(here: Played) -> None:
        assert await whole(here, head) is False
        assert here.connection.closed

    play(script)


@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("how", ["closes", "speaks", "resets"])
def test_an_idle_connection_that_the_server_ended_is_known_to_be_of_no_use(how: str, seen: bool, asked: int) -> None:
    async def script(here: Played) -> None:
        for _ in range(asked):
            await whole(here)
        if how == "speaks":
            here.say(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        elif how == "closes":
            here.server.close()
        else:
            here.wire.reads.append(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
            here.server.close()
        if seen:
            await settled()
            assert here.connection.closed
        assert here.connection.usable() is False
        assert here.connection.closed
        assert here.connection.usable() is False
        await settled()

    play(script)


def test_a_connection_lost_after_a_whole_answer_spoils_nothing_and_is_not_kept() -> None:
    async def script(here: Played) -> None:
        chunks = await here.ask(HEAD + ONE + END)
        here.server.close()
        await settled()
        assert [chunk async for chunk in chunks] == [b"{}\n"]
        assert here.connection.release() is False

    play(script)


def test_what_follows_a_whole_answer_ends_the_connection() -> None:
    async def script(here: Played) -> None:
        chunks = await here.ask(HEAD + ONE + END)
        here.say(b"no HTTP at all\r\n\r\n")
        await settled()
        assert [chunk async for chunk in chunks] == [b"{}\n"]
        assert here.connection.release() is False
        assert here.connection.closed

    play(script)


def test_nothing_is_kept_of_a_lost_connection_until_its_limits_run_out() -> None:
    async def lose() -> weakref.ref[Connection]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            connection = Connection(ours, ("127.0.0.1", 11434))
            asking = asyncio.create_task(connection.request(b"GET /", WireTimings(LONG), Ndjson))
            await settled()
            theirs.sendall(HEAD + ONE)
            await asking
            connection.close()
        return weakref.ref(connection)

    async def script(_: Played) -> None:
        lost = await lose()
        gc.collect()
        assert lost() is None

    play(script)


# Sending


def test_a_request_that_does_not_fit_at_once_is_sent_whole() -> None:
    async def script(here: Played) -> None:
        for sends in ([BlockingIOError()], [3], [3, 1, BlockingIOError(), 2], [0, 5]):
            here.wire.sends.extend(sends)
            await whole(here)
            assert here.heard() == b"GET /"

    play(script)


@pytest.mark.parametrize("taken", [[], [2], [BlockingIOError()]])
def test_a_connection_lost_while_sending_is_told_in_the_systems_words(taken: list[int | OSError]) -> None:
    async def script(here: Played) -> None:
        here.wire.sends.extend([*taken, BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))])
        with pytest.raises(ConnectFailed, match=r"^the connection was lost while sending: Broken pipe$"):
            await here.connection.request(b"GET /", here.timings, Ndjson)

    play(script)


# Reading


@pytest.mark.parametrize("alarm", [BlockingIOError(), InterruptedError()])
def test_a_false_alarm_of_the_kernel_is_none(alarm: OSError) -> None:
    async def script(here: Played) -> None:
        here.wire.reads.append(alarm)
        await whole(here)

    play(script)


@pytest.mark.parametrize(
    ("came", "kind", "message"),
    [
        (b"", ConnectFailed, "{} before an answer came"),
        (b"HTTP/1.1 200 OK\r\nContent-Ty", ConnectFailed, "{} before an answer came"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", ConnectFailed, "{} before an answer came"),
        (HEAD, BadWire, "{} before the answer's end"),
        (HEAD + ONE, BadWire, "{} before the answer's end"),
        (HEAD + ONE + b"0\r\n", BadWire, "{} before the answer's end"),
        (b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 4\r\n\r\n{}\n", BadWire, "{} before the answer's end"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{}\n", BadWire, "{} before the answer's end"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{}\n", None, ""),
        (b"HTTP/1.1 200 OK\r\n\r\n{}\n", None, ""),
    ],
)
@pytest.mark.parametrize("how", ["the connection was closed", "the connection was reset: Connection reset by peer"])
def test_what_had_come_when_the_connection_was_lost_decides_what_it_is(
    how: str, came: bytes, kind: type[Exception] | None, message: str
) -> None:
    async def answer(here: Played) -> list[bytes]:
        await here.connection.request(b"GET /", here.timings, Ndjson)
        return [chunk async for chunk in here.connection.chunks()]

    async def script(here: Played) -> None:
        waiting = asyncio.create_task(answer(here))
        await settled()
        here.say(came) if came else None
        await settled()
        assert not waiting.done()
        if "reset" in how:
            here.wire.reads.append(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
        here.heard()  # what is unread when it closes would make it a reset
        here.server.close()
        if kind is None:
            assert await waiting == [b"{}\n"]
            assert here.connection.release() is False
        else:
            with pytest.raises(kind) as caught:
                await waiting
            assert str(caught.value) == message.format(how)
        assert here.connection.closed

    play(script)


@pytest.mark.parametrize("bytes_at_a_time", [1, 3, 1000])
@pytest.mark.parametrize(
    ("answer", "status", "headers", "content_type"),
    [
        (HEAD + ONE + END, 200, 2, "application/x-ndjson"),
        (b"HTTP/1.1 200 OK\r\ncontent-length:3\r\ncontent-type:application/json\r\nDate: today\r\n\r\n{}\n", 200, 3,
         "application/json"),
        (b"HTTP/1.1 200\r\nCONTENT-TYPE: text/html; charset=\xe9\r\nContent-Length: 3\r\nServer: x\r\n\r\n{}\n", 200, 3,
         "text/html; charset=\xe9"),
        (b"HTTP/1.1 200 OK\r\nX-Content-Type: b\r\nTransfer-Encoding: Chunked\r\n\r\n"
         b"1;a=b\r\n{\r\n2\r\n}\n\r\n0\r\nT: x\r\n\r\n",
         200, 2, ""),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 3\r\nContent-Type: a\r\nContent-Type: b\r\n\r\n{}\n", 503, 3, "b"),
        *((b"HTTP/1.1 %d Wait\r\n\r\n" % status + HEAD + ONE + END, 200, 2, "application/x-ndjson")
          for status in (100, 102, 103, 199)),
        (b"HTTP/1.1 201 Made\r\nContent-Length: 3\r\n\r\n{}\n", 201, 1, ""),
    ],
)  # fmt: skip
def test_an_answer_is_read_however_it_is_written_and_cut(
    answer: bytes, status: int, headers: int, content_type: str, bytes_at_a_time: int
) -> None:
    async def read(here: Played) -> bytes:
        await here.connection.request(b"GET /", here.timings, Ndjson)
        return b"".join([chunk async for chunk in here.connection.chunks()])

    async def script(here: Played) -> None:
        for _ in range(2):
            here.timings = WireTimings(LONG)
            reading = asyncio.create_task(read(here))
            await settled()
            for i in range(0, len(answer), bytes_at_a_time):
                here.server.sendall(answer[i : i + bytes_at_a_time])
                await asyncio.sleep(0)
            assert await reading == b"{}\n"
            assert (here.connection.status, here.timings.content_type) == (status, content_type)
            assert len(here.connection.headers) == headers
            assert here.connection.release() is True
            assert here.connection.usable() is True

    play(script)


@pytest.mark.parametrize(("status", "framed"), [(200, True), (203, False), (500, False), (404, False), (301, False)])
def test_only_an_answer_is_cut_into_chunks(status: int, framed: bool) -> None:
    async def script(here: Played) -> None:
        chunks = await here.ask(b"HTTP/1.1 %d What\r\nContent-Length: 4\r\n\r\n" % status)
        here.say(b"\xff\nx\n")
        assert await anext(chunks) == (b"\xff\n" if framed else b"\xff\nx\n")

    play(script)


@pytest.mark.parametrize("status", [200, 500])
def test_only_an_answer_has_to_have_ends_of_lines(status: int) -> None:
    async def script(here: Played) -> list[bytes]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(framing_module, "_MAX_CHUNK", 3)
            chunks = await here.ask(b"HTTP/1.1 %d What\r\nContent-Length: 4\r\n\r\nxxxx" % status)
            return [chunk async for chunk in chunks]

    if status == 500:
        assert play(script) == [b"xxxx"]
    else:
        with pytest.raises(BadWire, match="a line of the answer is longer than"):
            play(script)


# Connecting


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 9)"), "Connection refused"),
        (OSError(errno.EPERM, "asyncio's own words"), "Operation not permitted"),
        (OSError(errno.EMFILE, "asyncio's own words"), "Too many open files"),
        (socket.gaierror(-3, "Temporary failure in name resolution"), "Temporary failure in name resolution"),
        (OSError(0, "words"), "words"),
        (OSError("only words"), "only words"),
        (UnicodeError("label too long"), "label too long"),
    ],
)
def test_why_there_is_no_connection_is_told_in_the_systems_words(error: Exception, words: str) -> None:
    loop = Connecting(error)
    with asyncio.Runner(loop_factory=lambda: loop) as runner, pytest.raises(ConnectFailed) as caught:
        runner.run(Connection.open(("127.0.0.1", 9), 20))
    assert str(caught.value) == f"no connection to 127.0.0.1:9: {words}"
    assert loop.called == [(("127.0.0.1", 9), True)], "no part of a request waits for an acknowledgement of the last"

"""One connection to the nanosecond and byte: stamps and lags, limits, what is kept open and what is not."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import sys
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from loadgen.types import NS, Timeouts
from loadgen.wire import connection as connection_module
from loadgen.wire.connection import BadWire, ConnectFailed, Connection, Exchange, Lines, NotingSelector, TimedOut
from tests.support.played_wire import END, HEAD, LONG, WALL_NS, Connecting, Loop, Played, chunk, play, settled

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's receive time is Linux's")
ONE, TWO = chunk(b"{}\n"), chunk(b"{}\n{}\n")
MS = 1_000_000


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a callback raises the event loop only logs."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call")] == []


# What this client says of its own delay


@linux
@pytest.mark.parametrize(
    ("lags_ns", "clock", "longest_ns", "late"),
    [
        ([0], "kernel", 0, [False]),
        ([300, 100], "kernel", 300, [False, False]),
        ([100, 300, 200], "kernel", 300, [False, False, False]),
        ([MS], "kernel", MS, [False]),
        ([MS + 1], "kernel", MS + 1, [True]),
        ([MS + 1, 5], "kernel", MS + 1, [True, False]),
        ([-5], "kernel", 0, [False]),
        ([None], "read", 0, [False]),
        ([None, 50], "read", 50, [False, False]),
        ([50, None], "read", 50, [False, False]),
        ([3 * NS + 7], "kernel", 3 * NS + 7, [True]),
    ],
)
def test_what_was_received_is_stamped_with_when_the_kernel_had_it(
    lags_ns: list[int | None], clock: str, longest_ns: int, late: list[bool]
) -> None:
    async def script(here: Played) -> list[tuple[int | None, bool]]:
        found = []
        pieces = await here.ask(HEAD + ONE, lags_ns[0])
        for lag_ns in lags_ns:
            if found:
                here.clock.ns += 5 * NS
                here.say(ONE, lag_ns)
            await anext(pieces)
            assert here.exchange.stamp_ns is not None
            found.append((here.clock.ns - here.exchange.stamp_ns, here.exchange.late_reads))
        assert (here.exchange.clock, here.exchange.read_lag_max_ns) == (clock, longest_ns)
        return found

    assert play(script) == [(max(0, lag_ns or 0), one) for lag_ns, one in zip(lags_ns, late, strict=True)]


@linux
@pytest.mark.parametrize(
    ("lines", "noting", "lag_ns", "since_ns", "longest_ns", "late"),
    [
        (TWO, True, 100, 2 * MS, 2 * MS, True),
        (TWO, True, 100, MS, MS, False),
        (TWO, True, 5 * MS, 2 * MS, 5 * MS, True),
        (TWO, True, None, 2 * MS, 2 * MS, True),
        (ONE, True, 100, 2 * MS, 100, False),
        (chunk(b'{"half'), True, 100, 2 * MS, 100, False),
        (TWO, False, 100, 2 * MS, 100, False),
    ],
)
def test_of_lines_read_together_the_first_may_have_come_when_we_had_last_looked(
    lines: bytes, noting: bool, lag_ns: int | None, since_ns: int, longest_ns: int, late: bool
) -> None:
    async def script(here: Played) -> None:
        pieces = await here.ask(HEAD)
        await settled()
        here.clock.ns += since_ns
        here.say(lines, lag_ns)
        await anext(pieces)
        assert here.exchange.stamp_ns == here.clock.ns - (lag_ns or 0)
        assert (here.exchange.read_lag_max_ns, here.exchange.late_reads) == (longest_ns, late)
        here.say(TWO)
        await anext(pieces)
        assert (here.exchange.read_lag_max_ns, here.exchange.late_reads) == (longest_ns, False)

    play(script, noting=noting)


@pytest.mark.parametrize(
    ("timeout", "took_ns", "waited"),
    [
        (0, 600_000, False),
        (0.0, 0, False),
        (None, 0, False),
        (None, 500_000, False),
        (None, 500_001, True),
        (1, 600_000, True),
        (0.02, 500_000, False),
        (0.02, 600_000, True),
    ],
)
def test_a_look_that_had_to_wait_found_what_had_just_come(
    monkeypatch: pytest.MonkeyPatch, timeout: float | None, took_ns: int, waited: bool
) -> None:
    times = iter([100, 110, 50_000_000, 50_000_000 + took_ns])
    monkeypatch.setattr(connection_module, "monotonic_ns", lambda: next(times))
    ours, theirs = socket.socketpair()
    with NotingSelector() as selector, ours, theirs:
        selector.register(ours, 1)
        theirs.sendall(b"x")
        assert len(selector.select(0)) == 1
        assert [key.fileobj for key, _ in selector.select(timeout)] == [ours]
        assert selector.readable_since_ns == (50_000_000 + took_ns if waited else 110)


@pytest.mark.parametrize(
    ("between_ns", "tries"),
    [([0], 1), ([19_999], 1), ([20_000, 19_999], 2), ([90_000, 20_000, 0], 3), ([90_000, 90_000, 90_000], 3)],
)
def test_both_clocks_are_read_again_while_we_are_set_aside_between_them(
    monkeypatch: pytest.MonkeyPatch, between_ns: list[int], tries: int
) -> None:
    """Three times; a machine that is that busy shows in the lag."""
    ticks = iter([at for i, apart in enumerate(between_ns) for at in (i * MS, i * MS + apart)])
    walls = iter([WALL_NS + i * MS for i in range(len(between_ns))])
    monkeypatch.setattr(connection_module, "monotonic_ns", lambda: next(ticks))
    monkeypatch.setattr(connection_module, "time_ns", lambda: next(walls))
    assert connection_module._clocks() == ((tries - 1) * MS, WALL_NS + (tries - 1) * MS)


def test_an_exchange_that_has_not_begun_claims_nothing() -> None:
    fresh = Exchange(LONG)
    told = {name: getattr(fresh, name) for name in Exchange.__slots__ if name != "timeouts"}
    assert told == {
        "clock": None, "connected_ns": None, "connecting": False, "content_type": "", "due_ns": None,
        "late_reads": False, "read_lag_max_ns": 0, "sent_ns": None, "stamp_ns": None, "tools": (),
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
            await here.connection.request(b"GET /", Exchange(LIMITS))
            return await anext(aiter(here.connection.pieces()))

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
        pieces = await here.ask(HEAD + ONE, limits=LIMITS)
        await anext(pieces)
        for _ in range(4):
            await here.passes(gap_s)
            here.say(ONE)
            await anext(pieces)
        waiting = asyncio.ensure_future(anext(pieces))
        await silent_until(here, waiting, 20, "between_chunks")

    play(script)


def test_limits_that_ran_out_early_on_are_looked_at_again_until_they_have() -> None:
    """The timer is set once, and finds how much is left of it when it fires."""

    async def script(here: Played) -> None:
        pieces = await here.ask(HEAD + ONE, limits=LIMITS)
        await anext(pieces)
        await here.passes(0.5)
        here.say(ONE)
        await anext(pieces)
        waiting = asyncio.ensure_future(anext(pieces))
        await here.passes(19.7)
        await here.passes(0.2)
        assert not waiting.done()
        await silent_until(here, waiting, 0.1, "between_chunks")

    play(script)


def test_the_limit_for_the_first_chunk_ends_with_it() -> None:
    async def script(here: Played) -> None:
        limits = Timeouts(connect_s=1, first_chunk_s=20, between_chunks_s=100, total_s=1000)
        pieces = await here.ask(HEAD + ONE, limits=limits)
        await anext(pieces)
        waiting = asyncio.ensure_future(anext(pieces))
        await here.passes(50)
        await here.passes(49)
        assert not waiting.done()
        here.say(ONE)
        assert await waiting

    play(script)


@linux
def test_what_waited_for_us_until_the_limit_ran_out_is_still_handed_over() -> None:
    async def script(here: Played) -> None:
        pieces = await here.ask(HEAD + ONE, limits=LIMITS)
        await anext(pieces)
        waiting = asyncio.ensure_future(anext(pieces))
        await settled()
        here.clock.ns += 45 * NS
        here.say(ONE, lag_ns=21 * NS)
        await settled()
        assert await waiting == b"{}\n"
        with pytest.raises(TimedOut, match="between_chunks"):
            await anext(pieces)

    play(script)


def test_a_chunk_costs_no_timer() -> None:
    async def script(here: Played) -> int:
        pieces = await here.ask(HEAD + ONE)
        await anext(pieces)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        before = loop.timers
        for _ in range(20):
            here.say(ONE)
            await anext(pieces)
        return loop.timers - before

    assert play(script) == 0


# What is kept open


async def whole(here: Played, answer: bytes = HEAD + ONE + END) -> None:
    """Ask, read the answer to its end, give the connection back."""
    assert [piece async for piece in await here.ask(answer)] == [b"{}\n"]
    here.connection.release(here.idle)


def test_a_connection_whose_answer_was_read_to_its_end_is_kept_however_long_it_is_idle() -> None:
    async def script(here: Played) -> None:
        for asked in (1, 2, 3):
            await whole(here)
            assert here.idle == [here.connection] * asked
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
        here.idle.clear()
        pieces = await here.ask(HEAD + ONE)
        await anext(pieces)
        here.connection.release(here.idle)
        assert here.idle == []
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
        await whole(here, head)
        assert here.idle == []
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
        pieces = await here.ask(HEAD + ONE + END)
        here.server.close()
        await settled()
        assert [piece async for piece in pieces] == [b"{}\n"]
        here.connection.release(here.idle)
        assert here.idle == []

    play(script)


def test_what_follows_a_whole_answer_ends_the_connection() -> None:
    async def script(here: Played) -> None:
        pieces = await here.ask(HEAD + ONE + END)
        here.say(b"no HTTP at all\r\n\r\n")
        await settled()
        assert [piece async for piece in pieces] == [b"{}\n"]
        here.connection.release(here.idle)
        assert (here.idle, here.connection.closed) == ([], True)

    play(script)


def test_nothing_is_kept_of_a_lost_connection_until_its_limits_run_out() -> None:
    async def lose() -> weakref.ref[Connection]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            connection = Connection(ours)
            asking = asyncio.create_task(connection.request(b"GET /", Exchange(LONG)))
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
            await here.connection.request(b"GET /", here.exchange)

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
        await here.connection.request(b"GET /", here.exchange)
        return [piece async for piece in here.connection.pieces()]

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
            here.connection.release(here.idle)
            assert here.idle == []
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
         200, 3, ""),
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
        await here.connection.request(b"GET /", here.exchange)
        return b"".join([piece async for piece in here.connection.pieces()])

    async def script(here: Played) -> None:
        for _ in range(2):
            here.exchange = Exchange(LONG)
            reading = asyncio.create_task(read(here))
            await settled()
            for i in range(0, len(answer), bytes_at_a_time):
                here.server.sendall(answer[i : i + bytes_at_a_time])
                await asyncio.sleep(0)
            assert await reading == b"{}\n"
            assert (here.connection.status, here.exchange.content_type) == (status, content_type)
            assert len(here.connection.headers) == headers
            here.connection.release(here.idle)
            assert here.connection.usable() is True

    play(script)


@pytest.mark.parametrize(("status", "wrong"), [(200, True), (500, False), (404, False), (201, False)])
def test_only_an_answer_has_to_be_utf8(status: int, wrong: bool) -> None:
    async def script(here: Played) -> None:
        pieces = await here.ask(b"HTTP/1.1 %d What\r\nContent-Length: 4\r\n\r\n" % status)
        here.say(b"\xff\xfe\n\n")
        if wrong:
            with pytest.raises(BadWire, match=r"^the answer is not UTF-8: invalid start byte$"):
                await anext(pieces)
        else:
            assert await anext(pieces) == b"\xff\xfe\n\n"

    play(script)


MIB = 1 << 20


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([b"x" * (16 * MIB)], None),
        ([b"x" * (16 * MIB + 1)], "a line of the answer is longer than 16 MiB"),
        ([b"x" * (15 * MIB), b"y" * MIB], None),
        ([b"x" * (15 * MIB), b"y" * MIB, b"z"], "a line of the answer is longer than 16 MiB"),
        ([b"x" * (16 * MIB), b"\nyy", b"z" * (16 * MIB - 2)], None),
        ([b"x" * (16 * MIB), b"\nyy", b"z" * (16 * MIB - 1)], "a line of the answer is longer than 16 MiB"),
        ([b"x" * (16 * MIB), b"\n", b"z" * (16 * MIB)], None),
        ([b"a\nb\nc", b"z" * (16 * MIB)], "a line of the answer is longer than 16 MiB"),
        (["é中😀".encode()[i : i + 1] for i in range(9)], None),
        ([b"\xc3", b"\n"], "the answer is not UTF-8: invalid continuation byte"),
        ([b"ok\n", b"\xff"], "the answer is not UTF-8: invalid start byte"),
    ],
)
def test_lines_have_an_end_and_are_utf8(pieces: Sequence[bytes], message: str | None) -> None:
    lines = Lines()
    for piece in pieces[:-1]:
        lines.check(piece)
    if message is None:
        lines.check(pieces[-1])
    else:
        with pytest.raises(BadWire) as caught:
            lines.check(pieces[-1])
        assert str(caught.value) == message


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

"""TLS over a connection whose server, kernel and clock the test plays: stamps, and records that are no chunks."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

from loadgen.wire.connection import ConnectFailed
from loadgen.wire.framing import BadWire
from tests.support.played_wire import HEAD, Played, chunk, play, settled
from tests.support.tls import ServerSide, certificates

T = TypeVar("T")
MS = 1_000_000
UNSIZED = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def secured(
    script: Callable[[Played, ServerSide], Awaitable[T]], version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> T:
    """Play over TLS."""
    client, server = ssl.create_default_context(cafile=certificates()("ca.pem")), certificates().server()
    client.minimum_version = client.maximum_version = version

    async def play_secured(played: Played) -> T:
        side = ServerSide(client, server)
        played.connection._tls = side.layer
        return await script(played, side)

    return play(play_secured)


async def rest_of(chunks: AsyncIterator[bytes]) -> list[bytes]:
    return [each async for each in chunks]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_request_is_sealed_and_a_record_has_the_stamp_of_its_read(version: ssl.TLSVersion) -> None:
    async def script(played: Played, server: ServerSide) -> None:
        chunks = await played.ask(server.seal(HEAD))
        assert server.read(played.heard()) == b"GET /"
        asked_ns = played.clock.ns
        await played.passes(1)
        played.say(server.seal(chunk({"a": 1})), 3 * MS)
        assert await anext(chunks) == b'{"a": 1}\n'
        assert played.timings.stamp_ns == asked_ns + 1000 * MS - 3 * MS
        assert (played.timings.clock, played.timings.read_lag_max_ns) == ("kernel", 3 * MS)

    secured(script, version)


def test_a_record_in_pieces_has_the_stamp_of_its_last_byte() -> None:
    async def script(played: Played, server: ServerSide) -> None:
        chunks = await played.ask(server.seal(HEAD))
        record = server.seal(chunk({"a": 1}))
        played.say(record[:3])
        await played.passes(0.5)
        played.say(record[3:-1])
        await played.passes(0.5)
        assert not played.connection._chunks
        played.say(record[-1:], 2 * MS)
        assert await anext(chunks) == b'{"a": 1}\n'
        assert played.timings.stamp_ns == played.clock.ns - 2 * MS

    secured(script)


def test_a_chunk_in_several_records_has_the_stamp_of_the_one_that_completes_it() -> None:
    async def script(played: Played, server: ServerSide) -> None:
        chunks = await played.ask(server.seal(HEAD))
        whole = chunk({"a": 1})
        for piece in (whole[:2], whole[2:7]):
            played.say(server.seal(piece))
            await played.passes(0.5)
        assert not played.connection._chunks
        played.say(server.seal(whole[7:]))
        assert await anext(chunks) == b'{"a": 1}\n'
        assert played.timings.stamp_ns == played.clock.ns

    secured(script)


def test_a_record_of_several_chunks_and_several_records_in_one_read_give_each_chunk() -> None:
    async def script(played: Played, server: ServerSide) -> None:
        chunks = await played.ask(server.seal(HEAD))
        await played.passes(1)
        played.say(server.seal(chunk({"a": 1}) + chunk({"b": 2})) + server.seal(chunk({"c": 3})), 1000)
        found = [(await anext(chunks), played.timings.stamp_ns) for _ in range(3)]
        assert found == [(line, played.clock.ns - 1000) for line in (b'{"a": 1}\n', b'{"b": 2}\n', b'{"c": 3}\n')]

    secured(script)


def test_the_longest_records_and_an_answer_of_many_come_whole() -> None:
    async def script(played: Played, server: ServerSide) -> None:
        chunks = await played.ask(server.seal(HEAD))
        text = "x" * 50_000
        sealed = server.seal(chunk({"a": text}))
        for start in range(0, len(sealed), 10_000):
            played.say(sealed[start : start + 10_000])
            await settled()
        assert await anext(chunks) == b'{"a": "%b"}\n' % text.encode()

    secured(script)


def test_session_tickets_are_no_answer_and_leave_an_idle_connection_open() -> None:
    async def script(played: Played, server: ServerSide) -> None:
        tickets = server.tickets()
        assert len(tickets) > 9
        played.say(tickets[:9])
        assert played.connection.usable(), "a part of what is TLS's own"
        played.say(tickets[9:])
        await settled()
        assert played.connection.usable()
        chunks = await played.ask(server.seal(HEAD + chunk({"a": 1}) + b"0\r\n\r\n"))
        assert await rest_of(chunks) == [b'{"a": 1}\n']

    secured(script)


def test_tickets_amid_an_answer_are_no_chunk_and_have_no_stamp() -> None:
    async def script(played: Played, server: ServerSide) -> None:
        tickets = server.tickets()
        head = server.seal(HEAD)
        chunks = await played.ask(tickets + head)
        assert (played.timings.stamp_ns, list(played.connection._chunks)) == (None, [])
        played.say(server.seal(chunk({"a": 1})))
        assert await anext(chunks) == b'{"a": 1}\n'

    secured(script)


@pytest.mark.parametrize("said", [b"", b"more than was asked for"])
def test_what_a_server_says_unasked_or_its_goodbye_makes_an_idle_connection_useless(said: bytes) -> None:
    async def script(played: Played, server: ServerSide) -> None:
        played.say(server.seal(said) if said else server.goodbye())
        assert not played.connection.usable()
        assert played.connection.closed

    secured(script)


def test_a_body_without_a_length_is_whole_after_a_goodbye_only() -> None:
    async def ends(played: Played, server: ServerSide) -> list[bytes]:
        chunks = await played.ask(server.seal(UNSIZED + b'{"a": 1}\n{"b": 2}'))
        played.say(server.goodbye())
        return await rest_of(chunks)

    async def ends_at_once(played: Played, server: ServerSide) -> list[bytes]:
        return await rest_of(await played.ask(server.seal(UNSIZED + b'{"a": 1}\n{"b": 2}') + server.goodbye()))

    async def is_cut(played: Played, server: ServerSide) -> list[bytes]:
        chunks = await played.ask(server.seal(UNSIZED + b'{"a": 1}\n{"b": 2}'))
        played.heard()
        played.server.close()
        return await rest_of(chunks)

    assert secured(ends) == secured(ends_at_once) == [b'{"a": 1}\n', b'{"b": 2}']
    with pytest.raises(BadWire, match="closed before the answer's end"):
        secured(is_cut)


def test_a_goodbye_amid_an_answer_or_before_it_is_its_end() -> None:
    async def amid(played: Played, server: ServerSide) -> list[bytes]:
        chunks = await played.ask(server.seal(HEAD + chunk({"a": 1})))
        played.say(server.goodbye())
        return await rest_of(chunks)

    async def before(played: Played, server: ServerSide) -> None:
        await played.ask(server.goodbye())

    with pytest.raises(BadWire, match="closed before the answer's end"):
        secured(amid)
    with pytest.raises(ConnectFailed, match="closed before an answer came"):
        secured(before)


def test_bytes_that_somebody_changed_end_the_answer() -> None:
    async def script(played: Played, server: ServerSide) -> None:
        chunks = await played.ask(server.seal(HEAD))
        sealed = bytearray(server.seal(chunk({"a": 1})))
        sealed[-1] ^= 1
        played.say(bytes(sealed))
        await rest_of(chunks)

    with pytest.raises(BadWire, match="before the answer's end"):
        secured(script)


def test_the_server_is_told_when_we_leave() -> None:
    async def script(played: Played, server: ServerSide) -> None:
        played.connection.close()
        assert server.hears_goodbye(played.heard())

    secured(script)


def test_a_long_request_is_sealed_whole() -> None:
    side = ServerSide(ssl.create_default_context(cafile=certificates()("ca.pem")), certificates().server())
    data = bytes(range(256)) * 1000
    received = side.read(side.layer.encrypt(data))
    while len(received) < len(data):
        received += side.read(b"")
    assert received == data

"""One request sent, whatever the API: instants, limits, errors and the record; a second API is made up here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from dataclasses import replace
from time import monotonic_ns
from typing import Any, ClassVar

import httpx
import pytest

from loadgen.api import ollama, openai
from loadgen.api.answer import Piece
from loadgen.api.sending import send
from loadgen.simulator import Simulator
from loadgen.types import NS, Request, RequestError, RequestRecord, Timeouts
from loadgen.wire.connection import ConnectFailed, Connection, TimedOut, WireTimings
from loadgen.wire.framing import BadWire
from loadgen.wire.httpx_adapter import HttpxTransport
from loadgen.wire.stamps import TimestampingSelector
from tests.support.played_wire import END, HEAD, Played, answering, chunk, lines, play, settled
from tests.support.scripted_server import DONE, SOON, Peer, Scripted, ask, chat, said
from tests.support.simulators import ANSWERS, MODELS, wait_for


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator({**MODELS, "fault:slow-drip": MODELS["drip"]}, ANSWERS) as running:
        yield running


# Due times and cancelling


def test_due_is_kept_apart_from_sent_and_nothing_is_sent_before(sim: Simulator) -> None:
    async def at(due_ns: int) -> RequestRecord:
        client = ollama.make_client(sim.url)
        try:
            return await send(ollama, client, chat(model="sim:fast"), SOON, due_ns=due_ns, worker=4)
        finally:
            await client.close()  # type: ignore[no-untyped-call]

    due_ns = monotonic_ns() + 60_000_000
    sim.reset_truth()
    record = asyncio.run(at(due_ns))
    (entry,) = sim.truth()["requests"]
    assert (record.due_ns, record.worker) == (due_ns, 4)
    assert record.sent_ns is not None
    assert due_ns <= record.sent_ns <= entry["received_ns"]
    late = asyncio.run(at(due_ns))
    assert late.due_ns == due_ns
    assert (late.send_lag_s or 0) > 0
    assert (late.ttft_due_s or 0) > (late.ttft_s or 0)


@pytest.mark.parametrize("model", ["fault:hang-before", "fault:hang-mid"])
def test_a_cancelled_request_ends_in_a_record(sim: Simulator, model: str) -> None:
    sim.reset_truth()

    async def cancelled() -> RequestRecord:
        client = ollama.make_client(sim.url)
        task = asyncio.create_task(send(ollama, client, chat(model=model, options={"num_predict": 8}), SOON))
        await asyncio.to_thread(wait_for, sim, "in_flight", 1)
        await asyncio.sleep(0.2)
        task.cancel()
        try:
            return await task
        finally:
            await client.close()  # type: ignore[no-untyped-call]

    record = asyncio.run(cancelled())
    assert record.error is not None
    assert record.error.kind == "cancelled"
    assert bool(record.output_text) == (model == "fault:hang-mid")


@pytest.mark.parametrize(
    ("model", "limits", "limit"),
    [
        ("fault:hang-before", {"first_chunk_s": 0.2}, "first_chunk: nothing within 0.2 s"),
        ("fault:hang-mid", {"between_chunks_s": 0.2}, "between_chunks: nothing within 0.2 s"),
        ("fault:slow-drip", {"total_s": 0.15}, "total: the answer did not end within 0.15 s"),
        ("fault:hang-before", {"total_s": 0.2}, "total: nothing within 0.2 s"),
        ("fault:hang-before", {"total_s": 0.2, "first_chunk_s": 0.2}, "first_chunk: nothing within 0.2 s"),
    ],
)
def test_the_limit_that_was_reached_is_named(sim: Simulator, model: str, limits: dict[str, float], limit: str) -> None:
    timeouts = Timeouts(**{"connect_s": 20, "first_chunk_s": 20, "between_chunks_s": 20, "total_s": 20} | limits)
    (record,) = ask(sim.url, chat(model=model, options={"num_predict": 8}), timeouts=timeouts)
    assert record.error is not None
    assert (record.error.kind, record.error.message) == ("timeout", limit)


# To the nanosecond


QUICK = Timeouts(connect_s=1000, first_chunk_s=1000, between_chunks_s=1000, total_s=20)


def test_every_instant_of_a_request_is_the_one_at_which_it_happened() -> None:
    call = {"function": {"name": "f", "arguments": {}}}

    async def script(here: Played) -> tuple[int, RequestRecord]:
        start = here.clock.ns
        sending = await here.send(chat(index=7), due_ns=start + 3 * NS, worker=2)
        await here.passes(2.9)
        assert here.heard() == b""
        await here.passes(0.1)
        assert here.heard().startswith(b"POST /api/chat HTTP/1.1\r\n")
        for line in (said(""), said("", thinking="t"), said("a"), said("", thinking="u"), said("b"),
                     said("", tool_calls=[call]), said("", tool_calls=[call]), DONE):  # fmt: skip
            await here.passes(1)
            here.say((HEAD if line == said("") else b"") + chunk(line), lag_ns=50)
            await settled()
        await here.passes(2)
        here.say(END)
        await settled()
        await here.passes(5)
        return start, await sending

    start, record = play(script)
    assert record == RequestRecord(
        index=7, worker=2, due_ns=start + 3 * NS, sent_ns=start + 3 * NS, connected_ns=start + 3 * NS,
        chunk_ns=tuple(start + at * NS - 50 for at in (5, 6, 7, 8, 9, 10)), first_thinking_ns=start + 5 * NS - 50,
        first_answer_ns=start + 6 * NS - 50, first_tool_call_ns=start + 9 * NS - 50, end_ns=start + 11 * NS - 50,
        held_ns=2 * NS + 50, chunk_early_ns=(),
        read_lag_max_ns=50, clock="kernel", output_text="ab", thinking_text="tu",
        tool_calls=({"name": "f", "arguments": {}},) * 2, done_reason="stop", output_tokens=2,
    )  # fmt: skip


def test_of_a_request_sent_at_once_and_broken_off_every_instant_stays() -> None:
    async def script(here: Played) -> tuple[int, RequestRecord]:
        start = here.clock.ns
        here.opens.clear()
        sending = await here.send(chat())
        await here.passes(2)
        here.opens.set()
        await settled()
        await here.passes(1)
        here.say(HEAD + chunk(said("a")), lag_ns=None)
        await settled()
        await here.passes(1)
        here.heard()
        here.server.close()
        return start, await sending

    start, record = play(script)
    assert record == RequestRecord(
        index=0, worker=-1, due_ns=start, sent_ns=start, connected_ns=start + 2 * NS, chunk_ns=(start + 3 * NS,),
        first_answer_ns=start + 3 * NS, end_ns=start + 4 * NS, read_lag_max_ns=None, clock="read", output_text="a",
        error=RequestError("protocol", "the connection was closed before the answer's end"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reads", "merged"),
    [
        ([([said("a")], 0), ([said("b"), said("c")], 2)], 1),
        ([([said("a")], 0), ([said("b"), said("c"), said("d")], 2)], 2),
        ([([said(""), said("a"), said("b")], 2)], 1),
        ([([said("a"), said(""), said("b")], 2)], 1),
        ([([said("a"), said("b")], 1)], 0),
        ([([said("a")], 2), ([said("b")], 2), ([said("c")], 2)], 0),
        ([([said("a"), said("b")], 2), ([said("c"), said("d")], 2)], 2),
        ([([said("a"), DONE], 2)], 1),
        ([([said("a"), {**DONE, "message": {"role": "assistant", "content": "b"}}], 2)], 1),
    ],
)
def test_chunks_that_share_a_late_read_with_an_earlier_one_are_merged(
    reads: list[tuple[list[Any], int]], merged: int
) -> None:
    """A read is late when it waited over a millisecond; what the server sent together and we read at once is not."""

    async def script(here: Played) -> RequestRecord:
        sending = await here.send(chat())
        here.say(HEAD)
        await settled()
        for each, lag_ms in reads:
            await here.passes(1)
            here.say(chunk(*each), lag_ms * 1_000_000)
            await settled()
        await here.passes(1)
        here.say(END if reads[-1][0][-1].get("done") else chunk(DONE) + END)
        return await sending

    record = play(script)
    assert (record.error, record.merged_chunks) == (None, merged)
    assert record.read_lag_max_ns == max(lag_ms for _, lag_ms in reads) * 1_000_000


def test_where_the_client_knows_of_no_late_reads_none_are_merged() -> None:
    record = answering(lines(said("a"), said("b"), DONE)).ask(chat())
    assert (record.clock, len(record.chunk_ns), record.merged_chunks) == ("read", 2, 0)


@pytest.mark.parametrize(
    ("when", "changed", "limit"),
    [
        ("connecting", {}, "total"),
        ("connecting", {"connect_s": 20}, "connect"),
        ("connecting", {"connect_s": 20, "first_chunk_s": 20}, "connect"),
        ("connecting", {"first_chunk_s": 20}, "first_chunk"),
        ("before", {}, "total"),
        ("before", {"connect_s": 20}, "total"),
        ("before", {"connect_s": 20, "first_chunk_s": 20, "between_chunks_s": 20}, "first_chunk"),
        ("amid", {}, "total"),
        ("amid", {"connect_s": 20, "first_chunk_s": 20}, "total"),
    ],
)
def test_of_limits_that_run_out_together_the_most_telling_is_named(
    when: str, changed: dict[str, float], limit: str
) -> None:
    async def script(here: Played) -> RequestRecord:
        if when == "connecting":
            here.opens.clear()
        sending = await here.send(chat(), limits=replace(QUICK, **changed))
        if when == "amid":
            here.say(HEAD + chunk(said("")))
        await here.passes(19.9)
        assert not sending.done()
        await here.passes(0.2)
        return await sending

    told = "the answer did not end" if limit == "total" and when == "amid" else "nothing"
    assert play(script).error == RequestError("timeout", f"{limit}: {told} within 20 s")


@pytest.mark.parametrize(("due_s", "left_s"), [(0, 20), (-15, 5), (8, 28)])
def test_the_limit_for_the_whole_counts_from_when_it_was_due(due_s: int, left_s: int) -> None:
    async def script(here: Played) -> RequestRecord:
        sending = await here.send(chat(), limits=QUICK, due_ns=here.clock.ns + due_s * NS)
        for _ in range(left_s - 1):
            await here.passes(1)
        assert not sending.done()
        await here.passes(1.1)
        return await sending

    assert play(script).error == RequestError("timeout", "total: nothing within 20 s")


# What an error is


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (TimedOut("first_chunk", 3), "timeout", "first_chunk: nothing within 3 s"),
        (ConnectFailed("nobody there"), "connect", "nobody there"),
        (ConnectionResetError(), "connect", "ConnectionResetError"),
        (BadWire("odd"), "protocol", "odd"),
        (httpx.ReadError(""), "protocol", "ReadError"),
        (httpx.InvalidURL("bad"), "protocol", "bad"),
    ],
)
def test_what_is_raised_on_the_way_becomes_an_error_of_its_kind(raised: Exception, kind: str, message: str) -> None:
    async def sent() -> RequestRecord:
        client = ollama.make_client("http://127.0.0.1:11434")
        record = await send(ollama, client, chat(), SOON)
        await client.close()  # type: ignore[no-untyped-call]
        return record

    async def failing(*_: Any) -> None:
        raise raised

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "open", failing)
        record = asyncio.run(sent())
    assert record.error == RequestError(kind, message)  # type: ignore[arg-type]
    assert record.end_ns is not None


# A second API needs a module of its own and nothing else: one of server-sent events

SENDING: ContextVar[WireTimings] = ContextVar("sending")


class Events:
    """Server-sent events: a chunk is what stands before a blank line."""

    NAME: ClassVar[str] = "server-sent events"
    CONTENT_TYPES: ClassVar[tuple[str, ...]] = ("text/event-stream",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *chunks, self._rest = (self._rest + data).split(b"\n\n")
        return [chunk + b"\n\n" for chunk in chunks]

    def rest(self) -> bytes:
        return self._rest


class MadeUp:
    """What ``send`` uses of an API's module, with a client of a dozen lines."""

    FRAMING = Events
    ENDS_ONCE = False

    def make_client(self, host: str | None) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=HttpxTransport(SENDING.get, Events, bytes), base_url=host or "")

    async def call(self, client: httpx.AsyncClient, request: Request, timings: WireTimings) -> AsyncIterator[Any]:
        SENDING.set(timings)
        return self._parts(client, request)

    async def _parts(self, client: httpx.AsyncClient, request: Request) -> AsyncIterator[Any]:
        async with client.stream("POST", "/v1/chat/completions", json=openai.body(request)) as response:
            if response.is_error:
                raise LookupError(response.status_code, (await response.aread()).decode())
            async for event in response.aiter_bytes():
                if event != b"data: [DONE]\n\n":
                    yield json.loads(event.removeprefix(b"data: "))

    def piece(self, part: Any) -> Piece:
        return openai.piece(part)

    def usual(self, chunk: bytes) -> Piece | None:  # noqa: ARG002
        return None

    def error_of(self, caught: Exception, timings: WireTimings) -> RequestError | None:  # noqa: ARG002
        return RequestError("http", caught.args[1], caught.args[0]) if isinstance(caught, LookupError) else None


def event(said: dict[str, Any], finish: str | None = None) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": said, "finish_reason": finish}]}).encode() + b"\n\n"


def ask_made_up(server: Scripted, request: Request) -> RequestRecord:
    async def go() -> RequestRecord:
        api = MadeUp()
        client = api.make_client(server.url)
        try:
            return await send(api, client, request, SOON)
        finally:
            await client.aclose()

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(TimestampingSelector())) as runner:
        return runner.run(go())


def events(*data: bytes) -> Any:
    def script(peer: Peer) -> None:
        peer.read()
        peer.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        for each in data:
            peer.chunk(each)
        peer.chunk()
        peer.read()

    return script


def test_a_record_is_made_of_another_apis_stream() -> None:
    stream = [event({"role": "assistant", "content": ""}), event({"reasoning": "hm"}), event({"content": "a"}),
              event({"content": "b"}), event({}, "stop"), b"data: [DONE]\n\n"]  # fmt: skip
    with Scripted(events(*stream)) as server:
        record = ask_made_up(server, chat(options={"num_predict": 9}))
        assert server.asked[0].body["max_tokens"] == 9
    assert (record.error, record.output_text, record.thinking_text, record.done_reason) == (None, "ab", "hm", "stop")
    assert len(record.chunk_ns) == 3
    assert record.first_thinking_ns == record.first_ns
    assert record.sent_ns is not None
    assert record.sent_ns < record.chunk_ns[0] <= record.chunk_ns[-1] <= (record.end_ns or 0)


@pytest.mark.parametrize(
    ("stream", "message"),
    [([event({"content": "a"})], "ended without a done message"), ([b"data: \xff{\n\n"], None)],
)
def test_a_stream_that_is_not_whole_is_no_answer(stream: list[bytes], message: str | None) -> None:
    with Scripted(events(*stream)) as server:
        if message is None:
            with pytest.raises(ValueError, match="utf-8"):  # an API that does not know an error has a bug
                ask_made_up(server, chat())
        else:
            record = ask_made_up(server, chat())
            assert record.error is not None
            assert record.error.kind == "protocol"
            assert message in record.error.message


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [(400, "response_format: unsupported schema", "rejected"), (400, "context length exceeded", "http"),
     (400, "this model does not support tools", "http"), (401, "no schema without a key", "http")],
)  # fmt: skip
def test_whether_an_error_refuses_the_schema_is_judged_alike_for_all(status: int, text: str, kind: str) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.plain(status, text.encode())

    with Scripted(script) as server:
        record = ask_made_up(server, chat(format={"type": "object"}))
    assert record.error is not None
    assert (record.error.kind, record.error.status) == (kind, status)
    assert text in record.error.message


def test_tools_that_were_sent_are_refused_and_a_long_message_is_cut() -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.plain(400, b"this model does not support tools" + b"!" * 600)

    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    with Scripted(script) as server:
        record = ask_made_up(server, chat(tools=(tool,)))
    assert record.error is not None
    assert record.error.kind == "rejected"
    assert len(record.error.message) == 500

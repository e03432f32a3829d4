"""A second API needs a module of its own and nothing else: one of server-sent events, made up here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, ClassVar

import httpx
import pytest

from loadgen.api import openai
from loadgen.api.answer import Piece
from loadgen.api.sending import send
from loadgen.types import Request, RequestError, RequestRecord
from loadgen.wire.connection import TimestampingSelector, WireTimings
from loadgen.wire.framing import Ndjson
from loadgen.wire.httpx_adapter import HttpxTransport
from tests.support.scripted_server import SOON, Peer, Scripted, chat

SENDING: ContextVar[WireTimings] = ContextVar("sending")


class Events(Ndjson):
    """Server-sent events: a chunk is what stands before a blank line."""

    NAME: ClassVar[str] = "server-sent events"
    CONTENT_TYPES: ClassVar[tuple[str, ...]] = ("text/event-stream",)

    def feed(self, data: bytes) -> list[bytes]:
        self._lines = [*getattr(self, "_lines", []), *super().feed(data)]
        chunks = []
        while b"\n" in self._lines:
            end = self._lines.index(b"\n") + 1
            chunks.append(b"".join(self._lines[:end]))
            del self._lines[:end]
        return chunks


class MadeUp:
    """What a module of an API has, with a client of a dozen lines."""

    FRAMING = Events

    def make_client(self, host: str | None) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=HttpxTransport(SENDING.get, Events, bytes), base_url=host or "")

    async def preconnect(self, client: Any, count: int, timeout_s: float) -> None:
        raise NotImplementedError

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

    def error_of(self, caught: Exception, timings: WireTimings) -> RequestError | None:  # noqa: ARG002
        return RequestError("http", caught.args[1], caught.args[0]) if isinstance(caught, LookupError) else None


def event(said: dict[str, Any], finish: str | None = None) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": said, "finish_reason": finish}]}).encode() + b"\n\n"


def ask(server: Scripted, request: Request) -> RequestRecord:
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
        record = ask(server, chat(options={"num_predict": 9}))
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
                ask(server, chat())
        else:
            record = ask(server, chat())
            assert record.error is not None
            assert record.error.kind == "protocol"
            assert message in record.error.message


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [(400, "response_format: unsupported schema", "rejected"), (400, "context length exceeded", "http"),
     (401, "no schema without a key", "http")],
)  # fmt: skip
def test_whether_an_error_refuses_the_schema_is_judged_alike_for_all(status: int, text: str, kind: str) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.plain(status, text.encode())

    with Scripted(script) as server:
        record = ask(server, chat(format={"type": "object"}))
    assert record.error is not None
    assert (record.error.kind, record.error.status, record.error.message) == (kind, status, text)

"""Under httpx: lines as they were framed, and the way round for TLS and proxies with the same records and errors."""

from __future__ import annotations

import asyncio
import json
import socket
from time import monotonic_ns
from typing import Any

import httpx
import pytest

from loadgen.api import ollama
from loadgen.simulator import Simulator
from loadgen.types import Request, RequestError, RequestRecord, Timeouts
from loadgen.wire.access import Access, access_of
from loadgen.wire.connection import WireTimings
from loadgen.wire.framing import Ndjson
from loadgen.wire.httpx_adapter import HttpxTransport
from tests.support.played_wire import END, HEAD, Answering, Body, Played, answering, chunk, lines, play
from tests.support.scripted_server import DONE, Peer, Scripted, answers, ask, ask_script, chat, said
from tests.support.simulators import BOOK


def test_a_request_is_to_the_letter_what_httpx_itself_would_send() -> None:
    class Usual:
        """The API without our own ``stream``."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ollama, name)

        def make_client(self, host: str, access: Access) -> Any:
            client = ollama.make_client(host, access)
            del client._client.stream
            return client

    access = access_of({"K": "secret"}, api_key_env="K", header=["X-Own=é"])
    requests = [chat("é", tools=({"type": "function", "function": {"name": "f"}},)), chat("hi", options={"seed": 1})]
    requests += [Request(index=1, model="m", prompt="p", body={"raw": True}), *requests]
    with Scripted(answers(said("a"), DONE)) as server:
        ask(server.url, *requests, access=access)
        ask(server.url, *requests, access=access, api=Usual())
        ours, theirs = server.asked[: len(requests)], server.asked[len(requests) :]
    assert [(each.head, each.headers, each.data) for each in ours] == [
        (each.head, each.headers, each.data) for each in theirs
    ]


# Lines


@pytest.mark.parametrize("text", ["a\u0085b", "a\u2028b", "a\x7fb", "\u00e9\u4e2d\U0001f600"])
def test_a_line_ends_where_json_says(text: str) -> None:
    """httpx's own lines also end at U+0085 and U+2028: an answer that held one broke the client."""
    line = f'{{"message": {{"role": "assistant", "content": "{text}"}}, "done": false}}\n'.encode()
    (record,) = ask_script(answers(line, DONE))
    assert (record.error, record.output_text, len(record.chunk_ns)) == (None, text, 1)


WHOLE = json.dumps(said("é中😀"), ensure_ascii=False).encode() + b"\n" + lines(DONE)


@pytest.mark.parametrize(
    ("pieces", "text", "error"),
    [
        ([b"\xff\n"], "", RequestError("protocol", "the answer is not UTF-8: invalid start byte")),
        ([b"\xc3", b"\n"], "", RequestError("protocol", "the answer is not UTF-8: invalid continuation byte")),
        ([lines(said("a")), b"\xff"], "a", RequestError("protocol", "the answer is not UTF-8: invalid start byte")),
        ([WHOLE[at : at + 1] for at in range(len(WHOLE))], "é中😀", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("direct", [True, False])
def test_lines_of_an_answer_are_utf8_wherever_they_are_cut(
    direct: bool, pieces: list[bytes], text: str, error: RequestError | None
) -> None:
    async def script(here: Played) -> RequestRecord:
        sending = await here.send(chat())
        here.say(HEAD)
        for piece in pieces:
            here.say(chunk(piece))
        here.say(END)
        return await sending

    record = play(script) if direct else answering(*pieces).ask(chat())
    assert (record.error, record.output_text) == (error, text)


@pytest.mark.parametrize("status", [404, 500])
def test_only_an_answer_has_to_be_utf8(status: int) -> None:
    async def script(here: Played) -> RequestRecord:
        sending = await here.send(chat())
        here.say(b"HTTP/1.1 %d No\r\nContent-Length: 5\r\n\r\n\xff\xfe no" % status)
        return await sending

    for record in (play(script), answering(b"\xff\xfe no", status=status).ask(chat())):
        assert record.error is not None
        assert (record.error.kind, record.error.status) == ("http", status)
        assert record.error.message.endswith(" no")


@pytest.mark.parametrize("status", [201, 203, 299])
def test_what_is_not_200_is_no_answer_by_either_way(status: int) -> None:

    async def script(here: Played) -> RequestRecord:
        sending = await here.send(chat())
        here.say(HEAD.replace(b"200", b"%d" % status) + chunk(said("a"), DONE) + END)
        return await sending

    for record in (play(script), answering(lines(said("a"), DONE), status=status).ask(chat())):
        assert record.error == RequestError("http", f"HTTP {status} is not an answer", status)
        assert record.output_text == ""


@pytest.mark.parametrize("where", ["https://other/api/chat", "http://127.0.0.1/x", "//other/api/chat", "/there"])
def test_a_redirect_is_told_and_never_followed_by_either_way(where: str) -> None:
    async def script(here: Played) -> RequestRecord:
        sending = await here.send(chat())
        here.say(b"HTTP/1.1 307 Else\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % where.encode())
        return await sending

    there = answering(b"", status=307, location=where)
    for record, base in ((play(script), "http://127.0.0.1:11434"), (there.ask(chat()), "https://nowhere.invalid")):
        told = httpx.URL(base).join(where)
        assert record.error == RequestError("http", f"HTTP 307 redirects to {told}: give that as --host", 307)
    assert len(there.requests) == 1


# Round by httpx: proxies and TLS


def is_kernel(url: str) -> bool:
    transport = HttpxTransport(WireTimings, Ndjson, bytes)  # type: ignore[arg-type]
    return transport._httpx_transport(httpx.URL(url)) is None


def test_which_transport_for_which_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_kernel("http://127.0.0.1:11434")
    assert is_kernel("https://127.0.0.1:11434")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert is_kernel("http://127.0.0.1:11434")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert not is_kernel("http://127.0.0.1:11434")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,example.org")
    assert is_kernel("http://127.0.0.1:11434")
    assert not is_kernel("http://127.0.0.2:11434")


ONE_LINE = lines(said("a"))
NO_BYTE = "Server disconnected without sending a response."
CUT = "peer closed connection without sending complete message body (incomplete chunked read)"


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (httpx.ConnectTimeout("slow"), "timeout", "connect: nothing within 7 s"),
        (httpx.ConnectError("All connection attempts failed"), "connect", "All connection attempts failed"),
        (httpx.ReadError(""), "connect", "the connection was lost before an answer came"),
        (httpx.WriteError("broken pipe"), "connect", "broken pipe"),
        (httpx.ProxyError("407 Proxy Authentication Required"), "connect", "407 Proxy Authentication Required"),
        (httpx.RemoteProtocolError(NO_BYTE), "connect", NO_BYTE),
        (httpx.RemoteProtocolError("illegal status line"), "protocol", "illegal status line"),
        (httpx.LocalProtocolError(""), "protocol", "LocalProtocolError"),
    ],
)
def test_what_httpx_raises_before_an_answer_is_an_error_of_ours(raised: Exception, kind: str, message: str) -> None:
    inner = Answering(raised)
    record = inner.ask(chat(), Timeouts(connect_s=7, first_chunk_s=20, between_chunks_s=20, total_s=20))
    assert record.error is not None
    assert (record.error.kind, record.error.message, record.error.status) == (kind, message, None)
    assert inner.requests[0].extensions["timeout"] == {"connect": 7}
    assert inner.closed


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (httpx.RemoteProtocolError(CUT), CUT),
        (httpx.ReadError(""), "ReadError"),
        (b"\xff\n", "the answer is not UTF-8: invalid start byte"),
        (b"x" * (16 << 20), "a line of the answer is longer than 16 MiB"),
    ],
)
def test_what_breaks_an_answer_off_by_way_of_httpx_is_a_protocol_error(broken: bytes | Exception, message: str) -> None:
    inner = answering(ONE_LINE, b"{", broken)
    record = inner.ask(chat())
    assert record.error == RequestError("protocol", message)
    assert (record.output_text, record.clock) == ("a", "read")
    assert isinstance(inner.answer, httpx.Response)
    assert isinstance(inner.answer.stream, Body)
    assert inner.answer.stream.closed


@pytest.mark.parametrize(
    ("events", "opened_by"),
    [
        ((), None),
        (("http11.send_request_headers.complete", "connection.connect_tcp.started"), None),
        (("connection.connect_tcp.complete", "http11.send_request_headers.started"), 1),
        (("connection.connect_tcp.complete", "connection.start_tls.started", "connection.start_tls.complete", "x"), 3),
    ],
)
def test_by_way_of_httpx_a_connection_stands_when_tls_is_agreed_and_before_if_there_is_none(
    events: tuple[str, ...], opened_by: int | None
) -> None:
    inner = answering(lines(DONE))
    inner.events = events
    record = inner.ask(chat())
    assert record.error is None
    if opened_by is None:
        assert (record.connected_ns, record.connect_s) == (None, 0.0)
    else:
        assert record.connected_ns is not None
        assert inner.happened_ns[opened_by] <= record.connected_ns <= inner.happened_ns[opened_by + 1]


@pytest.mark.parametrize("ahead_ns", [None, 20_000_000])
def test_by_way_of_httpx_nothing_is_sent_before_it_is_due(ahead_ns: int | None) -> None:
    inner = answering(ONE_LINE, lines(DONE))
    before_ns = monotonic_ns()
    due_ns = None if ahead_ns is None else before_ns + ahead_ns
    record = inner.ask(chat(), due_ns=due_ns)
    assert record.error is None
    assert record.sent_ns is not None
    assert (due_ns or before_ns) <= record.sent_ns <= inner.happened_ns[0] <= record.chunk_ns[0] <= monotonic_ns()
    assert record.due_ns == (due_ns or record.sent_ns)


def test_where_httpx_keeps_the_connections_none_is_opened_beforehand() -> None:
    async def go() -> None:
        client = ollama.make_client("https://nowhere.invalid")
        await ollama.preconnect(client, 3, 20)
        await client.close()  # type: ignore[no-untyped-call]

    inner = answering(lines(DONE))
    with inner.instead():
        asyncio.run(go())
    assert inner.requests == []


def forward(target: str) -> Any:
    """A proxy: each request goes onward on a connection of its own, its answer comes back as it is."""

    def script(peer: Peer) -> None:
        while (asked := peer.read()) is not None:
            method, url, _ = asked.head.split()
            where = httpx.URL(url)
            assert where.host == "nowhere.invalid"
            address = httpx.URL(target)
            with socket.create_connection((address.host, address.port or 80), timeout=20) as onward:
                peer.server.onward.append(onward)
                head = f"{method} {where.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(asked.data)}\r\n\r\n"
                onward.sendall(head.encode() + asked.data)
                came = b""
                while not came.endswith(b"\r\n0\r\n\r\n") and not came.startswith(b"HTTP/1.1 4"):
                    data = onward.recv(1 << 16)
                    if not data:
                        return
                    peer.sock.sendall(data)
                    came = (came + data)[-40:] if came else data

    return script


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_through_a_proxy_the_clock_is_the_read(sim: Simulator, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    sim.reset_truth()
    with Scripted(forward(sim.url)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"{scheme}127.0.0.1:{proxy.port}")
        requests = [chat(model="sim:fast", options={"num_predict": 5}), chat(model="sim:fast", tools=(BOOK,))]
        text, tool = ask("http://nowhere.invalid:11434", *requests)
        assert proxy.asked[1].body["tools"] == [BOOK]
    (entry, _) = sim.truth()["requests"]
    assert (text.error, text.output_tokens, text.clock, text.read_lag_max_ns) == (None, 5, "read", None)
    assert text.sent_ns is not None
    assert text.sent_ns < entry["received_ns"] < entry["first_ns"] < text.chunk_ns[0]
    assert tool.tool_calls[0]["name"] == "book"


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ("fault:refuse", "connect", ""),
        ("fault:hang-before", "timeout", "first_chunk: nothing within 0.2 s"),
        ("fault:hang-mid", "timeout", "between_chunks: nothing within 0.2 s"),
        ("fault:close", "protocol", ""),
        ("fault:garbage", "protocol", "not NDJSON"),
        ("fault:invalid-utf8", "protocol", "not UTF-8"),
        ("fault:huge-line", "protocol", "longer than 16 MiB"),
        ("fault:error-line", "stream", ""),
        ("fault:404", "http", "not found"),
    ],
)
def test_through_a_proxy_errors_have_the_same_kinds(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, model: str, kind: str, message: str
) -> None:
    silence_s = 0.2 if "hang" in model else 20
    limits = Timeouts(connect_s=20, first_chunk_s=silence_s, between_chunks_s=silence_s, total_s=20)
    with Scripted(forward(sim.url)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        (record,) = ask("http://nowhere.invalid", chat(model=model, options={"num_predict": 8}), timeouts=limits)
    assert record.error is not None
    assert record.error.kind == kind
    assert message in record.error.message


def test_a_proxy_that_is_not_there_or_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    (refused,) = ask("http://nowhere.invalid", chat())
    assert refused.error is not None
    assert refused.error.kind == "connect"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.socket() as first, socket.socket() as second:
            for waiting in (first, second):
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
            limits = Timeouts(connect_s=0.2, first_chunk_s=20, between_chunks_s=20, total_s=20)
            (silent,) = ask("http://nowhere.invalid", chat(), timeouts=limits)
    assert silent.error is not None
    assert (silent.error.kind, silent.error.message) == ("timeout", "connect: nothing within 0.2 s")


def test_a_plain_server_asked_for_tls_is_no_connection() -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Scripted(script) as server:
        (record,) = ask(server.url.replace("http://", "https://"), chat())
    assert record.error is not None
    assert record.error.kind == "connect"


def test_the_script_server_itself_answers() -> None:
    assert [record.error for record in ask_script(answers(DONE))] == [None]

"""The transports: whole tools, connections kept and limits lifted, and the way round for TLS and proxies."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic_ns, sleep
from typing import Any

import httpx
import ollama
import pytest

from loadgen.api.ollama import make_client, preconnect, send
from loadgen.simulator import Simulator
from loadgen.types import NS, Request, RequestError, RequestRecord, Timeouts
from loadgen.wire import transport as wire
from loadgen.wire.transport import KernelTransport, ReadTransport, transport_for, until
from tests.support.played_wire import (
    END,
    HEAD,
    Answering,
    Body,
    Connecting,
    Played,
    answering,
    chunk,
    lines,
    play,
    settled,
)
from tests.support.scripted_server import DONE, SOON, Peer, Scripted, answers, ask, ask_script, chat, said
from tests.support.simulators import ANSWERS, MODELS, wait_for

TOOL = {
    "type": "function",
    "strict": True,
    "function": {
        "name": "book",
        "description": "Book a table — für zwei",
        "parameters": {
            "type": "object",
            "properties": {
                "when": {"type": "string", "format": "date-time"},
                "seats": {"type": "integer", "minimum": 1, "maximum": 12, "default": 2},
                "place": {"type": "object", "properties": {"city": {"type": "string", "minLength": 1}},
                          "required": ["city"]},
                "dishes": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1},
                "either": {"anyOf": [{"type": "null"}, {"type": "number"}]},
            },
            "required": ["when"],
            "additionalProperties": False,
        },
    },
}  # fmt: skip
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(MODELS, ANSWERS) as running:
        yield running


# Tools


@pytest.mark.parametrize("text", ["hi", '"tools":[]', 'say "tools":[] twice: "tools":[]'])
@pytest.mark.parametrize("tools", [(TOOL,), (TOOL, {**TOOL, "function": {"name": "none"}})])
def test_tools_reach_the_server_as_they_are(tools: tuple[dict[str, Any], ...], text: str) -> None:
    """The official client drops what its own model of a tool does not know: minimum, format, nested properties."""
    with Scripted(answers(DONE)) as server:
        (record,) = ask(server.url, chat(text, tools=tools, options={"seed": 1}))
        (asked,) = server.asked
    assert record.error is None
    assert asked.body["tools"] == list(tools)
    assert asked.body["messages"] == [{"role": "user", "content": text}]
    assert asked.body["options"] == {"seed": 1}


def test_tools_go_along_with_a_bare_prompt_too() -> None:
    inner = answering(lines({"response": "", "done": True}))
    assert inner.ask(Request(index=0, model="m", prompt="p", tools=(TOOL,))).error is None
    (request,) = inner.requests
    assert json.loads(request.content) == {"model": "m", "prompt": "p", "stream": True, "tools": [TOOL]}
    assert request.headers["content-length"] == str(len(request.content))


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
        client = make_client(url)
        records = [await send(client, chat(), SOON)]
        if noticed:
            await asyncio.to_thread(ended.wait, 20)
            await asyncio.sleep(0.05)
        else:
            ended.wait(20)
            sleep(0.05)  # noqa: ASYNC251 - the event loop has no chance to hear of it
        records.append(await send(client, chat(), SOON))
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
        client = make_client(url)
        await preconnect(client, 5, 20)
        records = await asyncio.gather(*(send(client, chat(), SOON) for _ in range(5)))
        await client.close()  # type: ignore[no-untyped-call]
        return records

    with Scripted(answers(DONE)) as server:
        records = asyncio.run(go(server.url))
        assert server.connections == 5
    assert [(record.error, record.connected_ns) for record in records] == [(None, None)] * 5


def test_connecting_beforehand_to_nobody_is_left_to_the_requests() -> None:
    async def go() -> None:
        client = make_client("http://127.0.0.1:1")
        await preconnect(client, 3, 0.5)
        assert (await send(client, chat(), SOON)).error is not None
        await client.close()  # type: ignore[no-untyped-call]

    asyncio.run(go())


def test_no_more_are_opened_beforehand_than_are_wanted() -> None:
    async def go(url: str) -> None:
        client = make_client(url)
        for count in (2, 3, 1, 3):
            await preconnect(client, count, 20)
        await client.close()  # type: ignore[no-untyped-call]

    loop = Connecting()
    with Scripted(answers(DONE)) as server, asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(go(server.url))
    assert len(loop.called) == 3


def test_where_httpx_keeps_the_connections_none_is_opened_beforehand() -> None:
    async def go() -> None:
        client = ollama.AsyncClient("http://nowhere.invalid", transport=ReadTransport(inner))
        await preconnect(client, 3, 20)
        await client.close()  # type: ignore[no-untyped-call]

    inner = answering(lines(DONE))
    asyncio.run(go())
    assert inner.requests == []


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError()])
@pytest.mark.parametrize(("url", "port"), [("http://127.0.0.1", 80), ("http://127.0.0.1:81", 81)])
def test_where_nobody_answers_is_tried_once_beforehand_and_once_by_each_request(
    url: str, port: int, error: OSError
) -> None:
    async def go() -> None:
        client = make_client(url)
        await preconnect(client, 3, 20)
        assert len(loop.called) == 1
        assert (await send(client, chat(), SOON)).error is not None
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
        client = make_client(url)
        await preconnect(client, 3, 20)
        await send(client, chat(), SOON)
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
        client = make_client(sim.url)
        limits = Timeouts(connect_s=20, first_chunk_s=20, between_chunks_s=20, total_s=20)
        tasks = [asyncio.create_task(send(client, chat(model="fault:hang-before"), limits)) for _ in range(many)]
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
    asyncio.run(until(instant))
    assert turns == 0 if left_ns <= 0 else instant <= now_ns < instant + 10_000
    assert turns <= 120


def test_a_wait_never_ends_early_by_the_real_clock_either() -> None:
    async def go() -> None:
        instant = monotonic_ns() + 4_000_000
        await until(instant)
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


# Round by httpx: proxies and TLS


def is_kernel(url: str) -> bool:
    transport = transport_for(url)
    assert isinstance(transport, KernelTransport | ReadTransport)
    return isinstance(transport, KernelTransport)


def test_which_transport_for_which_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_kernel("http://127.0.0.1:11434")
    assert not is_kernel("https://127.0.0.1:11434")
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


@pytest.mark.parametrize("status", [404, 500])
def test_by_way_of_httpx_only_an_answer_has_to_be_utf8(status: int) -> None:
    record = answering(b"\xff\xfe no", status=status).ask(chat())
    assert record.error is not None
    assert (record.error.kind, record.error.status) == ("http", status)
    assert record.error.message.endswith(" no")


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
        requests = [chat(model="sim:fast", options={"num_predict": 5}), chat(model="sim:fast", tools=(TOOL,))]
        text, tool = ask("http://nowhere.invalid:11434", *requests)
        assert proxy.asked[1].body["tools"] == [TOOL]
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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", f"{path}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return path


def test_tls_with_the_users_own_certificate(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{certificate}.crt", certificate)

    def script(peer: Peer) -> None:
        with context.wrap_socket(peer.sock.dup(), server_side=True) as secure:
            answers(said("a"), DONE)(Peer(secure, peer.number, server))

    with Scripted(script) as server:
        url = server.url.replace("http://", "https://")
        (stranger,) = ask(url, chat())
        monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
        (record,) = ask(url, chat())
    assert stranger.error is not None
    assert stranger.error.kind == "connect"
    assert "certificate" in stranger.error.message
    assert (record.error, record.output_text, record.clock) == (None, "a", "read")
    assert 0 < (record.connect_s or 0) < (record.ttft_s or 0), "the handshake is no part of what is left of TTFT"


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

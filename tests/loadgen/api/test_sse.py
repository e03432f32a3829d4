"""Streams of events as servers really break them, over each of the three APIs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from loadgen.api.sending import chat_api
from loadgen.api.sse import error_text
from loadgen.types import RequestRecord
from tests.support.scripted_server import Peer, ask_script

EVENTS = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}


def event(data: Any, name: str | None = None) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def chat_delta(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def typed(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)


WHOLE: Mapping[str, list[bytes]] = {
    "openai": [
        chat_delta({"role": "assistant", "content": None}), chat_delta({"content": "Hi"}), chat_delta({"content": "!"}),
        chat_delta({}, "stop"), event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
        event("[DONE]"),
    ],
    "responses": [
        typed("response.created", response={}), typed("response.output_text.delta", delta="Hi"),
        typed("response.output_text.delta", delta="!"), typed("response.output_text.done", text="Hi!"),
        typed("response.completed", response={"usage": {"input_tokens": 7, "output_tokens": 3}}),
    ],
    "anthropic": [
        typed("message_start", message={"usage": {"input_tokens": 2, "cache_read_input_tokens": 5}}),
        typed("content_block_start", index=0, content_block={"type": "text", "text": ""}), typed("ping"),
        typed("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"}),
        typed("content_block_delta", index=0, delta={"type": "text_delta", "text": "!"}),
        typed("content_block_stop", index=0),
        typed("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}), typed("message_stop"),
    ],
}  # fmt: skip
ENDS = {"openai": 3, "responses": 1, "anthropic": 2}
"""How many of the last events belong to an answer's end."""
each_api = pytest.mark.parametrize("api", list(WHOLE))


def streams(*parts: bytes, headers: Mapping[str, str] = EVENTS, end: Callable[[Peer], None] = Peer.chunk) -> Any:
    def script(peer: Peer) -> None:
        peer.read()
        peer.head(200, headers)
        for part in parts:
            peer.chunk(part)
        end(peer)

    return script


def asked(api: str, script: Any) -> RequestRecord:
    (record,) = ask_script(script, api=chat_api(api))
    return record


def failure(record: RequestRecord) -> tuple[str, int | None, str]:
    assert record.error is not None
    return record.error.kind, record.error.status, record.error.message


@each_api
def test_an_answer_has_its_text_chunks_and_counts(api: str) -> None:
    record = asked(api, streams(*WHOLE[api]))
    assert record.error is None
    assert (record.output_text, len(record.chunk_ns), record.done_reason) == ("Hi!", 2, "stop")
    assert (record.prompt_tokens, record.output_tokens) == (7, 3)
    assert record.clock in ("kernel", "read")
    assert record.cached_prompt_tokens == (5 if api == "anthropic" else None)


@each_api
def test_comments_that_keep_a_connection_open_are_no_chunks(api: str) -> None:
    record = asked(api, streams(b": ping\n\n", *(part for event in WHOLE[api] for part in (b": ping\n\n", event))))
    assert record.error is None
    assert (record.output_text, len(record.chunk_ns)) == ("Hi!", 2)


@each_api
def test_all_events_in_one_packet_are_as_many_chunks(api: str) -> None:
    record = asked(api, streams(b"".join(WHOLE[api])))
    assert (record.error, len(record.chunk_ns), record.output_text) == (None, 2, "Hi!")


@each_api
def test_an_answer_without_its_last_marker_is_whole(api: str) -> None:
    events = WHOLE[api][: -1 if api != "responses" else None]
    assert asked(api, streams(*events)).error is None


@each_api
def test_a_stream_that_stops_before_its_end_is_no_answer(api: str) -> None:
    kind, status, _ = failure(asked(api, streams(*WHOLE[api][: -ENDS[api]])))
    assert (kind, status) == ("protocol", 200)


@each_api
def test_a_connection_that_breaks_amid_a_stream(api: str) -> None:
    kind, _, _ = failure(asked(api, streams(*WHOLE[api][:3], end=Peer.reset)))
    assert kind == "protocol"


@each_api
def test_a_page_with_status_200_is_no_answer(api: str) -> None:
    record = asked(api, lambda peer: (peer.read(), peer.plain(200, b"<html>busy</html>", "text/html")))
    kind, status, message = failure(record)
    assert (kind, status) == ("protocol", 200)
    assert "text/html" in message


@each_api
def test_an_empty_body_is_no_answer(api: str) -> None:
    assert failure(asked(api, streams()))[:2] == ("protocol", 200)


@each_api
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (event({"message": "slot lost"}, "error"), "slot lost"),
        (event({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, "error"), "busy"),
        (event({"error": {"message": "out of memory", "code": 500}}), "out of memory"),
        (event({"error": "no slot"}), "no slot"),
    ],
)
def test_an_error_amid_a_stream_is_the_servers(api: str, error: bytes, message: str) -> None:
    assert failure(asked(api, streams(*WHOLE[api][:2], error))) == ("stream", 200, message)


def test_an_answer_that_the_server_calls_failed_is_an_error() -> None:
    failed = typed("response.failed", response={"error": {"code": "server_error", "message": "it broke"}})
    assert failure(asked("responses", streams(WHOLE["responses"][0], failed))) == ("stream", 200, "it broke")


@each_api
@pytest.mark.parametrize("odd", [b"data: {oops\n\n", b"data: [1]\n\n", b'data: {"choices": 3}\n\n', b"data: \xff\n\n"])
def test_an_event_of_another_shape_is_the_servers_mistake(api: str, odd: bytes) -> None:
    if api != "openai" and odd.endswith(b"3}\n\n"):
        odd = event({"type": "content_block_delta" if api == "anthropic" else "response.output_text.delta"})
    assert failure(asked(api, streams(WHOLE[api][0], odd)))[0] == "protocol"


@each_api
@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (500, {"error": {"message": "it broke", "type": "server_error"}}, "it broke"),
        (503, {"error": "no slot"}, "no slot"),
        (404, {"detail": "Not Found"}, "Not Found"),
        (400, {"object": "error", "message": "too long", "code": 400}, "too long"),
    ],
)
def test_an_errors_message_is_the_servers(api: str, status: int, body: Any, message: str) -> None:
    record = asked(api, lambda peer: (peer.read(), peer.plain(status, json.dumps(body).encode())))
    assert failure(record) == ("http", status, message)
    assert record.error is not None


@each_api
def test_an_error_that_is_no_json_and_an_error_without_a_body(api: str) -> None:
    for body in (b"Bad Gateway", b""):
        kind, status, _ = failure(
            asked(api, lambda peer, body=body: (peer.read(), peer.plain(502, body, "text/plain")))
        )
        assert (kind, status) == ("http", 502)


@each_api
def test_nothing_is_sent_twice(api: str) -> None:
    came: list[bytes] = []

    def script(peer: Peer) -> None:
        while (request := peer.read()) is not None:
            came.append(request.data)
            peer.plain(503, b'{"error": "busy"}')

    asked(api, script)
    assert len(came) == 1


@each_api
def test_a_lost_connection_has_the_systems_reason(api: str) -> None:
    kind, status, message = failure(asked(api, lambda peer: (peer.read(), peer.reset())))
    assert (kind, status) == ("connect", None)
    assert "connection was" in message


def test_text_with_a_line_separator_stays_whole() -> None:
    text = "a\u2028b\u0085c"
    raw = ('data: {"choices": [{"delta": {"content": "' + text + '"}, "finish_reason": "stop"}]}\n\n').encode()
    assert asked("openai", streams(raw)).output_text == text


@pytest.mark.parametrize(
    ("body", "text"),
    [({"error": {"message": "a"}}, "a"), ({"error": "b"}, "b"), ("c", "c"), ({"x": 1}, '{"x": 1}'), (None, "null")],
)
def test_an_errors_text_in_any_form(body: Any, text: str) -> None:
    assert error_text(body) == text

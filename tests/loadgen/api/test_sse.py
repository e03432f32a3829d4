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


@each_api
@pytest.mark.parametrize(("after", "wait_s"), [("20", 20.0), ("1.5", 1.5), ("soon", None), (None, None)])
def test_a_rate_limit_is_an_error_of_its_own_with_the_time_to_wait(api: str, after: str | None, wait_s: Any) -> None:
    came: list[bytes] = []

    def script(peer: Peer) -> None:
        while (request := peer.read()) is not None:
            came.append(request.data)
            told = b'{"error": {"message": "slow down", "type": "rate_limit_error"}}'
            extra = {} if after is None else {"Retry-After": after}
            peer.head(429, {"Content-Type": "application/json", "Content-Length": str(len(told)), **extra})
            peer.sock.sendall(told)

    record = asked(api, script)
    assert failure(record) == (
        "rate_limited",
        429,
        "slow down" + ("" if wait_s is None else f" (Retry-After: {after} s)"),
    )
    assert record.error is not None
    assert record.error.retry_after_s == wait_s
    assert len(came) == 1, "nothing is sent again"


@each_api
def test_a_busy_server_that_says_how_long_is_not_a_rate_limit(api: str) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.head(503, {"Content-Type": "text/plain", "Content-Length": "4", "Retry-After": "3"})
        peer.sock.sendall(b"busy")

    kind, status, message = failure(asked(api, script))
    assert (kind, status) == ("http", 503)
    assert message.endswith(" (Retry-After: 3 s)")


@each_api
@pytest.mark.parametrize(
    "error", [{"type": "rate_limit_error"}, {"code": "rate_limit_exceeded"}, {"code": 429}, {"code": "429"}]
)
def test_a_rate_limit_amid_a_stream_is_one(api: str, error: dict[str, Any]) -> None:
    told = event({"type": "error", "error": {**error, "message": "slow down"}}, "error")
    assert failure(asked(api, streams(*WHOLE[api][:2], told))) == ("rate_limited", 200, "slow down")


def test_responses_that_failed_for_a_rate_limit() -> None:
    failed = typed("response.failed", response={"error": {"code": "rate_limit_exceeded", "message": "slow"}})
    assert failure(asked("responses", streams(WHOLE["responses"][0], failed))) == ("rate_limited", 200, "slow")


@pytest.mark.parametrize("odd", [{"content": 5}, {"reasoning": [5]}, {"content": [{"type": "text", "text": 5}]}])
def test_content_that_is_no_text_is_the_servers_mistake(odd: dict[str, Any]) -> None:
    assert failure(asked("openai", streams(chat_delta(odd), *WHOLE["openai"])))[0] == "protocol"


@pytest.mark.parametrize("number", ["1e400", "NaN"])
def test_a_duration_that_is_no_number_is_absent(number: str) -> None:
    told = event('{"choices": [], "timings": {"prompt_ms": ' + number + "}}")
    record = asked("openai", streams(*WHOLE["openai"][:-1], told))
    assert (record.error, record.prompt_eval_ns, record.output_text) == (None, None, "Hi!")


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_answer_that_the_server_broke_off_is_an_error(reason: str) -> None:
    kind, status, message = failure(asked("openai", streams(*WHOLE["openai"][:3], chat_delta({}, reason))))
    assert (kind, status, reason in message) == ("stream", 200, True)


def test_thinking_in_parts_as_mistral_sends_it() -> None:
    thought = {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}
    said = {"content": [{"type": "text", "text": "Hi"}]}
    record = asked("openai", streams(chat_delta(thought), chat_delta(said), chat_delta({}, "stop")))
    assert (record.error, record.thinking_text, record.output_text) == (None, "hm", "Hi")
    assert (record.first_thinking_ns, record.first_answer_ns) == record.chunk_ns


REASONS = {
    "openai": [(None, "stop", "stop"), (None, "length", "length"), (None, "tool_calls", "tool_calls"),
               (None, "content_filter", "content_filter"), (None, "eos_token", "stop"), ("No.", "stop", "refusal"),
               (None, "repetition", "repeat"), (None, "MAX_TOKENS", "length")],
    "anthropic": [(None, "end_turn", "stop"), (None, "stop_sequence", "stop"), (None, "max_tokens", "length"),
                  (None, "tool_use", "tool_calls"), (None, "refusal", "refusal"), (None, "pause_turn", "pause_turn"),
                  (None, "model_context_window_exceeded", "length")],
    "responses": [(None, None, "stop"), (None, "max_output_tokens", "length"),
                  (None, "content_filter", "content_filter"),
                  ("No.", None, "refusal")],
}  # fmt: skip


def ending(api: str, refusal: str | None, reason: str | None) -> list[bytes]:
    match api:
        case "openai":
            return [chat_delta({"refusal": refusal} if refusal else {}), chat_delta({}, reason)]
        case "anthropic":
            return [typed("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 3})]
        case _:
            said = [typed("response.refusal.delta", delta=refusal)] if refusal else []
            details = {"incomplete_details": {"reason": reason}} if reason else {}
            return [*said, typed(f"response.{'incomplete' if reason else 'completed'}", response=details)]


@pytest.mark.parametrize(
    ("api", "refusal", "reason", "word"), [(api, *each) for api, found in REASONS.items() for each in found]
)
def test_why_an_answer_ended_is_one_word_for_every_api(api: str, refusal: Any, reason: Any, word: str) -> None:
    record = asked(api, streams(*WHOLE[api][:1], *ending(api, refusal, reason)))
    assert (record.error, record.done_reason, record.output_text) == (None, word, refusal or "")


ITEM = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f"}


@pytest.mark.parametrize(
    "events",
    [
        [typed("response.output_item.added", output_index=0, item={**ITEM, "arguments": ""}),
         typed("response.function_call_arguments.delta", output_index=0, item_id="fc_1", delta='{"a"'),
         typed("response.function_call_arguments.delta", output_index=0, item_id="fc_1", delta=": 1}"),
         typed("response.function_call_arguments.done", output_index=0, item_id="fc_1", arguments='{"a": 1}')],
        [typed("response.output_item.added", output_index=0, item={**ITEM, "arguments": '{"a": 1}'}),
         typed("response.function_call_arguments.done", output_index=0, item_id="fc_1", arguments='{"a": 1}')],
        [typed("response.output_item.added", output_index=0, item={**ITEM, "arguments": ""}),
         typed("response.function_call_arguments.done", output_index=0, item_id="fc_1", arguments='{"a": 1}')],
    ],
    ids=["in pieces", "whole at once", "whole at its end"],
)  # fmt: skip
def test_a_call_of_responses_however_its_arguments_come(events: list[bytes]) -> None:
    end = typed("response.completed", response={"output": [ITEM]})
    record = asked("responses", streams(*events, end))
    assert record.tool_calls == ({"name": "f", "arguments": {"a": 1}},)
    assert record.done_reason == "tool_calls"


def test_the_counts_of_messages_are_of_the_whole_prompt_and_of_nothing_where_nothing_is_told() -> None:
    start = typed("message_start", message={"usage": {"input_tokens": 2, "cache_read_input_tokens": 5,
                                                      "output_tokens": 1}})  # fmt: skip
    end = [typed("message_delta", delta={"stop_reason": "end_turn"}, usage={"input_tokens": 2, "output_tokens": 3})]
    record = asked("anthropic", streams(start, *end))
    assert (record.prompt_tokens, record.cached_prompt_tokens, record.output_tokens) == (7, 5, 3)
    untold = asked("anthropic", streams(start, typed("message_delta", delta={"stop_reason": "end_turn"})))
    assert (untold.error, untold.prompt_tokens, untold.output_tokens) == (None, 7, None)

"""Answers that some server or gateway writes in a way of its own, byte by byte, and what each means."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from typing import Any

import pytest

from loadgen.api import sse
from loadgen.api.answer import Answer
from loadgen.api.sending import chat_api
from loadgen.wire.framing import Sse
from tests.support.scripted_server import ask_script
from tests.support.scripted_server import chat as chat_request

USAGE = {"prompt_tokens": 7, "completion_tokens": 3}
DONE = b"data: [DONE]\n\n"


def event(fields: Any, name: str | None = None) -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(fields).encode() + b"\n\n"


def chat(delta: Any = None, finish: Any = None, **more: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more})


def calling(*calls: dict[str, Any]) -> bytes:
    return chat({"tool_calls": list(calls)})


def function(name: str | None = None, arguments: Any = None) -> dict[str, Any]:
    return {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}


def of(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)


def read(api: str, *parts: bytes) -> Answer:
    """The answer in these bytes, as they would come."""
    answer, framing = Answer(ends_once=chat_api(api).ENDS_ONCE), Sse()
    chunks = [chunk for part in parts for chunk in framing.feed(part)]
    for number, chunk in enumerate([*chunks, *([framing.rest()] if framing.rest() else [])]):
        if (fields := sse.event_of(chunk.decode())) is not None:
            answer.add(chat_api(api).piece(fields), number)
    answer.drop_impossible()
    return answer


@pytest.mark.parametrize(
    "parts",
    [
        [chat({"content": "a"}, usage={**USAGE, "completion_tokens": 1}), chat({}, "stop", usage=USAGE)],
        [chat({"content": "a"}, usage=None), chat({}, "stop"), event({"choices": [], "usage": USAGE})],
        [chat({"content": "a"}, usage=USAGE), chat({}, "stop", usage={"prompt_tokens": None})],
        [chat({"content": "a"}), chat({}, "stop", usage=USAGE), event({"usage": {"prompt_tokens": 0,
                                                                                "completion_tokens": 0}})],
        [chat({"content": "a"}), chat({}, "stop", x_groq={"usage": USAGE})],
        [chat({"content": "a"}), event({"choices": [{"finish_reason": "stop", "usage": USAGE}]})],
        [chat({"content": "a"}), chat({}, "stop", usage={"input_tokens": 7, "output_tokens": 3})],
        [chat({"content": "a"}), chat({}, "stop", usage={**USAGE, "prompt_tokens_details": 5}, timings=[], metrics="")],
    ],
)  # fmt: skip
def test_counts_wherever_they_stand(parts: list[bytes]) -> None:
    answer = read("openai", *parts, DONE)
    assert (answer.facts["prompt_tokens"], answer.facts["output_tokens"], answer.text) == (7, 3, "a")


@pytest.mark.parametrize("usage", [None, [], {}, {"prompt_tokens": 0, "completion_tokens": 0}])
def test_what_was_not_counted_is_absent(usage: Any) -> None:
    facts = read("openai", chat({"content": "a"}), chat({}, "stop", usage=usage)).facts
    assert (facts.get("prompt_tokens"), facts.get("output_tokens")) == (None, None)


def test_groqs_durations_are_the_servers() -> None:
    facts = read("openai", chat({}, "stop", usage={**USAGE, "prompt_time": 0.25, "completion_time": 1.5})).facts
    assert (facts["prompt_eval_ns"], facts["eval_ns"]) == (250_000_000, 1_500_000_000)


F = {"name": "f", "arguments": {"a": 1}}
G = {"name": "f", "arguments": {"a": 2}}


@pytest.mark.parametrize(
    ("parts", "calls"),
    [
        ([calling({"id": "c", "function": function("f", '{"a"')}), calling({"function": function(None, ": 1}")})], [F]),
        ([calling({"index": 0, "id": "c", "function": function("f", '{"a": 1}')}),
          calling({"index": 1, "id": "c", "function": function("f", '{"a": 2}')})], [F, G]),  # one id for all
        ([calling({"index": 0, "id": "c", "function": function("f", "")}),
          calling({"index": 1, "id": "c", "function": function("f", "")}),
          calling({"index": 0, "function": function(None, '{"a": 1}')}),
          calling({"index": 1, "function": function(None, '{"a": 2}')})], [F, G]),
        ([calling({"index": 0, "id": "c1", "function": function("f", '{"a": 1}')}),
          calling({"index": 0, "id": "c2", "function": function("f", '{"a": 2}')})], [F, G]),  # one index for all
        ([calling({"index": 0, "id": "c1", "function": function("f", '{"a"')}),
          calling({"index": 0, "id": "c2", "function": function(None, ": 1}")})], [F]),  # an id for each piece
        ([calling({"index": 0, "id": "c", "function": function("f", {"a": 1})})], [F]),
        ([calling({"index": 0, "function": {"name": "f", "arguments": None}}),
          calling({"index": 0, "function": function(None, '{"a": 1}')})], [F]),
        ([calling({"index": 0, "function": function("f", "{}")}),
          calling({"index": 0, "function": function(None, '{"a": 1}')})], [F]),
        ([calling({"index": 0, "function": function("f", '{"a": 1}')}),
          calling({"index": 0, "function": function(None, '{"a": 1}')})], [F]),  # again, whole
        ([calling({"index": 0, "id": "c", "name": "f", "arguments": '{"a": 1}'})], [F]),
        ([chat({"function_call": function("f", '{"a"')}), chat({"function_call": function(None, ": 1}")})], [F]),
        ([chat({"function_call": function("f", '{"a": 1}'),
                "tool_calls": [{"index": 0, "function": function("f", '{"a": 1}')}]})], [F]),
        ([chat({"content": "a", "tool_calls": None, "function_call": None})], []),
    ],
)  # fmt: skip
def test_calls_however_they_are_numbered_and_cut(parts: list[bytes], calls: list[Any]) -> None:
    assert list(read("openai", *parts, chat({}, "tool_calls")).tool_calls) == calls


@pytest.mark.parametrize(
    ("delta", "text", "thinking"),
    [
        ({"content": [{"type": "text", "text": "a"}]}, "a", ""),
        ({"content": [{"type": "output_text", "text": "a"}]}, "a", ""),
        ({"content": {"type": "text", "text": "a"}}, "a", ""),
        ({"content": ["a", {"type": "image"}]}, "a", ""),
        ({"content": [{"type": "text", "text": "a"}], "reasoning_content": "b"}, "a", "b"),
        ({"content": [{"type": "thinking", "thinking": "b"}]}, "", "b"),
        ({"reasoning": "b", "reasoning_content": "b", "reasoning_details": [{"text": "b"}]}, "", "b"),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "b"}], "content": ""}, "", "b"),
        ({"refusal": "a", "content": None}, "a", ""),
    ],
)
def test_text_and_thinking_in_every_form(delta: Any, text: str, thinking: str) -> None:
    answer = read("openai", chat(delta), chat({}, "stop"))
    assert (answer.text, answer.thinking, len(answer.chunk_ns)) == (text, thinking, 1)


OTHER_SHAPES = {
    "calls as one": [chat({"tool_calls": {"index": 0, "function": function("f", '{"a"')}}),
                     chat({"tool_calls": {"index": 0, "function": function(None, ": 1}")}})],
    "null among calls": [chat({"tool_calls": [None]}), calling({"index": 0, "function": function("f", '{"a": 1}')})],
    "a name in pieces": [calling({"index": 0, "id": "c", "function": function("g", "")}),
                         calling({"index": 0, "function": function("f", "")}),
                         calling({"index": 0, "function": function(None, '{"a": 1}')})],
}  # fmt: skip


@pytest.mark.parametrize("shape", OTHER_SHAPES)
def test_calls_in_another_shape(shape: str) -> None:
    (call,) = read("openai", *OTHER_SHAPES[shape], chat({}, "tool_calls")).tool_calls
    assert call == {"name": "gf" if shape == "a name in pieces" else "f", "arguments": {"a": 1}}


@pytest.mark.parametrize("finish", [{"type": "stop"}, {"type": "stop", "matched": 2}, ["stop"]])
def test_a_reason_in_an_object_is_its_word(finish: Any) -> None:
    assert read("openai", chat({"content": "a"}), chat({}, finish)).facts["done_reason"] == "stop"


@pytest.mark.parametrize("finish", [True, 5, {}])
def test_an_answer_whose_reason_is_no_word_has_ended_without_one(finish: Any) -> None:
    answer = read("openai", chat({"content": "a"}), chat({}, finish))
    assert (answer.done, answer.facts.get("done_reason")) == (True, None)


@pytest.mark.parametrize(
    "between",
    [
        b"data: null\n\n", b"data: []\n\n", b"event: keepalive\ndata: ping\n\n", b"event: heartbeat\ndata: 1\n\n",
        event({"code": 0, "message": "ok"}), event({"choices": [], "error": {"code": None, "message": None}}),
    ],
)  # fmt: skip
def test_what_keeps_a_connection_open_is_no_part_of_an_answer(between: bytes) -> None:
    answer = read("openai", between, chat({"content": "a"}), between, chat({}, "stop"), DONE)
    assert (answer.text, answer.done, len(answer.chunk_ns)) == ("a", True, 1)


@pytest.mark.parametrize("end", [b'data: "[DONE]"\n\n', b"data: [done]\n\n", b"data: DONE\n\n"])
def test_the_end_in_other_letters(end: bytes) -> None:
    assert read("openai", chat({"content": "a"}), end).done


@pytest.mark.parametrize(
    ("usage", "kept"),
    [
        ({"prompt_tokens": -1, "completion_tokens": -1}, {}),
        ({"prompt_tokens": "7", "completion_tokens": 3}, {"output_tokens": 3}),
        ({"prompt_tokens": True, "completion_tokens": 3.0}, {"output_tokens": 3}),
        ({"prompt_tokens": 7, "completion_tokens": [3], "prompt_time": "fast", "completion_time": -1},
         {"prompt_tokens": 7}),
        ({"prompt_tokens": 600, "completion_tokens": 3, "cached_tokens": 590},
         {"prompt_tokens": 600, "output_tokens": 3, "cached_prompt_tokens": 590}),
    ],
)  # fmt: skip
def test_a_count_that_is_none_is_absent(usage: Any, kept: Any) -> None:
    answer = read("openai", chat({"content": "a"}), chat({}, "stop", usage=usage))
    assert answer.facts == {"done_reason": "stop", **kept}
    parts = [of("message_delta", delta={"stop_reason": "end_turn"}, usage={"input_tokens": -1, "output_tokens": "3"})]
    assert read("anthropic", *parts).facts == {"done_reason": "stop"}


REPEATED = {"role": "assistant", "content": "Hello", "reasoning_content": "hm",
            "tool_calls": [{"id": "c", "function": function("f", '{"a": 1}')}]}  # fmt: skip


def test_a_message_that_stands_whole_at_the_end_is_read_once() -> None:
    whole = event({"choices": [{"finish_reason": "tool_calls", "message": REPEATED}], "usage": USAGE})
    parts = [chat({"reasoning_content": "hm"}), chat({"content": "Hel"}), chat({"content": "lo"}),
             calling({"index": 0, "id": "c", "function": function("f", '{"a": 1}')})]  # fmt: skip
    for came in (parts, [], parts[:2]):
        answer = read("openai", *came, whole, DONE)
        assert (answer.text, answer.thinking, answer.tool_calls) == ("Hello", "hm", (F,))
        assert answer.facts["output_tokens"] == 3
    each = [event({"choices": [{"message": {"content": "a"}, "finish_reason": None}]})] * 2
    assert read("openai", *each, chat({}, "stop")).text == "aa"  # in the place of deltas


def test_a_message_of_anthropic_that_stands_whole_at_the_end_is_read_once() -> None:
    blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi!"},
              {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]  # fmt: skip
    parts = [
        of("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
        *(of("content_block_delta", index=1, delta={"type": "text_delta", "text": text}) for text in ("Hi", "!")),
        of("content_block_start", index=2, content_block={**blocks[2], "input": {}}),
        of("content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": '{"a": 1}'}),
    ]
    for reason in ("tool_use", None):
        answer = read("anthropic", *parts, of("message", content=blocks, stop_reason=reason), of("message_stop"))
        assert (answer.text, answer.thinking, answer.tool_calls, answer.done) == ("Hi!", "hm", (F,), True)


def test_a_call_that_the_server_makes_itself_is_none_of_the_answer() -> None:
    own = [of("content_block_start", index=0, content_block={"type": "server_tool_use", "id": "s", "name": "search"}),
           of("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"q": 1}'}),
           of("content_block_delta", index=1, delta={"type": "text_delta", "text": "Hi"})]  # fmt: skip
    answer = read("anthropic", *own, of("message_stop"))
    assert (answer.tool_calls, answer.text, answer.first_tool_call_ns, answer.done) == ((), "Hi", None, True)


AGAIN = {
    "anthropic": [of("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"}),
                  of("message_delta", delta={"stop_reason": "end_turn"}),
                  of("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}),
                  of("message_stop")],
    "responses": [of("response.output_text.delta", delta="Hi"), of("response.completed", response={}),
                  of("response.completed", response={"usage": {"output_tokens": 3}}), DONE],
}  # fmt: skip


@pytest.mark.parametrize("api", AGAIN)
def test_an_end_that_is_told_again_with_its_counts_is_one_and_more_text_is_none(api: str) -> None:
    answer = read(api, *AGAIN[api])
    assert (answer.text, answer.done, answer.overrun, answer.facts) == (
        "Hi", True, False, {"done_reason": "stop", "output_tokens": 3}
    )  # fmt: skip
    assert read(api, *AGAIN[api], AGAIN[api][0]).overrun


@pytest.mark.parametrize(
    ("api", "part"),
    [
        ("openai", chat({}, x_groq={"error": "boom"})),
        ("openai", event({"base_resp": {"status_code": 1008, "status_msg": "boom"}})),
        ("responses", of("response.completed", response={"status": "failed", "error": {"message": "boom"}})),
        ("openai", event([{"error": {"message": "boom"}}])), ("openai", b'{"error": {"message": "boom"}}\n\n'),
        ("openai", b'[{"error": {"message": "boom"}}]'),
    ],
)  # fmt: skip
def test_an_error_where_some_servers_put_it(api: str, part: bytes) -> None:
    with pytest.raises(sse.StreamFailed, match=r"^boom$"):
        read(api, chat({"content": "a"}) if api == "openai" and b"data" in part else b"", part)


def test_an_event_of_another_shape_is_told_by_what_it_is() -> None:
    with pytest.raises(
        sse.OtherShape, match=r'^not an event as this API sends it: \{"choices": \[\{"delta": "a"\}\]\}$'
    ):
        read("openai", event({"choices": [{"delta": "a"}]}))


def test_an_index_that_counts_chunks_makes_no_other_answer() -> None:
    counted = [event({"choices": [{"index": n, "delta": {"content": "a"}, "finish_reason": None}]}) for n in range(3)]
    assert read("openai", *counted, chat({}, "stop")).text == "aaa"


@pytest.mark.parametrize("goes_on", ["", "null", None])
@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "stop"), ("MAX_TOKENS", "length"), ("STOP", "stop"), ("LENGTH", "length"), ("eos", "stop"),
     ("model_length", "length"), ("tool_use", "tool_calls"), ("whatever", "whatever")],
)  # fmt: skip
def test_reasons_in_the_words_of_some_servers(goes_on: str | None, finish: str, reason: str) -> None:
    answer = read("openai", chat({"content": "a"}, goes_on), chat({"content": "b"}, goes_on), chat({}, finish))
    assert (answer.text, answer.done, answer.overrun, answer.facts["done_reason"]) == ("ab", True, False, reason)


ONE, END = chat({"content": "é😀"}), chat({}, "stop")
HALF = ONE.index(b'"delta"')
WAYS = {
    "crlf": [part.replace(b"\n", b"\r\n") for part in (ONE, END, DONE)],
    "cr": [part.replace(b"\n", b"\r") for part in (ONE, END, DONE)],
    "crlf in halves": [ONE[:-2] + b"\r", b"\n\r", b"\n" + END[:-2] + b"\r\n", b"\r\n", DONE],
    "comments": [b": hi\n\n", b":\n\n", b": x\n" + ONE, ONE[:0] + END[:-1] + b": y\n\n", DONE],
    "data in lines": [ONE[:HALF] + b"\ndata: " + ONE[HALF:], END, DONE],
    "names": [b"event: chunk\n" + ONE, b"event: message\n" + END, b"event: done\ndata:\n\n"],
    "a mark of byte order": [b"\xef\xbb\xbf" + ONE, END, DONE],
    "half a mark of byte order": [b"\xef", b"\xbb\xbf" + ONE, END, DONE],
    "ids and retries": [b"retry: 3000\n\n", b"id: 1\nretry: 9\n" + ONE, b"id: 2\n" + END, DONE],
    "no space": [part.replace(b"data: ", b"data:") for part in (ONE, END, DONE)],
    "two spaces": [part.replace(b"data: ", b"data:  ") for part in (ONE, END, DONE)],
    "events without data": [b"data:\n\n", b"data: \n\n", ONE, b"data\n\n", END],
    "blank lines": [b"\n\n\n" + ONE + b"\n\n", END + b"\n", DONE],
    "no last line's end": [ONE, END[:-2]],
    "byte by byte": [bytes([byte]) for byte in ONE + END + DONE],
}


@pytest.mark.parametrize("way", WAYS)
def test_events_in_every_form_that_their_standard_allows(way: str) -> None:
    answer = read("openai", *WAYS[way])
    assert (answer.text, len(answer.chunk_ns), answer.facts["done_reason"]) == ("é😀", 1, "stop")


@pytest.mark.parametrize("api", ["openai", "responses", "anthropic"])
@pytest.mark.parametrize(
    "told",
    [
        event({"error": "boom"}), event({"error": {"message": "boom", "code": 500}}),
        event({"error": [{"message": "boom"}]}), event({"object": "error", "message": "boom", "code": 400}),
        event({"detail": "boom"}), event({"message": "boom"}), event({"code": 500, "msg": "boom"}),
        event({"errors": [{"message": "boom"}]}), event("boom", "error"),
        event({"type": "error", "message": "boom"}), b"event: error\ndata: boom\n\n", b'error: {"message": "boom"}\n\n',
    ],
)  # fmt: skip
def test_an_error_amid_a_stream_in_every_form(api: str, told: bytes) -> None:
    with pytest.raises(sse.StreamFailed, match=r"^boom$"):
        read(api, told)


@pytest.mark.parametrize("finish", ["error", None])
def test_an_error_in_a_choice_is_the_servers_own_word(finish: str | None) -> None:
    failed = {"choices": [{"delta": {"content": ""}, "finish_reason": finish, "error": {"message": "boom"}}]}
    with pytest.raises(sse.StreamFailed, match="boom"):
        read("openai", event(failed))


ITEM = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": '{"a": 1}'}
MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": "Hi!"}]}
ENDED = of("response.completed", response={"usage": {"input_tokens": 7, "output_tokens": 3}})


@pytest.mark.parametrize(
    "parts",
    [
        [of("response.output_text.delta", delta="Hi"), of("response.output_text.delta", delta="!"),
         of("response.output_text.done", text="Hi!"), of("response.completed", response={"output": [MESSAGE]})],
        [of("response.output_text.done", text="Hi!"), ENDED],
        [of("response.completed", response={"output": [MESSAGE]})],
        [of("response.output_text.delta", delta="Hi!"),
         of("response.completed", response={"output": [{"content": "Hi!"}, {"type": "reasoning", "summary": ["?"]}]})],
    ],
)  # fmt: skip
def test_text_of_responses_is_read_once_whichever_event_has_it(parts: list[bytes]) -> None:
    answer = read("responses", *parts)
    assert (answer.text, answer.done, answer.facts["done_reason"]) == ("Hi!", True, "stop")


@pytest.mark.parametrize(
    "parts",
    [
        [of("response.output_item.done", output_index=0, item=ITEM)],
        [of("response.output_item.added", output_index=0, item={**ITEM, "arguments": ""}),
         of("response.function_call_arguments.delta", output_index=0, item_id="fc", delta='{"a": 1}'),
         of("response.function_call_arguments.done", output_index=0, item_id="fc", arguments='{"a": 1}'),
         of("response.output_item.done", output_index=0, item=ITEM)],
        [of("response.output_item.added", output_index=0, item={"type": "function_call", "id": "fc"}),
         of("response.function_call_arguments.delta", output_index=0, item_id="other", delta='{"a": 1}'),
         of("response.output_item.done", output_index=0, item=ITEM)],
        [],
    ],
)  # fmt: skip
def test_calls_of_responses_are_read_once_whichever_event_has_them(parts: list[bytes]) -> None:
    answer = read("responses", *parts, of("response.completed", response={"output": [ITEM]}))
    assert answer.tool_calls == (F,)


@pytest.mark.parametrize("word", ["max_output_tokens", "max_tokens", "length"])
def test_an_answer_of_responses_is_cut_in_whatever_words(word: str) -> None:
    cut = of("response.incomplete", response={"incomplete_details": {"reason": word}})
    assert read("responses", cut).facts["done_reason"] == "length"


def test_a_stop_reason_of_an_error_is_the_servers_failure() -> None:
    parts = [*AGAIN["anthropic"][:1], of("message_delta", delta={"stop_reason": "error"}), of("message_stop")]
    error = counts("anthropic", parts).error
    assert (error.kind, error.message) == ("stream", "the server broke the answer off: error")


def test_who_answered_is_kept_wherever_an_answer_says_so() -> None:
    who = {"model": "m-2026-01-01", "system_fingerprint": "fp"}
    for parts in ([chat({"content": "a"}, **who), chat({}, "stop")], [chat({"content": "a"}), chat({}, "stop", **who)]):
        record = counts("openai", [*parts, DONE])
        assert (record.error, record.answered_by, record.fingerprint) == (None, "m-2026-01-01", "fp")
    begun = of("message_start", message={"model": "m-1"})
    assert counts("anthropic", [begun, *AGAIN["anthropic"]]).answered_by == "m-1"
    ended = of("response.completed", response={"model": "m-1", "usage": {}})
    assert counts("responses", [AGAIN["responses"][0], ended]).answered_by == "m-1"
    odd = counts("openai", [chat({"content": "a"}, "stop", model=5, system_fingerprint="")])
    assert (odd.error, odd.answered_by, odd.fingerprint) == (None, None, None)


def test_json_in_the_place_of_a_stream_is_told_by_its_error() -> None:
    for said, told in (
        ({"error": {"message": "the backend is down", "code": 500}}, ("stream", "the backend is down")),
        ([{"error": {"message": "quota", "status": "RESOURCE_EXHAUSTED"}}], ("rate_limited", "quota")),
        ({"choices": []}, ("protocol", "content type 'application/json' is not an event stream")),
    ):
        page = json.dumps(said).encode()
        (record,) = ask_script(
            lambda peer, page=page: peer.read() and peer.plain(200, page), chat_request(), api=chat_api("openai")
        )
        assert record.error is not None
        assert (record.error.kind, record.error.message) == told


def test_a_wait_in_milliseconds_is_the_more_exact_one() -> None:
    def script(peer: Any) -> None:
        peer.read()
        peer.head(429, {"Retry-After": "2", "Retry-After-Ms": "1500", "Content-Length": "2"})
        peer.sock.sendall(b"{}")

    (record,) = ask_script(script, chat_request(), api=chat_api("openai"))
    assert record.error is not None
    assert (record.error.kind, record.error.retry_after_s) == ("rate_limited", 1.5)


def test_an_incomplete_answer_without_a_reason_did_not_just_stop() -> None:
    assert read("responses", of("response.incomplete", response={})).facts["done_reason"] == "incomplete"


@pytest.mark.parametrize("end", [of("response.failed", response=None), of("response.cancelled", response={})])
def test_an_answer_of_responses_that_the_server_gave_up_is_an_error(end: bytes) -> None:
    with pytest.raises(sse.StreamFailed, match="the server ended the answer as"):
        read("responses", end)


def counts(api: str, parts: Sequence[bytes], **more: str) -> Any:
    def script(peer: Any) -> None:
        peer.read()
        head = {"Content-Type": "Text/Event-Stream; charset=utf-8", "Transfer-Encoding": "chunked"}
        peer.head(200, {**head, **more})
        peer.chunk(*parts)
        peer.chunk()

    (record,) = ask_script(script, chat_request(options={"num_predict": 3}), api=chat_api(api))
    return record


def test_zeros_at_the_end_of_a_message_take_nothing_back() -> None:
    start = of("message_start", message={"usage": {"input_tokens": 2, "cache_read_input_tokens": 5}})
    end = of("message_delta", delta={"stop_reason": "end_turn"}, usage={"input_tokens": 0, "output_tokens": 3})
    record = counts("anthropic", [start, end])
    assert (record.error, record.prompt_tokens, record.output_tokens) == (None, 7, 3)


@pytest.mark.parametrize(
    ("api", "odd"),
    [
        ("responses", of("response.completed")),
        ("responses", of("response.output_text.delta", delta=5)),
        ("openai", chat([{"content": "a"}])),
        ("anthropic", of("message_start", message=None)),
    ],
)
def test_an_end_or_a_start_of_another_shape_fails_one_request_and_no_load(api: str, odd: bytes) -> None:
    error = counts(api, [odd]).error
    assert error is not None
    assert (error.kind, error.status) == ("protocol", 200)


@pytest.mark.parametrize("api", ["openai", "responses", "anthropic"])
def test_a_compressed_answer_is_told_as_such(api: str) -> None:
    error = counts(api, [gzip.compress(ENDED)], **{"Content-Encoding": "gzip"}).error
    assert (error.kind, error.message) == (
        "protocol", "the answer is compressed (gzip), although that was not asked for"
    )  # fmt: skip


def test_a_chunk_that_is_cut_amid_a_character_is_no_answer() -> None:
    text = 'data: {"choices": [{"delta": {"content": "😀'.encode()
    assert counts("openai", [text[:-2]]).error.kind == "protocol"


def test_trailers_and_extensions_of_chunks_change_nothing() -> None:
    def script(peer: Any) -> None:
        peer.read()
        peer.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", "Trailer": "X-A"})
        body = ONE + END + DONE
        peer.sock.sendall(b"%x;a=b\r\n%b\r\n0;last\r\nX-A: 1\r\n\r\n" % (len(body), body))

    (record,) = ask_script(script, api=chat_api("openai"))
    assert (record.error, record.output_text) == (None, "é😀")


@pytest.mark.parametrize("finish", [None, ""])
def test_an_answer_that_ends_without_a_reason_is_whole_if_the_server_says_that_it_ends(finish: str | None) -> None:
    said = [chat({"content": "a"}, finish), chat({}, finish, usage=USAGE)]
    record = counts("openai", [*said, DONE])
    assert (record.error, record.output_text, record.done_reason, record.output_tokens) == (None, "a", None, 3)
    assert counts("openai", said).error.kind == "protocol"
    assert counts("openai", [event({"choices": []}), DONE]).error.kind == "protocol", "it says nothing at all"

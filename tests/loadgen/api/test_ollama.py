"""One request through the official client: what the record holds, whatever the server does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from time import monotonic_ns, sleep
from typing import Any

import pytest

from loadgen.simulator import FAULTS, Simulator
from loadgen.types import Request, RequestError, RequestRecord, Timeouts
from loadgen.wire.connection import Connection
from tests.support.played_wire import Answering, answering, lines
from tests.support.scripted_server import DONE, Peer, Scripted, answers, ask, ask_script, chat, error_of, said
from tests.support.simulators import ANSWERS, BOOK, CALL, MODELS, WEATHER


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator({**MODELS, "fault:slow-drip": MODELS["drip"]}, ANSWERS) as running:
        yield running


# Faults of the simulated server

PROTOCOL = {"close", "reset", "cut", "garbage", "huge-line", "invalid-utf8", "wrong-content-type",
            "empty-body"}  # fmt: skip
FINE = {"slow-drip", "empty-first", "split-line", "no-done-reason", "no-counts", "held-back", "gathered", "close-after",
        "schema-ignored", "pings", "no-done", "usage-running", "calls-split", "calls-whole", "calls-unindexed",
        "calls-same-id", "reasoning-content", "reasoning-both", "max-tokens-refused", "usage-null", "reason-empty",
        "text-parts", "calls-same-index"}  # fmt: skip
"""With many of them only what is under /v1 differs."""


def expected_error(fault: str) -> tuple[str, int | None] | None:
    match fault:
        case "refuse":
            return "connect", None
        case "hang-before" | "hang-mid":
            return "timeout", None
        case "404" | "500" | "503":
            return "http", int(fault)
        case "429":
            return "rate_limited", 429
        case "error-line" | "error-event" | "error-flat":
            return "stream", 200
        case "broken-call":
            return "broken_call", 500
        case "repeat-error":
            return "truncated", 500
        case "repeat-guard":
            return "truncated", 200
        case _ if fault in PROTOCOL:
            return "protocol", None
    assert fault in FINE
    return None


@pytest.mark.parametrize("endpoint", ["chat", "generate"])
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_ends_in_a_record_of_its_kind(sim: Simulator, fault: str, endpoint: str) -> None:
    limits = Timeouts(connect_s=20, first_chunk_s=0.1 if fault == "hang-before" else 20,
                      between_chunks_s=0.1 if fault == "hang-mid" else 20, total_s=20)  # fmt: skip
    options = {"num_predict": 2 if fault == "slow-drip" else 8}
    request = (
        chat(model=f"fault:{fault}", options=options)
        if endpoint == "chat"
        else Request(index=0, model=f"fault:{fault}", prompt="hi", options=options)
    )
    (record,) = ask(sim.url, request, timeouts=limits)
    expected = expected_error(fault)
    if expected is None:
        assert record.error is None
        assert record.output_tokens == (None if fault == "no-counts" else options["num_predict"])
        assert len(record.chunk_ns) == options["num_predict"] - (4 if fault == "held-back" else 0)
        assert record.done_reason == (None if fault == "no-done-reason" else "length")
        return
    assert record.error is not None
    assert record.error.kind == expected[0]
    assert expected[1] is None or record.error.status == expected[1]
    assert record.error.message
    assert record.e2e_s is None
    assert record.sent_ns is not None
    assert record.end_ns is not None
    halfway = fault in {"close", "cut", "hang-mid", "error-line", "garbage", "huge-line"}
    assert len(record.chunk_ns) == (4 if halfway else len(record.chunk_ns))
    assert bool(record.output_text) == bool(record.chunk_ns)


def test_a_fault_does_not_spoil_the_next_request(sim: Simulator) -> None:
    faults = ["refuse", "close", "reset", "cut", "garbage", "invalid-utf8", "error-line", "500", "wrong-content-type"]
    requests = [chat(model=m, options={"num_predict": 3}) for f in faults for m in (f"fault:{f}", "sim:fast")]
    records = ask(sim.url, *requests)
    assert [record.error is None for record in records] == [False, True] * len(faults)


# What a gateway in front of Ollama or a broken server may answer


@pytest.mark.parametrize(
    ("status", "data", "kind", "message"),
    [
        (429, b'{"error": {"message": "slow down", "code": 7}}', "rate_limited", "slow down"),
        (503, b'"overloaded"', "http", "overloaded"),
        (502, b"[]", "http", "[]"),
        (500, b"null", "http", "null"),
        (400, b'{"error": null}', "http", ""),
        (502, b"<html>Bad Gateway</html>", "http", "Bad Gateway"),
        (504, b"", "http", ""),
        (500, b"\xff\xfe not text", "http", "not text"),
        (413, b"x" * 100_000, "http", "xxx"),
    ],
)
def test_whatever_stands_in_an_error_answer_its_status_is_recorded(
    status: int, data: bytes, kind: str, message: str
) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.plain(status, data)

    (record,) = ask_script(script)
    assert record.error is not None
    assert (record.error.kind, record.error.status) == (kind, status)
    assert message in record.error.message
    assert isinstance(record.error.message, str)
    assert len(record.error.message) <= 500


@pytest.mark.parametrize(
    "line",
    [b"[1]\n", b"5\n", b"null\n", b'"text"\n', b"{}}\n", b"[" * 100_000 + b"\n", b'{"message": 5}\n',
     b'{"message": {"role": "assistant", "tool_calls": ["f()"]}}\n', b'{"done": "perhaps"}\n',
     b'data: {"choices": []}\n\n', b"\x00\n", b'{"message": {"content": "no role"}}\n'],
)  # fmt: skip
def test_a_line_that_is_json_but_no_answer_is_a_protocol_error(line: bytes) -> None:
    assert error_of(ask_script(answers(said("a"), line, DONE))) == ("protocol", 200)


@pytest.mark.parametrize(
    ("error", "message"),
    [("out of memory", "out of memory"), ({"message": "deep"}, "deep"), (5, "5"), ("[1]", "[1]"), ('"x"', '"x"')],
)
def test_an_error_line_is_a_stream_error_whatever_stands_in_it(error: Any, message: str) -> None:
    (record,) = ask_script(answers(said("a"), {"error": error}))
    assert record.error is not None
    assert (record.error.kind, record.error.status) == ("stream", 200)
    assert message in record.error.message
    assert record.output_text == "a"


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ({"error parsing tool call": "invalid character 'c' looking for beginning of value"}, "broken_call", "'c'"),
        ({"message": "error parsing tool call: raw='x', err=y"}, "broken_call", "raw='x'"),
        ({"code": 500, "detail": "internal error"}, "stream", "internal error"),
        ({"status": "loading"}, "protocol", "Ollama sends it"),
    ],
)
def test_a_line_that_is_no_answer_but_an_error_is_the_error_it_tells(line: Any, kind: str, message: str) -> None:
    record = answering(lines(said("a"), line)).ask(chat(tools=(WEATHER,)))
    assert record.error is not None
    assert (record.error.kind, record.error.status) == (kind, 200)
    assert message in record.error.message


@pytest.mark.parametrize(
    ("calls", "name", "arguments"),
    [
        ([{"function": {"name": "weather", "arguments": None}}], "weather", None),
        ([{"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}], "weather", '{"city": "Oslo"}'),
        ([{"function": {"name": "weather", "arguments": ["Oslo"]}}], "weather", ["Oslo"]),
        ([{"function": {"name": "weather"}}], "weather", {}),
        ([{"function": {"name": None, "arguments": {}}}], "null", {}),
        ([{"function": {"name": 5, "arguments": {}}}], "5", {}),
        ({"function": {"name": "weather", "arguments": {}}}, "weather", {}),
    ],
)
def test_a_call_of_another_form_is_what_the_model_wrote_and_no_error(calls: Any, name: str, arguments: Any) -> None:
    right = {"function": {"name": "weather", "arguments": {"city": "Rome"}}}
    said_calls = [{"message": {"role": "assistant", "content": "", "tool_calls": each}} for each in ([right], calls)]
    record = answering(lines(*said_calls, DONE)).ask(chat(tools=(WEATHER,)))
    assert record.error is None
    assert record.tool_calls == (
        {"name": "weather", "arguments": {"city": "Rome"}}, {"name": name, "arguments": arguments},
    )  # fmt: skip


def test_an_error_about_a_format_amid_the_answer_is_no_refusal() -> None:
    request = chat(format={"type": "object"})
    assert error_of(ask_script(answers(said("a"), {"error": "bad format"}), request)) == ("stream", 200)
    assert error_of(ask_script(answers({"error": "bad format"}), request)) == ("rejected", 200)
    assert error_of(ask_script(answers({"error": "bad format"}), chat())) == ("stream", 200)
    assert error_of(ask_script(answers({"error": "no memory"}), request)) == ("stream", 200)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (500, 'invalid format: "\\"yaml\\""; expected "json" or a valid JSON Schema object', "rejected"),
        (500, "invalid JSON schema in format", "rejected"),
        (400, "Field 'json_schema': JSON schema conversion failed: Unrecognized schema: {\"memory\": 1}", "rejected"),
        (400, "failed to parse grammar", "rejected"),
        (400, "m does not support tools", "rejected"),
        (400, "json: cannot unmarshal array into Go struct field ChatRequest.tools.type of type string", "rejected"),
        (400, '"smollm2:135m" does not support thinking', "http"),
        (400, '"json-tools:1b" does not support thinking', "http"),
        (400, "the input length exceeds the context length", "http"),
        (400, "invalid character 'n' looking for beginning of object key string", "http"),
        (500, "CUDA error: out of memory, see the log for more information", "http"),
        (500, "model requires more system memory (9 GiB) than is available: unsupported format", "http"),
        (400, "image: unknown format", "http"),
        (404, "no tools here", "http"),
    ],
)
def test_only_a_no_to_the_schema_or_the_tools_is_a_refusal(status: int, text: str, kind: str) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.plain(status, json.dumps({"error": text}).encode())

    both = chat(format={"type": "object"}, tools=(WEATHER,))
    assert error_of(ask_script(script, both)) == (kind, status)
    assert error_of(ask_script(script, chat())) == ("http", status), "nothing was asked for that could be refused"


@pytest.mark.parametrize("wrong", [{"format": "yaml"}, {"think": [1]}, {"keep_alive": [1]}])
def test_a_request_that_the_client_refuses_was_not_sent_and_says_so(wrong: dict[str, Any]) -> None:
    with Scripted(answers(DONE)) as server:
        bad, good = ask(server.url, chat(**wrong), chat())
    assert bad.error is not None
    assert (bad.error.kind, bad.error.status, bad.sent_ns) == ("protocol", None, None)
    assert next(iter(wrong)) in bad.error.message
    assert good.error is None
    assert len(server.asked) == 1


def test_an_empty_answer_and_an_answer_of_another_type_are_no_answers() -> None:
    def html(peer: Peer) -> None:
        peer.read()
        peer.plain(200, b"", "text/html")

    assert error_of(ask_script(answers())) == ("protocol", 200)
    assert error_of(ask_script(html)) == ("protocol", 200)


def test_our_own_bugs_are_not_booked_on_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise TypeError("ours")

    monkeypatch.setattr(Connection, "request", broken)
    with pytest.raises(TypeError, match="ours"):
        ask_script(answers(DONE))


# Firsts


def paced(*lines: Any, gap_s: float = 0.03) -> tuple[RequestRecord, list[int]]:
    """The record, and when the server sent each line."""
    sent_ns: list[int] = []

    def script(peer: Peer) -> None:
        peer.read()
        peer.head()
        for line in lines:
            sent_ns.append(monotonic_ns())
            peer.chunk(line)
            sleep(gap_s)
        peer.chunk()

    (record,) = ask_script(script)
    assert record.error is None
    return record, sent_ns


def test_an_empty_first_chunk_is_no_first_token() -> None:
    record, sent_ns = paced(said(""), said("", thinking=""), said("", tool_calls=[]), said("a"), DONE)
    assert len(record.chunk_ns) == 1
    assert record.first_ns is not None
    assert record.first_ns >= sent_ns[3]
    assert record.first_answer_ns == record.first_ns


def test_the_four_firsts_are_separate_instants() -> None:
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    record, sent_ns = paced(said("", thinking="hm"), said("a"), said("", thinking="m"), said("b"),
                            said("", tool_calls=[call]), said("", tool_calls=[call]), DONE)  # fmt: skip
    firsts = [record.first_ns, record.first_thinking_ns, record.first_answer_ns, record.first_tool_call_ns]
    assert firsts == [record.chunk_ns[0], record.chunk_ns[0], record.chunk_ns[1], record.chunk_ns[4]]
    assert [sent <= chunk < after for sent, chunk, after in zip(sent_ns, record.chunk_ns, sent_ns[1:], strict=False)
            ] == [True] * 6  # fmt: skip
    assert record.end_ns is not None
    assert record.end_ns >= sent_ns[-1]
    assert (record.output_text, record.thinking_text) == ("ab", "hmm")
    assert record.tool_calls == ({"name": "f", "arguments": {"x": 1}},) * 2


def test_text_in_the_last_message_counts_as_a_chunk() -> None:
    (record,) = ask_script(answers({**DONE, "message": {"role": "assistant", "content": "all"}}))
    assert (record.output_text, len(record.chunk_ns), record.first_ns) == ("all", 1, record.end_ns)


def test_what_a_last_message_does_not_say_is_absent() -> None:
    (record,) = ask_script(answers(said("a"), {"message": {"role": "assistant", "content": ""}, "done": True}))
    assert record.error is None
    assert (record.prompt_tokens, record.output_tokens, record.load_ns, record.prompt_eval_ns, record.eval_ns,
            record.done_reason) == (None,) * 6  # fmt: skip


def test_thinking_and_tools_of_the_simulated_server(sim: Simulator) -> None:
    think, tools = ask(
        sim.url,
        chat(model="think", think=True, options={"num_predict": 100}),
        chat("Paris?", model="sim:fast", tools=(WEATHER,)),
    )
    assert think.thinking_text
    assert think.first_thinking_ns == think.first_ns
    assert (think.first_answer_ns or 0) > (think.first_thinking_ns or 0)
    assert tools.tool_calls == (CALL,)
    assert (tools.first_answer_ns, tools.first_tool_call_ns) == (None, tools.first_ns)


def test_everything_the_request_holds_reaches_the_server() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}}
    image = {"role": "user", "content": "\u00e9\u4e2d\U0001f600 \x00"}
    with Scripted(answers(DONE)) as server:
        ask(
            server.url,
            chat(format=schema, think=True, options={"seed": 3, "stop": ["x"], "mine": 1.5}, keep_alive="9m"),
            Request(index=0, model="m", messages=({"role": "system", "content": "s"}, image), think="low"),
            Request(index=0, model="m", prompt="p", format="json", keep_alive=0),
        )
        first, second, third = server.asked
    assert first.body == {
        "model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}], "tools": [], "format": schema,
        "think": True, "options": {"seed": 3, "stop": ["x"], "mine": 1.5}, "keep_alive": "9m",
    }  # fmt: skip
    assert second.body == {
        "model": "m", "stream": True, "messages": [{"role": "system", "content": "s"}, image], "tools": [],
        "think": "low",
    }  # fmt: skip
    assert third.head == "POST /api/generate HTTP/1.1"
    assert third.body == {"model": "m", "prompt": "p", "stream": True, "format": "json", "keep_alive": 0}


def test_definitions_of_tools_never_land_in_an_earlier_call_s_arguments() -> None:
    call = {"function": {"name": "f", "arguments": {"tools": [], "x": {"tools": []}}}}
    messages = ({"role": "assistant", "content": '"tools":[]', "tool_calls": [call]}, {"role": "user", "content": "?"})
    with Scripted(answers(DONE)) as server:
        ask(server.url, Request(index=0, model="m", messages=messages, tools=(BOOK,)))
        (asked,) = server.asked
    assert asked.body["tools"] == [BOOK]
    assert asked.body["messages"][0]["tool_calls"] == [call]


@pytest.mark.parametrize("text", ["hi", '"tools":[]', 'say "tools":[] twice: "tools":[]'])
@pytest.mark.parametrize("tools", [(BOOK,), (BOOK, {**BOOK, "function": {"name": "none"}})])
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
    assert inner.ask(Request(index=0, model="m", prompt="p", tools=(BOOK,))).error is None
    (request,) = inner.requests
    assert json.loads(request.content) == {"model": "m", "prompt": "p", "stream": True, "tools": [BOOK]}
    assert request.headers["content-length"] == str(len(request.content))


# What an error says


@pytest.mark.parametrize(
    ("content_type", "fine"),
    [
        ("application/x-ndjson", True), ("application/json", True), ("application/x-ndjson; charset=utf-8", True),
        ("application/json;x", True), ("text/html", False), ("text/event-stream", False), ("", False), (None, False),
        ("xapplication/json", False),
    ],
)  # fmt: skip
def test_an_answer_of_another_type_is_named_whether_it_can_be_read_or_not(content_type: str | None, fine: bool) -> None:
    named = f"content type {content_type or ''!r} is not NDJSON"
    readable = answering(lines(said("a"), DONE), content_type=content_type).ask(chat())
    assert readable.error == (None if fine else RequestError("protocol", named, 200))
    unreadable = answering(b"<html>\n", content_type=content_type).ask(chat())
    assert unreadable.error is not None
    assert (unreadable.error.kind, unreadable.error.status) == ("protocol", 200)
    assert unreadable.error.message.startswith("not NDJSON as Ollama sends it: ")
    assert (named in unreadable.error.message) is not fine


@pytest.mark.parametrize(
    ("text", "reason", "kind", "word"),
    [
        ('{"name":', "error", "stream", "error"),
        ('{"name":', "abort", "stream", "abort"),
        ('{"name":', "Cancelled", "stream", "cancelled"),
        ("", "load", "stream", "load"),
        ("", "unload", "stream", "unload"),
        ("a", "load", None, "load"),
        ("a", "max_tokens", None, "length"),
        ("a", "LENGTH", None, "length"),
        ("a", "repetition", None, "repeat"),
        ("a", "stop", None, "stop"),
        ("", "stop", None, "stop"),
        ("a", None, None, None),
    ],
)
def test_an_answer_that_the_server_broke_off_is_an_error(
    text: str, reason: str | None, kind: str | None, word: str | None
) -> None:
    record = answering(lines(said(text), {**DONE, "done_reason": reason})).ask(chat())
    assert (None if record.error is None else record.error.kind) == kind
    assert record.done_reason == word


def test_a_stream_that_just_ends_says_so() -> None:
    record = answering(lines(said("a"))).ask(chat())
    assert record.error == RequestError("protocol", "the stream ended without a done message", 200)


def test_long_errors_are_cut_at_500_letters_and_told_as_they_were_written() -> None:
    for told in ("é" * 501, {"é": "é" * 501}):
        (stream, http) = answering(lines({"error": told})), answering(lines({"error": told}), status=500)
        written = told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
        assert stream.ask(chat()).error == RequestError("stream", written[:500], 200)
        assert http.ask(chat()).error == RequestError("http", written[:500], 500)
    exact = answering(lines({"error": "e" * 500})).ask(chat())
    assert exact.error == RequestError("stream", "e" * 500, 200)
    unreadable = answering(lines({"message": {"role": 5, "content": 5, "thinking": 5}, "done": "?", "model": 5})).ask(
        chat()
    )
    assert unreadable.error is not None
    assert len(unreadable.error.message) == 500


@pytest.mark.parametrize("bug", [TypeError, ValueError, AttributeError, RecursionError, KeyError, AssertionError])
def test_no_bug_of_ours_is_booked_on_the_server_wherever_it_is(bug: type[Exception]) -> None:
    for inner in (Answering(bug("ours")), answering(lines(said("a")), bug("ours"))):
        with pytest.raises(bug, match="ours"):
            inner.ask(chat())


@pytest.mark.parametrize(
    ("text", "of_format", "of_tools"),
    [
        ("invalid format", True, False),
        ("bad JSON Schemas", True, False),
        ("failed to parse grammar", True, False),
        ("no formatting", False, False),
        ("m does not support tools", False, True),
        ("TOOLS are off", False, True),
        ("toolset", False, False),
        ("tools and format", False, False),
        ("tools and format are unknown here", True, True),
        ("tools and format need GPU memory", False, False),
        ("busy", False, False),
    ],
)
def test_a_refusal_is_of_what_was_asked_for(text: str, of_format: bool, of_tools: bool) -> None:
    both: dict[str, Any] = {"format": "json", "tools": (WEATHER,)}
    for asked, refused in (
        ({}, False),
        ({"format": "json"}, of_format),
        ({"tools": (WEATHER,)}, of_tools),
        (both, of_format or of_tools),
    ):
        record = answering(lines({"error": text}), status=400).ask(chat(**asked))
        assert record.error == RequestError("rejected" if refused else "http", text, 400)


@pytest.mark.parametrize("status", [200, 400, 402, 404, 499, 500, 501, 503])
def test_only_where_a_request_was_wrong_or_could_not_be_done_may_it_be_a_refusal(status: int) -> None:
    record = answering(lines({"error": "invalid format"}), status=status).ask(chat(format="json"))
    assert record.error == RequestError("rejected" if status in (200, 400, 500) else "http", "invalid format", status)


@pytest.mark.parametrize(("told", "cached"), [({"prompt_eval_cached_count": 90}, 90),
                                             ({"prompt_eval_cached_count": 0}, 0), ({}, None)])  # fmt: skip
def test_cached_prompt_tokens_are_those_that_the_server_tells(told: dict[str, int], cached: int | None) -> None:
    (record,) = ask_script(answers(said("Hi"), {**DONE, "prompt_eval_count": 100, **told}))
    assert (record.error, record.prompt_tokens, record.cached_prompt_tokens) == (None, 100, cached)

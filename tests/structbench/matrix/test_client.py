"""Every endpoint's answer is taken in whole, and everything else that a server may do is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadgen.types import Request
from structbench.matrix.client import Endpoint, Prober, Reply
from tests.support.scripted_server import Peer, Scripted

CALL = {"function": {"name": "look", "arguments": {"at": "sky"}}}
TOLD = {"name": "look", "arguments": {"at": "sky"}}


def reply(script: Any, endpoint: Endpoint = "chat", timeout_s: float = 20) -> Reply:
    with Scripted(script) as server:
        prober = Prober(server.url, timeout_s)
        try:
            return prober.ask(endpoint, Request(index=0, model="m"), stream=True)
        finally:
            prober.close()


def plain(status: int, data: Any, content_type: str = "application/json") -> Any:
    def script(peer: Peer) -> None:
        peer.read()
        peer.plain(status, data if isinstance(data, bytes) else json.dumps(data).encode(), content_type)

    return script


def streamed(*lines: Any) -> Any:
    def script(peer: Peer) -> None:
        peer.read()
        peer.answer(*lines)

    return script


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"


V1_CALL = {"function": {"name": "look", "arguments": '{"at": "sky"}'}}


@pytest.mark.parametrize(
    ("endpoint", "script"),
    [
        (
            "chat",
            streamed(
                {"message": {"thinking": "hm"}},
                {"message": {"content": "a", "tool_calls": [CALL]}},
                {"message": {"content": "b"}, "done": True, "done_reason": "stop"},
            ),
        ),
        (
            "chat",
            plain(
                200,
                {
                    "message": {"thinking": "hm", "content": "ab", "tool_calls": [CALL]},
                    "done": True,
                    "done_reason": "stop",
                },
            ),
        ),
        (
            "v1",
            streamed(
                event({"reasoning": "hm"}), event({"content": "a", "tool_calls": [V1_CALL]}),
                event({"content": "b"}, "stop"), b'data: {"choices": [], "usage": {}}\n\n', b"data: [DONE]\n\n",
            ),
        ),
        (
            "v1",
            plain(
                200,
                {
                    "choices": [
                        {
                            "message": {"reasoning": "hm", "content": "ab", "tool_calls": [V1_CALL]},
                            "finish_reason": "stop",
                        }
                    ]
                },
            ),
        ),
    ],
    ids=["chat streamed", "chat whole", "v1 streamed", "v1 whole"],
)  # fmt: skip
def test_the_same_answer_comes_out_of_every_wrapping(endpoint: Endpoint, script: Any) -> None:
    told = reply(script, endpoint)
    assert (told.text, told.thinking, told.calls, told.done_reason) == ("ab", "hm", (TOLD,), "stop")
    assert told.finished
    assert told.error is told.failure is None


def test_generate_answers_in_its_own_words() -> None:
    told = reply(streamed({"response": "a", "thinking": "t"}, {"response": "", "done": True}), "generate")
    assert (told.text, told.thinking, told.finished, told.done_reason) == ("a", "t", True, None)


@pytest.mark.parametrize(
    ("script", "status", "error", "is_json"),
    [
        (plain(400, {"error": "no"}), 400, "no", True),
        (plain(400, {"error": {"message": "no", "type": "api"}}), 400, "no", True),
        (plain(400, {"error": '{"error":{"code":400,"message":"no"}}'}), 400, "no", True),
        (plain(500, {"error": "{no json"}), 500, "{no json", True),
        (plain(404, b"404 page\nnot found", "text/plain"), 404, "404 page not found", False),
        (plain(502, b""), 502, "", True),
        (streamed({"error": "late"}), 200, "late", True),
    ],
)
def test_an_error_is_told_in_the_servers_words(script: Any, status: int, error: str, is_json: bool) -> None:
    told = reply(script)
    assert (told.status, told.error, told.is_json, told.failure) == (status, error, is_json, None)


def raw(*lines: bytes) -> Any:
    return plain(200, b"".join(lines), "text/event-stream")  # whatever it is: the endpoint says what comes


def test_a_line_ends_where_json_says_and_comments_are_no_answers() -> None:
    strange = "a\u0085b\u2028c"
    line = json.dumps({"message": {"content": strange}, "done": True}, ensure_ascii=False).encode() + b"\n"
    assert (reply(raw(line)).text, reply(raw(line, line)).text) == (strange, strange * 2)
    pretty = json.dumps({"message": {"content": "a"}, "done": True}, indent=2).encode()
    assert (reply(raw(pretty)).text, reply(raw(pretty)).finished) == ("a", True)
    sent = raw(b": ping\r\n\r\n", b"event: message\r\nid: 1\r\nretry: 5\r\n", event({"content": "a"}, "stop"), b":\n")
    told = reply(sent, "v1")
    assert (told.text, told.finished, told.error, told.failure) == ("a", True, None, None)


def test_what_is_no_json_after_status_200_is_a_failure_and_no_word_of_the_server() -> None:
    told = reply(plain(200, b"<html>\n<body>Sign in</body></html>", "text/html"))
    assert (told.error, told.failure) == (None, "the answer is no JSON: <html> <body>Sign in</body></html>")
    broken = reply(raw(b'{"message": {"content": "a"}}\n', b'{"message": {"cont\n'))
    assert broken.failure is not None


def test_arguments_that_are_no_json_are_kept_as_they_came() -> None:
    call = {"function": {"name": "look", "arguments": "{at"}}
    told = reply(streamed(event({"tool_calls": [call]}, "tool_calls")), "v1")
    assert told.calls == ({"name": "look", "arguments": {"(not JSON)": "{at"}},)


def test_a_redirect_is_a_failure_that_says_where_it_leads() -> None:
    def redirect(peer: Peer) -> None:
        assert peer.read() is not None
        peer.head(307, {"Location": "https://other/api/chat", "Content-Length": "0"})
        assert peer.read() is None

    found = reply(redirect)
    assert (found.status, found.failure) == (307, "HTTP 307 redirects to https://other/api/chat")


def test_no_end_and_no_answer_are_failures_and_no_more() -> None:
    def endless(peer: Peer) -> None:
        peer.read()
        peer.head()
        while True:
            peer.chunk({"message": {"content": "x"}})

    told = reply(endless, timeout_s=0.2)
    assert (told.failure, told.timed_out) == ("no end within 0.2 s", True)

    def silent(peer: Peer) -> None:
        peer.read()
        peer.read()

    assert reply(silent, timeout_s=0.2).timed_out
    broken = reply(lambda peer: peer.reset())
    assert broken.failure is not None
    assert broken.failure.startswith("the connection broke: ")
    for message, error in (("text", "AttributeError"), ({"content": 5}, "BadWire"), ({"tool_calls": [5]}, "")):
        strange = reply(plain(200, {"message": message}))
        assert strange.failure is not None
        assert strange.failure.startswith(f"no answer as /api/chat gives them: {error}")

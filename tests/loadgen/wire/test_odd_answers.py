"""Answers that no good server sends, byte for byte over a real socket: what is taken, and as what the rest counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from loadgen.types import RequestRecord
from tests.support.played_wire import END, HEAD, chunk, lines
from tests.support.scripted_server import DONE, Peer, Scripted, ask, chat, said

JSON_LINES = b"Content-Type: application/x-ndjson\r\n"


def sized(body: bytes, length: int, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + JSON_LINES + b"Content-Length: %d\r\n\r\n" % length + body


def streamed(*each: Any) -> bytes:
    return HEAD + b"".join(map(chunk, each)) + END


def with_status(status: bytes) -> bytes:
    return WHOLE.replace(b"200 OK", status, 1)


WHOLE = streamed(said("hi"), DONE)
BODY = lines(said("hi"), DONE)
RAW = '{"message":{"role":"assistant","content":"a\u0085b\u2028c\u2029d"},"done":false}\n'.encode()
NAN = b'{"message":{"role":"assistant","content":""},"done":true,"eval_count":NaN}\n'

TAKEN: Mapping[str, tuple[bytes, str]] = {
    "every character that JSON allows": (streamed(RAW, DONE), "a\u0085b\u2028c\u2029d"),
    "blank lines": (streamed(b"\n", said("h"), b"\r\n \t\n", lines(b"\n", said("i"), b"\n"), DONE, b"\n  "), "hi"),
    "an answer that HTTP continues with": (b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, "hi"),
    "early hints, with headers of their own": (
        b"HTTP/1.1 103 Early Hints\r\nContent-Type: text/html\r\nLink: </x>\r\n\r\n" * 2 + WHOLE, "hi",
    ),
    "trailers": (WHOLE[: -len(END)] + b"0\r\nContent-Type: text/html\r\nDigest: 7\r\n\r\n", "hi"),
    "a line feed after the body": (WHOLE + b"\r\n", "hi"),
    "a body that ends with its connection": (b"HTTP/1.0 200 OK\r\n" + JSON_LINES + b"\r\n" + BODY, "hi"),
    "counts of nothing": (streamed(said("hi"), {**DONE, "eval_count": 0, "eval_duration": 0}), "hi"),
}  # fmt: skip

FAILED: Mapping[str, tuple[bytes, str, int | None, str]] = {
    "text after the last message": (
        streamed(said("hi"), DONE, said("more")), "protocol", 200, "the stream went on after its done message"),
    "two last messages": (streamed(said("hi"), DONE, DONE), "protocol", 200, "the stream went on"),
    "two last messages in one read": (streamed(said("hi"), lines(DONE, DONE)), "protocol", 200, "the stream went on"),
    "a negative count": (streamed(said("hi"), {**DONE, "eval_count": -2}), "protocol", 200, "output_tokens is -2"),
    "a negative duration": (
        streamed(said("hi"), {**DONE, "load_duration": -1}), "protocol", 200, "load_ns is -1"),
    "more tokens than there can be": (
        streamed(said("hi"), {**DONE, "prompt_eval_count": 2**31}), "protocol", 200, "prompt_tokens is 214"),
    "a count that no database holds": (streamed(said("hi"), {**DONE, "eval_count": 10**30}), "protocol", 200, ""),
    "a duration of years": (streamed(said("hi"), {**DONE, "eval_duration": 2**53}), "protocol", 200, ""),
    "a count that is no number": (streamed(said("hi"), {**DONE, "eval_count": "many"}), "protocol", 200, ""),
    "a count that is half": (streamed(said("hi"), {**DONE, "eval_count": 1.5}), "protocol", 200, ""),
    "NaN": (streamed(said("hi"), NAN), "protocol", 200, ""),
    "a second answer in the packet": (
        WHOLE + WHOLE, "protocol", None, "the server sent more than the answer"),
    "a second answer, an error": (
        WHOLE + b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "protocol", None, "the server sent more"),
    "bytes after the body": (WHOLE + b"rubbish\r\n\r\n", "protocol", None, "the server sent more than the answer"),
    "bytes after a body that closes": (
        WHOLE.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n") + b"xx", "protocol", None, "the server sent more"),
    "a length that is too long": (
        sized(BODY, len(BODY) + 10), "protocol", None, "the connection was closed before the answer's end"),
    "a length that is too short": (sized(BODY, 20), "protocol", None, "the server sent more than the answer"),
    "a length of the last line but one": (
        sized(BODY, len(lines(said("hi")))), "protocol", None, "the server sent more than the answer"),
    "two lengths": (
        sized(BODY, len(BODY)).replace(b"\r\nContent-L", b"\r\nContent-Length: 9\r\nContent-L"), "protocol", None,
        "Duplicate Content-Length"),
    "a length and chunks": (HEAD[:-2] + b"Content-Length: 9\r\n\r\n" + WHOLE[len(HEAD):], "protocol", None, ""),
    "a chunk without a size": (HEAD + b"zz\r\nhi\r\n", "protocol", None, "Invalid character in chunk size"),
    "no last chunk": (WHOLE[: -len(END)], "protocol", None, "the connection was closed before the answer's end"),
    "no last message": (streamed(said("hi")), "protocol", 200, "the stream ended without a done message"),
    "nothing in the body": (sized(b"", 0), "protocol", 200, "the stream ended without a done message"),
    "half a status line": (b"HTTP/1.1 200 OK\r\n", "connect", None, "the connection was closed before an answer came"),
    "only an informational answer": (
        b"HTTP/1.1 102 Processing\r\n\r\n", "connect", None, "the connection was closed before an answer came"),
    "another protocol": (
        b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "protocol", None,
        "the server switched to another protocol"),
    "an alert of TLS": (b"\x15\x03\x01\x00\x02\x02\x16", "protocol", None, ""),
    "a line that is no object": (streamed(b"[]\n", DONE), "protocol", 200, "not NDJSON as Ollama sends it"),
    "bytes that are not UTF-8": (
        streamed(b'{"message":{"content":"\xff"},"done":false}\n', DONE), "protocol", None, "the answer is not UTF-8"),
    "compressed though nobody asked": (
        WHOLE.replace(b"200 OK\r\n", b"200 OK\r\nContent-Encoding: gzip\r\n", 1), "protocol", None,
        "the answer is compressed (gzip), although that was not asked for"),
    "201": (with_status(b"201 Created"), "http", 201, "HTTP 201 is not an answer"),
    "206": (with_status(b"206 Partial Content"), "http", 206, "HTTP 206 is not an answer"),
    "299": (with_status(b"299 Odd"), "http", 299, "HTTP 299 is not an answer"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "http", 204, "HTTP 204 is not an answer"),
    "304": (b"HTTP/1.1 304 Not Modified\r\n\r\n", "http", 304, "HTTP 304 is not an answer"),
    "300 without a place": (sized(b"", 0, b"300 Choices"), "http", 300, "HTTP 300 is not an answer"),
    **{
        f"{status} elsewhere": (
            b"HTTP/1.1 %d Gone\r\nLocation: https://other:1/api/chat\r\nContent-Length: 0\r\n\r\n" % status, "http",
            status, f"HTTP {status} redirects to https://other:1/api/chat: give that as --host")
        for status in (301, 302, 303, 307, 308)
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def records() -> Mapping[str, RequestRecord]:
    """Ask for each of these once; the server closes the connection behind it."""
    answers = {name: raw for name, (raw, *_) in (*TAKEN.items(), *FAILED.items())}

    def script(peer: Peer) -> None:
        asked = peer.read()
        assert asked is not None
        peer.sock.sendall(answers[asked.body["model"]])

    with Scripted(script) as server:
        found = {name: ask(server.url, chat(model=name))[0] for name in answers}
        assert len(server.asked) == len(answers), "a request was sent twice, or elsewhere"
    return found


@pytest.mark.parametrize("name", TAKEN)
def test_what_http_and_json_allow_is_an_answer(name: str, records: Mapping[str, RequestRecord]) -> None:
    assert (records[name].error, records[name].output_text) == (None, TAKEN[name][1])


@pytest.mark.parametrize("name", FAILED)
def test_any_other_answer_is_never_completed_and_says_why(name: str, records: Mapping[str, RequestRecord]) -> None:
    _, kind, status, message = FAILED[name]
    error = records[name].error
    assert error is not None
    assert (error.kind, error.status) == (kind, status)
    assert error.message.startswith(message)
    facts = (records[name].output_tokens, records[name].prompt_tokens, records[name].load_ns, records[name].eval_ns)
    assert all(fact is None or 0 <= fact < 2**53 for fact in facts), "a database can hold it"

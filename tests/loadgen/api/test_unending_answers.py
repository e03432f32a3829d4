"""A server that answers a byte now and then, or without an end, keeps no question waiting beyond its limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from loadgen.api import ollama_server, v1_server
from loadgen.api.server import ServerError, server_api
from loadgen.wire import httpx_adapter
from loadgen.wire.deadline import within
from tests.support.scripted_server import Peer, Scripted


def dripping(peer: Peer) -> None:
    """Answer with a byte of white space now and then, for ever: every single read is in time."""
    with suppress(OSError):
        while peer.read() is not None:
            peer.head()
            while True:
                peer.chunk(b" ")
                time.sleep(0.02)


def dripping_head(peer: Peer) -> None:
    with suppress(OSError):
        peer.read()
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\nX-More: ")
        while True:
            peer.sock.sendall(b"x")
            time.sleep(0.02)


def endless(peer: Peer) -> None:
    with suppress(OSError):
        peer.read()
        peer.head()
        while True:
            peer.chunk(b" " * 65536)


QUESTIONS: dict[str, Callable[[str], object]] = {
    "version and tags": ollama_server.probe,
    "version": ollama_server.answers,
    "pull": lambda url: ollama_server.pull(url, "m", lambda *_: None),
    "load": lambda url: ollama_server.load_model(url, "m", {}, None),
    "tokens of a chat": lambda url: ollama_server.prompt_tokens(url, "m", "p", {}, True),
    "tokens of a prompt": lambda url: ollama_server.prompt_tokens(url, "m", "p", {}, False),
    "embed": lambda url: ollama_server.embed(url, "m", ["a"]),
    "ps": lambda url: ollama_server.ModelWatcher(url).loaded("m"),
    "models of /v1": server_api("openai").probe,
    "whether /v1 answers": server_api("anthropic").answers,
    "load by /v1": lambda url: server_api("openai").load_model(url, "m", {}, None),
    "tokens by /v1": lambda url: server_api("anthropic").prompt_tokens(url, "m", "p", {}, True),
    "embed by /v1": lambda url: server_api("openai").embed(url, "m", ["a"]),
}


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(dripping_head),
        pytest.param(dripping, marks=pytest.mark.slow),
        pytest.param(endless, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("question", QUESTIONS)
def test_no_question_waits_for_an_answer_that_does_not_end(
    question: str, script: Callable[[Peer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (ollama_server, v1_server):
        for name in ("_QUESTION_TIMEOUT_S", "_LOAD_TIMEOUT_S", "_FIRST_LINE_S"):
            monkeypatch.setattr(module, name, 0.1, raising=False)
    monkeypatch.setattr(httpx_adapter, "MOST_BYTES", 1 << 20)
    with Scripted(script) as server:
        told: object
        try:
            told = within(30, lambda: QUESTIONS[question](server.url))
        except ServerError as error:
            told = error
    assert told is None or told is False or isinstance(told, ServerError | tuple)
    if isinstance(told, tuple):
        assert told[0] is None

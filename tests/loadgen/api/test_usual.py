"""Chunks that are read past the official client say exactly what it would have made of them, and keep their place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import ollama
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadgen.api import anthropic, openai, responses, sse
from loadgen.api import ollama as protocol
from loadgen.api.answer import Piece
from loadgen.wire.framing import Sse
from tests.loadgen.api.test_v1_recordings import APIS, RECORDINGS
from tests.support.scripted_server import DONE, answers, ask_script, chat, said

MODULES = {"openai": openai, "responses": responses, "anthropic": anthropic}
BEGIN = '{{"model":"m:1","created_at":"2026-11-26T01:02:03.4Z",'
CHAT = BEGIN + '"message":{{"role":"assistant","content":{}{}}},"done":false}}\n'
COMPLETION = BEGIN + '"response":{}{},"done":false}}\n'


def by_client(line: str) -> Piece | None:
    """What the client makes of a line; None where it makes nothing of it."""
    try:
        fields = json.loads(line)
        model = ollama.ChatResponse if "message" in fields else ollama.GenerateResponse
        return protocol.piece(model(**fields))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def recorded(suffix: str) -> Iterator[tuple[str, str]]:
    """Path and body of each answer with status 200."""
    for path in sorted(RECORDINGS.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            exchange = json.loads(line)
            if exchange["request"]["path"].startswith(suffix) and exchange["response"]["status"] == 200:
                text = "".join(chunk["text"] for chunk in exchange["response"]["chunks"])
                yield exchange["request"]["path"], text


def test_recorded_lines_of_ollama_say_what_the_client_makes_of_them() -> None:
    lines = [line for path, text in recorded("/api/") if path in ("/api/chat", "/api/generate")
             for line in text.splitlines(keepends=True)]  # fmt: skip
    found = [(protocol.usual(line.encode()), by_client(line)) for line in lines]
    assert all(usual is None or usual == client for usual, client in found)
    assert sum(usual is not None for usual, _ in found) > 0.8 * len(found)


@pytest.mark.parametrize("api", sorted(MODULES))
def test_recorded_events_say_what_is_read_of_them(api: str) -> None:
    bodies = [text for path, text in recorded("/v1/") if APIS.get(path) == api and text.startswith(("data:", "event:"))]
    events = [event for text in bodies for event in Sse().feed(text.encode())]
    taken = [event for event in events if MODULES[api].usual(event) is not None]
    for event in taken:
        fields = sse.event_of(event.decode())
        assert fields is not None
        read = MODULES[api].piece(fields)
        told = {name: fact for name, fact in read.facts.items() if name not in ("answered_by", "fingerprint")}
        assert MODULES[api].usual(event) == read._replace(facts=told)
    assert len(taken) > 0.4 * len(events)


TEXT = st.text(st.characters(codec="utf-8")) | st.text('ab"\\/\n\t<>&\x00\x7f\u2028é😀')


@given(TEXT, st.none() | TEXT, st.booleans(), st.sampled_from((CHAT, COMPLETION)))
@example("plain", None, True, CHAT)
@example('<b>"\\\n', "hm", False, COMPLETION)
def test_any_text_is_read_as_the_client_reads_it(text: str, thinking: str | None, ascii_only: bool, form: str) -> None:
    said_too = "" if thinking is None else f',"thinking":{json.dumps(thinking, ensure_ascii=ascii_only)}'
    line = form.format(json.dumps(text, ensure_ascii=ascii_only), said_too)
    usual = protocol.usual(line.encode())
    assert usual in (None, Piece(text, thinking or ""))
    if not ascii_only and not any(ord(character) < 32 for character in text + (thinking or "")):
        assert usual is not None


@given(st.integers(0, 200), st.integers(0, 3), st.binary(max_size=3))
def test_a_line_that_the_client_does_not_read_is_left_to_it(place: int, cut: int, put: bytes) -> None:
    whole = CHAT.format('"a\\u003cb"', ',"thinking":"c"').encode()
    line = whole[:place] + put + whole[place + cut :]
    usual = protocol.usual(line)
    assert usual is None or usual == by_client(line.decode())


@pytest.mark.parametrize(
    "line",
    [
        CHAT.format('"a"', "").replace("assistant", "user"),
        CHAT.format('"a"', ',"tool_calls":[]'),
        CHAT.format('"\\ud800"', ""),
        CHAT.format('"a"', "").replace('"done":false', '"done":true'),
        CHAT.format('"a"', "").replace("m:1", "é"),
        '{"error":"x"}\n',
    ],
)
def test_what_is_of_another_form_is_left_to_the_client(line: str) -> None:
    assert protocol.usual(line.encode()) is None


def plain(text: str) -> bytes:
    return CHAT.format(json.dumps(text), "").encode()


def test_chunks_of_both_kinds_keep_their_order() -> None:
    other: Any = said("b")
    read = plain("a") + (json.dumps(other) + "\n").encode() + plain("c")
    (record,) = ask_script(answers(plain("0"), read, plain("d"), DONE), chat())
    assert (record.error, record.output_text, len(record.chunk_ns)) == (None, "0abcd", 5)
    assert list(record.chunk_ns) == sorted(record.chunk_ns)


def test_chunks_of_the_usual_form_after_the_last_message_are_an_error() -> None:
    (record,) = ask_script(answers(plain("a"), DONE, plain("b")), chat())
    assert record.error is not None
    assert record.error.message == "the stream went on after its done message"

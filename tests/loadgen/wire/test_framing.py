"""Chunks come out whole and the same, wherever the network cuts the body."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.wire import framing as framing_module
from loadgen.wire.framing import BadWire, Ndjson, Sse


@given(st.lists(st.binary(max_size=5) | st.sampled_from([b"\n", b"a\n", b"\r\n", b"\n\n"]), max_size=20))
def test_lines_are_the_same_wherever_the_body_is_cut(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    framing = Ndjson()
    chunks = [chunk for piece in pieces for chunk in framing.feed(piece)]
    *whole, rest = body.split(b"\n")
    assert chunks == [line + b"\n" for line in whole if line.strip()]
    assert framing.rest() == (rest if rest.strip() else b"")


def test_a_line_comes_out_with_the_bytes_that_end_it_and_not_before() -> None:
    framing = Ndjson()
    assert framing.feed(b'{"a"') == []
    assert framing.feed(b": 1}") == []
    assert framing.feed(b'\n{"b": 2}\n{') == [b'{"a": 1}\n', b'{"b": 2}\n']
    assert framing.rest() == b"{"


@given(st.lists(st.sampled_from([b"data: a", b"event: b", b": ping", b"\n", b"\r\n", b"\r", b"\n\n", b"data:", b"x"])))
def test_events_are_the_same_wherever_the_body_is_cut(pieces: list[bytes]) -> None:
    body, whole, cut = b"".join(pieces), Sse(), Sse()
    chunks = [chunk for piece in pieces for chunk in cut.feed(piece)]
    assert (chunks, cut.rest()) == (whole.feed(body), whole.rest())


def test_an_event_is_a_chunk_and_a_comment_is_none() -> None:
    framing = Sse()
    assert framing.feed(b'data: {"a": 1}\n\n') == [b'data: {"a": 1}\n\n']
    assert framing.feed(b": keep-alive\n\n") == []
    assert framing.feed(b"event: ping\r\ndata: {}\r\n\r\ndata: 2\r\n\r") == [b"event: ping\ndata: {}\n\n"]
    assert framing.feed(b"\ndata: 3") == [b"data: 2\n\n"]
    assert framing.rest() == b"data: 3"


def test_an_event_without_an_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing_module, "_MAX_CHUNK", 100)
    framing = Sse()
    framing.feed(b"data: " + b"x" * 94)
    with pytest.raises(BadWire, match="an event of the answer is longer than"):
        framing.feed(b"x")


def test_a_line_without_an_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing_module, "_MAX_CHUNK", 100)
    framing = Ndjson()
    framing.feed(b"x" * 100)
    with pytest.raises(BadWire, match="a line of the answer is longer than"):
        framing.feed(b"x")


MIB = 1 << 20


@pytest.mark.parametrize(
    ("pieces", "fine"),
    [
        ([b"x" * (16 * MIB)], True),
        ([b"x" * (16 * MIB + 1)], False),
        ([b"x" * (15 * MIB), b"y" * MIB], True),
        ([b"x" * (15 * MIB), b"y" * MIB, b"z"], False),
        ([b"x" * (16 * MIB), b"\nyy", b"z" * (16 * MIB - 2)], True),
        ([b"x" * (16 * MIB), b"\nyy", b"z" * (16 * MIB - 1)], False),
        ([b"x" * (16 * MIB), b"\n", b"z" * (16 * MIB)], True),
        ([b"a\nb\nc", b"z" * (16 * MIB)], False),
    ],
)
def test_a_line_has_an_end_within_16_mib(pieces: Sequence[bytes], fine: bool) -> None:
    framing = Ndjson()
    for piece in pieces[:-1]:
        framing.feed(piece)
    if fine:
        framing.feed(pieces[-1])
    else:
        with pytest.raises(BadWire, match=r"^a line of the answer is longer than 16 MiB$"):
            framing.feed(pieces[-1])

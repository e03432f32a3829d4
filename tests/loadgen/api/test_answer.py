"""What came so far: calls put together of their pieces."""

from __future__ import annotations

import pytest

from loadgen.api.answer import Answer, CallPiece, Piece


def calls_of(*pieces: CallPiece) -> tuple[object, ...]:
    answer = Answer()
    for number, piece in enumerate(pieces):
        answer.add(Piece(calls=[piece]), number)
    return answer.tool_calls


def test_the_pieces_of_several_calls_are_put_together() -> None:
    """As OpenAI's API sends them: a name first, then the text of the arguments, told apart by their index."""
    pieces = [CallPiece("f", "", 0), CallPiece(None, '{"a"', 0), CallPiece("g", '{"b": ', 1)]
    pieces += [CallPiece(None, ": 1}", 0), CallPiece("", "2}", 1)]
    assert calls_of(*pieces) == ({"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"b": 2}})


def test_whole_calls_stay_apart_whatever_their_index() -> None:
    """Ollama's /v1 gave every call of an answer the index 0."""
    whole = [CallPiece("f", '{"a": 1}', 0), CallPiece("f", '{"a": 1}', 0), CallPiece("g", {"b": 2})]
    f = {"name": "f", "arguments": {"a": 1}}
    assert calls_of(*whole) == (f, f, {"name": "g", "arguments": {"b": 2}})


def test_equal_calls_are_each_continued_by_their_own_pieces() -> None:
    twice = [CallPiece("f", "{", 0), CallPiece("f", "{", 0), CallPiece(None, '"a": 1}', 0)]
    assert calls_of(*twice) == ({"name": "f", "arguments": {"(not JSON)": "{"}}, {"name": "f", "arguments": {"a": 1}})


def test_a_call_that_names_no_function_has_an_empty_name() -> None:
    assert calls_of(CallPiece(None, {"a": 1})) == ({"name": "", "arguments": {"a": 1}},)


@pytest.mark.parametrize(("arguments", "kept"), [("{at", "{at"), (" ", " ")])
def test_arguments_that_are_not_json_are_kept_as_they_came(arguments: str, kept: str) -> None:
    assert calls_of(CallPiece("f", arguments)) == ({"name": "f", "arguments": {"(not JSON)": kept}},)


def test_only_what_says_something_is_a_chunk_and_each_first_has_its_instant() -> None:
    answer = Answer()
    for number, piece in enumerate(
        [Piece(), Piece(thinking="hm"), Piece("a"), Piece(calls=[CallPiece("f", {})]), Piece(done=True)]
    ):
        answer.add(piece, number)
    assert answer.chunk_ns == [1, 2, 3]
    assert (answer.first_thinking_ns, answer.first_answer_ns, answer.first_tool_call_ns) == (1, 2, 3)
    assert (answer.last_ns, answer.done) == (4, True)


def test_chunks_are_merged_where_they_were_read_late_together() -> None:
    answer = Answer()
    for stamp, late in ((1, False), (2, True), (2, True), (3, False), (3, False)):
        answer.add(Piece("a"), stamp, late)
    assert answer.merged == 1

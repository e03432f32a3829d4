"""What came so far: calls put together of their pieces."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen.api.answer import REFUSED, Answer, CallPiece, Piece, gathered
from loadgen.wire.framing import BadWire


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


def test_a_second_call_of_a_function_begins_once_the_first_is_whole() -> None:
    twice = [CallPiece("f", '{"a": 0}', 0), CallPiece("f", "{", 0), CallPiece(None, '"a": 1}', 0)]
    assert calls_of(*twice) == ({"name": "f", "arguments": {"a": 0}}, {"name": "f", "arguments": {"a": 1}})


@pytest.mark.parametrize("key", [0, None])
def test_a_name_repeated_with_each_piece_is_one_call(key: int | None) -> None:
    pieces = [CallPiece("f", "", key), CallPiece("f", '{"a"', key), CallPiece("f", ": 1}", key)]
    assert calls_of(*pieces) == ({"name": "f", "arguments": {"a": 1}},)


def test_pieces_without_a_place_are_joined_by_their_ids_in_any_order() -> None:
    pieces = [CallPiece("f", '{"a"', None, "x"), CallPiece("f", '{"a"', None, "y")]
    pieces += [CallPiece(None, ": 1}", None, "x"), CallPiece(None, ": 2}", None, "y")]
    assert calls_of(*pieces) == ({"name": "f", "arguments": {"a": 1}}, {"name": "f", "arguments": {"a": 2}})


def test_a_call_that_names_no_function_has_an_empty_name() -> None:
    assert calls_of(CallPiece(None, {"a": 1})) == ({"name": "", "arguments": {"a": 1}},)


@pytest.mark.parametrize(
    "arguments",
    ["{at", " ", '{"a": NaN}', "[" * 9999, '{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}', '{"a": 1e999}', "9" * 400],
)
def test_arguments_that_are_not_json_are_kept_as_they_came(arguments: str) -> None:
    assert calls_of(CallPiece("f", arguments)) == ({"name": "f", "arguments": {"(not JSON)": arguments}},)


def test_arguments_that_a_client_has_read_are_kept_as_text_if_they_are_not_json() -> None:
    (call,) = calls_of(CallPiece("f", {"a": float("inf")}))
    assert call == {"name": "f", "arguments": {"(not JSON)": '{"a": Infinity}'}}
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"a": deep}
    assert calls_of(CallPiece("f", deep)) == (
        {"name": "f", "arguments": {"(not JSON)": "(nested too deeply to be kept)"}},
    )


def test_only_what_says_something_is_a_chunk_and_each_first_has_its_instant() -> None:
    answer = Answer()
    for number, piece in enumerate(
        [Piece(), Piece(thinking="hm"), Piece("a"), Piece(calls=[CallPiece("f", {})]), Piece(done=True)]
    ):
        answer.add(piece, number)
    assert answer.chunk_ns == [1, 2, 3]
    assert (answer.first_thinking_ns, answer.first_answer_ns, answer.first_tool_call_ns) == (1, 2, 3)
    assert (answer.last_ns, answer.done) == (4, True)


def test_chunks_that_lost_their_instants_are_counted_and_what_each_may_be_off_by_is_kept() -> None:
    answer = Answer()
    for stamp, early, late in ((1, 0, False), (2, 9, True), (2, 9, True), (2, 0, False), (3, 5, False)):
        answer.add(Piece("a"), stamp, early, late)
    answer.add(Piece(done=True), 9, 7, late=True)
    assert (answer.fields()["merged_chunks"], answer.fields()["chunk_early_ns"]) == (2, (0, 9, 9, 0, 5))


@pytest.mark.parametrize(
    ("early", "kept"), [([], ()), ([0, 0], ()), ([0, 3], (0, 3)), ([0, None], None), ([None, 3], None), ([None], None)]
)
def test_what_no_chunk_may_be_off_by_is_empty_and_what_is_unknown_absent(
    early: list[int | None], kept: tuple[int, ...] | None
) -> None:
    answer = Answer()
    for each in early:
        answer.add(Piece("a"), 1, each)
    assert answer.fields()["chunk_early_ns"] == kept


@pytest.mark.parametrize(
    ("bursts", "gathered_chunks"),
    [
        ([(100, 10)] * 4, 36),  # ten lines in one write, four times
        ([(400, 40), (50, 5)], 43),
        ([(300, 45)], 44),  # a gateway that keeps everything to the end
        ([(100, 1)] * 20, 0),
        ([(100, 1)] * 19 + [(100, 2)], 1),
        ([(100, 1), *[(1, 5)] * 20], 0),  # 5,000 tokens/s, which a reader that looks each millisecond cannot tell apart
        ([(1, 3)], 0),
        ([], 0),
        ([(100, 1)], 0),
    ],
)
@pytest.mark.parametrize("apart_us", [0, 20, 100])
def test_what_the_server_sent_together_is_counted(
    bursts: list[tuple[int, int]], gathered_chunks: int, apart_us: int
) -> None:
    """Of each burst the pause before it in ms and its chunks, in one write or each in its own."""
    offsets_us, now_us = [], 0
    for pause_ms, chunks in bursts:
        now_us += pause_ms * 1000
        offsets_us += [now_us + place * apart_us for place in range(chunks)]
    if offsets_us != sorted(offsets_us):
        return
    assert gathered(offsets_us, 0) == gathered_chunks
    assert gathered(offsets_us, 10) == max(0, gathered_chunks - 10)  # those that this client read late are its own


@pytest.mark.parametrize("piece", [Piece(5), Piece(thinking=["hm"])])  # type: ignore[arg-type]
def test_a_chunk_whose_text_is_none_is_the_servers_mistake(piece: Piece) -> None:
    with pytest.raises(BadWire, match="is not a text"):
        Answer().add(piece, 1)


@pytest.mark.parametrize(
    ("facts", "kept", "told"),
    [
        ({"output_tokens": 7.0}, {"output_tokens": 7}, None),
        ({"output_tokens": 7.5}, {}, "output_tokens is 7.5"),
        ({"output_tokens": "7"}, {}, "output_tokens is 7"),
        ({"output_tokens": True}, {}, "output_tokens is True"),
        ({"done_reason": 3}, {}, "done_reason is 3"),
        ({"done_reason": None}, {"done_reason": None}, None),
    ],
)
def test_facts_that_no_column_could_hold_are_absent_and_told(facts: Any, kept: Any, told: str | None) -> None:
    answer = Answer(facts=dict(facts))
    assert answer.drop_impossible() == told
    assert answer.facts == kept


@pytest.mark.parametrize(("reason", "told"), [("stop", "refusal"), ("length", "length"), (None, None)])
def test_a_refusal_is_the_reason_of_an_answer_that_just_stopped(reason: str | None, told: str | None) -> None:
    answer = Answer()
    answer.add(Piece("I can't", facts={REFUSED: True}), 1)
    answer.add(Piece(done=True, facts={"done_reason": reason}), 2)
    fields = answer.fields()
    assert (fields["done_reason"], fields["output_text"], REFUSED in fields) == (told, "I can't", False)

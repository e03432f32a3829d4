"""Values of an answer in every form in which servers write them, and what is none."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen.api.reading import count_of, name_of, ns_of, object_of, objects_of, text_of, word_of


@pytest.mark.parametrize("name", ["text", "value", "content", "thinking", "reasoning", "summary"])
def test_a_text_may_stand_in_an_object_or_in_pieces(name: str) -> None:
    assert text_of({"type": "x", name: ["a", {name: "b"}, None]}) == "ab"
    assert (text_of("a"), text_of(None), text_of(False), text_of({"type": "x"}), text_of([])) == ("a", "", "", "", "")


@pytest.mark.parametrize("found", [5, True, [5], {"text": 5}])
def test_what_is_no_text_is_told(found: Any) -> None:
    with pytest.raises(TypeError, match=r"is not a text$"):
        text_of(found)


@pytest.mark.parametrize(
    ("found", "count"),
    [
        (0, 0),
        (7, 7),
        (7.0, 7),
        (7.5, None),
        (-1, None),
        ("7", None),
        (True, None),
        (None, None),
        ([7], None),
        (2**31, None),
        (10**40, None),
    ],
)
def test_a_count_is_a_whole_number_of_tokens(found: Any, count: int | None) -> None:
    assert count_of(found) == count


@pytest.mark.parametrize(
    ("found", "ns"),
    [
        (1.5, 1500),
        (0, 0),
        (-1, None),
        (float("inf"), None),
        (float("nan"), None),
        ("1", None),
        (True, None),
        (1e13, None),
    ],
)
def test_a_duration_is_a_number_that_is_not_negative(found: Any, ns: int | None) -> None:
    assert ns_of(found, 1000) == ns


@pytest.mark.parametrize(
    ("found", "word"),
    [("stop", "stop"), ({"type": "stop"}, "stop"), ({"reason": "stop"}, "stop"), (["stop", "x"], "stop"), ([], None),
     ([{"type": "stop"}], "stop"), (5, None), ({}, None)],
)  # fmt: skip
def test_a_reason_is_a_word(found: Any, word: str | None) -> None:
    assert word_of(found) == word


def test_what_is_no_object_or_name_is_absent() -> None:
    assert (object_of({"a": {"b": 1}}, "a"), object_of({"a": [1]}, "a"), object_of({}, "a")) == ({"b": 1}, {}, {})
    assert (objects_of({"a": 1}), objects_of([{"a": 1}, None, 5]), objects_of(None)) == ([{"a": 1}], [{"a": 1}], [])
    assert (name_of("m"), name_of(""), name_of(5), len(name_of("m" * 999) or "")) == ("m", None, None, 200)

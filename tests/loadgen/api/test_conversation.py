"""Conversations in the words of other APIs: calls and their results belong together by ids."""

from __future__ import annotations

import pytest

from loadgen.api.conversation import media_type, turns

CALLS = [{"function": {"name": "f", "arguments": {"a": "ü"}}}, {"function": {"name": "g", "arguments": {}}}]
ASKED = {"role": "assistant", "content": "", "tool_calls": CALLS}


def test_each_result_belongs_to_the_first_open_call_of_its_tool() -> None:
    results = [{"role": "tool", "tool_name": name, "content": name.upper()} for name in ("g", "f")]
    user, assistant, *answered = turns([{"role": "user", "content": "hi"}, ASKED, *results])
    assert (user.text, user.calls, user.result_of) == ("hi", [], None)
    assert [call.id for call in assistant.calls] == ["call_0", "call_1"]
    assert assistant.calls[0].arguments_text == '{"a": "ü"}'
    assert [turn.result_of for turn in answered] == ["call_1", "call_0"]


def test_equal_calls_and_results_without_a_name_go_by_their_order() -> None:
    twice = {"role": "assistant", "content": "", "tool_calls": [CALLS[0], CALLS[0]]}
    results = [{"role": "tool", "tool_name": "f", "content": "1"}, {"role": "tool", "content": "2"}]
    assert [turn.result_of for turn in turns([twice, *results])][1:] == ["call_0", "call_1"]


def test_ids_count_over_the_whole_conversation() -> None:
    calls = [turn.calls for turn in turns([ASKED, {"role": "tool", "tool_name": "f", "content": ""}, ASKED])]
    assert [call.id for found in calls for call in found] == ["call_0", "call_1", "call_2", "call_3"]


def test_ids_that_a_suite_gives_are_kept() -> None:
    asked = {"role": "assistant", "content": "", "tool_calls": [{"id": "x", **CALLS[0]}]}
    assert [turn.result_of for turn in turns([asked, {"role": "tool", "content": "1"}])][1] == "x"
    assert next(turns([{"role": "tool", "tool_call_id": "y", "content": "1"}])).result_of == "y"


@pytest.mark.parametrize(
    ("image", "kind"),
    [("iVBORw0KGgo", "image/png"), ("R0lGODdh", "image/gif"), ("UklGRiQA", "image/webp"), ("/9j/4AAQ", "image/jpeg")],
)
def test_an_images_media_type_is_that_of_its_first_bytes(image: str, kind: str) -> None:
    assert media_type(image) == kind

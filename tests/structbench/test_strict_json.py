"""What is JSON, and what Python's json takes besides."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structbench.strict_json import NotJson, NotStrict, decode, decode_file, stored

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_every_json_value_comes_back(value: Any) -> None:
    assert decode(json.dumps(value)) == value
    if "\\ud" not in json.dumps(value):
        assert decode_file(json.dumps(value, ensure_ascii=False).encode(), "") == value


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}'])
def test_what_only_python_writes_is_refused(text: str) -> None:
    with pytest.raises(NotStrict, match="is not JSON"):
        decode(text)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "c": 2, "a": 3}}]'])
def test_a_name_twice_in_one_object_is_refused_and_named(text: str) -> None:
    with pytest.raises(NotStrict, match='duplicate member name "a"'):
        decode(text)
    assert decode('[{"a": 1}, {"a": {"a": 2}}]') == [{"a": 1}, {"a": {"a": 2}}]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "not JSON at column 2: Expecting property name enclosed in double quotes (as it is)"),
        (b'{\n "a"}', "not JSON at line 2, column 5: Expecting ':' delimiter (as it is)"),
        (b'"\xff"', "not UTF-8 at byte 2: save the file as UTF-8"),
        (b'"\\ud800"', "not JSON: unpaired surrogate: write the character itself"),
        (b"1e999", "not JSON: Out of range float values are not JSON compliant"),
        (b"[" * 100_000, "not JSON: maximum recursion depth exceeded"),
        (b"9" * 5000, "not JSON: Exceeds the limit"),
    ],
    ids=range(7),
)
def test_a_file_that_holds_something_else_is_told_where_and_why(data: bytes, said: str) -> None:
    with pytest.raises(NotJson) as error:
        decode_file(data, "as it is")
    assert str(error.value).startswith(said)


def test_a_byte_order_mark_is_no_part_of_the_value() -> None:
    assert decode_file(b"\xef\xbb\xbf[1]", "") == [1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, None), ("null", None), ("5", 5), ("[1, {}]", [1, {}]), ('{"a": 1.5}', {"a": 1.5}),
        ('{"a": 1e999, "b": [-1e999, NaN, Infinity]}', {"a": None, "b": [None, None, None]}),
        (f'[{"1" * 5_000}, {"1" * 300}]', [None, int("1" * 300)]),
        ("[" * 101 + "]" * 101, None), ("[" * 100_000 + "]" * 100_000, None),
        ("[[" + "[]," * 200 + "[]]]", [[[]] * 201]), ("{", None), ("", None),
    ],
)  # fmt: skip
def test_stored_json_is_what_python_can_work_with(text: str | None, value: object) -> None:
    assert stored(text) == value

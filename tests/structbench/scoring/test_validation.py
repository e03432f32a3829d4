"""Schemas by their drafts, patterns by ECMA-262, formats by their RFCs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structbench.scoring.formats import FORMATS
from structbench.scoring.patterns import BadPattern, compiled, search
from structbench.scoring.time_limit import OutOfTime, limited
from structbench.scoring.validation import violations


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("^\\d{3}$", "123", True),
        ("^\\d{3}$", "123\n", False),
        ("^\\d{3}$", "१२३", False),
        ("^\\w+$", "é", False),
        ("^\\p{L}+$", "abcé", True),
        ("^\\p{L}+$", "ab1", False),
        ("^\\S+$", "a\ufeffb", False),
        ("^[^]$", "\n", True),
        ("\\-", "a-b", True),
        ("^.$", "\U0001f600", True),
        ("b", "abc", True),
        ("^(a+)+$", "aaaa", True),
        ("(.)\\1", "abba", True),
        ("(.)\\1", "abab", False),
        ("^(\\w+\\.)+com$", "a.b.com", True),
        ("x", "\ud800x", True),
    ],
)
def test_patterns_are_those_of_ecma_262(pattern: str, text: str, found: bool) -> None:
    assert search(pattern, text) is found
    assert bool(violations({"pattern": pattern}, text)) is not found
    assert bool(violations({"patternProperties": {pattern: False}}, {text: 1})) is found
    assert (
        bool(violations({"patternProperties": {pattern: True}, "additionalProperties": False}, {text: 1})) is not found
    )
    unevaluated = {"allOf": [{"patternProperties": {pattern: True}}], "unevaluatedProperties": False}
    assert bool(violations(unevaluated, {text: 1})) is not found


def test_what_is_no_pattern_of_ecma_262_is_told() -> None:
    assert compiled("(?P<a>x)") is None
    assert compiled("\\-", strict=True) is None
    with pytest.raises(BadPattern, match="not a regular expression"):
        search("(?P<a>x)", "x")


def test_a_search_without_end_is_ended_and_the_next_one_is_answered() -> None:
    with pytest.raises(OutOfTime):
        limited(0.05, lambda: search("^(a+)+$", "a" * 60 + "b"))
    assert search("^(a+)+$", "aaa") is True


@pytest.mark.parametrize(
    "named",
    [
        "http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft-07/schema", "http://json-schema.org/draft-07/schema",
    ],
)  # fmt: skip
def test_a_draft_is_named_by_either_scheme_and_with_or_without_its_sign(named: str) -> None:
    schema = {"$schema": named, "dependencies": {"a": ["b"]}}
    assert violations(schema, {"a": 1}).keywords == ("dependencies",)
    assert not violations({**schema, "$schema": "http://json-schema.org/schema#"}, {"a": 1}), "the latest has none"


VALID: dict[str, list[str]] = {
    "date": ["2024-02-29", "0000-02-29", "9999-12-31"],
    "time": ["23:59:60Z", "15:59:60-08:00", "00:00:00.123z", "08:30:06+00:20"],
    "date-time": ["1998-12-31T23:59:60Z", "2020-01-01t00:00:00+14:00"],
    "duration": ["P1Y2M3DT4H5M6S", "P4W", "PT1M", "P0D"],
    "email": ["a.b@example.com", '"a b"@example.com', "a@[127.0.0.1]", "a@[IPv6:::1]", f"{'a' * 64}@b.c"],
    "idn-email": ["실례@실례.테스트", "a@example.com"],
    "hostname": ["example.com", "xn--4gbwdl.xn--wgbh1c", "1host", f"{'a' * 63}.com"],
    "idn-hostname": ["실례.테스트", "straße.de", "example.com"],
    "ipv4": ["0.0.0.0"],
    "ipv6": ["::", "::ffff:1.2.3.4"],
    "uri": ["http://a/b?c#d", "urn:x:y", "http://[::1]:80/", "http://[V1.fe]", "mailto:a@b"],
    "uri-reference": ["", "//a", "b/c", "#d"],
    "iri": ["http://ƒøø.ßår/?∂=#ƒ"],
    "iri-reference": ["//ƒøø.ßår", "é"],
    "uri-template": ["http://e/{a:3}{?b,c*}", "{%41}", "x"],
    "uuid": ["2EB8AA08-aa98-11ea-b4aa-73b441d16380"],
    "json-pointer": ["", "/a~0b/~1", "/\n"],
    "relative-json-pointer": ["0", "100", "1/a", "2#"],
    "regex": ["^\\p{L}$", "(?<a>x)"],
}
INVALID: dict[str, list[str]] = {
    "date": ["2023-02-29", "0000-13-01", "2024-2-1", "২024-01-01"],
    "time": ["23:58:60Z", "24:00:00Z", "08:30:06", "12:00:00+24:00", "22:59:60+00:00"],
    "date-time": ["2020-01-01 00:00:00Z", "2020-01-01T00:00:00"],
    "duration": ["P", "PT", "P1Y2D", "PT1H2S", "P1W1D", "PT0.5S", "-P1D", "P1D2H"],
    "email": ["a", "a..b@c.d", f"{'a' * 65}@b.c", f"a@{'b' * 64}.c", "a@[127.0.0.300]", "a b@c.d", f"a@{'b.' * 130}c"],
    "idn-email": ["2962", "실례@"],
    "hostname": ["", "example.", "-a.b", "a_b", "xn--X", f"{'a' * 64}.com", "a" * 300, "\u212aelvin.com"],
    "idn-hostname": ["〮실례", "a.。b", "0a.א", "example."],
    "ipv4": ["01.2.3.4", "1.2.3", "１.2.3.4"],
    "ipv6": ["fe80::a%eth1", "12345::", ":::"],
    "uri": ["//a", "http://a b", "http://[::ffff:01.2.3.4]", "http://é/"],
    "uri-reference": ["\\\\a", "#\u00e9"],
    "iri": ["/a", "http://[:::1]"],
    "iri-reference": ["\\\\WINDOWS\\filëßåré"],
    "uri-template": ["{a", "{a..b}", "{v:01}", "{a,}", "a b"],
    "uuid": ["2eb8aa08-aa98-11ea-b4aa-73b441d1638", "2eb8aa08aa9811eab4aa73b441d16380"],
    "json-pointer": ["a", "/~2"],
    "relative-json-pointer": ["01", "/a", "-1", "١/a"],
    "regex": ["[", "\\Z", "(?P<a>x)"],
}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_formats_are_those_of_their_rfcs(name: str) -> None:
    assert [text for text in VALID[name] if not FORMATS[name](text)] == []
    assert [text for text in INVALID[name] if FORMATS[name](text)] == []
    for value in (1, None, ["x"]):
        assert not violations({"format": name}, value), "a format is about strings"
    if name not in ("json-pointer", "relative-json-pointer", "regex"):
        assert [text for text in VALID[name] if FORMATS[name](f"{text}\n")] == []


@given(st.text(max_size=30), st.sampled_from(sorted(FORMATS)))
def test_no_text_is_too_odd_for_a_format(text: str, name: str) -> None:
    assert FORMATS[name](text) in (True, False)


@pytest.mark.parametrize(
    ("schema", "value", "broken"),
    [
        ({"properties": {"a": {}}, "additionalProperties": {"type": "string"}, "unevaluatedProperties": False},
         {"a": 1, "b": "x"}, ()),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"x": {}}}}, "unevaluatedProperties": False},
         {"x": 1}, ()),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"x": {}}}}, "unevaluatedProperties": False},
         {"x": 1, "y": 2}, ("unevaluatedProperties",)),
        ({"if": {"properties": {"k": {"const": 1}}}, "then": {"properties": {"t": {}}},
          "else": {"properties": {"e": {}}}, "unevaluatedProperties": False}, {"k": 1, "t": 2}, ()),
        ({"if": {"properties": {"k": {"const": 1}}}, "then": {"properties": {"t": {}}},
          "else": {"properties": {"k": {}, "e": {}}}, "unevaluatedProperties": False}, {"k": 2, "t": 2},
         ("unevaluatedProperties",)),
        ({"dependentSchemas": {"a": {"properties": {"b": {}}}}, "unevaluatedProperties": False},
         {"b": 1}, ("unevaluatedProperties",)),
        ({"unevaluatedProperties": {"type": "string"}}, {"a": "x"}, ()),
        ({"unevaluatedProperties": {"type": "string"}}, {"a": 1}, ("unevaluatedProperties",)),
        ({"allOf": [{"unevaluatedProperties": True}], "unevaluatedProperties": False}, {"a": 1}, ()),
    ],
)  # fmt: skip
def test_what_another_keyword_has_evaluated_is_not_unevaluated(
    schema: dict[str, Any], value: Any, broken: tuple[str, ...]
) -> None:
    assert violations(schema, value).keywords == broken

"""What makes two cells the same, and what must not."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structbench.identity import canonical_json, config_dict, config_hash, config_of, differences, flat
from structbench.types import Config

CONFIG = Config(
    suite="json",
    suite_hash="s1:0f",
    model="smollm2:135m",
    model_digest="sha256:" + "ab12" * 16,
    server_version="0.5.4",
    server_address="http://127.0.0.1:11434",
    endpoint="chat",
    structured="format",
    think=None,
    options={"temperature": 0.0, "num_predict": 128},
    keep_alive="5m",
    load={"kind": "closed", "concurrency": 4, "seed": 0},
    warmup=1,
    seed=0,
    timeout_s=300.0,
    scorer_version=1,
)

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_golden_hash_of_a_config_never_changes() -> None:
    assert config_hash(CONFIG) == "s1:4d764660150d4195a5522ba001a0bc9ff43457b7cb06adaa19c1e7f810b586b0"


def test_a_field_at_its_default_is_not_in_the_identity_and_any_other_value_is() -> None:
    assert {"api", "body", "headers"}.isdisjoint(config_dict(CONFIG))
    assert config_dict(CONFIG)["scorer_version"] == 1
    others: list[dict[str, Any]] = [
        {"api": "openai"},
        {"body": {"top_k": 1}},
        {"headers": ("x-a",)},
        {"scorer_version": None},
    ]
    hashes = {config_hash(replace(CONFIG, **other)) for other in others}
    assert len({*hashes, config_hash(CONFIG)}) == 5
    assert "scorer_version" not in config_dict(replace(CONFIG, scorer_version=None))


def test_golden_hash_of_a_model_that_is_not_ascii() -> None:
    found = config_hash(replace(CONFIG, model="modèle 模型"))
    assert found == "s1:f2a132c911a6c8f3873f7f11832f564cec3ada5719ca04b28279e7c30bb8bd0e"


def test_the_fields_of_the_identity_are_these_and_as_they_were_given() -> None:
    """One that comes or goes makes every stored run another cell, so that nothing is skipped or continued any more."""
    assert config_dict(CONFIG) == {name: value for name, value in asdict(CONFIG).items() if name in config_dict(CONFIG)}
    assert sorted(config_dict(CONFIG)) == [
        "endpoint", "keep_alive", "load", "model", "model_digest", "options", "scorer_version", "seed",
        "server_address", "server_version", "structured", "suite", "suite_hash", "think", "timeout_s", "warmup",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": [1, True, None], "a": "é\n"}, '{"a":"é\\n","b":[1,true,null]}'),
        ({"b": {"d": [], "c": {}}, "B": (), "a": '"'}, '{"B":[],"a":"\\"","b":{"c":{},"d":[]}}'),
        ([{"y": 1, "x": [{"b": 2.0, "a": False}]}], '[{"x":[{"a":false,"b":2}],"y":1}]'),
        (2.0**53 - 1, "9007199254740991"), (-(2.0**53) + 1, "-9007199254740991"),
        (2.0**53, "9007199254740992.0"), (-(2.0**53), "-9007199254740992.0"), (2**53, "9007199254740992"),
        (1e22, "1e+22"), (0.1, "0.1"), (-0.0, "0"), (1e-7, "1e-07"), (-2.5, "-2.5"), (10**30, "1" + "0" * 30),
        ("\u2028\ud800", '"\u2028\ud800"'), (None, "null"), (False, "false"),
    ],
)  # fmt: skip
def test_canonical_json_is_sorted_tight_and_unescaped(value: object, text: str) -> None:
    assert canonical_json(value) == text


@pytest.mark.parametrize(
    ("one", "other"), [(1.0, 1), (-0.0, 0), (2.0**52, 2**52), ((1, 2), [1, 2]), (MappingProxyType({"a": 1}), {"a": 1})]
)
def test_the_same_value_in_another_type_is_the_same(one: object, other: object) -> None:
    assert canonical_json(one) == canonical_json(other)


@pytest.mark.parametrize(("one", "other"), [(True, 1), (False, 0), (None, 0), ("1", 1), (0.1, 0.1 + 1e-17 * 8)])
def test_values_that_only_look_alike_differ(one: object, other: object) -> None:
    assert canonical_json(one) != canonical_json(other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_numbers_that_json_lacks_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="canonical"):
        canonical_json(value)


@pytest.mark.parametrize("value", [{1: 2}, {"a": b"x"}, {1, 2}, object()])
def test_types_that_json_lacks_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="canonical"):
        canonical_json(value)


@given(VALUES)
def test_canonical_json_loses_nothing(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), VALUES, min_size=2), st.randoms())
def test_key_order_does_not_matter(value: dict[str, Any], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    assert canonical_json({key: value[key] for key in keys}) == canonical_json(value)


@pytest.mark.parametrize("name", [field.name for field in fields(Config)])
def test_every_field_changes_the_hash(name: str) -> None:
    value = getattr(CONFIG, name)
    other: Any = {"extra": value} if not isinstance(value, int | float) else value + 1
    assert config_hash(replace(CONFIG, **{name: other})) != config_hash(CONFIG)


@given(VALUES, VALUES)
def test_options_share_a_hash_only_when_they_are_equal(one: Any, other: Any) -> None:
    first, second = (replace(CONFIG, options={"x": value}) for value in (one, other))
    same_hash = config_hash(first) == config_hash(second)
    assert same_hash == (differences(config_dict(first), config_dict(second)) == [])


def test_hash_takes_words_that_are_no_unicode() -> None:
    assert config_hash(replace(CONFIG, model="\udcff")) != config_hash(replace(CONFIG, model="\udcfe"))


def test_differences_name_the_field_down_to_the_option() -> None:
    after = replace(
        CONFIG,
        model_digest="sha256:" + "cd34" * 16,
        options={"num_predict": 128.0, "top_k": 1},
        load={"kind": "closed", "concurrency": 16, "seed": 0},
        think=True,
    )
    assert differences(config_dict(CONFIG), config_dict(after)) == [
        "model_digest: sha256:ab12ab12ab12… → sha256:cd34cd34cd34…",
        "think: null → true",
        "options.temperature: 0 → (absent)",
        "load.concurrency: 4 → 16",
        "options.top_k: (absent) → 1",
    ]


def test_digests_alike_in_their_shown_part_are_shown_whole() -> None:
    one, other = "ab" * 31 + "00", "ab" * 31 + "ff"
    assert differences({"d": one}, {"d": other}) == [f'd: "{one}" → "{other}"']


def test_an_empty_mapping_differs_from_a_filled_one_by_the_filled_ones_fields() -> None:
    assert differences({"options": {}}, {"options": {"seed": 1}}) == ["options.seed: (absent) → 1"]


def test_fields_are_told_apart_down_to_the_innermost() -> None:
    config = {"a": {"b": {"c": 1.0}, "d": {}}, "e": [{"f": 2}], "g.h": None}
    assert flat(config) == {("a", "b", "c"): "1", ("a", "d"): "{}", ("e",): '[{"f":2}]', ("g.h",): "null"}
    assert flat({}) == {}


DIGEST = "0123456789abcdef01234567"
"""The longest text that is not shortened."""


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {}, []),
        ({"a": 1, "b": [True]}, {"b": [True], "a": 1.0}, []),
        (
            {"b": 1, "a": 2, "c": 3}, {"d": 4, "c": 5, "b": 6},
            ["b: 1 → 6", "a: 2 → (absent)", "c: 3 → 5", "d: (absent) → 4"],
        ),
        ({"a": 1}, {"a": True}, ["a: 1 → true"]),
        ({"a": 5}, {"a": "5"}, ['a: 5 → "5"']),
        ({"a": "(absent)"}, {}, ['a: "(absent)" → (absent)']),
        ({}, {"a": "(absent)"}, ['a: (absent) → "(absent)"']),
        ({"a": None}, {}, ["a: null → (absent)"]),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, ['a: [1,{"b":2}] → [1,{"b":3}]']),
        ({"a": {"x": 1, "y": {"z": 2}}}, {"a": {"x": 3, "y": {"z": 4}}}, ["a.x: 1 → 3", "a.y.z: 2 → 4"]),
        # An empty mapping is told only where the fields of the other side do not tell it.
        ({"a": {"b": 1, "c": 2}}, {"a": {}}, ["a.b: 1 → (absent)", "a.c: 2 → (absent)"]),
        ({"a": {"b": {}}}, {"a": {"b": {"c": {"d": 1}}}}, ["a.b.c.d: (absent) → 1"]),
        ({"a": {}}, {}, ["a: {} → (absent)"]),
        ({}, {"a": {}}, ["a: (absent) → {}"]),
        ({"a": {}}, {"a": 5}, ["a: {} → 5"]),
        ({"a": None}, {"a": {}}, ["a: null → {}"]),
        ({"a": {}}, {"b": {"c": 1}}, ["a: {} → (absent)", "b.c: (absent) → 1"]),
        ({"a": {"b": {}}}, {"a": {"bc": {"d": 1}}}, ["a.b: {} → (absent)", "a.bc.d: (absent) → 1"]),
        ({"a": 5}, {"a": {"b": 1}}, ["a: 5 → (absent)", "a.b: (absent) → 1"]),
        ({"a": {"b": 1}}, {"a": "{}"}, ["a.b: 1 → (absent)", "a: (absent) → {}"]),
        # What is shortened: hexadecimal digits alone, and more of them than 24.
        ({"d": DIGEST}, {"d": DIGEST + "8"}, [f"d: {DIGEST} → 0123456789ab…"]),
        ({"d": "sha256:" + DIGEST}, {"d": "s1:" + DIGEST}, ["d: sha256:0123456789ab… → s1:0123456789ab…"]),
        ({"d": "g" + DIGEST}, {"d": DIGEST.upper() + "8"}, [f"d: g{DIGEST} → {DIGEST.upper()}8"]),
        ({"d": "x:" + "f" * 22}, {"d": "x:" + "f" * 23}, [f"d: x:{'f' * 22} → x:{'f' * 12}…"]),
        ({"d": "sha256:" + "0" * 25}, {"d": "sha256:" + "0" * 26}, [f'd: "sha256:{"0" * 25}" → "sha256:{"0" * 26}"']),
        ({"d": "http://127.0.0.1:11434/models"}, {"d": "x"}, ["d: http://127.0.0.1:11434/models → x"]),
    ],
)  # fmt: skip
def test_what_differs_is_told_once_and_in_full(before: dict[str, Any], after: dict[str, Any], told: list[str]) -> None:
    assert differences(before, after) == told


NAMES = st.sampled_from(["a", "b", "ab"])
NESTED: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    NAMES,
    st.recursive(
        st.integers(0, 2) | st.just({}), lambda inner: st.dictionaries(NAMES, inner, max_size=2), max_leaves=4
    ),
    max_size=2,
)


@settings(max_examples=50, database=None)
@given(NESTED, NESTED)
def test_no_difference_is_kept_back_and_both_directions_tell_the_same_fields(one: Any, other: Any) -> None:
    there, back = differences(one, other), differences(other, one)
    assert (there == []) == (canonical_json(one) == canonical_json(other))
    assert sorted(line.split(":")[0] for line in there) == sorted(line.split(":")[0] for line in back)


def test_a_stored_config_comes_back_and_what_is_none_does_not() -> None:
    known = CONFIG
    text = json.dumps(config_dict(known))
    assert config_of(text) == known
    for name, value in (
        ("load", 5), ("options", []), ("suite", {}), ("seed", "x"), ("seed", True), ("headers", "x"), ("think", 1.5),
        ("timeout_s", True), ("timeout_s", None), ("colour", 1), ("body", [1]), ("model", None),
    ):  # fmt: skip
        assert config_of(json.dumps({**config_dict(known), name: value})) is None, name
    for name, value in (("timeout_s", 5), ("warmup", None), ("think", "high"), ("keep_alive", 1.5), ("headers", ["X"])):
        assert config_of(json.dumps({**config_dict(known), name: value})) is not None, name
    for other in (None, "[]", "5", "null", "{}", "{", json.dumps({**config_dict(known), "model": "m"})[:-1]):
        assert config_of(other) is None

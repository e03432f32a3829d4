"""What makes two cells the same, and what must not."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structbench.identity import canonical_json, config_dict, config_hash, differences
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
    requests=30,
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
    assert config_hash(CONFIG) == "s1:d47f7fed14abbb57615acd507f7df37483a822bdff357e8756c496d030316dc8"


def test_canonical_json_is_sorted_tight_and_unescaped() -> None:
    assert canonical_json({"b": [1, True, None], "a": "é\n"}) == '{"a":"é\\n","b":[1,true,null]}'


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

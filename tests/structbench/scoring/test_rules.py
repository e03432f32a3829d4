"""Rules for comparison forgive what they name and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structbench.scoring import Answer, score
from structbench.scoring.rules import matches
from structbench.types import Case

NEAR = {"": {"tolerance": 0.1}}
LOOSE = {"": {"order": "any", "case": "ignore", "space": "ignore"}}


@pytest.mark.parametrize(
    ("found", "expected", "rules", "right"),
    [
        (1.1, 1, {}, False),
        (1.1, 1, NEAR, True),  # as decimals: in binary the difference is above 0.1
        (1.11, 1, NEAR, False),
        (True, 1, NEAR, False),
        (1152921504606847000, float(2**60), {}, False),  # alike only in the digits that a double is written with
        ("1", 1, NEAR, False),
        (98, 100, {"": {"relative": 0.02}}, True),
        (97.9, 100, {"": {"relative": 0.02}}, False),
        (-98, -100, {"": {"relative": 0.02}}, True),
        (0.001, 0, {"": {"relative": 0.5}}, False),
        (10**300, 10**300 + 1, {"": {"tolerance": 1}}, True),
        ("OSLO", "oslo", {}, False),
        ("OSLO", "oslo", {"": {"case": "ignore"}}, True),
        (" New\n York", "New York", {"": {"space": "ignore"}}, True),
        ("NewYork", "New York", {"": {"space": "ignore"}}, False),
        ([1, 2], [2, 1], {}, False),
        ([1, 2], [2, 1], LOOSE, True),
        ([1, 1, 2], [1, 2, 2], LOOSE, False),
        ([1], [1, 1], LOOSE, False),
        (" a", "a", {"": {"case": "ignore"}}, False),
        ("A", "a", {"": {"space": "ignore"}}, False),
        (1, "1", LOOSE, False),
        (None, "none", LOOSE, False),
        ("1", 1, {"": {"space": "ignore", "tolerance": 9}}, False),
        ({"t": ["B", "a "]}, {"t": ["A", "b"]}, LOOSE, True),
        ({"t": 1, "u": 1}, {"t": 1}, LOOSE, False),
        ({"t": ["b", "a"], "u": ["b", "a"]}, {"t": ["a", "b"], "u": ["a", "b"]}, {"/t": {"order": "any"}}, False),
        ({"a/b": 1.05}, {"a/b": 1}, {"/a~1b": {"tolerance": 0.05}}, True),
        ([0.9, 1.1, 2], [1.2, 1.0, 2], {"": {"order": "any", "tolerance": 0.1}}, True),  # greedy pairing fails
        ({"x": {"y": "A"}}, {"x": {"y": "a"}}, {"": {"case": "ignore"}, "/x": {"tolerance": 1}}, True),
        ({"x": [2, 1]}, {"x": [1.5, 2.5]}, {"": {"tolerance": 0.5}, "/x": {"order": "any"}}, True),
    ],
)
def test_a_rule_forgives_what_it_names(found: Any, expected: Any, rules: Any, right: bool) -> None:
    assert matches(found, expected, rules) is right


def test_a_rule_above_the_expected_value_holds_there_too() -> None:
    rules = {"/a": {"tolerance": 1}, "/a/b": {"case": "ignore"}}
    assert matches(2, 1, rules, "/a/b/c")
    assert not matches(2, 1, rules, "/ab/c")
    assert matches(2, 1, {"": {"tolerance": 1}}, "/a")
    assert not matches(2, 1, {"": {"tolerance": 1}, "/a": {"tolerance": 0}}, "/a/b")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("aB ", max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("x/", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_rules_that_name_nothing_there_change_nothing(one: Any, other: Any) -> None:
    elsewhere = {"/no/such": {"order": "any", "tolerance": 9, "case": "ignore", "space": "ignore"}}
    assert matches(one, other, elsewhere) == matches(one, other, {})


@given(st.lists(JSON, max_size=5), st.randoms())
def test_an_array_without_order_is_equal_to_each_of_its_permutations(items: list[Any], rng: Any) -> None:
    assert matches(rng.sample(items, len(items)), items, {"": {"order": "any"}})


def case(**more: Any) -> Case:
    return Case(id="a", messages=({"role": "user", "content": "?"},), **more)


def outcome(case: Case, text: str) -> tuple[str, float | None]:
    judged = score(case, Answer(output_text=text))
    assert judged is not None
    return judged.outcome, judged.accuracy_score


def test_a_score_follows_the_rules_of_its_case() -> None:
    strict = case(schema={"type": "object"}, expected={"/price": 9.99, "/tags": ["b", "a"]})
    loose = case(
        schema={"type": "object"},
        expected={"/price": 9.99, "/tags": ["b", "a"]},
        compare={"/price": {"tolerance": 0.01}, "/tags": {"order": "any"}},
    )
    answer = '{"price": 10, "tags": ["a", "b"]}'
    assert outcome(strict, answer) == ("wrong_value", 0.0)
    assert outcome(loose, answer) == ("correct", 1.0)
    assert outcome(loose, '{"price": 10.1, "tags": ["a", "b"]}') == ("wrong_value", 0.5)


def test_one_of_the_acceptable_values_is_enough_and_none_is_told() -> None:
    either = case(schema={"type": "object"}, expected={"/n": 1}, acceptable={"/city": ("Oslo", "Oslo, Norway")})
    assert outcome(either, '{"n": 1, "city": "Oslo, Norway"}') == ("correct", 1.0)
    assert outcome(either, '{"n": 1, "city": "Rome"}') == ("wrong_value", 0.5)
    judged = score(either, Answer(output_text='{"n": 1}'))
    assert judged is not None
    assert judged.validation_errors == ("/city: expected: 'Oslo' or 'Oslo, Norway', found nothing",)


def test_a_text_has_its_alternatives_and_rules() -> None:
    plain = case(expected_text="Oslo", acceptable={"": ("Oslo", "Kristiania")})
    assert [outcome(plain, text)[0] for text in ("Oslo\n", "Kristiania", "oslo")] == [
        "correct", "correct", "wrong_value",
    ]  # fmt: skip
    forgiving = case(expected_text="New York", compare={"": {"case": "ignore", "space": "ignore"}})
    assert outcome(forgiving, "new  york") == ("correct", 1.0)

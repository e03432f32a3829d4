"""Equality of JSON values under a case's rules for comparison.

A rule stands at a JSON Pointer of the answer and holds for the value there and all below it; the deepest rule
that says something of a key wins. Invariant: where no rule speaks, equality is ``json_equal``: strict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from structbench.scoring.values import json_equal, pointer_to

Rule = Mapping[str, Any]
Rules = Mapping[str, Rule]
"""JSON Pointer -> ``tolerance``, ``relative`` (numbers), ``order`` (any), ``case`` (ignore), ``space`` (ignore)."""


def matches(found: Any, expected: Any, rules: Rules, pointer: str = "") -> bool:
    """Whether the value found at ``pointer`` is the expected one by the rules."""
    if not rules:
        return json_equal(found, expected)
    above: dict[str, Any] = {}
    parts = pointer.split("/")
    for depth in range(1, len(parts)):
        above.update(rules.get("/".join(parts[:depth]), {}))
    return _matches(found, expected, rules, pointer, above)


def _matches(found: Any, expected: Any, rules: Rules, pointer: str, above: Rule) -> bool:
    rule = {**above, **rules.get(pointer, {})}
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    if isinstance(found, str) and isinstance(expected, str):
        return text_under(rule, found) == text_under(rule, expected)
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        return found.keys() == expected.keys() and all(
            _matches(found[name], value, rules, pointer + pointer_to([name]), rule) for name, value in expected.items()
        )
    if isinstance(found, list | tuple) and isinstance(expected, list | tuple):
        return len(found) == len(expected) and _arrays_match(found, expected, rules, pointer, rule)
    if isinstance(found, int | float) and isinstance(expected, int | float):
        return found == expected or _is_near(found, expected, rule)
    return bool(found == expected)


def _arrays_match(found: Sequence[Any], expected: Sequence[Any], rules: Rules, pointer: str, rule: Rule) -> bool:
    def same(one: int, other: int) -> bool:
        return _matches(found[one], expected[other], rules, f"{pointer}/{other}", rule)

    every = range(len(expected))
    if all(same(i, i) for i in every):
        return True
    if rule.get("order") != "any":
        return False
    # Not by sorting: with a tolerance, equality is not transitive, and only an assignment tells.
    pairs = [[int(same(one, other)) for one in every] for other in every]
    return all(one is not None and pairs[other][one] for other, one in enumerate(best_assignment(pairs)))


def best_assignment(weights: Sequence[Sequence[int]]) -> list[int | None]:
    """For each row its column, or None: as many pairs as rows and columns allow, of the greatest total weight."""
    by_row: list[int | None] = [None] * len(weights)
    places = [(row, column) for row, each in enumerate(weights) for column in range(len(each))]
    if len(weights) == 1 or len(places) == len(weights):  # one call, as in most cases: scipy takes long to import
        for row, column in [max(places, key=lambda at: weights[at[0]][at[1]])] if places else []:
            by_row[row] = column
    elif places:
        from scipy.optimize import linear_sum_assignment

        for row, column in zip(*linear_sum_assignment(weights, maximize=True), strict=True):
            by_row[row] = int(column)
    return by_row


def text_under(rule: Rule, text: str) -> str:
    """The text as the rule compares it: ``space`` ignored, runs of white space are one blank and none is around."""
    if rule.get("space") == "ignore":
        text = " ".join(text.split())
    return text.casefold() if rule.get("case") == "ignore" else text


def _is_near(found: float, expected: float, rule: Rule) -> bool:
    """|found - expected| <= tolerance, or <= relative x |expected|; as the decimal numbers that JSON has."""
    one, other, tolerance, relative = (
        Fraction(repr(number)) for number in (found, expected, rule.get("tolerance", 0), rule.get("relative", 0))
    )
    return abs(one - other) <= max(tolerance, relative * abs(other))

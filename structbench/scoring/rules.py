"""Equality of JSON values under a case's rules for comparison.

A rule is given at a JSON Pointer into the answer and applies to the value there and everything below it; for each
key, the deepest rule that sets it wins. Without a rule, equality is ``json_equal``: strict.
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
    """Return whether the value found at ``pointer`` equals the expected one under the rules."""
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
        return normalized(rule, found) == normalized(rule, expected)
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
    # Sorting would not do: with a tolerance, equality is not transitive.
    pairs = [[int(same(one, other)) for one in every] for other in every]
    return all(one is not None and pairs[other][one] for other, one in enumerate(best_assignment(pairs)))


def best_assignment(weights: Sequence[Sequence[int]]) -> list[int | None]:
    """Pair rows with columns for the greatest total weight, as many pairs as possible: each row's column, or None."""
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


def normalized(rule: Rule, text: str) -> str:
    """Normalize a text for comparison; ignoring ``space`` strips it and makes each run of white space one blank."""
    if rule.get("space") == "ignore":
        text = " ".join(text.split())
    return text.casefold() if rule.get("case") == "ignore" else text


def _is_near(found: float, expected: float, rule: Rule) -> bool:
    """Return whether |found - expected| <= tolerance or <= relative x |expected|, in exact decimals."""
    one, other, tolerance, relative = (
        Fraction(repr(number)) for number in (found, expected, rule.get("tolerance", 0), rule.get("relative", 0))
    )
    return abs(one - other) <= max(tolerance, relative * abs(other))

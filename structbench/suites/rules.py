"""What is wrong with a case's rules for comparison (``compare``).

Invariant: a rule that passes means something where it stands: it is of a value that is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from structbench.scoring.values import ABSENT, at_pointer

WORDS = {"order": "any", "case": "ignore", "space": "ignore"}
"""Rule -> the one word that it takes; without it the comparison is strict."""
NUMBERS = ("tolerance", "relative")
TEXT_RULES = ("case", "space")


def rule_problems(line: Mapping[str, Any]) -> Iterator[str]:
    """The problems of a line's ``compare``, whose keys are known to be JSON Pointers."""
    for pointer, rule in line["compare"].items():
        field = f'compare["{pointer}"]'
        if not isinstance(rule, dict) or not rule:
            yield f'{field}: must be an object with at least one rule, e.g. {{"tolerance": 0.01}}'
            continue
        for name, value in rule.items():
            yield from _one_rule(name, value, field)
        if "expected_text" in line:
            if pointer or not set(rule) <= {*TEXT_RULES}:
                yield f'{field}: a text is compared whole: give case or space at ""'
        elif not _is_compared(pointer, line):
            yield f"{field}: nothing is expected there: name a value of expected or acceptable, or one that holds it"


def _one_rule(name: str, value: Any, field: str) -> Iterator[str]:
    if name in WORDS:
        if value != WORDS[name]:
            yield f'{field}.{name}: must be "{WORDS[name]}": leave it out to compare strictly'
    elif name not in NUMBERS:
        yield f"{field}.{name}: unknown rule: known are {', '.join((*NUMBERS, *WORDS))}"
    elif isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        yield f"{field}.{name}: must be a number, 0 or more"


def _is_compared(pointer: str, line: Mapping[str, Any]) -> bool:
    """The rule's value holds an expected value, or lies within one."""
    due = [(at, [value]) for at, value in line.get("expected", {}).items()]
    due += line.get("acceptable", {}).items()
    for at, values in due:
        if at == pointer or at.startswith(f"{pointer}/"):
            return True
        if pointer.startswith(f"{at}/") and any(at_pointer(v, pointer[len(at) :]) is not ABSENT for v in values):
            return True
    return False

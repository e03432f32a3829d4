"""Strings that match a regular expression, for simple expressions.

Covers literals, classes, groups, alternation, quantifiers and anchors.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from random import Random

_Node = Callable[[Random], str]
_LETTERS = string.ascii_letters
_CLASSES = {"d": string.digits, "w": f"{_LETTERS}{string.digits}_", "s": " ", "D": _LETTERS, "W": "-", "S": _LETTERS}
_ESCAPES = {**_CLASSES, "n": "\n", "t": "\t", "r": "\r"}
_ANY = _LETTERS + string.digits + " -_.,:/"
_UNBOUNDED_EXTRA = 4


def matching(pattern: str, rng: Random, shortest: int = 0, longest: int | None = None) -> str | None:
    """Return a string that matches (``re.search``) and has the wanted length, or None if a few tries found none."""
    try:
        node = _PatternParser(pattern).parse()
        check = re.compile(pattern)
    except (ValueError, re.error):
        return None
    for _ in range(50):
        text = node(rng)
        if not pattern.endswith("$"):
            text += "x" * (shortest - len(text))
        if len(text) >= shortest and (longest is None or len(text) <= longest) and check.search(text):
            return text
    return None


class _PatternParser:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def parse(self) -> _Node:
        node = self._alternatives()
        if self.at < len(self.pattern):
            raise ValueError("unbalanced parenthesis")
        return node

    def _peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def _next(self) -> str:
        if self.at >= len(self.pattern):
            raise ValueError("unexpected end of pattern")
        self.at += 1
        return self.pattern[self.at - 1]

    def _alternatives(self) -> _Node:
        branches = [self._sequence()]
        while self._peek() == "|":
            self.at += 1
            branches.append(self._sequence())
        return lambda rng: rng.choice(branches)(rng)

    def _sequence(self) -> _Node:
        nodes: list[_Node] = []
        while self._peek() not in ("", "|", ")"):
            if self._peek() in "^$":
                self.at += 1
                continue
            nodes.append(self._quantified(self._atom()))
        return lambda rng: "".join(node(rng) for node in nodes)

    def _quantified(self, atom: _Node) -> _Node:
        low, high = self._counts()
        if (low, high) == (1, 1):
            return atom
        if self._peek() in ("?", "+"):
            self.at += 1
        return lambda rng: "".join(atom(rng) for _ in range(rng.randint(low, high)))

    def _counts(self) -> tuple[int, int]:
        simple = {"?": (0, 1), "*": (0, _UNBOUNDED_EXTRA), "+": (1, 1 + _UNBOUNDED_EXTRA)}
        if self._peek() in simple:
            return simple[self._next()]
        if found := re.compile(r"\{(\d+)(,?)(\d*)\}").match(self.pattern, self.at):
            self.at = found.end()
            low = int(found[1])
            if not found[2]:
                return low, low
            return low, int(found[3]) if found[3] else low + _UNBOUNDED_EXTRA
        return 1, 1

    def _atom(self) -> _Node:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            chars = self._bracket()
        elif char == "\\":
            chars = self._escaped()
        else:
            chars = _ANY if char == "." else char
        if not chars:
            raise ValueError("an empty class")
        return lambda rng: rng.choice(chars)

    def _group(self) -> _Node:
        if self._peek() == "?":
            if self.pattern[self.at : self.at + 2] != "?:":
                raise ValueError("only plain and (?:...) groups")
            self.at += 2
        node = self._alternatives()
        if self._next() != ")":
            raise ValueError("unbalanced parenthesis")
        return node

    def _escaped(self) -> str:
        char = self._next()
        if char.isalnum() and char not in _ESCAPES:
            raise ValueError(f"escape \\{char}")
        return _ESCAPES.get(char, char)

    def _bracket(self) -> str:
        negated = self._peek() == "^"
        self.at += negated
        chars = ""
        while (char := self._next()) != "]" or not chars:
            part = self._escaped() if char == "\\" else char
            if len(part) == 1 and self._peek() == "-" and self.pattern[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                end = self._next()
                end = self._escaped() if end == "\\" else end
                part = "".join(map(chr, range(ord(part), min(ord(end), ord(part) + 200) + 1)))
            chars += part
        if not negated:
            return chars
        return "".join(c for c in _ANY if c not in chars)

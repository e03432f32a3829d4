"""Scores of plain answers: rejected · broken_call · no_output · truncated · wrong_value · correct."""

from __future__ import annotations

import re
from unicodedata import normalize

from structbench.scoring.answer import Answer, explain, first_distinct, quoted, told_apart
from structbench.scoring.parsing import after_thinking
from structbench.scoring.rules import normalized
from structbench.types import Case, JsonOutcome, Score

_LETTER = "[^\\W\\d_\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]"
"""A letter of a script that separates words, as Thai, Lao, Burmese, Khmer, Japanese and Chinese do not."""
_HYPHEN = "[-\u2010\u2011\u00ad]"
_AFTER_NAME, _BEFORE_NAME = r"_{1,3}[^\W_]", "".join(rf"(?<![^\W_]{'_' * n})" for n in (1, 2, 3))
"""Underscores that join, as in max_7 and is_open; those of Markdown's _7_ and __open__ stand alone."""
_AFTER_WORD = f"(?!{_LETTER}|[\\d\u0300-\u036f#]|\\+(?!\\w)|{_AFTER_NAME}" + (
    f"|{_HYPHEN}(?:{_LETTER}|\\d)|'(?!s(?!{_LETTER})){_LETTER})"
)
_BEFORE_WORD = f"(?<!{_LETTER}){_BEFORE_NAME}(?<!{_LETTER}{_HYPHEN})(?<!\\d{_HYPHEN})(?<!{_LETTER}')"
_BEFORE_NUMBER = f"(?<!{_LETTER})(?<!\\d){_BEFORE_NAME}(?<!\\d[.,])(?<!\\s[.,])(?<!\\d:)(?<![-\u2010-\u2013\u2212])"
_MARK = r"(?:[\u00a0\u2009\u202f']|\{,\}|\\,)"
_GROUP = rf"(?:{_MARK}\d{{3}}|\ 000)(?!\d)"
"""Another three digits of the same number, as in 7 000 and 7'000."""
_POWER = r"e[-+]?\d|[×·]\d|\s?[×x*·]\s?10(?:\^|\*\*|[⁰¹²³⁴-⁹⁻])|\^|[⁰¹²³⁴-⁹¼-¾⅐-⅞]"
_BOUNDARIES = {
    "digit": (_BEFORE_NUMBER, rf"(?!\d|{_AFTER_NAME}|[.,:]\d|{_GROUP}|{_POWER})"),
    "letter": (_BEFORE_WORD, _AFTER_WORD),
    "other": ("", ""),
}
"""What must not precede and follow a mention, by its own first and last character.

A word with a hyphen or an apostrophe is another word, except for a possessive ``'s``; a dash before a digit is a sign.
"""
_ONES = "one|two|three|four|five|six|seven|eight|nine"
_TEENS = "ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_SCALES = "hundred|thousand|million|billion|trillion|dozen"
_NUMBER_WORD = f"(?:zero|{_ONES}|{_TEENS}|{_TENS}|{_SCALES})"
_NUMBER = re.compile(
    rf"[^\w\s]{{0,2}}\d[\d\s.,:'%/+-]*|{_NUMBER_WORD}(?:[\s-](?:and\s)?{_NUMBER_WORD})*", re.IGNORECASE
)
_PART_BEFORE = re.compile(
    rf"(?<!\w)(?:minus|negative|(?:{_TENS})|(?:{_SCALES})(?:\s+and)?|(?:\d|{_NUMBER_WORD})\s+point)\s+\Z", re.IGNORECASE
)
_PART_AFTER = re.compile(
    rf"\s?(?-i:k)(?!\w)|\s+(?:{_SCALES})(?!\w)|\s+point\s+(?:\d|{_NUMBER_WORD})"
    r"|\s+and\s+(?:a|one|three)\s+(?:half|quarter)",
    re.IGNORECASE,
)
_NEAR = 40
_ONES_AFTER = re.compile(rf"\s+(?:{_ONES})(?!\w)", re.IGNORECASE)
"""What makes a number a part of another: minus seven, twenty seven, hundred and seven, 7 million, seven point five."""


def score_text(case: Case, answer: Answer) -> Score:
    """Score an answer by the case's expected texts, or by the share of texts that it must mention."""
    if answer.failure is not None:
        return Score(outcome=answer.failure, accuracy_score=0.0)
    text = answer.output_text.strip()
    if case.mentions:
        told = after_thinking(answer.output_text)
        missing = [group for group in case.mentions if not any(is_mentioned(each, told) for each in group)]
        share = 1 - len(missing) / len(case.mentions)
        texts = (" or ".join(map(quoted, group)) for group in missing)
        wrong = first_distinct(explain("", "mentions", f"{text} is missing") for text in texts)
    else:
        expected = [each.strip() for each in (case.acceptable or {}).get("", (case.expected_text or "",))]
        rule = case.compare.get("", {})
        share = float(any(normalized(rule, text) == normalized(rule, right) for right in expected))
        wrong = (explain("", "expected", told_apart(expected, text)),)
    if share == 1:
        return Score(outcome="correct", accuracy_score=1.0)
    if not text:
        return Score(outcome="truncated" if answer.cut_off else "no_output", accuracy_score=0.0)
    outcome: JsonOutcome = "truncated" if answer.cut_off else "wrong_value"
    return Score(outcome=outcome, accuracy_score=share, validation_errors=wrong)


def is_mentioned(text: str, answer: str) -> bool:
    """Return whether the answer contains the text in any case, not within a longer word or number: 7 is in 7C, but
    not in 17, 7.5, B7, -7 or 7 million, and seven not in twenty-seven."""
    text, answer = _plain(text), _plain(answer)
    before, after = _BOUNDARIES[_edge(text[:1])][0], _BOUNDARIES[_edge(text[-1:])][1]
    if text[-1:].isdecimal() and re.search(_LETTER, text):  # H2 is not in H2O
        after += f"(?!{_LETTER})"
    found = re.finditer(before + re.escape(text) + after, answer, re.IGNORECASE)
    if not _NUMBER.fullmatch(text):
        return any(found)
    near = ((answer[max(0, each.start() - _NEAR) : each.start()], answer[each.end() : each.end() + _NEAR])
            for each in found)  # fmt: skip
    return not all(_is_part(text, *around) for around in near)


def _is_part(number: str, before: str, after: str) -> bool:
    """Return whether a number is a part of one that has other words or digits too."""
    if _PART_BEFORE.search(before) or _PART_AFTER.match(after):
        return True
    if re.search(rf"(?:{_TENS})\Z", number, re.IGNORECASE):
        return _ONES_AFTER.match(after) is not None
    return bool(re.match(r"\d{3}(?!\d)", number) and re.search(rf"\d{_MARK}\Z", before))


def _plain(text: str) -> str:
    """Return the text with composed letters and straight apostrophes."""
    return normalize("NFC", text).replace("\u2019", "'")


def _edge(character: str) -> str:
    return "digit" if character.isdecimal() else "letter" if re.match(_LETTER, character) else "other"

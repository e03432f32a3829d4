"""Generated suites: load-test prompts and number words.

A case depends only on its parameters, the seed, its own index and (``text``) the run it is asked in, on every machine
and Python version: only ``Random.random`` and SHA-256 are used, which stay as they are.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from statistics import StatisticsError, linear_regression
from typing import overload

from structbench.types import Case

TEXT_VERSION = 2
NUMBERS_VERSION = 1
"""Raise a version whenever its prompts change: it is part of the suite's identity."""

GENERATED_CASES = 1_000_000_000
TOKENS_PER_WORD = 1.1
OVERHEAD_TOKENS = 35
NONCE_DIGITS = 12
CALIBRATION_WORDS = (60, 150, 270)
MAX_RECENT_CASES = 2048
"""Cases that are cached: each is needed when its request is made, scored and stored, a few hundred requests apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextShape:
    """Lengths of the ``text`` suite in tokens, drawn from normal distributions."""

    mean_input_tokens: float = 550
    stddev_input_tokens: float = 150
    mean_output_tokens: float = 150
    stddev_output_tokens: float = 10


@dataclass(frozen=True)
class GeneratedCases(Sequence[Case]):
    """A sequence whose item i is ``make(i)``, made on demand; practically endless unless ``size`` is given."""

    make: Callable[..., Case]
    size: int = GENERATED_CASES
    _recent: Callable[[int], Case] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_recent", lru_cache(MAX_RECENT_CASES)(self.make))

    def __reduce__(self) -> tuple[type[GeneratedCases], tuple[Callable[..., Case], int]]:
        return GeneratedCases, (self.make, self.size)  # cached cases stay behind: they can be made again

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Case, ...]: ...
    def __getitem__(self, index: int | slice) -> Case | tuple[Case, ...]:
        if isinstance(index, slice):
            return tuple(self.make(i) for i in range(self.size)[index])
        return self._recent(range(self.size)[index])


def text_case(
    index: int,
    *,
    shape: TextShape,
    seed: int,
    run_id: str = "",
    tokens_per_word: float = TOKENS_PER_WORD,
    overhead_tokens: int = OVERHEAD_TOKENS,
) -> Case:
    """Make load-test prompt ``index``: words = (drawn tokens - overhead) / tokens per word.

    It begins with a number that no other run has at this index, so that no server has it in its prefix cache; the rest
    is the same in each run.
    """
    rng = Random(f"structbench text {TEXT_VERSION} {seed} {index}")
    input_tokens = max(16, round(_normal(rng, shape.mean_input_tokens, shape.stddev_input_tokens)))
    output_tokens = max(4, round(_normal(rng, shape.mean_output_tokens, shape.stddev_output_tokens)))
    words = round((input_tokens - overhead_tokens) / tokens_per_word)
    prompt = _text_prompt(rng, seed, index, run_id, words, output_tokens)
    return Case(
        id=f"text-{index}",
        messages=({"role": "user", "content": prompt},),
        options={"num_predict": output_tokens},
        tags=("text",),
        prompt_tokens=input_tokens,
    )


def number_case(index: int, *, seed: int) -> Case:
    """Make number-words case ``index``: 10 to 999,999, each number of digits equally often."""
    rng = Random(f"structbench numbers {NUMBERS_VERSION} {seed} {index}")
    digits = 2 + int(rng.random() * 5)
    value = 10 ** (digits - 1) + int(rng.random() * 9 * 10 ** (digits - 1))
    prompt = (
        f"{number_words(value).capitalize()}. Convert this sequence of words into a number. "
        "Answer with the digits only: no words, no separators, nothing before or after."
    )
    return Case(
        id=f"numbers-{index}",
        messages=({"role": "user", "content": prompt},),
        expected_text=str(value),
        options={"num_predict": 64},
        tags=("numbers",),
    )


def calibration_prompts(seed: int, run_id: str) -> list[str]:
    """Make three prompts of different lengths in the style of ``text``, equal to none of its prompts in any run."""
    prompts = []
    for number, words in enumerate(CALIBRATION_WORDS):
        index = GENERATED_CASES + number
        rng = Random(f"structbench calibration {TEXT_VERSION} {seed} {number}")
        prompts.append(_text_prompt(rng, seed, index, run_id, words, 150))
    return prompts


def word_count(prompt: str) -> int:
    """Count words as ``calibrate`` and ``text_case`` do: runs without white space."""
    return len(prompt.split())


def calibrate(samples: Sequence[tuple[int, int]]) -> tuple[float, int]:
    """Fit (tokens per word, overhead tokens) by least squares to samples of (words, prompt_eval_count).

    Returns the defaults for English if the samples do not allow a fit: a single length, or a slope that no
    tokenizer has, as from a server that counts only what its cache missed.
    """
    try:
        slope, intercept = linear_regression([words for words, _ in samples], [tokens for _, tokens in samples])
    except StatisticsError:
        return TOKENS_PER_WORD, OVERHEAD_TOKENS
    if not 0.5 <= slope <= 20:
        return TOKENS_PER_WORD, OVERHEAD_TOKENS
    return slope, max(0, round(intercept))


def number_words(value: int) -> str:
    """Write 0 to 999,999 in English words, with the British "and"."""
    if not 0 <= value <= 999_999:
        raise ValueError(f"{value} is outside 0 to 999999")
    thousands, rest = divmod(value, 1000)
    if thousands == 0:
        return _words_below_1000(rest)
    joint = " and " if 0 < rest < 100 else " "
    return _words_below_1000(thousands) + " thousand" + (joint + _words_below_1000(rest) if rest else "")


def _words_below_1000(value: int) -> str:
    if value < 20:
        return UNITS[value]
    if value < 100:
        tens, unit = divmod(value, 10)
        return TENS[tens - 2] + ("-" + UNITS[unit] if unit else "")
    hundreds, rest = divmod(value, 100)
    return UNITS[hundreds] + " hundred" + (" and " + _words_below_1000(rest) if rest else "")


def _normal(rng: Random, mean: float, stddev: float) -> float:
    """Draw from a normal distribution (Box and Muller) with two uniform draws."""
    radius = math.sqrt(-2 * math.log(1 - rng.random()))
    return mean + stddev * radius * math.cos(2 * math.pi * rng.random())


def _text_prompt(rng: Random, seed: int, index: int, run_id: str, words: int, output_tokens: int) -> str:
    """Write a prompt of ``words`` words, or only its frame if that is longer."""
    opening = f"{_nonce(run_id, index)} {_lead_in(seed, index)} wrote these notes."
    # Asks for as many words as tokens, more than fit, so that num_predict sets the length.
    task = f"Continue the notes with at least {output_tokens} words."
    body = _sentences(rng, words - word_count(opening) - word_count(task))
    return f"{opening} {body}\n\n{task}" if body else f"{opening} {task}"


def _nonce(run_id: str, index: int) -> str:
    """Make the number of a request: digits, so that a tokenizer makes as many tokens of each."""
    digest = hashlib.sha256(f"structbench nonce {run_id} {index}".encode()).digest()
    return f"{int.from_bytes(digest) % 10**NONCE_DIGITS:0{NONCE_DIGITS}d}"


def _lead_in(seed: int, index: int) -> str:
    """Make up two names that no other index below 60**6 has with this seed.

    Multiplying by a number without a common factor with 60 permutes the numbers below 60**6;
    one near its golden section also changes the first syllable at every step.
    """
    code = (index * LEAD_IN_STEP + _first_lead_in(seed)) % LEAD_INS
    syllables = []
    for _ in range(6):
        code, digit = divmod(code, 60)
        syllables.append(SYLLABLES[digit])
    name = "".join(reversed(syllables))
    return f"{name[:6].capitalize()} {name[6:].capitalize()}"


@lru_cache
def _first_lead_in(seed: int) -> int:
    return int(Random(f"structbench lead-in {seed}").random() * LEAD_INS)


def _sentences(rng: Random, words: int) -> str:
    """Write sentences of exactly ``words`` words in total; a list of things fills up the end."""
    parts: list[str] = []
    random, things, left = rng.random, VOCABULARY["THING"], words
    while left > 0:
        blanks, end = TEMPLATES[int(random() * len(TEMPLATES))]
        sentence = "".join([fillings[int(random() * len(fillings))] for fillings in blanks]) + end
        many = sentence.count(" ") + 1
        if many > left:
            listed = ", ".join([things[int(random() * len(things))] for _ in range(left)])
            sentence, many = f"{listed[0].upper()}{listed[1:]}.", left
        parts.append(sentence)
        left -= many
    return " ".join(parts)


Template = tuple[tuple[tuple[str, ...], ...], str]
"""All that may stand at each blank, with what stands before it; and what stands after the last one."""


def _template(sentence: str) -> Template:
    """Take a sentence apart at its slots, and begin it with a capital.

    Where "a" stands before a slot, the fillings begin with the rest of "an".
    """
    *blanks, end = re.split(r"([A-Z]{3,})", sentence)
    found: list[tuple[str, ...]] = []
    for before, slot in zip(blanks[::2], blanks[1::2], strict=True):
        fillings = VOCABULARY[slot]
        if re.search(r"\b[Aa] $", before):
            before, fillings = before[:-1], tuple(f"n {word}" if word[0] in "aeio" else f" {word}" for word in fillings)
        found.append(tuple(before + filling for filling in fillings))
    found[0] = tuple(first[0].upper() + first[1:] for first in found[0])
    return tuple(found), end


SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnprstvzj" for vowel in "aeio")
LEAD_INS = 60**6
LEAD_IN_STEP = 28_834_987_571  # odd, no multiple of 3 or 5; about 0.618 * 60**6

UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

SENTENCES = (
    "the ADJ PERSON VERB the THING WHERE.",
    "WHEN, a PERSON VERB the ADJ THING and left without a word.",
    "nobody asked why the PERSON VERB the THING WHERE.",
    "there was a ADJ THING WHERE, next to the THING.",
    "WHEN, the THING stood WHERE and the PERSON counted every THING twice.",
    "a PERSON from the MADE office VERB the THING because the THING was too ADJ.",
    "if the weather holds, the PERSON will bring the ADJ THING and a MADE THING.",
    "it took the PERSON three hours to find the THING, which lay WHERE.",
    "the price of a MADE THING has doubled, said the PERSON, but a ADJ one costs less.",
    "both the PERSON and the PERSON VERB the same THING WHERE.",
    "WHEN, we heard that the MADE THING had been sold to a ADJ PERSON.",
    "first the PERSON VERB the THING, then the ADJ PERSON VERB it again.",
    "what the PERSON remembered best was the ADJ THING WHERE.",
    "please tell the PERSON that the THING is ready and the MADE THING is not.",
)
"""Capital words are slots of VOCABULARY."""

SINGLE_WORDS = {
    "ADJ": (
        "quiet bright heavy narrow friendly broken simple careful silver hungry gentle modern curious distant "
        "round clever lazy plain warm cold famous hidden patient dusty busy proud useful rough smooth strange "
        "cheap noisy polite sleepy green yellow purple tiny large shallow rare common brave tired lucky serious"
    ),
    "MADE": (
        "wooden paper copper glass woollen leather stone plastic velvet marble cotton bamboo rubber steel clay "
        "linen bronze painted folded printed borrowed polished northern coastal mountain village railway garden"
    ),
    "PERSON": (
        "baker teacher sailor doctor painter farmer driver librarian plumber singer lawyer gardener tailor pilot "
        "student nurse carpenter journalist waiter fisherman chemist mayor neighbour grandmother cousin tourist "
        "translator engineer butcher postman dentist musician shepherd architect guard clerk builder visitor"
    ),
    "THING": (
        "lamp bridge letter kettle bicycle window basket ladder mirror blanket engine ticket drawer violin camera "
        "hammer garden wallet map clock bottle suitcase curtain bell boat fence shelf candle notebook pillow radio "
        "saddle spoon tent umbrella wheel rope coat chair table carpet bucket oven piano painting statue pencil "
        "telescope barrel compass lantern necklace parcel recipe scarf trumpet wagon whistle anchor button drum"
    ),
    "VERB": (
        "carried repaired sold painted watched lost borrowed opened cleaned measured described followed lifted "
        "bought covered examined hid moved dropped admired weighed drew returned turned photographed tested "
        "wrapped delivered collected polished counted forgot mentioned pushed stored"
    ),
}
PHRASES = {
    "WHEN": (
        "in the morning|after the long meeting|late in October|on the first day of spring|an hour before lunch|"
        "during the storm|last winter|two weeks ago|shortly after midnight|at the end of the season|"
        "once the market had closed|on a rainy Thursday|in the year of the flood|before the train arrived"
    ),
    "WHERE": (
        "behind the old station|near the harbour|in the middle of the square|on the kitchen floor|under the stairs|"
        "at the edge of the forest|between two houses|in front of the museum|by the river|on the top shelf|"
        "beside the post office|inside the empty barn|across the valley|at the far end of the platform|"
        "below the bridge|on the roof of the school|along the northern road|in a small workshop"
    ),
}
VOCABULARY = {slot: tuple(words.split()) for slot, words in SINGLE_WORDS.items()} | {
    slot: tuple(phrases.split("|")) for slot, phrases in PHRASES.items()
}
TEMPLATES = tuple(map(_template, SENTENCES))

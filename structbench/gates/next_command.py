"""What would decide a cell that is not decided: the command that goes on with it, and how long that takes. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from structbench.formatting import plural, span_text
from structbench.gates.settled import next_look
from structbench.gates.slo import Gate, doubt, state_of
from structbench.options import LoadOptions

_MARGIN = 1.2
"""How much more is asked for than seems to be needed."""


@dataclass(frozen=True, slots=True)
class Settles:
    """How to decide a cell; each is None where it is not known."""

    command: str | None
    more: int | None
    """Requests that it takes beside those that the run has."""
    seconds: float | None
    """How long these take at the pace of the run."""

    @property
    def text(self) -> str:
        """Say it: ``about 40 more requests (2 min 10 s here) settle it: structbench load …``."""
        takes = "" if self.seconds is None else f" ({span_text(self.seconds)} here)"
        what = "to settle it" if self.more is None else f"about {plural(self.more, 'more request')}{takes} settle it"
        return f"{what}: {self.command or 'the same load with --skip-cached --until settled'}"


def settles_of(gates: Sequence[Gate], row: Mapping[str, Any] | None, words: Sequence[str] | None) -> Settles | None:
    """Return what would decide the rule of these gates, or None if it is decided.

    ``row`` has the run's status, verdict, requests and duration_s, and is None if there is none; ``words`` are those of
    the command line that asks for the cell, until settled.
    """
    if state_of(gates) != "not decided":
        return None
    if row is None or (row["status"] == "complete" and doubt(row) is not None):
        return Settles(_command(words, ()), None, None)  # a measurement that is invalid is not worth going on with
    has, lasted = row["requests"] or 0, row["duration_s"]
    needs = [gate.needs for gate in gates if gate.outcome == "not decided" and gate.needs is not None]
    if not needs:
        return Settles(_command(words, ("--skip-cached",)), None, None)
    most = next_look(max(ceil(_MARGIN * max(needs)), has) - 1)
    seconds = (most - has) * lasted / has if has and lasted else None
    return Settles(_command(words, ("--skip-cached", *_bounds(most, seconds))), most - has, seconds)


def together(found: Sequence[Settles]) -> Settles:
    """Return what would decide several suites under one load: one command, where theirs differ in the suite alone."""
    named = [shlex.split(each.command) for each in found if each.command is not None]
    places = [words.index("--suites") + 1 if "--suites" in words else 0 for words in named]
    rests = {(*words[:place], *words[place + 1 :]) for words, place in zip(named, places, strict=True)}
    if len(named) < len(found) or 0 in places or len(rests) > 1:
        return found[0]
    suites = [words[place] for words, place in zip(named, places, strict=True)]
    first = named[0]
    command = shlex.join([*first[: places[0]], *dict.fromkeys(suites), *first[places[0] + 1 :]])
    mores, seconds = [each.more for each in found], [each.seconds for each in found]
    more = None if None in mores else sum(each for each in mores if each is not None)
    return Settles(command, more, None if None in seconds else sum(each for each in seconds if each is not None))


def _bounds(most: int, seconds: float | None) -> list[str]:
    """Return the options that let a load go on for so long, where the defaults would not."""
    default, words = LoadOptions(), list[str]()
    if most > default.max_requests:
        words += ["--max-requests", str(most)]
    if seconds is not None and seconds * _MARGIN > default.max_time:
        words += ["--max-time", f"{ceil(seconds * _MARGIN / 60)}m"]
    return words


def _command(words: Sequence[str] | None, more: Sequence[str]) -> str | None:
    return None if words is None else shlex.join(["structbench", "load", *words, *more])

"""What would decide a cell that is not decided: the command that goes on with it, and how long that takes. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from structbench.formatting import plural, span_text
from structbench.gates.expressions import parse_slo
from structbench.gates.settled import FIRST, next_look
from structbench.gates.slo import DEFAULT_RULE, Gate, doubt, is_exact, state_of
from structbench.options import LoadOptions, seconds_of, words_for

_MARGIN = 1.2
"""How much more is asked for than seems to be needed."""
_AXES = ("--suites", "--concurrency", "--rate", "--models")
"""Options that may have several values, and then make several cells."""
_BOUNDS = ("--max-requests", "--max-time")


@dataclass(frozen=True, slots=True)
class Settles:
    """How to decide a cell; each is None where it is not known."""

    command: str | None
    more: int | None
    """Requests that it takes beside those that the run has."""
    seconds: float | None
    """How long that takes at the pace of the run."""
    at_most: bool = False
    """Whether so many requests are what the command may send, since nobody knows how many it takes."""

    @property
    def text(self) -> str:
        """Say it: ``about 40 more requests (2 min 10 s here) settle it: structbench load …``."""
        takes = "" if self.seconds is None else f" ({span_text(self.seconds)} here)"
        command = self.command or "the same load with --skip-cached --until settled"
        if self.more is None:
            return f"to settle it{takes}: {command}"
        more = plural(self.more, "more request")
        return f"{f'up to {more}{takes} may' if self.at_most else f'about {more}{takes}'} settle it: {command}"


def settles_of(
    gates: Sequence[Gate], row: Mapping[str, Any] | None, words: Sequence[str] | None, db: Path = LoadOptions.db
) -> Settles | None:
    """Return what would decide the rule of these gates, or None if it is decided, or if no load can decide it.

    ``row`` has the run's suite, status, verdict, requests, scored and duration_s, and is None if there is none;
    ``words`` are those of the command line that asks for the cell in ``db``, by whatever rule.
    """
    if state_of(gates) != "not decided" or not any(gate.outcome == "not decided" and gate.applies for gate in gates):
        return None
    known = None if words is None else _asking(words, gates, row, db)
    if row is None or (row["status"] == "complete" and doubt(row) is not None):
        # A measurement that is invalid is not worth going on with.
        return Settles(_command(known, ()), None, None if row is None else row["duration_s"])
    default, has, lasted = LoadOptions(), row["requests"] or 0, row["duration_s"]
    pace_s = lasted / has if has and lasted else None
    needs = [needed for gate in gates if gate.outcome == "not decided" and (needed := _needs(gate, has)) is not None]
    if needs:
        most = next_look(max(ceil(_MARGIN * max(needs)), has) - 1)
        seconds = None if pace_s is None else (most - has) * pace_s
    else:
        most = max(default.max_requests, 2 * has)
        seconds = None if pace_s is None else min((most - has) * pace_s, default.max_time)
    return Settles(_command(known, ("--skip-cached", *_bounds(most, seconds))), most - has, seconds, at_most=not needs)


def _needs(gate: Gate, has: int) -> int | None:
    """Return about how many requests would decide; those that the figure does not count (the opening) come beside."""
    if gate.needs is None:
        return FIRST if is_exact(parse_slo(gate.slo)) and has < FIRST else None
    return gate.needs + (has - gate.n if 0 < gate.n < has else 0)


def _asking(words: Sequence[str], gates: Sequence[Gate], row: Mapping[str, Any] | None, db: Path) -> list[str]:
    """Return the words that ask for a cell in ``db`` until the rule of these gates is decided, not the one they had."""
    options = _options(words)
    for name in ("--slo", "--abort-on-slo"):
        options.pop(name, None)
    if (rule := [gate.slo for gate in gates]) != [*DEFAULT_RULE]:
        options["--slo"] = rule
    if row is None or not (row["suite"] == "text" or row["scored"]):
        options["--until"] = ["settled"]
    if db != LoadOptions.db:
        options["--db"] = [str(db)]
    return _words(options)


def together(found: Sequence[Settles]) -> list[Settles]:
    """Return what would decide several cells: one command for those whose commands differ in one option alone."""
    known = list(dict.fromkeys(found))
    for axis in _AXES:
        alike: dict[object, list[Settles]] = {}
        for each in known:
            options = {} if each.command is None else _options(shlex.split(each.command)[2:])
            rest = [(name, *values) for name, values in options.items() if name not in (axis, *_BOUNDS)]
            alike.setdefault((axis in options, *rest) if options else None, []).append(each)
        known = [_merged(several, axis) for several in alike.values()]
    return known


def _merged(several: Sequence[Settles], axis: str) -> Settles:
    """Return what decides all of these: the values of the axis together, the largest bounds, the sum of the numbers."""
    first = several[0]
    if len(several) == 1 or first.command is None:
        return first
    each = [_options(shlex.split(settles.command or "")[2:]) for settles in several]
    options = each[0]
    if axis in options:
        options[axis] = list(dict.fromkeys(value for own in each for value in own[axis]))
    for name in _BOUNDS:
        if given := [own[name][0] for own in each if name in own]:
            options[name] = [max(given, key=seconds_of)]
    mores, seconds = [settles.more for settles in several], [settles.seconds for settles in several]
    return Settles(
        _command(_words(options), ()), None if None in mores else sum(more or 0 for more in mores),
        None if None in seconds else sum(each or 0.0 for each in seconds),
        at_most=any(settles.at_most for settles in several),
    )  # fmt: skip


def _options(words: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of each option, of words as ``as_arguments`` makes them."""
    found: dict[str, list[str]] = {}
    values: list[str] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            values = found.setdefault(name, [])
            values += [value] if equals else []
        else:
            values.append(word)
    return found


def _words(options: Mapping[str, Sequence[str]]) -> list[str]:
    return [word for name, values in options.items() for word in words_for(name, values)]


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

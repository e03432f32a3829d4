"""What a load ends with, and a report in the terminal: one table, errors, wrong answers, notes, the answer.

It is at most two screens: rows and lines that find no room are counted, and ``--wide`` has them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from structbench.formatting import (
    ABSENT,
    clipped,
    latency_text,
    plural,
    printable,
    rate_text,
    share_text,
    without_middle,
)
from structbench.metrics import METRICS
from structbench.notes import reached
from structbench.reports.document import Document
from structbench.reports.summary import Row, as_text, notes_of
from structbench.results.failures import together
from structbench.results.figures import Figures
from structbench.results.groups import SIMULATED, RunGroup
from structbench.stats import Estimate

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"degraded": "yellow", "invalid": "red"}
_SCREENS = 2
_MIN_NAME = 16
_MIN_ROWS = 5
_FEW = 12
"""So many rows at most may have names on several lines."""
_COMMAND_LINES = 3
"""About as many as the next command takes, and the blank line before the answer."""


class _Column(NamedTuple):
    header: str
    text_of: Callable[[RunGroup, Figures], str]
    right: bool = True


@dataclass(slots=True)
class _Block:
    """A title and its lines, of which as many are shown as there is room for."""

    title: str
    lines: list[str]
    shown: int

    def printed(self, width: int, most: int) -> Iterator[tuple[str, str]]:
        """Yield each line with its style; a text longer than ``most`` lines is cut."""
        if self.title:
            yield self.title, "bold cyan"
        for text in self.lines[: self.shown]:
            for line in _wrapped(text, width, most):
                yield line, "yellow" if text.startswith(("*", "warning:")) else ""
        if self.shown < len(self.lines):
            yield f"  … and {len(self.lines) - self.shown:,} more (--wide)", "dim"


def print_brief(
    document: Document,
    console: Console,
    *,
    more: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Print all but the answer; ``more`` has the caller's own lines by title, the notes' is empty."""
    width = console.width
    marks = _marks(document.groups)
    blocks = _blocks(document, marks, more)
    ending = len([*_answer(document, width)]) + _COMMAND_LINES + sum(map(len, document.headline.settled_by)) // width
    room = max(_MIN_ROWS, _SCREENS * console.height - ending)
    table = list(_table(document, marks, width, fold=len(document.groups) <= _FEW))
    most, below = 3, list(_printed(blocks, width, 3))
    while len(table) + len(below) > room and (most > 1 or any(block.shown > 1 for block in blocks)):
        if most == 1:
            max(blocks, key=lambda block: block.shown).shown -= 1
        most = 1
        below = list(_printed(blocks, width, most))
    if len(table) + len(below) > room:
        kept = max(_MIN_ROWS, room - len(below) - 1)
        hidden = sum(style != "bold cyan" for _, style in table[kept:])
        table = [*table[:kept], (f"  … and {plural(hidden, 'more run')} (--wide)", "dim")]
    airy = len(table) + len(below) + len(blocks) <= room
    console.print(*_texts(table), sep="\n")
    for block in blocks:
        console.print(*([""] if airy else []), *_texts(block.printed(width, most)), sep="\n")
    console.print()


def print_answer(document: Document, console: Console) -> None:
    """Print the sentence, its rule, what to know of it, and the command that settles what is open."""
    console.print(*_texts(_answer(document, console.width)), sep="\n")
    for command in document.headline.settled_by:
        console.print(as_text(command), soft_wrap=True)  # to be copied as one line


def _printed(blocks: Iterable[_Block], width: int, most: int) -> Iterator[tuple[str, str]]:
    for block in blocks:
        yield from block.printed(width, most)


def _texts(lines: Iterable[tuple[str, str]]) -> Iterator[Any]:
    return (as_text(line, style) for line, style in lines)


def _wrapped(text: str, width: int, most: int) -> list[str]:
    if most == 1:
        return [clipped(text, width)]
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    lines = textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False) or [""]
    if len(lines) > most:
        lines = [*lines[: most - 1], clipped(f"{lines[most - 1]} {lines[most].strip()}", width)]
    return lines


def _marks(groups: Sequence[RunGroup]) -> dict[str, int]:
    """Return the number of each distinct verdict that is not valid, with its reason."""
    told = dict.fromkeys(reason for group in groups if (reason := _doubt(group)) is not None)
    return {reason: number for number, reason in enumerate(told, 1)}


def _doubt(group: RunGroup) -> str | None:
    if group.verdict == "valid" or group.status == "running":
        return None
    return ": ".join(filter(None, [group.verdict or "no verdict", "; ".join(group.reasons)]))


# The table


def _table(document: Document, marks: dict[str, int], width: int, *, fold: bool) -> Iterator[tuple[str, str]]:
    """Yield the lines of the table: under each suite, a row for each of its run groups; long names fold, or are cut."""
    groups, figures = document.groups, document.figures
    every = all(group.simulated for group in groups)
    names = {group.id: _name(group, every) for group in groups}
    columns = [
        column
        for column in _columns(marks, list(figures.values()))
        if any(column.text_of(group, figures[group.id]) not in (ABSENT, "", "0") for group in groups)
    ]
    cells = {group.id: [column.text_of(group, figures[group.id]) for column in columns] for group in groups}
    widths = [max(len(column.header), *(len(row[i]) for row in cells.values())) for i, column in enumerate(columns)]
    room = max(_MIN_NAME, width - sum(widths) - 2 * len(widths) - 2)
    longest = min(room, max(map(len, names.values())))
    suites: dict[str, list[RunGroup]] = {}
    for group in groups:
        suites.setdefault(group.suite, []).append(group)
    for number, (suite, members) in enumerate(suites.items()):
        header = [column.header if number == 0 else "" for column in columns]
        yield _line(without_middle(suite, longest + 2).ljust(longest + 2), header, columns, widths), "bold cyan"
        for group in members:
            tail = min(longest // 2, len(group.distinct_load) + 1)
            name, *rest = (
                textwrap.wrap(names[group.id], longest, break_on_hyphens=False)
                if fold
                else [without_middle(names[group.id], longest, tail=tail)]
            )
            style = _STYLES.get(str(group.verdict), "")
            yield _line(f"  {name.ljust(longest)}", cells[group.id], columns, widths), style
            for more in rest:
                yield f"    {more}", style


def _line(name: str, cells: Sequence[str], columns: Sequence[_Column], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if column.right else cell.ljust(width)
        for cell, column, width in zip(cells, columns, widths, strict=True)
    ]
    return "  ".join([name, *padded]).rstrip()


def _name(group: RunGroup, every_simulated: bool) -> str:
    mark = f" {SIMULATED}" if group.simulated and not every_simulated else ""
    unreached = "!" if any(note.kind == reached.KIND for note in group.notes) else ""
    return f"{group.model} {group.distinct_load}{unreached}{mark}"


def _columns(marks: dict[str, int], figures: Sequence[Figures]) -> Iterator[_Column]:
    def mark(group: RunGroup, _: Figures) -> str:
        reason = _doubt(group)
        return "" if reason is None else f"({marks[reason]})"

    yield _Column("n", _requests)
    yield _Column("errors", lambda _, own: f"{own.counts['errors']:,}")
    yield _Column("correct", lambda _, own: _share(own.of(METRICS["correct"])), right=False)
    yield _Column("TTFT p50", lambda _, own: _latency(own, "ttft"))
    yield _Column("e2e p50", lambda _, own: _latency(own, "e2e"))
    scored = any(own.rates["correct_goodput"].value is not None for own in figures)
    rate, header = ("correct_goodput", "correct/s") if scored else ("requests_per_s", "requests/s")
    yield _Column(header, lambda _, own: rate_text(own.rates[rate].value))
    yield _Column("", mark, right=False)


def _requests(group: RunGroup, own: Figures) -> str:
    done = own.counts["requests"]
    if group.status == "complete":
        return f"{done:,}"
    return f"{done:,}*" if group.planned is None else f"{done:,}/{group.planned:,}*"


def _latency(own: Figures, name: str) -> str:
    found = own.told(METRICS[name].at("p50"))
    return f"needs {found.needs}" if found.value is None and found.n else latency_text(found.value)


def _share(found: Estimate) -> str:
    """Return ``93 % (79–98 %)``."""
    if found.value is None:
        return ABSENT
    value = share_text(found.value, 0 if found.value in (0, 1) or 0.01 <= found.value <= 0.99 else 1)
    if found.low is None or found.high is None:
        return value
    return f"{value} ({share_text(found.low, 0).removesuffix(' %')}–{share_text(found.high, 0)})"


# Below the table


def _blocks(document: Document, marks: dict[str, int], more: Mapping[str, Sequence[str]]) -> list[_Block]:
    found = {
        "Errors": list(_errors(document)),
        "Wrong answers": list(_wrong(document)),
        **{title: lines for title, lines in more.items() if title},
        "": [*_notes(document, marks), *more.get("", ())],
    }
    return [_Block(title, list(lines), len(lines)) for title, lines in found.items() if lines]


def _errors(document: Document) -> Iterator[str]:
    """Yield how requests failed: kind, how many, and what the first one said."""
    figures = document.figures
    for failure in together(own.failures for own in figures.values()):
        where = [
            group
            for group in document.groups
            if any((each.kind, each.status) == (failure.kind, failure.status) for each in figures[group.id].failures)
        ]
        kind, _, said = printable(failure.text).partition(": ")
        yield f"  {failure.count:,} × {kind}{_of(where, document)}: {said}"


def _wrong(document: Document) -> Iterator[str]:
    """Yield what was wrong with answers: kind, how many, and what was wrong with the first one."""
    for kind in document.wrong:
        first = f": {printable(kind.first)}" if kind.first else ""
        where = [group for group in document.groups if group.id in kind.lines]
        yield f"  {kind.count:,} × {kind.outcome.replace('_', ' ')}{_of(where, document)}{first}"


def _of(where: Sequence[RunGroup], document: Document) -> str:
    if len(document.groups) == 1 or not where:
        return ""
    return f" ({where[0].name}{f' and {len(where) - 1} more' if len(where) > 1 else ''})"


def _notes(document: Document, marks: dict[str, int]) -> Iterator[str]:
    rows: list[Row] = [
        {"model": group.model, "suite": group.suite, "load": group.distinct_load, "status": group.status,
         "planned": group.planned, "notes": group.notes, **document.figures[group.id].counts}
        for group in document.groups
    ]  # fmt: skip
    return (text for text, _ in notes_of(rows, marks))


# The answer


def _answer(document: Document, width: int) -> Iterator[tuple[str, str]]:
    headline = document.headline
    warnings = [note for note in headline.notes if note.startswith(SIMULATED)]
    others = [note for note in headline.notes if note not in warnings]
    every = all(group.simulated for group in document.groups)
    told = " ".join(text for text in headline.sentences if text not in headline.settled_by)
    told = told.removeprefix(f"{SIMULATED}: ") if every else told
    texts = [*((each, 3, "bold yellow") for each in warnings), (told, 8, "bold"), (headline.rule, 3, "dim"),
             *((each, 3, "yellow") for each in others)]  # fmt: skip
    for text, most, style in texts:
        for line in _wrapped(text, width, most):
            yield line.strip(), style

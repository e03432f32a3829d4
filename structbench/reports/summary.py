"""The summary at the end of a load: the table, the overview, and the same as JSON.

A row is one run: the columns of the store's view ``summary`` with ``cache`` (new, resumed, skipped), ``notes``
(list of Note) and ``warnings`` (list of str) added, and ``server`` where there are several; a missing key means the
same as None. Nothing is computed here but
pooled shares, each weighted by the number of answers it is a share of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from structbench import __version__
from structbench.formatting import (
    ABSENT,
    latency_text,
    plural,
    printable,
    printable_lines,
    rate_text,
    server_text,
    share_text,
    simple_table,
    span_text,
    suite_text,
)
from structbench.metrics import LATENCIES, METRICS, SCORES, Metric, of_kind
from structbench.output import json_value
from structbench.types import Note

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

Row = Mapping[str, Any]

RUN_KEYS = (
    "run_id", "model", "suite", "load", "cache", "status", "verdict", "verdict_reason", "notes", "warnings", "label",
    "planned", "requests", "steady", "completed", "errors", "dropped", "thinking",
    *(column for metric in METRICS.values() for column in metric.columns), "stream_tokens_per_s", "output_tokens",
    "duration_s", "rate_s", "model_load_s", "config_hash", "started_at", "finished_at",
)  # fmt: skip
"""The keys always in the JSON of a run, null if unknown; other columns of the view follow them."""

MIN_NAME_WIDTHS = {2: 24, 1: 14}
"""Spaces between columns -> minimum width of the first, where names fold; narrow gaps are better than short names."""
_STYLES = {"valid": "green", "degraded": "yellow", "invalid": "red"}


def number(row: Row, key: str) -> float | None:
    """Return the number in the row, or None if it is missing or cannot be shown."""
    value = row.get(key)
    if not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        return None
    return float(value) if isinstance(value, Decimal) else value


def text(row: Row, key: str) -> str:
    value = row.get(key)
    return ABSENT if value is None else printable(str(value))


def cell_name(row: Row) -> str:
    """Return the name of the cell as the display shows it: ``smollm2:360m json c=4``."""
    name = " ".join(_name(row, key) for key in ("model", "suite", "load") if row.get(key) is not None) or ABSENT
    return f"{name} on {text(row, 'server')}" if row.get("server") is not None else name


def _name(row: Row, key: str) -> str:
    if key == "load" and row.get("variant"):
        return f"{text(row, key)} {text(row, 'variant')}"
    if key != "suite":
        return text(row, key)
    return suite_text(text(row, key), text(row, "structured") if row.get("structured") else None)


def pooled(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the sums of counts, and shares weighted by their denominators; None if no row has one."""

    def total(key: str) -> int:
        return int(sum(number(row, key) or 0 for row in rows))

    requests, completed = total("requests"), total("completed")
    judged = [row for row in rows if number(row, "correct") is not None]
    scored = sum(_scored(row, METRICS["correct"]) for row in judged)
    return {
        "runs": len(rows),
        "requests": requests,
        "completed": completed,
        "errors": total("errors"),
        "completed_share": completed / requests if requests else None,
        "correct_share": sum(number(row, "correct") or 0 for row in judged) / scored if scored else None,
        **{metric.name: _weighted(rows, metric) for metric in _POOLED_SHARES},
    }


_POOLED_SHARES = tuple(metric for metric in SCORES if metric.column)


def _scored(row: Row, share: Metric) -> float:
    """Return how many answers this is a share of; if unknown, the number of completed requests."""
    for key in (share.scored, "completed", "requests"):
        n = number(row, key)
        if n:
            return n
    return 0


def _weighted(rows: Iterable[Row], share: Metric) -> float | None:
    known = [(value, _scored(row, share)) for row in rows if (value := number(row, share.name)) is not None]
    weight = sum(n for _, n in known)
    return math.fsum(value * n for value, n in known) / weight if weight else None


def grouped(rows: Iterable[Row], key: str) -> dict[str, list[Row]]:
    """Group the rows by the value of one column, in order of first appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row.get(key)), []).append(row)
    return groups


def with_servers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with ``server`` as a text, if they are of several."""
    texts = [server_text(row["server_kind"], row["server_address"], row["api"]) for row in rows]
    if len(set(texts)) < 2:
        return rows
    return [{**row, "server": server} for row, server in zip(rows, texts, strict=True)]


def to_json(rows: Sequence[Row], total_s: float) -> dict[str, Any]:
    """Return the summary as JSON values: shares from 0 to 1, seconds, instants in ISO 8601, null if unknown.

    ``structbench_version``, ``total_s``, ``runs`` (one object a run, RUN_KEYS and what else the view has), and the
    pooled figures ``by_model``, ``by_suite``, ``by_server`` (lists; the last empty for one server) and ``all``.
    """
    return {
        "structbench_version": __version__,
        "total_s": json_value(total_s),
        "runs": [_run(row) for row in rows],
        "by_model": [{"model": name, **pooled(group)} for name, group in grouped(rows, "model").items()],
        "by_suite": [{"suite": name, **pooled(group)} for name, group in grouped(rows, "suite").items()],
        "by_server": [{"server": name, **pooled(group)} for name, group in grouped(rows, "server").items()]
        if any(row.get("server") for row in rows)
        else [],
        "all": pooled(rows),
    }


def _run(row: Row) -> dict[str, Any]:
    known = {key: json_value(row.get(key)) for key in RUN_KEYS}
    known |= {"warnings": known["warnings"] or [], "notes": [asdict(note) for note in row.get("notes") or ()],
              "failures": [asdict(failure) for failure in row.get("failures") or ()]}  # fmt: skip
    return {**known, **{key: json_value(value) for key, value in row.items() if key not in known}}


class Column(NamedTuple):
    header: str
    text_of: Callable[[Row], str]
    style: Callable[[Row], str] | None = None
    right: bool = True


ColumnGroup = tuple[Column, ...]


def _column(header: str, key: str, write: Callable[[float | None], str]) -> Column:
    return Column(header, lambda row: write(number(row, key)))


def _requests(row: Row) -> str:
    done, planned = number(row, "requests"), number(row, "planned")
    if done is None or row.get("status") in (None, "complete"):
        return ABSENT if done is None else f"{done:.0f}"
    return f"{done:.0f}*" if planned is None else f"{done:.0f}/{planned:.0f}*"


_COUNTS: ColumnGroup = (
    Column("requests", _requests, lambda row: "yellow" if "*" in _requests(row) else ""),
    Column("errors", partial(text, key="errors"), lambda row: "red" if number(row, "errors") else ""),
)


def _is_shown(metric: Metric, rows: Iterable[Row]) -> bool:
    """Return whether any run has what this metric shows beyond the others."""
    return not metric.only_where or any(number(row, metric.only_where) for row in rows)


def _speed(rows: Sequence[Row]) -> list[ColumnGroup]:
    """Return the speed columns, from the first token to the whole answer."""
    groups = [
        tuple(_column(f"{metric.header}\n{p}", f"{metric.name}_{p}_s", latency_text) for p in metric.shown)
        for metric in LATENCIES.values()
        if metric.shown and _is_shown(metric, rows)
    ]
    stream = _column("tok/s\nstream", "stream_tokens_per_s", rate_text)
    every = _column("tok/s\nall", "tokens_per_s", rate_text)
    return [*groups[:-1], (stream, every), groups[-1]]


def _scores(rows: Sequence[Row]) -> ColumnGroup:
    shown = [metric for metric in (*_POOLED_SHARES, *of_kind("score")) if _is_shown(metric, rows)]
    return tuple(
        _column(metric.header, metric.name, share_text if metric.kind == "share" else metric.text) for metric in shown
    )


def _verdict_columns(marks: Mapping[str, int], rows: Sequence[Row]) -> ColumnGroup:
    """Return the columns for the verdict and, after a load, the cache state; marks number the reasons of verdicts."""

    def verdict(row: Row) -> str:
        mark = marks.get(text(row, "verdict_reason"))
        return text(row, "verdict") if mark is None else f"{text(row, 'verdict')} ({mark})"

    return (
        _column("correct\nper s", "correct_goodput", rate_text),
        *([Column("cache", partial(text, key="cache"), right=False)] if any("cache" in row for row in rows) else []),
        Column("verdict", verdict, lambda row: _STYLES.get(str(row.get("verdict")), ""), right=False),
    )


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Print one row per run: in one table if the console is wide enough, else in one for speed and one for answers."""
    if not rows:
        console.print("No runs.")
        return
    reasons = dict.fromkeys(text(row, "verdict_reason") for row in rows if row.get("verdict_reason"))
    marks = {reason: mark for mark, reason in enumerate(reasons, 1)}
    standing = _verdict_columns(marks, rows)
    keys = ("model", "suite", "load", *(["server"] if any(row.get("server") for row in rows) else []))
    names = tuple(Column(key, partial(_name, key=key), right=False) for key in keys)
    wide = [names, _COUNTS, *_speed(rows), _scores(rows), standing]
    gap = _gap(wide, rows, console.width)
    if gap:
        console.print(_table(wide, rows, console.width, gap), "")
    else:
        name = Column("cell", cell_name, right=False)
        print_parts("Speed", name, _speed(rows), rows, console)
        print_parts("Answers", name, (_COUNTS, _scores(rows), standing), rows, console)
    print_failures(rows, console)
    notes = [as_text(*note) for note in notes_of(rows, marks)]
    if notes:
        console.print(*notes, "", sep="\n")


MOST_FAILURES = 5
"""Kinds of failures shown of one run."""


def print_failures(rows: Sequence[Row], console: Console) -> None:
    """Print how requests failed: kind, how many, and what the first one said."""
    lines = [
        f"  {failure.count:,} × {printable(failure.text)}{_of(row, 1, len(rows))}"
        for row in rows
        for failure in (row.get("failures") or ())[:MOST_FAILURES]
    ]
    if lines:
        console.print(as_text("Errors", "bold cyan"), *map(as_text, lines), "", sep="\n")


def print_parts(title: str, name: Column, groups: Iterable[ColumnGroup], rows: Sequence[Row], console: Console) -> None:
    for part in _parts(name, groups, rows, console.width):
        gap = _gap(part, rows, console.width) or 1
        console.print(as_text(title, "bold cyan"), _table(part, rows, console.width, gap), "", sep="\n")


def _parts(name: Column, groups: Iterable[ColumnGroup], rows: Sequence[Row], room: int) -> Iterator[list[ColumnGroup]]:
    """Yield the groups in as few tables as the width allows, each starting with the name."""
    part: list[ColumnGroup] = [(name,)]
    for group in groups:
        if len(part) > 1 and not _gap([*part, group], rows, room):
            yield part
            part = [(name,)]
        part.append(group)
    yield part


def _widths(groups: Iterable[ColumnGroup], rows: Iterable[Row]) -> list[int]:
    from rich.cells import cell_len

    return [
        max(cell_len(line) for line in (*column.header.split("\n"), *(column.text_of(row) for row in rows)))
        for group in groups
        for column in group
    ]


def _gap(groups: Iterable[ColumnGroup], rows: Sequence[Row], room: int) -> int:
    """Return the spaces between columns, 2 or 1, with which the table fits, else 0; the first column may fold."""
    first, *others = _widths(groups, rows)
    for gap, least in MIN_NAME_WIDTHS.items():
        if min(first, least) + sum(others) + gap * len(others) <= room:
            return gap
    return 0


def _table(groups: Sequence[ColumnGroup], rows: Sequence[Row], room: int, gap: int) -> Table:
    table = simple_table(gap - 1)
    columns = [column for group in groups for column in group]
    first, *others = _widths(groups, rows)
    first = min(first, max(MIN_NAME_WIDTHS[gap], room - sum(others) - gap * len(others)))
    lines = max(column.header.count("\n") for column in columns)
    for column, width in zip(columns, (first, *others), strict=True):
        header = "\n" * (lines - column.header.count("\n")) + column.header
        table.add_column(header, width=width, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(as_text(column.text_of(row), column.style(row) if column.style else "") for column in columns))
    return table


def as_text(shown: str, style: str = "") -> Text:
    """Return literal text, since text from outside may look like markup, or drive the terminal."""
    from rich.text import Text

    return Text(printable_lines(shown), style=style)


def notes_of(rows: Sequence[Row], marks: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield the notes below the table and their styles: interruptions, verdicts, notes (each kind once), warnings."""
    unfinished = {row.get("status") for row in rows if "*" in _requests(row)}
    if "running" in unfinished:
        yield "* still running", "yellow"
    if unfinished - {"running"}:
        yield "* interrupted: run the same command with --skip-cached to continue", "yellow"
    for reason, mark in marks.items():
        yield f"({mark}) {reason}", ""
    unsteady = [row for row in rows if number(row, "steady") and row["steady"] < (number(row, "requests") or 0)]
    if unsteady:
        row = unsteady[0]
        more = f"; {len(unsteady) - 1} more likewise" if len(unsteady) > 1 else ""
        steady = f"{row['steady']:,} of {row['requests']:,} requests are steady, and latencies and rates of those"
        yield f"{steady}{_of(row, 1, len(rows))}{more}", ""
    told: dict[str, list[tuple[Note, Row]]] = {}
    for row in rows:
        for note in row.get("notes") or ():
            told.setdefault(note.kind, []).append((note, row))
    for found in told.values():
        note, row = max(found, key=lambda each: each[0].share or 0.0)
        yield f"note: {printable(note.text)}{_of(row, len(found), len(rows))}", ""
    warned: dict[str, list[Row]] = {}
    for row in rows:
        for warning in dict.fromkeys(row.get("warnings") or ()):
            warned.setdefault(printable(str(warning)), []).append(row)
    for warning, those in warned.items():
        yield f"warning: {warning}{_of(those[0], len(those), len(rows))}", "yellow"


def _of(row: Row, concerned: int, runs: int) -> str:
    """Return which runs a note is on, if there are others: `` (m json c=4, and 2 more)``."""
    return f" ({cell_name(row)}{f' and {concerned - 1} more' if concerned > 1 else ''})" if runs > 1 else ""


def _pooled_column(header: str, key: str) -> Column:
    return Column(header, lambda row: share_text(number(row, key)) if "requests" in row else "")


_POOLED: tuple[ColumnGroup, ...] = (
    (
        Column("requests", lambda row: f"{row['requests']:,}" if "requests" in row else ""),
        _pooled_column("completed", "completed_share"),
        _pooled_column("correct", "correct_share"),
    ),
    tuple(_pooled_column(metric.header, metric.name) for metric in _POOLED_SHARES),
)


def print_overview(rows: Sequence[Row], console: Console) -> None:
    """Print success rates by model and by suite if there are several runs."""
    if len(rows) > 1:
        lines: list[Row] = []
        for heading, key in {"by model": "model", "by suite": "suite", "by server": "server"}.items():
            if key == "server" and not any(row.get(key) for row in rows):
                continue
            lines.append({"name": heading})
            lines += [{"name": f"  {name}", **pooled(group)} for name, group in grouped(rows, key).items()]
        lines.append({"name": "all", **pooled(rows)})
        print_parts("Success rates", Column("", lambda row: text(row, "name"), right=False), _POOLED, lines, console)


def runs_text(rows: Sequence[Row], total_s: float) -> str:
    """Return how many runs there were, and the total time: ``3 runs (2 new, 1 skipped) in 44 s``."""
    states = [str(row.get("cache")) for row in rows]
    known = [f"{states.count(state)} {state}" for state in ("new", "resumed", "skipped") if state in states]
    return plural(len(rows), "run") + (f" ({', '.join(known)})" if known else "") + f" in {span_text(total_s)}"

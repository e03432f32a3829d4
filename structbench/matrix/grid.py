"""The feature matrix as people read it: a grid for each model, and what differs between two sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from structbench.formatting import identity_text, plural, printable, simple_table
from structbench.matrix.client import PLACES
from structbench.matrix.sides import server_of

Row = Mapping[str, Any]

_STYLES = {"works": "green", "refused": "yellow", "ignored": "magenta", "broken": "red", "unclear": "dim"}


def print_grid(rows: Sequence[Row], console: Console) -> None:
    """Print the questions down and the endpoints across; ``rows`` are those of one model on one server."""
    offered = [row for row in rows if row["result"] != "not offered"]
    seen: dict[str, str] = {}
    for row in offered:
        if row["result"] != "works":
            seen[row["evidence"]] = seen.get(row["evidence"]) or row["example"]
    marks = {evidence: _letter(number) for number, evidence in enumerate(seen)}
    found: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in offered:
        found.setdefault((row["question"], row["think"]), {}).setdefault(row["endpoint"], []).append(row)
    endpoints = dict.fromkeys(row["endpoint"] for row in offered)
    table = _table(["asked", "think", *endpoints], padding=0)
    for (question, think), by_endpoint in found.items():
        cells = (_cell(by_endpoint.get(endpoint, ()), marks) for endpoint in endpoints)
        table.add_row(*map(_text, (question, "" if think == "unset" else think)), *cells)
    console.print(_text(_title(rows[0]), "bold cyan"), table, sep="\n")
    for evidence, letter in marks.items():
        example = f", e.g. {seen[evidence]}" if seen[evidence] else ""
        console.print(_text(f"({letter}) {evidence}{example}"))
    for endpoint in dict.fromkeys(row["endpoint"] for row in rows if row["endpoint"] not in endpoints):
        console.print(f"The server does not offer {PLACES[endpoint].path}.")
    console.print()


def _title(row: Row) -> str:
    identity = identity_text(row["model_digest"])
    return f"{row['model']}{f' ({identity})' if identity else ''} on {server_of(row)} at {row['server_address']}"


def _letter(number: int) -> str:
    """Return a to z, then aa to zz: narrow, so that a grid fits into 80 columns."""
    return ascii_lowercase[number % 26] * (number // 26 + 1)


def _table(headers: Sequence[str], padding: int = 1) -> Table:
    table = simple_table(padding)
    for header in headers:
        table.add_column(Text("\n").join(map(_text, header.split("\n"))), overflow="fold")
    return table


def _text(words: str, style: str = "") -> Text:
    """Return literal text: what a server or another's file says may look like markup, or drive the terminal."""
    return Text(printable(words), style)


def _cell(rows: Sequence[Row], marks: Mapping[str, str]) -> Text:
    """Return one word if streamed and whole are alike, else a line for each."""
    if not rows:
        return Text("–")
    words = [row["result"] + (f" {marks[row['evidence']]}" if row["result"] != "works" else "") for row in rows]
    if len(set(words)) == 1:
        return _text(words[0], _STYLES.get(rows[0]["result"], ""))
    lines = [
        _text(f"{'stream' if row['stream'] else 'whole'}: {word}", _STYLES.get(row["result"], ""))
        for row, word in zip(rows, words, strict=True)
    ]
    return Text("\n").join(lines)


def print_changes(
    names: Sequence[str], changes: Sequence[tuple[tuple[str, str], Row, Row]], both: int, console: Console
) -> None:
    """Print a line for each probe that shows something else on the two sides."""
    if changes:
        table = _table(["probe", *names])
        for (model, probe), before, after in changes:
            table.add_row(_text(f"{model} {probe}".strip()), _told(before), _told(after))
        console.print(table, "")
    for model, digests in _digests(changes).items():
        console.print(_text(f"{model} is not the same on both sides: {' and '.join(digests)}", "yellow"))
    console.print(f"{len(changes)} of {plural(both, 'probe')} that both sides tried differ.")


def _told(row: Row) -> Text:
    words = (row["result"], row["evidence"], row["example"])
    return _text(": ".join(filter(None, words)), _STYLES.get(row["result"], ""))


def _digests(changes: Sequence[tuple[tuple[str, str], Row, Row]]) -> dict[str, tuple[str, str]]:
    """Return the identities of models that have the same name on both sides and are not the same."""
    return {
        before["model"]: (identity_text(before["model_digest"]), identity_text(after["model_digest"]))
        for _, before, after in changes
        if before["model"] == after["model"] and before["model_digest"] != after["model_digest"]
    }

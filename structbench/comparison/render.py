"""Renders a comparison: a table per pair on the terminal or as Markdown, and everything as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.console import Console
from rich.text import Text

from structbench import __version__
from structbench.comparison.comparison import Comparison, Result, change_text, interval_text
from structbench.comparison.pairing import SEVERAL
from structbench.comparison.samples import Compared
from structbench.comparison.significance import MIN_RUNS, RESAMPLES
from structbench.formatting import (
    ABSENT,
    markdown_text,
    place_text,
    plural,
    printable,
    printed,
    simple_table,
    version_text,
)
from structbench.results.groups import RunGroup

HEADERS = ("metric", "A", "B", "B - A", "95 % interval", "p", "B is")
_STYLES = {"better": "green", "worse": "red", "not comparable": "yellow", "too few": "yellow"}


def _cells(row: Compared) -> tuple[str, ...]:
    p = ABSENT if row.adjusted_p is None else "<0.001" if row.adjusted_p < 0.001 else f"{row.adjusted_p:.3f}"
    word = f"{row.word}: {row.why}" if row.untested and row.why else row.word
    values = row.metric.text(row.a), row.metric.text(row.b)
    return row.metric.name, *values, change_text(row), interval_text(row), p, word


def _rows_with_figures(comparison: Comparison) -> list[Compared]:
    """Return the rows without metrics that neither cell has."""
    return [row for row in comparison.rows if row.a is not None or row.b is not None]


def answer(comparison: Comparison) -> str:
    """Return what the pair shows, in a sentence: in what B is better, in what worse, and how much is open."""
    name, rows = comparison.pair.name, _rows_with_figures(comparison)
    if comparison.pair.blocking:
        return f"{name}: A and B are not comparable."
    named = {word: [f"{row.metric.name} ({change_text(row)})" for row in rows if row.word == word]
             for word in ("better", "worse")}  # fmt: skip
    found = [f"{word} in {', '.join(metrics)}" for word, metrics in named.items() if metrics]
    same, few = (sum(row.word == word for row in rows) for word in ("no detectable difference", "too few"))
    rest = [f"no difference was detected in {same} metrics"] if same else []
    rest += [f"{few} need more requests"] if few else []
    said = " and ".join(found) or "neither better nor worse in anything that these requests show"
    return f"{name}: B is {said}{'; ' if rest else ''}{', '.join(rest)}."


def _group_text(group: RunGroup) -> str:
    runs = group.run_ids[0] if len(group.run_ids) == 1 else plural(len(group.run_ids), "run")
    labels = f", {', '.join(group.labels)}" if group.labels else ""
    marks = f" [{', '.join(group.marks)}]" if group.marks else ""
    server = version_text(group.server_kind, group.server_version, group.api)
    by = f" by {group.api}" if group.api not in (None, "ollama") else ""
    where = place_text(group.config.get("server_address"))
    return printable(f"{group.model} {group.suite} {group.load}, {server}{by} at {where} ({runs}{labels}){marks}")


def _remarks(comparison: Comparison) -> Iterator[str]:
    """Yield the remarks below a pair's table."""
    pair = comparison.pair
    if pair.blocking:
        yield f"not comparable: {'; '.join(pair.blocking)}"
        fields = dict.fromkeys(text.split(":")[0].split(".")[0] for text in pair.blocking if text != SEVERAL)
        if fields:
            yield f"to compare anyway, add --across {' '.join(fields)}"
    else:
        yield f"differs in {'; '.join(pair.changed)}" if pair.changed else "the same config on both sides"
    yield from comparison.notes
    counts = dict.fromkeys(
        f"n = {row.n_a} and {row.n_b}" for row in _rows_with_figures(comparison) if row.difference is not None
    )
    methods = dict.fromkeys(row.difference.method for row in comparison.rows if row.difference is not None)
    if methods:
        yield f"methods: {', '.join(methods)} ({', '.join(counts)})"
    yield from dict.fromkeys(f"{r.metric.name}: {r.why}" for r in comparison.rows if r.difference is not None and r.why)


def _footer(result: Result) -> Iterator[str]:
    """Yield the remarks on all pairs, and the cells without a counterpart."""
    for side, groups in (("A", result.pairing.only_a), ("B", result.pairing.only_b)):
        for group in groups:
            yield f"only in {side}: {_group_text(group)}"
    sizes = [f"{plural(result.tested, 'test')} together"] if result.tested else []
    sizes += [f"the {plural(result.gated, 'test')} named by --fail-on together"] if result.gated else []
    if sizes:
        yield (
            f'p-values are adjusted by Holm\'s method for {", and ".join(sizes)}: the chance that any "better" or '
            f'"worse" is false is at most 5 %. Each interval is 95 % on its own, from {RESAMPLES} seeded resamples.'
        )
        if any(min(len(each.pair.a.run_ids), len(each.pair.b.run_ids)) < MIN_RUNS for each in result.comparisons):
            yield (
                "How much one run differs from the next is not known here, so these results hold for the requests of "
                f"these runs: from {MIN_RUNS} runs on each side on, the run is the unit."
            )


def print_comparison(result: Result, console: Console) -> None:
    """Print the comparison on the terminal."""

    def say(text: str, style: str = "") -> None:
        console.print(Text(printable(text), style=style))

    for comparison in result.comparisons:
        say(comparison.pair.name, "bold cyan")
        say(f"A: {_group_text(comparison.pair.a)}")
        say(f"B: {_group_text(comparison.pair.b)}")
        rows = _rows_with_figures(comparison)
        if rows:
            gap = 0 if console.width < 100 else 1
            table = simple_table(gap)
            for number, header in enumerate(HEADERS):
                last = number in (0, len(HEADERS) - 1)
                table.add_column(header, justify="left" if last else "right", no_wrap=number == 0, overflow="fold")
            for row in rows:
                table.add_row(
                    *(Text(printable(cell)) for cell in _cells(row)[:-1]),
                    Text(printable(_cells(row)[-1]), _STYLES.get(row.word, "")),
                )
            console.print(table)
        for remark in _remarks(comparison):
            say(remark)
        console.print()
    for text in _footer(result):
        say(text)
    for comparison in result.comparisons:
        say(answer(comparison), "bold")
    for gate in result.gates:
        say(gate.line)


def text_of(result: Result) -> str:
    """Return what ``print_comparison`` prints, 120 columns wide."""
    return printed(partial(print_comparison, result), 120)


def markdown(result: Result) -> str:
    """Return the comparison as Markdown."""
    lines = ["# Comparison", ""]
    for comparison in result.comparisons:
        lines += [f"## {markdown_text(comparison.pair.name)}", ""]
        lines += [f"**{markdown_text(answer(comparison))}**", ""]
        lines += [f"- A: {markdown_text(_group_text(comparison.pair.a))}"]
        lines += [f"- B: {markdown_text(_group_text(comparison.pair.b))}"]
        lines += ["", *_table(_cells(row) for row in _rows_with_figures(comparison)), ""]
        lines += [*(f"- {markdown_text(remark)}" for remark in _remarks(comparison)), ""]
    lines += [markdown_text(text) + "\n" for text in _footer(result)]
    if result.gates:
        lines += ["## Gates", "", *(f"- {markdown_text(gate.line)}" for gate in result.gates), ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    body = [f"| {' | '.join(markdown_text(cell) for cell in row)} |" for row in rows]
    if body:
        yield f"| {' | '.join(HEADERS)} |"
        yield "| --- |" + " ---: |" * (len(HEADERS) - 2) + " --- |"
        yield from body


def to_json(result: Result) -> dict[str, Any]:
    """Return the comparison as JSON values: seconds, per second, shares of 1; null if absent."""
    return {
        "structbench_version": __version__,
        "pairs": [_pair_json(comparison) for comparison in result.comparisons],
        "only_a": [list(group.run_ids) for group in result.pairing.only_a],
        "only_b": [list(group.run_ids) for group in result.pairing.only_b],
        "tests": {"exploring": result.tested, "fail_on": result.gated, "adjusted_by": "Holm"},
        "fail_on": [asdict(gate) for gate in result.gates],
    }


def _group_json(group: RunGroup) -> dict[str, Any]:
    return {
        "runs": list(group.run_ids), "labels": list(group.labels), "marks": list(group.marks),
        "reasons": list(group.reasons), "config": dict(group.config),
    }  # fmt: skip


def _pair_json(comparison: Comparison) -> dict[str, Any]:
    pair = comparison.pair
    return {
        "name": pair.name,
        "answer": answer(comparison),
        "a": _group_json(pair.a),
        "b": _group_json(pair.b),
        "changed": list(pair.changed),
        "not_comparable": list(pair.blocking),
        "notes": list(comparison.notes),
        "metrics": [
            {"metric": row.metric.name, "a": row.a, "b": row.b, "n_a": row.n_a, "n_b": row.n_b, "b_is": row.word,
             "why": row.why, "adjusted_p": row.adjusted_p,
             **({} if row.difference is None else {
                 "difference": row.difference.value, "low": row.difference.low, "high": row.difference.high,
                 "p": row.difference.p_value, "method": row.difference.method})}
            for row in _rows_with_figures(comparison)
        ],
    }  # fmt: skip

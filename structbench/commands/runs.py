"""``structbench runs``: list the stored runs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from structbench.commands import print_json, print_table
from structbench.formatting import (
    ABSENT,
    json_object,
    machine_text,
    placement_text,
    plural,
    printable,
    server_text,
    share_text,
)
from structbench.options import RunFilters, opt

_COUNTS = ("parameters", "context", "slots")
_TOLD = ("server", "version", "API", "quantization", *_COUNTS, "model on", "client machine")


EXAMPLES = (
    "structbench runs --since 7d",
    "structbench runs nightly --status complete --wide",
)


@dataclass(kw_only=True)
class Options(RunFilters):
    """List the stored runs: model, suite, load, start, requests, status."""

    wide: bool = opt(
        False,
        "show the server too, what it tells of the model (quantization, size, context, slots, whether it is on a GPU), "
        "and the machine that measured",
    )
    json: bool = opt(False, "print JSON")


def run(options: Options) -> int:
    from structbench.notes import stored_notes
    from structbench.output import say
    from structbench.results.selection import filtered_runs
    from structbench.store import Reader
    from structbench.store.views import RUN_LIST

    with Reader(options.db) as reader:
        rows = reader.query(RUN_LIST, [filtered_runs(reader, options)])
        notes = stored_notes(reader.query, [row["run_id"] for row in rows])
    if options.json:
        print_json(
            [
                {
                    **row,
                    "environment": json_object(row["environment"]),
                    "notes": [asdict(note) for note in notes[row["run_id"]]],
                }
                for row in rows
            ]
        )
        return 0
    if rows:
        counts = ("requests", "errors", "correct")
        right = (*counts, *_COUNTS)
        names = ["run", "started (UTC)", "model", "suite", "load", *counts, "status", "verdict", "label"]
        cells = [_cells(row) for row in rows]
        if options.wide:
            names += _TOLD
            cells = [[*those, *_server_cells(row)] for those, row in zip(cells, rows, strict=True)]
        print_table([(name, name in right) for name in names], cells, [_line(row, options.wide) for row in rows])
    say(f"{plural(len(rows), 'run')} in {options.db}")
    return 0


def _cells(row: Mapping[str, Any]) -> list[str]:
    done, planned = row["requests"], row["planned"]
    started = row["started_at"]
    cells = [
        row["run_id"],
        ABSENT if started is None else f"{started:%Y-%m-%d %H:%M}",
        *(ABSENT if row[key] is None else row[key] for key in ("model", "suite", "load")),
        f"{done:,}" if planned in (None, done) else f"{done:,}/{planned:,}",
        f"{row['errors']:,}",
        share_text(row["correct"] / row["scored"] if row["scored"] else None),
        f"{row['status']}{' (forgotten)' if row['forgotten'] else ''}",
        row["verdict"] or ABSENT,
        row["label"] or "",
    ]
    return [printable(cell) for cell in cells]  # another's file that was imported may hold anything


def _server_cells(row: Mapping[str, Any]) -> list[str]:
    server = server_text(row["server_kind"], row["server_address"], None)
    counts = (row[name] for name in ("parameters", "context_tokens", "server_slots"))
    told = [server, row["server_version"], row["api"], row["quantization"]]
    cells = [*(ABSENT if value is None else value for value in told)]
    environment = json_object(row["environment"])
    return [
        *(printable(str(cell)) for cell in cells), *(ABSENT if n is None else f"{n:,}" for n in counts),
        placement_text(environment), machine_text(environment),
    ]  # fmt: skip


def _line(row: Mapping[str, Any], wide: bool) -> str:
    told = [f"{name} {cell}" for name, cell in zip(_TOLD, _server_cells(row), strict=True) if cell != ABSENT]
    return f"{run_line(row)}; {', '.join(told)}" if wide else run_line(row)


def run_line(row: Mapping[str, Any]) -> str:
    """Return a run as one line of text, short enough for a list."""
    run_id, started, model, suite, load, requests, _, _, status, _, label = _cells(row)
    line = f"{run_id}  {started}  {model} {suite} {load}, {requests} requests, {status}"
    return f"{line}, {label}" if label else line

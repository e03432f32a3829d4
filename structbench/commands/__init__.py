"""The commands, a module each: its ``Options`` (whose docstring is the help) and ``run(options) -> exit code``.

Invariant: a command module imports nothing heavy before ``run``, so that --help comes at once.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal


def complain(text: str) -> None:
    """One line on stderr, in the command's name."""
    print(f"structbench: {text}", file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """The value on stdout, for programs."""
    import json

    print(json.dumps(value, indent=2, default=_plain), flush=True)


def _plain(value: object) -> object:
    """What DuckDB has and JSON has not; the store's instants are UTC without saying so."""
    match value:
        case datetime():
            return (value.replace(tzinfo=UTC) if value.tzinfo is None else value).isoformat()
        case Decimal():
            return float(value)
    return str(value)


def print_table(columns: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]], lines: Sequence[str] = ()) -> None:
    """Rows under their headings (and whether these stand right); nothing folds.

    Where the terminal is too narrow: ``lines`` if there are any, else a line for each value.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal, endless = Console(), Console(width=100_000)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for heading, right in columns:
        table.add_column(Text(heading), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if not terminal.is_terminal or endless.measure(table).maximum <= terminal.width:
        endless.print(table)
        return
    width = max(len(heading) for heading, _ in columns)
    for line in lines:
        print(line)
    for row in [] if lines else rows:
        for (heading, _), cell in zip(columns, row, strict=True):
            print(f"{heading:<{width}}  {cell}")
        print()

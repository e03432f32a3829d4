"""The commands, one module each with ``Options`` (whose docstring is the help) and ``run(options) -> exit code``.

A command module imports nothing heavy before ``run``, so that --help is instant.
"""

import json
from collections.abc import Sequence

from structbench.formatting import printable, simple_table
from structbench.output import json_value


def print_json(value: object) -> None:
    """Print the value as JSON on stdout."""
    print(json.dumps(json_value(value), indent=2, default=str), flush=True)


def print_table(columns: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]], lines: Sequence[str] = ()) -> None:
    """Print rows under headings; each column is a heading and whether it is right-aligned. Nothing wraps.

    On a terminal that is too narrow, print ``lines`` instead, or without them a line for each value.
    """
    from rich.console import Console
    from rich.text import Text

    terminal, endless = Console(), Console(width=100_000)
    table = simple_table()
    for heading, right in columns:
        table.add_column(Text(printable(heading)), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    if not terminal.is_terminal or endless.measure(table).maximum <= terminal.width:
        endless.print(table)
        return
    width = max(len(heading) for heading, _ in columns)
    for line in lines:
        print(line)
    for row in [] if lines else rows:
        for (heading, _), cell in zip(columns, row, strict=True):
            print(f"{printable(heading):<{width}}  {printable(cell)}")
        print()

"""``structbench sql``: run one read-only statement, or open a prompt.

Invariant: what comes out of the file is shown as text and cannot drive the terminal.
"""

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional

from structbench.commands import print_json, print_table
from structbench.errors import StructbenchError
from structbench.formatting import ABSENT, plural, printable
from structbench.options import LONGEST_S, Readable, check_number, opt, seconds_of
from structbench.output import complain, deliver, spreadsheet_text

if TYPE_CHECKING:
    from structbench.store.database import QueryResult

MAX_ROWS = 200
"""Rows shown in a table; the other formats have all."""
_TABLES = "SELECT view_name AS name FROM duckdb_views() WHERE database_name = 'memory' AND NOT internal ORDER BY name"


EXAMPLES = ('structbench sql "SELECT model, suite, load, correct_goodput, ttft_p95_s FROM summary ORDER BY ALL"',)


@dataclass(kw_only=True)
class Options(Readable):
    """Query the results with SQL, read-only: one statement, or a prompt without one; docs/sql.md has examples."""

    statement: Optional[str] = opt(None, "one SQL statement (default: standard input, or a prompt)", args=["statement"])
    format: Literal["table", "csv", "json"] = opt("table", "output format")
    raw: bool = opt(False, "in CSV, write text that begins with = + - @ as it is: a spreadsheet takes it for a formula")
    timeout: float = opt(60.0, "stop a statement after this time", read=seconds_of, metavar="TIME")
    db: Path = opt(Path("structbench.duckdb"), "results database", type=Path)


def run(options: Options) -> int:
    from structbench.store import Reader

    with Reader(options.db):  # says what is wrong with the file, and merges what dead processes left
        pass
    if options.statement is None and sys.stdin.isatty():
        _prompt(options)
    else:
        _show(options, sys.stdin.read() if options.statement is None else options.statement)
    return 0


def _show(options: Options, sql: str) -> None:
    from structbench.store.database import ask

    check_number("--timeout", options.timeout, LONGEST_S)
    answer = ask(options.db, sql, MAX_ROWS if options.format == "table" else None, options.timeout)
    match options.format:
        case "json":
            print_json([dict(zip(answer.names, row, strict=True)) for row in answer.rows])
        case "csv":
            written = io.StringIO()
            writer = csv.writer(written, lineterminator="\n")
            rows = [answer.names, *answer.rows]
            writer.writerows(rows if options.raw else [map(spreadsheet_text, row) for row in rows])
            deliver(written.getvalue(), None)
        case "table":
            _print(answer)


def _print(answer: "QueryResult") -> None:
    columns = [(name, all(isinstance(row[i], int | float | None) for row in answer.rows))
               for i, name in enumerate(answer.names)]  # fmt: skip
    print_table(columns, [[_cell(value) for value in row] for row in answer.rows])
    more = "the first " if answer.more else ""
    print(f"{more}{plural(len(answer.rows), 'row')}{' (--format csv shows all)' if answer.more else ''}")


def _cell(value: Any) -> str:
    return ABSENT if value is None else printable(f"{value:.6g}" if isinstance(value, float) else str(value))


def _prompt(options: Options) -> None:
    """Read and run statements, each ended by a semicolon; after a mistake, print it and go on."""
    import readline  # noqa: F401  # gives input() its history and keys

    print("Read-only SQL. End each statement with ; — type .tables to list tables and views, Ctrl-D to quit.")
    for sql in _statements():
        try:
            _show(options, _TABLES if sql == ".tables" else sql)
        except StructbenchError as error:
            complain(str(error))
        except KeyboardInterrupt:
            print("interrupted")


def _statements() -> Iterator[str]:
    """Yield each statement typed at the prompt; Ctrl-C drops the one begun."""
    begun: list[str] = []
    while True:
        try:
            line = input("....> " if begun else "sql> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            begun = []
            continue
        begun += [line] if line.strip() or begun else []
        if line.strip() == ".tables" or line.rstrip().endswith(";"):
            yield "\n".join(begun).strip()
            begun = []

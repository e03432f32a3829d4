"""``structbench report``: write a report of stored runs, for people and programs."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from structbench.errors import GATE_FAILED, BadInput
from structbench.options import Readable, opt
from structbench.output import complain, say

if TYPE_CHECKING:
    from structbench.reports.document import Document


EXAMPLES = (
    "structbench report",
    "structbench report nightly -o report.html",
    'structbench report --slo "correct>=95%" "ttft_p95<=300ms"',
)


@dataclass(kw_only=True)
class Options(Readable):
    """Report stored runs on the terminal, as Markdown, as JSON, or as one HTML page that works offline."""

    runs: list[str] = opt(
        (),
        "run ids, labels, models, suites, servers, versions (default: all runs); see `structbench runs`",
        many=True,
        args=["runs"],
    )
    format: Optional[str] = opt(
        None, "terminal, markdown, json or html (default: from the file extension of --output, else terminal)", type=str
    )
    output: Optional[Path] = opt(None, "file to write (default: stdout)", type=Path, args=["-o", "--output"])
    db: Path = opt(Path("structbench.duckdb"), "results database", type=Path)
    pool: bool = opt(False, "pool the runs of one config into one row (default: one row per run)")
    wide: bool = opt(False, "terminal: print every figure with its interval, not one table and at most two screens")
    slo: list[str] = opt(
        (),
        'limits within which a model is correct and fast enough, e.g. "correct>=0.9" "ttft_p95<0.5"; if a run does not '
        "meet one, or that is not decided, the exit code is 99 (default: correct>=90% ttft_p95<=1s error_rate<=5%, "
        "without an exit code)",
        many=True,
        metavar="LIMIT",
    )


def run(options: Options) -> int:
    from rich.console import Console

    from structbench.output import check_output, deliver
    from structbench.reports.brief import print_answer, print_brief
    from structbench.reports.headline import settling
    from structbench.reports.terminal import print_document
    from structbench.reports.writing import FORMATS, text_of

    if options.output is not None:
        check_output(options.output, "-o", [options.db])
    kind = options.format or FORMATS.get(options.output.suffix.lower() if options.output else ".txt")
    if kind is None:
        raise BadInput(f"-o {options.output}: unknown file extension: add --format terminal|markdown|json|html")
    if kind not in FORMATS.values():
        raise BadInput(f"--format {kind}: give terminal, markdown, json or html")
    document = read(options, details=kind in ("json", "html"))
    if options.output is None and kind == "terminal" and options.wide:
        print_document(document, Console())
    elif options.output is None and kind == "terminal":
        console = Console()
        print_brief(document, console)
        print_answer(document, console)
        say(_as_page(options))
    else:
        deliver(text_of(document, kind), options.output)
    if options.output is not None:
        complain(f"wrote {options.output}")
    missed = [gate for gate in document.gates if gate.is_missed] if options.slo else []
    for gate in missed:
        complain(gate.line)
    for text in settling(each for one in document.headline.candidates for each in one.settles) if missed else ():
        complain(f"not decided: {text}")
    return GATE_FAILED if missed else 0


def _as_page(options: Options) -> str:
    """Return the command that writes the same report as a page."""
    words = [*options.runs, "-o", "report.html"]
    words += [] if options.db == Options.db else ["--db", str(options.db)]
    words += ["--slo", *options.slo] if options.slo else []
    return f"All figures as a page: {shlex.join(['structbench', 'report', *words])}"


def read(options: Options, *, details: bool) -> "Document":
    """Return the report that the options ask for; ``details``: with what only the page and JSON show."""
    from structbench.gates.slo import rule_of
    from structbench.reports.document import document_of
    from structbench.results.selection import select_runs
    from structbench.store import Reader

    rule = rule_of(options.slo)
    with Reader(options.db) as reader:
        return document_of(reader, select_runs(reader, options.runs), rule, pool=options.pool, details=details)

"""``structbench report``: write a report of stored runs, for people and programs."""

import json
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from structbench.errors import GATE_FAILED, BadInput
from structbench.options import opt
from structbench.output import complain

if TYPE_CHECKING:
    from structbench.reports.document import Document

_ENDINGS = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json", ".txt": "terminal"}


@dataclass(kw_only=True)
class Options:
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

    from structbench.gates.slo import DEFAULT_RULE
    from structbench.output import check_output, deliver
    from structbench.reports.document import document_of
    from structbench.reports.headline import parse_rule
    from structbench.reports.terminal import print_document
    from structbench.results.selection import select_runs
    from structbench.store import Reader

    if options.output is not None:
        check_output(options.output, "-o", [options.db])
    kind = options.format or _ENDINGS.get(options.output.suffix.lower() if options.output else ".txt")
    if kind is None:
        raise BadInput(f"-o {options.output}: unknown file extension: add --format terminal|markdown|json|html")
    if kind not in _ENDINGS.values():
        raise BadInput(f"--format {kind}: give terminal, markdown, json or html")
    rule = parse_rule(options.slo or DEFAULT_RULE)
    with Reader(options.db) as reader:
        chosen = select_runs(reader, options.runs)
        document = document_of(reader, chosen, rule, pool=options.pool, details=kind in ("json", "html"))
    if options.output is None and kind == "terminal":
        print_document(document, Console())
    else:
        deliver(_text(document, kind), options.output)
    if options.output is not None:
        complain(f"wrote {options.output}")
    missed = [gate for gate in document.gates if gate.is_missed] if options.slo else []
    for gate in missed:
        complain(gate.line)
    return GATE_FAILED if missed else 0


def _text(document: "Document", kind: str) -> str:
    match kind:
        case "json":
            from structbench.reports.document import to_json

            return json.dumps(to_json(document), indent=1, ensure_ascii=False) + "\n"
        case "markdown":
            from structbench.reports.markdown import to_markdown

            return to_markdown(document)
        case "html":
            from structbench.reports.html import to_html

            return to_html(document)
        case _:
            from rich.console import Console

            from structbench.reports.terminal import print_document

            text = StringIO()
            print_document(document, Console(file=text, width=160))
            return text.getvalue()

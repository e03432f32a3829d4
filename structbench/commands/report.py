"""``structbench report``: what is stored, for people and programs."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Optional

from structbench.errors import BadInput
from structbench.options import opt

if TYPE_CHECKING:
    from structbench.report.document import Document

_ENDINGS = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json", ".txt": "terminal"}


@dataclass(kw_only=True)
class Options:
    """Report what was measured: terminal, Markdown, JSON, or one HTML page that needs no network."""

    runs: list[str] = opt(
        (),
        "run ids, labels, models, suites, server versions (default: all runs); see `structbench runs`",
        many=True,
        args=["runs"],
    )
    format: Optional[Literal["terminal", "markdown", "json", "html"]] = opt(
        None, "terminal, markdown, json or html (default: what the ending of --output says, else terminal)", type=str
    )
    output: Optional[Path] = opt(None, "file to write (default: stdout)", type=Path, args=["-o", "--output"])
    db: Path = opt(Path("structbench.duckdb"), "file with the results", type=Path)
    pool: bool = opt(False, "pool the runs of one config into one line (default: each run is a line)")
    slo: list[str] = opt(
        (),
        'when a model is correct and fast enough, e.g. "correct>=0.9" "ttft_p95<0.5" '
        "(default: correct>=90% ttft_p95<=1s error_rate<=5%)",
        many=True,
        metavar="LIMIT",
    )


def run(options: Options) -> int:
    from structbench.report.document import document_of
    from structbench.report.headline import DEFAULT_RULE, parse_rule
    from structbench.selection import select_runs
    from structbench.store import Reader

    kind = options.format or _ENDINGS.get(options.output.suffix.lower() if options.output else ".txt", "")
    if kind not in _ENDINGS.values():
        raise BadInput(f"--format {kind or 'for ' + str(options.output)}: give terminal, markdown, json or html")
    if options.output is not None:
        _check_place(options.output, options.db)
    rule = parse_rule(options.slo or DEFAULT_RULE)
    with Reader(options.db) as reader:
        chosen = select_runs(reader, options.runs)
        document = document_of(reader, chosen, rule, pool=options.pool, details=kind in ("json", "html"))
    if kind == "terminal" and options.output is None:
        _print(document)
    else:
        _write(_text(document, kind), options.output)
    return 0


def _check_place(output: Path, db: Path) -> None:
    """Before the work: whether the file can be written, and that it is not the database itself."""
    folder = output.parent
    if output.is_dir():
        raise BadInput(f"-o {output} is a folder: name a file in it")
    if not folder.is_dir():
        raise BadInput(f"-o {output}: the folder {folder} does not exist: create it or name another file")
    if not os.access(output if output.exists() else folder, os.W_OK):
        raise BadInput(f"-o {output} cannot be written: change its permissions or name another file")
    if output.exists() and db.exists() and output.samefile(db):
        raise BadInput(f"-o {output} is the database itself: name another file")


def _print(document: "Document") -> None:
    from rich.console import Console

    from structbench.report.terminal import print_document

    print_document(document, Console())


def _text(document: "Document", kind: str) -> str:
    match kind:
        case "json":
            import json

            from structbench.report.document import to_json

            return json.dumps(to_json(document), indent=1, ensure_ascii=False) + "\n"
        case "markdown":
            from structbench.report.markdown import to_markdown

            return to_markdown(document)
        case "html":
            from structbench.report.html import to_html

            return to_html(document)
        case _:
            import io

            from rich.console import Console

            from structbench.report.terminal import print_document

            text = io.StringIO()
            print_document(document, Console(file=text, width=160))
            return text.getvalue()


def _write(text: str, output: Optional[Path]) -> None:
    """To the file whole or not at all, or to stdout."""
    if output is None:
        sys.stdout.write(text)
        return
    made = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        made.write_text(text, encoding="utf-8", errors="replace")
        made.replace(output)
    except OSError as error:
        made.unlink(missing_ok=True)
        raise BadInput(f"-o {output} cannot be written ({error.strerror}): name another file") from error
    print(f"{output}: {len(text.encode('utf-8', 'replace')) / 1e6:.1f} MB", file=sys.stderr)

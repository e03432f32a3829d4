"""A report as text, in each of its formats."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from structbench.errors import BadInput
from structbench.formatting import printed

if TYPE_CHECKING:
    from structbench.reports.document import Document

FORMATS = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json", ".txt": "terminal"}
"""File extension -> format."""
_WIDTH = 160


def format_of(path: Path) -> str:
    """Return the format that a file's extension names; BadInput if none."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise BadInput(f"{path}: unknown file extension: give {', '.join(FORMATS)}")
    return kind


def text_of(document: Document, kind: str) -> str:
    """Return the report as terminal text, markdown, json or html."""
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
            from structbench.reports.terminal import print_document

            return printed(partial(print_document, document), _WIDTH)

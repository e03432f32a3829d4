"""Results as a notebook shows them: data frames, and text in a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from structbench.errors import BadInput

if TYPE_CHECKING:
    import pandas


def frame(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Return the rows as a data frame; what is nested becomes columns such as ``ttft_s_p50_value``."""
    try:
        from pandas import json_normalize
    except ImportError:
        raise BadInput("data frames need pandas: pip install 'structbench[notebook]'") from None
    return json_normalize([dict(row) for row in rows], sep="_")


def as_html(text: str) -> str:
    """Return text of fixed width as HTML."""
    return f'<pre style="white-space: pre; overflow-x: auto">{escape(text)}</pre>'

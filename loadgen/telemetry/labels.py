"""The labels of series: the cell, and how a request failed.

Invariant: every value is from the plan or from a closed set of words; no text of a request or answer becomes a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from loadgen.telemetry.instruments import Labels
from loadgen.types import RequestError

LABEL_CHARACTERS = 100
_STATUSES = frozenset(HTTPStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellLabels:
    """The labels that identify the series of one cell."""

    model: str
    suite: str
    load: str
    """The load level as text, such as ``c=4`` or ``rate=2.5/s constant``."""
    server_address: str
    server_port: int
    operation: Literal["chat", "text_completion"] = "chat"
    """The GenAI conventions' word for what is asked for: an answer in a chat, or to a prompt."""
    provider: str = "ollama"
    """The conventions' word for the server's API."""
    label: str | None = None
    """The user's own name for the run."""


def own_attributes(cell: CellLabels) -> Labels:
    """Return the attributes that every instrument of a cell has."""
    label = {} if cell.label is None else {"structbench.label": sendable(cell.label[:LABEL_CHARACTERS])}
    return {
        "gen_ai.request.model": sendable(cell.model), "structbench.suite": sendable(cell.suite),
        "structbench.load": cell.load, **label,
    }  # fmt: skip


def sendable(text: str) -> str:
    """Return the text as valid UTF-8: lone surrogates, which would spoil a whole scrape or batch, become ``?``."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def genai_attributes(cell: CellLabels) -> Labels:
    """Return the cell's own attributes and those of the GenAI conventions."""
    return {
        **own_attributes(cell),
        "gen_ai.operation.name": cell.operation,
        "gen_ai.provider.name": cell.provider,
        "server.address": cell.server_address,
        "server.port": cell.server_port,
    }


def error_type(error: RequestError) -> str:
    """Return the HTTP status if that is what failed (as in the GenAI conventions), else the error kind.

    A non-standard status becomes its class, such as ``5xx``, so that no server can create series.
    """
    if error.kind != "http" or error.status is None:
        return error.kind
    return str(error.status) if error.status in _STATUSES else f"{error.status // 100 % 10}xx"

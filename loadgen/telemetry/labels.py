"""What series are told apart by: the cell, and how a request failed.

Invariant: every value is of the plan or of a closed set of words; nothing that a request or an answer says gets in.
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
    """What the series of one cell are told apart by."""

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
    """The attributes that every instrument of a cell has."""
    label = {} if cell.label is None else {"structbench.label": sendable(cell.label[:LABEL_CHARACTERS])}
    return {
        "gen_ai.request.model": sendable(cell.model), "structbench.suite": sendable(cell.suite),
        "structbench.load": cell.load, **label,
    }  # fmt: skip


def sendable(text: str) -> str:
    """The text as UTF-8 can carry it: half surrogate pairs, which would spoil a whole scrape or batch, become ``?``."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def genai_attributes(cell: CellLabels) -> Labels:
    """Those, and what the GenAI conventions ask for."""
    return {
        **own_attributes(cell),
        "gen_ai.operation.name": cell.operation,
        "gen_ai.provider.name": cell.provider,
        "server.address": cell.server_address,
        "server.port": cell.server_port,
    }


def error_type(error: RequestError) -> str:
    """The HTTP status where that is what failed (as the GenAI conventions say), else the error kind.

    A status that no standard knows is told by its class, such as ``5xx``, so that no server can invent series.
    """
    if error.kind != "http" or error.status is None:
        return error.kind
    return str(error.status) if error.status in _STATUSES else f"{error.status // 100 % 10}xx"

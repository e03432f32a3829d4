"""Two sides of the stored findings, and what differs between them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loadgen.api import DEFAULT_API
from loadgen.api.server import server_api
from structbench.errors import BadInput
from structbench.formatting import place_text

Row = Mapping[str, Any]
Side = Mapping[tuple[str, str], Row]
"""(model, or "" where models are compared; probe) -> the newest finding."""


def pick(rows: Sequence[Row], name: str) -> Side:
    """Return the findings of a server, a model, or ``model@server``; BadInput if there are none.

    A server is its kind (llama.cpp), its version or the beginning of one, both, or its address.
    """
    of_server = [row for row in rows if _is_server(row, name)]
    chosen = of_server or [row for row in rows if _is_model(row, name)]
    if not chosen and "@" in name:
        model, _, server = name.rpartition("@")
        chosen = [row for row in rows if _is_model(row, model) and _is_server(row, server)]
    if not chosen:
        servers = dict.fromkeys(server_of(row) for row in rows)
        models = dict.fromkeys(row["model"] for row in rows)
        known = f"there are {', '.join((*servers, *models))}" if rows else "there are none: run `structbench matrix`"
        raise BadInput(f"no findings of a server or model {name!r}: {known}")
    return {(_full_name(row) if of_server else "", row["probe"]): row for row in chosen}  # the newest comes last


def server_of(row: Row) -> str:
    """Return kind and version of the server of a finding, its address where it tells neither."""
    told = " ".join(filter(None, (row.get("server_kind"), row["server_version"])))
    return told or place_text(row.get("server_address"))


def paired(before: Side, after: Side) -> tuple[Side, Side]:
    """Return both sides by the same keys: by the probe alone where each side has one model, of another name."""
    if before.keys() & after.keys() or not all(len({model for model, _ in side}) == 1 for side in (before, after)):
        return before, after
    by_probe = [{("", probe): row for (_, probe), row in side.items()} for side in (before, after)]
    return by_probe[0], by_probe[1]


def changes(before: Mapping[Any, Row], after: Mapping[Any, Row]) -> Iterator[tuple[Any, Row, Row]]:
    """Yield by key what both tried and what differs: another result or HTTP status, or another reason for it."""
    for key, one in before.items():
        other = after.get(key)
        if other is not None and _shown(one) != _shown(other):
            yield key, one, other


def _shown(row: Row) -> tuple[Any, ...]:
    # How a refusal is worded names the model and changes with every version.
    return row["result"], row["status"], None if row["result"] == "refused" else row["evidence"]


def _is_server(row: Row, name: str) -> bool:
    version, kind, address = row["server_version"], row.get("server_kind"), row.get("server_address")
    of_kind = name.removeprefix(f"{kind} ") if kind else name
    return (
        name == kind
        or (bool(version) and (version == of_kind or version.startswith((f"{of_kind}-", f"{of_kind}."))))
        or (address is not None and place_text(name) == place_text(address))
    )  # fmt: skip


def _is_model(row: Row, name: str) -> bool:
    return _full_name(row) == server_api(DEFAULT_API).full_name(name)


def _full_name(row: Row) -> str:
    return server_api(DEFAULT_API).full_name(str(row["model"]))

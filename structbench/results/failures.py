"""How the requests of runs failed: by kind, how often, and what the first of each said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from structbench.metrics import FAILED

_FAILURES = f"""
SELECT run_id, error_kind AS kind, error_status AS status, count(*) AS count,
    arg_min(error_message, request_index) AS first
FROM requests WHERE run_id IN (SELECT unnest($1::VARCHAR[])) AND {FAILED}
GROUP BY ALL ORDER BY run_id, count DESC, kind, status
"""

Query = Callable[[str, Sequence[Any]], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Failure:
    """Requests of a run that the server or this client failed alike; ``first`` is the first one's message."""

    kind: str
    status: int | None
    count: int
    first: str | None

    @property
    def text(self) -> str:
        status = "" if self.status is None or self.kind != "http" else f" {self.status}"
        return f"{self.kind}{status}: {self.first}"


def failures_of(query: Query, run_ids: Sequence[str]) -> dict[str, list[Failure]]:
    """Return for each of these runs how its requests failed, the most frequent first."""
    found: dict[str, list[Failure]] = {run_id: [] for run_id in run_ids}
    for row in query(_FAILURES, [list(run_ids)]):
        found[row.pop("run_id")].append(Failure(**row))
    return found


def together(runs: Iterable[Sequence[Failure]]) -> list[Failure]:
    """Return the failures of several runs as those of one: the same kind and status are counted together."""
    found: dict[tuple[str, int | None], Failure] = {}
    for failure in (each for run in runs for each in run):
        known = found.setdefault((failure.kind, failure.status), replace(failure, count=0))
        found[failure.kind, failure.status] = replace(known, count=known.count + failure.count)
    return sorted(found.values(), key=lambda failure: -failure.count)

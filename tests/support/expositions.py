"""Expositions for the tests of ``watch``: the text that a load's endpoint would give, and scrapes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from structbench.watch.endpoint import CellKey, Scrape, parse
from structbench.watch.snapshot import CELLS, E2E, IN_FLIGHT, ITL, PLANNED, REQUESTS, SCRAPED, TOKENS, TTFT, VERDICT

URL = "http://127.0.0.1:9464/metrics"
CELL = CellKey("llama3.2:1b", "json", "c=4")
BOUNDS = (0.01, 0.11, 1.0, inf)


def labels(cell: CellKey, **more: str) -> str:
    given = {"gen_ai_request_model": cell.model, "structbench_suite": cell.suite, "structbench_load": cell.load, **more}
    if cell.label:
        given["structbench_label"] = cell.label
    pairs = (f'{name}="{value.translate({92: "//", 34: "", 10: ""})}"' for name, value in given.items())
    return "{" + ",".join(pairs) + "}"


def histogram(name: str, cell: CellKey, observed: Sequence[float]) -> list[str]:
    lines = [f"# TYPE {name} histogram"]
    for bound in BOUNDS:
        le = "+Inf" if bound == inf else str(bound)
        lines.append(f"{name}_bucket{labels(cell, le=le)} {sum(value <= bound for value in observed)}")
    return [*lines, f"{name}_count{labels(cell)} {len(observed)}", f"{name}_sum{labels(cell)} {sum(observed)}"]


def exposition(
    cell: CellKey = CELL,
    *,
    latencies: Sequence[float] = (),
    correct: int | None = None,
    errors: Mapping[str, int] | None = None,
    in_flight: int = 0,
    planned: int | None = None,
    verdict: int | None = None,
    uncounted: int = 0,
    rejected: int = 0,
    more: Mapping[str, float] | None = None,
) -> str:
    """One cell: each completed request took ``latencies`` to its first chunk, its gaps and its end, for 10 tokens."""
    right = len(latencies) if correct is None else correct
    lines = ["# HELP target_info Target metadata", "# TYPE target_info gauge", 'target_info{service_name="x"} 1']
    lines += [f"# TYPE {IN_FLIGHT} gauge", f"{IN_FLIGHT}{labels(cell)} {in_flight}"]
    if planned is not None:
        lines.append(f"{PLANNED}{labels(cell)} {planned}")
    for outcome, n in (("correct", right), ("wrong_value", len(latencies) - right), ("rejected", rejected)):
        if n:
            lines.append(f"{REQUESTS}{labels(cell, structbench_outcome=outcome)} {n}")
    for kind, n in (errors or {}).items():
        lines.append(f"{REQUESTS}{labels(cell, structbench_outcome=kind, error_type=kind)} {n}")
    if latencies:
        for name in (TTFT, ITL, E2E):
            lines += histogram(name, cell, latencies)
        known = len(latencies) - uncounted
        lines.append(f"{TOKENS}_sum{labels(cell, gen_ai_token_type='output')} {10 * known}")
        lines.append(f"{TOKENS}_count{labels(cell, gen_ai_token_type='output')} {known}")
    if verdict is not None:
        lines.append(f"{VERDICT}{labels(cell)} {verdict}")
    lines += [f"{name}{labels(cell)} {value}" for name, value in (more or {}).items()]
    lines.append(f'{CELLS}{{structbench_cell_state="running"}} 1')
    return "\n".join(lines) + "\n"


def scrape(at_s: float, *texts: str) -> Scrape:
    """What an endpoint with these cells says."""
    whole = Scrape(at_s)
    for text in texts:
        part = parse(text, URL, at_s, SCRAPED)
        whole.cells.update(part.cells)
        whole.rest.samples.update(part.rest.samples)
    return whole

"""The results of a load as JUnit XML: a test suite for each cell, a test case for its run and for each SLO.

Invariant: valid under the schema of Apache Ant's JUnit reports, whatever the names hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

from structbench.formatting import printable
from structbench.gates.slo import CellResult, doubt

Row = Mapping[str, Any]
_KINDS: Mapping[str, tuple[str, str]] = {
    "not met": ("failure", "SloFailed"), "not decided": ("error", "SloUndecided"), "skip": ("skipped", ""),
}  # fmt: skip
"""Outcome of a gate -> element and type; one that is met has none."""


def junit_xml(results: Iterable[CellResult], failures: Sequence[str] = ()) -> str:
    """Return the whole file; ``failures`` say why runs were abandoned, each starting with its cell. Times are UTC."""
    root = ElementTree.Element("testsuites")
    for number, result in enumerate(results):
        _suite(root, number, result, failures)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(root: ElementTree.Element, number: int, result: CellResult, failures: Sequence[str]) -> None:
    cell, row, gates = result.cell, result.row or {}, result.gates
    problem = _run_problem(cell, row, failures)
    outcomes = Counter(gate.outcome for gate in gates)
    started = row.get("started_at") or datetime.now(UTC)
    suite = ElementTree.SubElement(root, "testsuite", {
        "name": _one_line(cell), "package": "structbench", "id": str(number), "hostname": "localhost",
        "timestamp": f"{started:%Y-%m-%dT%H:%M:%S}", "time": _seconds(row), "tests": str(len(gates) + 1),
        "failures": str(outcomes["not met"]), "errors": str(outcomes["not decided"] + (problem is not None)),
        "skipped": str(outcomes["skip"]),
    })  # fmt: skip
    properties = ElementTree.SubElement(suite, "properties")
    for name in ("run_id", "config_hash", "verdict", "label"):
        if row.get(name) is not None:
            ElementTree.SubElement(properties, "property", {"name": name, "value": printable(str(row[name]))})
    _case(suite, cell, "run", _seconds(row), "error", problem, "RunNotComplete")
    for gate in gates:
        kind, error_type = _KINDS.get(gate.outcome, ("", ""))
        _case(suite, cell, gate.slo, "0", kind, gate.text if kind else None, error_type)
    lines = [f"run {row['run_id']}"] if row else []
    ElementTree.SubElement(suite, "system-out").text = "\n".join([*lines, *(gate.line for gate in gates)])
    ElementTree.SubElement(suite, "system-err").text = "" if problem is None else problem


def _case(
    suite: ElementTree.Element, cell: str, name: str, seconds: str, kind: str, message: str | None, error_type: str
) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", {"name": _one_line(name), "classname": f"structbench.{_one_line(cell)}", "time": seconds}
    )
    if message is not None:
        found = ElementTree.SubElement(case, kind, {"message": message, **({"type": error_type} if error_type else {})})
        found.text = message


def _run_problem(cell: str, row: Row, failures: Sequence[str]) -> str | None:
    """Return why there is no run to rely on, or None if there is one."""
    own = next((text for text in failures if text.startswith(f"{cell}: ")), None)
    why = own if own is not None else doubt(row) if row else "the cell was not run"
    return None if why is None else printable(why)


def _one_line(text: str) -> str:
    return " ".join(printable(text).split()) or "-"


def _seconds(row: Row) -> str:
    duration_s = row.get("duration_s")
    return "0" if duration_s is None else f"{duration_s:.3f}"

"""structbench: a load generator that also checks whether the answers are right.

``structbench.load(models="qwen3:4b", suites="json", …)`` does what the command ``structbench load`` does, with its
options as keywords; ``structbench.report()`` and ``structbench.compare(a, b)`` read what is stored. docs/python.md
has a tour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["CellProgress", "Comparison", "LoadOptions", "Report", "StructbenchError", "Summary", "__version__",
           "compare", "load", "report"]  # fmt: skip

if TYPE_CHECKING:
    from structbench.errors import StructbenchError
    from structbench.functions import Comparison, Report, compare, load, report
    from structbench.options import LoadOptions
    from structbench.run.progress import CellProgress
    from structbench.run.runner import Summary

_HOMES = {
    "CellProgress": "run.progress", "Comparison": "functions", "LoadOptions": "options", "Report": "functions",
    "StructbenchError": "errors", "Summary": "run.runner", "compare": "functions", "load": "functions",
    "report": "functions",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    # Late, so that `structbench --help` does not import what only a load needs.
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"structbench.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

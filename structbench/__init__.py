"""structbench: a load generator that also checks whether the answers are right.

``structbench.load(models=[…], suites=[…], …)`` does what the command ``structbench load`` does; its
keywords are the command's options (see ``structbench.LoadOptions``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["LoadOptions", "StructbenchError", "Summary", "__version__", "load"]

if TYPE_CHECKING:
    from structbench.errors import StructbenchError
    from structbench.options import LoadOptions
    from structbench.run.runner import Summary


def load(**options: Any) -> Summary:
    """Run a load and return its summary: a row per cell in ``rows``, every request from ``records()``.

    Raises BadInput (a StructbenchError) before anything is sent. Metrics are off unless ``metrics_port`` is given.
    """
    from structbench.options import LoadOptions
    from structbench.run.runner import load as run
    from structbench.run.settings import settings_of

    return run(settings_of(LoadOptions(**{"metrics_port": 0, **options})))


def __getattr__(name: str) -> Any:
    # Late, so that `structbench --help` does not import what only a load needs.
    from importlib import import_module

    homes = {"LoadOptions": "options", "StructbenchError": "errors", "Summary": "run.runner"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"structbench.{homes[name]}"), name)

"""What lets a process of ours start sooner: most of that time goes into imports."""

from __future__ import annotations

import gc
import sys

_THRESHOLDS = 10_000, 10, 100
"""After how many new objects Python looks at them, and how many such looks make one at older ones, then at all."""


def collect_rarely() -> None:
    """Look for garbage less often than Python does, after 700 objects: a tenth of the time of imports and records."""
    gc.set_threshold(*_THRESHOLDS)


def leave_out(*modules: str) -> None:
    """Let these modules look as if they were not installed to what imports them from now on."""
    for name in modules:
        sys.modules[name] = None  # type: ignore[assignment]

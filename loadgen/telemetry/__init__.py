"""Live metrics and spans of a load: on a port for Prometheus, and pushed to a collector; parent process only.

Invariant: what a request did not have is not observed (no zero stands for "absent"), and every label
comes from ``CellLabels`` or from a closed set of words, so the number of series is bounded by the plan.
OpenTelemetry is imported when a ``Telemetry`` is made: importing this package costs nothing.
"""

from loadgen.telemetry.core import CacheResult, CellState, Telemetry
from loadgen.telemetry.labels import CellLabels

__all__ = ["CacheResult", "CellLabels", "CellState", "Telemetry"]

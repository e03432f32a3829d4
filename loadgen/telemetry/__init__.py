"""Live metrics and spans of a load, served to Prometheus and pushed to a collector; in the parent process only.

Invariant: what a request lacks is not observed (no zero stands for "absent"), and every label comes from ``CellLabels``
or from a closed set of words, so the plan bounds the number of series. OpenTelemetry is imported when a ``Telemetry``
is created: importing this package costs nothing.
"""

from loadgen.telemetry.core import CacheResult, CellState, Telemetry
from loadgen.telemetry.instruments import CellLabels

__all__ = ["CacheResult", "CellLabels", "CellState", "Telemetry"]

"""Recording rules for the latencies in the table of metrics: percentiles of each cell, for dashboards and alerts."""

from __future__ import annotations

from collections.abc import Iterator

from grafana.queries import CELL, LATENCIES, REQUESTS, completed, recorded, shown_as
from loadgen.telemetry import instruments as of
from loadgen.telemetry.instruments import prometheus

_PERCENTS = (50, 95, 99)
_BY_CELL = f"sum by (le, {', '.join(CELL)})"
_HEAD = """\
# Written by `python -m grafana`. Percentiles of each cell over the last minute, interpolated between bucket bounds; the
# exact ones are in the database. A cell is a model, a suite and a load (and a label, where the load has one).
groups:
  - name: structbench-percentiles
    rules:
"""
_SHARES = f"""
  - name: structbench-shares
    rules:
      # Of all the cell's requests so far: a rate would miss errors that come in the first scrape of their series.
      - record: cell:errors:share
        expr: |
          (sum by ({", ".join(CELL)}) ({REQUESTS}{{error_type!=""}})
            or 0 * sum by ({", ".join(CELL)}) ({REQUESTS}))
          / sum by ({", ".join(CELL)}) ({REQUESTS})
"""


def percentiles() -> str:
    """Return the content of ``rules/percentiles.yml``."""
    return _HEAD + "".join(_rules()) + _SHARES


def _rules() -> Iterator[str]:
    for metric in LATENCIES:
        chosen = completed(metric)
        for percent in _PERCENTS:
            yield _rule(metric.name, percent, f"{shown_as(metric.name)}_bucket{f'{{{chosen}}}' if chosen else ''}")
    for name, lag in (("send_lag", of.SEND_LAG), ("read_lag", of.READ_LAG)):
        yield _rule(name, 99, f"{prometheus(lag)}_bucket")


def _rule(name: str, percent: int, buckets: str) -> str:
    return f"""\
      - record: {recorded(name, percent)}
        expr: |
          histogram_quantile({percent / 100:.2f}, {_BY_CELL} (
            rate({buckets}[1m])))
"""

"""Reports for people and programs: the table at the end of a load, and reports of stored runs.

Importing this package is cheap: each format imports what it needs when it is used. Neighbours: ``results`` reads the
figures, ``comparison`` presents two sides.
"""

from structbench.reports.summary import RUN_KEYS, pooled, print_overview, print_table, runs_text, to_json

__all__ = ["RUN_KEYS", "pooled", "print_overview", "print_table", "runs_text", "to_json"]

"""What people and programs read: the table at the end of a load, and the reports of what is stored.

Invariant: importing it costs nothing; each format imports what it needs when it is made.
"""

from structbench.reports.summary import RUN_KEYS, pooled, print_overview, print_table, to_json

__all__ = ["RUN_KEYS", "pooled", "print_overview", "print_table", "to_json"]

"""structbench: the load generator that also knows whether the answer was right."""

__version__ = "0.1.0"

"""Requests and time: a load generator for servers of language models that knows nothing of suites, scores or databases.

``generate_load(requests, load, …)`` yields one RequestRecord for each request, as they end.
"""

from loadgen.engine import LoadFailed, Orders, Readings, generate_load
from loadgen.types import ClosedLoop, Load, OpenLoop, Request, RequestError, RequestRecord, Timeouts

__all__ = [
    "ClosedLoop",
    "Load",
    "LoadFailed",
    "OpenLoop",
    "Orders",
    "Readings",
    "Request",
    "RequestError",
    "RequestRecord",
    "Timeouts",
    "generate_load",
]

"""Requests and time: a load generator for servers of language models that knows nothing of suites, scores or databases.

``generate_load(requests, load, …)`` yields one RequestRecord for each request, as they end.
"""

from loadgen.engine.local import Control, LoadFailed, generate_load
from loadgen.types import ClosedLoop, Load, OpenLoop, Request, RequestError, RequestRecord, Timeouts

__all__ = [
    "ClosedLoop",
    "Control",
    "Load",
    "LoadFailed",
    "OpenLoop",
    "Request",
    "RequestError",
    "RequestRecord",
    "Timeouts",
    "generate_load",
]

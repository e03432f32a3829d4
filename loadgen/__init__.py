"""A load generator for LLM servers: ``generate_load(requests, load, …)`` yields a RequestRecord for each request."""

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

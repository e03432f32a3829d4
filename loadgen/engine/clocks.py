"""From a worker's clock to the caller's. Pure.

Processes of one machine share their clock, and the offset is 0; a worker elsewhere is told its own.
"""

from __future__ import annotations

from dataclasses import replace

from loadgen.types import RequestRecord

_INSTANTS = (
    "due_ns", "sent_ns", "connected_ns", "first_thinking_ns", "first_answer_ns", "first_tool_call_ns", "end_ns"
)  # fmt: skip


def on_callers_clock(record: RequestRecord, offset_ns: int) -> RequestRecord:
    """Add the offset (caller's clock - worker's clock) to each instant; durations stay what they are."""
    if offset_ns == 0:
        return record
    instants = {name: at_ns + offset_ns for name in _INSTANTS if (at_ns := getattr(record, name)) is not None}
    return replace(record, chunk_ns=tuple(at_ns + offset_ns for at_ns in record.chunk_ns), **instants)

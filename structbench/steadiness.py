"""Which requests were sent while the load was the one asked for: after its opening, before its drain.

A closed loop opens with a wave of as many requests as are to be in flight; the wave is over when each of them has its
first chunk or has failed. An open loop opens on an empty server: for as long as its first answers take. The drain
begins with the last request that is sent on its own (a conversation's second turn is not). What is too short for a
steady part has none: then ``steady`` is NULL, and figures are of all requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

FEWEST = 10
"""A steady part has at least so many requests, and as many as a closed loop has in flight."""
FIRST_ANSWERS = 10
"""An open loop's opening lasts as long as the median of so many first answers."""

Row = Mapping[str, Any]
"""A row of ``requests``."""


def opening_size(concurrency: int | None) -> int:
    """Return how many first requests of a segment tell when its opening is over; None: an open loop."""
    return FIRST_ANSWERS if concurrency is None else concurrency


def opening_end_ns(concurrency: int | None, first: Sequence[Row]) -> int | None:
    """Return the instant at which the opening is over, from the ``opening_size`` requests that were due or sent first.

    None if it is never over: too few were sent, or (open loop) none of them was answered. With one request in flight
    there is no opening: the instant is the first one's.
    """
    asked = [asked_ns(row) for row in first]
    known = [each for each in asked if each is not None]
    if concurrency is None:
        took = [row["end_ns"] - at for row, at in zip(first, asked, strict=True)
                if at is not None and row["error_kind"] is None]  # fmt: skip
        return min(known) + round(median(took)) if took else None
    if len(known) < concurrency:
        return None
    return min(known) if concurrency == 1 else max(_first_sign_ns(row) for row in first)


def asked_ns(row: Row) -> int | None:
    """Return when the request was due, or sent in a closed loop; None if it was neither."""
    at: int | None = row["sent_ns"] if row["due_ns"] is None else row["due_ns"]
    return at


def _first_sign_ns(row: Row) -> int:
    """Return when the first chunk came, else when the request ended."""
    if row["ttft_s"] is None or row["sent_ns"] is None:
        return row["end_ns"] or 0
    return int(row["sent_ns"] + round(row["ttft_s"] * 1e9))


def steady_rows(concurrency: int | None, rows: Sequence[Row]) -> list[bool | None]:
    """Return for each row whether it is of the steady part of its segment, as the store marks a run that has ended."""
    if concurrency == 1:
        return [True] * len(rows)
    by_segment: dict[int, list[Row]] = {}
    for row in rows:
        if asked_ns(row) is not None:
            by_segment.setdefault(row["segment"], []).append(row)
    spans = {number: span for number, own in by_segment.items() if (span := _span_ns(concurrency, own)) is not None}
    if not spans:
        return [None] * len(rows)
    found: list[bool | None] = []
    for row in rows:
        at, span = asked_ns(row), spans.get(row["segment"])
        found.append(at is not None and span is not None and span[0] < at <= span[1])
    return found


def _span_ns(concurrency: int | None, rows: Sequence[Row]) -> tuple[int, int] | None:
    """Return after which instant, and up to which, a segment's requests are steady; None if too few are."""
    asked = [(at, row) for row in rows if (at := asked_ns(row)) is not None]
    asked.sort(key=lambda each: each[0])
    from_ns = opening_end_ns(concurrency, [row for _, row in asked[: opening_size(concurrency)]])
    to_ns = max((at for at, row in asked if row["turn"] != 2), default=None)
    if from_ns is None or to_ns is None:
        return None
    steady = sum(from_ns < at <= to_ns for at, _ in asked)
    is_long = concurrency is not None or to_ns - from_ns >= from_ns - asked[0][0]
    return (from_ns, to_ns) if steady >= max(FEWEST, concurrency or 0) and is_long else None

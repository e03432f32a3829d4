"""The best one-to-one assignment (Hungarian method), for tool calls that may come in any order.

Invariant: no other assignment has a greater total weight; equal ones are decided by the input's order alone.
"""

from __future__ import annotations

from collections.abc import Sequence


def best_assignment(weights: Sequence[Sequence[int]]) -> list[int | None]:
    """For each row its column, or None: as many pairs as rows and columns allow, of the greatest total weight."""
    rows = len(weights)
    columns = len(weights[0]) if rows else 0
    if rows <= columns:
        return list(_assign([[-weight for weight in row] for row in weights], columns))
    turned = _assign([[-weights[row][column] for row in range(rows)] for column in range(columns)], rows)
    by_row: list[int | None] = [None] * rows
    for column, row in enumerate(turned):
        by_row[row] = column
    return by_row


def _assign(costs: list[list[int]], columns: int) -> list[int]:
    """Least-cost columns for all rows, rows <= columns, by one shortest augmenting path a row: O(rows² · columns)."""
    row_price = [0] * len(costs)
    column_price = [0] * columns
    owner: list[int | None] = [None] * columns
    for row in range(len(costs)):
        _augment(row, costs, row_price, column_price, owner)
    result = [0] * len(costs)
    for column, row_of in enumerate(owner):
        if row_of is not None:
            result[row_of] = column
    return result


def _augment(
    start: int, costs: list[list[int]], row_price: list[int], column_price: list[int], owner: list[int | None]
) -> None:
    """Give row ``start`` a column along the cheapest chain of changes, and keep the prices tight."""
    columns = len(owner)
    distance: list[int | None] = [None] * columns
    reached_from: list[int | None] = [None] * columns
    unsettled = list(range(columns))
    settled: list[tuple[int, int]] = []
    row, at, last = start, 0, None
    while True:
        for column in unsettled:
            reduced = at + costs[row][column] - row_price[row] - column_price[column]
            known = distance[column]
            if known is None or reduced < known:
                distance[column], reached_from[column] = reduced, last
        nearest = min(unsettled, key=lambda column: distance[column] or 0)
        at = distance[nearest] or 0
        unsettled.remove(nearest)
        next_row = owner[nearest]
        last = nearest
        if next_row is None:
            break
        settled.append((nearest, next_row))
        row = next_row
    row_price[start] += at
    for column, row_of in settled:
        change = at - (distance[column] or 0)
        row_price[row_of] += change
        column_price[column] -= change
    _shift(start, last, reached_from, owner)


def _shift(start: int, column: int, reached_from: list[int | None], owner: list[int | None]) -> None:
    """Walk the chain back: each column takes the row of the column before it, the first one ``start``."""
    at: int = column
    while (before := reached_from[at]) is not None:
        owner[at] = owner[before]
        at = before
    owner[at] = start

"""Notes on runs that are of several states: a server slower from some time on or for a while, a queue that grows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, log
from statistics import fmean, median

from structbench.formatting import plural, seconds_text, share_text
from structbench.notes.change import Change, change_of
from structbench.notes.judge import PLACED, Judge, Row
from structbench.types import Note

_MOST = 5_000
"""Requests that are looked at, spread evenly."""
_NEARLY_ALL = 0.8
_GENERATED = ("text", "numbers")
"""Suites whose cases are drawn alike, so that their order is none."""
_SLICES = 20
_TURNS = 10
_GROWTH = 10
"""Requests by which those in flight must have grown, beside a share of all."""
_GROWTH_SHARE = 0.02
_DROPPED = 0.05


def _steady(rows: Sequence[Row]) -> Iterator[Note]:
    for name, column, series in (
        ("the time per token", "tpot_s", _paces(rows)),
        ("TTFT", "ttft_s", _first_tokens(rows)),
    ):
        waits = column == "ttft_s" or not _are_alike([row for row, _ in series])
        found = change_of([value for _, value in series], waits=waits)
        if found is not None:
            yield _note(name, column, [row for row, _ in series], found)
            return


def _are_alike(rows: Sequence[Row]) -> bool:
    """Return whether the order of the cases explains nothing: they were drawn alike, or asked again and again."""
    return bool(rows) and (rows[0]["suite"] in _GENERATED or any(row["repeat"] for row in rows))


def _paces(rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Return the time per token (else per chunk) of each request, where nearly all have one."""
    column = "tpot_s" if sum(row["tpot_s"] is not None for row in rows) >= _NEARLY_ALL * len(rows) else "itl_mean_s"
    found = [(row, row[column]) for row in rows if row[column]]
    return _by_case(found) if len(found) >= _NEARLY_ALL * len(rows) else []


def _first_tokens(rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Return TTFT; of a file's cases only where they are asked again: a first asking is not in the cache."""
    return _by_case([
        (row, row["ttft_s"]) for row in rows if row["ttft_s"] and (row["suite"] in _GENERATED or row["repeat"])
    ], alone=False)  # fmt: skip


def _by_case(series: list[tuple[Row, float]], alone: bool = True) -> list[tuple[Row, float]]:
    """Return the values relative to their case's own; those of a case asked once as they are, or not at all."""
    if not series or series[0][0]["suite"] in _GENERATED:
        return series
    by_case: dict[str, list[float]] = {}
    for row, value in series:
        by_case.setdefault(row["case_id"], []).append(log(value))
    if max(map(len, by_case.values())) == 1:
        return series if alone else []
    kept = [(row, value) for row, value in series if len(by_case[row["case_id"]]) > 1]
    own = _own_levels([row["case_id"] for row, _ in kept], [log(value) for _, value in kept])
    return [(row, value / exp(own[row["case_id"]])) for row, value in kept]


def _own_levels(cases: Sequence[str], logs: Sequence[float]) -> dict[str, float]:
    """Return each case's own level, the level of the time apart: means of either, without the other, in turns."""
    import numpy as np

    places: dict[str, int] = {}
    case = np.array([places.setdefault(each, len(places)) for each in cases])
    time = np.unique(np.arange(len(cases)) * _SLICES // len(cases), return_inverse=True)[1]
    values, of_time = np.array(logs), np.zeros(time.max() + 1)
    for _ in range(_TURNS):
        of_case = np.bincount(case, values - of_time[time]) / np.bincount(case)
        of_time = np.bincount(time, values - of_case[case]) / np.bincount(time)
    return dict(zip(places, of_case.tolist(), strict=True))


def _note(name: str, column: str, rows: Sequence[Row], found: Change) -> Note:
    start, stop, ratio, gradual, others = found
    tenth = len(rows) // 10
    places = {place for begin, end in ((start, stop), *others) for place in range(begin, end)}
    inside: Sequence[Row] = [row for place, row in enumerate(rows) if place in places]
    outside = [row for place, row in enumerate(rows) if place not in places]
    if gradual:
        inside, outside = rows[min(stop, len(rows) - tenth) :], [*rows[: max(start, tenth)]]
    level, usual = (median(row[column] or row["itl_mean_s"] or 0.0 for row in part) for part in (inside, outside))
    at_s = rows[start]["at_s"]
    until = f"to {seconds_text(rows[stop - 1]['at_s'])}"
    when = f"from {seconds_text(at_s)} {'on' if stop == len(rows) and not gradual else until}"
    when += f", and {plural(len(others), 'more time')}" if others else ""
    change = f"{share_text(ratio - 1, 0)} longer" if ratio > 1 else f"{share_text(1 - ratio, 0)} shorter"
    how = f"became {change} little by little" if gradual else f"was {change}"
    return Note(
        "slow_down" if ratio > 1 else "drift",
        f"{when}, {name} {how} (p50 {seconds_text(level)} instead of {seconds_text(usual)}): the server was not in "
        "one state, and figures are of both", (len(rows) - start if gradual else len(inside)) / len(rows), at_s,
    )  # fmt: skip


STATIONARY = Judge(
    f"""
    WITH {PLACED}, timed AS (
        SELECT at_s, case_id, repeat, ttft_s, tpot_s, itl_mean_s, row_number() OVER (ORDER BY at_s) AS place,
            count(*) OVER () AS n
        FROM placed WHERE error_kind IS NULL AND steady IS NOT FALSE
    )
    SELECT at_s, case_id, repeat, ttft_s, tpot_s, itl_mean_s, (SELECT suite FROM runs WHERE run_id = $1) AS suite
    FROM timed WHERE place % ceil(n / {_MOST})::BIGINT = 0 ORDER BY at_s
    """,
    _steady,
)


def _saturation(rows: Sequence[Row]) -> Iterator[Note]:
    """In an open loop, requests in flight that only grow mean that latencies tell how long the run was."""
    if len(rows) < _SLICES:
        return
    requests, dropped = rows[0]["requests"], rows[0]["dropped"]
    counts = [row["in_flight"] for row in rows]
    quarter = _SLICES // 4
    means = [fmean(counts[i * quarter : (i + 1) * quarter]) for i in range(4)]
    grown = means[3] - means[0] >= max(_GROWTH, _GROWTH_SHARE * requests)
    if grown and means == sorted(means) and min(counts[-quarter:]) > max(counts[:quarter]):
        yield Note(
            "saturation", f"requests came faster than they were answered: {counts[0]:,} were in flight after "
            f"{seconds_text(rows[0]['at_s'])}, {counts[-1]:,} at the end, so latencies tell how long the run was: "
            "lower --rate", None, rows[0]["at_s"],
        )  # fmt: skip
    elif dropped >= _DROPPED * requests:
        yield Note(
            "saturation", f"requests came faster than they were answered: {dropped:,} of "
            f"{plural(requests, 'request')} were dropped at --max-in-flight", dropped / requests,
        )  # fmt: skip


SATURATION = Judge(
    f"""
    WITH {PLACED}, due AS (
        SELECT at_s, ended_s, error_kind = 'dropped' AS dropped FROM placed WHERE due_ns IS NOT NULL
    ), whole AS (
        SELECT min(at_s) AS from_s, max(at_s) AS to_s, count(*) AS requests,
            count(*) FILTER (WHERE dropped) AS dropped FROM due
    ), slices AS (
        SELECT from_s + (to_s - from_s) * unnest(range(1, {_SLICES + 1})) / {_SLICES} AS at_s, requests, dropped
        FROM whole WHERE requests >= 3 * {_SLICES}
    )
    SELECT s.at_s, any_value(s.requests) AS requests, any_value(s.dropped) AS dropped,
        count(*) FILTER (WHERE due.at_s <= s.at_s AND due.ended_s > s.at_s AND due.dropped IS NOT TRUE) AS in_flight
    FROM slices AS s CROSS JOIN due GROUP BY s.at_s ORDER BY s.at_s
    """,
    _saturation,
)

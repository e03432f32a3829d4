"""Notes on the way to the server and on a machine that it shares with this client: lost segments, busy processors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.formatting import plural
from structbench.notes.judge import Judge, Row
from structbench.types import Note

PRESSURE = 0.25
"""Share of the time in which some process waited for a processor; above, there is a note."""


def _lost(rows: Sequence[Row]) -> Iterator[Note]:
    (row,) = rows
    if row["lost"]:
        yield Note(
            kind="lost_segments", share=row["lost"] / row["sent"],
            text=f"TCP segments of {row['lost']:,} of {plural(row['sent'], 'request')} were lost or late on the way: "
                 "their times include that",
        )  # fmt: skip
    if row["shares"] and row["timeouts"]:
        yield Note(
            kind="machine_lost_segments",
            text=f"this machine, which the server shares, sent {plural(row['resent'], 'TCP segment')} again, "
                 f"{row['timeouts']:,} after a time-out of 0.2 s or more, all programs together: TTFT may include that",
        )  # fmt: skip
    if row["drops"]:
        yield Note(
            kind="listen_drops",
            text=f"a server on this machine refused {plural(row['drops'], 'connection')} for a while: its queue of "
                 "connections was full, and they were tried again a second later",
        )  # fmt: skip


def _pressed(rows: Sequence[Row]) -> Iterator[Note]:
    (row,) = rows
    if row["pressure"] is not None and row["pressure"] > PRESSURE:
        yield Note(
            kind="processor_pressure", share=row["pressure"],
            text=f"processes of this machine waited for a processor {row['pressure']:.0%} of the time",
        )  # fmt: skip


LOST = Judge(
    """
    SELECT count(*) FILTER (WHERE sent_ns IS NOT NULL) AS sent,
        count(*) FILTER (WHERE sent_ns IS NOT NULL AND resent_segments + out_of_order_segments > 0) AS lost,
        count(processor_wait_s) > 0 AS shares,
        (SELECT coalesce(sum(machine_resent_segments), 0)::BIGINT FROM samples WHERE run_id = $1) AS resent,
        (SELECT coalesce(sum(machine_tcp_timeouts), 0)::BIGINT FROM samples WHERE run_id = $1) AS timeouts,
        CASE WHEN count(processor_wait_s) > 0
            THEN (SELECT coalesce(sum(machine_listen_drops), 0)::BIGINT FROM samples WHERE run_id = $1) END AS drops
    FROM requests WHERE run_id = $1
    """,
    _lost,
)
PRESSED = Judge("SELECT avg(processor_pressure) AS pressure FROM samples WHERE run_id = $1", _pressed)

"""Notes on the way to the server and on a machine that it shares with this client: lost segments, busy processors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.formatting import plural, share_text
from structbench.notes.judge import Judge, Row
from structbench.types import Note

SAMPLES = 5
"""Of a run with fewer, about one a second, nothing is said of the machine."""
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
    if row["shares"] and row["drops"]:
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
            text=f"processes of this machine waited for a processor {share_text(row['pressure'], 0)} of the time",
        )  # fmt: skip


LOST = Judge(
    f"""
    WITH sampled AS (
        SELECT count(*) >= {SAMPLES} AS enough, sum(machine_resent_segments)::BIGINT AS resent,
            sum(machine_tcp_timeouts)::BIGINT AS timeouts, sum(machine_listen_drops)::BIGINT AS drops
        FROM samples WHERE run_id = $1
    ), asked AS (
        SELECT count(*) AS sent, count(*) FILTER (WHERE resent_segments + out_of_order_segments > 0) AS lost,
            count(processor_wait_s) > 0 AS shares
        FROM requests WHERE run_id = $1 AND sent_ns IS NOT NULL
    )
    SELECT sent, lost, shares AND enough AS shares, resent, timeouts, drops FROM asked, sampled
    """,
    _lost,
)
PRESSED = Judge(
    f"""
    SELECT CASE WHEN count(processor_pressure) >= {SAMPLES} THEN avg(processor_pressure) END AS pressure
    FROM samples WHERE run_id = $1
    """,
    _pressed,
)

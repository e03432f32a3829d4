"""Notes on the server's token counts: where they are missing or do not cover what was streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.formatting import plural
from structbench.notes.judge import Judge, Row
from structbench.types import Note


def _uncounted(rows: Sequence[Row]) -> Iterator[Note]:
    (row,) = rows
    if row["missing"]:
        yield Note(
            kind="uncounted", share=row["missing"] / row["completed"],
            text=f"{row['missing']:,} of {plural(row['completed'], 'completed answer')} came without a token count: "
                 "figures of tokens are of the others",
        )  # fmt: skip


UNCOUNTED = Judge(
    """
    SELECT count(*) AS completed, count(*) FILTER (WHERE output_tokens IS NULL) AS missing
    FROM requests WHERE run_id = $1 AND error_kind IS NULL
    """,
    _uncounted,
)

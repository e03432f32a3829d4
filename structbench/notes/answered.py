"""Notes on who answered: another model than the one that was asked for, or several in one run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from structbench.formatting import plural
from structbench.notes.judge import Judge, Row
from structbench.types import Note

_SNAPSHOT = re.compile(
    r"[-@:._]?(?:v?\d[\d.:-]*|latest|stable|preview|exp|free|online)*(?:[-@:._](?:v?\d[\d.:-]*|preview))*"
)
"""What stands behind an alias in the name of the version that answers to it."""
_FOLDERS = re.compile(r".*[/\\]")
_MOST_NAMES = 4


def is_alias(asked: str, answered: str) -> bool:
    """Return whether a model's name and the one in its answers may well mean the same: the usual answer to an alias.

    That is the name itself, in other letters, of another folder, or with a date or version behind it.
    """
    short, long = sorted((_bare(asked), _bare(answered)), key=len)
    return long.startswith(short) and _SNAPSHOT.fullmatch(long[len(short) :]) is not None


def _bare(name: str) -> str:
    return _FOLDERS.sub("", name.lower()).removesuffix(".gguf").removesuffix("latest").rstrip("-:@._")


def _answered(rows: Sequence[Row]) -> Iterator[Note]:
    models = [row for row in rows if row["what"] == "model"]
    prints = [row for row in rows if row["what"] == "fingerprint"]
    completed = sum(row["n"] for row in models)
    others = [row for row in models if not is_alias(row["asked"], row["name"])]
    if others:
        n = sum(row["n"] for row in others)
        yield Note(
            "other_model",
            f"{n:,} of {plural(completed, 'answer')} say that they are of {_names(others)}, although "
            f"{others[0]['asked']} was asked for: the figures are of what answered",
            n / completed,
        )
    if len(models) > 1:
        least = min(row["n"] for row in models)
        yield Note(
            "model_changed", f"several models answered: {_counted(models)}: an alias that moved, or a gateway that "
            "spreads requests; the figures are of all", least / completed,
        )  # fmt: skip
    if len(prints) > 1:
        told = sum(row["n"] for row in prints)
        yield Note(
            "fingerprint_changed", f"the server's system_fingerprint changed: {_counted(prints)}: several servers or "
            "versions answered", min(row["n"] for row in prints) / told,
        )  # fmt: skip


def _names(rows: Sequence[Row]) -> str:
    more = len(rows) - _MOST_NAMES
    return ", ".join(row["name"] for row in rows[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _counted(rows: Sequence[Row]) -> str:
    more = len(rows) - _MOST_NAMES
    told = ", ".join(f"{row['name']} ({row['n']:,})" for row in rows[:_MOST_NAMES])
    return told + (f" and {more} more" if more > 0 else "")


ANSWERED = Judge(
    """
    WITH answers AS (
        SELECT answered_by, fingerprint, runs.model FROM requests JOIN runs USING (run_id)
        WHERE run_id = $1 AND error_kind IS NULL
    )
    SELECT 'model' AS what, answered_by AS name, any_value(model) AS asked, count(*) AS n
    FROM answers WHERE answered_by IS NOT NULL GROUP BY answered_by
    UNION ALL
    SELECT 'fingerprint', fingerprint, any_value(model), count(*) FROM answers WHERE fingerprint IS NOT NULL
    GROUP BY fingerprint
    ORDER BY what, n DESC, name
    """,
    _answered,
)

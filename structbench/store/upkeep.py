"""Changes to what is already stored, made between loads.

Invariant: each change is one transaction; runs and rows of a living process are left alone.
"""

from __future__ import annotations

from pathlib import Path

from structbench.store.database import Database
from structbench.store.insertion import insert
from structbench.store.schema import columns_of
from structbench.store.spool import Spool, has_rows_of_the_dead, is_alive, read_rows

_RUNNING = "SELECT run_id, owner FROM runs WHERE status = 'running'"


def spool_of(path: Path) -> Path:
    """The folder beside the database in which rows wait."""
    return path.with_name(path.name + ".spool")


def settle(database: Database, patience_s: float) -> None:
    """Merge the rows of dead processes and mark their runs interrupted; Locked when others are in the way."""
    folder = spool_of(database.path)
    with database.opened(read_only=True, patience_s=patience_s) as con:
        runs = con.execute(_RUNNING).fetchall()
    if has_rows_of_the_dead(folder):
        _merge(database, Spool(folder), patience_s)
    elif all(is_alive(folder, owner) for _, owner in runs):
        return
    with database.opened(read_only=False, patience_s=patience_s) as con:
        for run_id, owner in con.execute(_RUNNING).fetchall():
            if not is_alive(folder, owner):
                con.execute("BEGIN").fetchall()
                for table in ("runs", "segments"):
                    sql = f"UPDATE {table} SET status = 'interrupted' WHERE run_id = $1 AND status = 'running'"
                    con.execute(sql, [run_id]).fetchall()
                con.execute("COMMIT").fetchall()


def _merge(database: Database, spool: Spool, patience_s: float) -> None:
    try:
        files = spool.adopt()
        with database.opened(read_only=False, patience_s=patience_s) as con:
            columns = columns_of(con)
            for file in files:
                insert(con, columns, read_rows(file))
        for file in files:
            spool.discard(file)
    finally:
        spool.close()

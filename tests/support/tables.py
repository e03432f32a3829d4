"""The tables that the migrations end in, kept beside them: ``python -m tests.support.tables`` writes the file anew."""

from __future__ import annotations

import json

import duckdb

from structbench.store.schema import KEPT, MIGRATIONS, made
from tests.support.paths import ROOT

FILE = ROOT / "structbench/store/migrations" / KEPT


def text() -> str:
    """Return what the file is to hold."""
    shape = made(MIGRATIONS)
    kept = {
        "migrations": [*MIGRATIONS], "duckdb": duckdb.__version__, "tables": shape.tables, "columns": shape.columns,
        "indexes": sorted(shape.indexes),
    }  # fmt: skip
    return json.dumps(kept, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")

"""Migration of identities that still held the number of requests or seconds: configs and hashes, derived anew.

Invariant: released, so the result for a stored config never changes.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from structbench.identity import canonical_json

if TYPE_CHECKING:
    import duckdb

_STORED = """
SELECT config_hash, any_value(config), bool_or(suite = 'text' OR EXISTS (
    FROM requests WHERE requests.run_id = runs.run_id AND outcome = 'completed'
)) FROM runs WHERE config IS NOT NULL GROUP BY config_hash
"""


def prepare_identities(con: duckdb.DuckDBPyConnection) -> None:
    """Create the table ``identities`` (before, after, config): each stored hash and its replacement."""
    con.execute("CREATE TEMP TABLE identities (before VARCHAR, after VARCHAR, config VARCHAR)").fetchall()
    for before, text, unscored in con.execute(_STORED).fetchall():
        config = without_amount(json.loads(text), unscored=unscored)
        digest = hashlib.sha256(canonical_json(config).encode("utf-8", "surrogatepass")).hexdigest()
        row = [before, f"s1:{digest}", json.dumps(config)]
        con.execute("INSERT INTO identities VALUES ($1, $2, $3)", row).fetchall()


def without_amount(config: dict[str, Any], *, unscored: bool) -> dict[str, Any]:
    """Return the config without the requests and seconds asked for, and without a scorer if nothing is scored."""
    gone = ("requests", "scorer_version") if unscored else ("requests",)
    kept = {key: value for key, value in config.items() if key not in gone}
    load = config.get("load")
    return {**kept, "load": {k: v for k, v in load.items() if k != "duration_s"}} if isinstance(load, dict) else kept

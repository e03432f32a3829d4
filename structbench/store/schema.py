"""The tables and how an older file becomes a current one.

Invariant: a migration, once released, never changes; a new column or a changed view is a new entry at
the end of MIGRATIONS. The columns of a file are read from the file, so they stand only here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from structbench import __version__
from structbench.errors import BadInput
from structbench.store.rehash import prepare_identities
from structbench.store.views import VIEWS

if TYPE_CHECKING:
    import duckdb

Columns = dict[str, dict[str, str]]
"""Table -> column -> SQL type."""

KEYS: dict[str, tuple[str, ...]] = {
    "runs": ("run_id",),
    "segments": ("run_id", "segment"),
    "requests": ("run_id", "request_index"),
    "samples": ("run_id", "segment", "sampled_at"),
    "features": ("server_version", "model", "model_digest", "probe"),
    "run_gaps": ("run_id",),
    "lookups": ("looked_up_at", "config_hash"),
}
UPDATED = ("runs", "segments")
"""A second row with the same key changes the columns that it names; in the other tables it replaces the row."""
FIXED: dict[str, tuple[str, ...]] = {"runs": ("config_hash",)}
"""Indexed columns, which DuckDB cannot update: the first row's value stays."""

# Instants of people's clocks are TIMESTAMP in UTC: Python needs one more package to read TIMESTAMPTZ.
_TABLES = """
CREATE TABLE runs (
    run_id VARCHAR PRIMARY KEY, config_hash VARCHAR, model VARCHAR, model_digest VARCHAR, server_version VARCHAR,
    suite VARCHAR, load_kind VARCHAR, concurrency BIGINT, rate DOUBLE, arrival VARCHAR, endpoint VARCHAR,
    structured VARCHAR, think VARCHAR, planned BIGINT, status VARCHAR, verdict VARCHAR, verdict_reason VARCHAR,
    label VARCHAR, embed_model VARCHAR, config JSON, environment JSON, owner VARCHAR, started_at TIMESTAMP,
    finished_at TIMESTAMP, forgotten BOOLEAN, goodput_limits JSON
);
CREATE INDEX runs_by_config ON runs (config_hash);
CREATE TABLE segments (
    run_id VARCHAR, segment BIGINT, started_at TIMESTAMP, finished_at TIMESTAMP, duration_s DOUBLE, planned BIGINT,
    workers BIGINT, status VARCHAR, model_load_s DOUBLE, warmup_requests BIGINT, simulated BOOLEAN,
    PRIMARY KEY (run_id, segment)
);
CREATE TABLE requests (
    run_id VARCHAR, config_hash VARCHAR, request_index BIGINT, parent_index BIGINT, turn BIGINT, segment BIGINT,
    worker BIGINT, case_id VARCHAR, repeat BIGINT, due_ns BIGINT, sent_ns BIGINT, end_ns BIGINT, ttft_s DOUBLE,
    ttft_due_s DOUBLE,
    first_thinking_s DOUBLE, first_answer_s DOUBLE, first_tool_call_s DOUBLE, itl_mean_s DOUBLE, tpot_s DOUBLE,
    e2e_s DOUBLE, e2e_due_s DOUBLE, send_lag_s DOUBLE, read_lag_max_s DOUBLE, connect_s DOUBLE, chunks BIGINT,
    chunk_offsets_us BIGINT[], merged_chunks BIGINT, clock VARCHAR, prompt_tokens BIGINT, output_tokens BIGINT,
    load_s DOUBLE, prompt_eval_s DOUBLE, eval_s DOUBLE, queue_s DOUBLE, server_tokens_per_s DOUBLE,
    client_tokens_per_s DOUBLE, done_reason VARCHAR, outcome VARCHAR, accuracy_score DOUBLE, json_valid BOOLEAN,
    json_valid_lenient BOOLEAN, json_source VARCHAR, json_parse_error VARCHAR, schema_valid BOOLEAN,
    schema_valid_lenient BOOLEAN, tool_call_success BOOLEAN, tool_call_accuracy DOUBLE, num_tool_calls BIGINT,
    validation_errors VARCHAR[], violated_keywords VARCHAR[], semantic_similarity DOUBLE, output_text VARCHAR,
    thinking_text VARCHAR, tool_calls JSON, error_kind VARCHAR, error_status BIGINT, error_message VARCHAR,
    PRIMARY KEY (run_id, request_index)
);
CREATE TABLE samples (
    run_id VARCHAR, segment BIGINT, sampled_at TIMESTAMP, t_s DOUBLE, client_cpu_percent DOUBLE,
    client_rss_bytes BIGINT, in_flight BIGINT, loop_lag_max_s DOUBLE, store_backlog BIGINT, server_size_bytes BIGINT,
    server_vram_bytes BIGINT, vram_share DOUBLE, workers BIGINT, model_expiry_s DOUBLE,
    PRIMARY KEY (run_id, segment, sampled_at)
);
CREATE TABLE features (
    server_version VARCHAR, model VARCHAR, model_digest VARCHAR, probe VARCHAR, endpoint VARCHAR, stream BOOLEAN,
    think VARCHAR, question VARCHAR, result VARCHAR, status BIGINT, evidence VARCHAR, example VARCHAR, seconds DOUBLE,
    server_address VARCHAR, probed_at TIMESTAMP,
    PRIMARY KEY (server_version, model, model_digest, probe)
);
CREATE TABLE run_gaps (
    run_id VARCHAR PRIMARY KEY, requests BIGINT, chunks BIGINT, gaps BIGINT, p50 DOUBLE, p90 DOUBLE, p95 DOUBLE,
    p99 DOUBLE, max DOUBLE
);
CREATE TABLE lookups (
    looked_up_at TIMESTAMP, config_hash VARCHAR, run_id VARCHAR, result VARCHAR,
    PRIMARY KEY (looked_up_at, config_hash)
);
"""
_HISTORY = """
CREATE TABLE IF NOT EXISTS migrations (
    version BIGINT PRIMARY KEY, name VARCHAR, applied_at TIMESTAMP, structbench_version VARCHAR
)
"""

# How many requests and seconds were asked for left the identity, and are columns.
_IDENTITY = """
DROP INDEX runs_by_config;
ALTER TABLE runs ADD COLUMN asked_requests BIGINT;
ALTER TABLE runs ADD COLUMN asked_duration_s DOUBLE;
UPDATE runs SET asked_requests = (config ->> '$.requests')::BIGINT,
    asked_duration_s = (config ->> '$.load.duration_s')::DOUBLE;
UPDATE runs SET config_hash = identities.after, config = identities.config
FROM identities WHERE runs.config_hash = identities.before;
CREATE INDEX runs_by_config ON runs (config_hash);
UPDATE requests SET config_hash = identities.after FROM identities WHERE requests.config_hash = identities.before;
CREATE TEMP TABLE looked_up AS
SELECT DISTINCT ON (looked_up_at, config_hash) * FROM (
    SELECT lookups.* REPLACE (coalesce(identities.after, config_hash) AS config_hash)
    FROM lookups LEFT JOIN identities ON lookups.config_hash = identities.before
);
DROP TABLE lookups;
CREATE TABLE lookups (
    looked_up_at TIMESTAMP, config_hash VARCHAR, run_id VARCHAR, result VARCHAR,
    PRIMARY KEY (looked_up_at, config_hash)
);
INSERT INTO lookups FROM looked_up;
DROP TABLE looked_up;
DROP TABLE identities;
"""

MIGRATIONS: tuple[tuple[str, str], ...] = (
    ("tables", _TABLES),
    ("views", VIEWS),
    ("identity", _IDENTITY),
)
"""Name and SQL of each step; the schema's version is the number of steps applied."""
_PREPARED = {"identity": prepare_identities}
"""What a step's SQL cannot compute, done before it."""


def version_of(con: duckdb.DuckDBPyConnection, path: object) -> int:
    """The schema version of the open file, 0 when it has none of our tables; BadInput when it is not for us."""
    columns = columns_of(con)
    history = columns.get("migrations")
    if history is None:
        foreign = sorted(set(columns) & set(KEYS))
        if foreign:
            raise BadInput(f"{path} has a table {foreign[0]!r} that structbench did not make: give another --db")
        return 0
    if not {"version", "structbench_version"} <= set(history):
        raise BadInput(f"{path} has a table 'migrations' that structbench did not make: give another --db")
    row = con.execute("SELECT max(version), max_by(structbench_version, version) FROM migrations").fetchall()[0]
    version, writer = row[0] if row[0] is not None else 0, row[1]
    if version > len(MIGRATIONS):
        raise BadInput(
            f"{path} was written by structbench {writer} (schema {version}; this is {__version__}, schema "
            f"{len(MIGRATIONS)}): upgrade structbench or give another --db"
        )
    return int(version)


def migrate(con: duckdb.DuckDBPyConnection, path: object) -> None:
    """Bring the open file to the current version, all steps or none."""
    con.execute("BEGIN").fetchall()
    for number in range(version_of(con, path) + 1, len(MIGRATIONS) + 1):
        name, sql = MIGRATIONS[number - 1]
        con.execute(_HISTORY).fetchall()
        if name in _PREPARED:
            _PREPARED[name](con)
        con.execute(sql).fetchall()
        con.execute(
            "INSERT INTO migrations VALUES ($1, $2, CAST(now() AT TIME ZONE 'UTC' AS TIMESTAMP), $3)",
            [number, name, __version__],
        ).fetchall()
    con.execute("COMMIT").fetchall()


def columns_of(con: duckdb.DuckDBPyConnection) -> Columns:
    """The tables' columns and their types, as the open file has them."""
    columns: Columns = {}
    found = con.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns()"
        " WHERE database_name = current_database() AND NOT internal AND table_oid IN"
        " (SELECT table_oid FROM duckdb_tables() WHERE database_name = current_database())"
        " ORDER BY table_name, column_index"
    ).fetchall()
    for table, column, sql_type in found:
        columns.setdefault(table, {})[column] = sql_type
    return columns

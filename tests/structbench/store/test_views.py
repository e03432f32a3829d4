"""What stands in the store: rows written from records, look-ups, and the views' figures against plain Python."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.types import RequestError, RequestRecord
from structbench.identity import config_dict, config_hash
from structbench.store import Store, StoredRun, row_of, run_columns
from structbench.store.rows import storable
from structbench.store.schema import FILE, KEYS, MIGRATIONS, migrate, shape
from structbench.store.spool import insert
from structbench.types import Config, Score
from structbench.verdict import FACTS
from tests.support.made_up_rows import quantile
from tests.support.paths import ROOT

DOCS = ROOT / "docs" / "store.md"
MS = 1_000_000
CONFIG = Config(
    suite="json", suite_hash="s", model="m", model_digest="d", server_version="1", server_address="a", endpoint="chat",
    structured="format", think=None, options={}, keep_alive=None, load={"kind": "closed", "concurrency": 4}, seed=0,
    warmup=1, timeout_s=300.0, scorer_version=1,
)  # fmt: skip
CORRECT = Score(outcome="correct", accuracy_score=1.0, json_valid=True, schema_valid=True)
WRONG = Score(outcome="invalid_json", accuracy_score=0.0, json_valid=False, schema_valid=False)
BROKEN = Score(
    outcome="schema_violation", accuracy_score=0.0, json_valid=True, schema_valid=False,
    violated_keywords=("minimum", "required"),
)  # fmt: skip
REJECTED = Score(outcome="rejected", accuracy_score=0.0, json_valid=False, schema_valid=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "db.duckdb") as opened:
        yield opened


@pytest.fixture(scope="module")
def memory() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        migrate(con, 0)
        yield con


def record(index: int, *chunks_ms: int, kind: Any = None, **more: Any) -> RequestRecord:
    """Sent and due at index seconds, its last message with the last chunk."""
    start = index * 1000 * MS
    return RequestRecord(
        index=index,
        worker=0,
        due_ns=start,
        sent_ns=None if kind == "dropped" else start,
        chunk_ns=tuple(start + chunk * MS for chunk in chunks_ms),
        end_ns=start + (chunks_ms[-1] if chunks_ms else 5) * MS,
        output_tokens=len(chunks_ms) if kind is None else None,
        error=None if kind is None else RequestError(kind, "why", 503 if kind == "http" else None),
        **more,
    )


def put(store: Store, run_id: str, config: Config = CONFIG, **more: Any) -> None:
    store.append("runs", {"run_id": run_id, "planned": 6, **run_columns(config), **more})


def put_request(store: Store, run_id: str, one: RequestRecord, score: Score | None = None) -> None:
    store.append("requests", row_of(run_id, config_hash(CONFIG), 0, "case", 0, one, score))


def test_row_of_fills_every_column_of_requests() -> None:
    row = row_of("r", "h", 0, "case", 0, record(0, 10), CORRECT)
    assert set(row) == set(shape(MIGRATIONS).columns["requests"])
    assert {field.name for field in fields(Score)} <= set(row)


def test_columns_are_the_records_properties() -> None:
    one = record(3, 10, 30, 70, read_lag_max_ns=1_500, eval_ns=60 * MS, prompt_eval_ns=5 * MS)
    row = row_of("r", "h", 0, "case", 0, one, None)
    assert row["chunk_offsets_us"] == [10_000, 30_000, 70_000]
    assert (row["chunks"], row["read_lag_max_s"]) == (3, 1.5e-6)
    assert (row["ttft_s"], row["tpot_s"], row["e2e_s"]) == (one.ttft_s, one.tpot_s, one.e2e_s) == (0.01, 0.03, 0.07)


@pytest.mark.parametrize(
    ("kind", "score", "outcome", "accuracy"),
    [
        (None, CORRECT, "correct", 1.0),
        (None, None, "completed", None),
        ("rejected", REJECTED, "rejected", 0.0),
        ("rejected", None, "rejected", None),
        ("timeout", None, "timeout", None),
        ("stream", WRONG, "stream", None),
    ],
)
def test_infrastructure_is_never_booked_as_the_models_mistake(
    kind: Any, score: Score | None, outcome: str, accuracy: float | None
) -> None:
    row = row_of("r", "h", 0, "case", 0, record(0, 10, kind=kind), score)
    assert (row["outcome"], row["accuracy_score"], row["error_kind"]) == (outcome, accuracy, kind)


def test_a_request_that_was_never_sent_has_no_offsets() -> None:
    assert row_of("r", "h", 0, "case", 0, record(0, kind="dropped"), None)["chunk_offsets_us"] is None


# What a model or a server may send, as it comes back from the database.

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)
ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.sampled_from(["a\x00b", "\ud800", "\udcff\ud83d", "😀"])
INT64 = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.slow
@settings(max_examples=60)
@given(ANY_TEXT, st.floats() | st.integers(), st.integers(), st.lists(INT64), st.lists(ANY_TEXT), JSON_VALUES)
def test_any_text_number_and_json_comes_back_as_it_was(
    memory: duckdb.DuckDBPyConnection,
    text: str,
    number: float,
    whole: int,
    wholes: list[int],
    texts: list[str],
    value: Any,
) -> None:
    row = {
        "run_id": "any", "request_index": 0, "output_text": text, "ttft_s": number, "output_tokens": whole,
        "chunk_offsets_us": wholes, "validation_errors": texts, "tool_calls": value,
    }  # fmt: skip
    columns = shape(MIGRATIONS).columns
    kept = {name: storable(item, name, columns["requests"][name]) for name, item in row.items()}
    insert(memory, columns, iter([("requests", json.loads(json.dumps(kept)), 0)]))
    names = ", ".join(row)
    got = memory.execute(f"SELECT {names} FROM requests WHERE run_id = 'any'").fetchall()[0]

    assert got[2:6] == (clean(text), finite(number), whole if -(2**63) <= whole < 2**63 else None, wholes)
    assert got[6] == [clean(item) for item in texts]
    assert got[7] is None if value is None else json.loads(got[7]) == clean_json(value)


def clean(text: str) -> str:
    """Surrogate pairs joined, lone ones replaced."""
    joined = re.sub(
        "[\ud800-\udbff][\udc00-\udfff]", lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text
    )
    return re.sub("[\ud800-\udfff]", "\ufffd", joined)


def finite(number: float) -> float | None:
    try:
        return float(number) if math.isfinite(number) else None
    except OverflowError:
        return None


def clean_json(value: Any) -> Any:
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean_json(item) for item in value]
    return {clean(key): clean_json(item) for key, item in value.items()} if isinstance(value, dict) else value


def test_very_long_text_and_very_deep_json_are_stored(store: Store) -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    long = "é" * 3_000_000
    put_request(store, "r", record(0, output_text=long, tool_calls=({"name": "f", "arguments": deep},)))
    rows = store.query("SELECT output_text, tool_calls FROM requests")
    assert rows == [{"output_text": long, "tool_calls": '"(nested too deeply to be stored)"'}]


def test_instants_are_utc_and_lone_surrogates_in_json_do_not_stop_the_writer(store: Store) -> None:
    put(store, "r", started_at="2026-01-01T02:00:00+02:00", environment={"\ud800": ["\udfff", 1e400]})
    (row,) = store.query("SELECT started_at::VARCHAR AS t, environment AS e FROM runs")
    assert (row["t"], json.loads(row["e"])) == ("2026-01-01 00:00:00", {"\ufffd": ["\ufffd", None]})


# Look-ups.


def test_find_prefers_the_largest_complete_run_then_the_newest_to_continue(store: Store) -> None:
    for run_id, requests in {"old": 1, "large": 3, "newer": 3, "small": 2}.items():
        day = ["old", "large", "newer", "small"].index(run_id) + 1
        put(store, run_id, status="complete", started_at=f"2026-01-0{day}", asked_requests=requests)
        for index in range(requests):
            put_request(store, run_id, record(index))
    put(store, "newest", status="interrupted", started_at="2026-01-05")
    other = replace(CONFIG, seed=CONFIG.seed + 7)
    put(store, "a", other, status="interrupted", started_at="2026-01-01")
    put(store, "b", other, status="interrupted", started_at="2026-01-02", label="mine")
    found = store.find([config_hash(CONFIG), config_hash(other), "unknown"])
    assert set(found) == {config_hash(CONFIG), config_hash(other)}
    complete = found[config_hash(CONFIG)]
    assert (complete.run_id, complete.status, complete.requests, complete.held) == ("newer", "complete", 3, 3)
    partial = found[config_hash(other)]
    assert (partial.run_id, partial.status, partial.requests, partial.label) == ("b", "partial", 0, "mine")


def test_find_sends_again_only_what_the_interruption_or_a_lost_server_took(store: Store) -> None:
    put(store, "r", status="interrupted")
    kinds = [None, "timeout", "dropped", "http", "cancelled", "connect", "worker_died"]
    for index, kind in enumerate(kinds):
        put_request(store, "r", record(index, kind=kind))
    for segment in (0, 1):
        store.append("segments", {"run_id": "r", "segment": segment})
    found = store.find([config_hash(CONFIG)])[config_hash(CONFIG)]
    assert (sorted(found.done), found.next_segment) == ([0, 1, 2, 3], 2)


def test_a_run_of_a_live_process_is_not_continued_and_that_of_a_dead_one_is(tmp_path: Path) -> None:
    first = Store(tmp_path / "db.duckdb")
    put(first, "r", status="running")
    put_request(first, "r", record(0, 10))
    first.flush()
    with Store(tmp_path / "db.duckdb") as second:
        assert second.find([config_hash(CONFIG)])[config_hash(CONFIG)].status == "running"
        first.close()
        found = second.find([config_hash(CONFIG)])[config_hash(CONFIG)]
    assert (found.status, list(found.done)) == ("partial", [0])


def test_nearest_takes_the_same_load_first_and_never_another_model(store: Store) -> None:
    far_load = {"kind": "closed", "concurrency": 16}
    put(store, "other-load", replace(CONFIG, load=far_load), started_at="2026-01-03")
    put(store, "other-digest", replace(CONFIG, model_digest="e", server_version="2"), started_at="2026-01-01")
    put(store, "other-model", replace(CONFIG, model="n"), started_at="2026-01-04")
    config, run_id = store.nearest(config_dict(CONFIG)) or ({}, "")
    assert (run_id, config["model_digest"]) == ("other-digest", "e")
    assert store.nearest(config_dict(replace(CONFIG, suite="none"))) is None


# Views.


@pytest.mark.slow
@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 50), max_size=8), min_size=1, max_size=6))
def test_gap_percentiles_are_those_of_all_gaps(memory: duckdb.DuckDBPyConnection, streams: list[list[int]]) -> None:
    rows = [
        ("requests", {"run_id": "gaps", "request_index": index, "chunk_offsets_us": sorted(offsets)}, 0)
        for index, offsets in enumerate(streams)
    ]
    memory.execute("DELETE FROM requests WHERE run_id = 'gaps'").fetchall()
    insert(memory, shape(MIGRATIONS).columns, iter(rows))
    got = memory.execute("SELECT gaps, p50, p90, p99, max FROM gap_percentiles WHERE run_id = 'gaps'").fetchall()
    gaps = [(b - a) / 1e6 for offsets in streams for a, b in pairwise(sorted(offsets))]
    want = [(len(gaps), *(quantile(gaps, p) for p in (0.5, 0.9, 0.99, 1.0)))] if gaps else []
    assert got == [pytest.approx(row, abs=1e-12) for row in want]


def test_a_complete_run_keeps_its_gap_percentiles_and_they_are_never_stale(store: Store) -> None:
    filled(store)
    computed = store.query("FROM gap_percentiles")
    store.keep_gaps("r")
    assert store.query("FROM kept_gaps") == computed == store.query("FROM gap_percentiles")
    store.append("run_gaps", {**store.query("FROM run_gaps")[0], "p50": 99.0})
    assert store.query("SELECT p50 FROM gap_percentiles") == [{"p50": 99.0}], "what is kept is not computed again"
    for change in ("request", "chunks", "status"):
        store.keep_gaps("r")
        if change == "status":
            store.append("runs", {"run_id": "r", "status": "running"})
        else:
            put_request(store, "r", record(9, 10, 35 if change == "request" else 36, *([40] * (change == "chunks"))))
        assert store.query("FROM kept_gaps") == [], change
        assert store.query("SELECT gaps FROM gap_percentiles")[0]["gaps"] > computed[0]["gaps"]


def test_ttft_taken_apart_adds_up_and_lacks_nothing_but_what_failed(store: Store) -> None:
    put(store, "r")
    late = record(0, 100, connected_ns=10 * MS, load_ns=20 * MS, prompt_eval_ns=50 * MS)
    put_request(store, "r", replace(late, due_ns=-5 * MS))
    put_request(store, "r", record(1, 30, prompt_eval_ns=30 * MS))
    put_request(store, "r", record(2, 30))
    put_request(store, "r", record(3, 30, kind="timeout", prompt_eval_ns=30 * MS))
    parts = "ttft_due_s, send_lag_s, connect_s, load_s, prompt_eval_s, rest_s"
    rows = store.query(f"SELECT {parts} FROM decomposition ORDER BY request_index")
    assert [tuple(row.values()) for row in rows] == [
        pytest.approx((0.105, 0.005, 0.01, 0.02, 0.05, 0.02)), pytest.approx((0.03, 0, 0, 0, 0.03, 0))
    ]  # fmt: skip
    (mean,) = store.query("FROM run_decomposition")
    assert mean["requests"] == 2
    assert mean["ttft_due_s"] == pytest.approx(sum(mean[part] for part in parts.split(", ")[1:]))
    assert mean["rest_s"] == pytest.approx(0.01)


@pytest.mark.slow
@settings(max_examples=30)
@given(st.lists(st.floats(0, 1000), max_size=12), st.integers(0, 4))
def test_percentiles_are_over_completed_requests_and_adjusted_ones_count_failures_as_infinite(
    memory: duckdb.DuckDBPyConnection, times: list[float], failures: int
) -> None:
    rows: list[dict[str, Any]] = [{"ttft_s": time} for time in times]
    rows += [{"ttft_s": 0.001, "error_kind": "timeout"}] * failures + [{"error_kind": "cancelled"}]
    memory.execute("DELETE FROM requests WHERE run_id = 'times'").fetchall()
    keyed = [("requests", {"run_id": "times", "request_index": i, **row}, 0) for i, row in enumerate(rows)]
    insert(memory, shape(MIGRATIONS).columns, iter(keyed))
    got = memory.execute(
        "SELECT adjusted, n, p50, p95, max FROM latency_percentiles WHERE run_id = 'times' AND metric = 'ttft_s'"
        " ORDER BY adjusted"
    ).fetchall()
    want = []
    for adjusted, values in ((False, times), (True, times + [1e300] * failures)):
        points = [quantile(values, p) or 0.0 for p in (0.5, 0.95, 1.0)]
        if values:
            want.append((adjusted, len(values), *(math.inf if point > 1e280 else point for point in points)))
    assert got == [pytest.approx(row) for row in want]


def filled(store: Store) -> None:
    """Six requests: two correct, one wrong, one rejected, one timed out, one dropped."""
    put(store, "r", status="complete", verdict="valid", started_at="2026-01-01", label="first")
    store.append("segments", {"run_id": "r", "segment": 0, "duration_s": 4.0, "model_load_s": 2.5})
    put_request(store, "r", record(0, 10, 20, 30), CORRECT)
    put_request(store, "r", record(1, 20, 60, 80, 90), CORRECT)
    put_request(store, "r", record(2, 40), WRONG)
    put_request(store, "r", record(3, kind="rejected"), REJECTED)
    put_request(store, "r", record(4, 15, kind="timeout"))
    put_request(store, "r", record(5, kind="dropped"))
    store.append("samples", {"run_id": "r", "segment": 0, "sampled_at": "2026-01-01", "t_s": 0.0, "in_flight": 2})


def test_summary_of_a_small_run_by_hand(store: Store) -> None:
    filled(store)
    (row,) = store.query("SELECT * FROM summary")
    assert (row["model"], row["suite"], row["load"], row["label"]) == ("m", "json", "c=4", "first")
    assert (row["requests"], row["completed"], row["errors"], row["dropped"]) == (6, 3, 2, 1)
    assert row["ttft_p50_s"] == pytest.approx(0.02)
    assert row["itl_p50_s"] == pytest.approx(0.01)
    assert row["tpot_p50_s"] == pytest.approx((0.01 + 0.07 / 3) / 2)
    assert row["stream_tokens_per_s"] == pytest.approx((100 + 3 / 0.07) / 2)
    assert (row["output_tokens"], row["tokens_per_s"], row["requests_per_s"]) == (8, 2.0, 0.75)
    assert row["e2e_p50_s"] == pytest.approx(0.04)
    assert (row["json_valid"], row["schema_valid"], row["accuracy"]) == (0.5, 0.5, 0.5)
    assert (row["correct"], row["correct_goodput"], row["tool_call_accuracy"]) == (2, 0.5, None)
    assert (row["duration_s"], row["model_load_s"]) == (4.0, 2.5)


def test_a_run_without_scores_or_requests_has_nulls_and_no_zeros(store: Store) -> None:
    put(store, "empty", replace(CONFIG, load={"kind": "open", "rate": 2.5, "arrival": "poisson"}))
    (row,) = store.query("SELECT * FROM summary")
    assert (row["load"], row["requests"]) == ("rate=2.5/s poisson", 0)
    for name in ("ttft_p50_s", "itl_p50_s", "tokens_per_s", "json_valid", "accuracy", "correct", "correct_goodput"):
        assert row[name] is None, name


def test_a_killed_segment_lasts_as_long_as_its_requests(store: Store) -> None:
    put(store, "r")
    store.append("segments", {"run_id": "r", "segment": 0, "duration_s": None})
    put_request(store, "r", record(0, 10))
    put_request(store, "r", record(3, 500))
    assert store.query("SELECT duration_s FROM summary") == [{"duration_s": 3.5}]


def test_an_interrupted_segment_lasts_as_long_as_the_requests_that_are_kept_of_it(store: Store) -> None:
    """What was cancelled is sent again in the next: its time must not count twice."""
    put(store, "r")
    store.append("segments", {"run_id": "r", "segment": 0, "duration_s": 9.0, "status": "interrupted"})
    put_request(store, "r", record(0, 10))
    put_request(store, "r", record(3, 500))
    assert store.query("SELECT duration_s FROM summary") == [{"duration_s": 3.5}]


def test_outcomes_and_errors_count_each_request_once(store: Store) -> None:
    filled(store)
    shares = store.query("SELECT outcome, count, share FROM outcomes ORDER BY outcome")
    assert {row["outcome"]: row["count"] for row in shares} == {
        "correct": 2, "dropped": 1, "invalid_json": 1, "rejected": 1, "timeout": 1
    }  # fmt: skip
    assert sum(row["share"] for row in shares) == pytest.approx(1)
    kinds = store.query("SELECT error_kind, count, example FROM errors ORDER BY error_kind")
    assert [(row["error_kind"], row["count"]) for row in kinds] == [("dropped", 1), ("timeout", 1)]


# docs/store.md against the code.


def test_the_docs_describe_every_table_view_and_column(store: Store) -> None:
    sections = dict(re.findall(r"^### `(\w+)`.*?\n(.*?)(?=^##|\Z)", DOCS.read_text(), re.M | re.S))
    tables = store.query(
        "SELECT table_name AS t, list(column_name) AS c FROM duckdb_columns()"
        f" WHERE NOT internal AND database_name = '{FILE}' GROUP BY ALL"
    )
    assert {row["t"] for row in tables} == set(sections) >= set(KEYS)
    for row in tables:
        missing = [column for column in row["c"] if f"`{column}`" not in sections[row["t"]]]
        assert missing == [], row["t"]


def test_compliance_counts_what_was_rejected_what_was_violated_and_what_was_valid(store: Store) -> None:
    filled(store)
    put_request(store, "r", record(6, 10), BROKEN)
    put_request(store, "r", record(7, 10), replace(BROKEN, violated_keywords=("minimum",)))
    put_request(store, "r", record(8, 10), Score(outcome="unscored"))
    put_request(store, "r", record(9, 10), Score(outcome="truncated", json_valid=False, schema_valid=False))
    (row,) = store.query("SELECT * FROM compliance")
    counts = {"judged": 7, "rejected": 1, "broken_call": 0, "no_output": 0, "truncated": 1, "invalid_json": 1,
              "violated": 2, "valid": 2}  # fmt: skip
    assert {name: row[name] for name in counts} == counts
    assert sum(counts.values()) == 2 * row["judged"]
    assert (row["unscored"], row["structured"]) == (1, "format")
    assert (row["declared"], row["empirical"], row["compliance"]) == pytest.approx((6 / 7, 2 / 7, 2 / 6))
    found = store.query("SELECT keyword, count, share, example FROM violations ORDER BY keyword")
    assert [(one["keyword"], one["count"], one["share"]) for one in found] == [
        ("minimum", 2, pytest.approx(2 / 7)), ("required", 1, pytest.approx(1 / 7)),
    ]  # fmt: skip


def test_a_server_that_rejects_every_schema_has_no_compliance(store: Store) -> None:
    put(store, "r")
    put_request(store, "r", record(0, kind="rejected"), REJECTED)
    (row,) = store.query("SELECT declared, empirical, compliance FROM compliance")
    assert row == {"declared": 0.0, "empirical": 0.0, "compliance": None}


def test_runs_without_schemas_are_not_in_compliance(store: Store) -> None:
    put(store, "r", replace(CONFIG, structured="none"))
    put_request(store, "r", record(0, 10), Score(outcome="correct", accuracy_score=1.0, tool_call_accuracy=1.0))
    put_request(store, "r", record(1, 10), Score(outcome="unscored"))
    assert store.query("SELECT * FROM compliance") == []


@pytest.mark.parametrize(
    ("requests", "each_ms", "mean"), [(20, 4000, 4.0), (20, 2000, 2.0), (12, 1000, 1.0), (11, 4000, None)]
)
def test_how_many_were_in_flight_is_averaged_over_the_full_part_of_a_closed_loop(
    store: Store, requests: int, each_ms: int, mean: float | None
) -> None:
    put(store, "r")
    for index in range(requests):  # one a second: four seconds each keep four in flight
        put_request(store, "r", record(index, each_ms))
    assert store.query(FACTS, ["r"])[0]["in_flight_mean"] == mean


@pytest.mark.slow
def test_a_run_of_many_requests_is_judged_within_the_memory_of_a_load(tmp_path: Path) -> None:
    """An ordered list of all instants took 512 MB at 20,000 requests, and the load ended in a traceback."""
    path = tmp_path / "db.duckdb"
    with Store(path) as store:
        put(store, "r", status="complete")
    with duckdb.connect(path) as con:
        con.execute(
            "INSERT INTO requests (run_id, request_index, segment, due_ns, sent_ns, end_ns, ttft_s, e2e_s, chunks,"
            " chunk_offsets_us) SELECT 'r', i, 0, i * 1000000, i * 1000000, (i + 4) * 1000000, 0.001, 0.004, 20,"
            " [i % 977 + 100 * j for j in range(20)] FROM range(60000) AS t(i)"
        ).fetchall()
    with Store(path) as store:
        facts = store.query(FACTS, ["r"])[0]
        assert (facts["requests"], facts["in_flight_mean"]) == (60_000, 4.0)
        store.keep_gaps("r")
        (row,) = store.query("SELECT requests, itl_p50_s, ttft_p99_s FROM summary")
        assert row == {"requests": 60_000, "itl_p50_s": 0.0001, "ttft_p99_s": 0.001}


def test_an_open_loop_has_no_number_to_keep_in_flight(store: Store) -> None:
    put(store, "r", replace(CONFIG, load={"kind": "open", "rate": 1.0}))
    for index in range(20):
        put_request(store, "r", record(index, 4000))
    facts = store.query(FACTS, ["r"])[0]
    assert (facts["in_flight_mean"], facts["concurrency"], facts["requests"]) == (None, None, 20)


def found(run_id: str) -> StoredRun:
    return StoredRun(run_id=run_id, status="partial", next_segment=1, label=None, started_at=None)


def test_only_one_of_two_claims_an_interrupted_run_and_none_a_complete_one(tmp_path: Path) -> None:
    path = tmp_path / "db.duckdb"
    with Store(path) as one, Store(path) as two:
        put(one, "stopped", status="interrupted")
        put(one, "done", status="complete")
        one.flush()
        stopped, done = (found(run_id) for run_id in ("stopped", "done"))
        assert two.claim(stopped)
        assert not one.claim(stopped)
        assert not two.claim(done), "it was still to be continued when it was found"
        assert two.claim(replace(done, status="complete")), "to go on with more requests"
        assert not one.claim(replace(done, status="complete", requests=3)), "another process has gone on with it"
        assert not two.claim(found("unknown"))
        assert one.query("SELECT status, owner FROM runs WHERE run_id = 'stopped'") == [
            {"status": "running", "owner": two.owner}
        ]
    with Store(path) as three:
        assert three.claim(stopped), "its owner is gone"

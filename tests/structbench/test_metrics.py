"""The table of metrics agrees with itself, with the store, and with what a load shows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields

import duckdb
import pytest

from loadgen.telemetry.instruments import BY_NAME
from loadgen.types import RequestError, RequestRecord
from structbench.metrics import (
    ALIASES,
    COMPARED,
    INSTRUMENTS,
    LATENCIES,
    LIMITS_OF_RUN,
    METRICS,
    PERCENTILES,
    Metric,
    good_sql,
    is_good,
    limits_of,
    metric_of,
    observed,
)
from structbench.store.rows import row_of
from structbench.store.schema import migrate
from structbench.types import Score
from tests.support.comparisons import requests

LIMITS = {"ttft_s": 0.1, "tpot_s": 0.011}
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        migrate(opened, 0)
        for row in requests(30, wrong=(3, 4), failed=(7,)):
            names = [name for name in row if name != "chunk_offsets_us"]
            marks = ", ".join("?" for _ in names)
            opened.execute(
                f"INSERT INTO requests (run_id, {', '.join(names)}) VALUES ('r', {marks})",
                [row[name] for name in names],
            )
        yield opened


@every_metric
def test_what_a_row_adds_is_the_same_in_sql_and_in_python(con: duckdb.DuckDBPyConnection, metric: Metric) -> None:
    good = good_sql({column: repr(limit) for column, limit in LIMITS.items()})
    found = con.execute(f"SELECT {metric.sql.format(good=good)} AS added, * FROM requests")
    names = [column[0] for column in found.description]
    rows = [dict(zip(names, values, strict=True)) for values in found.fetchall()]
    assert rows
    assert [row["added"] for row in rows] == [metric.adds(row, is_good(row, LIMITS)) for row in rows]


@every_metric
def test_a_metric_has_its_columns_in_the_summary_and_is_written_in_its_unit(
    con: duckdb.DuckDBPyConnection, metric: Metric
) -> None:
    columns = {column[0] for column in con.execute("SELECT * FROM summary").description}
    assert {*metric.columns, *([metric.scored] if metric.scored else []), *ALIASES} <= columns
    assert not metric.only_where or metric.only_where in columns
    assert {*metric.shown, *metric.compared, *metric.brief} <= PERCENTILES.keys()
    unit = {"latency": "500 ms", "rate": "0.500/s", "share": "50.0 %", "score": "0.50"}
    assert metric.text(0.5) == unit[metric.kind]
    assert metric.text(None) == "–"


def test_a_figure_is_its_row_at_a_percentile() -> None:
    figure = metric_of("ttft_p99.9")
    assert figure is not None
    assert (figure.label, figure.key, figure.p, figure.column) == ("TTFT p99.9", "ttft_s", 0.999, "ttft_s")
    assert all(metric_of(each.name) == each for each in COMPARED)
    for alias, name in ALIASES.items():
        assert metric_of(alias) is METRICS[name]


def test_limits_can_be_set_on_every_latency(con: duckdb.DuckDBPyConnection) -> None:
    assert re.findall(r"\$\.(\w+)", LIMITS_OF_RUN) == [metric.column for metric in LATENCIES.values()]
    (view,) = con.execute("SELECT sql FROM duckdb_views() WHERE view_name = 'summary'").fetchall()
    limits = set(re.findall(r"\$\.(\w+)", view[0])) - {"server_address"}  # read of the config
    assert sorted(limits) == sorted(metric.column for metric in LATENCIES.values())


def test_what_is_observed_is_what_the_row_keeps_and_nothing_absent() -> None:
    score = Score(outcome="correct", accuracy_score=0.5, json_valid=False)
    done = RequestRecord(index=0, due_ns=0, sent_ns=0, chunk_ns=(5,), first_answer_ns=5, end_ns=9)
    row = row_of("r", "h", 0, None, 0, done, score)
    found = observed(done, score)
    names = {metric.instrument.name: metric.column for metric in METRICS.values() if metric.instrument is not None}
    assert found
    assert all(row[names[name]] == value for name, value in found.items())
    failed = RequestRecord(index=0, sent_ns=0, first_answer_ns=5, error=RequestError("stream", "boom"))
    assert observed(failed, None) == {}


def test_scores_are_given_to_telemetry_and_not_known_there() -> None:
    names = {instrument.name for instrument in INSTRUMENTS}
    assert not names & BY_NAME.keys()
    scores = {field.name for field in fields(Score)}
    assert not {name for name in BY_NAME if name.removeprefix("structbench.") in scores}


def test_the_table_is_light_to_import() -> None:
    heavy = ("duckdb", "rich", "opentelemetry", "prometheus_client", "numpy", "ollama", "httpx")
    code = f"import sys, structbench.metrics; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (None, None), ("[]", None), ("5", None), ("{}", {}),
        ('{"ttft_s": 1, "e2e_s": 0.5}', {"ttft_s": 1.0, "e2e_s": 0.5}),
        ('{"ttft_s": "1) OR (1 = 1", "1; DROP TABLE runs": 1, "e2e_s": true, "tpot_s": [], "ttft_due_s": 2}',
         {"ttft_due_s": 2.0}),
        ('{"ttft_s": 1e999, "e2e_s": ' + "9" * 400 + "}", {}),
    ],
)  # fmt: skip
def test_stored_limits_are_numbers_of_metrics_whoever_wrote_them(text: str | None, limits: object) -> None:
    assert limits_of(text) == limits

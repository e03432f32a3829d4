"""Rows that somebody else wrote hold anything: each command shows what it can of them, or says one line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import duckdb
import pytest

from structbench.cli import main
from tests.support.loads import ask

pytestmark = pytest.mark.slow

DEEP = "[" * 300 + "]" * 300
ODD_JSON = (
    "[]", "5", "null", '"x"', DEEP, f'{{"a": 1e999, "b": {"1" * 5_000}}}',
    '{"load": 5}', '{"suite": [], "model": {}, "options": 5, "body": [1], "load": {"rate": "x"}, "server_address": 1}',
    '{"gpus": [5, {"memory_bytes": "x"}], "cores": [1], "command": 5, "options": {"text": 5}}',
    '{"command": ["a", 5], "options": 5, "system": {}, "memory_bytes": []}',
    '{"ttft_s": "1) OR (1 = 1", "e2e_s); DROP TABLE runs": 1, "tpot_s": -1}',
    '{"open": [5], "requests": 8, "confidence": 7}', '{"open": 5, "requests": "x"}',
    '{"messages": [5, {"role": []}], "schema": [1], "expected": 7}', '[{"function": 5}, 5, {"arguments": 5}]',
)  # fmt: skip
COLUMNS = [*(("runs", name) for name in ("config", "environment", "metadata", "goodput_limits", "settled")),
           ("requests", "tool_calls"), ("cases", "asked")]  # fmt: skip
ODD_VALUES = {
    "BIGINT": ("NULL", "-1", str(2**63 - 1), str(-(2**63))),
    "DOUBLE": ("NULL", "'nan'", "'infinity'", "-1"),
    "TIMESTAMP": ("NULL", "'infinity'", "'290000-01-01'", "'0044-03-15 (BC)'"),
    "VARCHAR": ("NULL", "''", "chr(27) || chr(0)"),
    "BIGINT[]": ("NULL", "[]", "[NULL]", f"[{2**63 - 1}, {-(2**63)}]"),
    "VARCHAR[]": ("NULL", "[NULL]"),
    "BOOLEAN": ("NULL", "true"),
}  # fmt: skip
TABLES = ("runs", "segments", "requests", "samples", "notes")
KEYS = ("run_id", "segment", "request_index", "sampled_at", "suite_hash", "case_id", "config_hash", "status", "label")
READS = (
    "runs --wide", "runs --json", "stats", "verify", "report", "report --wide --pool", "report --format json",
    "report --format html -o {out}.html", "report --slo goodput>1 correct>=90%", "compare model=sim:fast model=mixed",
    "compare model=sim:fast model=mixed --format json --fail-on ttft_p95>10%", "export -o {out}.csv",
    "export --format benchstat -o {out}.txt", "export --format llmperf -o {out}", "rescore", "sql 'FROM summary'",
    "clean --days 0 --dry-run", "load --explain --simulate --models sim:fast --suites json --requests 8 --skip-cached",
)  # fmt: skip


def try_all(path: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    with duckdb.connect(path) as con:
        con.execute(change).fetchall()
    counts = "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM requests)"
    before = ask(path, counts)
    for line in READS:
        code = main([*shlex.split(line.format(out=path.with_name("out"))), "--db", str(path)])
        err = capsys.readouterr().err
        assert code in (0, 1, 2, 99), line
        assert code != 2 or len(re.findall("^structbench: ", err, re.MULTILINE)) == 1, (line, err)
        assert "\x1b" not in err
    assert ask(path, counts) == before


@pytest.mark.parametrize("value", ODD_JSON, ids=lambda text: text[:40])
def test_odd_json_ends_no_command_in_a_traceback(results: Path, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [f"UPDATE {table} SET {column} = '{value}'" for table, column in COLUMNS]
    try_all(results, "; ".join(changes), capsys)


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in ODD_VALUES.items() for value in values])
def test_odd_values_end_no_command_in_a_traceback(
    results: Path, kind: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    of = "SELECT column_name FROM duckdb_columns() WHERE table_name = '{}' AND data_type = '{}' AND NOT internal"
    for table in TABLES:
        names = [name for (name,) in ask(results, of.format(table, kind)) if name not in KEYS]
        if names:
            changes = ", ".join(f"{name} = {value}" for name in names)
            with duckdb.connect(results) as con:
                con.execute(f"UPDATE {table} SET {changes}").fetchall()
    try_all(results, "SELECT 1", capsys)

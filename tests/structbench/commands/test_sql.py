"""SQL that people ask: it reads this file and nothing else, and every documented query is run."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import psutil
import pytest

from structbench.cli import main
from structbench.commands import sql as command
from structbench.errors import BadInput
from structbench.store import Store
from structbench.store.database import ask
from tests.support.loads import ROOT, start, until

DOCS = ROOT / "docs" / "sql.md"
QUERIES = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.S)


@pytest.mark.parametrize("sql", QUERIES)
def test_every_documented_query_runs_and_finds_something(results_once: Path, sql: str) -> None:
    assert ask(results_once, sql).rows


def test_there_are_a_dozen_and_each_view_is_used_by_one() -> None:
    assert len(QUERIES) >= 12
    for view in ("summary", "latency_percentiles", "outcomes", "decomposition", "errors", "gap_percentiles"):
        assert any(re.search(rf"\b{view}\b", sql) for sql in QUERIES), view


SECRET = Path("/etc/hostname")


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT * FROM read_csv('{SECRET}')",
        f"SELECT * FROM read_text('{SECRET}')",
        f"SELECT * FROM read_blob('{SECRET}')",
        f"FROM '{SECRET}'",
        "FROM glob('/etc/*')",
        f"SELECT * FROM sniff_csv('{SECRET}')",
        "FROM read_parquet('https://example.org/x.parquet')",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "COPY runs TO '{folder}/out.parquet' (FORMAT parquet)",
        "COPY runs FROM '{folder}/in.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "IMPORT DATABASE '{folder}/in'",
        "ATTACH '{folder}/other.duckdb'",
        "ATTACH ':memory:' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT getenv('HOME')",
        "CREATE SECRET s (TYPE s3)",
        "SET enable_external_access = true",
        "SET threads = 1",
        "RESET lock_configuration",
        "PRAGMA enable_external_access = true",
        "SET python_enable_replacements = true",
        "SET temp_directory = '{folder}'",
        "FROM SECRET",
        "INSERT INTO runs (run_id) VALUES ('x')",
        "UPDATE runs SET label = 'x'",
        "DELETE FROM runs",
        "DROP TABLE runs",
        "CREATE TABLE x (y INTEGER)",
        "ALTER TABLE runs ADD COLUMN x INTEGER",
        "SELECT 1; SELECT 2",
        "",
    ],
)
def test_sql_cannot_reach_other_files_the_network_or_the_environment_nor_change_anything(
    results: Path, sql: str
) -> None:
    before = results.read_bytes()
    with pytest.raises(BadInput) as caught:
        ask(results, sql.replace("{folder}", str(results.parent)))
    assert "\n" not in str(caught.value)
    assert list(results.parent.iterdir()) == [results]
    assert results.read_bytes() == before


@pytest.mark.slow
def test_sql_cannot_reach_what_other_processes_put_aside_beside_the_file(results: Path) -> None:
    """DuckDB lets a statement read its temporary folder, and that of a `duckdb` prompt is FILE.tmp."""
    for name in (f"{results.name}.tmp", f".{results.name}.{os.getpid()}-0.tmp"):
        folder = results.with_name(name)
        folder.mkdir()
        (folder / "rows.txt").write_text("what another process put aside")
        for sql in (f"FROM read_text('{folder}/rows.txt')", f"FROM read_blob('{folder}/*')", f"FROM glob('{folder}/*')",
                    f"COPY runs TO '{folder}/out.csv'", f"ATTACH '{folder}/other.duckdb'"):  # fmt: skip
            with pytest.raises(BadInput):
                ask(results, sql)
        assert [each.name for each in folder.iterdir()] == ["rows.txt"]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", r'syntax error at or near "SELEC" \(line 1, column 1\)'),
        ("SELECT model,\n  nope FROM runs", r'"nope" not found .* \(line 2, column 3\)'),
        ("FROM nowhere", r"nowhere does not exist.* \(line 1, column 6\)"),
        ("SELECT 1; SELECT 2", "give one statement at a time, not 2"),
    ],
)
def test_a_mistake_is_told_with_its_place(results_once: Path, sql: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ask(results_once, sql)


@pytest.mark.slow
def test_rows_as_a_table_as_csv_and_as_json(results_once: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT label, 1 AS n, started_at AS first, NULL AS nothing FROM runs WHERE label = 'older'"
    shown = {}
    for format in ("table", "csv", "json"):
        assert main(["sql", sql, "--format", format, "--db", str(results_once)]) == 0
        shown[format] = capsys.readouterr().out
    assert [line.split() for line in shown["table"].splitlines()[::2]] == [
        ["label", "n", "first", "nothing"], ["older", "1", "2026-01-01", "00:00:00", "–"]
    ]  # fmt: skip
    assert shown["csv"] == "label,n,first,nothing\nolder,1,2026-01-01 00:00:00,\n"
    assert json.loads(shown["json"]) == [
        {"label": "older", "n": 1, "first": "2026-01-01T00:00:00+00:00", "nothing": None}
    ]


def test_a_table_shows_the_beginning_of_many_rows_and_nothing_that_drives_the_terminal(
    results_once: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sql", "SELECT chr(27) || '[2J' || i AS x FROM range(1000) t(i)", "--db", str(results_once)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.splitlines()[-1] == f"the first {command.MAX_ROWS} rows (--format csv shows all)"


def test_a_statement_may_come_on_standard_input(
    results_once: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 41 + 1 AS answer;\n"))
    assert main(["sql", "--db", str(results_once)]) == 0
    assert "42" in capsys.readouterr().out


def test_the_prompt_goes_on_after_a_mistake_and_takes_statements_of_several_lines(
    results_once: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter(["", "SELEC 1;", ".tables", "SELECT 'dropped',", KeyboardInterrupt(), "SELECT", "  41 + 1 AS answer;"])

    def read(_prompt: str) -> str:
        line = next(typed, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", read)
    assert main(["sql", "--db", str(results_once)]) == 0
    out, err = capsys.readouterr()
    assert err.splitlines() == ['structbench: Parser Error: syntax error at or near "SELEC" (line 1, column 1)']
    assert "latency_percentiles" in out
    assert "42" in out
    assert "dropped" not in out


def test_the_views_work_in_a_plain_duckdb(results_once: Path) -> None:
    code = (
        "import duckdb, sys\ncon = duckdb.connect(sys.argv[1], read_only=True)\n"
        "for view in 'summary latency_percentiles outcomes decomposition run_decomposition exported'.split():\n"
        "    print(len(con.execute(f'FROM {view}').fetchall()) > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(results_once)], capture_output=True, text=True, cwd="/")
    assert done.stdout.split() == ["True"] * 6, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 3])
def test_ctrl_c_ends_a_statement(results: Path, signals: int) -> None:
    endless = "SELECT count(*) FROM range(1000000000000) AS a(x), range(1000) AS b(y) WHERE hash(x + y) = 1"
    process = start(["sql", endless, "--db", results], results.parent)
    until(lambda: psutil.Process(process.pid).num_threads() > 2, "the statement runs")
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.startswith("structbench: interrupted")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_ends_an_import_which_then_has_changed_nothing(results: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.duckdb"
    with Store(other) as store:
        store.append("runs", {"run_id": "big", "config_hash": "h", "model": "m", "suite": "s", "status": "complete"})
    with duckdb.connect(other) as con:
        con.execute("INSERT INTO requests BY NAME SELECT 'big' AS run_id, range AS request_index, "
                    "repeat(md5(range::VARCHAR), 20) AS output_text FROM range(300000)")  # fmt: skip
    before = ask(results, "SELECT count(*) FROM requests").rows
    process = start(["import", other, "--db", results], tmp_path)
    until(lambda: psutil.Process(process.pid).num_threads() > 2, "the import runs")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    after = ask(results, "SELECT count(*) FROM requests").rows
    if process.returncode == 130:
        assert after == before
        assert err.count("\n") == 1
    else:  # it was quicker
        assert (process.returncode, after) == (0, [(before[0][0] + 300000,)])
        assert "1 run" in out

"""A file that somebody else made has no powers: every command refuses it in one line and shows nothing but its rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from structbench.cli import main
from structbench.errors import BadInput
from structbench.store import Reader, Store, schema
from structbench.store.inspection import _ELSEWHERE, _OF_COLUMNS

SECRET = "what only the owner of this machine may read"

NOTES = "DROP TABLE notes; CREATE TABLE notes (run_id {}, kind VARCHAR, share DOUBLE, at_s DOUBLE, text {})"
HOSTILE = {
    "a view in the place of a table": "DROP TABLE samples; CREATE VIEW samples AS FROM read_text('{secret}')",
    "a view of ours that reads a file": "CREATE OR REPLACE VIEW summary AS FROM read_text('{secret}')",
    "a view of ours that reads a file by its name": "CREATE OR REPLACE VIEW exported AS SELECT * FROM '{secret}'",
    "a macro in the place of a function": "CREATE MACRO median(a) AS (SELECT content FROM read_text('{secret}'))",
    "a macro in the place of an aggregate": "CREATE MACRO count(a) AS (SELECT content FROM read_text('{secret}'))",
    "a table macro in the place of a table": "CREATE MACRO requests() AS TABLE FROM read_text('{secret}')",
    "a table macro in the place of the catalog": "CREATE MACRO duckdb_views() AS TABLE SELECT 1 AS view_name",
    "a table with another column": "ALTER TABLE samples ADD COLUMN more VARCHAR",
    "a table without a column": "ALTER TABLE samples DROP COLUMN t_s",
    "a column of another type": "ALTER TABLE samples ALTER t_s TYPE VARCHAR",
    "a type of its own": "CREATE TYPE mood AS ENUM ('good'); ALTER TABLE samples ALTER t_s TYPE mood USING 'good'",
    "a default": "ALTER TABLE lookups ALTER run_id SET DEFAULT random()::VARCHAR",
    "a generated column": NOTES.format("VARCHAR", "VARCHAR AS (random()::VARCHAR)"),
    "a check": NOTES.format("VARCHAR CHECK (run_id > random()::VARCHAR)", "VARCHAR"),
    "a table without its key": "CREATE OR REPLACE TABLE samples AS FROM samples",
    "an index on an expression": "CREATE INDEX more ON samples (lower(run_id))",
    "no table of requests": "DROP TABLE requests",
    "a version that its tables are not of": "DELETE FROM migrations WHERE version > 2",
    "a version below the first": "UPDATE migrations SET version = -version",
}  # fmt: skip


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ours") / "s.duckdb"
    with Store(path) as store:
        store.append("runs", {"run_id": "r", "config_hash": "h", "model": "m", "suite": "json", "status": "complete"})
        store.append("requests", {"run_id": "r", "request_index": 0, "output_text": "=1+1"})
    return path


@pytest.fixture
def made(ours: Path, tmp_path: Path) -> Callable[[str], Path]:
    def make(sql: str) -> Path:
        secret = tmp_path / "secret.csv"
        secret.write_text(SECRET)
        path = Path(shutil.copy(ours, tmp_path / "theirs.duckdb"))
        with duckdb.connect(path) as con:
            con.execute(sql.replace("{secret}", str(secret))).fetchall()
        return path

    return make


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_is_not_ours_to_the_letter_is_refused_unread_and_unchanged(
    made: Callable[[str], Path], what: str
) -> None:
    path = made(HOSTILE[what])
    before = path.read_bytes()
    with pytest.raises(BadInput, match="that structbench did not make: give another --db") as caught:
        Reader(path)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("what", HOSTILE)
def test_no_command_shows_writes_or_does_what_a_file_says(
    made: Callable[[str], Path], ours: Path, what: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(made(HOSTILE[what]))
    before, own = Path(path).read_bytes(), str(shutil.copy(ours, tmp_path / "own.duckdb"))
    for command in (
        "runs", "runs --json", "report", "report --format html -o {out}", "compare r r", "verify", "stats", "export",
        "export -o {out}", "clean r --yes", "clear-cache r", "load --simulate --requests 1 --suite json",
    ):  # fmt: skip
        words = command.replace("{out}", str(tmp_path / "out")).split()
        assert main([*words, "--db", path]) == 2, command
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1), command
    for words in (["sql", "FROM summary", "--db", path], ["import", path, "--db", own]):
        assert main(words) == 2
        assert SECRET not in "".join(capfd.readouterr())
    assert Path(path).read_bytes() == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sql", [
    "CREATE MACRO p95(x) AS quantile_cont(x, 0.95)", "CREATE VIEW mine AS FROM runs", "CREATE TABLE mine AS FROM runs",
    "CREATE INDEX mine ON samples (run_id, t_s)", "CREATE SCHEMA mine; CREATE TABLE mine.runs (x INTEGER)",
])  # fmt: skip
def test_what_somebody_added_under_names_of_their_own_does_no_harm(made: Callable[[str], Path], sql: str) -> None:
    with Reader(made(sql)) as reader:
        assert reader.query("SELECT run_id, requests FROM summary") == [{"run_id": "r", "requests": 1}]


def test_views_of_every_version_are_taken_for_ours() -> None:
    with duckdb.connect() as con:
        for name in schema.MIGRATIONS:
            schema._apply(con, name)
            views = con.execute("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall()
            assert [sql for (sql,) in views if _ELSEWHERE.search(sql)] == []
        con.execute(schema.views_sql()).fetchall()
        views = con.execute("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall()
        assert [sql for (sql,) in views if _ELSEWHERE.search(sql)] == []


@pytest.mark.parametrize("columns", ["(a)", '("a b", c)', "(a, b)"])
def test_an_index_of_columns_is_told_from_one_of_expressions(columns: str) -> None:
    assert _OF_COLUMNS.fullmatch(f"CREATE UNIQUE INDEX i ON t{columns};")
    assert not _OF_COLUMNS.fullmatch(f"CREATE UNIQUE INDEX i ON t(({columns}));")
    assert not _OF_COLUMNS.fullmatch(f"CREATE UNIQUE INDEX i ON t(lower{columns});")

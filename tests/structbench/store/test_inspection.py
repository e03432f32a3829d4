"""A file that somebody else made has no powers: every command refuses it in one line and shows nothing but its rows."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from loadgen.simulator import Simulator
from structbench.cli import COMMANDS, main
from structbench.errors import BadInput
from structbench.options import DEFAULT_MODELS
from structbench.store import Reader, Store, schema
from structbench.store.inspection import _ELSEWHERE, _OF_COLUMNS
from tests.support.loads import MODELS

pytestmark = pytest.mark.slow

SECRET = "what only the owner of this machine may read"

NOTES = "DROP TABLE notes; CREATE TABLE notes (run_id {}, kind VARCHAR, share DOUBLE, at_s DOUBLE, text {})"
HOSTILE = {
    "a view in the place of a table": "DROP TABLE samples; CREATE VIEW samples AS FROM read_text('{secret}')",
    "a view of ours that reads a file": "CREATE OR REPLACE VIEW summary AS FROM read_text('{secret}')",
    "a view of ours that reads a file by its name": "CREATE OR REPLACE VIEW exported AS SELECT * FROM '{secret}'",
    "a macro in the place of a function": "CREATE MACRO median(a) AS (SELECT content FROM read_text('{secret}'))",
    "a macro in the place of an aggregate": "CREATE MACRO count(a) AS (SELECT content FROM read_text('{secret}'))",
    "a macro in capitals": "CREATE MACRO \"MAX\"(a) AS (SELECT content FROM read_text('{secret}'))",
    "a view of ours in capitals": "DROP VIEW summary; CREATE VIEW \"Summary\" AS FROM read_text('{secret}')",
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
    "a default from a sequence": "CREATE SEQUENCE n; ALTER TABLE lookups ALTER run_id SET DEFAULT nextval('n')::TEXT",
    "a type in the place of one": "CREATE TYPE json AS ENUM ('x')",
    "no table of requests": "DROP TABLE requests",
    "a version that its tables are not of": "DELETE FROM migrations WHERE version > 2",
    "a version below the first": "UPDATE migrations SET version = -version",
}  # fmt: skip

if not duckdb.__version__.startswith("1."):
    HOSTILE |= {
        f"a trigger on {event}": f"CREATE TRIGGER t AFTER {event} ON runs FOR EACH STATEMENT DELETE FROM requests"
        for event in ("INSERT", "UPDATE", "DELETE")
    }

OPENS = {
    "load": ["load --requests 1 --suite json --db {db}", "load --dry-run --suite json --db {db}",
             "load --explain --suite json --db {db}"],
    "runs": ["runs --db {db}", "runs --json --db {db}"],
    "stats": ["stats --db {db}"],
    "compare": ["compare r r --db {db}", "compare {db} {own} --db {own}", "compare {own} {db} --db {own} -o {out}"],
    "export": ["export --db {db}", "export -o {out} --db {db}", "export --format benchstat --db {db}"],
    "import": ["import {db} --db {own}", "import {own} --db {db}"],
    "sql": ["sql 'FROM summary' --db {db}", "sql --format csv 'FROM runs' --db {db}"],
    "verify": ["verify --db {db}"],
    "rescore": ["rescore --db {db}", "rescore --json --db {db}"],
    "clean": ["clean r --yes --db {db}", "clean r --dry-run --db {db}"],
    "clear-cache": ["clear-cache r --db {db}"],
    "suites": ["suites check {db}"],
    "matrix": ["matrix --compare 1 2 --db {db}", "matrix --models smollm2:360m --db {db}"],
    "demo": ["demo --db {db}"],
    "capacity": ["capacity --models smollm2:360m --suites json --most 1 --db {db}"],
    "report": ["report --db {db}", "report --format html -o {out} --db {db}", "report --format markdown --db {db}"],
}  # fmt: skip
"""Each command that opens files, in each way."""
OPENS_NONE = {"simulate", "watch", "calibrate", "completion"}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ours") / "s.duckdb"
    with Store(path) as store:
        store.append("runs", {"run_id": "r", "config_hash": "h", "model": "m", "suite": "json", "status": "complete"})
        store.append("requests", {"run_id": "r", "request_index": 0, "output_text": "=1+1"})
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with Simulator(dict.fromkeys(DEFAULT_MODELS, MODELS["sim:fast"])) as running:
        yield running.url


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


def test_every_command_is_tried_with_them() -> None:
    assert {*OPENS, *OPENS_NONE} == {*COMMANDS}


@pytest.mark.slow
@pytest.mark.parametrize("what", HOSTILE)
def test_no_command_shows_writes_or_does_what_a_file_says(
    made: Callable[[str], Path],
    ours: Path,
    what: str,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", server)
    path = str(made(HOSTILE[what]))
    before, own = Path(path).read_bytes(), str(shutil.copy(ours, tmp_path / "own.duckdb"))
    opens = {
        name: [line.format(db=path, own=own, out=tmp_path / "out") for line in lines] for name, lines in OPENS.items()
    }
    for line in (line for lines in opens.values() for line in lines):
        assert main(shlex.split(line)) == 2, line
        out, err = capfd.readouterr()
        assert err.count("\n") == 1, line
        assert SECRET not in out + err, line
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

"""Migrations that were released never change."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from structbench.store import schema
from structbench.store.schema import MIGRATIONS, sql_of
from tests.support import tables
from tests.support.paths import ROOT

PINNED = {
    "0001-tables": "719093bab949fff80adb067f013ebfbbd6776e62c0fb3f4b6af4e7ff7752ec8c",
    "0002-views": "10d1954ed09b72d6586191741de3e4087c5a0408ef3e638dbf076ac47fb00c40",
    "0003-identity": "8e03a13885fefe5b2f3a89238b764c1085316ca6046da5c6c43766394ad65b0f",
    "0004-views": "ff77372a3094bfbe92532b0132ac755ebcd89978966db2b528e89f1419da9156",
    "0008-steady": "0702eaa4214ebea5daeb9e29d6874f8c93e41353efdb37ae07877b7a4586dcdd",
    "0009-counts": "90f90896fefb49b949c6db52de7a5333918528a7f1b626be51fab09cb992e952",
    "0005-notes": "75d17bdbc89c4c903d7bc3db4479ab45b94cef5b827e696a7d24f38d6125988b",
    "0006-client-lag": "f6fab7a6dac1405655861ea67dce9437e8fb3fc8c05ccd08d3f36f4cdc1d9e97",
    "0013-servers": "9f244a15acb79e3e709318d8636a0742f8317f4b1783a425ab25f53b2108698a",
    "0014-limits": "724b737c11bfd619bd51332cce8a86eaee13e0e4afc9597d1a516239cf5f47cd",
    "0007-old-scores": "2a0d11001bf25b4d1d6164a9118b983305bde4c11b1c70993d948ff2713976a8",
    "0010-away": "cccfd0ea2dd2a16c2bb666e561a34e4f46710493ebff55bbec09eba4eb3a8287",
    "0011-prompts": "9ffc4a33bd0070db39f23374e33580a071b62082576f9f5eff477a18dc73006a",
    "0015-features": "bf6a4881e9261133b5bf33598b2013e47ea48e010f231d959a64f5511501c164",
    "0016-nodes": "bbe2cce80a2da15f1a3f1fe5ca5e7639ea6d2e043c03c3c8143c2892b8836e5b",
    "0017-settled": "5982d65d7ce905aace06b9c36705b526fbfc2a0ffe7f5d96c34538615c740c5e",
    "0018-cases": "ac56932b369d5799c689b923a5c86e9425fcf99b3a0534d6161db53ba6fb1f34",
    "0019-thinking": "9a90c61db1475afc85cf88a767c5def99aa734a6a7dddd367b86bd1600f98fb9",
    "0020-held": "737cf294daae0f044813c7815672c1988011bd04e2c3b3c31fc0aa1be15e9f16",
    "0021-answered": "f438dc4e4550011b0df6eddac199b5e228dfd355dc1c96371b4f51b94ee9c6db",
    "0022-possible": "c16a35cb42b7dbf97e101c815488384d7b0ec1e203489d582a1ad6495ce693a4",
    "0012-machine": "ef306cf6e5b124e399e736249b9690eaf426e29bd90c50be420310c74469bcec",
}


def test_a_released_migration_is_the_text_that_was_released() -> None:
    assert {name: hashlib.sha256(sql_of(name).encode()).hexdigest() for name in MIGRATIONS} == PINNED


def test_the_steps_are_numbered_in_order() -> None:
    assert [int(name.partition("-")[0]) for name in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_a_file_whose_views_are_another_versions_gets_those_of_today(tmp_path: Path) -> None:
    """Version 2 once made its views of a list in the code: files at that version may differ."""
    with duckdb.connect(tmp_path / "s.duckdb") as con:
        for name in MIGRATIONS[:2]:
            con.execute(sql_of(name)).fetchall()
        con.execute("CREATE OR REPLACE VIEW latency_percentiles AS SELECT 1 AS other").fetchall()
        con.execute(
            "CREATE TABLE migrations (version BIGINT PRIMARY KEY, name VARCHAR, applied_at TIMESTAMP,"
            " structbench_version VARCHAR); INSERT INTO migrations VALUES (1, 'tables', NULL, ''), (2, 'v', NULL, '')"
        ).fetchall()
        schema.migrate(con, 2)
        names = con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        views = {name: [column[0] for column in con.execute(f"DESCRIBE {name}").fetchall()] for (name,) in names}
    with duckdb.connect(tmp_path / "new.duckdb") as con:
        schema.migrate(con, 0)
        for name, columns in views.items():
            assert [column[0] for column in con.execute(f"DESCRIBE {name}").fetchall()] == columns
    assert "metric" in views["latency_percentiles"]


def test_every_view_is_found_by_its_name() -> None:
    assert len(schema.views()) == schema.views_sql().count("CREATE OR REPLACE VIEW") > 10


def test_the_tables_that_are_kept_are_those_that_the_migrations_end_in() -> None:
    """If this fails: ``python -m tests.support.tables``."""
    if f"duckdb=={duckdb.__version__} " not in (ROOT / "constraints.txt").read_text():
        pytest.skip("another DuckDB, which may put them in other words")
    assert tables.FILE.read_text() == tables.text()
    assert schema.shape(MIGRATIONS) == schema.made(MIGRATIONS)


@pytest.mark.parametrize("changed", [{"duckdb": "1.0"}, {"migrations": ["0001-tables"]}])
def test_another_duckdb_or_a_newer_migration_makes_the_tables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict[str, Any]
) -> None:
    kept = {**json.loads(tables.FILE.read_text()), "tables": {}, **changed}
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / schema.KEPT).write_text(json.dumps(kept))
    made = schema.made(MIGRATIONS)
    monkeypatch.setattr(schema, "files", lambda _: tmp_path)
    monkeypatch.setattr(schema, "made", lambda _: made)
    schema.shape.cache_clear()
    try:
        assert schema.shape(MIGRATIONS) is made
    finally:
        schema.shape.cache_clear()
